#include "control/hibctl.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/uuid.h"
#include "control/rpc_message.h"

static int verb_help(struct hibctl *ctl, int argc, char **argv);

static const struct verb verbs[] = {
	{ "list", "[TARGET]", "the shards, their state and size",
	  "  LOCAL is how much of it lies on the local disk; SNAPSHOT the sequence\n"
	  "  number of the last one in the store.\n",
	  verb_list },
	{ "status", "", "the daemon, its mount and its store", NULL,
	  verb_status },
	{ "config", "", "the options in force and where they came from", NULL,
	  verb_config },
	{ "lock", "TARGET [--deny] [--ttl TIME] [--owner NAME] [-- COMMAND...]",
	  "freeze writes",
	  "  -- COMMAND...   run it under the lock, and end with its status\n"
	  "  --ttl TIME      return at once; the lock ends after TIME (30s, 5m, 1h)\n"
	  "  --deny          writers get an error (EROFS) instead of waiting\n"
	  "  --owner NAME    who holds it; unlock needs the same. Default: the user's\n"
	  "                  name with --ttl, else a new one\n"
	  "  Without --ttl and COMMAND it holds the lock until Ctrl-C or the end of\n"
	  "  standard input.\n",
	  verb_lock },
	{ "unlock", "TARGET [--owner NAME]", "let writes go on",
	  "  --owner NAME    as given to lock. Default: the user's name\n",
	  verb_unlock },
	{ "pause", "TARGET [--purge] [--adopt] [--wait-handles] [--no-wait]",
	  "snapshot to the store and free the local disk",
	  "  --purge         leave no stub: names and sizes are in the store alone\n"
	  "  --adopt         go on with a lineage that this source did not come from\n"
	  "  --wait-handles  wait for open files instead of failing\n"
	  "  --no-wait       print the task's id and return\n",
	  verb_pause },
	{ "resume", "TARGET [--take-over] [--no-wait]",
	  "bring it back from the store",
	  "  --take-over     another node has it and will not come back\n"
	  "  --no-wait       print the task's id and return\n",
	  verb_resume },
	{ "verify", "TARGET [--read-data] [--no-wait]",
	  "check the snapshots in the store",
	  "  --read-data     read and check every chunk, not only the objects' sizes\n"
	  "  --no-wait       print the task's id and return\n",
	  verb_verify },
	{ "cancel", "TASK", "stop a task", NULL, verb_cancel },
	{ "tasks", "[--active] [--limit N]", "the tasks, oldest first",
	  "  --active        only those that have not ended\n"
	  "  --limit N       the last N (100)\n",
	  verb_tasks },
	{ "task", "TASK...", "all about tasks", NULL, verb_task },
	{ "wait", "TASK... [--timeout TIME]", "wait for tasks to end",
	  "  --timeout TIME  at most so long (30s, 5m, 1h)\n", verb_wait },
	{ "events",
	  "[--follow] [--after ID] [--limit N] [--severity S] [--target T] [--task ID]",
	  "the event log",
	  "  --follow        go on with new events as they happen\n"
	  "  --after ID      from the event after this one\n"
	  "  --limit N       at most N events (20 with --follow, else 100)\n"
	  "  --severity S    info, warning or error, and above\n"
	  "  --target T      of this bucket or shard alone;  --task ID: of this task\n",
	  verb_events },
	{ "shutdown", "[--no-wait]", "end the daemon and unmount",
	  "  --no-wait       return without waiting for its end\n",
	  verb_shutdown },
	{ "version", "", "versions of hibctl and of the daemon", NULL,
	  verb_version },
	{ "help", "[VERB]", "this list, or about a verb", NULL, verb_help },
};

static const char *verb_name(const void *arg, size_t index)
{
	(void)arg;
	return index < ARRAY_SIZE(verbs) ? verbs[index].name : NULL;
}

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

/* --- messages --- */

__attribute__((format(printf, 1, 0))) static void
complain_list(const char *format, va_list args)
{
	CLEANUP_FREE char *text = NULL;

	if (vasprintf(&text, format, args) < 0) {
		text = NULL;
		return;
	}
	fputs("hibctl: ", stderr);
	put_text(stderr, text);
	fputc('\n', stderr);
}

void complain(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain_list(format, args);
	va_end(args);
}

int usage_error(const struct hibctl *ctl, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain_list(format, args);
	va_end(args);
	if (ctl->verb)
		fprintf(stderr, "usage: hibctl %s %s\n", ctl->verb->name,
			ctl->verb->arguments);
	return EXIT_USAGE;
}

