#include "control/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "control/daemon_internal.h"
#include "control/pauser.h"
#include "control/resumer.h"
#include "control/verify.h"

struct task_registry *daemon_tasks(struct daemon *daemon)
{
	return daemon->tasks;
}

struct event_log *daemon_events(struct daemon *daemon)
{
	return daemon->events;
}

static int no_memory(struct hib_error *error)
{
	return hib_fail(error, ENOMEM, "out of memory");
}

static int parse(struct daemon *daemon, const char *text, struct target *ret,
		 struct hib_error *error)
{
	return target_parse(text, daemon->options->shard_depth, ret, error);
}

/* The shards that a target names: one, or all of a bucket. */
static int select_shards(struct daemon *daemon, const struct target *target,
			 struct shard ***ret, size_t *ret_count,
			 struct hib_error *error)
{
	struct shard **list;
	int r;

	if (!target->shard[0])
		return shards_of(daemon->shards, target->bucket, ret, ret_count,
				 error);
	list = calloc(1, sizeof(*list));
	if (!list)
		return no_memory(error);
	r = shards_find(daemon->shards, target->bucket, target->shard, false,
			&list[0], error);
	if (r < 0) {
		free(list);
		return r;
	}
	*ret = list;
	*ret_count = 1;
	return 0;
}

/* ---- list, status, config ---- */

static json_t *number_or_null(uint64_t value)
{
	return value ? json_integer((json_int_t)value) : json_null();
}

static json_t *name_json(const char *name)
{
	CLEANUP(buffer_done)
	struct buffer text = BUFFER_INIT(TARGET_TEXT_BYTES);

	return target_format(&text, name, NULL, 2) < 0
		       ? NULL
		       : json_string(buffer_string(&text));
}

static json_t *operation_json(struct shard *shard)
{
	char owner[LOCK_OWNER_BYTES];
	enum operation operation = shard_operation(shard, owner);

	if (operation == OPERATION_NONE)
		return json_null();
	return json_pack("{s:s, s:s}", "kind", operation_name(operation),
			 operation == OPERATION_LOCK ? "owner" : "task", owner);
}

static json_t *lock_json(struct daemon *daemon, struct shard *shard)
{
	struct lock_info info;

	if (!locks_info(daemon->locks, shard, &info))
		return json_null();
	return json_pack("{s:s, s:i, s:b, s:I, s:o}", "owner", info.owner,
			 "count", (int)info.count, "deny", info.deny,
			 "since_ms", (json_int_t)info.since_ms, "expires_ms",
			 number_or_null((uint64_t)info.expires_ms));
}

static json_t *shard_json(struct daemon *daemon, struct shard *shard)
{
	struct shard_record record;

	shard_get_record(shard, &record);
	return json_pack(
		"{s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o}",
		"target", shard_text(shard), "bucket",
		name_json(shard_bucket(shard)), "shard",
		name_json(shard_name(shard)), "state",
		shard_state_name(record.state), "bytes",
		record.seq ? json_integer((json_int_t)record.logical_bytes)
			   : json_null(),
		"files",
		record.seq ? json_integer((json_int_t)record.files)
			   : json_null(),
		"seq", number_or_null(record.seq), "epoch",
		number_or_null(record.epoch), "stub", record.stub, "operation",
		operation_json(shard), "lock", lock_json(daemon, shard),
		"changed_ms", number_or_null((uint64_t)record.changed_ms),
		"error",
		record.error[0] ? json_string(record.error) : json_null());
}

int daemon_list(struct daemon *daemon, const char *target, json_t **ret,
		struct hib_error *error)
{
	CLEANUP_FREE struct shard **list = NULL;
	json_t *shards, *result;
	struct target parsed;
	size_t count;
	int r;

	if (target) {
		r = parse(daemon, target, &parsed, error);
		if (r == 0)
			r = select_shards(daemon, &parsed, &list, &count,
					  error);
	} else {
		r = shards_of(daemon->shards, NULL, &list, &count, error);
	}
	if (r < 0)
		return r;
	shards = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(shards, shard_json(daemon, list[i]));
	result = json_pack("{s:o}", "shards", shards);
	if (!result || json_array_size(shards) != count) {
		json_decref(result);
		return no_memory(error);
	}
	*ret = result;
	return 0;
}

static json_t *filesystem_json(struct daemon *daemon)
{
	struct fs_status status;
	char protocol[32];

	fs_get_status(daemon->fs, &status);
	snprintf(protocol, sizeof(protocol), "%u.%u",
		 status.kernel_protocol_major, status.kernel_protocol_minor);
	return json_pack(
		"{s:b, s:o, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "passthrough",
		status.passthrough, "passthrough_reason",
		status.passthrough ? json_null()
				   : json_string(status.passthrough_reason),
		"libfuse_version", status.libfuse_version, "kernel_protocol",
		protocol, "inodes", (json_int_t)status.inodes,
		"open_descriptors", (json_int_t)status.open_descriptors,
		"open_handles", (json_int_t)status.open_handles,
		"parked_requests", (json_int_t)status.parked_requests,
		"requests", (json_int_t)status.requests);
}

