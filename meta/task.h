/*
 * The registry of long operations: every task has a UUID at once, progress
 *while it runs, and a final status that stays readable after it ended, also
 *after a restart (SOURCE/.hibfs/tasks/<uuid>.json). control/ makes, ends and
 *shows tasks; what works on one counts in its progress and asks its cancel.
 *
 *	r = task_new(registry, &params, &task, error);	queued, durable
 *	task_start(task);				running
 *	... progress_add_bytes_done(task_progress(task), n) ...
 *	append the "... completed" event (event.h)
 *	task_end(task, TASK_COMPLETED, NULL, error);	durable, waiters wake
 *	task = task_unref(task);
 *
 * The event comes before the end: a crash between the two is told apart at the
 * next start (task_registry_config.interrupted), so that each task has exactly
 * one end event.
 *
 * Thread-safety: all functions from any thread.
 */
#ifndef HIBFS_META_TASK_H
#define HIBFS_META_TASK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cancel.h"
#include "base/error.h"
#include "base/uuid.h"
#include "meta/progress.h"

#define TASK_FORMAT "hibfs-task"
#define TASK_VERSION 1

enum task_kind {
	TASK_PAUSE,
	TASK_RESUME,
	TASK_SNAPSHOT,
	TASK_LOAD,
	TASK_DROP,
	TASK_VERIFY,
	TASK_GC,
	TASK_MOVE,
};

enum task_status {
	TASK_QUEUED,
	TASK_RUNNING,
	TASK_COMPLETED,
	TASK_FAILED,
	TASK_STOPPED, /* cancelled */
};

struct task;
struct task_registry;

struct task_registry_config {
	int hibfs_fd; /* SOURCE/.hibfs; used only in task_registry_open() */
	size_t keep_count; /* ended tasks kept; 0: 1,000 */
	uint64_t keep_ms; /* ... and at least so long; 0: 10 minutes */
	/*
	 * Called at open for each task that a crash interrupted: writes its end
	 * event and answers the status it ended with, TASK_FAILED as a rule, or
	 * the one that an end event written before the crash has. May be NULL.
	 */
	enum task_status (*interrupted)(void *arg, struct task *task);
	void *arg;
};

/* Reads tasks/, ends what was interrupted. A broken file there is set aside. */
int task_registry_open(const struct task_registry_config *config,
		       struct task_registry **ret, struct hib_error *error);
/* After the last use; tasks that are referenced stay readable. NULL. */
struct task_registry *task_registry_close(struct task_registry *registry);

struct task_params {
	enum task_kind kind;
	const char *bucket; /* bytes; NULL or "" when it has none */
	const char *shard; /* bytes; NULL or "": the whole bucket */
	struct cancel
		*parent; /* NULL, or fires this task's too; outlives its end */
};

/* A queued task, durable; the reference is the caller's. */
int task_new(struct task_registry *registry, const struct task_params *params,
	     struct task **ret, struct hib_error *error);

struct task *task_ref(struct task *task);
struct task *task_unref(struct task *task); /* NULL */

/* Queued becomes running; otherwise nothing happens. */
void task_start(struct task *task);

/*
 * Adds one shard's outcome: `error` and `remote` (a path in the store) may be
 * NULL, `status` is an ended one. -ENOMEM; ignored after the end.
 */
int task_add_result(struct task *task, const char *shard,
		    enum task_status status, const char *error,
		    const char *remote);

/*
 * Ends the task with the first word: -EALREADY when it has ended, and nothing
 * changes (T4). Waiters wake even when the disk refuses the record; then the
 * error is returned. Old ended tasks are dropped.
 */
int task_end(struct task *task, enum task_status status,
	     const char *error_message, struct hib_error *error);

const char *task_id(const struct task *task);
enum task_kind task_get_kind(const struct task *task);
const char *task_bucket(const struct task *task); /* "" for none */
const char *task_shard(const struct task *task); /* "" for none */
enum task_status task_get_status(struct task *task);
bool task_has_ended(struct task *task);
struct progress *task_progress(struct task *task);
struct cancel *task_cancel(struct task *task);

/*
 * The point of no return (P5): from here on the task can only complete. Whoever
 * works on the task calls task_commit(), -ECANCELED when its cancel has fired
 * (and the task goes on all the same where it cannot go back); whoever wants to
 * stop it calls task_request_cancel(), false when it is too late.
 */
int task_commit(struct task *task);
bool task_request_cancel(struct task *task);

/*
 * {"id", "kind", "bucket", "shard", "status", "error", "created_ms",
 * "started_ms", "ended_ms", "progress": {"bytes_total", ..., "phase",
 * "bytes_per_second", "remaining_ms"}, "results": [{"shard", "status", "error",
 * "remote"}]}; what is not there is null. NULL: no memory.
 */
json_t *task_to_json(struct task *task);

/* A new reference, or NULL for an unknown id. Constant time. */
struct task *task_find(struct task_registry *registry, const char *id);

/*
 * References to all tasks in the order of their making, in an array to free
 * with task_list_free(); `active` gives only those that have not ended.
 */
int task_list(struct task_registry *registry, bool active, struct task ***ret,
	      size_t *ret_count);
void task_list_free(struct task **tasks, size_t count);

/*
 * Waits until all `tasks` have ended. -ETIMEDOUT at the deadline (of
 * clock_monotonic_ms(); UINT64_MAX: none), -ECANCELED when `cancel` (may be
 * NULL) fires.
 */
int task_wait(struct task_registry *registry, struct task *const *tasks,
	      size_t count, uint64_t deadline_ms, struct cancel *cancel);

const char *task_kind_name(enum task_kind kind); /* "pause" */
const char *task_status_name(enum task_status status); /* "running" */

#endif
