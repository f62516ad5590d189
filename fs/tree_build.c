#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "fs/tree_internal.h"

/* The directory of the entry at hand, kept open for the next one in it. */
struct builder {
	int dirfd; /* the top; borrowed */
	const struct manifest *manifest;
	struct hib_error *error;
	int parent;
	char *parent_path; /* of `parent`; NULL: none is open */
	size_t *first_of_group; /* entry + 1; 0: not made yet */
};

static int begin(struct builder *builder, int dirfd,
		 const struct manifest *manifest, struct hib_error *error)
{
	uint64_t groups = 0;

	for (size_t i = 0; i < manifest->entry_count; i++)
		if (manifest->entries[i].hard_link_group > groups)
			groups = manifest->entries[i].hard_link_group;
	*builder = (struct builder){
		.dirfd = dirfd,
		.manifest = manifest,
		.error = error,
		.parent = -EBADF,
		.first_of_group = calloc(groups + 1, sizeof(size_t)),
	};
	return builder->first_of_group
		       ? 0
		       : hib_fail(error, ENOMEM, "out of memory");
}

static void end(struct builder *builder)
{
	close_fd(builder->parent);
	free(builder->parent_path);
	free(builder->first_of_group);
}

/* Opens the entry's directory unless it is open, and gives its last name. */
static int enter(struct builder *builder, const char *path,
		 const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	size_t size = slash ? (size_t)(slash - path) : 0;
	int fd, r;

	*ret_name = slash ? slash + 1 : path;
	if (builder->parent_path && strlen(builder->parent_path) == size &&
	    memcmp(builder->parent_path, path, size) == 0)
		return 0;
	free(TAKE_PTR(builder->parent_path));
	builder->parent = close_fd(builder->parent);
	r = tree_open_parent(builder->dirfd, path, &fd, ret_name,
			     builder->error);
	if (r < 0)
		return r;
	builder->parent = fd;
	builder->parent_path = strndup(path, size);
	return builder->parent_path
		       ? 0
		       : hib_fail(builder->error, ENOMEM, "out of memory");
}

static int failed(struct builder *builder, const char *what,
		  const struct manifest_entry *entry)
{
	return hib_fail_errno(builder->error, errno, "%s \"%s\"", what,
			      entry->path);
}

/* ---- building ---- */

static int make_file(struct builder *builder,
		     const struct manifest_entry *entry, const char *name)
{
	CLEANUP_CLOSE int fd =
		openat(builder->parent, name,
		       O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC,
		       0600);

	if (fd < 0)
		return failed(builder, "make", entry);
	if (entry->size && ftruncate(fd, (off_t)entry->size) < 0)
		return failed(builder, "set the size of", entry);
	return 0;
}

static int make_link(struct builder *builder,
		     const struct manifest_entry *entry, const char *name)
{
	size_t first = builder->first_of_group[entry->hard_link_group] - 1;
	const char *first_name, *path = builder->manifest->entries[first].path;
	CLEANUP_CLOSE int directory = -EBADF;
	int r = tree_open_parent(builder->dirfd, path, &directory, &first_name,
				 builder->error);

	if (r < 0)
		return r;
	if (linkat(directory, first_name, builder->parent, name, 0) < 0)
		return failed(builder, "link", entry);
	return 0;
}

static int make_node(struct builder *builder,
		     const struct manifest_entry *entry, const char *name)
{
	static const mode_t modes[] = {
		[ENTRY_FIFO] = S_IFIFO,
		[ENTRY_SOCKET] = S_IFSOCK,
		[ENTRY_CHARACTER_DEVICE] = S_IFCHR,
		[ENTRY_BLOCK_DEVICE] = S_IFBLK,
	};

	if (mknodat(builder->parent, name, modes[entry->type] | 0600,
		    makedev(entry->major, entry->minor)) < 0)
		return failed(builder, "make", entry);
	return 0;
}

static int make_entry(struct builder *builder, size_t index)
{
	const struct manifest_entry *entry = &builder->manifest->entries[index];
	uint64_t group = entry->hard_link_group;
	const char *name;
	int r = fault_point("build.entry.before");

	if (r < 0)
		return hib_fail(builder->error, -r,
				"fault point build.entry.before");
	r = enter(builder, entry->path, &name);
	if (r < 0)
		return r;
	if (group && builder->first_of_group[group])
		return make_link(builder, entry, name);
	if (group)
		builder->first_of_group[group] = index + 1;
	switch (entry->type) {
	case ENTRY_DIRECTORY:
		return mkdirat(builder->parent, name, 0700) < 0
			       ? failed(builder, "make", entry)
			       : 0;
	case ENTRY_SYMLINK:
		return symlinkat(entry->target, builder->parent, name) < 0
			       ? failed(builder, "make", entry)
			       : 0;
	case ENTRY_FILE:
		return make_file(builder, entry, name);
	default:
		return make_node(builder, entry, name);
	}
}

