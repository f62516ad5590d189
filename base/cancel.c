#include "base/cancel.h"

#include <stddef.h>

static void fire_child(void *arg)
{
	cancel_request(arg);
}

void cancel_init(struct cancel *cancel, struct cancel *parent)
{
	pthread_mutex_init(&cancel->lock, NULL);
	atomic_init(&cancel->fired, false);
	cancel->watches = NULL;
	cancel->parent = parent;
	cancel->parent_watch = (struct cancel_watch){
		.wake = fire_child,
		.arg = cancel,
	};
	cancel_watch_add(parent, &cancel->parent_watch);
}

void cancel_detach(struct cancel *cancel)
{
	cancel_watch_remove(cancel->parent, &cancel->parent_watch);
	cancel->parent = NULL;
}

void cancel_done(struct cancel *cancel)
{
	cancel_detach(cancel);
	pthread_mutex_destroy(&cancel->lock);
}

static void unlink_watch_locked(struct cancel *cancel,
				struct cancel_watch *watch)
{
	if (watch->previous)
		watch->previous->next = watch->next;
	else if (cancel->watches == watch)
		cancel->watches = watch->next;
	if (watch->next)
		watch->next->previous = watch->previous;
	watch->next = watch->previous = NULL;
}

/* Locks are taken from parent to child, never the other way. */
void cancel_request(struct cancel *cancel)
{
	pthread_mutex_lock(&cancel->lock);
	atomic_store(&cancel->fired, true);
	while (cancel->watches) {
		struct cancel_watch *watch = cancel->watches;

		unlink_watch_locked(cancel, watch);
		watch->wake(watch->arg);
	}
	pthread_mutex_unlock(&cancel->lock);
}

bool cancel_requested(const struct cancel *cancel)
{
	return cancel && atomic_load(&cancel->fired);
}

void cancel_watch_add(struct cancel *cancel, struct cancel_watch *watch)
{
	watch->next = watch->previous = NULL;
	if (!cancel)
		return;
	pthread_mutex_lock(&cancel->lock);
	if (atomic_load(&cancel->fired)) {
		watch->wake(watch->arg);
	} else {
		watch->next = cancel->watches;
		if (watch->next)
			watch->next->previous = watch;
		cancel->watches = watch;
	}
	pthread_mutex_unlock(&cancel->lock);
}

void cancel_watch_remove(struct cancel *cancel, struct cancel_watch *watch)
{
	if (!cancel)
		return;
	pthread_mutex_lock(&cancel->lock);
	unlink_watch_locked(cancel, watch);
	pthread_mutex_unlock(&cancel->lock);
}
