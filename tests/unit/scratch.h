/*
 * A scratch directory for a unit test: made below /tmp, removed with all in it.
 *
 *	int fd = scratch_new();
 *	...
 *	scratch_done(fd);
 */
#ifndef HIBFS_TESTS_UNIT_SCRATCH_H
#define HIBFS_TESTS_UNIT_SCRATCH_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/test.h"

/* The absolute path of a directory made by scratch_new(). */
__attribute__((unused)) static void scratch_path(int fd, char ret_path[256])
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret_path, 255);
	CHECK(n > 0);
	ret_path[n] = 0;
}

__attribute__((unused)) static int scratch_new(void)
{
	char path[] = "/tmp/hibfs-test-XXXXXX";
	int fd;

	CHECK(mkdtemp(path));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

__attribute__((unused)) static void scratch_done(int fd)
{
	char path[256];
	int parent;

	scratch_path(fd, path);
	parent = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(parent >= 0);
	CHECK_INT(tree_remove(parent, strrchr(path, '/') + 1, NULL), 0);
	close(parent);
	close(fd);
}

__attribute__((unused)) static bool scratch_has(int fd, const char *path)
{
	struct stat st;

	return fstatat(fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Not by file_replace(): for what a crash or a stranger may have left. */
__attribute__((unused)) static void scratch_write(int dirfd, const char *path,
						  const void *data, size_t size)
{
	int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			0600);

	CHECK(fd >= 0);
	CHECK_INT(write(fd, data, size), size);
	close(fd);
}

#endif
