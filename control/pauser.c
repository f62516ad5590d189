/*
 * Threads: run() is the task's thread; the steps over all shards run in the
 * threads of parallel_run(), each shard by one of them at a time, so a
 * struct pausing needs no lock.
 */
#include "control/pauser.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "control/capture.h"
#include "control/daemon_internal.h"
#include "control/evict.h"
#include "control/outcome.h"
#include "control/parallel.h"
#include "fs/tree.h"
#include "transfer/snapshot.h"

/* A round is repeated while it found more than this, and less than before. */
#define ROUND_LARGE_BYTES (16u << 20)
#define ROUNDS_MAX 5
#define SHARDS_AT_ONCE 8

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

static struct store_call store_call_of(struct pause_job *job,
				       struct cancel *cancel)
{
	return (struct store_call){
		.cancel = cancel,
		.progress = task_progress(job->task),
	};
}

/* ---- 1. prepare ---- */

struct epoch_change {
	uint64_t epoch;
};

static void set_epoch(void *arg, struct shard_record *record)
{
	const struct epoch_change *change = arg;

	record->epoch = change->epoch;
}

static int take_epoch(struct pause_job *job, struct pausing *p, uint64_t epoch,
		      const struct store_call *call, struct hib_error *error)
{
	struct epoch_change change = { .epoch = epoch };
	bool unfenced = false;
	int r;

	r = snapshot_take_epoch(job->daemon->store, &p->lineage, epoch,
				job->daemon->node.name, task_id(job->task),
				call, &unfenced, error);
	if (r == -EEXIST)
		return hib_fail(
			error, EBUSY,
			"another node has just become the owner of %s (epoch %llu)",
			shard_text(p->shard), (unsigned long long)epoch);
	if (r < 0)
		return r;
	p->epoch = epoch;
	return shard_update(p->shard, set_epoch, &change, error);
}

/* Who owns the lineage, and with which number does this pause go on? */
static int own_lineage(struct pause_job *job, struct pausing *p,
		       const struct store_call *call, struct hib_error *error)
{
	struct lineage_state lineage;
	struct shard_record record;
	int r;

	shard_get_record(p->shard, &record);
	r = snapshot_lineage_state(job->daemon->store, &p->lineage, call,
				   &lineage, error);
	if (r < 0)
		return r;
	p->seq = lineage.latest_seq + 1;
	p->parent_seq = lineage.latest_seq;
	if (record.epoch == 0 && lineage.latest_epoch == 0)
		return take_epoch(job, p, 1, call, error);
	if (record.epoch == lineage.latest_epoch) {
		p->epoch = record.epoch;
		return 0;
	}
	if (lineage.latest_epoch > record.epoch && !job->params.adopt)
		return record.epoch == 0
			       ? hib_fail(
					 error, EEXIST,
					 "the store already holds snapshots of %s (epoch %llu, snapshot %llu) that this directory was not resumed from; give --adopt to go on with them as its history, or use another store or prefix",
					 shard_text(p->shard),
					 (unsigned long long)
						 lineage.latest_epoch,
					 (unsigned long long)lineage.latest_seq)
			       : hib_fail(
					 error, ESTALE,
					 "another node has taken over %s (epoch %llu, here %llu): this copy is out of date and cannot be committed; it stays live here, untouched",
					 shard_text(p->shard),
					 (unsigned long long)
						 lineage.latest_epoch,
					 (unsigned long long)record.epoch);
	return take_epoch(job, p,
			  (lineage.latest_epoch > record.epoch
				   ? lineage.latest_epoch
				   : record.epoch) +
				  1,
			  call, error);
}

/* The parent only saves work: one that is broken is done without. */
static int read_parent(struct pause_job *job, struct pausing *p,
		       const struct store_call *call,
		       struct manifest **ret_manifest,
		       struct chunk_table **ret_table, struct hib_error *error)
{
	struct hib_error parent_error = HIB_ERROR_INIT;
	int r;

	if (!p->parent_seq)
		return 0;
	r = snapshot_read(job->daemon->store, &p->lineage, p->parent_seq, call,
			  ret_manifest, ret_table, &parent_error);
	if (r == -EBADMSG || r == -ENOENT || r == -EPROTONOSUPPORT) {
		log_warning(
			job->daemon->log,
			"pause of %s: the latest snapshot cannot be used, everything is uploaded anew: %s",
			shard_text(p->shard), parent_error.message);
		p->parent_seq = 0;
		return 0;
	}
	if (r < 0 && error)
		*error = parent_error;
	return r;
}

