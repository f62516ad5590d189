#include "control/methods.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/uuid.h"
#include "control/methods_call.h"

#define TEXT_BYTES 4096
#define OWNER_BYTES 255
#define TTL_LIMIT_MS (30ull * 24 * 3600 * 1000)
#define PARAMS_LIMIT 6

enum param_type {
	PARAM_TEXT, /* 1 to `limit` bytes without control characters */
	PARAM_FLAG,
	PARAM_NUMBER, /* 0 to `limit` */
	PARAM_TASK,
	PARAM_TASKS, /* an array of 1 to `limit` ids */
	PARAM_SEVERITY,
};

struct param {
	const char *name;
	enum param_type type;
	bool required;
	uint64_t limit;
};

struct method {
	const char *name;
	int (*run)(struct call *call);
	struct param params[PARAMS_LIMIT]; /* ended by one without a name */
};

/* --- what methods read --- */

const char *call_text(const struct call *call, const char *name)
{
	return json_string_value(json_object_get(call->params, name));
}

bool call_flag(const struct call *call, const char *name)
{
	return json_is_true(json_object_get(call->params, name));
}

uint64_t call_number(const struct call *call, const char *name,
		     uint64_t otherwise)
{
	json_t *value = json_object_get(call->params, name);

	return value ? (uint64_t)json_integer_value(value) : otherwise;
}

int call_result(struct call *call, json_t *result)
{
	if (!result)
		return hib_fail(&call->failure->error, ENOMEM,
				"The answer could not be made: out of memory.");
	*call->ret_result = result;
	return 0;
}

/* --- the methods that only pass on --- */

static int method_ping(struct call *call)
{
	return call_result(call, json_pack("{s:b}", "pong", 1));
}

static int method_version(struct call *call)
{
	return call_result(call, json_pack("{s:s, s:s, s:i}", "name", "hibfs",
					   "version", HIBFS_VERSION, "protocol",
					   METHODS_PROTOCOL));
}

static int method_list(struct call *call)
{
	return daemon_list(call->daemon, call_text(call, "target"),
			   call->ret_result, &call->failure->error);
}

static int method_status(struct call *call)
{
	return daemon_status(call->daemon, call->ret_result,
			     &call->failure->error);
}

static int method_config(struct call *call)
{
	return daemon_config(call->daemon, call->ret_result,
			     &call->failure->error);
}

static int method_lock(struct call *call)
{
	const struct daemon_lock_params params = {
		.target = call_text(call, "target"),
		.owner = call_text(call, "owner"),
		.ttl_ms = call_number(call, "ttl_ms", 0),
		.deny = call_flag(call, "deny"),
		.connection = rpc_connection_id(call->connection),
	};

	return daemon_lock(call->daemon, &params, call->ret_result,
			   &call->failure->error);
}

static int method_unlock(struct call *call)
{
	return daemon_unlock(call->daemon, call_text(call, "target"),
			     call_text(call, "owner"), call->ret_result,
			     &call->failure->error);
}

static int give_task(struct call *call, int r, const char *task)
{
	return r < 0 ? r : call_result(call, json_pack("{s:s}", "task", task));
}

static int method_pause(struct call *call)
{
	const struct daemon_pause_params params = {
		.target = call_text(call, "target"),
		.wait_handles = call_flag(call, "wait_handles"),
		.purge = call_flag(call, "purge"),
		.adopt = call_flag(call, "adopt"),
	};
	char task[UUID_TEXT_BYTES];

	return give_task(call,
			 daemon_pause(call->daemon, &params, task,
				      &call->failure->error),
			 task);
}

static int method_resume(struct call *call)
{
	const struct daemon_resume_params params = {
		.target = call_text(call, "target"),
		.take_over = call_flag(call, "take_over"),
	};
	char task[UUID_TEXT_BYTES];

	return give_task(call,
			 daemon_resume(call->daemon, &params, task,
				       &call->failure->error),
			 task);
}

static int method_verify(struct call *call)
{
	char task[UUID_TEXT_BYTES];

	return give_task(call,
			 daemon_verify(call->daemon, call_text(call, "target"),
				       call_flag(call, "read_data"), task,
				       &call->failure->error),
			 task);
}

static int method_cancel(struct call *call)
{
	return daemon_cancel(call->daemon, call_text(call, "task"),
			     call->ret_result, &call->failure->error);
}