static json_t *store_json(struct daemon *daemon)
{
	struct hib_error last = HIB_ERROR_INIT;
	struct store_stats stats;

	store_get_stats(daemon->store, &stats);
	store_last_error(daemon->store, &last);
	return json_pack(
		"{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}",
		"url", store_url(daemon->store), "requests",
		(json_int_t)stats.requests, "retries",
		(json_int_t)stats.retries, "errors", (json_int_t)stats.errors,
		"bytes_sent", (json_int_t)stats.bytes_sent, "bytes_received",
		(json_int_t)stats.bytes_received, "under_way",
		(json_int_t)stats.under_way, "queued", (json_int_t)stats.queued,
		"last_success_ms",
		number_or_null((uint64_t)stats.last_success_ms),
		"last_failure_ms",
		number_or_null((uint64_t)stats.last_failure_ms), "last_error",
		last.code ? json_string(last.message) : json_null());
}

static json_t *states_json(struct shard *const *list, size_t count)
{
	json_int_t counts[SHARD_STATE_COUNT] = { 0 };
	json_t *states = json_object();

	for (size_t i = 0; i < count; i++)
		counts[shard_state(list[i])]++;
	for (int i = 0; i < SHARD_STATE_COUNT; i++)
		json_object_set_new(states, shard_state_name(i),
				    json_integer(counts[i]));
	return states;
}

int daemon_status(struct daemon *daemon, json_t **ret, struct hib_error *error)
{
	CLEANUP_FREE struct shard **list = NULL;
	int64_t now = clock_realtime_ms();
	size_t count, tasks = 0;
	struct task **active;
	json_t *result;
	int r;

	r = shards_of(daemon->shards, NULL, &list, &count, error);
	if (r < 0)
		return r;
	if (task_list(daemon->tasks, true, &active, &tasks) < 0)
		return no_memory(error);
	task_list_free(active, tasks);
	result = json_pack(
		"{s:s, s:i, s:I, s:I, s:{s:s, s:s}, s:s, s:s, s:o, s:o, s:I, s:o}",
		"version", HIBFS_VERSION, "pid", (int)getpid(), "started_ms",
		(json_int_t)daemon->started_ms, "uptime_ms",
		(json_int_t)(now - daemon->started_ms), "node", "id",
		daemon->node.id, "name", daemon->node.name, "source",
		daemon->source, "mountpoint", daemon->mountpoint, "filesystem",
		filesystem_json(daemon), "store", store_json(daemon),
		"tasks_active", (json_int_t)tasks, "shards",
		states_json(list, count));
	if (!result)
		return no_memory(error);
	*ret = result;
	return 0;
}

int daemon_config(struct daemon *daemon, json_t **ret, struct hib_error *error)
{
	*ret = options_to_json(daemon->options);
	return *ret ? 0 : no_memory(error);
}

/* ---- lock, unlock ---- */

static json_t *locked_json(struct shard *const *list,
			   const struct lock_result *results, size_t count)
{
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(
			array, json_pack("{s:s, s:i, s:I, s:f}", "target",
					 shard_text(list[i]), "count",
					 (int)results[i].count, "held_inodes",
					 (json_int_t)results[i].held_inodes,
					 "freeze_ms",
					 (double)results[i].freeze_ns / 1e6));
	return array;
}

int daemon_lock(struct daemon *daemon, const struct daemon_lock_params *params,
		json_t **ret, struct hib_error *error)
{
	CLEANUP_FREE struct lock_result *results = NULL;
	CLEANUP_FREE struct shard **list = NULL;
	char owner[UUID_TEXT_BYTES];
	struct lock_request request = {
		.owner = params->owner,
		.ttl_ms = params->ttl_ms,
		.connection = params->connection,
		.deny = params->deny,
	};
	struct target target;
	size_t count;
	int r = parse(daemon, params->target, &target, error);

	if (r < 0)
		return r;
	if (!request.owner) {
		uuid_new(owner);
		request.owner = owner;
	}
	if (!*request.owner || strlen(request.owner) >= LOCK_OWNER_BYTES)
		return hib_fail(error, EINVAL,
				"a lock's owner has 1 to %d bytes",
				LOCK_OWNER_BYTES - 1);
	r = select_shards(daemon, &target, &list, &count, error);
	if (r < 0)
		return r;
	results = calloc(count + 1, sizeof(*results));
	if (!results)
		return no_memory(error);
	r = locks_acquire(daemon->locks, list, count, &request, results, error);
	if (r < 0)
		return r;
	*ret = json_pack("{s:s, s:o, s:o}", "owner", request.owner,
			 "expires_ms",
			 request.ttl_ms
				 ? json_integer(clock_realtime_ms() +
						(json_int_t)request.ttl_ms)
				 : json_null(),
			 "shards", locked_json(list, results, count));
	return *ret ? 0 : no_memory(error);
}

