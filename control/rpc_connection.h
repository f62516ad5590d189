/*
 * One connection of the control socket: reads lines, has them answered, sends.
 * Used by rpc.c, which gives it a thread.
 *
 * Thread-safety: all by the connection's own thread, but for its cancel.
 */
#ifndef HIBFS_CONTROL_RPC_CONNECTION_H
#define HIBFS_CONTROL_RPC_CONNECTION_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buffer.h"
#include "control/rpc.h"

/* Messages beyond this need one of the few places for large ones. */
#define RPC_SMALL_BYTES (64u << 10)
#define RPC_LARGE_COUNT 16

/* What the connections of one server share; set before the first, but large. */
struct rpc_shared {
	struct rpc_handler handler;
	unsigned int send_timeout_ms;
	atomic_uint large; /* large messages being received */
	atomic_bool stopping;
	struct cancel cancel; /* parent of the connections' */
};

struct rpc_connection {
	struct rpc_shared *shared;
	struct rpc_server *server; /* for rpc.c */
	int fd; /* owned */
	uint64_t id;
	struct cancel cancel;
	json_t *request_id; /* borrowed, during a call; NULL: a notification */
	bool replied; /* to the present call */
	bool broken; /* the client takes nothing any more */
	bool holds_large; /* one of shared->large */
	struct buffer in;
	size_t taken; /* bytes of `in` that were answered */
	size_t scanned; /* bytes of `in` known to hold no newline after taken */
	pthread_t thread; /* rpc.c's */
	struct rpc_connection *next; /* guarded by the server's lock */
};

/* Answers until the client hangs up, or the server stops. */
void rpc_connection_serve(struct rpc_connection *connection);

/* Sends an error without an id, as far as it goes without waiting. */
void rpc_refuse(int fd, const struct rpc_failure *failure);

#endif
