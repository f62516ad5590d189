/*
 * Threads: the socket's call in; one of our own ends the locks whose time is
 * over. It sleeps until the next of them and is woken when that changes.
 */
#include "control/locks.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

struct lock {
	struct shard *shard;
	struct lock_info info;
	uint64_t connection; /* 0 when it has a time to live */
	uint64_t deadline_ms; /* monotonic; 0: none */
	struct lock *next;
};

struct locks {
	struct fs *fs;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* of deadlines, or of `stop` */
	struct lock *first; /* guarded by lock */
	bool stop; /* guarded by lock */
	pthread_t thread;
};

static struct lock *find_locked(const struct locks *locks,
				const struct shard *shard)
{
	for (struct lock *lock = locks->first; lock; lock = lock->next)
		if (lock->shard == shard)
			return lock;
	return NULL;
}

static void unlink_locked(struct locks *locks, struct lock *lock)
{
	struct lock **link = &locks->first;

	while (*link != lock)
		link = &(*link)->next;
	*link = lock->next;
}

/* Thaws outside of the table's lock: the mount may have much to hand back. */
static void thaw(struct locks *locks, struct lock *lock, char *ret_changed,
		 size_t size)
{
	struct hib_error error = HIB_ERROR_INIT;

	if (ret_changed &&
	    fs_shard_check(locks->fs, shard_fs(lock->shard), &error) < 0)
		snprintf(ret_changed, size, "%s", error.message);
	fs_shard_thaw(locks->fs, shard_fs(lock->shard));
	shard_end(lock->shard);
	free(lock);
}

static struct lock *take_expired_locked(struct locks *locks,
					uint64_t *ret_next_ms)
{
	uint64_t now = clock_monotonic_ms();

	*ret_next_ms = 0;
	for (struct lock *lock = locks->first; lock; lock = lock->next) {
		if (!lock->deadline_ms)
			continue;
		if (lock->deadline_ms <= now) {
			unlink_locked(locks, lock);
			return lock;
		}
		if (!*ret_next_ms || lock->deadline_ms < *ret_next_ms)
			*ret_next_ms = lock->deadline_ms;
	}
	return NULL;
}

static void *expire(void *arg)
{
	struct locks *locks = arg;

	pthread_mutex_lock(&locks->lock);
	while (!locks->stop) {
		uint64_t next_ms;
		struct lock *lock = take_expired_locked(locks, &next_ms);

		if (lock) {
			pthread_mutex_unlock(&locks->lock);
			thaw(locks, lock, NULL, 0);
			pthread_mutex_lock(&locks->lock);
		} else if (next_ms) {
			struct timespec until = {
				.tv_sec = (time_t)(next_ms / 1000),
				.tv_nsec = (long)(next_ms % 1000) * 1000000,
			};

			pthread_cond_clockwait(&locks->changed, &locks->lock,
					       CLOCK_MONOTONIC, &until);
		} else {
			pthread_cond_wait(&locks->changed, &locks->lock);
		}
	}
	pthread_mutex_unlock(&locks->lock);
	return NULL;
}

struct locks *locks_new(struct fs *fs)
{
	struct locks *locks = calloc(1, sizeof(*locks));

	if (!locks)
		return NULL;
	locks->fs = fs;
	pthread_mutex_init(&locks->lock, NULL);
	pthread_cond_init(&locks->changed, NULL);
	if (pthread_create(&locks->thread, NULL, expire, locks) != 0) {
		pthread_cond_destroy(&locks->changed);
		pthread_mutex_destroy(&locks->lock);
		free(locks);
		return NULL;
	}
	return locks;
}

struct locks *locks_free(struct locks *locks)
{
	if (!locks)
		return NULL;
	pthread_mutex_lock(&locks->lock);
	locks->stop = true;
	pthread_cond_broadcast(&locks->changed);
	pthread_mutex_unlock(&locks->lock);
	pthread_join(locks->thread, NULL);
	while (locks->first) {
		struct lock *lock = locks->first;

		locks->first = lock->next;
		thaw(locks, lock, NULL, 0);
	}
	pthread_cond_destroy(&locks->changed);
	pthread_mutex_destroy(&locks->lock);
	free(locks);
	return NULL;
}

static void set_lifetime(struct lock *lock, const struct lock_request *request)
{
	if (request->ttl_ms) {
		lock->connection = 0;
		lock->deadline_ms = clock_monotonic_ms() + request->ttl_ms;
		lock->info.expires_ms =
			clock_realtime_ms() + (int64_t)request->ttl_ms;
	} else {
		lock->connection = request->connection;
		lock->deadline_ms = 0;
		lock->info.expires_ms = 0;
	}
}

/* 1: held by this owner and counted up. 0: not held by an operator. */
static int count_up(struct locks *locks, struct shard *shard,
		    const struct lock_request *request,
		    struct lock_result *ret_result)
{
	struct lock *lock;
	int r = 0;

