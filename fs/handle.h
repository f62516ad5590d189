/*
 * Open files, and the kernel's backing ids.
 *
 * A regular file is opened in passthrough: the kernel does its reads and writes
 * on the backing file. There is one backing id for an inode, made at its first
 * open and closed after its last release. Such a handle has no descriptor of
 * its own until a request comes that needs one (fsync, fallocate, ...).
 *
 * Without passthrough, or when it was opened for writing while its shard was
 * frozen, reads and writes come to the daemon and go through the handle's
 * descriptor.
 *
 * Used by the handlers. Thread-safety: a handle is used by several requests at
 * once; its descriptor is opened once.
 */
#ifndef HIBFS_FS_HANDLE_H
#define HIBFS_FS_HANDLE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct fs;
struct inode;
struct fuse_file_info;

/* What the kernel holds open, files and directories, to be freed at the end. */
struct open_item {
	struct open_item *next, *previous; /* open_items.lock */
	void (*abandon)(struct fs *fs, struct open_item *item);
};

struct open_items {
	pthread_mutex_t lock;
	struct open_item *first; /* lock */
};

void open_items_init(struct open_items *items);
void open_item_add(struct open_items *items, struct open_item *item);
void open_item_remove(struct open_items *items, struct open_item *item);
/* Frees what is still open: the mount has ended and no RELEASE will come. */
void open_items_done(struct fs *fs, struct open_items *items);

struct handle {
	struct open_item item;
	struct inode *inode; /* referenced */
	int flags; /* of open(2), for the daemon's own descriptor */
	bool passthrough; /* counts in inode->passthrough_opens, else cached */
	bool writer; /* counts in inode->writers */
	bool direct_writer; /* counts in inode->direct_writers */
	pthread_mutex_t lock;
	atomic_int fd; /* -1 until needed; written under lock */
};

/*
 * Opens `inode`, a regular file, and fills in fi: the handle, passthrough or
 * not. Takes fd (one that is open already, from create), or -1, even on
 * failure. To be undone by handle_close(), also when the answer to the kernel
 * does not arrive.
 */
int handle_open(struct fs *fs, struct inode *inode, int fd,
		struct fuse_file_info *fi);
void handle_close(struct fs *fs, struct handle *handle);

struct handle *handle_of(const struct fuse_file_info *fi);

/* Its descriptor on the source, opened now if need be; negative errno. */
int handle_fd(struct fs *fs, struct handle *handle);
/* The same only if there is one already, else -1. */
int handle_fd_if_open(struct handle *handle);

/*
 * Opens the node on the source with `flags`; a descriptor that the caller
 * closes, or a negative errno.
 */
int handle_reopen(struct fs *fs, struct inode *inode, int flags);

/* "/proc/self/fd/N": a path to the file behind an O_PATH descriptor. */
#define PROC_PATH_BYTES 32
void proc_path(int fd, char ret_path[PROC_PATH_BYTES]);

#endif
