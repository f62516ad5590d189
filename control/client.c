#include "control/client.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "control/rpc_message.h"

#define READ_BYTES (64u << 10)
#define ERRNO_LIMIT 256

struct client {
	int fd;
	char *path;
	int code; /* of the last call */
	json_int_t last_id;
	struct buffer in;
	size_t taken; /* bytes of `in` that were read as messages */
	size_t scanned; /* no newline from taken to here */
};

int client_connect(const char *path, struct client **ret,
		   struct hib_error *error)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	CLEANUP_CLOSE int fd = -EBADF;
	struct client *client;

	if (strlen(path) >= sizeof(address.sun_path))
		return hib_fail(
			error, ENAMETOOLONG,
			"The path of the control socket is too long: %.200s",
			path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return hib_fail_errno(error, errno, "No socket can be made");
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) <
	    0) {
		int code = errno;

		if (code == EACCES || code == EPERM)
			return hib_fail(
				error, EACCES,
				"The control socket %s may not be used by this user: only by root, the mount's owner and the control group",
				path);
		if (code == ECONNREFUSED || code == ENOENT)
			return hib_fail(
				error, code,
				"No hibfs answers at %s: is it running?", path);
		return hib_fail_errno(error, code,
				      "The control socket %s cannot be reached",
				      path);
	}
	client = calloc(1, sizeof(*client));
	if (client)
		client->path = strdup(path);
	if (!client || !client->path) {
		free(client);
		return hib_fail_errno(error, ENOMEM, "connect to %s", path);
	}
	client->in = BUFFER_INIT(RPC_REPLY_BYTES + READ_BYTES);
	client->fd = TAKE_FD(fd);
	*ret = client;
	return 0;
}

struct client *client_close(struct client *client)
{
	if (!client)
		return NULL;
	close_fd(client->fd);
	buffer_done(&client->in);
	free(client->path);
	free(client);
	return NULL;
}

int client_code(const struct client *client)
{
	return client->code;
}

static int lost(const struct client *client, struct hib_error *error)
{
	return hib_fail(error, ECONNRESET,
			"The hibfs at %s has closed the connection",
			client->path);
}

static int send_request(struct client *client, const struct client_call *call,
			struct hib_error *error)
{
	CLEANUP_FREE char *text = NULL;
	json_t *message;
	size_t size;

	message = json_pack("{s:s, s:I, s:s, s:o*}", "jsonrpc", "2.0", "id",
			    ++client->last_id, "method", call->method, "params",
			    call->params);
	if (message)
		text = json_dumps(message, JSON_COMPACT);
	json_decref(message);
	if (!text)
		return hib_fail(
			error, EINVAL,
			"The request cannot be written: a parameter is not UTF-8, or memory is short");
	size = strlen(text);
	text[size] = '\n'; /* in place of the NUL */
	for (size_t sent = 0; sent <= size;) {
		ssize_t n = send(client->fd, text + sent, size + 1 - sent,
				 MSG_NOSIGNAL);

		if (n >= 0)
			sent += (size_t)n;
		else if (errno == EPIPE || errno == ECONNRESET)
			break; /* why may be there to read */
		else if (errno != EINTR)
			return hib_fail_errno(error, errno,
					      "The request cannot be sent");
	}
	return 0;
}

/* The next line, without its newline, in `in`; NULL: more has to be read. */
static const char *take_line(struct client *client, size_t *ret_size)
{
	struct buffer *in = &client->in;
	const char *start = (const char *)in->data + client->taken;
	const char *end = NULL;

	if (in->size > client->scanned)
		end = memchr(in->data + client->scanned, '\n',
			     in->size - client->scanned);
	if (end) {
		*ret_size = (size_t)(end - start);
		client->taken += *ret_size + 1;
		client->scanned = client->taken;
		return start;
	}
	client->scanned = in->size;
	if (client->taken > 0) {
		memmove(in->data, in->data + client->taken,
			in->size - client->taken);
		in->size -= client->taken;
		client->scanned -= client->taken;
		client->taken = 0;
	}
	return NULL;
}

