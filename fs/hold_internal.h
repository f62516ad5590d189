/*
 * What hold.c (sets) and hold_pool.c (threads) share.
 */
#ifndef HIBFS_FS_HOLD_INTERNAL_H
#define HIBFS_FS_HOLD_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "fs/hold.h"

struct hold_set {
	struct hold_pool *pool;
	struct hold_set *next;
	uint32_t id;
	/* Guarded by pool->lock: */
	pthread_cond_t changed;
	struct hold_target *targets;
	size_t count, pending;
	size_t next_job; /* index of the next to be taken */
	size_t jobs_left; /* not ended; the opening of mount_fd is one */
	bool opening, opened; /* mount_fd */
	int mount_fd; /* in the threads' table; or a negative errno */
	bool look_again, released;
	bool releasing; /* its owner still answers */
};

struct hold_pool {
	char *mountpoint;
	uint64_t secret[2];
	pthread_attr_t small;
	atomic_int tokens; /* futex */
	atomic_size_t warmed; /* what was last asked for */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed; /* a thread is wanted, or has ended */
	pthread_t master;
	bool has_master, ending;
	size_t threads, ready, demand;
	uint32_t next_id;
	struct hold_set *sets; /* all that have jobs left or an owner */
};

/* So many jobs may be taken from the sets. */
void hold_post_tokens(struct hold_pool *pool, int count);
int hold_start_master_locked(struct hold_pool *pool);

struct hold_set *hold_set_free(struct hold_set *set);
/* Ends the set if nobody needs it any more. */
void hold_drop_if_over_locked(struct hold_set *set);

#endif
