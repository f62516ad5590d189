/*
 * The client's end of the control socket: finds it, connects, calls, receives
 * notifications. Used by hibctl; needs only base/, meta/ and jansson.
 *
 * Thread-safety: one client belongs to one thread at a time.
 */
#ifndef HIBFS_CONTROL_CLIENT_H
#define HIBFS_CONTROL_CLIENT_H

#include <jansson.h>

#include "base/error.h"

struct client;

/*
 * The path of the socket to talk to, malloc'ed. `hint` (NULL: none) is a socket
 * or a mount point. Without it the one hibfs that answers on this machine:
 * -ENOENT when there is none, -ENOTUNIQ with the list when there are several.
 */
int client_find(const char *hint, char **ret_path, struct hib_error *error);

int client_connect(const char *path, struct client **ret,
		   struct hib_error *error);
struct client *client_close(struct client *client); /* NULL */

/* A negative answer ends the call, which returns it. */
typedef int (*client_notify_fn)(void *arg, const char *method, json_t *params);

struct client_call {
	const char *method;
	json_t *params; /* taken over, even on failure; NULL: none */
	client_notify_fn notify; /* NULL: notifications are dropped */
	void *arg;
	int interrupt_fd; /* when readable the call ends, -EINTR; < 0: none */
};

/*
 * Calls and waits for the reply: *ret_result is a new reference. An error reply
 * gives its message, and -errno as its data say; client_code() tells it from a
 * connection that broke.
 */
int client_call(struct client *client, const struct client_call *call,
		json_t **ret_result, struct hib_error *error);

/*
 * Waits for notifications, method and params of *call unused: -EINTR when
 * interrupt_fd is readable, -ECONNRESET when the daemon has gone.
 */
int client_follow(struct client *client, const struct client_call *call,
		  struct hib_error *error);

/* The JSON-RPC code of the error reply to the last call; 0: there was none. */
int client_code(const struct client *client);

#endif
