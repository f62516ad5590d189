#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "control/rpc.h"
#include "tests/unit/test.h"

#define DEADLINE_MS 10000
#define LINE_BYTES (4u << 20)

/* --- a server with a handler that does what the method says --- */

struct fixture {
	struct rpc_server *server;
	struct log log;
	int blocked_fd; /* counts calls that began to block */
	int closed_fd; /* counts connections that were closed */
	atomic_ulong closed_id;
	atomic_uint calls;
};

static void count(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) < 0)
		abort();
}

static bool readable(int fd, int timeout_ms)
{
	struct pollfd wanted = { .fd = fd, .events = POLLIN };

	return poll(&wanted, 1, timeout_ms) == 1;
}

static void wake_block(void *arg)
{
	count(*(int *)arg);
}

/* Blocks until the connection's cancel fires. */
static int block(struct fixture *fixture, struct rpc_connection *connection)
{
	struct cancel *cancel = rpc_connection_cancel(connection);
	CLEANUP_CLOSE int fd = eventfd(0, 0);
	struct cancel_watch watch = { .wake = wake_block, .arg = &fd };
	uint64_t ignored;

	cancel_watch_add(cancel, &watch);
	count(fixture->blocked_fd);
	if (read(fd, &ignored, sizeof(ignored)) < 0)
		abort();
	cancel_watch_remove(cancel, &watch);
	return -ECANCELED;
}

static int flood(struct rpc_connection *connection)
{
	char *text = calloc(1, 100001);
	int r = 0;

	memset(text, 'x', 100000);
	for (int i = 0; i < 1000 && r == 0; i++)
		r = rpc_connection_notify(connection, "flood",
					  json_pack("{s:s}", "text", text));
	free(text);
	return r;
}

static int handle(void *arg, struct rpc_connection *connection,
		  const char *method, json_t *params, json_t **ret_result,
		  struct rpc_failure *failure)
{
	struct fixture *fixture = arg;

	atomic_fetch_add(&fixture->calls, 1);
	if (strcmp(method, "echo") == 0) {
		*ret_result = params ? json_incref(params) : json_object();
		return 0;
	}
	if (strcmp(method, "block") == 0) {
		int r = block(fixture, connection);

		return hib_fail(&failure->error, -r, "ended");
	}
	if (strcmp(method, "flood") == 0)
		return flood(connection);
	if (strcmp(method, "early") == 0) {
		rpc_connection_reply(connection, json_object());
		rpc_connection_notify(connection, "late", json_object());
		return 0;
	}
	if (strcmp(method, "busy") == 0)
		return hib_fail(&failure->error, EBUSY, "name \xff is busy");
	return rpc_fail(failure, RPC_METHOD_NOT_FOUND, "no %s", method);
}

static void closed(void *arg, uint64_t connection)
{
	struct fixture *fixture = arg;

	atomic_store(&fixture->closed_id, connection);
	count(fixture->closed_fd);
}

static struct rpc_config config_for(struct fixture *fixture)
{
	*fixture = (struct fixture){ .log = { .level = LOG_LEVEL_ERROR },
				     .blocked_fd = eventfd(0, EFD_SEMAPHORE),
				     .closed_fd = eventfd(0, EFD_SEMAPHORE) };
	return (struct rpc_config){
		.access = { .owner_uid = geteuid() },
		.handler = { .call = handle, .closed = closed, .arg = fixture },
		.log = &fixture->log,
	};
}

static void fixture_start(struct fixture *fixture, struct rpc_config *config)
{
	struct hib_error error = HIB_ERROR_INIT;

	CHECK_INT(rpc_server_start(config, &fixture->server, &error), 0);
}

static void fixture_stop(struct fixture *fixture)
{
	fixture->server = rpc_server_stop(fixture->server);
	close(fixture->blocked_fd);
	close(fixture->closed_fd);
}

static int client(struct fixture *fixture)
{
	struct hib_error error = HIB_ERROR_INIT;
	int fds[2];

	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	CHECK_INT(rpc_server_adopt(fixture->server, fds[1], &error), 0);
	return fds[0];
}

static void send_bytes(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		data += n;
		size -= (size_t)n;
	}
}

static void send_text(int fd, const char *text)
{
	send_bytes(fd, text, strlen(text));
}

