/*
 * The front door of fs/: one hibfs mount. control/ makes it, tells it which
 * shards are live and which are stubs, freezes and thaws them, and runs it.
 *
 * How a request travels:
 *
 *	/dev/fuse -> loop.c reads it (a few threads)
 *	  -> gate.c looks at its opcode and node id before libfuse does: may it
 *	     pass now, must it wait (parked, no thread waits with it), is it to
 *	     be refused, is it one of our own holds?
 *	  -> libfuse decodes it and calls the handler in ops_*.c
 *	  -> the handler acts on the source through inode.c and answers once
 *
 * Passthrough reads and writes never come here at all: hold.c stops those
 * writers by taking the inode's lock in the kernel, through the mount.
 *
 * What the mount shows: the source directory, without its .hibfs; and for each
 * shard that is a stub the tree below .hibfs/stubs/<bucket>/<shard>/tree where
 * the live directory would be.
 *
 * Thread-safety: every function here may be called from any thread but the
 * mount's own request threads, unless it says otherwise. None of them may be
 * called while holding a lock that the callbacks take.
 */
#ifndef HIBFS_FS_FS_H
#define HIBFS_FS_FS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cancel.h"
#include "base/error.h"
#include "base/log.h"

struct fs;
struct fs_shard;

/* Where the mount finds a shard's directory. */
enum fs_place {
	FS_PLACE_NONE, /* nowhere: hibernated without a stub, or unknown */
	FS_PLACE_LIVE, /* SOURCE/<bucket>/<shard> */
	FS_PLACE_STUB, /* SOURCE/.hibfs/stubs/<bucket>/<shard>/tree */
};

struct fs_callbacks {
	/*
	 * Somebody opens or changes a file of a stub. Called from a request
	 * thread: must not block. 0: it will be woken, the request waits for
	 * fs_shard_woken(); a negative errno is the answer to the caller.
	 */
	int (*wake)(void *arg, const char *bucket, const char *shard);
	void *arg;
};

struct fs_config {
	const char *source; /* path, absolute */
	const char *mountpoint; /* path, absolute */
	const char *kernel_options; /* "nosuid,nodev", NULL: none */
	unsigned shard_depth; /* 1 or 2 */
	bool no_passthrough; /* asked for by the operator */
	bool read_only;
	struct log *log;
	struct fs_callbacks callbacks;
};

/* Opens the source and prepares; nothing is mounted yet. */
int fs_new(const struct fs_config *config, struct fs **ret,
	   struct hib_error *error);
struct fs *fs_free(struct fs *fs);

/* Descriptor of the source directory; borrowed. */
int fs_source_fd(const struct fs *fs);

/*
 * Mounts. A dead mount of an earlier daemon (ENOTCONN) on the mount point is
 * detached first; a live one is -EBUSY with a message that says what is there.
 */
int fs_mount(struct fs *fs, struct hib_error *error);

/*
 * Serves until the mount is gone or fs_exit(): the calling thread and the
 * others it starts. Returns 0, or the negative errno that ended it.
 */
int fs_loop(struct fs *fs, struct hib_error *error);

/* Makes fs_loop() return soon. Async-signal-safe. */
void fs_exit(struct fs *fs);

/* Waits until the kernel's INIT has been answered; -ETIMEDOUT. */
int fs_wait_ready(struct fs *fs, uint64_t timeout_ms, struct hib_error *error);

/* Unmounts if it is mounted; thaws everything first. Idempotent. */
void fs_unmount(struct fs *fs);

struct fs_status {
	bool passthrough; /* in use for resident files */
	char passthrough_reason[256]; /* why not; "" when in use */
	char libfuse_version[32];
	unsigned kernel_protocol_major, kernel_protocol_minor;
	uint64_t inodes, open_descriptors, open_handles, parked_requests;
	uint64_t requests; /* served since the start */
};
void fs_get_status(struct fs *fs, struct fs_status *ret);

/*
 * ---- Shards ----
 *
 * Every directory at shard depth is a shard, known as soon as it is looked at.
 */

/* The shard of that name, made if need be; owned by the fs, valid until it
 * ends. */
struct fs_shard *fs_shard_get(struct fs *fs, const char *bucket,
			      const char *shard);
const char *fs_shard_bucket(const struct fs_shard *shard);
const char *fs_shard_name(const struct fs_shard *shard);
enum fs_place fs_shard_place(const struct fs_shard *shard);

/*
 * Tells the mount where the shard's directory now is (the caller has renamed
 * it, under freeze and close when there was something before) and makes the
 * kernel forget names and attributes it remembers of it. Returns when it has.
 */
int fs_shard_set_place(struct fs *fs, struct fs_shard *shard,
		       enum fs_place place, struct hib_error *error);

/*
 * Freezes: when it returns, every change acknowledged before is on the source
 * (in the page cache at least) and none happens until fs_shard_thaw(), on any
 * handle old or new (L1); what waits is parked. `deny` answers EROFS instead
 * of parking where the daemon is asked. Stores through shared writable mappings
 * cannot be stopped: they are detected by fs_shard_check().
 * -EBUSY when it is frozen already, -ENOENT when it has no directory.
 */
struct fs_freeze_result {
	uint64_t held_inodes; /* open for writing in passthrough */
	uint64_t freeze_ns; /* from the call to frozen */
};
int fs_shard_freeze(struct fs *fs, struct fs_shard *shard, bool deny,
		    struct fs_freeze_result *ret, struct hib_error *error);

/*
 * Nothing changed in the shard since it was frozen? -ESTALE with a message
 * naming the file that was stored into through a mapping.
 */
int fs_shard_check(struct fs *fs, struct fs_shard *shard,
		   struct hib_error *error);

/*
 * While frozen: also park every open, then look whether anybody still has a
 * handle or a mapping. -EBUSY with a message naming the processes; opens go on
 * again then. On success the shard stays closed until thaw.
 */
int fs_shard_close(struct fs *fs, struct fs_shard *shard,
		   struct hib_error *error);

/*
 * Waits until no file of the shard is open: 1 when it had to wait, 0 when there
 * was nothing to wait for, -ECANCELED. For the time after fs_shard_close() said
 * who has files open, thawed.
 */
int fs_shard_wait_closed(struct fs *fs, struct fs_shard *shard,
			 struct cancel *cancel);

/*
 * Ends freeze and close. What was parked goes on, in order: on a live shard as
 * if nothing had been; on a stub it asks callbacks.wake. Never blocks on the
 * mount; harmless when it is not frozen.
 */
void fs_shard_thaw(struct fs *fs, struct fs_shard *shard);

/*
 * The end of a wake that callbacks.wake promised: result 0 after the shard is
 * FS_PLACE_LIVE (waiting callers look the path up again), else the negative
 * errno that they get.
 */
void fs_shard_woken(struct fs *fs, struct fs_shard *shard, int result);

#endif
