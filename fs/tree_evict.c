#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdint.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "fs/tree_internal.h"

#define CAPABILITY "security.capability"
#define CAPABILITY_BYTES 64
/* A multiple of the block sizes of all file systems. */
#define BLOCK_BYTES_MAX 65536

/* Somebody has it open, or mapped: his pages would turn to zeros. */
static int probe(int fd, const char *path, struct hib_error *error)
{
	if (fcntl(fd, F_SETLEASE, F_WRLCK) == 0) {
		fcntl(fd, F_SETLEASE, F_UNLCK);
		return 0;
	}
	if (errno == EAGAIN || errno == EBUSY)
		return hib_fail(error, EBUSY,
				"\"%s\" is still open or mapped by somebody",
				path);
	/* no leases here, or not for this user: the handles were counted */
	return 0;
}

/*
 * The blocks below the end, the one that the end lies in too (a hole that ends
 * at the size would only zero it), and those preallocated behind it.
 */
static int free_blocks(int fd, const struct stat *status)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	off_t size = status->st_size;
	int r = fallocate(fd, mode, 0,
			  size < INT64_MAX - BLOCK_BYTES_MAX
				  ? size + BLOCK_BYTES_MAX -
					    size % BLOCK_BYTES_MAX
				  : INT64_MAX);

	/* the size is near the largest that the file system has */
	if (r < 0 && errno == EFBIG)
		r = fallocate(fd, mode, 0, size);
	if (r < 0 && errno == EOPNOTSUPP)
		r = ftruncate(fd, 0);
	if (r == 0)
		r = ftruncate(fd, size);
	return r < 0 ? -errno : 0;
}

/* Mode bits that shut their owner out stop all but root. */
static int open_shut(const struct tree_item *item, struct hib_error *error)
{
	mode_t mode = item->status.st_mode & 07777;
	int fd;

	if (fchmodat(item->dirfd, item->name, mode | S_IRUSR | S_IWUSR, 0) < 0)
		return -errno;
	fd = tree_open(item->dirfd, item->name, O_RDWR, error);
	if (fchmodat(item->dirfd, item->name, mode, 0) < 0) {
		close_fd(fd);
		return -errno;
	}
	return fd;
}

static int open_for_evict(const struct tree_item *item, struct hib_error *error)
{
	int fd = tree_open(item->dirfd, item->name, O_RDWR, error);

	if (fd == -EACCES)
		fd = open_shut(item, error);
	if (fd == -ETXTBSY)
		return hib_fail(error, EBUSY, "\"%s\" is being run by somebody",
				item->path);
	return fd < 0 ? hib_fail_errno(error, -fd, "open \"%s\"", item->path)
		      : fd;
}

/* Changing contents clears set-id bits and capabilities, and sets mtime. */
static int restore(int fd, const struct stat *status, const void *capability,
		   ssize_t capability_bytes)
{
	struct timespec times[2] = { status->st_atim, status->st_mtim };

	if (capability_bytes > 0 && fsetxattr(fd, CAPABILITY, capability,
					      (size_t)capability_bytes, 0) < 0)
		return -errno;
	if ((status->st_mode & (S_ISUID | S_ISGID)) &&
	    fchmod(fd, status->st_mode & 07777) < 0)
		return -errno;
	return futimens(fd, times) < 0 ? -errno : 0;
}

static int evict_file(void *arg, const struct tree_item *item,
		      struct hib_error *error)
{
	uint64_t *freed = arg;
	CLEANUP_CLOSE int fd = -EBADF;
	char capability[CAPABILITY_BYTES];
	struct stat after;
	ssize_t size;
	int r;

	if (!S_ISREG(item->status.st_mode) || !item->status.st_blocks)
		return 0;
	r = fault_point("evict.file.before");
	if (r < 0)
		return hib_fail(error, -r, "fault point evict.file.before");
	fd = open_for_evict(item, error);
	if (fd < 0)
		return fd;
	r = probe(fd, item->path, error);
	if (r < 0)
		return r;
	size = fgetxattr(fd, CAPABILITY, capability, sizeof(capability));
	r = free_blocks(fd, &item->status);
	if (r == 0)
		r = restore(fd, &item->status, capability, size);
	if (r < 0)
		return hib_fail_errno(error, -r, "free the blocks of \"%s\"",
				      item->path);
	if (fstat(fd, &after) == 0 && after.st_blocks < item->status.st_blocks)
		*freed += 512 *
			  (uint64_t)(item->status.st_blocks - after.st_blocks);
	return 0;
}

int tree_evict(int dirfd, struct cancel *cancel, uint64_t *ret_freed_bytes,
	       struct hib_error *error)
{
	uint64_t freed = 0;
	struct tree_walk walk = { evict_file, &freed, cancel };
	int r = tree_walk(dirfd, &walk, error);

	if (r == 0)
		*ret_freed_bytes = freed;
	return r;
}
