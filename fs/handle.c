/*
 * Which opens of one inode the kernel lets coexist: all in passthrough, or all
 * cached. inode->open_lock makes that choice and the backing id's life atomic;
 * the ioctls under it do not wait for the mount.
 */
#include "fs/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fs/fs_internal.h"

#ifdef HIBFS_HAVE_PASSTHROUGH
/* Of <linux/fuse.h> since 6.9; older headers lack it. */
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)
#endif

void proc_path(int fd, char ret_path[PROC_PATH_BYTES])
{
	snprintf(ret_path, PROC_PATH_BYTES, "/proc/self/fd/%d", fd);
}

int handle_reopen(struct fs *fs, struct inode *inode, int flags)
{
	char path[PROC_PATH_BYTES];
	int fd, opened;

	fd = inode_fd_get(&fs->inodes, inode);
	if (fd < 0)
		return fd;
	proc_path(fd, path);
	opened = open(path, flags | O_CLOEXEC);
	if (opened < 0)
		opened = -errno;
	inode_fd_put(&fs->inodes, inode);
	return opened;
}

/*
 * For the daemon's descriptor: the kernel gives the offset of an append, and
 * pwrite(2) would ignore it; direct I/O would need aligned buffers.
 */
static int daemon_flags(int flags)
{
	return flags & ~(O_APPEND | O_DIRECT | O_CREAT | O_EXCL | O_TRUNC |
			 O_NOCTTY | O_NOFOLLOW | O_NONBLOCK);
}

struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

int handle_fd_if_open(struct handle *handle)
{
	return atomic_load_explicit(&handle->fd, memory_order_acquire);
}

int handle_fd(struct fs *fs, struct handle *handle)
{
	int fd = handle_fd_if_open(handle);

	if (fd >= 0)
		return fd;
	pthread_mutex_lock(&handle->lock);
	fd = atomic_load(&handle->fd);
	if (fd < 0) {
		fd = handle_reopen(fs, handle->inode, handle->flags);
		if (fd >= 0)
			atomic_store_explicit(&handle->fd, fd,
					      memory_order_release);
	}
	pthread_mutex_unlock(&handle->lock);
	return fd;
}

void open_items_init(struct open_items *items)
{
	pthread_mutex_init(&items->lock, NULL);
	items->first = NULL;
}

void open_item_add(struct open_items *items, struct open_item *item)
{
	pthread_mutex_lock(&items->lock);
	item->previous = NULL;
	item->next = items->first;
	if (items->first)
		items->first->previous = item;
	items->first = item;
	pthread_mutex_unlock(&items->lock);
}

void open_item_remove(struct open_items *items, struct open_item *item)
{
	pthread_mutex_lock(&items->lock);
	if (item->previous)
		item->previous->next = item->next;
	else
		items->first = item->next;
	if (item->next)
		item->next->previous = item->previous;
	pthread_mutex_unlock(&items->lock);
}

void open_items_done(struct fs *fs, struct open_items *items)
{
	struct open_item *item, *next;

	for (item = items->first; item; item = next) {
		next = item->next;
		item->abandon(fs, item);
	}
	items->first = NULL;
	pthread_mutex_destroy(&items->lock);
}

static struct handle *handle_free(struct fs *fs, struct handle *handle)
{
	if (!handle)
		return NULL;
	close_fd(atomic_load(&handle->fd));
	pthread_mutex_destroy(&handle->lock);
	inode_unref(&fs->inodes, handle->inode);
	free(handle);
	return NULL;
}

/* Its backing id went with the connection. */
static void handle_abandon(struct fs *fs, struct open_item *item)
{
	handle_free(fs, container_of(item, struct handle, item));
}

static void join_writers_locked(struct handle *handle,
				struct fuse_file_info *fi)
{
	struct fs_shard *shard = handle->inode->key.shard;

	if ((fi->flags & O_ACCMODE) == O_RDONLY || !shard)
		return;
	handle->writer = shard_writer_add(shard, handle->inode);
	/*
	 * Frozen: its writes have to come here, where the gate parks them, and
	 * past the kernel's cache, whose pages they would keep from readers.
	 */
	if (!handle->writer)
		fi->direct_io = 1;
}

#ifdef HIBFS_HAVE_PASSTHROUGH

/* The kernel reopens the file with each open's own flags: O_PATH is enough. */
static int backing_open_locked(struct fs *fs, struct handle *handle)
{
	struct inode *inode = handle->inode;
	struct backing_map map = { 0 };
	bool borrowed = false;
	int id, r;

	map.fd = handle_fd_if_open(handle);
	if (map.fd < 0) {
		map.fd = inode_fd_get(&fs->inodes, inode);
		if (map.fd < 0)
			return map.fd;
		borrowed = true;
	}
	id = ioctl(fuse_session_fd(fs->session), BACKING_OPEN, &map);
	r = id < 0 ? -errno : 0;
	if (borrowed)
		inode_fd_put(&fs->inodes, inode);
	if (r == 0)
		inode->backing_id = id;
	return r;
}

