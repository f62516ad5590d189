/*
 * Cleanup attributes for locals, and explicit hand-off of what they own.
 *
 *	CLEANUP_FREE char *path = NULL;
 *	CLEANUP_CLOSE int fd = -EBADF;
 *	CLEANUP(buffer_done) struct buffer body = BUFFER_INIT(limit);
 *	...
 *	*ret_fd = TAKE_FD(fd);
 */
#ifndef HIBFS_BASE_CLEANUP_H
#define HIBFS_BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(function) __attribute__((cleanup(function)))

static inline void cleanup_free(void *pointer)
{
	free(*(void **)pointer);
}

/* Closes fd if it is one, keeps errno, returns -EBADF: `fd = close_fd(fd);` */
static inline int close_fd(int fd)
{
	if (fd >= 0) {
		int saved = errno;

		close(fd);
		errno = saved;
	}
	return -EBADF;
}

static inline void cleanup_close(int *fd)
{
	close_fd(*fd);
}

static inline void cleanup_closedir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static inline void cleanup_fclose(FILE **file)
{
	if (*file)
		fclose(*file);
}

#define CLEANUP_FREE CLEANUP(cleanup_free)
#define CLEANUP_CLOSE CLEANUP(cleanup_close)
#define CLEANUP_CLOSEDIR CLEANUP(cleanup_closedir)
#define CLEANUP_FCLOSE CLEANUP(cleanup_fclose)

#define TAKE_PTR(pointer)                               \
	({                                              \
		__typeof__(pointer) taken_ = (pointer); \
		(pointer) = NULL;                       \
		taken_;                                 \
	})

#define TAKE_FD(fd)                \
	({                         \
		int taken_ = (fd); \
		(fd) = -EBADF;     \
		taken_;            \
	})

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#define container_of(pointer, type, member) \
	((type *)((char *)(pointer)-offsetof(type, member)))

#endif
