/*
 * The messages of the control socket: JSON-RPC 2.0 (jsonrpc.org/specification),
 * one object a line. Reads requests that may be hostile, builds replies. Used
 * by rpc.c; knows no sockets and no methods.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_CONTROL_RPC_MESSAGE_H
#define HIBFS_CONTROL_RPC_MESSAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define RPC_REQUEST_BYTES (1u << 20) /* a request, and a notification */
#define RPC_REPLY_BYTES (16u << 20) /* a reply may be longer: lists */
#define RPC_DEPTH 16 /* of nested arrays and objects in a request */
#define RPC_VALUES 8192 /* in a request: bounds the memory of its tree */

/* Section 5.1 of the specification. */
enum rpc_code {
	RPC_PARSE_ERROR = -32700,
	RPC_INVALID_REQUEST = -32600,
	RPC_METHOD_NOT_FOUND = -32601,
	RPC_INVALID_PARAMS = -32602,
	RPC_SERVER_ERROR = -32000, /* with data.errno */
};

/* Why a call failed: becomes the "error" of the reply. */
struct rpc_failure {
	int code; /* enum rpc_code */
	struct hib_error error;
};

#define RPC_FAILURE_INIT \
	((struct rpc_failure){ .code = RPC_SERVER_ERROR, .error = { 0 } })

/* Sets code and message; returns -EINVAL. */
int rpc_fail(struct rpc_failure *failure, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

struct rpc_request {
	json_t *id; /* owned; NULL for a notification: nobody wants a reply */
	const char *method; /* in `message` */
	json_t *params; /* in `message`, an object; NULL when there are none */
	json_t *message; /* owned */
};

/*
 * Parses a line without its newline. On failure *ret_request holds only the id,
 * as far as it could be read (else JSON null: the reply needs one), and
 * *failure says what is wrong.
 */
int rpc_request_parse(const char *line, size_t size,
		      struct rpc_request *ret_request,
		      struct rpc_failure *failure);
void rpc_request_done(struct rpc_request *request);

/*
 * Messages to send; NULL: no memory. `id` is borrowed, NULL stands for null;
 * `result` and `params` are taken over, even on failure.
 */
json_t *rpc_reply_result(json_t *id, json_t *result);
json_t *rpc_reply_failure(json_t *id, const struct rpc_failure *failure);
json_t *rpc_notification(const char *method, json_t *params);

/* A JSON string of text that may not be UTF-8: such bytes become \xNN. */
json_t *rpc_string(const char *text);

/*
 * The candidate nearest to a mistyped word, or NULL when none is near.
 * `candidate` gives the index-th one, NULL at the end.
 */
const char *rpc_nearest(const char *word,
			const char *(*candidate)(const void *arg, size_t index),
			const void *arg);

#endif
