/*
 * Eviction frees what there is and changes nothing else; an identity tells
 * whether a file has changed, stores through mappings included. Runs in /tmp,
 * as root for what only root can do.
 */
#include <sys/mman.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "tests/unit/trees.h"

#define TMPFS_MAGIC_NUMBER 0x01021994
#define FILES_IN_LARGE_TREE 20000

/* ---- identity ---- */

static void wait_ticks(void)
{
	const struct timespec ticks = { .tv_nsec = 40000000 };

	clock_nanosleep(CLOCK_MONOTONIC, 0, &ticks, NULL);
}

static bool is_same_at(int dirfd, const char *path,
		       const struct tree_identity *before)
{
	struct tree_identity now;

	CHECK_INT(tree_identity_at(dirfd, path, &now, NULL), 0);
	return tree_identity_same(before, &now);
}

/* req: T11 */
TEST(an_identity_changes_with_the_file)
{
	int top = scratch_new();
	struct tree_identity *identities, opened, at;
	struct stat status;
	int fd;

	make_file(top, "f", 100);
	fd = openat(top, "f", O_RDWR);
	CHECK_INT(tree_identify(fd, &opened, NULL), 0);
	CHECK(!is_same_at(top, "f", &opened)); /* too young to tell */
	wait_ticks();
	CHECK_INT(tree_identify(fd, &opened, NULL), 0);
	CHECK(is_same_at(top, "f", &opened));
	manifest_free(capture_all(top, &identities));
	CHECK(is_same_at(top, "f", &identities[1]));
	CHECK_INT(pwrite(fd, "y", 1, 0), 1);
	CHECK(!is_same_at(top, "f", &opened));
	CHECK(!is_same_at(top, "f", &identities[1]));
	free(identities);
	wait_ticks();
	CHECK_INT(tree_identity_at(top, "f", &at, NULL), 0);
	CHECK_INT(fstat(fd, &status), 0);
	/* times set back do not hide it */
	CHECK_INT(pwrite(fd, "z", 1, 0), 1);
	CHECK_INT(futimens(fd, (struct timespec[]){ status.st_atim,
						    status.st_mtim }),
		  0);
	CHECK(!is_same_at(top, "f", &at));
	wait_ticks();
	CHECK_INT(tree_identity_at(top, "f", &at, NULL), 0);
	CHECK_INT(renameat(top, "f", top, "g"), 0);
	make_file(top, "f", 100);
	wait_ticks();
	CHECK(!is_same_at(top, "f", &at));
	close(fd);
	scratch_done(top);
}

/* A directory's walk was long ago, its stat just after a change: not so. */
TEST(a_capture_notes_the_time_before_it_looks)
{
	int top = scratch_new();
	struct tree_identity *identities;
	struct timespec end;

	make_file(top, "f", 1);
	manifest_free(capture_all(top, &identities));
	clock_gettime(CLOCK_REALTIME_COARSE, &end);
	for (int i = 0; i < 2; i++)
		CHECK(identities[i].noted.tv_sec < end.tv_sec ||
		      (identities[i].noted.tv_sec == end.tv_sec &&
		       identities[i].noted.tv_nsec <= end.tv_nsec));
	CHECK(!tree_identity_same(&identities[1], &identities[1]));
	free(identities);
	scratch_done(top);
}

static void check_store_is_seen(int top, bool under_writeback)
{
	CLEANUP_CLOSE int fd = openat(top, "m", O_RDWR | O_CREAT, 0600);
	const size_t size = 1 << 20;
	struct tree_identity before, after;
	char *map;

	CHECK_INT(ftruncate(fd, (off_t)size), 0);
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED);
	memset(map, 1, size);
	if (under_writeback) {
		sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
		memset(map, 2, size);
	}
	wait_ticks();
	CHECK_INT(tree_identify(fd, &before, NULL), 0);
	wait_ticks();
	map[size / 2] = 9;
	CHECK_INT(tree_identity_at(top, "m", &after, NULL), 0);
	CHECK(before.ctime.tv_sec != after.ctime.tv_sec ||
	      before.ctime.tv_nsec != after.ctime.tv_nsec);
	munmap(map, size);
}