int daemon_unlock(struct daemon *daemon, const char *text, const char *owner,
		  json_t **ret, struct hib_error *error)
{
	CLEANUP_FREE struct unlock_result *results = NULL;
	CLEANUP_FREE struct shard **list = NULL;
	struct target target;
	bool released = false;
	json_t *array;
	size_t count;
	int r = parse(daemon, text, &target, error);

	if (r == 0)
		r = select_shards(daemon, &target, &list, &count, error);
	if (r < 0)
		return r;
	results = calloc(count + 1, sizeof(*results));
	if (!results)
		return no_memory(error);
	r = locks_release(daemon->locks, list, count, owner, results, error);
	if (r < 0)
		return r;
	array = json_array();
	for (size_t i = 0; i < count; i++) {
		if (!results[i].held)
			continue;
		released = true;
		json_array_append_new(
			array,
			json_pack("{s:s, s:i, s:o}", "target",
				  shard_text(list[i]), "count",
				  (int)results[i].count, "changed",
				  results[i].changed[0]
					  ? json_string(results[i].changed)
					  : json_null()));
	}
	*ret = json_pack("{s:b, s:o}", "released", released, "shards", array);
	if (*ret && !released)
		json_object_set_new(*ret, "message",
				    json_sprintf("%s was not locked", text));
	return *ret ? 0 : no_memory(error);
}

void daemon_connection_closed(struct daemon *daemon, uint64_t connection)
{
	locks_connection_closed(daemon->locks, connection);
}

/* ---- tasks ---- */

static int make_task(struct daemon *daemon, enum task_kind kind,
		     const char *bucket, const char *shard, struct task **ret,
		     struct hib_error *error)
{
	struct task_params params = {
		.kind = kind,
		.bucket = bucket,
		.shard = shard,
		.parent = runner_cancel(daemon->runner),
	};

	return task_new(daemon->tasks, &params, ret, error);
}

static void end_unstarted(struct task *task, const struct hib_error *error)
{
	task_end(task, TASK_FAILED, error ? error->message : NULL, NULL);
	task_unref(task);
}

static int start_task(struct daemon *daemon, struct task *task, struct job *job,
		      char ret_task[UUID_TEXT_BYTES], struct hib_error *error)
{
	int r;

	memcpy(ret_task, task_id(task), UUID_TEXT_BYTES);
	r = runner_start(daemon->runner, task, job, error);
	task_unref(task);
	return r;
}

static void end_all(struct shard **list, size_t count)
{
	while (count > 0)
		shard_end(list[--count]);
}

/* Those that are to be paused: of a bucket, the hibernated ones stay as they
 * are. */
static int choose_for_pause(struct shard **list, size_t *count,
			    struct hib_error *error)
{
	size_t kept = 0, all = *count;

	for (size_t i = 0; i < all; i++) {
		struct shard_step step;
		enum shard_state state = shard_state(list[i]);
		int r = shard_state_step(state, SHARD_PAUSE_START, &step);

		if (r == -EALREADY && all > 1)
			continue;
		if (r < 0 && r != -EBUSY)
			return hib_fail(error, -r, "%s %s", shard_text(list[i]),
					shard_state_refusal(state,
							    SHARD_PAUSE_START));
		list[kept++] = list[i];
	}
	if (all && !kept)
		return hib_fail(
			error, EALREADY,
			"every shard of the bucket is hibernated already");
	*count = kept;
	return 0;
}

static int start_pause(struct daemon *daemon, const struct target *target,
		       struct shard **list, size_t count,
		       const struct daemon_pause_params *params,
		       char ret_task[UUID_TEXT_BYTES], struct hib_error *error)
{
	struct task *task;
	struct job *job;
	size_t begun = 0;
	int r = make_task(daemon, TASK_PAUSE, target->bucket, target->shard,
			  &task, error);

	while (r == 0 && begun < count) {
		r = shard_begin(list[begun], OPERATION_PAUSE, task_id(task),
				error);
		if (r == 0)
			begun++;
		else
			end_unstarted(task, error);
	}
	if (r < 0) {
		end_all(list, begun);
		return r;
	}
	job = pauser_new(target->bucket, list, count, params, error);
	if (!job) {
		end_all(list, begun);
		end_unstarted(task, error);
		return -ENOMEM;
	}
	return start_task(daemon, task, job, ret_task, error);
}

