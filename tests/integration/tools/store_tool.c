/*
 * The object store from the command line, for the integration tests and for
 * measurements: everything goes through transfer/store.h.
 *
 *	store_tool [OPTION=VALUE...] COMMAND [ARGUMENT...]
 *
 *	put KEY FILE		put-if-absent KEY FILE
 *	get KEY [OFFSET LENGTH]	to standard output
 *	head KEY		"SIZE MODIFIED_MS"
 *	list PREFIX [AFTER]	a line "SIZE KEY" each
 *	delete KEY...
 *	race KEY COUNT		COUNT threads put different bytes if absent;
 *				prints how many won, and how many lost
 *	bench-put PREFIX COUNT BYTES [ROUNDS]	asynchronous, all at once
 *	bench-get PREFIX COUNT BYTES [ROUNDS]	prints MiB/s and CPU seconds
 *	cancel-get KEY MS	prints how many ms after the cancel it ended
 *	close-get KEY		closes the store with a get under way
 *
 * A failure prints "ERRNO_NAME message" to standard error, with exit status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "transfer/store.h"

#define OBJECT_LIMIT ((size_t)4 << 30)
#define RACERS_MAX 256

struct tool {
	struct store_config config;
	struct store_call call;
	struct store *store;
	struct hib_error error;
	bool show_stats;
};

static uint64_t number(const char *text)
{
	return strtoull(text, NULL, 0);
}

static bool take_option(struct tool *tool, char *word)
{
	struct store_config *config = &tool->config;
	char *value = strchr(word, '=');

	if (!value)
		return false;
	*value++ = 0;
	if (strcmp(word, "url") == 0)
		config->url = value;
	else if (strcmp(word, "endpoint") == 0)
		config->endpoint = value;
	else if (strcmp(word, "region") == 0)
		config->region = value;
	else if (strcmp(word, "path_style") == 0)
		config->path_style = number(value);
	else if (strcmp(word, "ca") == 0)
		config->ca_file = value;
	else if (strcmp(word, "plain_http") == 0)
		config->allow_plain_http = number(value);
	else if (strcmp(word, "credentials") == 0)
		config->credentials_file = value;
	else if (strcmp(word, "profile") == 0)
		config->profile = value;
	else if (strcmp(word, "connections") == 0)
		config->connections = (unsigned)number(value);
	else if (strcmp(word, "request_timeout_ms") == 0)
		config->request_timeout_ms = number(value);
	else if (strcmp(word, "stall_timeout_ms") == 0)
		config->stall_timeout_ms = number(value);
	else if (strcmp(word, "timeout_ms") == 0)
		tool->call.timeout_ms = number(value);
	else if (strcmp(word, "urgent") == 0)
		tool->call.urgent = number(value);
	else if (strcmp(word, "stats") == 0)
		tool->show_stats = number(value);
	else
		return false;
	return true;
}

static int put(struct tool *tool, char **argv, unsigned flags)
{
	CLEANUP(buffer_done) struct buffer data = BUFFER_INIT(OBJECT_LIMIT);
	int r = file_read_all(AT_FDCWD, argv[1], &data, &tool->error);

	if (r < 0)
		return r;
	return store_put(tool->store, argv[0], buffer_string(&data), data.size,
			 flags, &tool->call, &tool->error);
}

static int cmd_put(struct tool *tool, int argc, char **argv)
{
	(void)argc;
	return put(tool, argv, 0);
}

static int cmd_put_if_absent(struct tool *tool, int argc, char **argv)
{
	(void)argc;
	return put(tool, argv, STORE_IF_ABSENT);
}

static int cmd_get(struct tool *tool, int argc, char **argv)
{
	CLEANUP(buffer_done) struct buffer data = BUFFER_INIT(OBJECT_LIMIT);
	uint64_t offset = argc > 2 ? number(argv[1]) : 0;
	uint64_t length = argc > 2 ? number(argv[2]) : 0;
	int r;

	r = store_get(tool->store, argv[0], offset, length, &data, &tool->call,
		      &tool->error);
	if (r == 0 && data.size && fwrite(data.data, data.size, 1, stdout) != 1)
		return hib_fail_errno(&tool->error, EIO, "standard output");
	return r;
}

static int cmd_head(struct tool *tool, int argc, char **argv)
{
	struct store_object object;
	int r;

	(void)argc;
	r = store_head(tool->store, argv[0], &object, &tool->call,
		       &tool->error);
	if (r == 0)
		printf("%" PRIu64 " %" PRId64 "\n", object.size,
		       object.modified_ms);
	return r;
}

static int show(void *arg, const char *key, const struct store_object *object)
{
	(void)arg;
	printf("%" PRIu64 " %s\n", object->size, key);
	return 0;
}

static int cmd_list(struct tool *tool, int argc, char **argv)
{
	return store_list(tool->store, argv[0], argc > 1 ? argv[1] : NULL, show,
			  NULL, &tool->call, &tool->error);
}

static int cmd_delete(struct tool *tool, int argc, char **argv)
{
	return store_delete(tool->store, (const char *const *)argv,
			    (size_t)argc, &tool->call, &tool->error);
}

struct racer {
	struct tool *tool;
	const char *key;
	pthread_t thread;
	char data[64];
	int result;
};

static void *run_racer(void *arg)
{
	struct racer *racer = arg;

	racer->result =
		store_put(racer->tool->store, racer->key, racer->data,
			  strlen(racer->data), STORE_IF_ABSENT, NULL, NULL);
	return NULL;
}

static int cmd_race(struct tool *tool, int argc, char **argv)
{
	static struct racer racers[RACERS_MAX];
	size_t count = number(argv[1]), won = 0, lost = 0;

	(void)argc;
	if (count > RACERS_MAX)
		count = RACERS_MAX;
	for (size_t i = 0; i < count; i++) {
		racers[i].tool = tool;
		racers[i].key = argv[0];
		snprintf(racers[i].data, sizeof(racers[i].data), "racer %zu",
			 i);
		if (pthread_create(&racers[i].thread, NULL, run_racer,
				   &racers[i]) != 0)
			return -EAGAIN;
	}
	for (size_t i = 0; i < count; i++) {
		pthread_join(racers[i].thread, NULL);
		won += racers[i].result == 0;
		lost += racers[i].result == -EEXIST;
	}
	printf("%zu %zu\n", won, lost);
	return 0;
}

/* --- measurements --------------------------------------------------------- */

