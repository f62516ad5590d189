/*
 * hibfs: the daemon. Reads the options, opens the source, the store and what a
 * former life recorded, mounts, and serves until it is unmounted or told to
 * stop.
 *
 * Threads: main() runs the mount's loop. A signal thread waits for SIGTERM,
 * SIGINT and SIGHUP. The socket, the runner, the store and the engine have
 * their own.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "control/daemon_internal.h"
#include "control/methods.h"
#include "control/recover.h"

#define READY_TIMEOUT_MS 30000

struct program {
	struct options options;
	struct log log;
	struct daemon daemon;
	struct rpc_server *server;
	char *source, *mountpoint;
	bool foreground;
	int ready_fd; /* the waiting parent's pipe; -EBADF in the foreground */
	int lock_fd; /* of the source */
	pthread_t signal_thread;
};

static void usage(FILE *out)
{
	const struct option_help *help;

	fputs("usage: hibfs [-f] [-o option[,option...]] SOURCE MOUNTPOINT\n\n"
	      "Mounts SOURCE at MOUNTPOINT. hibctl locks, pauses and resumes the\n"
	      "directories in it.\n\n"
	      "  -f, --foreground  stay in the foreground, log to standard error\n"
	      "  -o OPTION[,...]   see below; also those of mount(8)\n"
	      "  -V, --version     print the version\n"
	      "  -h, --help        print this\n\n"
	      "options:\n",
	      out);
	for (size_t i = 0; (help = options_help(i)); i++) {
		char name[64];

		snprintf(name, sizeof(name), "%s%s%s", help->name,
			 help->value ? "=" : "",
			 help->value ? help->value : "");
		fprintf(out, "  %-28s %s\n", name, help->help);
	}
}

/* ---- what the mount asks of us ---- */

static int wake_shard(void *arg, const char *bucket, const char *name)
{
	struct daemon *daemon = arg;
	struct shard *shard;
	int r;

	if (daemon->options->on_access == ON_ACCESS_FAIL)
		return -ENOMEDIUM;
	r = shards_find(daemon->shards, bucket, name, true, &shard, NULL);
	if (r < 0)
		return r;
	if (daemon->options->on_access == ON_ACCESS_RESUME && shard_want(shard))
		runner_wake(daemon->runner, shard);
	return 0;
}

static void shard_wanted(void *arg, struct shard *shard)
{
	struct daemon *daemon = arg;

	if (daemon->options->on_access == ON_ACCESS_RESUME)
		runner_wake(daemon->runner, shard);
}

/* ---- start ---- */

