/*
 * The daemon's verbs, as the control socket offers them: one function for each,
 * taking plain parameters and giving a jansson object. The socket server knows
 * JSON-RPC and who may call; this knows what the verbs do; neither knows the
 * other's business.
 *
 * main.c makes the daemon, recovers what a crash left (recover.c), mounts and
 * serves. pauser.c and resumer.c do the long work in threads of their own, one
 * for each task; locks.c keeps who holds which shard.
 *
 * Thread-safety: every verb may be called from any thread. None but
 * daemon_lock() takes longer than a look at memory or a small local file:
 * a store that does not answer never delays an answer here.
 */
#ifndef HIBFS_CONTROL_DAEMON_H
#define HIBFS_CONTROL_DAEMON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "meta/event.h"
#include "meta/task.h"

struct daemon;

/*
 * BUCKET or BUCKET/SHARD, percent-encoded where a name holds '/', '%', bytes
 * that are not UTF-8, or control characters (with shard_depth=1 BUCKET alone).
 * "." and "..", empty or too long names: -EINVAL. Unknown here: -ENOENT, with
 * the nearest name that exists.
 */

/*
 * {"shards": [{"target", "bucket", "shard", "state", "bytes", "files", "seq",
 * "epoch", "stub", "operation": {"kind", "task", "owner"}, "lock": {"owner",
 * "count", "deny", "since_ms", "expires_ms"}, "changed_ms", "error"}]} sorted
 * by target; names in their target form (target.h). bytes, files, seq and epoch
 * are the latest snapshot's, null when there is none; operation and lock are
 * null when there is none; a lock's operation has an owner, the others a task.
 * `target` NULL: everything.
 */
int daemon_list(struct daemon *daemon, const char *target, json_t **ret,
		struct hib_error *error);

/*
 * {"version", "pid", "started_ms", "uptime_ms", "node": {"id", "name"},
 * "source", "mountpoint", "filesystem": {"passthrough", "passthrough_reason",
 * "libfuse_version", "kernel_protocol", "inodes", "open_descriptors",
 * "open_handles", "parked_requests", "requests"}, "store": {"url", "requests",
 * "retries", "errors", "bytes_sent", "bytes_received", "under_way", "queued",
 * "last_success_ms", "last_failure_ms", "last_error"}, "tasks_active",
 * "shards": {"live": n, "hibernated": n, ...}}
 */
int daemon_status(struct daemon *daemon, json_t **ret, struct hib_error *error);

/* Effective options with where each came from; no credentials. */
int daemon_config(struct daemon *daemon, json_t **ret, struct hib_error *error);

/*
 * Locks the target's shards for `owner`, all or none. Locking again by the same
 * owner counts up. Without ttl_ms the lock belongs to `connection`, whose loss
 * releases it; with ttl_ms it outlives the connection and ends then.
 * -EBUSY naming the holder or the operation. Result: {"owner", "shards":
 * [{"bucket","shard","count","held_inodes","freeze_ms"}], "expires_ms"}.
 */
struct daemon_lock_params {
	const char *target;
	const char *owner; /* NULL: one is made, and returned */
	uint64_t ttl_ms; /* 0: bound to the connection */
	bool deny; /* EROFS instead of waiting */
	uint64_t connection; /* id given by the socket server, never 0 */
};
int daemon_lock(struct daemon *daemon, const struct daemon_lock_params *params,
		json_t **ret, struct hib_error *error);

/*
 * Counts down; at zero the shards thaw. Result: {"released": true|false,
 * "shards": [{..., "count", "changed": null|"file that was stored into"}]}.
 * What is not locked: success with "released": false and a "message" (L6).
 * Another owner's lock: -EPERM naming the holder.
 */
int daemon_unlock(struct daemon *daemon, const char *target, const char *owner,
		  json_t **ret, struct hib_error *error);

/* The socket server says that a connection is gone: its locks are released. */
void daemon_connection_closed(struct daemon *daemon, uint64_t connection);

/*
 * Starts a task and gives its id. What can be refused at once is refused at
 * once (-EBUSY naming operation, shard and task; -ENOENT; -EINVAL for a state
 * that does not allow it, saying which).
 */
struct daemon_pause_params {
	const char *target;
	bool wait_handles; /* wait for open files instead of failing */
	bool purge; /* leave no stub */
	bool adopt; /* go on with a lineage that this source did not come from */
};
int daemon_pause(struct daemon *daemon,
		 const struct daemon_pause_params *params,
		 char ret_task[UUID_TEXT_BYTES], struct hib_error *error);

struct daemon_resume_params {
	const char *target;
	bool take_over; /* another node has it and will not come back */
};
int daemon_resume(struct daemon *daemon,
		  const struct daemon_resume_params *params,
		  char ret_task[UUID_TEXT_BYTES], struct hib_error *error);

/* A look over a shard's or bucket's snapshots in the store: every object
 * present and of the right size, with `read_data` every chunk's id. A task. */
int daemon_verify(struct daemon *daemon, const char *target, bool read_data,
		  char ret_task[UUID_TEXT_BYTES], struct hib_error *error);

/*
 * Result: {"cancelled": true}, or false with a "message" when it had ended
 * or could not be cancelled any more (P5). Unknown id: -ENOENT.
 */
int daemon_cancel(struct daemon *daemon, const char *task, json_t **ret,
		  struct hib_error *error);

/* For tasks, task, wait, events and subscribe: the registries themselves. */
struct task_registry *daemon_tasks(struct daemon *daemon);
struct event_log *daemon_events(struct daemon *daemon);

/* Ends the daemon as SIGTERM does: tasks are stopped, the mount goes away. */
void daemon_shutdown(struct daemon *daemon);

/* Who may call besides root and the mount's owner (A1). */
struct daemon_access {
	uid_t owner_uid;
	bool has_group;
	gid_t group;
};
void daemon_get_access(struct daemon *daemon, struct daemon_access *ret);

#endif
