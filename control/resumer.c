/*
 * Threads: as in pauser.c: run() is the task's thread, each shard is worked on
 * by one thread at a time.
 */
#include "control/resumer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/file.h"
#include "control/daemon_internal.h"
#include "control/outcome.h"
#include "control/parallel.h"
#include "control/trash.h"
#include "fs/tree.h"
#include "transfer/snapshot.h"

#define SHARDS_AT_ONCE 8
#define EPOCH_TRIES 5
/* Left free on the source beyond what the contents need. */
#define ROOM_TO_SPARE_BYTES (64u << 20)

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

/* ---- 1. prepare ---- */

/*
 * A lineage whose newest epoch has no snapshot of its own is in use by whoever
 * took that epoch: resuming it here would cut that node off from its data.
 */
static int refuse_foreign_owner(struct resume_job *job, struct resuming *s,
				const struct lineage_state *lineage,
				uint64_t committed_epoch,
				const struct store_call *call,
				struct hib_error *error)
{
	struct epoch owner;
	int r;

	if (job->params.take_over || lineage->latest_epoch <= committed_epoch)
		return 0;
	r = snapshot_read_epoch(job->daemon->store, &s->lineage,
				lineage->latest_epoch, call, &owner, error);
	if (r < 0)
		return r;
	if (strcmp(owner.node, job->daemon->node.name) == 0)
		return 0;
	return hib_fail(
		error, EBUSY,
		"%s is in use: node \"%s\" resumed it (epoch %llu) and has not paused it since; pause it there, or, if that node is gone for good, give --take-over to resume its last snapshot",
		shard_text(s->shard), owner.node,
		(unsigned long long)lineage->latest_epoch);
}

/* The bucket's own directory, as it was, on a node that has none. */
static int make_bucket(struct resume_job *job, const struct bucket_index *index,
		       struct hib_error *error)
{
	CLEANUP_CLOSE int fd = -EBADF;
	int source = fs_source_fd(job->daemon->fs);
	int r;

