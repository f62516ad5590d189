/* tree_remove() of base/file.h. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

/*
 * One descriptor is open for each level; what lies deeper than this is moved
 * up into the top directory first and removed from there, so that no depth
 * exhausts descriptors or stack.
 */
#define DEPTH_LIMIT 32
/* A directory that refills as it is emptied is an error, not a loop. */
#define PASS_LIMIT 10000

struct removal {
	int topfd; /* the directory that deep ones are moved to; not owned */
	uint64_t moved; /* number of the next one moved */
	dev_t dev;
	struct hib_error *error;
};

struct level {
	struct removal *removal;
	int dirfd;
	unsigned int depth;
};

static int remove_directory(struct removal *removal, int dirfd,
			    const char *name, unsigned int depth);

static int move_up(struct removal *removal, int dirfd, const char *name)
{
	char moved[64];

	for (;;) {
		snprintf(moved, sizeof(moved), ".hibfs-remove-%llu",
			 (unsigned long long)removal->moved++);
		if (renameat2(dirfd, name, removal->topfd, moved,
			      RENAME_NOREPLACE) == 0)
			return 0;
		if (errno != EEXIST)
			return hib_fail_errno(removal->error, errno,
					      "cannot move %s", name);
	}
}

static int remove_entry(void *arg, const char *name, unsigned char d_type)
{
	struct level *level = arg;

	if (d_type == DT_DIR)
		return remove_directory(level->removal, level->dirfd, name,
					level->depth + 1);
	if (unlinkat(level->dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	return hib_fail_errno(level->removal->error, errno, "cannot remove %s",
			      name);
}

static int open_for_removal(struct removal *removal, int dirfd,
			    const char *name, int *ret_fd)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (st.st_dev != removal->dev)
		return hib_fail(removal->error, EXDEV,
				"cannot remove %s: another file system is "
				"mounted there",
				name);
	/* The owner may have taken the right to list or change it away. */
	if ((st.st_mode & S_IRWXU) != S_IRWXU && S_ISDIR(st.st_mode) &&
	    fchmodat(dirfd, name, (st.st_mode & 07777) | S_IRWXU, 0) < 0)
		return -errno;
	fd = openat(dirfd, name,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int remove_directory(struct removal *removal, int dirfd,
			    const char *name, unsigned int depth)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct level level = { .removal = removal, .depth = depth };
	int r;

	r = open_for_removal(removal, dirfd, name, &fd);
	if (r == -ENOENT)
		return 0;
	if (r < 0 && removal->error && removal->error->code)
		return r;
	if (r < 0)
		return hib_fail_errno(removal->error, -r, "cannot open %s",
				      name);
	if (depth == DEPTH_LIMIT)
		return move_up(removal, dirfd, name);
	if (depth == 0)
		removal->topfd = fd;
	level.dirfd = fd;
	/* Again while a pass leaves something: moved up, or newly made. */
	for (unsigned int pass = 0; pass < PASS_LIMIT; pass++) {
		r = dir_each(fd, remove_entry, &level, removal->error);
		if (r < 0)
			return r;
		if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (errno != ENOTEMPTY && errno != EEXIST)
			return hib_fail_errno(removal->error, errno,
					      "cannot remove %s", name);
	}
	return hib_fail(removal->error, ENOTEMPTY,
			"cannot remove %s: it fills again and again", name);
}

int tree_remove(int dirfd, const char *name, struct hib_error *error)
{
	struct hib_error inner = HIB_ERROR_INIT;
	struct removal removal = { .topfd = -EBADF, .error = &inner };
	struct stat st;
	int r;

	if (!name_is_plain(name))
		return hib_fail(error, EINVAL, "%s: not a name in a directory",
				name);
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno == ENOENT)
			return 0;
		return hib_fail_errno(error, errno, "cannot remove %s", name);
	}
	if (!S_ISDIR(st.st_mode)) {
		if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
			return 0;
		return hib_fail_errno(error, errno, "cannot remove %s", name);
	}
	removal.dev = st.st_dev;
	r = remove_directory(&removal, dirfd, name, 0);
	if (r < 0) {
		if (error)
			*error = inner;
		return hib_wrap(error, r, "remove %s", name);
	}
	return 0;
}
