/* What pauser.c and pause_commit.c share. */
#ifndef HIBFS_CONTROL_PAUSER_INTERNAL_H
#define HIBFS_CONTROL_PAUSER_INTERNAL_H

#include "control/capture.h"
#include "control/daemon_internal.h"
#include "control/outcome.h"
#include "control/pauser.h"
#include "transfer/snapshot.h"

struct pausing {
	struct shard *shard;
	struct lineage lineage;
	struct capture *capture;
	struct manifest *manifest;
	struct chunk_table *table;
	uint64_t epoch, seq, parent_seq;
	int64_t started_ms;
	bool stepped; /* PAUSING is written */
	bool frozen;
	bool evicting; /* COMMITTED is written: no way back */
	struct outcome outcome;
};

struct pause_job;
typedef int (*pause_step)(struct pause_job *job, struct pausing *p,
			  struct cancel *cancel, struct hib_error *error);

struct pause_job {
	struct job job;
	char *bucket;
	struct daemon_pause_params params; /* without its target */
	struct pausing *shards;
	size_t count;
	/* while it runs */
	struct daemon *daemon;
	struct task *task;
	pause_step step;
};

static inline struct store_call pause_store_call(struct pause_job *job,
						 struct cancel *cancel)
{
	return (struct store_call){
		.cancel = cancel,
		.progress = task_progress(job->task),
	};
}

/* Step 4 of a shard: its chunk table and manifest. */
int pause_commit(struct pause_job *job, struct pausing *p,
		 struct cancel *cancel, struct hib_error *error);
/* What a shard's record says of its commit; arg: struct pausing. */
void pause_set_committed(void *arg, struct shard_record *record);
/* The end of step 4: bucket.json names the new snapshots. */
int pause_write_bucket(struct pause_job *job, struct cancel *cancel,
		       struct hib_error *error);

#endif