static int parse_arguments(struct program *program, int argc, char **argv,
			   struct hib_error *error)
{
	static const struct option longs[] = {
		{ "foreground", no_argument, NULL, 'f' },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c, r;

	while ((c = getopt_long(argc, argv, "fo:Vh", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			program->foreground = true;
			break;
		case 'o':
			r = options_parse_list(&program->options, optarg,
					       error);
			if (r < 0)
				return r;
			break;
		case 'V':
			printf("hibfs %s\n", HIBFS_VERSION);
			exit(0);
		case 'h':
			usage(stdout);
			exit(0);
		default:
			return hib_fail(error, EINVAL,
					"see hibfs --help for the usage");
		}
	}
	if (argc - optind != 2)
		return hib_fail(
			error, EINVAL,
			"two arguments are needed, SOURCE and MOUNTPOINT; see hibfs --help");
	program->source = realpath(argv[optind], NULL);
	if (!program->source)
		return hib_fail_errno(error, errno, "the source %s",
				      argv[optind]);
	return 0;
}

/*
 * The mount point's absolute path. A dead mount of an earlier daemon cannot be
 * looked at, but its parent can.
 */
static int find_mountpoint(struct program *program, const char *path,
			   struct hib_error *error)
{
	CLEANUP_FREE char *copy = NULL, *parent = NULL;
	char *slash;

	program->mountpoint = realpath(path, NULL);
	if (program->mountpoint)
		return 0;
	if (errno != ENOTCONN)
		return hib_fail_errno(error, errno, "the mount point %s", path);
	copy = strdup(path);
	if (!copy)
		return hib_fail(error, ENOMEM, "out of memory");
	while ((slash = strrchr(copy, '/')) && slash != copy && !slash[1])
		*slash = 0;
	slash = strrchr(copy, '/');
	if (slash == copy) {
		program->mountpoint = strdup(copy);
	} else {
		if (slash)
			*slash = 0;
		parent = realpath(slash ? copy : ".", NULL);
		if (!parent)
			return hib_fail_errno(error, errno,
					      "the mount point %s", path);
		if (asprintf(&program->mountpoint, "%s/%s",
			     strcmp(parent, "/") ? parent : "",
			     slash ? slash + 1 : copy) < 0)
			program->mountpoint = NULL;
	}
	return program->mountpoint ? 0
				   : hib_fail(error, ENOMEM, "out of memory");
}

static int find_group(const char *text, gid_t *ret, struct hib_error *error)
{
	const struct group *group = getgrnam(text);
	unsigned long number;
	char *end;

	if (group) {
		*ret = group->gr_gid;
		return 0;
	}
	errno = 0;
	number = strtoul(text, &end, 10);
	if (errno || *end || end == text || number > UINT_MAX - 1)
		return hib_fail(error, EINVAL,
				"control_group=%s: there is no such group",
				text);
	*ret = (gid_t)number;
	return 0;
}

static int open_filesystem(struct program *program, struct hib_error *error)
{
	const struct options *options = &program->options;
	struct daemon *daemon = &program->daemon;
	struct fs_config config = {
		.source = program->source,
		.mountpoint = program->mountpoint,
		.kernel_options = options->mount_options,
		.shard_depth = options->shard_depth,
		.no_passthrough = options->passthrough == PASSTHROUGH_OFF,
		.read_only = options->read_only,
		.log = &program->log,
		.callbacks = { .wake = wake_shard, .arg = daemon },
	};
	int r = fs_new(&config, &daemon->fs, error);

	if (r == 0)
		r = node_open_directory(fs_source_fd(daemon->fs),
					&daemon->hibfs_fd, error);
	if (r == 0)
		r = node_lock(daemon->hibfs_fd, &program->lock_fd, error);
	if (r == 0)
		r = node_load(daemon->hibfs_fd, options->node, &daemon->node,
			      error);
	return r;
}

static int open_store(struct program *program, struct hib_error *error)
{
	const struct options *options = &program->options;
	struct daemon *daemon = &program->daemon;
	struct store_config store = {
		.url = options->store,
		.endpoint = options->s3_endpoint,
		.region = options->s3_region,
		.path_style = options->s3_path_style,
		.ca_file = options->s3_ca,
		.allow_plain_http = options->s3_insecure_http,
		.credentials_file = options->s3_credentials,
		.profile = options->s3_profile,
	};
	struct engine_config engine = {
		.pack_bytes = (uint32_t)options->pack_bytes,
		.compression = (enum engine_compression)options->compression,
	};
	int r = store_open(&store, &daemon->store, error);

	if (r < 0)
		return r;
	engine.store = daemon->store;
	return engine_new(&engine, &daemon->engine, error);
}

static int open_registries(struct program *program, struct hib_error *error)
{
	struct daemon *daemon = &program->daemon;
	char otp_node[NODE_OTP_BYTES];
	struct event_log_config events = {
		.hibfs_fd = daemon->hibfs_fd,
		.node = daemon->node.name,
		.otp_node = otp_node,
	};
	struct task_registry_config tasks = {
		.hibfs_fd = daemon->hibfs_fd,
		.interrupted = recover_task,
		.arg = daemon,
	};
	struct shards_config shards = {
		.hibfs_fd = daemon->hibfs_fd,
		.shard_depth = program->options.shard_depth,
		.fs = daemon->fs,
		.wanted = shard_wanted,
		.arg = daemon,
	};
	int r;

	node_otp_name(&daemon->node, otp_node);
	r = event_log_open(&events, &daemon->events, error);
	if (r == 0)
		r = task_registry_open(&tasks, &daemon->tasks, error);
	if (r == 0)
		r = shards_open(&shards, &daemon->shards, error);
	return r;
}

static int open_everything(struct program *program, struct hib_error *error)
{
	struct daemon *daemon = &program->daemon;
	int r = open_filesystem(program, error);

	if (r == 0)
		r = open_store(program, error);
	if (r == 0)
		r = open_registries(program, error);
	if (r < 0)
		return r;
	daemon->options = &program->options;
	daemon->source = program->source;
	daemon->mountpoint = program->mountpoint;
	daemon->log = &program->log;
	daemon->started_ms = clock_realtime_ms();
	daemon->access.owner_uid = getuid();
	if (program->options.control_group) {
		daemon->access.has_group = true;
		r = find_group(program->options.control_group,
			       &daemon->access.group, error);
		if (r < 0)
			return r;
	}
	daemon->runner = runner_new(daemon);
	daemon->locks = locks_new(daemon->fs);
	if (!daemon->runner || !daemon->locks)
		return hib_fail(error, ENOMEM, "out of memory");
	return recover_shards(daemon, error);
}

/* As many files as the system allows: the mount's users have them open. */
static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* ---- stop ---- */

static void stop_services(struct program *program)
{
	struct daemon *daemon = &program->daemon;

	if (daemon->runner)
		runner_stop(daemon->runner);
	program->server = rpc_server_stop(program->server);
	daemon->locks = locks_free(daemon->locks);
}

static void close_everything(struct program *program)
{
	struct daemon *daemon = &program->daemon;

	daemon->runner = runner_free(daemon->runner);
	if (daemon->fs)
		fs_unmount(daemon->fs);
	daemon->engine = engine_free(daemon->engine);
	daemon->store = store_close(daemon->store);
	daemon->tasks = task_registry_close(daemon->tasks);
	daemon->events = event_log_close(daemon->events);
	daemon->shards = shards_close(daemon->shards);
	daemon->fs = fs_free(daemon->fs);
	daemon->hibfs_fd = close_fd(daemon->hibfs_fd);
	program->lock_fd = close_fd(program->lock_fd);
	options_done(&program->options);
	free(program->source);
	free(program->mountpoint);
}

static sigset_t handled_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2); /* from main(): the loop has ended */
	return set;
}