/* req: L3 */
TEST(a_store_through_a_mapping_changes_the_identity)
{
	int top = scratch_new();
	struct statfs fs;

	CHECK_INT(fstatfs(top, &fs), 0);
	if (fs.f_type == TMPFS_MAGIC_NUMBER)
		printf("     not on tmpfs, which writes nothing back\n");
	for (int i = 0; i < 20 && fs.f_type != TMPFS_MAGIC_NUMBER; i++)
		check_store_is_seen(top, i % 2);
	scratch_done(top);
}

/* ---- eviction ---- */

/* ext4 keeps attributes that do not fit into the inode in a block. */
static void check_evicted(int dirfd, const char *path, bool has_xattrs)
{
	struct stat status;

	CHECK_INT(fstatat(dirfd, path, &status, 0), 0);
	if (status.st_blocks > (has_xattrs ? 8 : 0))
		TEST_FAIL("%s keeps %ld blocks", path, (long)status.st_blocks);
}

/* Like du: each inode of a file once. */
static uint64_t allocated_in(int dirfd, const struct manifest *m)
{
	CLEANUP_FREE bool *seen = calloc(m->entry_count + 1, sizeof(*seen));
	uint64_t bytes = 0;

	for (size_t i = 0; i < m->entry_count; i++) {
		const struct manifest_entry *entry = &m->entries[i];
		struct stat status;

		if (entry->type != ENTRY_FILE)
			continue;
		if (entry->hard_link_group && seen[entry->hard_link_group])
			continue;
		seen[entry->hard_link_group] = true;
		CHECK_INT(fstatat(dirfd, entry->path, &status, 0), 0);
		bytes += 512 * (uint64_t)status.st_blocks;
	}
	return bytes;
}

/* Reading a symlink changes its atime, and there is no way not to. */
static void forget_link_atimes(struct manifest *m)
{
	for (size_t i = 0; i < m->entry_count; i++)
		if (m->entries[i].type == ENTRY_SYMLINK)
			m->entries[i].atime = (struct timespec){ 0 };
}

static void evict_all(int dirfd, uint64_t *ret_freed)
{
	struct hib_error error = HIB_ERROR_INIT;

	if (tree_evict(dirfd, NULL, ret_freed, &error) < 0)
		TEST_FAIL("%s", error.message);
}

/* req: P2 */
TEST(an_eviction_frees_every_block_and_changes_nothing_else)
{
	static const size_t sizes[] = { 1,    100,   4095,  4096,
					4097, 65535, 65536, 1000001 };
	int top = scratch_new();
	struct manifest *before, *after;
	uint64_t freed = 0, allocated;
	char name[32];
	int rich;

	rich = make_directory(top, "rich");
	make_rich_tree(rich);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		snprintf(name, sizeof(name), "f%zu", sizes[i]);
		make_file(top, name, sizes[i]);
		CLEANUP_CLOSE int fd = openat(top, name, O_RDWR);

		/* preallocated behind the end; ENOTSUP is fine */
		if (i % 2)
			(void)!fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 500000);
		CHECK_INT(fsync(fd), 0);
	}
	syncfs(top);
	before = capture_all(top, NULL);
	allocated = allocated_in(top, before);
	evict_all(top, &freed);
	CHECK_INT(freed, allocated - allocated_in(top, before));
	after = capture_all(top, NULL);
	forget_link_atimes(before);
	forget_link_atimes(after);
	check_same(before, after);
	for (size_t i = 0; i < after->entry_count; i++)
		if (after->entries[i].type == ENTRY_FILE)
			check_evicted(top, after->entries[i].path,
				      after->entries[i].xattr_count > 0);
	evict_all(top, &freed);
	CHECK_INT(freed, 0);
	manifest_free(before);
	manifest_free(after);
	close(rich);
	scratch_done(top);
}

static void check_busy(int top)
{
	struct hib_error error = HIB_ERROR_INIT;
	uint64_t freed = 7;

	CHECK_INT(tree_evict(top, NULL, &freed, &error), -EBUSY);
	CHECK(strstr(error.message, "\"d/busy\""));
	CHECK_INT(freed, 7);
}

