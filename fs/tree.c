/*
 * Opening and identifying files below a shard's directory, and the walk that
 * tree_capture.c and tree_evict.c share.
 */
#include "fs/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "fs/tree_internal.h"

/* Clocks of file systems tick with the coarse clock; 100 Hz is the slowest. */
#define TICK_NS 10000000L

static int open_beneath(int dirfd, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | O_NOCTTY |
					      O_NONBLOCK),
		.resolve =
			RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
	};
	int fd;

	do {
		fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
	} while (fd < 0 && (errno == EINTR || errno == EAGAIN));
	return fd < 0 ? -errno : fd;
}

/* A path that no system call takes as a whole: its directory first. */
static int open_long(int dirfd, const char *path, int flags,
		     struct hib_error *error)
{
	CLEANUP_CLOSE int parent = -EBADF;
	const char *name;
	int r = tree_open_parent(dirfd, path, &parent, &name, error);

	return r < 0 ? r : open_beneath(parent, name, flags);
}

int tree_open(int dirfd, const char *path, int flags, struct hib_error *error)
{
	bool is_long = strlen(path) >= PATH_MAX;
	int fd = -EPERM;

	if ((flags & O_ACCMODE) == O_RDONLY)
		fd = is_long ? open_long(dirfd, path, flags | O_NOATIME, error)
			     : open_beneath(dirfd, path, flags | O_NOATIME);
	/* only the owner and root may leave atime alone */
	if (fd == -EPERM)
		fd = is_long ? open_long(dirfd, path, flags, error)
			     : open_beneath(dirfd, path, flags);
	return fd < 0 ? hib_fail_errno(error, -fd, "open \"%s\"", path) : fd;
}

int tree_open_parent(int dirfd, const char *path, int *ret_fd,
		     const char **ret_name, struct hib_error *error)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *parent = NULL;
	int r;

	parent = slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
	if (!parent)
		return hib_fail(error, ENOMEM, "out of memory");
	r = dir_open(dirfd, parent, ret_fd, error);
	if (r == 0)
		*ret_name = slash ? slash + 1 : path;
	return r;
}

int tree_proc_check(int dirfd, struct hib_error *error)
{
	char path[TREE_PROC_PATH_BYTES];

	tree_proc_path(dirfd, ".", path);
	if (access(path, F_OK) < 0)
		return hib_fail_errno(
			error, errno,
			"extended attributes need /proc, which is not mounted here");
	return 0;
}

/* ---- identity ---- */

static void note(struct tree_identity *identity, const struct stat *status)
{
	identity->device = status->st_dev;
	identity->inode = status->st_ino;
	identity->size = (uint64_t)status->st_size;
	identity->mtime = status->st_mtim;
	identity->ctime = status->st_ctim;
}

/*
 * Writing the dirty pages back takes the write permission from the page tables
 * of those who map them; the next store then faults and sets ctime: seen so on
 * ext4, xfs and btrfs with kernel 6.18 (tests/unit/test_fs_tree_evict.c). It
 * has to be the waiting kind (WB_SYNC_ALL): the other passes by pages that are
 * being written already, which a store may since have made writable again. On
 * ext4 and xfs nearly every store into such pages then went unseen.
 */
int tree_identify(int fd, struct tree_identity *ret, struct hib_error *error)
{
	struct tree_identity identity;
	struct stat status;

	if (sync_file_range(fd, 0, 0,
			    SYNC_FILE_RANGE_WAIT_BEFORE |
				    SYNC_FILE_RANGE_WRITE |
				    SYNC_FILE_RANGE_WAIT_AFTER) < 0 &&
	    errno != ESPIPE && errno != EINVAL)
		return hib_fail_errno(error, errno, "write back");
	clock_gettime(CLOCK_REALTIME_COARSE, &identity.noted);
	if (fstat(fd, &status) < 0)
		return hib_fail_errno(error, errno, "fstat");
	note(&identity, &status);
	*ret = identity;
	return 0;
}

void tree_identity_note(struct tree_identity *ret, const struct tree_item *item)
{
	ret->noted = item->noted;
	note(ret, &item->status);
}

int tree_identity_at(int dirfd, const char *path, struct tree_identity *ret,
		     struct hib_error *error)
{
	CLEANUP_CLOSE int parent = -EBADF;
	const char *name = path;
	struct timespec noted;
	struct stat status;

