#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "control/hibctl.h"
#include "control/rpc_message.h"

static const struct option no_options[] = { { 0 } };

/* Verbs that take no option of their own. */
static int check_words(struct hibctl *ctl, int argc, char **argv, int min,
		       int max)
{
	if (next_option(ctl, argc, argv, no_options) != -1)
		return EXIT_USAGE;
	return check_arguments(ctl, argc, min, max);
}

/* --- list --- */

/* How much of a shard lies on the local disk, by its state. */
static void show_local(const struct hibctl *ctl, const json_t *shard,
		       char ret_text[SHOW_BYTES])
{
	const json_t *local = json_object_get(shard, "local_bytes");
	const char *state = get_text(shard, "state");
	const char *text = "all";

	if (json_is_integer(local)) {
		show_size(ctl, local, ret_text);
		return;
	}
	if (strcmp(state, "hibernated") == 0 || strcmp(state, "resuming") == 0)
		text = json_is_true(json_object_get(shard, "stub")) ? "stub"
								    : "none";
	else if (strcmp(state, "hydrating") == 0)
		text = "part";
	snprintf(ret_text, SHOW_BYTES, "%s", text);
}

/* The lock, else the operation under way, else what went wrong last. */
static void show_activity(const json_t *shard, char *ret_text, size_t size)
{
	const json_t *lock = json_object_get(shard, "lock");
	const json_t *operation = json_object_get(shard, "operation");

	if (json_is_object(lock))
		snprintf(ret_text, size, "locked by %s%s",
			 get_text(lock, "owner"),
			 json_is_true(json_object_get(lock, "deny")) ? " (deny)"
								     : "");
	else if (json_is_object(operation))
		snprintf(ret_text, size, "%s %s", get_text(operation, "kind"),
			 get_text(operation, "task"));
	else if (*get_text(shard, "error"))
		snprintf(ret_text, size, "error: %s", get_text(shard, "error"));
	else
		snprintf(ret_text, size, "-");
}

static void show_count(const json_t *shard, const char *name,
		       char ret_text[SHOW_BYTES])
{
	if (json_is_integer(json_object_get(shard, name)))
		snprintf(ret_text, SHOW_BYTES, "%" PRIu64,
			 get_number(shard, name));
	else
		snprintf(ret_text, SHOW_BYTES, "-");
}

int verb_list(struct hibctl *ctl, int argc, char **argv)
{
	static const char *const titles[] = { "TARGET",	  "STATE",  ">SIZE",
					      ">LOCAL",	  ">FILES", ">SNAPSHOT",
					      "LOCK/TASK" };
	char size[SHOW_BYTES], local[SHOW_BYTES], files[SHOW_BYTES];
	char seq[SHOW_BYTES], activity[1024];
	json_t *result, *shards, *shard;
	struct table *table;
	size_t index;
	int r = check_words(ctl, argc, argv, 0, 1);

	if (r == 0)
		r = hibctl_query(ctl, "list",
				 json_pack("{s:o*}", "target",
					   argv[optind]
						   ? rpc_string(argv[optind])
						   : NULL),
				 &result);
	if (r != 0 || !result)
		return r;
	shards = json_object_get(result, "shards");
	table = table_new(titles, ARRAY_SIZE(titles));
	json_array_foreach(shards, index, shard)
	{
		const char *const cells[] = { get_text(shard, "target"),
					      get_text(shard, "state"),
					      size,
					      local,
					      files,
					      seq,
					      activity };

		show_size(ctl, json_object_get(shard, "bytes"), size);
		show_local(ctl, shard, local);
		show_count(shard, "files", files);
		show_count(shard, "seq", seq);
		show_activity(shard, activity, sizeof(activity));
		table_add(table, cells);
	}
	if (json_array_size(shards) > 0)
		table_print(table, ctl);
	else
		fputs("There are no shards.\n", stderr);
	table_free(table);
	json_decref(result);
	return EXIT_OK;
}

/* --- status, config, version --- */

int verb_status(struct hibctl *ctl, int argc, char **argv)
{
	json_t *result;
	int r = check_words(ctl, argc, argv, 0, 0);

	if (r == 0)
		r = hibctl_query(ctl, "status", NULL, &result);
	if (r != 0 || !result)
		return r;
	show_object(ctl, result, 0);
	json_decref(result);
	return EXIT_OK;
}

int verb_config(struct hibctl *ctl, int argc, char **argv)
{
	static const char *const titles[] = { "OPTION", "VALUE", "FROM" };
	json_t *result, *option;
	struct table *table;
	const char *name;
	int r = check_words(ctl, argc, argv, 0, 0);

	if (r == 0)
		r = hibctl_query(ctl, "config", NULL, &result);
	if (r != 0 || !result)
		return r;
	table = table_new(titles, ARRAY_SIZE(titles));
	json_object_foreach(result, name, option)
	{
		const json_t *value = json_object_get(option, "value");
		CLEANUP_FREE char *text =
			json_is_string(value) || json_is_null(value)
				? NULL
				: json_dumps(value, JSON_ENCODE_ANY);
		const char *const cells[] = {
			name,
			text		      ? text
			: json_is_null(value) ? "-"
					      : get_text(option, "value"),
			get_text(option, "origin")
		};

		table_add(table, cells);
	}
	table_print(table, ctl);
	table_free(table);
	json_decref(result);
	return EXIT_OK;
}