static int prepare(struct pause_job *job, struct pausing *p,
		   struct cancel *cancel, struct hib_error *error)
{
	struct store_call store_call = store_call_of(job, cancel);
	struct engine_call call = { cancel, task_progress(job->task) };
	struct chunk_table *parent_table = NULL;
	struct manifest *parent = NULL;
	struct capture_round round, before = { .changed_bytes = UINT64_MAX };
	char path[SHARD_PATH_BYTES];
	int dirfd, r;

	p->started_ms = clock_realtime_ms();
	r = own_lineage(job, p, &store_call, error);
	if (r == 0)
		r = read_parent(job, p, &store_call, &parent, &parent_table,
				error);
	if (r < 0)
		return r;
	shard_live_path(p->shard, path);
	r = dir_open(fs_source_fd(job->daemon->fs), path, &dirfd, error);
	if (r < 0) {
		manifest_free(parent);
		chunk_table_free(parent_table);
		return r;
	}
	r = capture_new(job->daemon->engine, &p->lineage, dirfd, parent,
			parent_table, &p->capture, error);
	for (int i = 0; r == 0 && i < ROUNDS_MAX; i++) {
		r = fault_point("pause.round.before");
		if (r < 0)
			return hib_fail(error, -r, "fault point");
		r = capture_run_round(p->capture, &call, &round, error);
		if (r < 0 || round.changed_bytes < ROUND_LARGE_BYTES ||
		    round.changed_bytes > before.changed_bytes / 2)
			break;
		before = round;
	}
	return r;
}

/* ---- 3. last round ---- */

static int last_round(struct pause_job *job, struct pausing *p,
		      struct cancel *cancel, struct hib_error *error)
{
	struct engine_call call = { cancel, task_progress(job->task) };
	struct fs *fs = job->daemon->fs;
	struct capture_round round;
	int r;

	r = fault_point("pause.last_round.before");
	if (r < 0)
		return hib_fail(error, -r, "fault point");
	r = capture_run_round(p->capture, &call, &round, error);
	if (r == 0)
		r = fs_shard_close(fs, shard_fs(p->shard), error);
	if (r == 0)
		r = fs_shard_check(fs, shard_fs(p->shard), error);
	if (r == 0)
		r = capture_verify(p->capture, cancel, error);
	if (r == 0)
		r = capture_finish(p->capture, &call, &p->manifest, &p->table,
				   error);
	return r;
}

/* ---- 4. commit ---- */

static int fill_header(struct pause_job *job, struct pausing *p)
{
	struct manifest *m = p->manifest;

	m->bucket = strdup(shard_bucket(p->shard));
	m->shard = strdup(shard_name(p->shard));
	if (!m->bucket || !m->shard)
		return -ENOMEM;
	m->seq = p->seq;
	m->parent_seq = p->parent_seq;
	m->epoch = p->epoch;
	snprintf(m->node, sizeof(m->node), "%s", job->daemon->node.name);
	snprintf(m->task, sizeof(m->task), "%s", task_id(job->task));
	m->started_ms = p->started_ms;
	m->committed_ms = clock_realtime_ms();
	snprintf(m->tool_version, sizeof(m->tool_version), "hibfs %s",
		 HIBFS_VERSION);
	return 0;
}

static int commit(struct pause_job *job, struct pausing *p,
		  struct cancel *cancel, struct hib_error *error)
{
	struct store_call call = store_call_of(job, cancel);
	int r;

	if (fill_header(job, p) < 0)
		return hib_fail(error, ENOMEM, "out of memory");
	r = snapshot_commit(job->daemon->store, &p->lineage, p->manifest,
			    p->table, &call, error);
	if (r == -EEXIST)
		return hib_fail(
			error, ESTALE,
			"somebody else committed snapshot %llu of %s in the meantime; nothing was evicted here, pause again",
			(unsigned long long)p->manifest->seq,
			shard_text(p->shard));
	p->seq = p->manifest->seq;
	return r;
}

/* A shard that this node owned and that was removed through the mount. */
static bool is_removed(struct pause_job *job, const struct bucket_shard *entry)
{
	struct shard_record record;
	struct shard *shard;

	if (shards_find(job->daemon->shards, job->bucket, entry->name, true,
			&shard, NULL) < 0 ||
	    !shard_is_recorded(shard) || shard_has_tree(shard))
		return false;
	shard_get_record(shard, &record);
	return record.state == SHARD_LIVE && record.epoch >= entry->epoch;
}

/*
 * What the bucket's index says of the shards that this pause is not about: it
 * stays, since they may be other nodes', but for those that are gone.
 */
static int read_bucket_index(struct pause_job *job,
			     const struct lineage *lineage,
			     const struct store_call *call,
			     struct bucket_index **ret, struct hib_error *error)
{
	struct bucket_index *index = bucket_index_new(job->bucket);
	struct bucket_index *before = NULL;
	int r;

