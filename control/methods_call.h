/*
 * What methods.c gives to a method, and how a method reads its parameters. They
 * have been checked against the table: what is there has the type said there.
 */
#ifndef HIBFS_CONTROL_METHODS_CALL_H
#define HIBFS_CONTROL_METHODS_CALL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/daemon.h"
#include "control/rpc.h"

#define CALL_TASKS_LIMIT 1000 /* ids in one call */
#define CALL_EVENTS_LIMIT 1000 /* in one answer */
#define CALL_TASKS_SHOWN 10000

struct call {
	struct daemon *daemon;
	struct rpc_connection *connection;
	json_t *params; /* an object, or NULL */
	json_t **ret_result;
	struct rpc_failure *failure; /* its code is RPC_SERVER_ERROR */
};

/* NULL, false, `otherwise` when the parameter was not given. */
const char *call_text(const struct call *call, const char *name);
bool call_flag(const struct call *call, const char *name);
uint64_t call_number(const struct call *call, const char *name,
		     uint64_t otherwise);

/* Gives the result (taken over): -ENOMEM when it is NULL. */
int call_result(struct call *call, json_t *result);

/* methods_watch.c: what looks at tasks and events. */
int method_tasks(struct call *call);
int method_task(struct call *call);
int method_wait(struct call *call);
int method_events(struct call *call);
int method_subscribe(struct call *call);

#endif