static int method_shutdown(struct call *call)
{
	json_t *result = json_pack("{s:b}", "stopping", 1);

	/* Afterwards the socket may be gone before an answer is out. */
	rpc_connection_reply(call->connection, result);
	daemon_shutdown(call->daemon);
	return 0;
}

/* --- the table --- */

#define TARGET(is_required)                                   \
	{                                                     \
		"target", PARAM_TEXT, is_required, TEXT_BYTES \
	}
#define OWNER(is_required)                                    \
	{                                                     \
		"owner", PARAM_TEXT, is_required, OWNER_BYTES \
	}
#define FLAG(name)                         \
	{                                  \
		name, PARAM_FLAG, false, 0 \
	}
#define NUMBER(name, limit)                      \
	{                                        \
		name, PARAM_NUMBER, false, limit \
	}

static const struct method methods[] = {
	{ "ping", method_ping, { { 0 } } },
	{ "version", method_version, { { 0 } } },
	{ "list", method_list, { TARGET(false) } },
	{ "status", method_status, { { 0 } } },
	{ "config", method_config, { { 0 } } },
	{ "lock",
	  method_lock,
	  { TARGET(true), OWNER(false), NUMBER("ttl_ms", TTL_LIMIT_MS),
	    FLAG("deny") } },
	{ "unlock", method_unlock, { TARGET(true), OWNER(true) } },
	{ "pause",
	  method_pause,
	  { TARGET(true), FLAG("wait_handles"), FLAG("purge"),
	    FLAG("adopt") } },
	{ "resume", method_resume, { TARGET(true), FLAG("take_over") } },
	{ "verify", method_verify, { TARGET(true), FLAG("read_data") } },
	{ "cancel", method_cancel, { { "task", PARAM_TASK, true, 0 } } },
	{ "tasks",
	  method_tasks,
	  { FLAG("active"), NUMBER("limit", CALL_TASKS_SHOWN) } },
	{ "task",
	  method_task,
	  { { "tasks", PARAM_TASKS, true, CALL_TASKS_LIMIT } } },
	{ "wait",
	  method_wait,
	  { { "tasks", PARAM_TASKS, true, CALL_TASKS_LIMIT },
	    NUMBER("timeout_ms", TTL_LIMIT_MS),
	    FLAG("progress") } },
	{ "events",
	  method_events,
	  { NUMBER("after", INT64_MAX),
	    NUMBER("limit", CALL_EVENTS_LIMIT),
	    { "severity", PARAM_SEVERITY, false, 0 },
	    TARGET(false),
	    { "task", PARAM_TASK, false, 0 } } },
	{ "subscribe",
	  method_subscribe,
	  { NUMBER("after", INT64_MAX),
	    { "severity", PARAM_SEVERITY, false, 0 },
	    TARGET(false),
	    { "task", PARAM_TASK, false, 0 } } },
	{ "shutdown", method_shutdown, { { 0 } } },
};

static const char *method_name(const void *arg, size_t index)
{
	(void)arg;
	return index < ARRAY_SIZE(methods) ? methods[index].name : NULL;
}

static const char *param_name(const void *arg, size_t index)
{
	const struct method *method = arg;

	return index < PARAMS_LIMIT ? method->params[index].name : NULL;
}

/* --- checking parameters --- */

static bool is_plain_text(const json_t *value, uint64_t limit)
{
	const char *text = json_string_value(value);

	if (!text || !*text || json_string_length(value) > limit)
		return false;
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return false;
	return true;
}

static bool is_task(const json_t *value)
{
	return json_is_string(value) && uuid_is_valid(json_string_value(value));
}

static bool is_task_list(const json_t *value, uint64_t limit)
{
	size_t index;
	json_t *item;

	if (!json_is_array(value) || json_array_size(value) == 0 ||
	    json_array_size(value) > limit)
		return false;
	json_array_foreach(value, index, item) if (!is_task(item)) return false;
	return true;
}

static int check_value(const struct param *param, const json_t *value,
		       struct rpc_failure *failure)
{
	unsigned long long limit = param->limit;
	enum event_severity severity;