	if (!index)
		return hib_fail(error, ENOMEM, "out of memory");
	r = snapshot_read_bucket(job->daemon->store, lineage, call, &before,
				 error);
	if (r == 0)
		memcpy(index->uuid, before->uuid, sizeof(index->uuid));
	else if (r == -ENOENT)
		r = 0;
	for (size_t i = 0; r == 0 && before && i < before->shard_count; i++)
		if (!is_removed(job, &before->shards[i]))
			r = bucket_index_set(index, &before->shards[i]);
	bucket_index_free(before);
	if (r < 0) {
		bucket_index_free(index);
		return r;
	}
	*ret = index;
	return 0;
}

static int write_bucket_index(struct pause_job *job, struct cancel *cancel,
			      struct hib_error *error)
{
	struct store_call call = store_call_of(job, cancel);
	struct bucket_index *index = NULL;
	struct lineage lineage;
	struct stat status;
	int r;

	r = lineage_init_bucket(&lineage, job->bucket, error);
	if (r == 0)
		r = read_bucket_index(job, &lineage, &call, &index, error);
	if (r < 0)
		return r;
	if (fstatat(fs_source_fd(job->daemon->fs), job->bucket, &status,
		    AT_SYMLINK_NOFOLLOW) == 0) {
		index->mode = status.st_mode & 07777;
		index->uid = status.st_uid;
		index->gid = status.st_gid;
	}
	snprintf(index->node, sizeof(index->node), "%s",
		 job->daemon->node.name);
	index->written_ms = clock_realtime_ms();
	for (size_t i = 0; r == 0 && i < job->count; i++) {
		const struct pausing *p = &job->shards[i];
		struct bucket_shard entry = {
			.name = p->manifest->shard,
			.seq = p->seq,
			.epoch = p->epoch,
			.logical_bytes = p->manifest->logical_bytes,
			.files = p->manifest->file_count,
		};

		r = bucket_index_set(index, &entry);
	}
	if (r == 0)
		r = snapshot_write_bucket(job->daemon->store, &lineage, index,
					  &call, error);
	bucket_index_free(index);
	return r;
}

/* ---- 5. evict ---- */

static void set_committed(void *arg, struct shard_record *record)
{
	const struct pausing *p = arg;

	record->seq = p->seq;
	record->epoch = p->epoch;
	record->logical_bytes = p->manifest->logical_bytes;
	record->files = p->manifest->file_count;
	record->error[0] = 0;
}

static int evict(struct pause_job *job, struct pausing *p,
		 struct cancel *cancel, struct hib_error *error)
{
	uint64_t freed = 0;

	(void)cancel;
	return evict_shard(job->daemon, p->shard, job->params.purge, &freed,
			   error);
}

/* All COMMITTED before the first is evicted: the bucket goes as a whole. */
static int mark_committed(struct pause_job *job, struct hib_error *error)
{
	for (size_t i = 0; i < job->count; i++) {
		struct pausing *p = &job->shards[i];
		int r = fault_point("pause.committed.before");

		if (r == 0)
			r = shard_step(p->shard, SHARD_PAUSE_COMMITTED,
				       set_committed, p, NULL, error);
		if (r < 0)
			return hib_wrap(error, r, "record the commit of %s",
					shard_text(p->shard));
		p->evicting = true;
	}
	return 0;
}

/* ---- all of it ---- */

static void set_task(void *arg, struct shard_record *record)
{
	snprintf(record->task, sizeof(record->task), "%s", (const char *)arg);
	record->error[0] = 0;
}

static int start_all(struct pause_job *job, struct hib_error *error)
{
	char task[UUID_TEXT_BYTES];

	snprintf(task, sizeof(task), "%s", task_id(job->task));
	for (size_t i = 0; i < job->count; i++) {
		struct pausing *p = &job->shards[i];
		int r = lineage_init(&p->lineage, shard_bucket(p->shard),
				     shard_name(p->shard), error);

		if (r == 0)
			r = shard_step(p->shard, SHARD_PAUSE_START, set_task,
				       task, NULL, error);
		if (r < 0)
			return r;
		p->stepped = true;
	}
	return 0;
}

static int freeze_all(struct pause_job *job, struct hib_error *error)
{
	for (size_t i = 0; i < job->count; i++) {
		struct fs_freeze_result result;
		struct pausing *p = &job->shards[i];
		int r = fault_point("pause.freeze.before");

		if (r == 0)
			r = fs_shard_freeze(job->daemon->fs, shard_fs(p->shard),
					    false, &result, error);
		if (r < 0)
			return hib_wrap(error, r, "lock %s",
					shard_text(p->shard));
		p->frozen = true;
	}
	return 0;
}

