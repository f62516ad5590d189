#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "control/hibctl.h"
#include "control/rpc_message.h"

/* --- how a task ended --- */

/* Each shard that did not end well. */
static void complain_results(const json_t *task)
{
	size_t index;
	json_t *result;

	json_array_foreach(json_object_get(task, "results"), index, result)
	{
		if (strcmp(get_text(result, "status"), "failed") != 0)
			continue;
		complain("  %s: %s%s%s%s", get_text(result, "shard"),
			 get_text(result, "error"),
			 *get_text(result, "remote") ? " (" : "",
			 get_text(result, "remote"),
			 *get_text(result, "remote") ? ")" : "");
	}
}

static void print_completed(struct hibctl *ctl, const json_t *task,
			    const char *target)
{
	const json_t *progress = json_object_get(task, "progress");
	uint64_t started = get_number(task, "started_ms");
	uint64_t ended = get_number(task, "ended_ms");
	char size[SHOW_BYTES], moved[SHOW_BYTES], time[SHOW_BYTES];
	bool sends = strcmp(get_text(task, "kind"), "pause") == 0;

	show_size(ctl, json_object_get(progress, "bytes_total"), size);
	show_size(ctl,
		  json_object_get(progress,
				  sends ? "bytes_sent" : "bytes_received"),
		  moved);
	show_duration(ended > started ? ended - started : 0, time);
	printf("%s of ", get_text(task, "kind"));
	put_text(stdout, target);
	printf(": completed, %s in %" PRIu64 " files, %s %s, %s\n", size,
	       get_number(progress, "files_total"), moved,
	       sends ? "sent" : "received", time);
}

/* Prints how the task ended and gives the exit code. */
static int show_end(struct hibctl *ctl, const json_t *task)
{
	const char *status = get_text(task, "status");
	char target[TARGET_SHOW_BYTES];

	show_target(task, target);
	if (strcmp(status, "completed") == 0) {
		if (!ctl->json)
			print_completed(ctl, task, target);
		return EXIT_OK;
	}
	complain("%s of %s: %s%s%s", get_text(task, "kind"), target, status,
		 *get_text(task, "error") ? ": " : "", get_text(task, "error"));
	if (json_array_size(json_object_get(task, "results")) > 1)
		complain_results(task);
	return strcmp(status, "stopped") == 0 ? EXIT_STOPPED : EXIT_FAILED;
}

/* Failed beats stopped, which beats completed. */
static int worse(int a, int b)
{
	if (a == EXIT_FAILED || b == EXIT_FAILED)
		return EXIT_FAILED;
	return a > b ? a : b;
}

static int show_ends(struct hibctl *ctl, const json_t *result)
{
	const json_t *tasks = json_object_get(result, "tasks");
	int code = EXIT_OK;
	size_t index;
	json_t *task;

	if (ctl->json)
		put_json(json_array_size(tasks) == 1 ? json_array_get(tasks, 0)
						     : result,
			 JSON_INDENT(2));
	json_array_foreach(tasks, index, task) code =
		worse(code, show_end(ctl, task));
	return code;
}

/* --- waiting --- */

static void tell_interrupted(const json_t *ids)
{
	size_t index;
	json_t *id;

	json_array_foreach(ids, index, id)
		fprintf(stderr,
			"The task goes on. To wait again: hibctl wait %s\n"
			"                  To stop it:    hibctl cancel %s\n",
			json_string_value(id), json_string_value(id));
}

/* Waits for the tasks `ids` (taken over); timeout_ms UINT64_MAX: none. */
static int wait_for(struct hibctl *ctl, json_t *ids, uint64_t timeout_ms)
{
	struct progress_bar bar = { .ctl = ctl };
	struct hib_error error = HIB_ERROR_INIT;
	CLEANUP_CLOSE int interrupt_fd = open_interrupt();
	struct client_call call = {
		.method = "wait",
		.params = json_pack("{s:O, s:b}", "tasks", ids, "progress",
				    !ctl->json),
		.notify = progress_notify,
		.arg = &bar,
		.interrupt_fd = interrupt_fd,
	};
	json_t *result;
	int r;

	if (timeout_ms != UINT64_MAX)
		json_object_set_new(call.params, "timeout_ms",
				    json_integer((json_int_t)timeout_ms));
	r = client_call(ctl->client, &call, &result, &error);
	progress_end(&bar);
	if (r == -EINTR && client_code(ctl->client) == 0) {
		tell_interrupted(ids);
		r = EXIT_INTERRUPTED;
	} else if (r < 0) {
		r = report(ctl, r, &error);
	} else {
		r = show_ends(ctl, result);
		json_decref(result);
	}
	json_decref(ids);
	return r;
}