int verb_version(struct hibctl *ctl, int argc, char **argv)
{
	json_t *result = NULL;
	int r = check_words(ctl, argc, argv, 0, 0);

	if (r != 0)
		return r;
	if (!ctl->json) {
		printf("hibctl %s\n", HIBFS_VERSION);
		fflush(stdout);
	}
	r = hibctl_query(ctl, "version", NULL, &result);
	if (r != 0 || !result)
		return r;
	printf("hibfs %s, protocol %" PRIu64 "\n", get_text(result, "version"),
	       get_number(result, "protocol"));
	json_decref(result);
	return EXIT_OK;
}

/* --- tasks, task --- */

static void show_done(const json_t *task, char ret_text[SHOW_BYTES])
{
	const json_t *progress = json_object_get(task, "progress");
	uint64_t total = get_number(progress, "bytes_total");
	uint64_t done = get_number(progress, "bytes_done");

	if (total == 0)
		snprintf(ret_text, SHOW_BYTES, "-");
	else
		snprintf(ret_text, SHOW_BYTES, "%.0f%%",
			 100 * (double)done / (double)total);
}

static void show_elapsed(const json_t *task, char ret_text[SHOW_BYTES])
{
	uint64_t started = get_number(task, "started_ms");
	uint64_t ended = get_number(task, "ended_ms");
	uint64_t now = ended ? ended : (uint64_t)clock_realtime_ms();

	if (started == 0)
		snprintf(ret_text, SHOW_BYTES, "-");
	else
		show_duration(now > started ? now - started : 0, ret_text);
}

static int query_tasks(struct hibctl *ctl, bool active, uint64_t limit)
{
	static const char *const titles[] = { "TASK",	"KIND",	  "TARGET",
					      "STATUS", ">DONE",  ">SIZE",
					      ">TIME",	"CREATED" };
	char target[TARGET_SHOW_BYTES], done[SHOW_BYTES], size[SHOW_BYTES];
	char elapsed[SHOW_BYTES], created[SHOW_BYTES];
	json_t *result, *task;
	struct table *table;
	size_t index;
	int r = hibctl_query(ctl, "tasks",
			     json_pack("{s:b, s:I}", "active", active, "limit",
				       (json_int_t)limit),
			     &result);

	if (r != 0 || !result)
		return r;
	table = table_new(titles, ARRAY_SIZE(titles));
	json_array_foreach(json_object_get(result, "tasks"), index, task)
	{
		const char *const cells[] = { get_text(task, "id"),
					      get_text(task, "kind"),
					      target,
					      get_text(task, "status"),
					      done,
					      size,
					      elapsed,
					      created };

		show_target(task, target);
		show_done(task, done);
		show_size_value(ctl,
				get_number(json_object_get(task, "progress"),
					   "bytes_total"),
				size);
		show_elapsed(task, elapsed);
		show_time(json_object_get(task, "created_ms"), created);
		table_add(table, cells);
	}
	if (json_array_size(json_object_get(result, "tasks")) > 0)
		table_print(table, ctl);
	else
		fputs("There are no tasks.\n", stderr);
	table_free(table);
	json_decref(result);
	return EXIT_OK;
}

int verb_tasks(struct hibctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "active", no_argument, NULL, 'a' },
		{ "limit", required_argument, NULL, 'l' },
		{ 0 }
	};
	uint64_t limit = 100;
	bool active = false;
	int option, r;

	while ((option = next_option(ctl, argc, argv, options)) != -1) {
		if (option == 'a')
			active = true;
		else if (option != 'l')
			return EXIT_USAGE;
		else if (!parse_number(optarg, &limit))
			return usage_error(
				ctl, "--limit needs a number, not %s", optarg);
	}
	r = check_arguments(ctl, argc, 0, 0);
	return r ? r : query_tasks(ctl, active, limit);
}

int verb_task(struct hibctl *ctl, int argc, char **argv)
{
	json_t *ids, *result, *missing, *item;
	size_t index;
	int r;

	if (next_option(ctl, argc, argv, no_options) != -1)
		return EXIT_USAGE;
	r = task_ids(ctl, argc, argv, &ids);
	if (r != 0)
		return r;
	r = hibctl_call(ctl, "task", json_pack("{s:o}", "tasks", ids), &result);
	if (r != 0)
		return r;
	if (ctl->json)
		put_json(result, JSON_INDENT(2));
	json_array_foreach(json_object_get(result, "tasks"), index, item)
	{
		if (ctl->json)
			break;
		if (index > 0)
			putchar('\n');
		show_object(ctl, item, 0);
	}
	missing = json_object_get(result, "not_found");
	json_array_foreach(missing, index, item)
		complain("There is no task %s", json_string_value(item));
	r = json_array_size(missing) > 0 ? EXIT_NOT_FOUND : EXIT_OK;
	json_decref(result);
	return r;
}