	if (job->daemon->options->shard_depth == 1)
		return 0;
	if (faccessat(source, job->bucket, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	r = dir_make(source, job->bucket, 0755, &fd, error);
	if (r < 0)
		return r;
	if (fchown(fd, index->uid, index->gid) < 0 ||
	    fchmod(fd, index->mode) < 0)
		return hib_fail_errno(error, errno,
				      "give the bucket's directory its owner");
	return 0;
}

static int find_snapshot(struct resume_job *job, struct resuming *s,
			 const struct store_call *call, uint64_t *ret_epoch,
			 struct hib_error *error)
{
	const struct bucket_shard *entry;
	struct bucket_index *index = NULL;
	struct lineage bucket;
	int r = lineage_init_bucket(&bucket, job->bucket, error);

	if (r == 0)
		r = snapshot_read_bucket(job->daemon->store, &bucket, call,
				      &index, error);
	if (r < 0)
		return r;
	entry = bucket_index_find(index, shard_name(s->shard));
	if (entry)
		r = make_bucket(job, index, error);
	if (entry) {
		s->seq = entry->seq;
		*ret_epoch = entry->epoch;
	} else {
		r = hib_fail(error, ENOENT,
			     "bucket.json in %s%s does not name the shard %s: it was never paused completely",
			     store_url(job->daemon->store),
			     bucket.bucket_prefix, shard_text(s->shard));
	}
	bucket_index_free(index);
	return r;
}

static int take_next_epoch(struct resume_job *job, struct resuming *s,
			   const struct store_call *call,
			   struct hib_error *error)
{
	struct store *store = job->daemon->store;

	for (int i = 0; i < EPOCH_TRIES; i++) {
		struct lineage_state lineage;
		uint64_t committed_epoch = 0;
		bool unfenced;
		int r = snapshot_lineage_state(store, &s->lineage, call,
					       &lineage, error);

		if (r == 0)
			r = find_snapshot(job, s, call, &committed_epoch,
					  error);
		if (r == 0)
			r = refuse_foreign_owner(job, s, &lineage,
						 committed_epoch, call, error);
		if (r < 0)
			return r;
		s->epoch = lineage.latest_epoch + 1;
		r = snapshot_take_epoch(store, &s->lineage, s->epoch,
					job->daemon->node.name,
					task_id(job->task), call, &unfenced,
					error);
		if (r == 0) {
			s->taken = true;
			/* what was committed up to the epoch is final now */
			return find_snapshot(job, s, call, &committed_epoch,
					     error);
		}
		if (r != -EEXIST)
			return r;
	}
	return hib_fail(error, EBUSY,
			"other nodes keep taking over %s at the same time",
			shard_text(s->shard));
}

static int list_files(struct resuming *s)
{
	const struct manifest *m = s->manifest;
	CLEANUP_FREE bool *seen = NULL;
	uint64_t groups = 0;

	for (size_t i = 0; i < m->entry_count; i++)
		if (m->entries[i].hard_link_group > groups)
			groups = m->entries[i].hard_link_group;
	seen = calloc(groups + 1, sizeof(*seen));
	s->files = calloc(m->entry_count + 1, sizeof(*s->files));
	s->file_entries = calloc(m->entry_count + 1, sizeof(*s->file_entries));
	if (!seen || !s->files || !s->file_entries)
		return -ENOMEM;
	for (size_t i = 0; i < m->entry_count; i++) {
		const struct manifest_entry *entry = &m->entries[i];

		if (entry->type != ENTRY_FILE)
			continue;
		if (entry->hard_link_group) {
			if (seen[entry->hard_link_group])
				continue;
			seen[entry->hard_link_group] = true;
		}
		s->file_entries[s->file_count] = i;
		s->files[s->file_count++] = (struct target_file){
			.size = entry->size,
			.chunk_bytes = entry->chunk_bytes,
			.first_chunk = entry->first_chunk,
			.chunk_count = entry->chunk_count,
			.sparse = entry->sparse,
			.extents = entry->extents,
			.extent_count = entry->extent_count,
		};
	}
	return 0;
}

/*
 * Written before anything is published: a crash after the rename finds the
 * shard live, and it has to know what it is the continuation of.
 */
static void set_taken(void *arg, struct shard_record *record)
{
	const struct resuming *s = arg;

	record->seq = s->seq;
	record->epoch = s->epoch;
	record->logical_bytes = s->manifest->logical_bytes;
	record->files = s->manifest->file_count;
}

static int prepare(struct resume_job *job, struct resuming *s,
		   struct cancel *cancel, struct hib_error *error)
{
	struct store_call call = {
		.cancel = cancel,
		.progress = task_progress(job->task),
	};
	int r = take_next_epoch(job, s, &call, error);

	if (r == 0)
		r = fault_point("resume.epoch.after");
	if (r == 0)
		r = snapshot_read(job->daemon->store, &s->lineage, s->seq,
				  &call, &s->manifest, &s->table, error);
	if (r < 0)
		return r;
	if (list_files(s) < 0)
		return hib_fail(error, ENOMEM, "out of memory");
	r = shard_update(s->shard, set_taken, s, error);
	if (r < 0)
		return r;
	progress_add_bytes_total(call.progress, s->manifest->logical_bytes);
	progress_add_files_total(call.progress, s->manifest->file_count);
	return 0;
}

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
		r = shard_step(s->shard, SHARD_RESUME_PUBLISHED,
			       set_published, NULL, NULL, error);
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
	fs_shard_woken(daemon->fs, shard_fs(s->shard),
		       s->published ? 0 : -EIO);
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
		r = make_bucket(job, index, error);
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
			r = shard_step(s->shard, SHARD_RESUME_START,
				       set_task, task, NULL, error);
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
		r = run_step(job, "reading manifests", prepare, cancel, error);
	if (r == 0)
		r = check_room(job, error);
	if (r == 0)
		r = run_step(job, "downloading", stage, cancel, error);
	if (r == 0)
		r = sync_staging(job, error);
	if (r == 0 && task_commit(job->task) < 0)
		r = hib_fail(error, ECANCELED, "cancelled");
	if (r == 0)
		r = run_step(job, "publishing", publish, NULL, error);
	return r;
}

static void set_failure(void *arg, struct shard_record *record)
{
	snprintf(record->error, sizeof(record->error), "%s",
		 (const char *)arg);
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
			log_warning(job->daemon->log,
				    "resume of %s failed, and its epoch %llu stays taken in the store; another node will need --take-over: %s",
				    shard_text(s->shard),
				    (unsigned long long)s->epoch,
				    error.message);
		if (s->stepped && !s->published && !s->absent &&
		    shard_step(s->shard, SHARD_RESUME_FAILED, set_failure,
			       (void *)(uintptr_t)message, NULL, &error) < 0)
			log_error(job->daemon->log,
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
		log_warning(job->daemon->log,
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
