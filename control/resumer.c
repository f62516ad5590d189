/*
 * Threads: as in pauser.c: run() is the task's thread, each shard is worked on
 * by one thread at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/file.h"
#include "control/identities.h"
#include "control/parallel.h"
#include "control/resumer_internal.h"
#include "control/trash.h"
#include "fs/tree.h"

#define SHARDS_AT_ONCE 8
/* Left free on the source beyond what the contents need. */
#define ROOM_TO_SPARE_BYTES (64u << 20)

/* Bytes that the files' data will take: what is no hole. */
static uint64_t data_bytes(const struct resuming *s)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < s->file_count; i++) {
		const struct target_file *file = &s->files[i];

		if (!file->sparse)
			bytes += file->size;
		for (size_t e = 0; file->sparse && e < file->extent_count; e++)
			bytes += file->extents[e].length;
	}
	return bytes;
}

static int check_room(struct resume_job *job, struct hib_error *error)
{
	uint64_t needed = 0, available;
	struct statvfs room;

	for (size_t i = 0; i < job->count; i++)
		needed += data_bytes(&job->shards[i]);
	if (fstatvfs(fs_source_fd(job->daemon->fs), &room) < 0)
		return hib_fail_errno(error, errno, "statvfs of the source");
	available = (uint64_t)room.f_bavail * room.f_frsize;
	if (needed && needed + ROOM_TO_SPARE_BYTES > available)
		return hib_fail(
			error, ENOSPC,
			"not enough room on the source: %llu MiB are needed (with %u MiB to spare) and %llu MiB are free; nothing was begun",
			(unsigned long long)(needed >> 20),
			ROOM_TO_SPARE_BYTES >> 20,
			(unsigned long long)(available >> 20));
	return 0;
}

/* ---- 2. stage ---- */

/* Runs in the engine's threads. */
static int open_target(void *arg, size_t index, const char **ret_path,
		       struct hib_error *error)
{
	struct resuming *s = arg;
	const char *path = s->manifest->entries[s->file_entries[index]].path;

	*ret_path = path;
	return tree_open(s->staging_fd, path, O_WRONLY, error);
}

static int stage(struct resume_job *job, struct resuming *s,
		 struct cancel *cancel, struct hib_error *error)
{
	struct engine_call call = { cancel, task_progress(job->task) };
	int r;

	snprintf(s->staging_name, sizeof(s->staging_name), "%zu",
		 (size_t)(s - job->shards));
	r = dir_make(job->task_fd, s->staging_name, 0700, &s->staging_fd,
		     error);
	if (r == 0)
		r = fault_point("resume.build.before");
	if (r == 0)
		r = tree_build(s->staging_fd, s->manifest, cancel, error);
	if (r == 0)
		r = engine_fetch(job->daemon->engine, &s->lineage, s->table,
				 s->files, s->file_count, open_target, s, false,
				 &call, error);
	if (r == 0)
		r = tree_seal(s->staging_fd, s->manifest, cancel, error);
	return r;
}

/* Everything staged is on the disk before the first shard is published. */
static int sync_staging(struct resume_job *job, struct hib_error *error)
{
	int r = fault_point("resume.sync.before");

	if (r < 0)
		return hib_fail(error, -r, "fault point resume.sync.before");
	if (job->count && syncfs(job->task_fd) < 0)
		return hib_fail_errno(error, errno,
				      "write the staged files to the disk");
	return 0;
}

/*
 * Notes what the files are now, before anybody can change them. It saves the
 * next pause from reading them; without it everything is read.
 */
static int note_identities(struct resume_job *job, struct resuming *s,
			   struct cancel *cancel, struct hib_error *error)
{
	struct hib_error note_error = HIB_ERROR_INIT;
	struct identities identities = { 0 };
	int r = identities_note(s->staging_fd, s->manifest, &identities,
				&note_error);

	(void)cancel;
	(void)error;
	if (r == 0)
		r = identities_save(job->daemon->hibfs_fd, s->shard,
				    &identities, &note_error);
	if (r < 0)
		log_warning(
			job->daemon->log,
			"resume of %s: the next pause will read everything: %s",
			shard_text(s->shard), note_error.message);
	identities_done(&identities);
	return 0;
}

/* ---- 3. publish ---- */

static void set_published(void *arg, struct shard_record *record)
{
	(void)arg;
	record->stub = false;
	record->task[0] = 0;
	record->error[0] = 0;
}

static int rename_to_live(struct resume_job *job, struct resuming *s,
			  struct hib_error *error)
{
	CLEANUP_CLOSE int parent = -EBADF;
	int source = fs_source_fd(job->daemon->fs);
	char live[SHARD_PATH_BYTES];
	int r;