	pthread_mutex_lock(&locks->lock);
	lock = find_locked(locks, shard);
	if (lock && strcmp(lock->info.owner, request->owner) == 0) {
		lock->info.count++;
		set_lifetime(lock, request);
		ret_result->count = lock->info.count;
		pthread_cond_broadcast(&locks->changed);
		r = 1;
	}
	pthread_mutex_unlock(&locks->lock);
	return r;
}

static int acquire_one(struct locks *locks, struct shard *shard,
		       const struct lock_request *request,
		       struct lock_result *ret_result, struct hib_error *error)
{
	struct fs_freeze_result frozen = { 0 };
	struct lock *lock;
	int r = count_up(locks, shard, request, ret_result);

	if (r)
		return r < 0 ? r : 0;
	lock = calloc(1, sizeof(*lock));
	if (!lock)
		return hib_fail(error, ENOMEM, "out of memory");
	r = shard_begin(shard, OPERATION_LOCK, request->owner, error);
	if (r < 0) {
		free(lock);
		return r;
	}
	if (fs_shard_place(shard_fs(shard)) != FS_PLACE_LIVE)
		r = hib_fail(error, EINVAL,
			     "cannot lock %s: it is %s; resume it first",
			     shard_text(shard),
			     shard_state_name(shard_state(shard)));
	else
		r = fs_shard_freeze(locks->fs, shard_fs(shard), request->deny,
				    &frozen, error);
	if (r < 0) {
		shard_end(shard);
		free(lock);
		return r;
	}
	lock->shard = shard;
	lock->info.count = 1;
	lock->info.deny = request->deny;
	lock->info.since_ms = clock_realtime_ms();
	snprintf(lock->info.owner, LOCK_OWNER_BYTES, "%s", request->owner);
	set_lifetime(lock, request);
	*ret_result = (struct lock_result){
		.count = 1,
		.held_inodes = frozen.held_inodes,
		.freeze_ns = frozen.freeze_ns,
	};
	pthread_mutex_lock(&locks->lock);
	lock->next = locks->first;
	locks->first = lock;
	pthread_cond_broadcast(&locks->changed);
	pthread_mutex_unlock(&locks->lock);
	return 0;
}

int locks_acquire(struct locks *locks, struct shard **shards, size_t count,
		  const struct lock_request *request,
		  struct lock_result *ret_results, struct hib_error *error)
{
	for (size_t i = 0; i < count; i++) {
		struct unlock_result ignored;
		int r;

		ret_results[i] = (struct lock_result){ 0 };
		r = acquire_one(locks, shards[i], request, &ret_results[i],
				error);
		if (r < 0) {
			while (i-- > 0)
				locks_release(locks, &shards[i], 1,
					      request->owner, &ignored, NULL);
			return r;
		}
	}
	return 0;
}

/* The lock when it came to zero, taken out of the table; else NULL. */
static struct lock *count_down(struct locks *locks, struct shard *shard,
			       const char *owner,
			       struct unlock_result *ret_result)
{
	struct lock *lock;

	pthread_mutex_lock(&locks->lock);
	lock = find_locked(locks, shard);
	if (lock && strcmp(lock->info.owner, owner) == 0) {
		ret_result->held = true;
		ret_result->count = --lock->info.count;
		if (lock->info.count == 0)
			unlink_locked(locks, lock);
		else
			lock = NULL;
	} else {
		lock = NULL;
	}
	pthread_mutex_unlock(&locks->lock);
	return lock;
}

int locks_release(struct locks *locks, struct shard **shards, size_t count,
		  const char *owner, struct unlock_result *ret_results,
		  struct hib_error *error)
{
	for (size_t i = 0; i < count; i++) {
		struct lock_info info;

		if (locks_info(locks, shards[i], &info) &&
		    strcmp(info.owner, owner) != 0)
			return hib_fail(
				error, EPERM,
				"%s is locked by \"%s\", not by \"%s\": only its owner may unlock it",
				shard_text(shards[i]), info.owner, owner);
	}
	for (size_t i = 0; i < count; i++) {
		struct lock *lock;

		ret_results[i] = (struct unlock_result){ 0 };
		lock = count_down(locks, shards[i], owner, &ret_results[i]);
		if (lock)
			thaw(locks, lock, ret_results[i].changed,
			     sizeof(ret_results[i].changed));
	}
	return 0;
}

void locks_connection_closed(struct locks *locks, uint64_t connection)
{
	for (;;) {
		struct lock *lock;

		pthread_mutex_lock(&locks->lock);
		for (lock = locks->first; lock; lock = lock->next)
			if (lock->connection == connection)
				break;
		if (lock)
			unlink_locked(locks, lock);
		pthread_mutex_unlock(&locks->lock);
		if (!lock)
			return;
		thaw(locks, lock, NULL, 0);
	}
}

bool locks_info(struct locks *locks, const struct shard *shard,
		struct lock_info *ret)
{
	const struct lock *lock;

	pthread_mutex_lock(&locks->lock);
	lock = find_locked(locks, shard);
	if (lock)
		*ret = lock->info;
	pthread_mutex_unlock(&locks->lock);
	return lock != NULL;
}