/* The next line as JSON; NULL when the connection ends before it. */
static json_t *read_json(int fd)
{
	char *line = malloc(LINE_BYTES);
	json_t *json = NULL;
	size_t size = 0;

	while (size < LINE_BYTES && readable(fd, DEADLINE_MS) &&
	       recv(fd, line + size, 1, 0) == 1) {
		if (line[size] != '\n') {
			size++;
			continue;
		}
		json = json_loadb(line, size, 0, NULL);
		break;
	}
	free(line);
	return json;
}

/* The error's code in the next line, 0 for a result, 1 for no line. */
static int read_code(int fd)
{
	json_t *json = read_json(fd);
	int code = 1;

	if (json)
		code = (int)json_integer_value(json_object_get(
			json_object_get(json, "error"), "code"));
	json_decref(json);
	return code;
}

static bool at_end(int fd)
{
	char byte;

	return readable(fd, DEADLINE_MS) && recv(fd, &byte, 1, 0) <= 0;
}

/* --- connections --- */

TEST(requests_of_one_connection_are_answered_in_order)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	char line[128];
	int fd;

	fixture_start(&fixture, &config);
	fd = client(&fixture);
	for (int i = 0; i < 500; i++) {
		snprintf(
			line, sizeof(line),
			"{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"echo\"}%s",
			i, i % 2 ? "\r\n" : "\n\n");
		send_text(fd, line);
	}
	for (int i = 0; i < 500; i++) {
		json_t *json = read_json(fd);

		CHECK_INT(json_integer_value(json_object_get(json, "id")), i);
		CHECK(json_object_get(json, "result") != NULL);
		json_decref(json);
	}
	close(fd);
	fixture_stop(&fixture);
}

TEST(a_notification_gets_no_answer)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	json_t *json;
	int fd;

	fixture_start(&fixture, &config);
	fd = client(&fixture);
	send_text(fd,
		  "{\"jsonrpc\":\"2.0\",\"method\":\"echo\"}\n"
		  "{\"jsonrpc\":\"2.0\",\"method\":\"nothing\"}\n"
		  "{\"jsonrpc\":\"2.0\",\"method\":\"busy\"}\n"
		  "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"echo\"}\n");
	json = read_json(fd);
	CHECK_STR(json_string_value(json_object_get(json, "id")), "x");
	json_decref(json);
	CHECK_INT(fixture.calls, 4);
	close(fd);
	fixture_stop(&fixture);
}

TEST(an_error_carries_the_name_of_its_errno)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	json_t *json, *error;
	int fd;

	fixture_start(&fixture, &config);
	fd = client(&fixture);
	send_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"busy\"}\n");
	json = read_json(fd);
	error = json_object_get(json, "error");
	CHECK_INT(json_integer_value(json_object_get(error, "code")), -32000);
	CHECK_STR(json_string_value(json_object_get(error, "message")),
		  "name \\xff is busy");
	CHECK_STR(json_string_value(json_object_get(
			  json_object_get(error, "data"), "errno")),
		  "EBUSY");
	json_decref(json);
	close(fd);
	fixture_stop(&fixture);
}

TEST(a_reply_may_come_before_notifications)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	json_t *json;
	int fd;

	fixture_start(&fixture, &config);
	fd = client(&fixture);
	send_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"early\"}\n"
		      "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"echo\"}\n");
	json = read_json(fd);
	CHECK_INT(json_integer_value(json_object_get(json, "id")), 1);
	json_decref(json);
	json = read_json(fd);
	CHECK_STR(json_string_value(json_object_get(json, "method")), "late");
	json_decref(json);
	json = read_json(fd);
	CHECK_INT(json_integer_value(json_object_get(json, "id")), 2);
	json_decref(json);
	close(fd);
	fixture_stop(&fixture);
}

/* req: A1 */
TEST(garbage_gets_an_error_and_the_connection_goes_on)
{
	static const char garbage[] = "\0\1\2\n\xff\xfe\n{]\n\"\n";
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	int fd;

	fixture_start(&fixture, &config);
	fd = client(&fixture);
	send_bytes(fd, garbage, sizeof(garbage) - 1);
	for (int i = 0; i < 4; i++)
		CHECK_INT(read_code(fd), RPC_PARSE_ERROR);
	send_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}\n");
	CHECK_INT(read_code(fd), 0);
	close(fd);
	fixture_stop(&fixture);
}