static void thaw_all(struct pause_job *job)
{
	for (size_t i = 0; i < job->count; i++) {
		struct pausing *p = &job->shards[i];

		if (p->frozen)
			fs_shard_thaw(job->daemon->fs, shard_fs(p->shard));
		p->frozen = false;
	}
}

static void set_failure(void *arg, struct shard_record *record)
{
	snprintf(record->error, sizeof(record->error), "%s", (const char *)arg);
	record->task[0] = 0;
}

/* Back to live, for every shard that has not committed. */
static void roll_back(struct pause_job *job, const char *message)
{
	for (size_t i = 0; i < job->count; i++) {
		struct hib_error error = HIB_ERROR_INIT;
		struct pausing *p = &job->shards[i];

		if (!p->stepped || p->evicting)
			continue;
		if (shard_step(p->shard, SHARD_PAUSE_FAILED, set_failure,
			       (void *)(uintptr_t)message, NULL, &error) < 0)
			log_error(
				job->daemon->log,
				"pause of %s: cannot record the roll back: %s",
				shard_text(p->shard), error.message);
		p->stepped = false;
	}
}

static int step_one(void *arg, size_t index, struct cancel *cancel,
		    struct hib_error *error)
{
	struct pause_job *job = arg;
	struct pausing *p = &job->shards[index];
	int r = job->step(job, p, cancel, error);

	if (r < 0)
		hib_wrap(error, r, "pause %s", shard_text(p->shard));
	return outcome_note(&p->outcome, r, error);
}

static int run_step(struct pause_job *job, const char *phase, pause_step step,
		    struct cancel *cancel, struct hib_error *error)
{
	progress_set_phase(task_progress(job->task), phase);
	job->step = step;
	return parallel_run(job->count, SHARDS_AT_ONCE, step_one, job, cancel,
			    error);
}

static int pause_all(struct pause_job *job, struct hib_error *error)
{
	struct cancel *cancel = task_cancel(job->task);
	int r = start_all(job, error);

	if (r == 0)
		r = run_step(job, "uploading", prepare, cancel, error);
	if (r == 0)
		r = freeze_all(job, error);
	if (r == 0)
		r = run_step(job, "locked, uploading", last_round, cancel,
			     error);
	if (r == 0)
		r = run_step(job, "committing", commit, cancel, error);
	if (r == 0)
		r = write_bucket_index(job, cancel, error);
	if (r == 0 && task_commit(job->task) < 0)
		r = hib_fail(error, ECANCELED, "cancelled");
	if (r == 0)
		r = mark_committed(job, error);
	if (r == 0)
		r = run_step(job, "evicting", evict, NULL, error);
	return r;
}

static int run(struct job *base, struct daemon *daemon, struct task *task,
	       struct hib_error *error)
{
	struct pause_job *job = container_of(base, struct pause_job, job);
	int r;

	job->daemon = daemon;
	job->task = task;
	r = pause_all(job, error);
	if (r < 0)
		roll_back(job, error->message);
	thaw_all(job);
	for (size_t i = 0; i < job->count; i++) {
		struct pausing *p = &job->shards[i];

		outcome_report(&p->outcome, task, p->shard, r,
			       p->lineage.prefix);
	}
	return r;
}

static void free_job(struct job *base)
{
	struct pause_job *job = container_of(base, struct pause_job, job);

	for (size_t i = 0; i < job->count; i++) {
		struct pausing *p = &job->shards[i];

		capture_free(p->capture);
		manifest_free(p->manifest);
		chunk_table_free(p->table);
		shard_end(p->shard);
	}
	free(job->shards);
	free(job->bucket);
	free(job);
}

struct job *pauser_new(const char *bucket, struct shard **shards, size_t count,
		       const struct daemon_pause_params *params,
		       struct hib_error *error)
{
	struct pause_job *job = calloc(1, sizeof(*job));

	if (job) {
		job->bucket = strdup(bucket);
		job->shards = calloc(count + 1, sizeof(*job->shards));
	}
	if (!job || !job->bucket || !job->shards) {
		if (job) {
			free(job->bucket);
			free(job->shards);
		}
		free(job);
		hib_fail(error, ENOMEM, "out of memory");
		return NULL;
	}
	job->job = (struct job){ "Pause", run, free_job };
	job->params = *params;
	job->params.target = NULL;
	job->count = count;
	for (size_t i = 0; i < count; i++)
		job->shards[i].shard = shards[i];
	return &job->job;
}