static int exit_code_of(int code)
{
	switch (code) {
	case EBUSY:
		return EXIT_BUSY;
	case ENOENT:
	case ESRCH:
		return EXIT_NOT_FOUND;
	case EPERM:
	case EACCES:
		return EXIT_PERMISSION;
	case ECANCELED:
		return EXIT_STOPPED;
	case ETIMEDOUT:
		return EXIT_TIMEOUT;
	default:
		return EXIT_FAILED;
	}
}

int report(const struct hibctl *ctl, int r, const struct hib_error *error)
{
	int rpc_code = ctl->client ? client_code(ctl->client) : 0;

	complain("%s", error->message);
	if (r == -EINTR)
		return EXIT_INTERRUPTED;
	if (rpc_code == RPC_INVALID_PARAMS)
		return EXIT_USAGE;
	if (rpc_code == RPC_SERVER_ERROR)
		return exit_code_of(-r);
	return rpc_code ? EXIT_FAILED : EXIT_UNREACHABLE;
}

/* --- the daemon --- */

int hibctl_connect(struct hibctl *ctl)
{
	struct hib_error error = HIB_ERROR_INIT;
	CLEANUP_FREE char *path = NULL;
	int r;

	if (ctl->client)
		return 0;
	r = client_find(ctl->socket, &path, &error);
	if (r == 0)
		r = client_connect(path, &ctl->client, &error);
	if (r == 0)
		return 0;
	complain("%s", error.message);
	return r == -EACCES ? EXIT_PERMISSION : EXIT_UNREACHABLE;
}

int hibctl_call(struct hibctl *ctl, const char *method, json_t *params,
		json_t **ret_result)
{
	const struct client_call call = { .method = method,
					  .params = params,
					  .interrupt_fd = -1 };
	struct hib_error error = HIB_ERROR_INIT;
	int r = hibctl_connect(ctl);

	if (r != 0) {
		json_decref(params);
		return r;
	}
	r = client_call(ctl->client, &call, ret_result, &error);
	return r < 0 ? report(ctl, r, &error) : 0;
}

int hibctl_query(struct hibctl *ctl, const char *method, json_t *params,
		 json_t **ret_result)
{
	json_t *result;
	int r = hibctl_call(ctl, method, params, &result);

	if (r != 0)
		return r;
	*ret_result = result;
	if (ctl->json) {
		put_json(result, JSON_INDENT(2));
		json_decref(result);
		*ret_result = NULL;
	}
	return 0;
}

int open_interrupt(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

/* --- words of the command line --- */

int next_option(const struct hibctl *ctl, int argc, char **argv,
		const struct option *options)
{
	int option;

	opterr = 0;
	option = getopt_long(argc, argv, ":", options, NULL);
	if (option == '?')
		usage_error(ctl, "There is no option %s, or not this way",
			    argv[optind - 1]);
	if (option != ':')
		return option;
	usage_error(ctl, "The option %s needs a value", argv[optind - 1]);
	return '?';
}

int check_arguments(const struct hibctl *ctl, int argc, int min, int max)
{
	int count = argc - optind;

	if (count < min)
		return usage_error(ctl, "%s: an argument is missing",
				   ctl->verb->name);
	if (count > max)
		return usage_error(ctl, "%s: too many arguments",
				   ctl->verb->name);
	return 0;
}

int task_ids(const struct hibctl *ctl, int argc, char **argv, json_t **ret)
{
	int r = check_arguments(ctl, argc, 1, INT_MAX);

	for (int i = optind; i < argc && r == 0; i++)
		if (!uuid_is_valid(argv[i]))
			r = usage_error(ctl, "\"%s\" is not a task's id",
					argv[i]);
	if (r != 0)
		return r;
	*ret = json_array();
	for (int i = optind; i < argc; i++)
		json_array_append_new(*ret, json_string(argv[i]));
	return 0;
}

bool parse_number(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return errno == 0 && end != text && *end == '\0' && *text >= '0' &&
	       *text <= '9' && *ret <= INT64_MAX;
}

bool parse_duration(const char *text, uint64_t *ret_ms)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = { { "ms", 1 },
		      { "s", 1000 },
		      { "m", 60 * 1000 },
		      { "h", 3600 * 1000 },
		      { "d", 24 * 3600 * 1000 } };
	unsigned long long value;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	for (size_t i = 0; i < ARRAY_SIZE(units) && errno == 0; i++)
		if (strcmp(end, units[i].unit) == 0 &&
		    value <= INT64_MAX / units[i].ms) {
			*ret_ms = value * units[i].ms;
			return true;
		}
	return false;
}

/* --- help --- */