	clock_gettime(CLOCK_REALTIME_COARSE, &noted);
	if (strlen(path) >= PATH_MAX) {
		int r = tree_open_parent(dirfd, path, &parent, &name, error);

		if (r < 0)
			return r;
	}
	if (fstatat(parent >= 0 ? parent : dirfd, name, &status,
		    AT_SYMLINK_NOFOLLOW) < 0)
		return hib_fail_errno(error, errno, "stat \"%s\"", path);
	ret->noted = noted;
	note(ret, &status);
	return 0;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* a + 2 ticks < b */
static bool well_before(const struct timespec *a, const struct timespec *b)
{
	struct timespec limit = *a;

	limit.tv_nsec += 2 * TICK_NS;
	if (limit.tv_nsec >= 1000000000) {
		limit.tv_nsec -= 1000000000;
		limit.tv_sec++;
	}
	return limit.tv_sec < b->tv_sec ||
	       (limit.tv_sec == b->tv_sec && limit.tv_nsec < b->tv_nsec);
}

bool tree_identity_same(const struct tree_identity *before,
			const struct tree_identity *now)
{
	return before->device == now->device && before->inode == now->inode &&
	       before->size == now->size &&
	       same_time(&before->mtime, &now->mtime) &&
	       same_time(&before->ctime, &now->ctime) &&
	       well_before(&before->ctime, &before->noted);
}

/* ---- the walk ---- */

struct pending {
	char *path; /* of a directory, "." for the top */
	struct pending *next;
};

struct walk {
	const struct tree_walk *config;
	int dirfd; /* the directory that is being read */
	const char *path; /* its path */
	dev_t device;
	struct pending *pending;
	struct hib_error *error;
};

/* "dir/name", or "name" at the top. */
static char *join(const char *directory, const char *name)
{
	char *path;

	if (strcmp(directory, ".") == 0)
		return strdup(name);
	return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

static int push(struct walk *walk, const char *path)
{
	struct pending *pending = malloc(sizeof(*pending));

	if (pending)
		pending->path = strdup(path);
	if (!pending || !pending->path) {
		free(pending);
		return hib_fail(walk->error, ENOMEM, "out of memory");
	}
	pending->next = walk->pending;
	walk->pending = pending;
	return 0;
}

static int mounted_inside(struct walk *walk, const char *path)
{
	return hib_fail(
		walk->error, EXDEV,
		"another file system (or subvolume) is at \"%s\": a shard has to lie on one",
		path);
}

static int visit_name(struct walk *walk, const char *name)
{
	struct tree_item item = { .dirfd = walk->dirfd, .name = name };
	CLEANUP_FREE char *path = NULL;
	int r;

	if (cancel_requested(walk->config->cancel))
		return hib_fail(walk->error, ECANCELED, "cancelled");
	path = join(walk->path, name);
	if (!path)
		return hib_fail(walk->error, ENOMEM, "out of memory");
	item.path = path;
	clock_gettime(CLOCK_REALTIME_COARSE, &item.noted);
	if (fstatat(walk->dirfd, name, &item.status, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0
				       : hib_fail_errno(walk->error, errno,
							"stat \"%s\"", path);
	if (item.status.st_dev != walk->device)
		return mounted_inside(walk, path);
	r = walk->config->visit(walk->config->arg, &item, walk->error);
	if (r == 0 && S_ISDIR(item.status.st_mode))
		r = push(walk, path);
	return r == -ENOENT ? 0 : r;
}

/* Not by dir_each(): a walk leaves the atimes of directories alone. */
static int read_directory(struct walk *walk, const char *path)
{
	CLEANUP_CLOSEDIR DIR *dir = NULL;
	struct dirent *entry;
	int fd = fcntl(walk->dirfd, F_DUPFD_CLOEXEC, 0);
	int r;

	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		close_fd(fd);
		return hib_fail_errno(walk->error, errno, "read \"%s\"", path);
	}
	while (errno = 0, (entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 ||
		    strcmp(entry->d_name, "..") == 0)
			continue;
		r = visit_name(walk, entry->d_name);
		if (r < 0)
			return r;
	}
	return errno ? hib_fail_errno(walk->error, errno, "read \"%s\"", path)
		     : 0;
}

static int walk_directory(struct walk *walk, int topfd, const char *path)
{
	int fd = tree_open(topfd, path, O_RDONLY | O_DIRECTORY, walk->error);
	int r;

	/* removed, or something else since it was seen */
	if ((fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP) &&
	    strcmp(path, ".") != 0)
		return 0;
	/* a mount of the same file system shows no other st_dev */
	if (fd == -EXDEV)
		return mounted_inside(walk, path);
	if (fd < 0)
		return fd;
	walk->dirfd = fd;
	walk->path = path;
	r = read_directory(walk, path);
	walk->dirfd = close_fd(walk->dirfd);
	return r;
}

int tree_walk(int dirfd, const struct tree_walk *config,
	      struct hib_error *error)
{
	struct walk walk = { .config = config,
			     .dirfd = -EBADF,
			     .error = error };
	struct stat status;
	int r;

	if (fstat(dirfd, &status) < 0)
		return hib_fail_errno(error, errno, "stat the shard");
	walk.device = status.st_dev;
	r = push(&walk, ".");
	while (walk.pending) {
		struct pending *pending = walk.pending;

		walk.pending = pending->next;
		if (r == 0)
			r = walk_directory(&walk, dirfd, pending->path);
		free(pending->path);
		free(pending);
	}
	return r;
}