struct bench {
	pthread_mutex_t lock;
	pthread_cond_t done;
	size_t left;
	int result;
	struct hib_error error;
};

static void bench_done(void *arg, int result, const struct hib_error *error)
{
	struct bench *bench = arg;

	pthread_mutex_lock(&bench->lock);
	if (result < 0 && bench->result == 0) {
		bench->result = result;
		bench->error = *error;
	}
	if (--bench->left == 0)
		pthread_cond_signal(&bench->done);
	pthread_mutex_unlock(&bench->lock);
}

static double cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int run_bench(struct tool *tool, char (*keys)[STORE_KEY_BYTES],
		     struct buffer *bodies, size_t count, size_t bytes,
		     bool get)
{
	struct bench bench = {
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.done = PTHREAD_COND_INITIALIZER,
		.left = count,
	};

	for (size_t i = 0; i < count; i++) {
		if (get) {
			buffer_clear(&bodies[i]);
			store_get_async(tool->store, keys[i], 0, bytes,
					&bodies[i], &tool->call, bench_done,
					&bench);
		} else {
			store_put_async(tool->store, keys[i], bodies[i].data,
					bodies[i].size, 0, &tool->call,
					bench_done, &bench);
		}
	}
	pthread_mutex_lock(&bench.lock);
	while (bench.left)
		pthread_cond_wait(&bench.done, &bench.lock);
	pthread_mutex_unlock(&bench.lock);
	tool->error = bench.error;
	return bench.result;
}

static int bench(struct tool *tool, int argc, char **argv, bool get)
{
	size_t count = number(argv[1]), bytes = number(argv[2]);
	size_t rounds = argc > 3 ? number(argv[3]) : 1;
	char(*keys)[STORE_KEY_BYTES] = calloc(count, sizeof(*keys));
	struct buffer *bodies = calloc(count, sizeof(*bodies));
	uint64_t begin;
	double cpu, seconds;
	int r = 0;

	if (!keys || !bodies)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		snprintf(keys[i], sizeof(keys[i]), "%s%zu", argv[0], i);
		bodies[i] = BUFFER_INIT(bytes);
		if (buffer_reserve(&bodies[i], bytes) < 0)
			return -ENOMEM;
		bodies[i].size = bytes;
		memset(bodies[i].data, (int)('a' + i % 26), bytes);
	}
	cpu = cpu_seconds();
	begin = clock_monotonic_ns();
	for (size_t i = 0; i < rounds && r == 0; i++)
		r = run_bench(tool, keys, bodies, count, bytes, get);
	seconds = (double)(clock_monotonic_ns() - begin) / 1e9;
	cpu = cpu_seconds() - cpu;
	if (r == 0)
		printf("%.1f MiB/s, %.3f CPU s/GiB\n",
		       (double)(count * bytes * rounds) / seconds / 1048576,
		       cpu / ((double)(count * bytes * rounds) / 1073741824));
	for (size_t i = 0; i < count; i++)
		buffer_done(&bodies[i]);
	free(bodies);
	free(keys);
	return r;
}

