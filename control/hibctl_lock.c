/*
 * A lock without a time to live belongs to the connection: hibctl keeps that
 * open as long as its command runs, or until it is told to end. If hibctl dies,
 * whatever the reason, the lock is gone (L5).
 */
#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "control/hibctl.h"
#include "control/rpc_message.h"

#define NOT_FOUND_STATUS 127 /* as the shell has it */
#define NOT_RUN_STATUS 126

struct wanted {
	bool deny;
	uint64_t ttl_ms;
	const char *owner; /* NULL: the default */
	const char *target;
	char **command; /* NULL: none */
};

static const char *user_name(char ret_text[SHOW_BYTES])
{
	const struct passwd *user = getpwuid(geteuid());

	if (user)
		snprintf(ret_text, SHOW_BYTES, "%s", user->pw_name);
	else
		snprintf(ret_text, SHOW_BYTES, "uid:%u", geteuid());
	return ret_text;
}

static void tell_held(const json_t *result)
{
	const json_t *shards = json_object_get(result, "shards");
	size_t index;
	json_t *shard;

	json_array_foreach(shards, index, shard)
	{
		fputs("locked ", stderr);
		put_text(stderr, get_text(shard, "target"));
		fprintf(stderr, " in %.1f ms\n",
			json_number_value(json_object_get(shard, "freeze_ms")));
	}
}

/* Says when a store through a mapping slipped through the lock. */
static int report_unlock(const json_t *result)
{
	size_t index;
	json_t *shard;
	int code = EXIT_OK;

	json_array_foreach(json_object_get(result, "shards"), index, shard)
	{
		if (!*get_text(shard, "changed"))
			continue;
		complain("%s changed under the lock: %s",
			 get_text(shard, "target"), get_text(shard, "changed"));
		code = EXIT_FAILED;
	}
	return code;
}

static int release(struct hibctl *ctl, const char *target, const char *owner)
{
	json_t *result;
	int r = hibctl_call(ctl, "unlock",
			    json_pack("{s:o, s:s}", "target",
				      rpc_string(target), "owner", owner),
			    &result);

	if (r != 0)
		return r;
	r = report_unlock(result);
	json_decref(result);
	return r;
}

static pid_t start_command(char **command)
{
	pid_t child = fork();
	sigset_t none;

	if (child != 0)
		return child;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGQUIT, SIG_DFL);
	execvp(command[0], command);
	fprintf(stderr, "hibctl: %s cannot be run: %s\n", command[0],
		strerrordesc_np(errno));
	_exit(errno == ENOENT ? NOT_FOUND_STATUS : NOT_RUN_STATUS);
}

static int exit_status(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return EXIT_FAILED;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Runs the command and gives its status. */
static int run_command(struct hibctl *ctl, char **command, bool *ret_lost)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct client_call hold = { 0 };
	CLEANUP_CLOSE int child_fd = -EBADF;
	pid_t child;
	int r;

	/* Ctrl-C goes to the command, too; hibctl ends after it. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	child = start_command(command);
	if (child < 0) {
		complain("No process can be started: %s",
			 strerrordesc_np(errno));
		return EXIT_FAILED;
	}
	child_fd = (int)syscall(SYS_pidfd_open, child, 0);
	hold.interrupt_fd = child_fd;
	r = child_fd < 0 ? -EINTR : client_follow(ctl->client, &hold, &error);
	*ret_lost = r != -EINTR;
	if (*ret_lost)
		complain("%s: the lock is LOST while the command runs",
			 error.message);
	return exit_status(child);
}

/* Whether standard input is at its end; what it holds is of no interest. */
static bool input_ended(void)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	char ignored[4096];

	return poll(&input, 1, 0) != 0 &&
	       read(STDIN_FILENO, ignored, sizeof(ignored)) <= 0;
}

/* Until a signal, or the end of standard input: one descriptor for both. */
static int wait_for_end(struct hibctl *ctl, bool *ret_lost)
{
	CLEANUP_CLOSE int signal_fd = open_interrupt();
	CLEANUP_CLOSE int either_fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };
	struct client_call hold = { .interrupt_fd = either_fd };
	struct pollfd signalled = { .fd = signal_fd, .events = POLLIN };
	struct hib_error error = HIB_ERROR_INIT;
	int r;

	if (signal_fd < 0 || either_fd < 0 ||
	    epoll_ctl(either_fd, EPOLL_CTL_ADD, signal_fd, &event) < 0) {
		complain("Signals cannot be waited for: %s",
			 strerrordesc_np(errno));
		return EXIT_FAILED;
	}
	/* A file, or /dev/null, cannot be waited for: it is at its end. */
	if (epoll_ctl(either_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0) {
		complain(
			"Standard input has no end to wait for: the lock is released");
		return EXIT_OK;
	}
	do {
		r = client_follow(ctl->client, &hold, &error);
	} while (r == -EINTR && poll(&signalled, 1, 0) == 0 && !input_ended());
	*ret_lost = r != -EINTR;
	if (*ret_lost)
		complain("%s: the lock is LOST", error.message);
	else if (poll(&signalled, 1, 0) == 0)
		complain("Standard input has ended: the lock is released");
	return EXIT_OK;
}

