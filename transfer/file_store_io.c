#include "transfer/file_store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/uuid.h"

#define STEP_BYTES ((size_t)4 << 20)
#define STALE_MS (3600 * 1000)
#define RENAME_TRIES 20

/* A key as the directory that it is in and its name there. */
struct place {
	char directory[STORE_KEY_BYTES]; /* "" for the root */
	const char *name;
};

static int find_place(const char *key, struct place *ret,
		      struct hib_error *error)
{
	const char *slash = strrchr(key, '/');
	size_t length = slash ? (size_t)(slash - key) : 0;
	size_t temporary = strlen(FILE_STORE_TEMPORARY);

	if (strncmp(key, FILE_STORE_TEMPORARY, temporary) == 0 &&
	    (key[temporary] == '/' || !key[temporary]))
		return hib_fail(error, EINVAL, "not a key for an object");
	if (strlen(key) >= STORE_KEY_BYTES)
		return hib_fail_errno(error, ENAMETOOLONG, "the key");
	memcpy(ret->directory, key, length);
	ret->directory[length] = 0;
	ret->name = slash ? slash + 1 : key;
	return 0;
}

static int open_root(const struct file_store_io *io, int *ret_fd)
{
	*ret_fd = openat(io->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *ret_fd < 0 ? -errno : 0;
}

static int open_directory(const struct file_store_io *io,
			  const struct place *place, int *ret_fd,
			  struct hib_error *error)
{
	if (*place->directory)
		return dir_open(io->root_fd, place->directory, ret_fd, error);
	return open_root(io, ret_fd);
}

static int make_directory(const struct file_store_io *io,
			  const struct place *place, int *ret_fd,
			  struct hib_error *error)
{
	if (*place->directory)
		return dir_make(io->root_fd, place->directory, 0755, ret_fd,
				error);
	return open_root(io, ret_fd);
}

static bool is_stopped(const struct file_store_io *io)
{
	return io->stop && io->stop(io->arg);
}

/* --- put ------------------------------------------------------------------ */

static int write_pieces(const struct file_store_io *io, int fd,
			const void *data, size_t size)
{
	int r = 0;

	for (size_t at = 0; at < size && r == 0; at += STEP_BYTES) {
		size_t n = size - at < STEP_BYTES ? size - at : STEP_BYTES;

		if (is_stopped(io))
			return -ECANCELED;
		r = file_write_full(fd, (const char *)data + at, n, at);
	}
	return r;
}

/* Leaves a whole, durable file in .hibfs-tmp, or none. */
static int write_temporary(const struct file_store_io *io, const char *name,
			   const void *data, size_t size)
{
	CLEANUP_CLOSE int fd = -EBADF;
	int r;

	fd = openat(io->temporary_fd, name,
		    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	/* Tells file_store_clean() that somebody is at work on it. */
	flock(fd, LOCK_SH | LOCK_NB);
	r = write_pieces(io, fd, data, size);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(io->temporary_fd, name, 0);
	return r;
}

static int rename_if_absent(const struct file_store_io *io,
			    const char *temporary, int directory_fd,
			    const char *name)
{
	if (syscall(SYS_renameat2, io->temporary_fd, temporary, directory_fd,
		    name, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS && errno != EPERM)
		return -errno;
	/* Network file systems mostly lack the flag, not link(2). */
	if (linkat(io->temporary_fd, temporary, directory_fd, name, 0) < 0)
		return -errno;
	unlinkat(io->temporary_fd, temporary, 0);
	return 0;
}

static int publish_once(const struct file_store_io *io, const char *temporary,
			const struct place *place, unsigned flags,
			struct hib_error *error)
{
	CLEANUP_CLOSE int fd = -EBADF;
	int r;

	r = make_directory(io, place, &fd, error);
	if (r == 0)
		r = fault_point("file_store.rename.before");
	if (r < 0)
		return r;
	if (flags & STORE_IF_ABSENT)
		r = rename_if_absent(io, temporary, fd, place->name);
	else if (renameat(io->temporary_fd, temporary, fd, place->name) < 0)
		r = -errno;
	if (r == 0)
		r = fault_point("file_store.rename.after");
	return r < 0 ? r : dir_sync(fd, error);
}

int file_store_put(const struct file_store_io *io, const char *key,
		   const void *data, size_t size, unsigned flags,
		   struct hib_error *error)
{
	struct hib_error failure = HIB_ERROR_INIT;
	char temporary[UUID_TEXT_BYTES];
	struct place place;
	int r;

	r = find_place(key, &place, error);
	if (r < 0)
		return r;
	uuid_new(temporary);
	r = write_temporary(io, temporary, data, size);
	if (r < 0)
		return hib_fail_errno(error, -r, "cannot write");
	/* A delete next to it may remove the directory, empty, under our
	 * hands: then it is made again. */
	for (int i = 0; i < RENAME_TRIES; i++) {
		failure = HIB_ERROR_INIT;
		r = publish_once(io, temporary, &place, flags, &failure);
		if (r != -ENOENT)
			break;
	}
	if (r < 0)
		unlinkat(io->temporary_fd, temporary, 0);
	if (r == -EEXIST)
		return hib_fail(error, EEXIST, "the object is there");
	if (r < 0 && failure.code)
		return hib_fail(error, -r, "%s", failure.message);
	return r < 0 ? hib_fail_errno(error, -r, "cannot write") : 0;
}

/* --- get and head --------------------------------------------------------- */

static int open_object(const struct file_store_io *io, const char *key,
		       int *ret_fd, struct stat *ret_stat,
		       struct hib_error *error)
{
	CLEANUP_CLOSE int directory_fd = -EBADF;
	CLEANUP_CLOSE int fd = -EBADF;
	struct place place;
	int r;

	r = find_place(key, &place, error);
	if (r == 0)
		r = open_directory(io, &place, &directory_fd, error);
	if (r < 0)
		return r;
	fd = openat(directory_fd, place.name,
		    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, ret_stat) < 0)
		return hib_fail_errno(error, errno, "cannot open");
	if (!S_ISREG(ret_stat->st_mode))
		return hib_fail(error, ENOENT, "not an object");
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int read_pieces(const struct file_store_io *io, int fd,
		       struct buffer *ret, uint64_t offset, size_t length)
{
	size_t start = ret->size;
	int r = buffer_reserve(ret, length);

	for (size_t at = 0; at < length && r == 0; at += STEP_BYTES) {
		size_t n = length - at < STEP_BYTES ? length - at : STEP_BYTES;

		if (is_stopped(io))
			return -ECANCELED;
		r = file_read_full(fd, ret->data + start + at, n, offset + at);
	}
	if (r == 0 && ret->data) {
		ret->size = start + length;
		ret->data[ret->size] = 0;
	}
	return r == -ENODATA ? -EIO : r;
}

int file_store_get(const struct file_store_io *io, const char *key,
		   uint64_t offset, uint64_t length, struct buffer *ret,
		   struct hib_error *error)
{
	CLEANUP_CLOSE int fd = -EBADF;
	uint64_t size, left;
	struct stat st;
	int r;

	r = open_object(io, key, &fd, &st, error);
	if (r < 0)
		return r;
	size = (uint64_t)st.st_size;
	left = size > offset ? size - offset : 0;
	/* As in S3: a range that begins behind the end has no answer. */
	if (length > left || (offset && !left))
		return hib_fail(error, EIO,
				"the object has %" PRIu64 " bytes, %" PRIu64
				" from %" PRIu64 " were asked for",
				size, length, offset);
	if (length == 0)
		length = left;
	if (length > ret->limit)
		r = -EMSGSIZE;
	else
		r = read_pieces(io, fd, ret, offset, (size_t)length);
	return r < 0 ? hib_fail_errno(error, -r, "cannot read") : 0;
}

int file_store_head(const struct file_store_io *io, const char *key,
		    struct store_object *ret, struct hib_error *error)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct stat st;
	int r = open_object(io, key, &fd, &st, error);

	if (r < 0)
		return r;
	*ret = (struct store_object){
		.size = (uint64_t)st.st_size,
		.modified_ms = (int64_t)st.st_mtim.tv_sec * 1000 +
			       st.st_mtim.tv_nsec / 1000000,
	};
	return 0;
}

/* --- delete --------------------------------------------------------------- */

/* Removes directories that have become empty, the innermost first. */
static void prune(const struct file_store_io *io, struct place *place)
{
	while (*place->directory) {
		CLEANUP_CLOSE int parent_fd = -EBADF;
		struct place parent;

		if (find_place(place->directory, &parent, NULL) < 0 ||
		    open_directory(io, &parent, &parent_fd, NULL) < 0 ||
		    unlinkat(parent_fd, parent.name, AT_REMOVEDIR) < 0)
			return;
		dir_sync(parent_fd, NULL);
		memcpy(place->directory, parent.directory,
		       sizeof(place->directory));
	}
}

int file_store_delete(const struct file_store_io *io, const char *key,
		      struct hib_error *error)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct hib_error failure = HIB_ERROR_INIT;
	struct place place;
	struct stat st;
	int r;

	r = find_place(key, &place, error);
	if (r < 0)
		return r;
	r = open_directory(io, &place, &fd, &failure);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return hib_fail(error, -r, "%s", failure.message);
	if (fstatat(fd, place.name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISDIR(st.st_mode))
		return 0;
	if (unlinkat(fd, place.name, 0) < 0 && errno != ENOENT)
		return hib_fail_errno(error, errno, "cannot delete");
	r = dir_sync(fd, error);
	if (r == 0)
		prune(io, &place);
	return r;
}

/* --- temporaries ---------------------------------------------------------- */

struct cleaner {
	int fd;
	int64_t now_ms;
};

static int clean_one(void *arg, const char *name, unsigned char type)
{
	const struct cleaner *cleaner = arg;
	CLEANUP_CLOSE int fd = -EBADF;
	struct stat st;

	if (type != DT_REG || !uuid_is_valid(name))
		return 0;
	fd = openat(cleaner->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 ||
	    (int64_t)st.st_mtim.tv_sec * 1000 > cleaner->now_ms - STALE_MS ||
	    flock(fd, LOCK_EX | LOCK_NB) < 0)
		return 0;
	unlinkat(cleaner->fd, name, 0);
	return 0;
}

void file_store_clean(int temporary_fd)
{
	struct cleaner cleaner = {
		.fd = temporary_fd,
		.now_ms = clock_realtime_ms(),
	};

	dir_each(temporary_fd, clean_one, &cleaner, NULL);
}
