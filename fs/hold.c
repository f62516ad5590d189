/*
 * Sets of holds, as freeze.c and the gate see them; what is done about them is
 * in hold_pool.c. Nobody waits for a thread: one whose hold is released late
 * finds its set released.
 */
#include "fs/hold.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "fs/hold_internal.h"
#include "fs/request.h"

static struct hold_set *set_new(struct hold_pool *pool,
				const struct hold_target *targets, size_t count)
{
	struct hold_set *set = calloc(1, sizeof(*set));
	pthread_condattr_t monotonic;
	size_t i;

	if (!set)
		return NULL;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&set->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	set->pool = pool;
	set->count = set->pending = count;
	set->mount_fd = -EBADF;
	set->targets = calloc(count ? count : 1, sizeof(*targets));
	if (!set->targets)
		return hold_set_free(set);
	for (i = 0; i < count; i++) {
		set->targets[i] = targets[i];
		set->targets[i].state = HOLD_PENDING;
	}
	return set;
}

int hold_set_start(struct hold_pool *pool, const struct hold_target *targets,
		   size_t count, struct hold_set **ret)
{
	struct hold_set *set = set_new(pool, targets, count);
	size_t i;
	int r;

	if (!set) {
		for (i = 0; i < count; i++)
			free(targets[i].path);
		return -ENOMEM;
	}
	pthread_mutex_lock(&pool->lock);
	r = hold_start_master_locked(pool);
	if (r < 0) {
		pthread_mutex_unlock(&pool->lock);
		hold_set_free(set);
		return r;
	}
	/* A part of a second, in nanoseconds, carries it. */
	pool->next_id = (pool->next_id + 1) % 1000000000U;
	set->id = pool->next_id;
	set->jobs_left = count + 1;
	set->next = pool->sets;
	pool->sets = set;
	pool->demand += count;
	if (pool->ready == 0)
		pool->ready = 1;
	if (pool->threads < pool->ready + pool->demand)
		pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	hold_post_tokens(pool, 1);
	*ret = set;
	return 0;
}

/* Is all that is pending excused? Called with the lock held, and without. */
static bool all_excused_unlocked(struct hold_set *set,
				 bool (*excused)(void *arg, uint64_t nodeid),
				 void *arg)
{
	pthread_mutex_t *lock = &set->pool->lock;
	bool all = true, pending;
	uint64_t nodeid;
	size_t i;

	for (i = 0; i < set->count && all; i++) {
		pending = set->targets[i].state == HOLD_PENDING;
		nodeid = set->targets[i].nodeid;
		if (!pending)
			continue;
		pthread_mutex_unlock(lock);
		all = excused(arg, nodeid);
		pthread_mutex_lock(lock);
	}
	return all;
}

static int wait_locked(struct hold_set *set, const struct timespec *deadline,
		       bool (*excused)(void *arg, uint64_t nodeid), void *arg)
{
	while (set->pending > 0) {
		if (set->look_again && excused) {
			set->look_again = false;
			if (all_excused_unlocked(set, excused, arg))
				return 0;
			continue;
		}
		if (pthread_cond_timedwait(&set->changed, &set->pool->lock,
					   deadline) == ETIMEDOUT &&
		    set->pending > 0)
			return -ETIMEDOUT;
	}
	return 0;
}

int hold_set_wait(struct hold_set *set, uint64_t deadline_ns,
		  bool (*excused)(void *arg, uint64_t nodeid), void *arg,
		  size_t *ret_index)
{
	struct timespec deadline = {
		.tv_sec = (time_t)(deadline_ns / 1000000000),
		.tv_nsec = (long)(deadline_ns % 1000000000),
	};
	size_t i;
	int r;

	pthread_mutex_lock(&set->pool->lock);
	r = wait_locked(set, &deadline, excused, arg);
	for (i = 0; r < 0 && i < set->count; i++) {
		if (set->targets[i].state == HOLD_PENDING) {
			*ret_index = i;
			break;
		}
	}
	pthread_mutex_unlock(&set->pool->lock);
	return r;
}

void hold_set_look_again(struct hold_set *set)
{
	pthread_mutex_lock(&set->pool->lock);
	set->look_again = true;
	pthread_cond_broadcast(&set->changed);
	pthread_mutex_unlock(&set->pool->lock);
}

struct hold_target hold_set_get(struct hold_set *set, size_t index)
{
	struct hold_target target;

	pthread_mutex_lock(&set->pool->lock);
	target = set->targets[index];
	pthread_mutex_unlock(&set->pool->lock);
	return target;
}

size_t hold_set_count(const struct hold_set *set)
{
	return set->count;
}

int hold_set_held_nodes(struct hold_set *set, uint64_t **nodes, size_t *count)
{
	uint64_t *more =
		reallocarray(*nodes, *count + set->count + 1, sizeof(*more));
	size_t i;

	if (!more)
		return -ENOMEM;
	*nodes = more;
	pthread_mutex_lock(&set->pool->lock);
	for (i = 0; i < set->count; i++)
		if (set->targets[i].state == HOLD_HELD)
			more[(*count)++] = set->targets[i].nodeid;
	pthread_mutex_unlock(&set->pool->lock);
	return 0;
}

struct hold_set *hold_set_release(struct hold_set *set,
				  void (*answer)(void *arg, uint64_t unique),
				  void *arg)
{
	struct hold_pool *pool;
	size_t i;

	if (!set)
		return NULL;
	pool = set->pool;
	pthread_mutex_lock(&pool->lock);
	set->released = set->releasing = true;
	for (i = 0; i < set->count; i++) {
		uint64_t unique = set->targets[i].unique;

		if (set->targets[i].state != HOLD_HELD)
			continue;
		pthread_mutex_unlock(&pool->lock);
		answer(arg, unique);
		pthread_mutex_lock(&pool->lock);
	}
	set->releasing = false;
	hold_drop_if_over_locked(set);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static bool keep_locked(struct hold_set *set, size_t index, uint64_t unique)
{
	struct hold_target *target = &set->targets[index];

	if (set->released || target->state != HOLD_PENDING)
		return false;
	target->unique = unique;
	target->state = HOLD_HELD;
	if (--set->pending == 0)
		pthread_cond_broadcast(&set->changed);
	return true;
}

bool hold_take(struct hold_pool *pool, const struct request *request,
	       bool *ret_answer)
{
	struct hold_set *set;
	bool kept = false;

	if (!pool || !request->sets_times ||
	    request->atime_s != pool->secret[0] ||
	    request->mtime_s != pool->secret[1])
		return false;
	pthread_mutex_lock(&pool->lock);
	set = pool->sets;
	while (set && set->id != request->atime_ns)
		set = set->next;
	if (set && request->mtime_ns < set->count)
		kept = keep_locked(set, request->mtime_ns, request->unique);
	pthread_mutex_unlock(&pool->lock);
	*ret_answer = !kept;
	return true;
}
