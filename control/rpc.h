/*
 * The server of the control socket: JSON-RPC 2.0 over a SOCK_STREAM Unix socket,
 * one message a line (rpc_message.h). It knows connections, limits and who may
 * call (peer.h); what the methods are is its handler's business (methods.c).
 *
 * Requests of one connection are answered one after the other; connections do
 * not wait for each other. A hostile or dead client costs its own thread and at
 * most about 64 KiB (a few at a time: RPC_REQUEST_BYTES), nothing else.
 *
 * Thread-safety: as each function says.
 */
#ifndef HIBFS_CONTROL_RPC_H
#define HIBFS_CONTROL_RPC_H

#include <jansson.h>
#include <stdint.h>

#include "base/cancel.h"
#include "base/error.h"
#include "base/log.h"
#include "control/peer.h"
#include "control/rpc_message.h"

struct rpc_server;
struct rpc_connection;

struct rpc_handler {
	/*
	 * Answers a request, in the connection's thread. `params` is an object
	 * or NULL. 0 with a new reference in *ret_result, or a negative number
	 * with *failure, whose code is RPC_SERVER_ERROR unless set otherwise.
	 * May block as long as it ends when the connection's cancel fires.
	 */
	int (*call)(void *arg, struct rpc_connection *connection,
		    const char *method, json_t *params, json_t **ret_result,
		    struct rpc_failure *failure);
	/* The connection is gone; no call of it runs. May be NULL. */
	void (*closed)(void *arg, uint64_t connection);
	void *arg;
};

struct rpc_config {
	/*
	 * Where to listen. The socket of a dead server is replaced; a live one
	 * is -EADDRINUSE. A missing last directory is made, 0755. NULL: nowhere
	 * (rpc_server_adopt() alone).
	 */
	const char *path;
	struct peer_access access; /* the socket belongs to owner and group */
	struct rpc_handler handler;
	const struct log *log; /* borrowed */
	unsigned int connection_limit; /* 0: 512; root may have 16 more */
	unsigned int send_timeout_ms; /* 0: 10,000; then a client is cut off */
};

int rpc_server_start(const struct rpc_config *config, struct rpc_server **ret,
		     struct hib_error *error);

/*
 * Removes the socket, ends every call through its cancel, waits until all
 * connections are gone: a reply that is ready is still sent, for at most two
 * seconds. Not from a handler. NULL is fine. Returns NULL.
 */
struct rpc_server *rpc_server_stop(struct rpc_server *server);

/*
 * Serves a connected Unix socket as if it had been accepted. Takes ownership of
 * fd, even on failure. Any thread.
 */
int rpc_server_adopt(struct rpc_server *server, int fd,
		     struct hib_error *error);

/* --- for handlers, during a call, in its thread --- */

/* Never 0, never used again in this process. */
uint64_t rpc_connection_id(const struct rpc_connection *connection);

/* Fires when the client has hung up or the server stops. */
struct cancel *rpc_connection_cancel(struct rpc_connection *connection);

/*
 * Sends a notification; `params` is taken over. A negative errno when the
 * client does not take it: the connection is dead then.
 */
int rpc_connection_notify(struct rpc_connection *connection, const char *method,
			  json_t *params);

/*
 * Answers the present request now, before the call returns (whose own result is
 * dropped): for a call that goes on with notifications.
 */
int rpc_connection_reply(struct rpc_connection *connection, json_t *result);

#endif
