/*
 * The thread of a connection blocks in recv(), in poll() while the client does
 * not read (at most send_timeout_ms a message), and in the handler. The server
 * wakes it: shutdown(2) of the socket ends the first two, the cancel the third.
 */
#include "control/rpc_connection.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define READ_BYTES (16u << 10)

uint64_t rpc_connection_id(const struct rpc_connection *connection)
{
	return connection->id;
}

struct cancel *rpc_connection_cancel(struct rpc_connection *connection)
{
	return &connection->cancel;
}

/* Whatever happens, within timeout_ms in all: a client may read very slowly. */
static int send_bytes(int fd, const char *data, size_t size,
		      unsigned int timeout_ms)
{
	uint64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	struct pollfd wanted = { .fd = fd, .events = POLLOUT };

	while (size > 0) {
		ssize_t sent =
			send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
		uint64_t now_ms;

		if (sent >= 0) {
			data += sent;
			size -= (size_t)sent;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		now_ms = clock_monotonic_ms();
		if (now_ms >= deadline_ms)
			return -ETIMEDOUT;
		poll(&wanted, 1, (int)(deadline_ms - now_ms));
	}
	return 0;
}

static int append_text(const char *text, size_t size, void *arg)
{
	return buffer_append(arg, text, size) < 0 ? -1 : 0;
}

/* The line of a message: -EMSGSIZE when it is longer than `limit`. */
static int format_line(const json_t *message, size_t limit, struct buffer *out)
{
	out->limit = limit;
	if (!message)
		return -ENOMEM;
	if (json_dump_callback(message, append_text, out, JSON_COMPACT) < 0)
		return -EMSGSIZE;
	return buffer_append(out, "\n", 1);
}

static int send_line(struct rpc_connection *connection,
		     const struct buffer *line)
{
	int r;

	if (connection->broken)
		return -EPIPE;
	r = send_bytes(connection->fd, buffer_string(line), line->size,
		       connection->shared->send_timeout_ms);
	if (r < 0) {
		/* Half a line may be out: nothing after it could be read. */
		connection->broken = true;
		shutdown(connection->fd, SHUT_RDWR);
	}
	return r;
}

static int send_failure(struct rpc_connection *connection, json_t *id,
			const struct rpc_failure *failure)
{
	CLEANUP(buffer_done) struct buffer line = BUFFER_INIT(0);
	json_t *message = rpc_reply_failure(id, failure);
	int r = format_line(message, RPC_REPLY_BYTES, &line);

	json_decref(message);
	return r < 0 ? r : send_line(connection, &line);
}

static int send_result(struct rpc_connection *connection, json_t *result)
{
	CLEANUP(buffer_done) struct buffer line = BUFFER_INIT(0);
	struct rpc_failure failure = RPC_FAILURE_INIT;
	json_t *message = rpc_reply_result(connection->request_id, result);
	int r = format_line(message, RPC_REPLY_BYTES, &line);

	json_decref(message);
	if (r == 0)
		return send_line(connection, &line);
	if (r == -EMSGSIZE)
		hib_fail(
			&failure.error, EMSGSIZE,
			"The answer is longer than %u MiB; ask for less at a time.",
			RPC_REPLY_BYTES >> 20);
	else
		hib_fail(&failure.error, ENOMEM,
			 "The answer could not be written: out of memory.");
	return send_failure(connection, connection->request_id, &failure);
}

int rpc_connection_reply(struct rpc_connection *connection, json_t *result)
{
	if (connection->replied || !connection->request_id) {
		json_decref(result);
		return 0;
	}
	connection->replied = true;
	return send_result(connection, result);
}

int rpc_connection_notify(struct rpc_connection *connection, const char *method,
			  json_t *params)
{
	CLEANUP(buffer_done) struct buffer line = BUFFER_INIT(0);
	json_t *message = rpc_notification(method, params);
	int r = format_line(message, RPC_REQUEST_BYTES, &line);

	json_decref(message);
	return r < 0 ? r : send_line(connection, &line);
}

void rpc_refuse(int fd, const struct rpc_failure *failure)
{
	CLEANUP(buffer_done) struct buffer line = BUFFER_INIT(0);
	json_t *message = rpc_reply_failure(NULL, failure);

	if (format_line(message, RPC_REPLY_BYTES, &line) == 0)
		send_bytes(fd, buffer_string(&line), line.size, 0);
	json_decref(message);
}

static void answer(struct rpc_connection *connection, const char *line,
		   size_t size)
{
	const struct rpc_handler *handler = &connection->shared->handler;
	struct rpc_failure failure = RPC_FAILURE_INIT;
	struct rpc_request request;
	json_t *result = NULL;
	int r;

	r = rpc_request_parse(line, size, &request, &failure);
	connection->request_id = request.id;
	connection->replied = false;
	if (r == 0)
		r = handler->call(handler->arg, connection, request.method,
				  request.params, &result, &failure);
	/* A notification has no id, and its caller wants no answer. */
	if (r < 0 && request.id && !connection->replied)
		send_failure(connection, request.id, &failure);
	else if (r == 0)
		rpc_connection_reply(connection, result);
	connection->request_id = NULL;
	rpc_request_done(&request);
}

static bool is_blank(const char *line, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (!strchr(" \t\r", line[i]))
			return false;
	return true;
}

/*
 * The next whole line in `in`, or NULL when there is none yet, or none that may
 * be so long.
 */
static const char *take_line(struct rpc_connection *connection,
			     size_t *ret_size)
{
	struct buffer *in = &connection->in;
	const char *start = (const char *)in->data + connection->taken;
	const char *end;

	if (in->size == connection->scanned)
		return NULL;
	end = memchr(in->data + connection->scanned, '\n',
		     in->size - connection->scanned);
	if (!end || end - start > RPC_REQUEST_BYTES) {
		connection->scanned = in->size;
		return NULL;
	}
	*ret_size = (size_t)(end - start);
	connection->taken += *ret_size + 1;
	connection->scanned = connection->taken;
	return start;
}

static void release_large(struct rpc_connection *connection)
{
	if (connection->holds_large)
		atomic_fetch_sub(&connection->shared->large, 1);
	connection->holds_large = false;
}

/* Moves what is left of `in` to its beginning, and gives memory back. */
static void compact(struct rpc_connection *connection)
{
	struct buffer *in = &connection->in;

	if (connection->taken > 0) {
		memmove(in->data, in->data + connection->taken,
			in->size - connection->taken);
		in->size -= connection->taken;
		connection->scanned -= connection->taken;
		connection->taken = 0;
	}
	if (in->size == 0 && in->capacity > 2 * READ_BYTES)
		buffer_done(in);
	if (in->size < RPC_SMALL_BYTES)
		release_large(connection);
}

/* Whether the message that has begun may go on growing. */
static int check_room(struct rpc_connection *connection,
		      struct rpc_failure *failure)
{
	struct rpc_shared *shared = connection->shared;

	if (connection->in.size > RPC_REQUEST_BYTES)
		return rpc_fail(
			failure, RPC_INVALID_REQUEST,
			"The message is longer than %u bytes; the connection is closed.",
			RPC_REQUEST_BYTES);
	if (connection->in.size < RPC_SMALL_BYTES || connection->holds_large)
		return 0;
	if (atomic_fetch_add(&shared->large, 1) >= RPC_LARGE_COUNT) {
		atomic_fetch_sub(&shared->large, 1);
		return hib_fail(
			&failure->error, EAGAIN,
			"Too many messages longer than %u bytes at once; the connection is closed, try again.",
			RPC_SMALL_BYTES);
	}
	connection->holds_large = true;
	return 0;
}

/* Reads more: bytes, 0 at the end, or -errno. */
static ssize_t receive(struct rpc_connection *connection)
{
	struct buffer *in = &connection->in;
	ssize_t size;
	int r;

	r = buffer_reserve(in, READ_BYTES);
	if (r < 0)
		return r;
	do
		size = recv(connection->fd, in->data + in->size, READ_BYTES, 0);
	while (size < 0 && errno == EINTR);
	if (size < 0)
		return -errno;
	in->size += (size_t)size;
	return size;
}

static void answer_lines(struct rpc_connection *connection)
{
	const char *line;
	size_t size;

	while (!connection->broken &&
	       !atomic_load(&connection->shared->stopping) &&
	       (line = take_line(connection, &size)))
		if (!is_blank(line, size))
			answer(connection, line, size);
	compact(connection);
}

void rpc_connection_serve(struct rpc_connection *connection)
{
	struct rpc_failure failure = RPC_FAILURE_INIT;
	ssize_t size;
	int r = 0;

	connection->in = BUFFER_INIT(RPC_REQUEST_BYTES + 2 * READ_BYTES);
	for (;;) {
		size = receive(connection);
		if (size <= 0)
			break;
		answer_lines(connection);
		if (connection->broken ||
		    atomic_load(&connection->shared->stopping))
			break;
		r = check_room(connection, &failure);
		if (r < 0)
			break;
	}
	if (size == 0 && connection->in.size > 0 &&
	    !atomic_load(&connection->shared->stopping))
		r = rpc_fail(
			&failure, RPC_PARSE_ERROR,
			"The connection ended in the middle of a message: a newline is missing.");
	if (r < 0)
		send_failure(connection, NULL, &failure);
	release_large(connection);
	buffer_done(&connection->in);
}