static void reload(struct program *program)
{
	struct hib_error error = HIB_ERROR_INIT;

	if (store_reload_credentials(program->daemon.store, &error) < 0)
		log_error(&program->log, "credentials not read again: %s",
			  error.message);
	else
		log_info(&program->log, "credentials read again");
}

static void *wait_for_signals(void *arg)
{
	struct program *program = arg;
	sigset_t set = handled_signals();
	int number;

	for (;;) {
		if (sigwait(&set, &number) != 0)
			continue;
		if (number == SIGUSR2)
			return NULL;
		if (number == SIGHUP) {
			reload(program);
			continue;
		}
		log_info(&program->log, "stopping on signal %d", number);
		/* first what works on shards, while the mount still answers */
		stop_services(program);
		fs_exit(program->daemon.fs);
	}
}

/* ---- to the background ---- */

/* In the parent: passes on how the start went. */
static int wait_for_child(int fd)
{
	char message[HIB_ERROR_MESSAGE_BYTES] = "";
	ssize_t size, used = 0;

	while ((size = read(fd, message + used,
			    sizeof(message) - 1 - (size_t)used)) > 0)
		used += size;
	if (used == 1 && message[0] == '\n')
		return 0;
	fprintf(stderr, "hibfs: %s\n",
		used ? message : "the daemon ended before the mount answered");
	return 1;
}

static int go_to_background(struct program *program, struct hib_error *error)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return hib_fail_errno(error, errno, "pipe");
	pid = fork();
	if (pid < 0)
		return hib_fail_errno(error, errno, "fork");
	if (pid > 0) {
		close(fds[1]);
		exit(wait_for_child(fds[0]));
	}
	close(fds[0]);
	program->ready_fd = fds[1];
	setsid();
	return 0;
}

