/*
 * What the files of fs/ share: the mount itself and the few calls between its
 * parts. Nothing outside fs/ includes this.
 *
 *	inode.h		nodes the kernel knows, and how they are reached
 *	shard.h		the shards, and where each one is
 *	handle.h	open files, backing ids
 *	gate.h		which request may pass now (before libfuse sees it)
 *	ops.h		the handlers
 *	loop.c		the threads that run them
 *	invalidate.h	telling the kernel to forget
 *	mount.h		mount and unmount
 *
 * Threads: workers (loop.c) read requests and run handlers; every other thread
 * is control/'s or one of fs/'s own helpers. A thread that runs handlers, be it
 * a worker or one that replays parked requests, calls worker_enter() first
 * (caller.h).
 *
 * Order of locks: shard table -> shard -> inode.open_lock -> inode stripe. No
 * system call that can wait for the mount is made under any of them.
 */
#ifndef HIBFS_FS_FS_INTERNAL_H
#define HIBFS_FS_FS_INTERNAL_H

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/cleanup.h"
#include "fs/caller.h"
#include "fs/fs.h"
#include "fs/gate.h"
#include "fs/handle.h"
#include "fs/inode.h"
#include "fs/shard.h"

/* The name in the root of the source that the mount does not show. */
#define HIBFS_DIR_NAME ".hibfs"

struct fs {
	/* Set by fs_new(), constant afterwards. */
	char *source, *mountpoint, *kernel_options;
	unsigned shard_depth;
	bool no_passthrough, read_only;
	const struct log *log;
	struct fs_callbacks callbacks;
	int source_fd;
	struct caller_rights rights;

	struct inode_table inodes;
	struct open_items open_items;
	struct shard_table shards;
	struct gate_fs gate; /* the gate's own, gate_fs_init/done */

	struct fuse_session *session; /* NULL until fs_mount() */
	bool unmounted; /* by fs_unmount(); its callers take turns */
	int exit_fd; /* eventfd: fs_loop() shall return */
	atomic_bool exiting;

	/* Set by the INIT handler, before `ready`. */
	bool passthrough, killpriv_v2;
	char passthrough_reason[256];
	unsigned protocol_major, protocol_minor;
	size_t max_write;

	pthread_mutex_t lock; /* guards ready, worker_error */
	pthread_cond_t changed;
	bool ready;
	int worker_error; /* the first negative errno that ended a worker */

	struct invalidator *invalidator; /* NULL unless mounted */

	atomic_uint_fast64_t requests;
	atomic_uint_fast64_t open_handles;
};

/*
 * Answers a request that libfuse has never seen: an errno (positive), no data.
 * -ENOENT when the kernel no longer waits for it. loop.c.
 */
int fs_raw_reply(struct fs *fs, uint64_t unique, int error);

/*
 * The node of a request, borrowed: valid while the request is unanswered,
 * because the kernel holds a look-up count until then. FUSE_ROOT_ID is the
 * root; NULL for 0 (INIT, DESTROY, BATCH_FORGET, INTERRUPT).
 */
struct inode *fs_inode(struct fs *fs, uint64_t nodeid);

#endif