/* req: A1 */
TEST(a_truncated_message_gets_an_error)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	int fd;

	fixture_start(&fixture, &config);
	fd = client(&fixture);
	send_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}");
	shutdown(fd, SHUT_WR);
	CHECK_INT(read_code(fd), RPC_PARSE_ERROR);
	CHECK(at_end(fd));
	CHECK_INT(fixture.calls, 0);
	close(fd);
	fixture_stop(&fixture);
}

/* req: A1 */
TEST(a_message_over_the_limit_ends_its_connection)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	char *line = malloc(RPC_REQUEST_BYTES + 2);
	int fd;

	fixture_start(&fixture, &config);
	memset(line, ' ', RPC_REQUEST_BYTES + 2);
	line[RPC_REQUEST_BYTES + 1] = '\n';
	fd = client(&fixture);
	send_bytes(fd, line, RPC_REQUEST_BYTES + 2);
	CHECK_INT(read_code(fd), RPC_INVALID_REQUEST);
	CHECK(at_end(fd));
	close(fd);
	/* The longest that may be is answered. */
	memcpy(line, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}", 40);
	line[RPC_REQUEST_BYTES] = '\n';
	fd = client(&fixture);
	send_bytes(fd, line, RPC_REQUEST_BYTES + 1);
	CHECK_INT(read_code(fd), 0);
	close(fd);
	free(line);
	fixture_stop(&fixture);
}

/* req: A1 */
TEST(only_a_few_large_messages_are_received_at_once)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	char *line = malloc(100000);
	int fds[40];
	int refused = 0;

	fixture_start(&fixture, &config);
	memset(line, ' ', 100000);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = client(&fixture);
		send_bytes(fds[i], line, 100000);
	}
	/* A refused one has its error; the others wait for the newline. */
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (readable(fds[i], i < 24 ? DEADLINE_MS / 100 : 100))
			refused++;
	CHECK_INT(refused, 24);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	free(line);
	fixture_stop(&fixture);
}

/* req: L5 */
TEST(the_handler_hears_that_a_connection_is_gone)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	uint64_t ignored;
	int fd;

	fixture_start(&fixture, &config);
	for (unsigned long id = 1; id <= 3; id++) {
		fd = client(&fixture);
		close(fd);
		CHECK(readable(fixture.closed_fd, DEADLINE_MS));
		CHECK_INT(read(fixture.closed_fd, &ignored, 8), 8);
		CHECK_INT(fixture.closed_id, id);
	}
	fixture_stop(&fixture);
}

/* req: L5 */
TEST(a_call_that_blocks_ends_when_its_client_hangs_up)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	int fd;

	fixture_start(&fixture, &config);
	fd = client(&fixture);
	send_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"block\"}\n");
	CHECK(readable(fixture.blocked_fd, DEADLINE_MS));
	close(fd);
	CHECK(readable(fixture.closed_fd, DEADLINE_MS));
	fixture_stop(&fixture);
}

TEST(a_client_that_only_ends_its_sending_is_still_answered)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	int fd;

	fixture_start(&fixture, &config);
	fd = client(&fixture);
	send_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"block\"}\n");
	shutdown(fd, SHUT_WR);
	CHECK(readable(fixture.blocked_fd, DEADLINE_MS));
	CHECK(!readable(fixture.closed_fd, 50));
	close(fd);
	CHECK(readable(fixture.closed_fd, DEADLINE_MS));
	fixture_stop(&fixture);
}

TEST(a_stop_ends_calls_that_block_and_answers_them)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	uint64_t before_ms, ignored;
	int fds[20];

	fixture_start(&fixture, &config);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = client(&fixture);
		send_text(
			fds[i],
			"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"block\"}\n");
		CHECK(readable(fixture.blocked_fd, DEADLINE_MS));
		CHECK_INT(read(fixture.blocked_fd, &ignored, 8), 8);
	}
	before_ms = clock_monotonic_ms();
	fixture_stop(&fixture);
	CHECK(clock_monotonic_ms() - before_ms < 1000);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		CHECK_INT(read_code(fds[i]), RPC_SERVER_ERROR);
		CHECK(at_end(fds[i]));
		close(fds[i]);
	}
}

/* req: A1 */
TEST(a_client_that_never_reads_delays_neither_others_nor_the_stop)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	uint64_t before_ms;
	int deaf, other;

	config.send_timeout_ms = 60000;
	fixture_start(&fixture, &config);
	deaf = client(&fixture);
	send_text(deaf,
		  "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"flood\"}\n");
	CHECK(readable(deaf, DEADLINE_MS));
	other = client(&fixture);
	send_text(other,
		  "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}\n");
	CHECK_INT(read_code(other), 0);
	before_ms = clock_monotonic_ms();
	fixture_stop(&fixture);
	CHECK(clock_monotonic_ms() - before_ms < 5000);
	close(deaf);
	close(other);
}

