/*
 * The methods of the control socket: a table of names, parameters and functions
 * that check what a client says and call the verb of daemon.h. Used by main.c.
 * docs/PROTOCOL.md describes them for those who write clients.
 */
#ifndef HIBFS_CONTROL_METHODS_H
#define HIBFS_CONTROL_METHODS_H

#include "base/error.h"
#include "base/log.h"
#include "control/daemon.h"
#include "control/rpc.h"

/* Grows when something that clients rely on changes its meaning. */
#define METHODS_PROTOCOL 1

/*
 * Serves the daemon's verbs at `path`. All are borrowed and outlive the server.
 * Stop it with rpc_server_stop(), after the tasks have ended (those who wait
 * for them hear how) and before the daemon's parts go away.
 */
int methods_start(struct daemon *daemon, const char *path,
		  const struct log *log, struct rpc_server **ret,
		  struct hib_error *error);

/* The handler alone; `arg` of its functions is the daemon. */
struct rpc_handler methods_handler(struct daemon *daemon);

#endif
