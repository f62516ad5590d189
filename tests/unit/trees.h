/*
 * Trees to test with: one that has something of everything, its capture, and
 * the comparison of two captures.
 */
#ifndef HIBFS_TESTS_UNIT_TREES_H
#define HIBFS_TESTS_UNIT_TREES_H

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "fs/tree.h"
#include "tests/unit/scratch.h"
#include "tests/unit/test.h"

#define CHUNK_BYTES 262144

__attribute__((unused)) static const uint8_t capability[20] = {
	1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
};
/* u::rwx u:1234:rw- g::r-x m::rwx o::r-x, as acl(5) has it on Linux */
__attribute__((unused)) static const uint8_t acl[] = {
	2,    0,    0,	  0,	1,    0,    7,	  0,	0xff, 0xff, 0xff,
	0xff, 2,    0,	  6,	0,    0xd2, 4,	  0,	0,    4,    0,
	5,    0,    0xff, 0xff, 0xff, 0xff, 0x10, 0,	7,    0,    0xff,
	0xff, 0xff, 0xff, 0x20, 0,    5,    0,	  0xff, 0xff, 0xff, 0xff
};

__attribute__((unused)) static bool is_root(void)
{
	if (geteuid() != 0)
		printf("     not root: less is shown\n");
	return geteuid() == 0;
}

__attribute__((unused)) static void proc_path(int dirfd, const char *name,
					      char ret[512])
{
	snprintf(ret, 512, "/proc/self/fd/%d/%s", dirfd, name);
}

