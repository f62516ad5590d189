/* The JSON of a task: for the control socket, and for tasks/<uuid>.json. */
#include "meta/task_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "meta/document.h"

static const char *const kind_names[] = {
	[TASK_PAUSE] = "pause",
	[TASK_RESUME] = "resume",
	[TASK_SNAPSHOT] = "snapshot",
	[TASK_LOAD] = "load",
	[TASK_DROP] = "drop",
	[TASK_VERIFY] = "verify",
	[TASK_GC] = "gc",
	[TASK_MOVE] = "move",
};

static const char *const status_names[] = {
	[TASK_QUEUED] = "queued",	[TASK_RUNNING] = "running",
	[TASK_COMPLETED] = "completed", [TASK_FAILED] = "failed",
	[TASK_STOPPED] = "stopped",
};

const char *task_kind_name(enum task_kind kind)
{
	return kind_names[kind];
}

const char *task_status_name(enum task_status status)
{
	return status_names[status];
}

bool task_status_is_end(enum task_status status)
{
	return status == TASK_COMPLETED || status == TASK_FAILED ||
	       status == TASK_STOPPED;
}

static json_t *time_or_null(int64_t time_ms)
{
	return time_ms ? json_integer(time_ms) : json_null();
}

/* Time left at the average rate so far; null while that says nothing. */
static json_t *remaining_to_json(const struct progress_values *values,
				 uint64_t rate)
{
	double left = (double)(values->bytes_total - values->bytes_done);

	if (rate == 0 || left * 1000 / (double)rate > (double)INT64_MAX / 2)
		return json_null();
	return json_integer((json_int_t)(left * 1000 / (double)rate));
}

static json_t *progress_to_json(struct task *task, bool running)
{
	struct progress_values values;
	uint64_t elapsed_ms = 0, rate = 0;
	json_t *remaining;

	progress_read(&task->progress, &values);
	if (task->started_ms)
		elapsed_ms = clock_monotonic_ms() - task->started_monotonic_ms;
	if (elapsed_ms)
		rate = (uint64_t)((double)values.bytes_done * 1000 /
				  (double)elapsed_ms);
	remaining = remaining_to_json(&values, running ? rate : 0);
	return json_pack(
		"{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s?,s:I,s:o}",
		"bytes_total", (json_int_t)values.bytes_total, "bytes_done",
		(json_int_t)values.bytes_done, "files_total",
		(json_int_t)values.files_total, "files_done",
		(json_int_t)values.files_done, "bytes_read",
		(json_int_t)values.bytes_read, "bytes_hashed",
		(json_int_t)values.bytes_hashed, "bytes_skipped",
		(json_int_t)values.bytes_skipped, "bytes_sent",
		(json_int_t)values.bytes_sent, "bytes_received",
		(json_int_t)values.bytes_received, "requests",
		(json_int_t)values.requests, "retries",
		(json_int_t)values.retries, "phase", values.phase,
		"bytes_per_second", (json_int_t)rate, "remaining_ms",
		remaining);
}

/* The members of a task, added to `object`; takes that, NULL: no memory. */
static json_t *add_members_locked(json_t *object, struct task *task,
				  enum task_status status)
{
	json_t *progress = task->final_progress;
	int r = 0;

