/*
 * Files and directories on the local disk: the one way in which anything is
 * persisted (temporary name, fsync, rename, fsync of the directory), whole-file
 * reads with a limit, and walks that never follow a symlink out of their tree.
 *
 * Thread-safety: all functions may be called from any thread.
 */
#ifndef HIBFS_BASE_FILE_H
#define HIBFS_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/error.h"

/*
 * Replaces dirfd/name with `size` bytes, so that after a crash either the old
 * or the new content is there, whole, and after return the new one survives
 * power loss. `name` has no slash. The temporary name is ".<name>.tmp"; one
 * left by a crash is overwritten. Two threads must not replace one name at the
 * same time: the lock of what is persisted guards it.
 */
int file_replace(int dirfd, const char *name, const void *data, size_t size,
		 mode_t mode, struct hib_error *error);

/* Appends dirfd/name to *buffer; -ENOENT, -EMSGSIZE beyond buffer->limit. */
int file_read_all(int dirfd, const char *name, struct buffer *buffer,
		  struct hib_error *error);

/* pwrite/pread until done. 0 or -errno; a short read at end of file is
 * -ENODATA. */
int file_write_full(int fd, const void *data, size_t size, uint64_t offset);
int file_read_full(int fd, void *data, size_t size, uint64_t offset);

/*
 * Opens the directory `path` (relative, several components allowed, no "..")
 * below dirfd, making what is missing with `mode` and making that durable.
 * A symlink on the way is -ELOOP.
 */
int dir_make(int dirfd, const char *path, mode_t mode, int *ret_fd,
	     struct hib_error *error);

/* Opens an existing directory the same way; "." is dirfd's own. */
int dir_open(int dirfd, const char *path, int *ret_fd, struct hib_error *error);

/* fsync of a directory. */
int dir_sync(int dirfd, struct hib_error *error);

/*
 * Calls `visit` for each name but "." and ".."; a negative answer ends the walk
 * and is returned. dirfd keeps its place. Order is the file system's.
 */
typedef int (*dir_visit_fn)(void *arg, const char *name, unsigned char d_type);
int dir_each(int dirfd, dir_visit_fn visit, void *arg, struct hib_error *error);

/*
 * Removes dirfd/name with all below it, whatever the modes; not there is fine.
 * Does not cross into another file system and follows no symlink.
 */
int tree_remove(int dirfd, const char *name, struct hib_error *error);

/* A single path component that a name may be: not empty, ".", "..", no slash,
 * <= 255. */
bool name_is_plain(const char *name);

#endif