static void print_usage(FILE *file)
{
	fputs("usage: hibctl [--socket PATH] [--json] [--bytes] VERB ...\n\n",
	      file);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(file, "  %-9s %s\n", verbs[i].name, verbs[i].summary);
	fputs("\n"
	      "  --socket PATH   the control socket or the mount point (or HIBFS_SOCKET);\n"
	      "                  not needed with one hibfs on the machine\n"
	      "  --json          print results as JSON\n"
	      "  --bytes         print sizes in bytes\n"
	      "\n"
	      "TARGET is BUCKET or BUCKET/SHARD. `hibctl help VERB` says more.\n"
	      "Exit status: 0 done, 1 failed, 2 usage, 3 no daemon, 4 busy, 5 not found,\n"
	      "6 not permitted, 7 stopped, 8 time is over, 130 interrupted.\n",
	      file);
}

static int unknown_verb(struct hibctl *ctl, const char *name)
{
	const char *nearest = rpc_nearest(name, verb_name, NULL);

	if (nearest)
		return usage_error(ctl,
				   "There is no verb \"%s\"; is \"%s\" meant?",
				   name, nearest);
	return usage_error(
		ctl, "There is no verb \"%s\"; \"hibctl help\" lists them",
		name);
}

static int print_help(const struct verb *verb)
{
	printf("usage: hibctl %s %s\n\n  %s\n", verb->name, verb->arguments,
	       verb->summary);
	if (verb->help)
		printf("\n%s", verb->help);
	return EXIT_OK;
}

static int verb_help(struct hibctl *ctl, int argc, char **argv)
{
	const struct verb *verb;

	if (argc < 2) {
		print_usage(stdout);
		return EXIT_OK;
	}
	verb = find_verb(argv[1]);
	return verb ? print_help(verb) : unknown_verb(ctl, argv[1]);
}

/* --- the command line as a whole --- */

/*
 * Takes the options that every verb has out of argv, wherever they stand before
 * "--". Gives the number of words that are left, or a negative exit code.
 */
static int take_globals(struct hibctl *ctl, int argc, char **argv,
			bool *ret_help, bool *ret_version)
{
	int kept = 1;
	int i = 1;

	for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--json") == 0) {
			ctl->json = true;
		} else if (strcmp(argv[i], "--bytes") == 0) {
			ctl->raw_bytes = true;
		} else if (strcmp(argv[i], "--help") == 0 ||
			   strcmp(argv[i], "-h") == 0) {
			*ret_help = true;
		} else if (strcmp(argv[i], "--version") == 0) {
			*ret_version = true;
		} else if (strncmp(argv[i], "--socket=", 9) == 0) {
			ctl->socket = argv[i] + 9;
		} else if (strcmp(argv[i], "--socket") == 0) {
			if (++i == argc)
				return -usage_error(ctl,
						    "--socket needs a path");
			ctl->socket = argv[i];
		} else {
			argv[kept++] = argv[i];
		}
	}
	while (i < argc)
		argv[kept++] = argv[i++];
	argv[kept] = NULL;
	return kept;
}

static int flush_output(int status)
{
	/* A full disk or a closed pipe must not look like success. */
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	if (errno != EPIPE)
		complain("The result cannot be written: %s",
			 strerrordesc_np(errno));
	return status ? status : EXIT_FAILED;
}

int main(int argc, char **argv)
{
	struct hibctl ctl = { .socket = getenv("HIBFS_SOCKET") };
	const char *no_colour = getenv("NO_COLOR");
	const char *term = getenv("TERM");
	bool dumb = !term || strcmp(term, "dumb") == 0;
	bool help = false, version = false;
	int status;

	/* A server or a reader that goes away is an error to report. */
	signal(SIGPIPE, SIG_IGN);
	if (ctl.socket && !*ctl.socket)
		ctl.socket = NULL;
	ctl.colour =
		isatty(STDOUT_FILENO) && !dumb && !(no_colour && *no_colour);
	ctl.terminal = isatty(STDERR_FILENO) && !dumb;
	argc = take_globals(&ctl, argc, argv, &help, &version);
	if (argc < 0)
		return -argc;
	if (version) {
		printf("hibctl %s\n", HIBFS_VERSION);
		return flush_output(EXIT_OK);
	}
	if (argc < 2) {
		print_usage(help ? stdout : stderr);
		return help ? EXIT_OK : EXIT_USAGE;
	}
	ctl.verb = find_verb(argv[1]);
	if (!ctl.verb)
		status = argv[1][0] == '-'
				 ? usage_error(&ctl, "There is no option %s",
					       argv[1])
				 : unknown_verb(&ctl, argv[1]);
	else if (help)
		status = print_help(ctl.verb);
	else
		status = ctl.verb->run(&ctl, argc - 1, argv + 1);
	ctl.client = client_close(ctl.client);
	return flush_output(status);
}
