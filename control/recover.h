/*
 * What a crash (or a stop in the middle of something) left behind, put in order
 * before the mount answers: staging and trash emptied, every shard rolled back
 * or forward into one well-defined state, interrupted tasks ended.
 */
#ifndef HIBFS_CONTROL_RECOVER_H
#define HIBFS_CONTROL_RECOVER_H

#include "base/error.h"
#include "control/daemon.h"

/* The end event of a task that was interrupted; for task_registry_config. */
enum task_status recover_task(void *arg, struct task *task);

/*
 * All shards. Needs no store. A shard that cannot be put in order keeps its
 * state and is logged; it does not keep the others from being served.
 */
int recover_shards(struct daemon *daemon, struct hib_error *error);

#endif
