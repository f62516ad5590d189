/*
 * Feeds bytes to a connection of the control socket as a client would send
 * them: framing, parsing, the table of methods and its checks, replies. The
 * verbs themselves answer nothing.
 *
 *	clang -fsanitize=fuzzer,address,undefined ...	libFuzzer
 *	gcc -DFUZZ_MAIN -fsanitize=address,undefined ...	runs the files
 *named, or without any FUZZ_ROUNDS (20,000) mutations of built-in seeds.
 *
 * A reply that is no line of JSON aborts.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/methods.h"
#include "control/rpc_connection.h"

#define INPUT_BYTES (1u << 16)
#define REPLY_BYTES (1u << 20)

/* --- a daemon that refuses everything --- */

static int refuse(struct hib_error *error)
{
	return hib_fail(error, ENOENT, "There is nothing here.");
}

int daemon_list(struct daemon *daemon, const char *target, json_t **ret,
		struct hib_error *error)
{
	(void)daemon;
	*ret = json_pack("{s:s?}", "target", target);
	return *ret ? 0 : refuse(error);
}

int daemon_status(struct daemon *daemon, json_t **ret, struct hib_error *error)
{
	(void)daemon;
	(void)ret;
	return refuse(error);
}

int daemon_config(struct daemon *daemon, json_t **ret, struct hib_error *error)
{
	(void)daemon;
	(void)ret;
	return refuse(error);
}

int daemon_lock(struct daemon *daemon, const struct daemon_lock_params *params,
		json_t **ret, struct hib_error *error)
{
	(void)daemon;
	*ret = json_pack("{s:s, s:s?, s:I}", "target", params->target, "owner",
			 params->owner, "ttl_ms", (json_int_t)params->ttl_ms);
	return *ret ? 0 : refuse(error);
}

int daemon_unlock(struct daemon *daemon, const char *target, const char *owner,
		  json_t **ret, struct hib_error *error)
{
	(void)daemon;
	*ret = json_pack("{s:s, s:s}", "target", target, "owner", owner);
	return *ret ? 0 : refuse(error);
}

void daemon_connection_closed(struct daemon *daemon, uint64_t connection)
{
	(void)daemon;
	(void)connection;
}

int daemon_pause(struct daemon *daemon,
		 const struct daemon_pause_params *params,
		 char ret_task[UUID_TEXT_BYTES], struct hib_error *error)
{
	(void)daemon;
	(void)ret_task;
	return hib_fail(error, EBUSY, "%s is busy.", params->target);
}

int daemon_resume(struct daemon *daemon,
		  const struct daemon_resume_params *params,
		  char ret_task[UUID_TEXT_BYTES], struct hib_error *error)
{
	(void)daemon;
	(void)error;
	snprintf(ret_task, UUID_TEXT_BYTES, "%.36s", params->target);
	return 0;
}

int daemon_verify(struct daemon *daemon, const char *target, bool read_data,
		  char ret_task[UUID_TEXT_BYTES], struct hib_error *error)
{
	(void)daemon;
	(void)target;
	(void)read_data;
	(void)ret_task;
	return refuse(error);
}

int daemon_cancel(struct daemon *daemon, const char *task, json_t **ret,
		  struct hib_error *error)
{
	(void)daemon;
	(void)ret;
	return hib_fail(error, ENOENT, "There is no task %s.", task);
}

/* A registry and a log in a directory of their own, made at the first use. */
struct registries {
	struct task_registry *tasks;
	struct event_log *events;
};

static struct registries *registries(void)
{
	static struct registries all;
	char path[] = "/tmp/hibfs-fuzz.XXXXXX";
	struct task_registry_config tasks = { 0 };
	struct event_log_config events = { .node = "node",
					   .otp_node = "node@host" };

	if (all.tasks)
		return &all;
	if (!mkdtemp(path))
		abort();
	tasks.hibfs_fd = open(path, O_RDONLY | O_DIRECTORY);
	events.hibfs_fd = tasks.hibfs_fd;
	if (task_registry_open(&tasks, &all.tasks, NULL) < 0 ||
	    event_log_open(&events, &all.events, NULL) < 0)
		abort();
	event_append(all.events, EVENT_INFO, "Fuzzing started", NULL, NULL,
		     NULL);
	return &all;
}

struct task_registry *daemon_tasks(struct daemon *daemon)
{
	(void)daemon;
	return registries()->tasks;
}

struct event_log *daemon_events(struct daemon *daemon)
{
	(void)daemon;
	return registries()->events;
}

void daemon_shutdown(struct daemon *daemon)
{
	(void)daemon;
}

void daemon_get_access(struct daemon *daemon, struct daemon_access *ret)
{
	(void)daemon;
	*ret = (struct daemon_access){ .owner_uid = geteuid() };
}