/* req: P1 */
TEST(a_file_in_use_is_not_evicted)
{
	int top = scratch_new();
	int d = make_directory(top, "d");
	uint64_t freed;
	char *map;
	int fd;

	make_file(d, "busy", 10000);
	fd = openat(d, "busy", O_RDONLY);
	check_busy(top);
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED);
	close(fd);
	check_busy(top);
	CHECK_INT(map[0], 'x');
	munmap(map, 4096);
	fd = openat(d, "busy", O_WRONLY | O_APPEND);
	check_busy(top);
	close(fd);
	evict_all(top, &freed);
	check_evicted(top, "d/busy", false);
	close(d);
	scratch_done(top);
}

/* ---- without privileges ---- */

static int evict_and_build_as_nobody(const char *path)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct manifest *m = manifest_new();
	uint64_t freed = 0;
	struct stat status;
	int top, built;

	if (setgid(65534) < 0 || setuid(65534) < 0)
		return 1;
	top = open(path, O_RDONLY | O_DIRECTORY);
	if (top < 0 || tree_evict(top, NULL, &freed, &error) < 0) {
		fprintf(stderr, "%s\n", error.message);
		return 2;
	}
	if (fstatat(top, "read-only", &status, 0) < 0 || status.st_blocks ||
	    (status.st_mode & 07777) != 0440 || status.st_mtim.tv_sec != 2)
		return 3;
	if (mkdirat(top, "built", 0700) < 0)
		return 4;
	built = openat(top, "built", O_RDONLY | O_DIRECTORY);
	add(m, ".", ENTRY_DIRECTORY)->mode = 0755;
	add(m, "f", ENTRY_FILE)->mode = 0400;
	if (tree_build(built, m, NULL, &error) < 0 ||
	    tree_seal(built, m, NULL, &error) < 0)
		return 5;
	m->entries[1].uid = 0;
	if (tree_seal(built, m, NULL, &error) != -EPERM ||
	    !strstr(error.message, "run hibfs as root"))
		return 6;
	return 0;
}

/* req: A6 */
TEST(without_privileges_ones_own_files_are_served)
{
	int top = scratch_new(), status;
	char path[256];
	pid_t child;

	if (!is_root()) {
		scratch_done(top);
		return;
	}
	make_file(top, "read-only", 10000);
	set_times(top, "read-only", 1, 2);
	CHECK_INT(fchmodat(top, "read-only", 0440, 0), 0);
	CHECK_INT(fchownat(top, "read-only", 65534, 65534, 0), 0);
	CHECK_INT(fchown(top, 65534, 65534), 0);
	scratch_path(top, path);
	child = fork();
	if (child == 0)
		_exit(evict_and_build_as_nobody(path));
	CHECK_INT(waitpid(child, &status, 0), child);
	CHECK_INT(status, 0);
	scratch_done(top);
}

/* ---- size ---- */

static unsigned since(uint64_t *begin)
{
	uint64_t now = clock_monotonic_ms();
	unsigned ms = (unsigned)(now - *begin);

	*begin = now;
	return ms;
}

/* req: F4 */
TEST(a_large_tree_takes_no_time)
{
	int top = scratch_new();
	int source = make_directory(top, "source");
	int built = make_directory(top, "built");
	struct manifest *m, *again;
	uint64_t begin, freed;
	unsigned capture_ms, build_ms, seal_ms, evict_ms;
	int d = -EBADF;

	for (int i = 0; i < FILES_IN_LARGE_TREE; i++) {
		char name[32];

		if (i % (FILES_IN_LARGE_TREE / 10) == 0) {
			close_fd(d);
			snprintf(name, sizeof(name), "d%d", i);
			d = make_directory(source, name);
		}
		snprintf(name, sizeof(name), "f%d", i);
		make_file(d, name, 1);
	}
	close(d);
	begin = clock_monotonic_ms();
	m = capture_all(source, NULL);
	capture_ms = since(&begin);
	build_all(built, m);
	build_ms = since(&begin);
	seal_all(built, m);
	seal_ms = since(&begin);
	evict_all(source, &freed);
	evict_ms = since(&begin);
	printf("     %d files: capture %u ms, build %u, seal %u, evict %u\n",
	       FILES_IN_LARGE_TREE, capture_ms, build_ms, seal_ms, evict_ms);
	CHECK(capture_ms + build_ms + seal_ms + evict_ms < 60000);
	again = capture_all(built, NULL);
	check_same(m, again);
	manifest_free(m);
	manifest_free(again);
	close(source);
	close(built);
	scratch_done(top);
}

TEST_MAIN()