/* req: A1 */
TEST(a_client_that_never_reads_is_cut_off)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	int deaf;

	config.send_timeout_ms = 50;
	fixture_start(&fixture, &config);
	deaf = client(&fixture);
	send_text(deaf,
		  "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"flood\"}\n");
	CHECK(readable(fixture.closed_fd, DEADLINE_MS));
	close(deaf);
	fixture_stop(&fixture);
}

/* req: A1 */
TEST(connections_over_the_limit_get_an_error)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	struct hib_error error = HIB_ERROR_INIT;
	int fds[40], refused[2];
	size_t limit;

	config.connection_limit = 8;
	limit = config.connection_limit + (geteuid() == 0 ? 16 : 0);
	fixture_start(&fixture, &config);
	for (size_t i = 0; i < limit; i++)
		fds[i] = client(&fixture);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, refused), 0);
	CHECK_INT(rpc_server_adopt(fixture.server, refused[1], &error),
		  -EAGAIN);
	CHECK_INT(read_code(refused[0]), RPC_SERVER_ERROR);
	CHECK(at_end(refused[0]));
	close(refused[0]);
	for (size_t i = 0; i < limit; i++)
		close(fds[i]);
	fixture_stop(&fixture);
}

/* --- the socket file --- */

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* A path in a directory that is not there yet. */
static void socket_path(char ret[100], char ret_root[64])
{
	strcpy(ret_root, "/tmp/hibfs-test.XXXXXX");
	CHECK(mkdtemp(ret_root) != NULL);
	snprintf(ret, 100, "%s/run/s.sock", ret_root);
}

static void remove_root(const char *root)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/run", root);
	CHECK_INT(rmdir(path), 0);
	CHECK_INT(rmdir(root), 0);
}

TEST(the_socket_is_for_owner_and_group_and_goes_with_the_server)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	char path[100], root[64];
	struct stat st;
	int fd;

	socket_path(path, root);
	config.path = path;
	config.access.has_group = true;
	config.access.group = getegid();
	fixture_start(&fixture, &config);
	CHECK_INT(stat(path, &st), 0);
	CHECK_INT(st.st_mode & 07777, 0660);
	CHECK_INT(st.st_gid, getegid());
	fd = connect_to(path);
	send_text(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}\n");
	CHECK_INT(read_code(fd), 0);
	close(fd);
	fixture_stop(&fixture);
	CHECK_INT(stat(path, &st), -1);
	remove_root(root);
}

TEST(a_dead_socket_is_replaced_and_a_live_one_is_left)
{
	struct fixture fixture, second;
	struct rpc_config config = config_for(&fixture);
	struct rpc_config config2 = config_for(&second);
	struct hib_error error = HIB_ERROR_INIT;
	char path[100], root[64], directory[128];
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	socket_path(path, root);
	snprintf(directory, sizeof(directory), "%s/run", root);
	CHECK_INT(mkdir(directory, 0755), 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_INT(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd); /* the file stays, as after a crash */
	config.path = path;
	fixture_start(&fixture, &config);
	config2.path = path;
	CHECK_INT(rpc_server_start(&config2, &second.server, &error),
		  -EADDRINUSE);
	CHECK(strstr(error.message, path) != NULL);
	fd = connect_to(path);
	CHECK(fd >= 0);
	close(fd);
	fixture_stop(&fixture);
	close(second.blocked_fd);
	close(second.closed_fd);
	remove_root(root);
}

TEST(a_file_that_is_no_socket_is_not_removed)
{
	struct fixture fixture;
	struct rpc_config config = config_for(&fixture);
	struct hib_error error = HIB_ERROR_INIT;
	char path[] = "/tmp/hibfs-test.XXXXXX";
	int fd = mkstemp(path);

	CHECK(fd >= 0);
	config.path = path;
	CHECK_INT(rpc_server_start(&config, &fixture.server, &error),
		  -EADDRINUSE);
	CHECK_INT(unlink(path), 0);
	close(fd);
	close(fixture.blocked_fd);
	close(fixture.closed_fd);
}

TEST_MAIN()
