#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"

#define READ_STEP_BYTES 65536
#define NAME_BYTES 255

bool name_is_plain(const char *name)
{
	size_t length = strlen(name);

	return length > 0 && length <= NAME_BYTES && !strchr(name, '/') &&
	       strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

int file_write_full(int fd, const void *data, size_t size, uint64_t offset)
{
	const uint8_t *at = data;

	while (size > 0) {
		ssize_t n = pwrite(fd, at, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		at += n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int file_read_full(int fd, void *data, size_t size, uint64_t offset)
{
	uint8_t *at = data;

	while (size > 0) {
		ssize_t n = pread(fd, at, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		at += n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

/* Leaves a whole, durable file at `temporary`, or none. */
static int write_temporary(int dirfd, const char *temporary, const void *data,
			   size_t size, mode_t mode)
{
	CLEANUP_CLOSE int fd = -EBADF;
	int r;

	/* Unlinked first: what a crash left may be of any mode. */
	if (unlinkat(dirfd, temporary, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(dirfd, temporary,
		    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	r = file_write_full(fd, data, size, 0);
	if (r == 0 && fchmod(fd, mode) < 0)
		r = -errno;
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dirfd, temporary, 0);
	return r;
}

int file_replace(int dirfd, const char *name, const void *data, size_t size,
		 mode_t mode, struct hib_error *error)
{
	char temporary[NAME_BYTES + 8];
	int r;

	if (!name_is_plain(name) || strlen(name) + strlen("..tmp") > NAME_BYTES)
		return hib_fail(error, EINVAL, "%s: not a name for a file",
				name);
	snprintf(temporary, sizeof(temporary), ".%s.tmp", name);
	r = fault_point("file.write.before");
	if (r == 0)
		r = write_temporary(dirfd, temporary, data, size, mode);
	if (r == 0)
		r = fault_point("file.rename.before");
	if (r == 0 && renameat(dirfd, temporary, dirfd, name) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(dirfd, temporary, 0);
		return hib_fail_errno(error, -r, "cannot write %s", name);
	}
	r = fault_point("file.rename.after");
	if (r < 0)
		return hib_fail_errno(error, -r, "cannot write %s", name);
	r = dir_sync(dirfd, error);
	if (r < 0)
		return hib_wrap(error, r, "write %s", name);
	return 0;
}

/* Appends all that fd has; -EMSGSIZE when the limit is hit before the end. */
static int read_to_end(int fd, struct buffer *buffer)
{
	uint8_t probe;

	for (;;) {
		size_t room = buffer->limit - buffer->size;
		ssize_t n;
		int r;

		if (room > READ_STEP_BYTES)
			room = READ_STEP_BYTES;
		r = buffer_reserve(buffer, room);
		if (r < 0)
			return r;
		/* Full: one byte more tells "just fits" from "too large". */
		n = room ? read(fd, buffer->data + buffer->size, room)
			 : read(fd, &probe, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) {
			if (buffer->data)
				buffer->data[buffer->size] = 0;
			return 0;
		}
		if (!room)
			return -EMSGSIZE;
		buffer->size += (size_t)n;
	}
}

int file_read_all(int dirfd, const char *name, struct buffer *buffer,
		  struct hib_error *error)
{
	CLEANUP_CLOSE int fd = -EBADF;
	size_t before = buffer->size;
	int r;

	fd = openat(dirfd, name, O_RDONLY | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return hib_fail_errno(error, errno, "cannot open %s", name);
	r = read_to_end(fd, buffer);
	if (r < 0) {
		buffer->size = before;
		if (buffer->data)
			buffer->data[before] = 0;
	}
	if (r == -EMSGSIZE)
		return hib_fail(error, EMSGSIZE,
				"%s is larger than the limit of %zu bytes",
				name, buffer->limit);
	if (r < 0)
		return hib_fail_errno(error, -r, "cannot read %s", name);
	return 0;
}

int dir_sync(int dirfd, struct hib_error *error)
{
	if (fsync(dirfd) < 0)
		return hib_fail_errno(error, errno, "fsync of the directory");
	return 0;
}

/* -ELOOP for a symlink: O_DIRECTORY alone answers ENOTDIR. */
static int open_component(int dirfd, const char *name)
{
	struct stat st;
	int fd, code;

	fd = openat(dirfd, name,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	code = errno;
	if (code == ENOTDIR &&
	    fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISLNK(st.st_mode))
		code = ELOOP;
	return -code;
}

static int make_component(int dirfd, const char *name, mode_t mode)
{
	int r = fault_point("dir.make.before");

	if (r < 0)
		return r;
	if (mkdirat(dirfd, name, mode) < 0)
		return errno == EEXIST ? 0 : -errno;
	if (fsync(dirfd) < 0)
		return -errno;
	return fault_point("dir.make.after");
}

/* The next component of *path, which moves behind it; 1, 0 at the end. */
static int next_component(const char **path, char ret_name[NAME_BYTES + 1])
{
	const char *start = *path + strspn(*path, "/");
	size_t length = strcspn(start, "/");

	if (length == 0)
		return 0;
	if (length > NAME_BYTES)
		return -ENAMETOOLONG;
	memcpy(ret_name, start, length);
	ret_name[length] = 0;
	if (!name_is_plain(ret_name))
		return -EINVAL;
	*path = start + length;
	return 1;
}

/* One component at a time; `make` creates what is missing. Returns an fd. */
static int walk(int dirfd, const char *path, bool make, mode_t mode)
{
	CLEANUP_CLOSE int fd = -EBADF;
	char name[NAME_BYTES + 1];
	int r;

	while ((r = next_component(&path, name)) > 0) {
		int parent = fd >= 0 ? fd : dirfd;
		int next = open_component(parent, name);

		if (next == -ENOENT && make) {
			r = make_component(parent, name, mode);
			if (r < 0)
				return r;
			next = open_component(parent, name);
		}
		if (next < 0)
			return next;
		close_fd(fd);
		fd = next;
	}
	return r < 0 ? r : TAKE_FD(fd);
}

/* Not empty, relative, every component plain. */
static int path_check(const char *path)
{
	char name[NAME_BYTES + 1];
	int r;

	if (*path == '/' || *path == 0)
		return -EINVAL;
	while ((r = next_component(&path, name)) > 0)
		;
	return r;
}

static int open_beneath(int dirfd, const char *path)
{
	struct open_how how = {
		.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	long fd;

	for (;;) {
		fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
		/* EAGAIN: a rename elsewhere raced with the lookup. */
		if (fd >= 0 || (errno != EINTR && errno != EAGAIN))
			break;
	}
	if (fd >= 0)
		return (int)fd;
	/*
	 * Old kernels and some sandboxes lack it, and no call takes a path
	 * beyond PATH_MAX; the walk is as strict.
	 */
	if (errno == ENOSYS || errno == EPERM || errno == ENAMETOOLONG)
		return walk(dirfd, path, false, 0);
	return -errno;
}

int dir_open(int dirfd, const char *path, int *ret_fd, struct hib_error *error)
{
	int fd = strcmp(path, ".") == 0 ? 0 : path_check(path);

	if (fd == 0)
		fd = open_beneath(dirfd, path);
	if (fd < 0)
		return hib_fail_errno(error, -fd, "cannot open directory %s",
				      path);
	*ret_fd = fd;
	return 0;
}

int dir_make(int dirfd, const char *path, mode_t mode, int *ret_fd,
	     struct hib_error *error)
{
	int fd = path_check(path);

	if (fd == 0)
		fd = open_beneath(dirfd, path);
	if (fd == -ENOENT)
		fd = walk(dirfd, path, true, mode);
	if (fd < 0)
		return hib_fail_errno(error, -fd, "cannot make directory %s",
				      path);
	*ret_fd = fd;
	return 0;
}

int dir_each(int dirfd, dir_visit_fn visit, void *arg, struct hib_error *error)
{
	CLEANUP_CLOSEDIR DIR *dir = NULL;
	CLEANUP_CLOSE int fd = -EBADF;
	struct dirent *entry;
	int r;

	/* A description of its own: dirfd keeps its place. */
	fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return hib_fail_errno(error, errno, "cannot open directory");
	dir = fdopendir(fd);
	if (!dir)
		return hib_fail_errno(error, errno, "cannot read directory");
	fd = -EBADF;
	while (errno = 0, (entry = readdir(dir)) != NULL) {
		unsigned char type = entry->d_type;
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 ||
		    strcmp(entry->d_name, "..") == 0)
			continue;
		if (type == DT_UNKNOWN && fstatat(dirfd, entry->d_name, &st,
						  AT_SYMLINK_NOFOLLOW) == 0)
			type = (unsigned char)IFTODT(st.st_mode);
		r = visit(arg, entry->d_name, type);
		if (r < 0)
			return r;
	}
	if (errno)
		return hib_fail_errno(error, errno, "cannot read directory");
	return 0;
}