	if (!object)
		return NULL;
	progress = progress ? json_deep_copy(progress)
			    : progress_to_json(task, status == TASK_RUNNING);
	r |= json_object_set_new(object, "id", json_string(task->id));
	r |= json_object_set_new(object, "kind",
				 json_string(kind_names[task->kind]));
	r |= json_object_set_new(object, "bucket", document_name(task->bucket));
	r |= json_object_set_new(object, "shard", document_name(task->shard));
	r |= json_object_set_new(object, "status",
				 json_string(status_names[status]));
	r |= json_object_set_new(object, "error", document_text(task->error));
	r |= json_object_set_new(object, "created_ms",
				 json_integer(task->created_ms));
	r |= json_object_set_new(object, "started_ms",
				 time_or_null(task->started_ms));
	r |= json_object_set_new(object, "ended_ms",
				 time_or_null(task->ended_ms));
	r |= json_object_set_new(object, "progress", progress);
	r |= json_object_set_new(object, "results",
				 json_deep_copy(task->results));
	if (r < 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

json_t *task_to_json(struct task *task)
{
	json_t *object = json_object();

	pthread_mutex_lock(&task->registry->lock);
	object = add_members_locked(object, task, task->status);
	pthread_mutex_unlock(&task->registry->lock);
	return object;
}

json_t *task_document_locked(struct task *task, enum task_status status)
{
	/* From the end on, what late counters say changes nothing. */
	if (task_status_is_end(status) && !task->final_progress)
		task->final_progress = progress_to_json(task, false);
	return add_members_locked(document_new(TASK_FORMAT, TASK_VERSION), task,
				  status);
}

int task_save(struct task *task, const json_t *document,
	      struct hib_error *error)
{
	char name[TASK_FILE_BYTES];
	int r;

	if (!document)
		return hib_fail_errno(error, ENOMEM, "task %s", task->id);
	snprintf(name, sizeof(name), "%s.json", task->id);
	r = fault_point("task.save.before");
	if (r == 0)
		r = document_save(task->registry->tasks_fd, name, document,
				  error);
	if (r == 0)
		r = fault_point("task.save.after");
	if (r < 0)
		return hib_wrap(error, r, "record of the task .hibfs/tasks/%s",
				name);
	return 0;
}

/* The index of the member's text in `names`; -EBADMSG. */
static int get_name_index(const char *label, const json_t *document,
			  const char *key, const char *const *names,
			  size_t count, struct hib_error *error)
{
	char text[16];
	int r = document_get_text(label, document, key, text, sizeof(text),
				  error);

	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++)
		if (strcmp(text, names[i]) == 0)
			return (int)i;
	return hib_fail(error, EBADMSG, "%s: \"%s\" is not known: \"%s\"",
			label, key, text);
}

static int get_time(const char *label, const json_t *document, const char *key,
		    int64_t *ret, struct hib_error *error)
{
	const json_t *value = json_object_get(document, key);

	if (!value || json_is_null(value)) {
		*ret = 0;
		return 0;
	}
	return document_get_i64(label, document, key, ret, error);
}

static int get_parts(const char *label, const json_t *document,
		     struct task *task, struct hib_error *error)
{
	json_t *results = json_object_get(document, "results");
	json_t *progress = json_object_get(document, "progress");
	char text[4096];
	int r;

	r = document_get_text(label, document, "error", text, sizeof(text),
			      error);
	if (r < 0)
		return r;
	if (!json_is_array(results) || !json_is_object(progress))
		return hib_fail(error, EBADMSG,
				"%s: results or progress are missing", label);
	if (text[0]) {
		task->error = strdup(text);
		if (!task->error)
			return hib_fail_errno(error, ENOMEM, "%s", label);
	}
	json_decref(task->results);
	task->results = json_incref(results);
	task->final_progress = json_incref(progress);
	return 0;
}

int task_from_document(const char *label, const json_t *document,
		       struct task *task, struct hib_error *error)
{
	int kind, status, r;

	kind = get_name_index(label, document, "kind", kind_names,
			      ARRAY_SIZE(kind_names), error);
	if (kind < 0)
		return kind;
	status = get_name_index(label, document, "status", status_names,
				ARRAY_SIZE(status_names), error);
	if (status < 0)
		return status;
	task->kind = (enum task_kind)kind;
	task->status = (enum task_status)status;
	if ((r = document_get_text(label, document, "id", task->id,
				   sizeof(task->id), error)) < 0 ||
	    (r = document_get_name(label, document, "bucket", task->bucket,
				   error)) < 0 ||
	    (r = document_get_name(label, document, "shard", task->shard,
				   error)) < 0 ||
	    (r = document_get_i64(label, document, "created_ms",
				  &task->created_ms, error)) < 0 ||
	    (r = get_time(label, document, "started_ms", &task->started_ms,
			  error)) < 0 ||
	    (r = get_time(label, document, "ended_ms", &task->ended_ms,
			  error)) < 0)
		return r;
	return get_parts(label, document, task, error);
}
