/*
 * What the files of the daemon share: the parts it is made of, set before
 * threads start.
 */
#ifndef HIBFS_CONTROL_DAEMON_INTERNAL_H
#define HIBFS_CONTROL_DAEMON_INTERNAL_H

#include "base/log.h"
#include "control/daemon.h"
#include "control/locks.h"
#include "control/runner.h"
#include "control/shards.h"
#include "control/target.h"
#include "fs/fs.h"
#include "meta/node.h"
#include "meta/options.h"
#include "transfer/engine.h"
#include "transfer/store.h"

struct daemon {
	const struct options *options;
	const char *source, *mountpoint; /* absolute */
	struct daemon_access access;
	struct log *log;
	int hibfs_fd; /* SOURCE/.hibfs */
	struct node node;
	struct fs *fs;
	struct store *store;
	struct engine *engine;
	struct task_registry *tasks;
	struct event_log *events;
	struct shards *shards;
	struct locks *locks;
	struct runner *runner;
	int64_t started_ms;
};

/* daemon_resume() of one shard, for somebody who opens a file of it. */
int daemon_resume_shard(struct daemon *daemon, struct shard *shard,
			char ret_task[UUID_TEXT_BYTES],
			struct hib_error *error);

/* {"bucket", "shard", "task_id"}: the extra attributes of a task's events. */
json_t *task_event_attributes(struct task *task);

#endif