	shard_live_path(s->shard, live);
	if (strrchr(live, '/')) {
		*strrchr(live, '/') = 0;
		r = dir_open(source, live, &parent, error);
	} else {
		r = dir_open(source, ".", &parent, error);
	}
	if (r == 0)
		r = fault_point("resume.publish.before");
	if (r < 0)
		return r;
	if (renameat2(job->task_fd, s->staging_name, parent,
		      shard_name(s->shard), RENAME_NOREPLACE) < 0)
		return hib_fail_errno(error, errno, "publish %s",
				      shard_text(s->shard));
	s->published = true;
	r = dir_sync(parent, error);
	return r < 0 ? r : dir_sync(job->task_fd, error);
}

static int publish(struct resume_job *job, struct resuming *s,
		   struct cancel *cancel, struct hib_error *error)
{
	int r = rename_to_live(job, s, error);

	(void)cancel;
	if (r == 0)
		r = fault_point("resume.publish.after");
	if (r == 0)
		r = shard_step(s->shard, SHARD_RESUME_PUBLISHED, set_published,
			       NULL, NULL, error);
	if (r == 0)
		r = fs_shard_set_place(job->daemon->fs, shard_fs(s->shard),
				       FS_PLACE_LIVE, error);
	if (r == 0)
		r = trash_stub(job->daemon, s->shard, error);
	return r;
}

/* Who waited in the mount goes on, or is told that it failed. */
static void answer_waiters(struct resume_job *job, struct resuming *s)
{
	struct daemon *daemon = job->daemon;

	if (!s->published && daemon->options->on_access == ON_ACCESS_BLOCK)
		return;
	shard_clear_want(s->shard);
	fs_shard_woken(daemon->fs, shard_fs(s->shard), s->published ? 0 : -EIO);
}

/* ---- all of it ---- */

static int step_one(void *arg, size_t index, struct cancel *cancel,
		    struct hib_error *error)
{
	struct resume_job *job = arg;
	struct resuming *s = &job->shards[index];
	int r = job->step(job, s, cancel, error);

	if (r < 0)
		hib_wrap(error, r, "resume %s", shard_text(s->shard));
	return outcome_note(&s->outcome, r, error);
}

static int run_step(struct resume_job *job, const char *phase, resume_step step,
		    struct cancel *cancel, struct hib_error *error)
{
	progress_set_phase(task_progress(job->task), phase);
	job->step = step;
	return parallel_run(job->count, SHARDS_AT_ONCE, step_one, job, cancel,
			    error);
}

static void set_task(void *arg, struct shard_record *record)
{
	snprintf(record->task, sizeof(record->task), "%s", (const char *)arg);
}

static void add_shard(struct resume_job *job, struct shard *shard)
{
	struct resuming *s = &job->shards[job->count++];

	s->shard = shard;
	s->staging_fd = -EBADF;
	s->absent = !shard_is_recorded(shard) && !shard_has_tree(shard);
	if (s->absent)
		shard_assume_hibernated(shard);
}

/* The shards that bucket.json names and that are not live here. */
static int begin_bucket(struct resume_job *job, struct hib_error *error)
{
	struct store_call call = {
		.cancel = task_cancel(job->task),
		.progress = task_progress(job->task),
	};
	struct bucket_index *index = NULL;
	struct lineage bucket;
	int r = lineage_init_bucket(&bucket, job->bucket, error);

	if (r == 0)
		r = snapshot_read_bucket(job->daemon->store, &bucket, &call,
					 &index, error);
	if (r < 0)
		return r;
	job->shards = calloc(index->shard_count + 1, sizeof(*job->shards));
	if (!job->shards)
		r = hib_fail(error, ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < index->shard_count; i++) {
		struct shard *shard;

		r = shards_find(job->daemon->shards, job->bucket,
				index->shards[i].name, true, &shard, error);
		if (r < 0 || shard_has_tree(shard))
			continue;
		r = shard_begin(shard, OPERATION_RESUME, task_id(job->task),
				error);
		if (r == 0)
			add_shard(job, shard);
	}
	if (r == 0)
		r = resume_make_bucket(job, index, error);
	bucket_index_free(index);
	return r;
}

static int start_all(struct resume_job *job, struct hib_error *error)
{
	char path[64], task[UUID_TEXT_BYTES];
	int r = 0;

	snprintf(task, sizeof(task), "%s", task_id(job->task));
	for (size_t i = 0; i < job->count && r == 0; i++) {
		struct resuming *s = &job->shards[i];

		r = lineage_init(&s->lineage, shard_bucket(s->shard),
				 shard_name(s->shard), error);
		if (r == 0)
			r = shard_step(s->shard, SHARD_RESUME_START, set_task,
				       task, NULL, error);
		s->stepped = r == 0;
	}
	if (r == 0) {
		snprintf(path, sizeof(path), "staging/%s", task);
		r = dir_make(job->daemon->hibfs_fd, path, 0700, &job->task_fd,
			     error);
	}
	return r;
}