int daemon_pause(struct daemon *daemon,
		 const struct daemon_pause_params *params,
		 char ret_task[UUID_TEXT_BYTES], struct hib_error *error)
{
	CLEANUP_FREE struct shard **list = NULL;
	struct target target;
	size_t count;
	int r = parse(daemon, params->target, &target, error);

	if (r == 0)
		r = select_shards(daemon, &target, &list, &count, error);
	if (r == 0)
		r = choose_for_pause(list, &count, error);
	if (r == 0)
		r = start_pause(daemon, &target, list, count, params, ret_task,
				error);
	return r;
}

static int start_resume(struct daemon *daemon, const struct target *target,
			struct shard *shard,
			const struct daemon_resume_params *params,
			char ret_task[UUID_TEXT_BYTES], struct hib_error *error)
{
	struct task *task;
	struct job *job;
	int r = make_task(daemon, TASK_RESUME, target->bucket, target->shard,
			  &task, error);

	if (r < 0)
		return r;
	if (shard)
		r = shard_begin(shard, OPERATION_RESUME, task_id(task), error);
	if (r < 0) {
		end_unstarted(task, error);
		return r;
	}
	job = resumer_new(target->bucket, shard, params, error);
	if (!job) {
		if (shard)
			shard_end(shard);
		end_unstarted(task, error);
		return -ENOMEM;
	}
	return start_task(daemon, task, job, ret_task, error);
}

/* A shard that is live, or busy, is refused before there is a task. */
static int check_resume(struct shard *shard, struct hib_error *error)
{
	struct shard_step step;
	enum shard_state state = shard_state(shard);
	int r;

	if (!shard_is_recorded(shard) && !shard_has_tree(shard))
		return 0;
	r = shard_state_step(state, SHARD_RESUME_START, &step);
	if (r < 0 && r != -EBUSY)
		return hib_fail(error, -r, "%s %s", shard_text(shard),
				shard_state_refusal(state, SHARD_RESUME_START));
	return 0;
}

int daemon_resume(struct daemon *daemon,
		  const struct daemon_resume_params *params,
		  char ret_task[UUID_TEXT_BYTES], struct hib_error *error)
{
	struct shard *shard = NULL;
	struct target target;
	int r = parse(daemon, params->target, &target, error);

	if (r == 0 && target.shard[0])
		r = shards_find(daemon->shards, target.bucket, target.shard,
				true, &shard, error);
	if (r == 0 && shard)
		r = check_resume(shard, error);
	if (r < 0)
		return r;
	return start_resume(daemon, &target, shard, params, ret_task, error);
}

int daemon_resume_shard(struct daemon *daemon, struct shard *shard,
			char ret_task[UUID_TEXT_BYTES], struct hib_error *error)
{
	struct daemon_resume_params params = { 0 };
	struct target target = { 0 };
	int r = check_resume(shard, error);

	if (r < 0)
		return r;
	snprintf(target.bucket, sizeof(target.bucket), "%s",
		 shard_bucket(shard));
	snprintf(target.shard, sizeof(target.shard), "%s", shard_name(shard));
	return start_resume(daemon, &target, shard, &params, ret_task, error);
}

int daemon_verify(struct daemon *daemon, const char *text, bool read_data,
		  char ret_task[UUID_TEXT_BYTES], struct hib_error *error)
{
	struct target target;
	struct task *task;
	struct job *job;
	int r = parse(daemon, text, &target, error);

	if (r == 0)
		r = make_task(daemon, TASK_VERIFY, target.bucket, target.shard,
			      &task, error);
	if (r < 0)
		return r;
	job = verify_new(target.bucket, target.shard, read_data, error);
	if (!job) {
		end_unstarted(task, error);
		return -ENOMEM;
	}
	return start_task(daemon, task, job, ret_task, error);
}

int daemon_cancel(struct daemon *daemon, const char *id, json_t **ret,
		  struct hib_error *error)
{
	struct task *task = task_find(daemon->tasks, id);
	const char *message = NULL;

	if (!task)
		return hib_fail(error, ENOENT, "there is no task %.64s", id);
	if (task_has_ended(task))
		message = "the task has ended already";
	else if (!task_request_cancel(task))
		message =
			"the task is past the point of no return and will complete";
	task_unref(task);
	*ret = json_pack("{s:b}", "cancelled", message == NULL);
	if (*ret && message)
		json_object_set_new(*ret, "message", json_string(message));
	return *ret ? 0 : no_memory(error);
}

void daemon_shutdown(struct daemon *daemon)
{
	(void)daemon;
	kill(getpid(), SIGTERM);
}

void daemon_get_access(struct daemon *daemon, struct daemon_access *ret)
{
	*ret = daemon->access;
}