static void backing_close_locked(struct fs *fs, struct inode *inode)
{
	uint32_t id = (uint32_t)inode->backing_id;

	/* It can only fail when the connection has ended and the id with it. */
	ioctl(fuse_session_fd(fs->session), BACKING_CLOSE, &id);
	inode->backing_id = 0;
}

static int open_passthrough_locked(struct fs *fs, struct handle *handle,
				   struct fuse_file_info *fi)
{
	struct inode *inode = handle->inode;
	int r;

	if (inode->backing_id == 0) {
		r = backing_open_locked(fs, handle);
		if (r < 0)
			return r;
	}
	inode->passthrough_opens++;
	handle->passthrough = true;
	fi->backing_id = inode->backing_id;
	return 0;
}

static void close_passthrough_locked(struct fs *fs, struct handle *handle)
{
	struct inode *inode = handle->inode;

	if (--inode->passthrough_opens == 0)
		backing_close_locked(fs, inode);
}

#else

static int open_passthrough_locked(struct fs *fs, struct handle *handle,
				   struct fuse_file_info *fi)
{
	(void)fs;
	(void)handle;
	(void)fi;
	return -EOPNOTSUPP;
}

static void close_passthrough_locked(struct fs *fs, struct handle *handle)
{
	(void)fs;
	(void)handle;
}

#endif

/*
 * While others hold it in passthrough a cached open would fail in the kernel
 * with EIO, so the true reason is the better answer.
 */
static int open_modes(struct fs *fs, struct handle *handle,
		      struct fuse_file_info *fi)
{
	struct inode *inode = handle->inode;
	int r = -EOPNOTSUPP;

	pthread_mutex_lock(&inode->open_lock);
	if (fs->passthrough && inode->cached_opens == 0)
		r = open_passthrough_locked(fs, handle, fi);
	if (r < 0 && inode->passthrough_opens == 0) {
		inode->cached_opens++;
		/* With passthrough opens in between, its pages may be old. */
		fi->keep_cache = !fs->passthrough;
		r = 0;
	}
	if (r == 0)
		join_writers_locked(handle, fi);
	pthread_mutex_unlock(&inode->open_lock);
	return r;
}

static void close_modes(struct fs *fs, struct handle *handle)
{
	struct inode *inode = handle->inode;

	pthread_mutex_lock(&inode->open_lock);
	if (handle->writer)
		shard_writer_remove(inode->key.shard, inode);
	if (handle->passthrough)
		close_passthrough_locked(fs, handle);
	else
		inode->cached_opens--;
	pthread_mutex_unlock(&inode->open_lock);
}

int handle_open(struct fs *fs, struct inode *inode, int fd,
		struct fuse_file_info *fi)
{
	struct handle *handle;
	int r;

	handle = calloc(1, sizeof(*handle));
	if (!handle) {
		close_fd(fd);
		return -ENOMEM;
	}
	handle->inode = inode_ref(&fs->inodes, inode);
	handle->flags = daemon_flags(fi->flags);
	pthread_mutex_init(&handle->lock, NULL);
	atomic_init(&handle->fd, fd < 0 ? -1 : fd);

	/* Nothing to flush in a write-through cache: spares an upcall. */
	fi->noflush = 1;
	r = open_modes(fs, handle, fi);
	if (r == 0 && !handle->passthrough) {
		/* Now, so that the caller learns of an error from open(2). */
		r = handle_fd(fs, handle);
		if (r < 0)
			close_modes(fs, handle);
	}
	if (r < 0) {
		handle_free(fs, handle);
		return r;
	}
	if (fi->flags & O_DIRECT && (fi->flags & O_ACCMODE) != O_RDONLY) {
		handle->direct_writer = true;
		atomic_fetch_add(&inode->direct_writers, 1);
	}
	if (inode->key.shard && (fi->flags & O_ACCMODE) != O_RDONLY)
		gate_note_writer(fs, inode);
	handle->item.abandon = handle_abandon;
	open_item_add(&fs->open_items, &handle->item);
	fi->fh = (uintptr_t)handle;
	atomic_fetch_add(&fs->open_handles, 1);
	if (inode->key.shard)
		atomic_fetch_add(&inode->key.shard->open_files, 1);
	return 0;
}

void handle_close(struct fs *fs, struct handle *handle)
{
	struct fs_shard *shard = handle->inode->key.shard;

	open_item_remove(&fs->open_items, &handle->item);
	if (handle->direct_writer)
		atomic_fetch_sub(&handle->inode->direct_writers, 1);
	close_modes(fs, handle);
	handle_free(fs, handle);
	atomic_fetch_sub(&fs->open_handles, 1);
	if (shard)
		shard_file_closed(shard);
}