/* --- one input --- */

/* Each reply is a line, and each line is JSON. */
static void check_replies(int fd)
{
	static char replies[REPLY_BYTES];
	size_t size = 0;
	ssize_t n;
	char *line, *end;

	while (size < sizeof(replies) &&
	       (n = recv(fd, replies + size, sizeof(replies) - size,
			 MSG_DONTWAIT)) > 0)
		size += (size_t)n;
	for (line = replies; line < replies + size; line = end + 1) {
		json_t *json;

		end = memchr(line, '\n', (size_t)(replies + size - line));
		if (!end)
			return; /* cut off: the fuzzer does not read meanwhile */
		json = json_loadb(line, (size_t)(end - line), 0, NULL);
		if (!json_object_get(json, "jsonrpc"))
			abort();
		json_decref(json);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rpc_shared shared = { .handler = methods_handler(NULL),
				     .send_timeout_ms = 1 };
	struct rpc_connection connection = { .shared = &shared, .id = 1 };
	int fds[2];

	if (size > INPUT_BYTES || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
		return 0;
	cancel_init(&shared.cancel, NULL);
	cancel_init(&connection.cancel, &shared.cancel);
	/* What blocks shall end at once: the client is about to hang up. */
	cancel_request(&connection.cancel);
	connection.fd = fds[1];
	if (send(fds[0], data, size, MSG_DONTWAIT) == (ssize_t)size) {
		shutdown(fds[0], SHUT_WR);
		rpc_connection_serve(&connection);
		check_replies(fds[0]);
	}
	cancel_done(&connection.cancel);
	cancel_done(&shared.cancel);
	close(fds[0]);
	close(fds[1]);
	return 0;
}

#ifdef FUZZ_MAIN

static const char *const seeds[] = {
	"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n",
	"{\"jsonrpc\":\"2.0\",\"method\":\"version\",\"params\":{}}\n\n\r\n",
	"{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"list\",\"params\":{\"target\":\"a/b\"}}\n",
	"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"lock\",\"params\":{\"target\":\"a\",\"owner\":\"o\",\"ttl_ms\":1000,\"deny\":true}}\n",
	"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"wait\",\"params\":{\"tasks\":[\"00000000-0000-4000-8000-000000000000\"],\"progress\":true}}\n",
	"{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"events\",\"params\":{\"after\":0,\"limit\":5,\"severity\":\"info\",\"target\":\"x/y\"}}\n",
	"{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"subscribe\",\"params\":{\"after\":0}}\n",
	"{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"resume\",\"params\":{\"target\":\"\\u00e4\\\"\\\\\"}}\n",
	"[{\"jsonrpc\":\"2.0\"}]\n{\"a\":[[[[[[[[[[]]]]]]]]]]}\n",
};

static size_t mutate(uint8_t *data, size_t size)
{
	static const char alphabet[] = "{}[]\",:\\\n\0\x7f\xc3\xff 0e-9u";

	for (long edits = random() % 8; edits >= 0 && size > 1; edits--) {
		size_t at = (size_t)random() % size;

		switch (random() % 4) {
		case 0:
			data[at] = (uint8_t)random();
			break;
		case 1:
			data[at] = (uint8_t)
				alphabet[(size_t)random() % sizeof(alphabet)];
			break;
		case 2: /* leave a piece out */
			memmove(data + at, data + at + 1, size - at - 1);
			size--;
			break;
		default: /* double what is before */
			if (size + at > INPUT_BYTES / 2)
				break;
			memmove(data + 2 * at, data + at, size - at);
			memcpy(data + at, data, at);
			size += at;
		}
	}
	return size;
}

static void run_file(const char *path)
{
	static uint8_t data[INPUT_BYTES];
	FILE *file = fopen(path, "rb");
	size_t size;

	if (!file) {
		perror(path);
		exit(2);
	}
	size = fread(data, 1, sizeof(data), file);
	fclose(file);
	LLVMFuzzerTestOneInput(data, size);
}

int main(int argc, char **argv)
{
	static uint8_t data[INPUT_BYTES];
	const char *text = getenv("FUZZ_ROUNDS");
	long rounds = text ? atol(text) : 20000;

	for (int i = 1; i < argc; i++)
		run_file(argv[i]);
	if (argc > 1)
		return 0;
	srandom(1);
	for (long i = 0; i < rounds; i++) {
		const char *seed = seeds[(size_t)random() %
					 (sizeof(seeds) / sizeof(*seeds))];
		size_t size = strlen(seed);

		memcpy(data, seed, size);
		LLVMFuzzerTestOneInput(data,
				       i < 100 ? size : mutate(data, size));
	}
	printf("%ld inputs\n", rounds);
	return 0;
}

#endif
