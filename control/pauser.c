/*
 * Threads: run() is the task's thread; the steps over all shards run in the
 * threads of parallel_run(), each shard by one of them at a time, so a
 * struct pausing needs no lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "control/evict.h"
#include "control/parallel.h"
#include "control/pauser_internal.h"
#include "fs/tree.h"

/* A round is repeated while it found more than this, and less than before. */
#define ROUND_LARGE_BYTES (16u << 20)
#define ROUNDS_MAX 5
#define SHARDS_AT_ONCE 8

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

/* What the last resume noted only saves work: without it all is read. */
static int preload(struct pause_job *job, struct pausing *p,
		   struct hib_error *error)
{
	CLEANUP(identities_done) struct identities identities = { 0 };
	struct hib_error ignored = HIB_ERROR_INIT;

	if (identities_load(job->daemon->hibfs_fd, p->shard, &identities,
			    &ignored) < 0)
		return 0;
	return capture_preload(p->capture, &identities, error);
}

static int prepare(struct pause_job *job, struct pausing *p,
		   struct cancel *cancel, struct hib_error *error)
{
	struct store_call store_call = pause_store_call(job, cancel);
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
	r = capture_new(job->daemon->engine, &p->lineage,
			(uint32_t)job->daemon->options->chunk_bytes, dirfd,
			parent, parent_table, &p->capture, error);
	if (r == 0)
		r = preload(job, p, error);
	for (int i = 0; r == 0 && i < ROUNDS_MAX; i++) {
		r = fault_point("pause.round.before");
		if (r < 0)
			return hib_fail(error, -r, "fault point");
		r = capture_run_round(p->capture, &call, &round, error);
		if (r == 0)
			r = capture_flush(p->capture, &call, error);
		if (r == 0 && i == 0)
			progress_add_bytes_skipped(call.progress,
						   round.kept_bytes);
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

/* ---- 5. evict ---- */

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
				       pause_set_committed, p, NULL, error);
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

/* Everything goes on while it waits; 1 when there was something to wait for. */
static int wait_for_handles(struct pause_job *job, struct cancel *cancel,
			    struct hib_error *error)
{
	int waited = 0;

	thaw_all(job);
	log_info(job->daemon->log, "pause waits: %s", error->message);
	progress_set_phase(task_progress(job->task), "waiting for open files");
	for (size_t i = 0; i < job->count; i++) {
		struct pausing *p = &job->shards[i];
		int r = fs_shard_wait_closed(job->daemon->fs,
					     shard_fs(p->shard), cancel);

		if (r < 0)
			return hib_fail(error, -r, "cancelled");
		waited |= r;
		p->outcome = (struct outcome){ 0 };
	}
	return waited;
}

static int lock_and_finish(struct pause_job *job, struct cancel *cancel,
			   struct hib_error *error)
{
	for (;;) {
		int r = freeze_all(job, error), waited;

		if (r == 0)
			r = run_step(job, "locked, uploading", last_round,
				     cancel, error);
		if (r != -EBUSY || !job->params.wait_handles)
			return r;
		waited = wait_for_handles(job, cancel, error);
		if (waited < 0)
			return waited;
		/* nobody has a handle: mapped, and that may last */
		if (!waited)
			return r;
	}
}

static int pause_all(struct pause_job *job, struct hib_error *error)
{
	struct cancel *cancel = task_cancel(job->task);
	int r = start_all(job, error);

	if (r == 0)
		r = run_step(job, "uploading", prepare, cancel, error);
	if (r == 0)
		r = lock_and_finish(job, cancel, error);
	if (r == 0)
		r = run_step(job, "committing", pause_commit, cancel, error);
	if (r == 0)
		r = pause_write_bucket(job, cancel, error);
	/*
	 * The store has it: a cancel that came meanwhile is too late. To roll
	 * back now would leave a live shard that the store calls paused.
	 */
	if (r == 0)
		task_commit(job->task);
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
