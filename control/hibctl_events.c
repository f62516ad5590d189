#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "control/hibctl.h"
#include "control/rpc_message.h"

#define FOLLOW_SHOWN 20 /* before the new ones */

struct wanted {
	bool follow;
	json_t *filter; /* parameters of events and subscribe alike */
	json_t *after, *limit; /* NULL: not given */
};

static void wanted_done(struct wanted *wanted)
{
	json_decref(wanted->filter);
	json_decref(wanted->after);
	json_decref(wanted->limit);
}

static void put_event(const struct hibctl *ctl, const json_t *event)
{
	static const char *const shown[] = { "bucket", "shard", "task_id",
					     "error" };
	const json_t *extra = json_object_get(event, "extra_attributes");
	const char *severity = get_text(event, "severity");
	const char *colour = strcmp(severity, "error") == 0	? "\033[31m"
			     : strcmp(severity, "warning") == 0 ? "\033[33m"
								: NULL;

	if (ctl->json) {
		put_json(event, JSON_COMPACT);
		return;
	}
	printf("%s  ", get_text(event, "timestamp"));
	if (ctl->colour && colour)
		fputs(colour, stdout);
	printf("%-7s", severity);
	if (ctl->colour && colour)
		fputs("\033[0m", stdout);
	fputs("  ", stdout);
	put_text(stdout, get_text(event, "description"));
	for (size_t i = 0; i < ARRAY_SIZE(shown); i++) {
		if (!*get_text(extra, shown[i]))
			continue;
		printf("  %s=", shown[i]);
		put_text(stdout, get_text(extra, shown[i]));
	}
	putchar('\n');
}

static int event_notify(void *arg, const char *method, json_t *params)
{
	if (strcmp(method, "event") != 0)
		return 0;
	put_event(arg, params);
	/* Whoever reads a pipe wants it now. */
	return fflush(stdout) == 0 ? 0 : -errno;
}

static int follow(struct hibctl *ctl, struct wanted *wanted, uint64_t after)
{
	CLEANUP_CLOSE int interrupt_fd = open_interrupt();
	struct hib_error error = HIB_ERROR_INIT;
	struct client_call call = { .method = "subscribe",
				    .notify = event_notify,
				    .arg = ctl,
				    .interrupt_fd = interrupt_fd };
	json_t *result;
	int r;

	fflush(stdout);
	json_object_set_new(wanted->filter, "after",
			    json_integer((json_int_t)after));
	call.params = json_incref(wanted->filter);
	r = client_call(ctl->client, &call, &result, &error);
	if (r == 0) {
		json_decref(result);
		r = client_follow(ctl->client, &call, &error);
	}
	/* Ctrl-C is the way to end it; a reader that has gone is another. */
	if (r == -EINTR || r == -EPIPE)
		return EXIT_OK;
	return report(ctl, r, &error);
}

static int show_events(struct hibctl *ctl, struct wanted *wanted)
{
	json_t *params = json_copy(wanted->filter);
	json_t *result, *event;
	uint64_t last_id;
	size_t index;
	int r;

	if (wanted->after)
		json_object_set(params, "after", wanted->after);
	if (wanted->limit)
		json_object_set(params, "limit", wanted->limit);
	else if (wanted->follow)
		json_object_set_new(params, "limit",
				    json_integer(FOLLOW_SHOWN));
	r = hibctl_call(ctl, "events", params, &result);
	if (r != 0)
		return r;
	last_id = get_number(result, "last_id");
	if (ctl->json && !wanted->follow)
		put_json(result, JSON_INDENT(2));
	else
		json_array_foreach(json_object_get(result, "events"), index,
				   event) put_event(ctl, event);
	json_decref(result);
	return wanted->follow ? follow(ctl, wanted, last_id) : EXIT_OK;
}

static int read_option(struct hibctl *ctl, int option, struct wanted *wanted)
{
	uint64_t number;

	switch (option) {
	case 'f':
		wanted->follow = true;
		return 0;
	case 'a':
	case 'l':
		if (!parse_number(optarg, &number))
			return usage_error(
				ctl, "%s needs a number, not %s",
				option == 'a' ? "--after" : "--limit", optarg);
		json_decref(option == 'a' ? wanted->after : wanted->limit);
		*(option == 'a' ? &wanted->after : &wanted->limit) =
			json_integer((json_int_t)number);
		return 0;
	case 's':
		json_object_set_new(wanted->filter, "severity",
				    rpc_string(optarg));
		return 0;
	case 'T':
		json_object_set_new(wanted->filter, "target",
				    rpc_string(optarg));
		return 0;
	case 't':
		json_object_set_new(wanted->filter, "task", rpc_string(optarg));
		return 0;
	default:
		return EXIT_USAGE;
	}
}

int verb_events(struct hibctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "follow", no_argument, NULL, 'f' },
		{ "after", required_argument, NULL, 'a' },
		{ "limit", required_argument, NULL, 'l' },
		{ "severity", required_argument, NULL, 's' },
		{ "target", required_argument, NULL, 'T' },
		{ "task", required_argument, NULL, 't' },
		{ 0 }
	};
	CLEANUP(wanted_done) struct wanted wanted = { 0 };
	int option, r;

	wanted.filter = json_object();
	while ((option = next_option(ctl, argc, argv, options)) != -1) {
		r = read_option(ctl, option, &wanted);
		if (r != 0)
			return r;
	}
	r = check_arguments(ctl, argc, 0, 0);
	return r ? r : show_events(ctl, &wanted);
}
