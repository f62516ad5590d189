/*
 * Holds: stopping the writers of passthrough handles, whose writes the daemon
 * never sees. A thread of ours sets the times of the file, through the mount,
 * to values that only we know. The kernel takes the inode's lock and sends the
 * request here; the gate recognises it and leaves it unanswered. Until it is,
 * every write to the inode waits in the kernel, while reads, stat and open go
 * on. It is answered with ECANCELED, and nothing has changed.
 *
 * A second kind of job makes the kernel write back what its page cache holds of
 * an inode that is not in passthrough.
 *
 * The threads of the pool block in the mount and therefore never serve it.
 *
 * Used by freeze.c and gate.c. Thread-safety: all functions, any thread.
 */
#ifndef HIBFS_FS_HOLD_H
#define HIBFS_FS_HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct hold_pool;
struct hold_set;
struct request;

int hold_pool_new(const char *mountpoint, struct hold_pool **ret,
		  struct hib_error *error);
/* After the connection has ended, so that none blocks. Takes NULL. */
struct hold_pool *hold_pool_free(struct hold_pool *pool);

/*
 * Have at least so many threads ready for the next set, made in the background.
 * Beyond some thousand they are made when they are needed.
 */
void hold_pool_warm(struct hold_pool *pool, size_t threads);

enum hold_state {
	HOLD_PENDING, /* not yet */
	HOLD_HELD, /* its request is here, unanswered */
	HOLD_ENDED, /* done, or failed with `result` */
};

struct hold_target {
	uint64_t nodeid;
	uint32_t generation;
	bool flush; /* write its cache back, rather than hold it */
	/* Below the mount, if the node cannot be opened by number; malloc() */
	char *path;
	/* Guarded by the set from hold_set_start() on. */
	enum hold_state state;
	int result; /* 0 or a negative errno; -ESTALE: nobody has it open */
	uint64_t unique;
};

/*
 * Starts on count targets, which are copied; takes their paths, even on
 * failure. -ENOMEM. The end of the set, hold_set_release(), is the caller's.
 */
int hold_set_start(struct hold_pool *pool, const struct hold_target *targets,
		   size_t count, struct hold_set **ret);

/*
 * Waits until no target is pending, but for those that `excused` says wait for
 * a lock that a parked request holds. -ETIMEDOUT at the deadline
 * (CLOCK_MONOTONIC, ns); *ret_index is the first target pending then.
 * `excused` is called with no lock held and may be NULL.
 */
int hold_set_wait(struct hold_set *set, uint64_t deadline_ns,
		  bool (*excused)(void *arg, uint64_t nodeid), void *arg,
		  size_t *ret_index);
/* Something that `excused` looks at has changed. */
void hold_set_look_again(struct hold_set *set);

/* The target as it is now. */
struct hold_target hold_set_get(struct hold_set *set, size_t index);
size_t hold_set_count(const struct hold_set *set);
/*
 * Appends the nodes that it holds to an array from malloc(), NULL while empty.
 * -ENOMEM.
 */
int hold_set_held_nodes(struct hold_set *set, uint64_t **nodes, size_t *count);

/*
 * Ends all holds of the set, calling `answer` for each unanswered request with
 * no lock held, and the set. Does not wait for threads. Takes NULL, returns it.
 */
struct hold_set *hold_set_release(struct hold_set *set,
				  void (*answer)(void *arg, uint64_t unique),
				  void *arg);

/*
 * Is the request one of our holds? Then it is kept, and true; or its set has
 * been released: *ret_answer, the caller answers ECANCELED.
 */
bool hold_take(struct hold_pool *pool, const struct request *request,
	       bool *ret_answer);

#endif