	switch (param->type) {
	case PARAM_TEXT:
		if (is_plain_text(value, param->limit))
			return 0;
		return rpc_fail(
			failure, RPC_INVALID_PARAMS,
			"\"%s\" must be a string of 1 to %llu bytes without control characters.",
			param->name, limit);
	case PARAM_FLAG:
		if (json_is_boolean(value))
			return 0;
		return rpc_fail(failure, RPC_INVALID_PARAMS,
				"\"%s\" must be true or false.", param->name);
	case PARAM_NUMBER:
		if (json_is_integer(value) && json_integer_value(value) >= 0 &&
		    (uint64_t)json_integer_value(value) <= param->limit)
			return 0;
		return rpc_fail(failure, RPC_INVALID_PARAMS,
				"\"%s\" must be a whole number from 0 to %llu.",
				param->name, limit);
	case PARAM_TASK:
		if (is_task(value))
			return 0;
		return rpc_fail(failure, RPC_INVALID_PARAMS,
				"\"%s\" must be a task's id (a UUID).",
				param->name);
	case PARAM_TASKS:
		if (is_task_list(value, param->limit))
			return 0;
		return rpc_fail(
			failure, RPC_INVALID_PARAMS,
			"\"%s\" must be an array of 1 to %llu ids of tasks (UUIDs).",
			param->name, limit);
	case PARAM_SEVERITY:
		if (json_is_string(value) &&
		    event_severity_parse(json_string_value(value), &severity) ==
			    0)
			return 0;
		return rpc_fail(
			failure, RPC_INVALID_PARAMS,
			"\"%s\" must be \"info\", \"warning\" or \"error\".",
			param->name);
	}
	return 0;
}

static const struct param *find_param(const struct method *method,
				      const char *name)
{
	for (size_t i = 0; i < PARAMS_LIMIT && method->params[i].name; i++)
		if (strcmp(method->params[i].name, name) == 0)
			return &method->params[i];
	return NULL;
}

static int check_params(const struct method *method, json_t *params,
			struct rpc_failure *failure)
{
	const struct param *param;
	const char *key, *nearest;
	json_t *value;

	json_object_foreach(params, key, value)
	{
		param = find_param(method, key);
		if (!param) {
			nearest = rpc_nearest(key, param_name, method);
			return rpc_fail(
				failure, RPC_INVALID_PARAMS,
				"The method \"%s\" has no parameter \"%.100s\"%s%s%s",
				method->name, key, nearest ? "; is \"" : "",
				nearest ? nearest : "",
				nearest ? "\" meant?" : ".");
		}
		if (check_value(param, value, failure) < 0)
			return -EINVAL;
	}
	for (size_t i = 0; i < PARAMS_LIMIT && method->params[i].name; i++) {
		param = &method->params[i];
		if (param->required && !json_object_get(params, param->name))
			return rpc_fail(
				failure, RPC_INVALID_PARAMS,
				"The method \"%s\" needs the parameter \"%s\".",
				method->name, param->name);
	}
	return 0;
}

static int call_method(void *arg, struct rpc_connection *connection,
		       const char *name, json_t *params, json_t **ret_result,
		       struct rpc_failure *failure)
{
	struct call call = {
		.daemon = arg,
		.connection = connection,
		.params = params,
		.ret_result = ret_result,
		.failure = failure,
	};
	const char *nearest;

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		if (strcmp(methods[i].name, name) != 0)
			continue;
		if (check_params(&methods[i], params, failure) < 0)
			return -EINVAL;
		return methods[i].run(&call);
	}
	nearest = rpc_nearest(name, method_name, NULL);
	return rpc_fail(failure, RPC_METHOD_NOT_FOUND,
			"There is no method \"%.100s\"%s%s%s", name,
			nearest ? "; is \"" : "", nearest ? nearest : "",
			nearest ? "\" meant?" : ".");
}

static void connection_closed(void *arg, uint64_t connection)
{
	daemon_connection_closed(arg, connection);
}

struct rpc_handler methods_handler(struct daemon *daemon)
{
	return (struct rpc_handler){ .call = call_method,
				     .closed = connection_closed,
				     .arg = daemon };
}

int methods_start(struct daemon *daemon, const char *path,
		  const struct log *log, struct rpc_server **ret,
		  struct hib_error *error)
{
	struct daemon_access access;
	struct rpc_config config = {
		.path = path,
		.handler = methods_handler(daemon),
		.log = log,
	};

	daemon_get_access(daemon, &access);
	config.access = (struct peer_access){ .owner_uid = access.owner_uid,
					      .has_group = access.has_group,
					      .group = access.group };
	return rpc_server_start(&config, ret, error);
}
