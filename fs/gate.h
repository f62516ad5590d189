/*
 * The freeze gate: decides on every request, before libfuse sees it, whether it
 * may pass now, has to wait (it is kept, and no thread waits with it), is
 * refused, or is one of our own holds (hold.h). One gate for each shard; the
 * modes are set by freeze.c.
 *
 *	mode		changes			opens
 *	open		pass, counted		pass, counted
 *	frozen		parked (or EROFS)	pass
 *	closed		parked (or EROFS)	parked
 *	draining	behind the parked	behind the parked
 *
 * On a stub, changes and opens ask callbacks.wake in any mode but frozen and
 * closed, and wait for fs_shard_woken().
 *
 * A counted request is in flight from gate_filter() to gate_leave(), and since
 * handlers answer before they return, it is done then. Freezing sets the mode
 * and waits until nothing is in flight; a request that comes meanwhile counts
 * itself first and looks at the mode then, so that one of the two sees the
 * other.
 *
 * Thread-safety: all functions, any thread.
 */
#ifndef HIBFS_FS_GATE_H
#define HIBFS_FS_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct freeze;
struct fs;
struct fs_shard;
struct fuse_buf;
struct hold_pool;
struct inode;
struct parked;
struct watch;

enum gate_mode { GATE_OPEN, GATE_FROZEN, GATE_CLOSED, GATE_DRAINING };

/* Requests that wait, the oldest first. */
struct parked_queue {
	struct parked *first, *last;
};

/* In each struct fs_shard. Zero is open and empty, but for lock and changed. */
struct gate {
	atomic_int mode; /* enum gate_mode; written under lock */
	atomic_uint changes, opens; /* in flight */

	pthread_mutex_t lock;
	pthread_cond_t changed; /* something in flight ended, a hold came */
	bool deny; /* EROFS instead of parking; lock */
	atomic_bool flushing; /* the kernel's dirty pages may still be written */
	struct parked_queue parked; /* lock */
	struct parked_queue waking; /* for fs_shard_woken(); lock */
	struct freeze *freeze; /* freeze.c's; lock */
	struct hold_set *waiting; /* a freeze waits for it; lock */
	struct watch *watch; /* watch.h; while frozen; lock */
	/* Inodes that may be mapped for writing, by inode.noted_next; lock */
	struct inode *noted;
	/* In gate_fs.replay_first...; gate_fs.lock */
	bool replaying;
	struct fs_shard *next_replay;
};

#define GATE_PARKED_SLOTS 256

/* In struct fs. */
struct gate_fs {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* Every parked request by its unique number, for INTERRUPT; lock */
	struct parked *by_unique[GATE_PARKED_SLOTS];
	struct fs_shard *replay_first, *replay_last; /* to be drained; lock */
	bool ending; /* lock */
	bool thread_started;
	pthread_t thread; /* runs what was parked; gate.c */
	atomic_uint_fast64_t parked_requests;
	struct hold_pool *holds;
};

/* The replay thread starts with the first thaw that needs it. */
int gate_fs_init(struct fs *fs);
/* After the mount is gone. Harmless when init failed or never ran. */
void gate_fs_done(struct fs *fs);
uint64_t gate_parked_requests(const struct fs *fs);

int gate_shard_init(struct fs_shard *shard);
/* Frees what is parked, unanswered: the connection has ended. */
void gate_shard_done(struct fs_shard *shard);

/* Is it frozen or closed? One atomic read. */
bool gate_is_frozen(const struct fs_shard *shard);

/*
 * ---- For freeze.c ----
 */

/*
 * Sets the mode, and waits until no change (frozen) or neither change nor open
 * (closed) is in flight. -ETIMEDOUT at the deadline (CLOCK_MONOTONIC, ns).
 */
int gate_shut(struct fs_shard *shard, enum gate_mode mode,
	      uint64_t deadline_ns);
/* Lets the kernel write back what its cache holds; false: and no longer. */
int gate_let_flush(struct fs_shard *shard, bool flushing, uint64_t deadline_ns);
/* From closed back to frozen: what parked opens there are go on. */
void gate_reopen(struct fs *fs, struct fs_shard *shard);
/* To open, by way of draining. */
void gate_drain(struct fs *fs, struct fs_shard *shard);
/*
 * Waits until condition(arg) or the deadline; it is asked again whenever
 * something in flight ends and a file is closed. False at the deadline.
 */
bool gate_wait(struct fs_shard *shard, bool (*condition)(void *arg), void *arg,
	       uint64_t deadline_ns);
/*
 * Is there a parked request for which the kernel holds the node's lock? Then
 * it is as good as a hold, and stays until thaw, interrupted or not.
 */
bool gate_parks_lock_of(struct fs_shard *shard, uint64_t nodeid);

/*
 * ---- For the threads that read requests ----
 */

enum gate_verdict {
	GATE_PASS, /* process it now, then gate_leave() */
	GATE_TAKEN, /* answered or parked; *ret_token is not set */
};

/* What a passing request counts in. */
struct gate_token {
	struct fs_shard *shards[2]; /* NULL where there is none */
	enum { TOKEN_CHANGE, TOKEN_OPEN, TOKEN_RELEASE } kind;
};

/*
 * buf holds one raw request in memory (no splice). It is copied if it is
 * parked, so that the caller may reuse it at once.
 */
enum gate_verdict gate_filter(struct fs *fs, const struct fuse_buf *buf,
			      struct gate_token *ret_token);
void gate_leave(struct fs *fs, const struct gate_token *token);

/*
 * ---- For the handlers ----
 */

/*
 * The inode is being opened for writing: it may be mapped from now until a
 * freeze sees that it is not. Called before the open is answered and with
 * none of the inode's locks held. These two are in watch.c.
 */
void gate_note_writer(struct fs *fs, struct inode *inode);
/* The inode ends; the kernel has forgotten it, so nothing maps it. */
void gate_forget_writer(struct inode *inode);

#endif
