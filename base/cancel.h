/*
 * A request to stop, passed down to whatever works on a task. Firing it is
 * final. Long waits register a wake function so that a cancel ends them at
 * once; short steps ask cancel_requested() between one another. A child is
 * fired with its parent: a bucket's task is the parent of its shards'.
 *
 * Thread-safety: all functions may be called from any thread. A wake function
 * runs under the cancel's lock, in the thread that fires: it may signal a
 * condition or write an eventfd and nothing else. If it takes a mutex to do so,
 * that mutex must not be held while a watch is added or removed.
 */
#ifndef HIBFS_BASE_CANCEL_H
#define HIBFS_BASE_CANCEL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct cancel_watch {
	void (*wake)(void *arg);
	void *arg;
	struct cancel_watch *next, *previous; /* guarded by the cancel's lock */
};

struct cancel {
	pthread_mutex_t lock;
	atomic_bool fired;
	struct cancel_watch *watches; /* guarded by lock */
	struct cancel *parent; /* NULL, or outlives this one */
	struct cancel_watch parent_watch;
};

void cancel_init(struct cancel *cancel, struct cancel *parent);
void cancel_done(struct cancel *cancel);

/* Fires no more with its parent, which may go away then. */
void cancel_detach(struct cancel *cancel);

void cancel_request(struct cancel *cancel);
/* `cancel` may be NULL: never fired. */
bool cancel_requested(const struct cancel *cancel);

/*
 * Calls watch->wake(watch->arg) once, when the cancel fires; at once if it has
 * fired already. `cancel` may be NULL. Remove before *watch goes away; after
 * remove returns, wake is not running and will not be called.
 */
void cancel_watch_add(struct cancel *cancel, struct cancel_watch *watch);
void cancel_watch_remove(struct cancel *cancel, struct cancel_watch *watch);

#endif