/* Tells the parent, and lets go of the terminal. */
static void report_ready(struct program *program)
{
	int null;

	if (program->ready_fd < 0)
		return;
	if (write(program->ready_fd, "\n", 1) != 1)
		log_warning(&program->log, "the parent is gone");
	program->ready_fd = close_fd(program->ready_fd);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		close_fd(null);
	}
	program->log.to_syslog = 1;
	if (chdir("/") < 0)
		log_warning(&program->log, "cannot change to /");
}

static void report_failure(struct program *program,
			   const struct hib_error *error)
{
	if (program->ready_fd < 0) {
		fprintf(stderr, "hibfs: %s\n", error->message);
		return;
	}
	if (write(program->ready_fd, error->message, strlen(error->message)) <
	    0)
		fprintf(stderr, "hibfs: %s\n", error->message);
	program->ready_fd = close_fd(program->ready_fd);
}

/* Says that the mount answers; runs beside the loop. */
static void *announce(void *arg)
{
	struct program *program = arg;
	struct hib_error error = HIB_ERROR_INIT;
	int r = fs_wait_ready(program->daemon.fs, READY_TIMEOUT_MS, &error);

	if (r == 0)
		r = methods_start(&program->daemon, program->options.socket,
				  &program->log, &program->server, &error);
	if (r < 0) {
		report_failure(program, &error);
		log_error(&program->log, "%s", error.message);
		fs_exit(program->daemon.fs);
	} else {
		log_info(&program->log,
			 "hibfs %s serves %s at %s, control socket %s",
			 HIBFS_VERSION, program->source, program->mountpoint,
			 program->options.socket);
		report_ready(program);
	}
	return (void *)(intptr_t)r;
}

static int serve(struct program *program, struct hib_error *error)
{
	pthread_t announcer;
	void *announced;
	int r = fs_mount(program->daemon.fs, error);

	if (r < 0)
		return r;
	if (pthread_create(&announcer, NULL, announce, program) != 0)
		return hib_fail(error, EAGAIN, "cannot start a thread");
	r = fs_loop(program->daemon.fs, error);
	pthread_join(announcer, &announced);
	return r < 0 ? r : (int)(intptr_t)announced;
}

/* Where sockets go by default; NULL: /run/hibfs, which is root's. */
static const char *run_directory(char buffer[PATH_MAX])
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");

	if (geteuid() == 0 || !runtime || !*runtime ||
	    snprintf(buffer, PATH_MAX, "%s/hibfs", runtime) >= PATH_MAX)
		return NULL;
	return buffer;
}

static int prepare(struct program *program, int argc, char **argv,
		   struct hib_error *error)
{
	char directory[PATH_MAX];
	sigset_t set = handled_signals();
	int r;

	options_init(&program->options);
	program->daemon.hibfs_fd = -EBADF;
	program->ready_fd = -EBADF;
	program->lock_fd = -EBADF;
	program->log.level = LOG_LEVEL_INFO;
	/* what the starter had open is not ours: it would count as ours */
	close_range(STDERR_FILENO + 1, UINT_MAX, 0);
	r = fault_init(error);
	if (r == 0)
		r = parse_arguments(program, argc, argv, error);
	if (r == 0)
		r = find_mountpoint(program, argv[optind + 1], error);
	if (r == 0)
		r = options_finish(&program->options, program->mountpoint,
				   run_directory(directory), error);
	if (r < 0)
		return r;
	program->log.level = (enum log_level)program->options.log_level;
	signal(SIGPIPE, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	raise_limits();
	return program->foreground ? 0 : go_to_background(program, error);
}

int main(int argc, char **argv)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct program program = { 0 };
	int r = prepare(&program, argc, argv, &error);

	if (r == 0)
		r = open_everything(&program, &error);
	if (r == 0 && pthread_create(&program.signal_thread, NULL,
				     wait_for_signals, &program) != 0)
		r = hib_fail(&error, EAGAIN, "cannot start a thread");
	if (r < 0) {
		report_failure(&program, &error);
	} else {
		r = serve(&program, &error);
		if (r < 0 && error.code)
			report_failure(&program, &error);
		pthread_kill(program.signal_thread, SIGUSR2);
		pthread_join(program.signal_thread, NULL);
	}
	stop_services(&program);
	close_everything(&program);
	return r < 0 ? 1 : 0;
}
