/* What resumer.c and resume_prepare.c share. */
#ifndef HIBFS_CONTROL_RESUMER_INTERNAL_H
#define HIBFS_CONTROL_RESUMER_INTERNAL_H

#include "control/daemon_internal.h"
#include "control/outcome.h"
#include "control/resumer.h"
#include "transfer/snapshot.h"

struct resuming {
	struct shard *shard;
	struct lineage lineage;
	struct manifest *manifest;
	struct chunk_table *table;
	size_t *file_entries; /* index of the entry of each target file */
	struct target_file *files;
	size_t file_count;
	int staging_fd; /* .hibfs/staging/<task>/<n> */
	char staging_name[16];
	uint64_t epoch, seq;
	bool absent; /* nothing of it was here before */
	bool stepped, taken, published;
	struct outcome outcome;
};

struct resume_job;
typedef int (*resume_step)(struct resume_job *job, struct resuming *s,
			   struct cancel *cancel, struct hib_error *error);

struct resume_job {
	struct job job;
	char *bucket;
	bool whole_bucket; /* the shards come from bucket.json */
	struct daemon_resume_params params; /* without its target */
	struct resuming *shards;
	size_t count;
	/* while it runs */
	struct daemon *daemon;
	struct task *task;
	resume_step step;
	int task_fd; /* .hibfs/staging/<task> */
};

/*
 * The first step of a shard: the next epoch, the snapshot that bucket.json
 * names, its manifest and chunk table, the list of its files.
 */
int resume_prepare(struct resume_job *job, struct resuming *s,
		   struct cancel *cancel, struct hib_error *error);

/* The bucket's own directory, as it was, on a node that has none. */
int resume_make_bucket(struct resume_job *job, const struct bucket_index *index,
		       struct hib_error *error);

#endif
