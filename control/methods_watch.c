/*
 * The methods that look at tasks and events. wait and subscribe block in the
 * connection's thread; the connection's cancel ends them.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "control/methods_call.h"

#define TASKS_SHOWN 100 /* unless more are asked for */
#define EVENTS_SHOWN 100
#define PROGRESS_MS 200 /* between two notifications */
#define EVENTS_AT_ONCE 64 /* copied for a subscriber at a time */

/* --- tasks --- */

/* A task without its shards' results, which may be many. */
static json_t *task_summary(struct task *task)
{
	json_t *json = task_to_json(task);

	json_object_del(json, "results");
	return json;
}

int method_tasks(struct call *call)
{
	size_t limit = call_number(call, "limit", TASKS_SHOWN);
	json_t *array = json_array();
	struct task **tasks;
	size_t count, first;
	int r;

	r = task_list(daemon_tasks(call->daemon), call_flag(call, "active"),
		      &tasks, &count);
	if (r < 0) {
		json_decref(array);
		return call_result(call, NULL);
	}
	first = count > limit ? count - limit : 0;
	for (size_t i = first; i < count; i++)
		json_array_append_new(array, task_summary(tasks[i]));
	task_list_free(tasks, count);
	return call_result(call, json_pack("{s:o}", "tasks", array));
}

struct task_set {
	struct task **tasks;
	size_t count;
	json_t *missing; /* ids */
};

static void task_set_done(struct task_set *set)
{
	for (size_t i = 0; i < set->count; i++)
		task_unref(set->tasks[i]);
	free(set->tasks);
	json_decref(set->missing);
}

static int task_set_find(struct call *call, struct task_set *set)
{
	json_t *ids = json_object_get(call->params, "tasks");
	size_t index;
	json_t *id;

	set->tasks = calloc(json_array_size(ids), sizeof(*set->tasks));
	set->missing = json_array();
	if (!set->tasks || !set->missing)
		return call_result(call, NULL);
	json_array_foreach(ids, index, id)
	{
		struct task *task = task_find(daemon_tasks(call->daemon),
					      json_string_value(id));

		if (task)
			set->tasks[set->count++] = task;
		else
			json_array_append(set->missing, id);
	}
	return 0;
}

static int not_found(struct call *call, const struct task_set *set)
{
	const char *id = json_string_value(json_array_get(set->missing, 0));

	return hib_fail(
		&call->failure->error, ENOENT,
		"There is no task %s; ended tasks are kept for ten minutes and by count.",
		id);
}

static json_t *task_set_json(const struct task_set *set)
{
	json_t *array = json_array();

	for (size_t i = 0; i < set->count; i++)
		json_array_append_new(array, task_to_json(set->tasks[i]));
	return array;
}

int method_task(struct call *call)
{
	CLEANUP(task_set_done) struct task_set set = { 0 };
	int r = task_set_find(call, &set);

	if (r < 0)
		return r;
	if (set.count == 0)
		return not_found(call, &set);
	return call_result(call,
			   json_pack("{s:o, s:O}", "tasks", task_set_json(&set),
				     "not_found", set.missing));
}

/* Tells of the tasks that have moved since `shown`, which is brought up. */
static int notify_progress(struct call *call, const struct task_set *set,
			   json_t **shown)
{
	json_t *moved = json_array();

	for (size_t i = 0; i < set->count; i++) {
		json_t *now = task_summary(set->tasks[i]);

		if (!now || (shown[i] && json_equal(shown[i], now))) {
			json_decref(now);
			continue;
		}
		json_array_append(moved, now);
		json_decref(shown[i]);
		shown[i] = now;
	}
	if (json_array_size(moved) == 0) {
		json_decref(moved);
		return 0;
	}
	return rpc_connection_notify(call->connection, "progress",
				     json_pack("{s:o}", "tasks", moved));
}

static uint64_t deadline_after(uint64_t timeout_ms)
{
	uint64_t now_ms = clock_monotonic_ms();

	return timeout_ms > UINT64_MAX - now_ms ? UINT64_MAX
						: now_ms + timeout_ms;
}

/* Waits in steps of PROGRESS_MS: counters wake nobody, they are looked at. */
static int wait_with_progress(struct call *call, const struct task_set *set,
			      uint64_t deadline_ms, json_t **shown)
{
	int r;

	for (;;) {
		uint64_t step_ms = deadline_after(PROGRESS_MS);

		r = notify_progress(call, set, shown);
		if (r < 0)
			return r;
		if (step_ms > deadline_ms)
			step_ms = deadline_ms;
		r = task_wait(daemon_tasks(call->daemon), set->tasks,
			      set->count, step_ms,
			      rpc_connection_cancel(call->connection));
		if (r != -ETIMEDOUT || clock_monotonic_ms() >= deadline_ms)
			return r;
	}
}