/*
 * dirfd may have come to ACLs by a default one above it: they are none of the
 * manifest's, and all that is made here would inherit them.
 */
static int drop_inherited_acls(int dirfd, struct hib_error *error)
{
	static const char *const names[] = { "system.posix_acl_default",
					     "system.posix_acl_access" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (fremovexattr(dirfd, names[i]) < 0 && errno != ENODATA &&
		    errno != EOPNOTSUPP)
			return hib_fail_errno(error, errno,
					      "remove %s from the directory",
					      names[i]);
	return 0;
}

int tree_build(int dirfd, const struct manifest *manifest,
	       struct cancel *cancel, struct hib_error *error)
{
	struct builder builder;
	int r = begin(&builder, dirfd, manifest, error);

	if (r == 0)
		r = drop_inherited_acls(dirfd, error);
	for (size_t i = 0; i < manifest->entry_count && r == 0; i++) {
		if (cancel_requested(cancel))
			r = hib_fail(error, ECANCELED, "cancelled");
		else if (strcmp(manifest->entries[i].path, ".") != 0)
			r = make_entry(&builder, i);
	}
	end(&builder);
	return r;
}

/* ---- sealing ---- */

static int set_xattr(struct builder *builder,
		     const struct manifest_entry *entry,
		     const struct entry_xattr *xattr, const char *path)
{
	if (lsetxattr(path, xattr->name, xattr->value, xattr->size, 0) == 0)
		return 0;
	/* a property of btrfs's means nothing to the others */
	if (strncmp(xattr->name, "btrfs.", 6) == 0 && errno == EOPNOTSUPP)
		return 0;
	return hib_fail_errno(builder->error, errno,
			      "set the attribute %s of \"%s\"", xattr->name,
			      entry->path);
}

/*
 * Owner, then attributes (a change of owner clears security.capability), then
 * the mode (a change of owner clears set-id bits, and an ACL brings a mask that
 * is the mode's group part), then the times.
 */
static int seal(struct builder *builder, const struct manifest_entry *entry,
		int dirfd, const char *name)
{
	struct timespec times[2] = { entry->atime, entry->mtime };
	char path[TREE_PROC_PATH_BYTES];
	int r;

	if (fchownat(dirfd, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) <
	    0)
		return errno == EPERM
			       ? hib_fail(
					 builder->error, EPERM,
					 "\"%s\" belongs to user %u and group %u, which only root can restore: run hibfs as root",
					 entry->path, entry->uid, entry->gid)
			       : failed(builder, "set the owner of", entry);
	tree_proc_path(dirfd, name, path);
	for (size_t i = 0; i < entry->xattr_count; i++) {
		r = set_xattr(builder, entry, &entry->xattrs[i], path);
		if (r < 0)
			return r;
	}
	if (entry->type != ENTRY_SYMLINK &&
	    fchmodat(dirfd, name, entry->mode, 0) < 0)
		return failed(builder, "set the mode of", entry);
	if (utimensat(dirfd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return failed(builder, "set the times of", entry);
	return 0;
}

static int seal_entry(struct builder *builder,
		      const struct manifest_entry *entry)
{
	const char *name;
	int r;

	if (strcmp(entry->path, ".") == 0)
		return seal(builder, entry, builder->dirfd, ".");
	r = enter(builder, entry->path, &name);
	return r < 0 ? r : seal(builder, entry, builder->parent, name);
}

/* What is in a directory before the directory: its mode may shut us out. */
int tree_seal(int dirfd, const struct manifest *manifest, struct cancel *cancel,
	      struct hib_error *error)
{
	struct builder builder;
	int r = begin(&builder, dirfd, manifest, error);

	for (size_t i = 0; i < manifest->entry_count && r == 0; i++) {
		const struct manifest_entry *entry = &manifest->entries[i];
		uint64_t group = entry->hard_link_group;

		if (cancel_requested(cancel))
			r = hib_fail(error, ECANCELED, "cancelled");
		else if (entry->type != ENTRY_DIRECTORY &&
			 !(group && builder.first_of_group[group]++))
			r = seal_entry(&builder, entry);
	}
	for (size_t i = manifest->entry_count; i-- > 0 && r == 0;)
		if (manifest->entries[i].type == ENTRY_DIRECTORY)
			r = seal_entry(&builder, &manifest->entries[i]);
	end(&builder);
	return r;
}
