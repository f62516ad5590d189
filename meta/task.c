/*
 * Threads: whoever works on a task calls task_start(), task_add_result() and
 * task_end(); waiters block in task_wait() on registry->changed, which
 * task_end() and a waiter's own cancel broadcast.
 */
#include "meta/task_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "meta/document.h"

static void cleanup_json(json_t **json)
{
	json_decref(*json);
}

struct task *task_make(struct task_registry *registry, struct cancel *parent)
{
	struct task *task = calloc(1, sizeof(*task));

	if (!task)
		return NULL;
	task->results = json_array();
	if (!task->results) {
		free(task);
		return NULL;
	}
	atomic_init(&task->references, 1);
	progress_init(&task->progress);
	cancel_init(&task->cancel, parent);
	atomic_fetch_add(&registry->references, 1);
	task->registry = registry;
	return task;
}

struct task *task_ref(struct task *task)
{
	atomic_fetch_add(&task->references, 1);
	return task;
}

struct task *task_unref(struct task *task)
{
	if (!task || atomic_fetch_sub(&task->references, 1) != 1)
		return NULL;
	cancel_done(&task->cancel);
	free(task->error);
	json_decref(task->results);
	json_decref(task->final_progress);
	task_registry_unref(task->registry);
	free(task);
	return NULL;
}

static int set_name(char ret_name[256], const char *name,
		    struct hib_error *error)
{
	if (!name || !*name)
		return 0;
	if (!name_is_plain(name))
		return hib_fail(error, EINVAL,
				"\"%.300s\" cannot be the name of a directory",
				name);
	strcpy(ret_name, name);
	return 0;
}

static int save_new(struct task *task, struct hib_error *error)
{
	CLEANUP(cleanup_json) json_t *document = NULL;
	struct task_registry *registry = task->registry;

	pthread_mutex_lock(&registry->lock);
	document = task_document_locked(task, TASK_QUEUED);
	pthread_mutex_unlock(&registry->lock);
	return task_save(task, document, error);
}

int task_new(struct task_registry *registry, const struct task_params *params,
	     struct task **ret, struct hib_error *error)
{
	struct task *task = task_make(registry, params->parent);
	int r;

	if (!task)
		return hib_fail_errno(error, ENOMEM, "task");
	uuid_new(task->id);
	task->kind = params->kind;
	task->created_ms = clock_realtime_ms();
	r = set_name(task->bucket, params->bucket, error);
	if (r == 0)
		r = set_name(task->shard, params->shard, error);
	if (r == 0)
		r = save_new(task, error);
	if (r < 0) {
		task_unref(task);
		return r;
	}
	pthread_mutex_lock(&registry->lock);
	r = task_insert_locked(registry, task_ref(task));
	pthread_mutex_unlock(&registry->lock);
	if (r < 0) {
		task_unref(task);
		task->hash_next = NULL;
		task_drop_files(registry, task);
		return hib_fail_errno(error, -r, "task");
	}
	*ret = task;
	return 0;
}

void task_start(struct task *task)
{
	pthread_mutex_lock(&task->registry->lock);
	if (task->status == TASK_QUEUED && !task->ending) {
		task->status = TASK_RUNNING;
		task->started_ms = clock_realtime_ms();
		task->started_monotonic_ms = clock_monotonic_ms();
	}
	pthread_mutex_unlock(&task->registry->lock);
}

int task_add_result(struct task *task, const char *shard,
		    enum task_status status, const char *error,
		    const char *remote)
{
	json_t *result =
		json_pack("{s:o, s:s, s:o, s:o}", "shard", document_name(shard),
			  "status", task_status_name(status), "error",
			  document_text(error), "remote",
			  document_text(remote));
	int r = 0;

	if (!result)
		return -ENOMEM;
	pthread_mutex_lock(&task->registry->lock);
	if (task->ending)
		json_decref(result);
	else if (json_array_append_new(task->results, result) < 0)
		r = -ENOMEM;
	pthread_mutex_unlock(&task->registry->lock);
	return r;
}

/* The first caller decides the end; the document is what becomes durable. */
static int decide_end(struct task *task, enum task_status status,
		      const char *message, json_t **ret_document)
{
	CLEANUP_FREE char *copy = message ? strdup(message) : NULL;
	int r = 0;

	pthread_mutex_lock(&task->registry->lock);
	if (task->ending) {
		r = -EALREADY;
	} else {
		task->ending = true;
		task->ended_ms = clock_realtime_ms();
		task->ended_monotonic_ms = (int64_t)clock_monotonic_ms();
		task->error = TAKE_PTR(copy);
		*ret_document = task_document_locked(task, status);
	}
	pthread_mutex_unlock(&task->registry->lock);
	return r;
}