/* Holds the lock as long as it is wanted, and releases it. */
static int hold_lock(struct hibctl *ctl, const struct wanted *wanted,
		     const char *owner)
{
	bool lost = false;
	int status, r;

	if (wanted->command)
		status = run_command(ctl, wanted->command, &lost);
	else
		status = wait_for_end(ctl, &lost);
	if (lost)
		return status ? status : EXIT_UNREACHABLE;
	r = release(ctl, wanted->target, owner);
	return status ? status : r;
}

static int take_lock(struct hibctl *ctl, const struct wanted *wanted)
{
	const char *owner = wanted->owner;
	json_t *result;
	char user[SHOW_BYTES];
	int r;

	if (!owner && wanted->ttl_ms)
		owner = user_name(user);
	r = hibctl_call(
		ctl, "lock",
		json_pack("{s:o, s:o*, s:b, s:o*}", "target",
			  rpc_string(wanted->target), "owner",
			  owner ? rpc_string(owner) : NULL, "deny",
			  wanted->deny, "ttl_ms",
			  wanted->ttl_ms
				  ? json_integer((json_int_t)wanted->ttl_ms)
				  : NULL),
		&result);
	if (r != 0)
		return r;
	if (ctl->json && !wanted->command)
		put_json(result, JSON_INDENT(2));
	else if (!wanted->command)
		tell_held(result);
	if (wanted->ttl_ms && !wanted->command) {
		if (!ctl->json)
			puts(get_text(result, "owner"));
	} else {
		fflush(stdout);
		r = hold_lock(ctl, wanted, get_text(result, "owner"));
	}
	json_decref(result);
	return r;
}

int verb_lock(struct hibctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "deny", no_argument, NULL, 'd' },
		{ "ttl", required_argument, NULL, 't' },
		{ "owner", required_argument, NULL, 'o' },
		{ 0 }
	};
	struct wanted wanted = { 0 };
	int words = argc;
	int option, r;

	/* What is behind "--" is the command's business alone. */
	for (int i = 1; i < words; i++) {
		if (strcmp(argv[i], "--") != 0)
			continue;
		wanted.command = i + 1 < argc ? argv + i + 1 : NULL;
		if (!wanted.command)
			return usage_error(ctl, "There is no command after --");
		words = i;
	}
	while ((option = next_option(ctl, words, argv, options)) != -1) {
		if (option == 'd')
			wanted.deny = true;
		else if (option == 'o')
			wanted.owner = optarg;
		else if (option != 't')
			return EXIT_USAGE;
		else if (!parse_duration(optarg, &wanted.ttl_ms) ||
			 wanted.ttl_ms == 0)
			return usage_error(
				ctl,
				"--ttl needs a time such as 500ms, 30s, 5m or 1h, not %s",
				optarg);
	}
	r = check_arguments(ctl, words, 1, 1);
	if (r != 0)
		return r;
	wanted.target = argv[optind];
	return take_lock(ctl, &wanted);
}

int verb_unlock(struct hibctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "owner", required_argument, NULL, 'o' }, { 0 }
	};
	char user[SHOW_BYTES];
	const char *owner = NULL;
	json_t *result;
	int option, r;

	while ((option = next_option(ctl, argc, argv, options)) != -1) {
		if (option != 'o')
			return EXIT_USAGE;
		owner = optarg;
	}
	r = check_arguments(ctl, argc, 1, 1);
	if (r != 0)
		return r;
	if (!owner)
		owner = user_name(user);
	r = hibctl_call(ctl, "unlock",
			json_pack("{s:o, s:o}", "target",
				  rpc_string(argv[optind]), "owner",
				  rpc_string(owner)),
			&result);
	if (r != 0)
		return r;
	if (ctl->json)
		put_json(result, JSON_INDENT(2));
	else if (!json_is_true(json_object_get(result, "released")))
		puts(get_text(result, "message"));
	r = report_unlock(result);
	json_decref(result);
	return r;
}