static int resume_all(struct resume_job *job, struct hib_error *error)
{
	struct cancel *cancel = task_cancel(job->task);
	int r = 0;

	progress_set_phase(task_progress(job->task), "reading manifests");
	if (job->whole_bucket)
		r = begin_bucket(job, error);
	if (r == 0)
		r = start_all(job, error);
	if (r == 0)
		r = run_step(job, "reading manifests", resume_prepare, cancel,
			     error);
	if (r == 0)
		r = check_room(job, error);
	if (r == 0)
		r = run_step(job, "downloading", stage, cancel, error);
	if (r == 0)
		r = sync_staging(job, error);
	if (r == 0)
		r = run_step(job, "publishing", note_identities, cancel, error);
	if (r == 0 && task_commit(job->task) < 0)
		r = hib_fail(error, ECANCELED, "cancelled");
	if (r == 0)
		r = run_step(job, "publishing", publish, NULL, error);
	return r;
}

static void set_failure(void *arg, struct shard_record *record)
{
	snprintf(record->error, sizeof(record->error), "%s", (const char *)arg);
	record->task[0] = 0;
}

/* Back to hibernated, for every shard that is not published. */
static void roll_back(struct resume_job *job, const char *message)
{
	for (size_t i = 0; i < job->count; i++) {
		struct hib_error error = HIB_ERROR_INIT;
		struct resuming *s = &job->shards[i];

		if (s->taken && !s->published &&
		    snapshot_drop_epoch(job->daemon->store, &s->lineage,
					s->epoch, &error) < 0)
			log_warning(
				job->daemon->log,
				"resume of %s failed, and its epoch %llu stays taken in the store; another node will need --take-over: %s",
				shard_text(s->shard),
				(unsigned long long)s->epoch, error.message);
		if (s->stepped && !s->published && !s->absent &&
		    shard_step(s->shard, SHARD_RESUME_FAILED, set_failure,
			       (void *)(uintptr_t)message, NULL, &error) < 0)
			log_error(
				job->daemon->log,
				"resume of %s: cannot record the roll back: %s",
				shard_text(s->shard), error.message);
	}
}

static void remove_staging(struct resume_job *job)
{
	struct hib_error error = HIB_ERROR_INIT;
	CLEANUP_CLOSE int staging = -EBADF;

	if (job->task_fd < 0)
		return;
	job->task_fd = close_fd(job->task_fd);
	if (dir_open(job->daemon->hibfs_fd, "staging", &staging, &error) < 0 ||
	    tree_remove(staging, task_id(job->task), &error) < 0)
		log_warning(
			job->daemon->log,
			"cannot remove the staging of task %s now, the next start will: %s",
			task_id(job->task), error.message);
}

static int run(struct job *base, struct daemon *daemon, struct task *task,
	       struct hib_error *error)
{
	struct resume_job *job = container_of(base, struct resume_job, job);
	int r;

	job->daemon = daemon;
	job->task = task;
	r = resume_all(job, error);
	if (r < 0)
		roll_back(job, error->message);
	remove_staging(job);
	for (size_t i = 0; i < job->count; i++) {
		struct resuming *s = &job->shards[i];

		s->staging_fd = close_fd(s->staging_fd);
		outcome_report(&s->outcome, task, s->shard, r,
			       s->lineage.prefix);
	}
	return r;
}

static void free_job(struct job *base)
{
	struct resume_job *job = container_of(base, struct resume_job, job);

	for (size_t i = 0; i < job->count; i++) {
		struct resuming *s = &job->shards[i];

		close_fd(s->staging_fd);
		manifest_free(s->manifest);
		chunk_table_free(s->table);
		free(s->files);
		free(s->file_entries);
		if (s->absent && !s->published)
			shard_forget(s->shard, NULL);
		if (job->daemon)
			answer_waiters(job, s);
		shard_end(s->shard);
	}
	close_fd(job->task_fd);
	free(job->shards);
	free(job->bucket);
	free(job);
}

struct job *resumer_new(const char *bucket, struct shard *shard,
			const struct daemon_resume_params *params,
			struct hib_error *error)
{
	struct resume_job *job = calloc(1, sizeof(*job));

	if (job) {
		job->bucket = strdup(bucket);
		job->shards = shard ? calloc(1, sizeof(*job->shards)) : NULL;
	}
	if (!job || !job->bucket || (shard && !job->shards)) {
		if (job)
			free(job->bucket);
		free(job);
		hib_fail(error, ENOMEM, "out of memory");
		return NULL;
	}
	job->job = (struct job){ "Resume", run, free_job };
	job->params = *params;
	job->params.target = NULL;
	job->whole_bucket = shard == NULL;
	job->task_fd = -EBADF;
	if (shard)
		add_shard(job, shard);
	return &job->job;
}
