/*
 * What became of one shard in a task over several: the first failure of its
 * own, kept until the task's one result is made (T2).
 */
#ifndef HIBFS_CONTROL_OUTCOME_H
#define HIBFS_CONTROL_OUTCOME_H

#include "base/error.h"
#include "control/shards.h"
#include "meta/task.h"

struct outcome {
	int result; /* 0 or a negative errno */
	struct hib_error error;
};

/* Keeps the first failure; returns r. */
int outcome_note(struct outcome *outcome, int r, const struct hib_error *error);

/*
 * Adds the shard's result to the task's. `task_result` tells what became of the
 * whole: a shard that did not fail itself was stopped when the task did not
 * succeed. `remote` is the prefix of its lineage in the store.
 */
void outcome_report(const struct outcome *outcome, struct task *task,
		    struct shard *shard, int task_result, const char *remote);

#endif