int task_end(struct task *task, enum task_status status,
	     const char *error_message, struct hib_error *error)
{
	CLEANUP(cleanup_json) json_t *document = NULL;
	struct task_registry *registry = task->registry;
	struct task *pruned;
	int r;

	if (decide_end(task, status, error_message, &document) < 0)
		return hib_fail(error, EALREADY, "task %s has ended already",
				task->id);
	cancel_detach(&task->cancel);
	r = task_save(task, document, error);

	pthread_mutex_lock(&registry->lock);
	task->status = status;
	/* Not in the table: the registry was closed meanwhile. */
	if (task_lookup_locked(registry, task->id) == task)
		task_add_ended_locked(registry, task);
	pruned = task_prune_locked(registry);
	pthread_cond_broadcast(&registry->changed);
	pthread_mutex_unlock(&registry->lock);

	task_drop_files(registry, pruned);
	return r;
}

const char *task_id(const struct task *task)
{
	return task->id;
}

enum task_kind task_get_kind(const struct task *task)
{
	return task->kind;
}

const char *task_bucket(const struct task *task)
{
	return task->bucket;
}

const char *task_shard(const struct task *task)
{
	return task->shard;
}

enum task_status task_get_status(struct task *task)
{
	enum task_status status;

	pthread_mutex_lock(&task->registry->lock);
	status = task->status;
	pthread_mutex_unlock(&task->registry->lock);
	return status;
}

bool task_has_ended(struct task *task)
{
	return task_status_is_end(task_get_status(task));
}

struct progress *task_progress(struct task *task)
{
	return &task->progress;
}

struct cancel *task_cancel(struct task *task)
{
	return &task->cancel;
}

int task_commit(struct task *task)
{
	int r = 0;

	pthread_mutex_lock(&task->registry->lock);
	if (task->cancel_asked || cancel_requested(&task->cancel))
		r = -ECANCELED;
	task->committed = true;
	pthread_mutex_unlock(&task->registry->lock);
	return r;
}

bool task_request_cancel(struct task *task)
{
	bool committed;

	/* The cancel's lock is never taken under the registry's. */
	pthread_mutex_lock(&task->registry->lock);
	committed = task->committed || task_status_is_end(task->status);
	task->cancel_asked = !committed;
	pthread_mutex_unlock(&task->registry->lock);
	if (!committed)
		cancel_request(&task->cancel);
	return !committed;
}

static void wake_waiters(void *arg)
{
	struct task_registry *registry = arg;

	pthread_mutex_lock(&registry->lock);
	pthread_cond_broadcast(&registry->changed);
	pthread_mutex_unlock(&registry->lock);
}

static bool all_ended_locked(struct task *const *tasks, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!task_status_is_end(tasks[i]->status))
			return false;
	return true;
}

static int wait_locked(struct task_registry *registry, uint64_t deadline_ms)
{
	struct timespec deadline = {
		.tv_sec = (time_t)(deadline_ms / 1000),
		.tv_nsec = (long)(deadline_ms % 1000) * 1000000,
	};

	if (deadline_ms == UINT64_MAX)
		return -pthread_cond_wait(&registry->changed, &registry->lock);
	return -pthread_cond_timedwait(&registry->changed, &registry->lock,
				       &deadline);
}

int task_wait(struct task_registry *registry, struct task *const *tasks,
	      size_t count, uint64_t deadline_ms, struct cancel *cancel)
{
	struct cancel_watch watch = { .wake = wake_waiters, .arg = registry };
	int r = 0;

	cancel_watch_add(cancel, &watch);
	pthread_mutex_lock(&registry->lock);
	while (!all_ended_locked(tasks, count)) {
		if (cancel_requested(cancel)) {
			r = -ECANCELED;
			break;
		}
		if (r < 0)
			break;
		r = wait_locked(registry, deadline_ms);
	}
	if (r == -ETIMEDOUT && all_ended_locked(tasks, count))
		r = 0;
	pthread_mutex_unlock(&registry->lock);
	cancel_watch_remove(cancel, &watch);
	return r;
}