/* Starts a task and, unless told otherwise, waits for it. */
static int run_task(struct hibctl *ctl, const char *method, json_t *params,
		    bool wait)
{
	json_t *result;
	int r;

	if (!wait) {
		r = hibctl_query(ctl, method, params, &result);
		if (r != 0 || !result)
			return r;
		puts(get_text(result, "task"));
		json_decref(result);
		return EXIT_OK;
	}
	r = hibctl_call(ctl, method, params, &result);
	if (r != 0)
		return r;
	r = wait_for(ctl, json_pack("[O]", json_object_get(result, "task")),
		     UINT64_MAX);
	json_decref(result);
	return r;
}

/* --- the verbs --- */

enum { OPTION_NO_WAIT = 256 };

/*
 * A verb with a target and flags: each option but --no-wait is the parameter
 * named by params[option's val].
 */
static int task_verb(struct hibctl *ctl, int argc, char **argv,
		     const struct option *options, const char *const *params)
{
	json_t *object = json_object();
	bool wait = true;
	int option, r;

	while ((option = next_option(ctl, argc, argv, options)) != -1) {
		if (option == OPTION_NO_WAIT) {
			wait = false;
		} else if (option == '?') {
			json_decref(object);
			return EXIT_USAGE;
		} else {
			json_object_set_new(object, params[option],
					    json_true());
		}
	}
	r = check_arguments(ctl, argc, 1, 1);
	if (r != 0) {
		json_decref(object);
		return r;
	}
	json_object_set_new(object, "target", rpc_string(argv[optind]));
	return run_task(ctl, ctl->verb->name, object, wait);
}

int verb_pause(struct hibctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "purge", no_argument, NULL, 0 },
		{ "adopt", no_argument, NULL, 1 },
		{ "wait-handles", no_argument, NULL, 2 },
		{ "no-wait", no_argument, NULL, OPTION_NO_WAIT },
		{ 0 }
	};
	static const char *const params[] = { "purge", "adopt",
					      "wait_handles" };

	return task_verb(ctl, argc, argv, options, params);
}

int verb_resume(struct hibctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "take-over", no_argument, NULL, 0 },
		{ "no-wait", no_argument, NULL, OPTION_NO_WAIT },
		{ 0 }
	};
	static const char *const params[] = { "take_over" };

	return task_verb(ctl, argc, argv, options, params);
}

int verb_verify(struct hibctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "read-data", no_argument, NULL, 0 },
		{ "no-wait", no_argument, NULL, OPTION_NO_WAIT },
		{ 0 }
	};
	static const char *const params[] = { "read_data" };

	return task_verb(ctl, argc, argv, options, params);
}

int verb_wait(struct hibctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "timeout", required_argument, NULL, 't' }, { 0 }
	};
	uint64_t timeout_ms = UINT64_MAX;
	json_t *ids;
	int option, r;

	while ((option = next_option(ctl, argc, argv, options)) != -1) {
		if (option != 't')
			return EXIT_USAGE;
		if (!parse_duration(optarg, &timeout_ms))
			return usage_error(
				ctl,
				"--timeout needs a time such as 500ms, 30s, 5m or 1h, not %s",
				optarg);
	}
	r = hibctl_connect(ctl);
	if (r == 0)
		r = task_ids(ctl, argc, argv, &ids);
	if (r != 0)
		return r;
	return wait_for(ctl, ids, timeout_ms);
}

int verb_cancel(struct hibctl *ctl, int argc, char **argv)
{
	static const struct option options[] = { { 0 } };
	json_t *ids, *result;
	int r;

	if (next_option(ctl, argc, argv, options) != -1)
		return EXIT_USAGE;
	r = check_arguments(ctl, argc, 1, 1);
	if (r == 0)
		r = task_ids(ctl, argc, argv, &ids);
	if (r != 0)
		return r;
	r = hibctl_query(ctl, "cancel",
			 json_pack("{s:O}", "task", json_array_get(ids, 0)),
			 &result);
	json_decref(ids);
	if (r != 0 || !result)
		return r;
	if (json_is_true(json_object_get(result, "cancelled")))
		puts("The task is being stopped.");
	else
		puts(get_text(result, "message"));
	json_decref(result);
	return EXIT_OK;
}

int verb_shutdown(struct hibctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "no-wait", no_argument, NULL, OPTION_NO_WAIT }, { 0 }
	};
	CLEANUP_CLOSE int interrupt_fd = -EBADF;
	struct client_call follow = { 0 };
	bool wait = true;
	json_t *result;
	int option, r;

	while ((option = next_option(ctl, argc, argv, options)) != -1) {
		if (option != OPTION_NO_WAIT)
			return EXIT_USAGE;
		wait = false;
	}
	r = check_arguments(ctl, argc, 0, 0);
	if (r == 0)
		r = hibctl_query(ctl, "shutdown", NULL, &result);
	if (r != 0)
		return r;
	json_decref(result);
	if (!wait)
		return EXIT_OK;
	/* The daemon hangs up when it has ended its tasks. */
	interrupt_fd = open_interrupt();
	follow.interrupt_fd = interrupt_fd;
	r = client_follow(ctl->client, &follow, NULL);
	return r == -EINTR ? EXIT_INTERRUPTED : EXIT_OK;
}