int method_wait(struct call *call)
{
	uint64_t deadline_ms =
		deadline_after(call_number(call, "timeout_ms", UINT64_MAX));
	CLEANUP(task_set_done) struct task_set set = { 0 };
	json_t **shown;
	int r = task_set_find(call, &set);

	if (r < 0)
		return r;
	if (json_array_size(set.missing) > 0)
		return not_found(call, &set);
	if (call_flag(call, "progress")) {
		shown = calloc(set.count, sizeof(*shown));
		if (!shown)
			return call_result(call, NULL);
		r = wait_with_progress(call, &set, deadline_ms, shown);
		for (size_t i = 0; i < set.count; i++)
			json_decref(shown[i]);
		free(shown);
	} else {
		r = task_wait(daemon_tasks(call->daemon), set.tasks, set.count,
			      deadline_ms,
			      rpc_connection_cancel(call->connection));
	}
	if (r == -ETIMEDOUT)
		return hib_fail(&call->failure->error, ETIMEDOUT,
				"The time to wait is over; the task goes on.");
	if (r < 0)
		return hib_fail(
			&call->failure->error, -r,
			"The wait was ended: this hibfs is shutting down.");
	return call_result(call,
			   json_pack("{s:o}", "tasks", task_set_json(&set)));
}

/* --- events --- */

/* "BUCKET/SHARD" of a filter, in two. */
struct target_filter {
	char *bucket; /* owned, shard points into it */
	const char *shard;
};

static void target_filter_done(struct target_filter *target)
{
	free(target->bucket);
}

static int read_filter(struct call *call, struct target_filter *target,
		       struct event_filter *ret)
{
	const char *text = call_text(call, "target");
	const char *severity = call_text(call, "severity");
	struct event_filter filter = { .task_id = call_text(call, "task") };
	char *slash;

	if (severity)
		event_severity_parse(severity, &filter.severity);
	if (text) {
		target->bucket = strdup(text);
		if (!target->bucket)
			return call_result(call, NULL);
		slash = strchr(target->bucket, '/');
		if (slash) {
			*slash = '\0';
			target->shard = slash + 1;
		}
		filter.bucket = target->bucket;
		filter.shard = target->shard;
	}
	*ret = filter;
	return 0;
}

static void keep_last(json_t *array, size_t count)
{
	size_t size = json_array_size(array);
	json_t *kept;

	if (size <= count)
		return;
	kept = json_array();
	for (size_t i = size - count; i < size; i++)
		json_array_append(kept, json_array_get(array, i));
	json_array_clear(array);
	json_array_extend(array, kept);
	json_decref(kept);
}

static uint64_t event_id(const json_t *event)
{
	return (uint64_t)json_integer_value(json_object_get(event, "event_id"));
}

/* With "after" the first ones behind it, to go on from; else the last ones. */
int method_events(struct call *call)
{
	CLEANUP(target_filter_done) struct target_filter target = { 0 };
	struct event_log *log = daemon_events(call->daemon);
	size_t limit = call_number(call, "limit", EVENTS_SHOWN);
	bool forward = json_object_get(call->params, "after") != NULL;
	uint64_t last_id = event_last_id(log);
	struct event_filter filter;
	json_t *events;
	size_t size;
	int r;

	r = read_filter(call, &target, &filter);
	if (r < 0)
		return r;
	filter.since_id = call_number(call, "after", 0);
	if (forward && limit > 0)
		filter.limit = limit;
	r = event_read(log, &filter, &events, &call->failure->error);
	if (r < 0)
		return r;
	keep_last(events, limit);
	size = json_array_size(events);
	if (forward && limit == 0)
		last_id = filter.since_id;
	else if (size > 0 &&
		 (size == limit ||
		  event_id(json_array_get(events, size - 1)) > last_id))
		last_id = event_id(json_array_get(events, size - 1));
	return call_result(call, json_pack("{s:o, s:I}", "events", events,
					   "last_id", (json_int_t)last_id));
}

/* Sends what there is behind filter->since_id, and moves that on. */
static int notify_events(struct call *call, struct event_filter *filter)
{
	struct event_log *log = daemon_events(call->daemon);
	json_t *events, *event;
	size_t index, size;
	int r;

	do {
		uint64_t last_id = event_last_id(log);

		r = event_read(log, filter, &events, &call->failure->error);
		if (r < 0)
			return r;
		size = json_array_size(events);
		if (size < filter->limit && last_id > filter->since_id)
			filter->since_id = last_id;
		json_array_foreach(events, index, event)
		{
			if (event_id(event) > filter->since_id)
				filter->since_id = event_id(event);
			r = rpc_connection_notify(call->connection, "event",
						  json_incref(event));
			if (r < 0)
				break;
		}
		json_decref(events);
	} while (r == 0 && size == filter->limit);
	return r;
}

int method_subscribe(struct call *call)
{
	CLEANUP(target_filter_done) struct target_filter target = { 0 };
	struct event_log *log = daemon_events(call->daemon);
	struct event_filter filter;
	int r;

	r = read_filter(call, &target, &filter);
	if (r < 0)
		return r;
	filter.since_id = call_number(call, "after", event_last_id(log));
	filter.limit = EVENTS_AT_ONCE;
	r = rpc_connection_reply(call->connection,
				 json_pack("{s:I}", "after",
					   (json_int_t)filter.since_id));
	while (r == 0) {
		r = notify_events(call, &filter);
		if (r == 0)
			r = event_wait(log, filter.since_id, UINT64_MAX,
				       rpc_connection_cancel(call->connection));
	}
	return r;
}