__attribute__((unused)) static int make_directory(int dirfd, const char *name)
{
	int fd;

	CHECK_INT(mkdirat(dirfd, name, 0755), 0);
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

__attribute__((unused)) static void make_file(int dirfd, const char *name,
					      size_t size)
{
	CLEANUP_FREE char *bytes = malloc(size + 1);

	memset(bytes, 'x', size + 1);
	scratch_write(dirfd, name, bytes, size);
}

__attribute__((unused)) static void set_attribute(int dirfd, const char *path,
						  const char *name,
						  const void *value,
						  size_t size)
{
	char proc[512];

	proc_path(dirfd, path, proc);
	if (lsetxattr(proc, name, value, size, 0) < 0)
		TEST_FAIL("setxattr %s of %s: %s", name, path, strerror(errno));
}

__attribute__((unused)) static void set_times(int dirfd, const char *path,
					      int64_t atime, int64_t mtime)
{
	const struct timespec times[2] = { { atime, 123456789 },
					   { mtime, 999999999 } };

	CHECK_INT(utimensat(dirfd, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

/* Names of every byte, as long as they get. */
__attribute__((unused)) static void make_names(int dirfd)
{
	char name[256];

	memset(name, 0xc3, 255);
	name[255] = 0;
	make_file(dirfd, name, 1);
	for (int i = 1; i < 256; i++)
		name[i - 1] = (char)(i == '/' ? 'x' : i);
	make_file(dirfd, name, 0);
	make_file(dirfd, "new\nline", 3);
	make_file(dirfd, "d-", 1);
	make_file(dirfd, "...", 1);
	make_file(dirfd, " ", 1);
}

__attribute__((unused)) static void make_special(int dirfd)
{
	CHECK_INT(mkfifoat(dirfd, "fifo", 0620), 0);
	CHECK_INT(mknodat(dirfd, "socket", S_IFSOCK | 0777, 0), 0);
	if (is_root()) {
		CHECK_INT(mknodat(dirfd, "null", S_IFCHR | 0666, makedev(1, 3)),
			  0);
		CHECK_INT(mknodat(dirfd, "disk", S_IFBLK | 0660,
				  makedev(259, 70000)),
			  0);
	}
	CHECK_INT(symlinkat("/nowhere/\xff", dirfd, "dangling"), 0);
	CHECK_INT(symlinkat("d", dirfd, "to-d"), 0);
	set_times(dirfd, "dangling", 5, -7);
	set_times(dirfd, "fifo", 1, 2);
}

__attribute__((unused)) static void make_links(int dirfd)
{
	CHECK_INT(linkat(dirfd, "d/inner", dirfd, "a-link", 0), 0);
	CHECK_INT(linkat(dirfd, "d/inner", dirfd, "d/other", 0), 0);
	CHECK_INT(linkat(dirfd, "fifo", dirfd, "d/fifo", 0), 0);
	CHECK_INT(linkat(dirfd, "dangling", dirfd, "z-dangling", 0), 0);
	/* the other name is not in this shard */
	CHECK_INT(linkat(dirfd, "new\nline", dirfd, "../outside", 0), 0);
}

__attribute__((unused)) static void make_owned(int dirfd)
{
	make_file(dirfd, "set-id", 100);
	make_file(dirfd, "capable", 100);
	CHECK_INT(fchmodat(dirfd, "set-id", 06751, 0), 0);
	if (!is_root())
		return;
	CHECK_INT(fchownat(dirfd, "set-id", 1000, 4294967294u, 0), 0);
	CHECK_INT(fchmodat(dirfd, "set-id", 06751, 0), 0);
	CHECK_INT(fchownat(dirfd, "dangling", 7, 8, AT_SYMLINK_NOFOLLOW), 0);
	set_attribute(dirfd, "capable", "security.capability", capability,
		      sizeof(capability));
	set_attribute(dirfd, "capable", "trusted.t", "\0\xff", 2);
	set_attribute(dirfd, "capable", "trusted.overlay.opaque", "y", 1);
	set_attribute(dirfd, "dangling", "trusted.link", "l", 1);
}

/* Something of all that a file system holds. */
__attribute__((unused)) static void make_rich_tree(int dirfd)
{
	CLEANUP_CLOSE int d = make_directory(dirfd, "d");
	CLEANUP_CLOSE int empty = make_directory(d, "empty");
	CLEANUP_CLOSE int shut = make_directory(dirfd, "shut");

	make_names(dirfd);
	make_special(dirfd);
	make_owned(dirfd);
	make_file(d, "inner", 300000);
	make_file(shut, "x", 1);
	make_links(dirfd);
	make_file(dirfd, "sparse", 1);
	{
		CLEANUP_CLOSE int fd = openat(dirfd, "sparse", O_WRONLY);

		CHECK_INT(ftruncate(fd, (off_t)1 << 40), 0);
	}
	set_attribute(dirfd, "d/inner", "user.\xfe", "", 0);
	set_attribute(dirfd, "d/inner", "user.b", "\0\n", 2);
	set_attribute(dirfd, "d/inner", "system.posix_acl_access", acl,
		      sizeof(acl));
	set_attribute(dirfd, "d", "system.posix_acl_default", acl, sizeof(acl));
	set_attribute(dirfd, ".", "user.top", "t", 1);
	make_file(d, "late", 1); /* inherits */
	CHECK_INT(fchmodat(dirfd, "shut", 0, 0), 0);
	CHECK_INT(fchmodat(dirfd, "d", 03775, 0), 0);
	CHECK_INT(fchmod(dirfd, 01711), 0);
	set_times(dirfd, "d/inner", 1, -1000000000);
	set_times(dirfd, "d", 3, 8000000000);
	set_times(dirfd, "d/empty", 4, 0);
	set_times(dirfd, ".", -1, 1234567890);
}

__attribute__((unused)) static struct manifest *
capture_all(int dirfd, struct tree_identity **ret_identities)
{
	struct manifest *m = manifest_new();
	struct tree_identity *identities = NULL;
	struct hib_error error = HIB_ERROR_INIT;
	uint64_t chunk = 0;

	if (tree_capture(dirfd, m, &identities, NULL, &error) < 0)
		TEST_FAIL("%s", error.message);
	m->bucket = strdup("b");
	m->shard = strdup("s");
	strcpy(m->node, "n");
	strcpy(m->task, "t");
	strcpy(m->tool_version, "x");
	for (size_t i = 0; i < m->entry_count; i++) {
		struct manifest_entry *entry = &m->entries[i];

		if (entry->type != ENTRY_FILE)
			continue;
		entry->chunk_bytes = CHUNK_BYTES;
		entry->first_chunk = chunk;
		entry->chunk_count =
			(entry->size + CHUNK_BYTES - 1) / CHUNK_BYTES;
		chunk += entry->chunk_count;
	}
	CHECK_INT(manifest_total(m), 0);
	if (ret_identities)
		*ret_identities = identities;
	else
		free(identities);
	return m;
}

/* The manifest as it comes back from a store. Takes over `m`. */
__attribute__((unused)) static struct manifest *
through_store(struct manifest *m)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(64u << 20);
	struct hib_error error = HIB_ERROR_INIT;
	struct manifest *again;

	if (manifest_write(m, &text, &error) < 0 ||
	    manifest_parse("m", text.data, text.size, &again, &error) < 0)
		TEST_FAIL("%s", error.message);
	manifest_free(m);
	return again;
}

__attribute__((unused)) static void build_all(int dirfd,
					      const struct manifest *m)
{
	struct hib_error error = HIB_ERROR_INIT;

	if (tree_build(dirfd, m, NULL, &error) < 0)
		TEST_FAIL("%s", error.message);
}

__attribute__((unused)) static void seal_all(int dirfd,
					     const struct manifest *m)
{
	struct hib_error error = HIB_ERROR_INIT;

	if (tree_seal(dirfd, m, NULL, &error) < 0)
		TEST_FAIL("%s", error.message);
}

__attribute__((unused)) static void
check_same_xattrs(const struct manifest_entry *a,
		  const struct manifest_entry *b)
{
	if (a->xattr_count != b->xattr_count)
		TEST_FAIL("\"%s\" has %zu xattrs, not %zu", a->path,
			  b->xattr_count, a->xattr_count);
	for (size_t i = 0; i < a->xattr_count; i++) {
		CHECK_STR(b->xattrs[i].name, a->xattrs[i].name);
		CHECK_INT(b->xattrs[i].size, a->xattrs[i].size);
		CHECK_MEM(b->xattrs[i].value, a->xattrs[i].value,
			  a->xattrs[i].size);
	}
}

__attribute__((unused)) static void
check_same_entry(const struct manifest_entry *a, const struct manifest_entry *b)
{
	CHECK_STR(b->path, a->path);
	CHECK_INT(b->type, a->type);
	CHECK_INT(b->hard_link_group, a->hard_link_group);
	if (a->mode != b->mode || a->uid != b->uid || a->gid != b->gid ||
	    a->mtime.tv_sec != b->mtime.tv_sec ||
	    a->mtime.tv_nsec != b->mtime.tv_nsec ||
	    a->atime.tv_sec != b->atime.tv_sec ||
	    a->atime.tv_nsec != b->atime.tv_nsec || a->size != b->size ||
	    a->major != b->major || a->minor != b->minor)
		TEST_FAIL("\"%s\" has other attributes", a->path);
	CHECK_STR(b->target, a->target);
	check_same_xattrs(a, b);
}

__attribute__((unused)) static void check_same(const struct manifest *a,
					       const struct manifest *b)
{
	CHECK_INT(b->entry_count, a->entry_count);
	for (size_t i = 0; i < a->entry_count; i++)
		check_same_entry(&a->entries[i], &b->entries[i]);
}

__attribute__((unused)) static struct manifest_entry *
add(struct manifest *m, const char *path, enum entry_type type)
{
	struct manifest_entry *entry = manifest_add(m);

	entry->path = strdup(path);
	entry->type = type;
	entry->mode = 0644;
	entry->uid = geteuid();
	entry->gid = getegid();
	return entry;
}

#endif
