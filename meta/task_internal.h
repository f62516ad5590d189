/*
 * What task.c (tasks, waiting) and task_registry.c (the table, start, dropping
 * old ones) share. Private to the two.
 *
 * Locks: registry->lock guards the table and all that changes in a task; it is
 * never held during I/O, while a callback runs, or when a cancel's lock is
 * taken. A cancel's wake function takes it.
 */
#ifndef HIBFS_META_TASK_INTERNAL_H
#define HIBFS_META_TASK_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "meta/task.h"

#define TASK_FILE_BYTES (UUID_TEXT_BYTES + 8) /* "<uuid>.json" */

struct task {
	atomic_uint references;
	struct task_registry *registry; /* holds a reference */
	struct progress progress;
	struct cancel cancel;

	/* fixed after the making */
	char id[UUID_TEXT_BYTES];
	enum task_kind kind;
	char bucket[256], shard[256]; /* bytes */
	int64_t created_ms;

	/* guarded by registry->lock */
	enum task_status status;
	bool committed; /* past the point of no return */
	bool cancel_asked; /* by task_request_cancel(): it will fire */
	bool ending; /* the end has been decided and is being persisted */
	int64_t started_ms, ended_ms; /* 0: not yet */
	uint64_t started_monotonic_ms;
	int64_t ended_monotonic_ms; /* may be before the boot: negative */
	char *error;
	json_t *results; /* array */
	json_t *final_progress; /* set by the end; NULL before */
	struct task *hash_next;
	struct task *next, *previous; /* in the order of their making */
	struct task *ended_next; /* in the order of their end */
};

struct task_registry {
	atomic_uint references; /* the owner's, and one for each task */
	int tasks_fd; /* SOURCE/.hibfs/tasks */
	size_t keep_count;
	uint64_t keep_ms;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* a task ended, or a waiter's cancel fired */
	/* guarded by lock */
	struct task **buckets; /* a table of chains, by id */
	size_t bucket_count; /* a power of two */
	size_t task_count, ended_count;
	struct task *first, *last;
	struct task *ended_first, *ended_last;
};

/* A task that is in no table yet; NULL: no memory. */
struct task *task_make(struct task_registry *registry, struct cancel *parent);
struct task_registry *task_registry_unref(struct task_registry *registry);

/* Takes over the caller's reference. -ENOMEM: it stays the caller's. */
int task_insert_locked(struct task_registry *registry, struct task *task);
struct task *task_lookup_locked(struct task_registry *registry, const char *id);
void task_add_ended_locked(struct task_registry *registry, struct task *task);

/*
 * Takes the tasks out that need not be kept any more; the answer is a chain
 * over hash_next for task_drop_files(), without the lock.
 */
struct task *task_prune_locked(struct task_registry *registry);
void task_drop_files(struct task_registry *registry, struct task *pruned);

/* The document of tasks/<uuid>.json, as if `status` were the task's. */
json_t *task_document_locked(struct task *task, enum task_status status);
int task_save(struct task *task, const json_t *document,
	      struct hib_error *error);
int task_from_document(const char *label, const json_t *document,
		       struct task *task, struct hib_error *error);

bool task_status_is_end(enum task_status status);

#endif