static int read_more(struct client *client, int interrupt_fd,
		     struct hib_error *error)
{
	struct pollfd waits[2] = { { .fd = client->fd, .events = POLLIN },
				   { .fd = interrupt_fd, .events = POLLIN } };
	struct buffer *in = &client->in;
	ssize_t n;

	if (buffer_reserve(in, READ_BYTES) < 0)
		return hib_fail(error, EMSGSIZE,
				"The answer of hibfs is longer than %u MiB",
				RPC_REPLY_BYTES >> 20);
	while (poll(waits, 2, -1) < 0)
		if (errno != EINTR)
			return hib_fail_errno(error, errno,
					      "wait for the answer");
	if (waits[1].revents)
		return hib_fail(error, EINTR, "Interrupted");
	n = recv(client->fd, in->data + in->size, READ_BYTES, 0);
	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return lost(client, error);
	in->size += (size_t)n;
	return 0;
}

/* The next message, a new reference. */
static int receive(struct client *client, int interrupt_fd,
		   json_t **ret_message, struct hib_error *error)
{
	json_error_t json_error;
	const char *line;
	json_t *message;
	size_t size;
	int r;

	while (!(line = take_line(client, &size))) {
		r = read_more(client, interrupt_fd, error);
		if (r < 0)
			return r;
	}
	message = json_loadb(line, size, 0, &json_error);
	if (!json_is_object(message)) {
		json_decref(message);
		return hib_fail(
			error, EPROTO,
			"What answers at %s does not speak JSON-RPC: %s",
			client->path, json_error.text);
	}
	*ret_message = message;
	return 0;
}

static int errno_of(const char *name)
{
	for (int code = 1; name && code < ERRNO_LIMIT; code++) {
		const char *known = strerrorname_np(code);

		if (known && strcmp(known, name) == 0)
			return code;
	}
	return EIO;
}

static int read_failure(struct client *client, json_t *failure,
			struct hib_error *error)
{
	json_t *data = json_object_get(failure, "data");
	const char *message =
		json_string_value(json_object_get(failure, "message"));
	const char *name = json_string_value(json_object_get(data, "errno"));

	client->code =
		(int)json_integer_value(json_object_get(failure, "code"));
	if (client->code == 0)
		client->code = RPC_SERVER_ERROR;
	return hib_fail(error,
			client->code == RPC_SERVER_ERROR ? errno_of(name)
							 : EINVAL,
			"%s", message ? message : "hibfs reports an error");
}

/* 1 when the message was the reply, 0 when not. */
static int handle(struct client *client, const struct client_call *call,
		  json_t *message, json_t **ret_result, struct hib_error *error)
{
	const char *method =
		json_string_value(json_object_get(message, "method"));
	json_t *failure = json_object_get(message, "error");
	json_t *id = json_object_get(message, "id");

	if (method)
		return call->notify ? call->notify(call->arg, method,
						   json_object_get(message,
								   "params"))
				    : 0;
	if (!ret_result)
		return 0;
	/* Without an id: refused before the request was read. */
	if (failure &&
	    (json_is_null(id) || json_integer_value(id) == client->last_id))
		return read_failure(client, failure, error);
	if (json_integer_value(id) != client->last_id)
		return 0; /* of a call that was interrupted */
	*ret_result = json_incref(json_object_get(message, "result"));
	if (*ret_result)
		return 1;
	return hib_fail(error, EPROTO, "The answer has no result");
}

static int receive_loop(struct client *client, const struct client_call *call,
			json_t **ret_result, struct hib_error *error)
{
	json_t *message;
	int r;

	do {
		r = receive(client, call->interrupt_fd, &message, error);
		if (r < 0)
			return r;
		r = handle(client, call, message, ret_result, error);
		json_decref(message);
	} while (r == 0);
	return r < 0 ? r : 0;
}

int client_call(struct client *client, const struct client_call *call,
		json_t **ret_result, struct hib_error *error)
{
	int r;

	client->code = 0;
	r = send_request(client, call, error);
	return r < 0 ? r : receive_loop(client, call, ret_result, error);
}

int client_follow(struct client *client, const struct client_call *call,
		  struct hib_error *error)
{
	client->code = 0;
	return receive_loop(client, call, NULL, error);
}