static int cmd_bench_put(struct tool *tool, int argc, char **argv)
{
	return bench(tool, argc, argv, false);
}

static int cmd_bench_get(struct tool *tool, int argc, char **argv)
{
	return bench(tool, argc, argv, true);
}

/* --- cancel and close ----------------------------------------------------- */

struct canceller {
	struct cancel *cancel;
	uint64_t delay_ms, fired_ns;
};

static void *run_canceller(void *arg)
{
	struct canceller *canceller = arg;
	struct timespec delay = {
		.tv_sec = (time_t)(canceller->delay_ms / 1000),
		.tv_nsec = (long)(canceller->delay_ms % 1000) * 1000000,
	};

	nanosleep(&delay, NULL);
	canceller->fired_ns = clock_monotonic_ns();
	cancel_request(canceller->cancel);
	return NULL;
}

static int cmd_cancel_get(struct tool *tool, int argc, char **argv)
{
	CLEANUP(buffer_done) struct buffer data = BUFFER_INIT(OBJECT_LIMIT);
	struct cancel cancel;
	struct canceller canceller = {
		.cancel = &cancel,
		.delay_ms = number(argv[1]),
	};
	pthread_t thread;
	int r;

	(void)argc;
	cancel_init(&cancel, NULL);
	tool->call.cancel = &cancel;
	if (pthread_create(&thread, NULL, run_canceller, &canceller) != 0)
		return -EAGAIN;
	r = store_get(tool->store, argv[0], 0, 0, &data, &tool->call,
		      &tool->error);
	pthread_join(thread, NULL);
	tool->call.cancel = NULL;
	cancel_done(&cancel);
	if (r == -ECANCELED)
		printf("%" PRIu64 "\n",
		       (clock_monotonic_ns() - canceller.fired_ns) / 1000000);
	return r == -ECANCELED ? 0 : r;
}

static int cmd_close_get(struct tool *tool, int argc, char **argv)
{
	CLEANUP(buffer_done) struct buffer data = BUFFER_INIT(OBJECT_LIMIT);
	struct bench bench = {
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.done = PTHREAD_COND_INITIALIZER,
		.left = 1,
	};

	(void)argc;
	store_get_async(tool->store, argv[0], 0, 0, &data, &tool->call,
			bench_done, &bench);
	tool->store = store_close(tool->store);
	printf("%zu %s\n", bench.left,
	       bench.result ? strerrorname_np(-bench.result) : "0");
	return 0;
}

static const struct {
	const char *name;
	int arguments;
	int (*run)(struct tool *tool, int argc, char **argv);
} commands[] = {
	{ "put", 2, cmd_put },
	{ "put-if-absent", 2, cmd_put_if_absent },
	{ "get", 1, cmd_get },
	{ "head", 1, cmd_head },
	{ "list", 1, cmd_list },
	{ "delete", 1, cmd_delete },
	{ "race", 2, cmd_race },
	{ "bench-put", 3, cmd_bench_put },
	{ "bench-get", 3, cmd_bench_get },
	{ "cancel-get", 2, cmd_cancel_get },
	{ "close-get", 1, cmd_close_get },
};

static int run_command(struct tool *tool, int argc, char **argv)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (argc > commands[i].arguments &&
		    strcmp(argv[0], commands[i].name) == 0)
			return commands[i].run(tool, argc - 1, argv + 1);
	return hib_fail(&tool->error, EINVAL, "no such command, or arguments");
}

static void show_stats(struct tool *tool)
{
	struct store_stats stats;

	store_get_stats(tool->store, &stats);
	fprintf(stderr,
		"stats requests=%" PRIu64 " retries=%" PRIu64 " errors=%" PRIu64
		" sent=%" PRIu64 " received=%" PRIu64 " under_way=%" PRIu64
		" queued=%" PRIu64 "\n",
		stats.requests, stats.retries, stats.errors, stats.bytes_sent,
		stats.bytes_received, stats.under_way, stats.queued);
}

int main(int argc, char **argv)
{
	struct tool tool = { 0 };
	int r = fault_init(&tool.error);

	argc--;
	argv++;
	while (r == 0 && argc > 0 && strchr(*argv, '=')) {
		if (!take_option(&tool, *argv))
			r = hib_fail(&tool.error, EINVAL, "unknown option %s",
				     *argv);
		argc--;
		argv++;
	}
	if (r == 0)
		r = store_open(&tool.config, &tool.store, &tool.error);
	if (r == 0)
		r = run_command(&tool, argc, argv);
	if (tool.store && tool.show_stats)
		show_stats(&tool);
	store_close(tool.store);
	if (r < 0)
		fprintf(stderr, "%s %s\n", strerrorname_np(-r),
			tool.error.message);
	return r < 0;
}
