/* Threads: run() is the task's; the shards are verified in parallel_run()'s. */
#include "control/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/encode.h"
#include "control/daemon_internal.h"
#include "control/outcome.h"
#include "control/parallel.h"
#include "transfer/snapshot.h"

#define SHARDS_AT_ONCE 4

struct verify_job {
	struct job job;
	char *bucket, *shard; /* shard NULL: all */
	bool read_data;
	/* while it runs */
	struct daemon *daemon;
	struct task *task;
	struct bucket_index *index;
};

/* The end of the furthest chunk in each pack: so long it has to be at least. */
static uint64_t *pack_ends(const struct chunk_table *table)
{
	uint64_t *ends = calloc(table->pack_count + 1, sizeof(*ends));

	for (uint64_t i = 0; ends && i < table->record_count; i++) {
		const struct chunk_record *record = &table->records[i];
		uint64_t end = (uint64_t)record->offset + record->stored_bytes;

		if (!(record->flags & CHUNK_ZERO) && ends[record->pack] < end)
			ends[record->pack] = end;
	}
	return ends;
}

static int check_packs(struct verify_job *job, const struct lineage *lineage,
		       const struct chunk_table *table,
		       const struct store_call *call, struct hib_error *error)
{
	CLEANUP_FREE uint64_t *ends = pack_ends(table);
	char key[STORE_KEY_BYTES];

	if (!ends)
		return hib_fail(error, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < table->pack_count; i++) {
		struct store_object object;
		int r;

		lineage_pack_key(lineage, table->packs[i], key);
		r = store_head(job->daemon->store, key, &object, call, error);
		if (r < 0)
			return r;
		if (object.size < ends[i])
			return hib_fail(
				error, EBADMSG,
				"%s has %" PRIu64
				" bytes, but chunks of this snapshot lie up to byte %" PRIu64,
				key, object.size, ends[i]);
	}
	return 0;
}

/* The contents go nowhere: fetching them checks them. */
static int open_null(void *arg, size_t index, const char **ret_path,
		     struct hib_error *error)
{
	struct manifest_entry **entries = arg;
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	*ret_path = entries[index]->path;
	return fd < 0 ? hib_fail_errno(error, errno, "open /dev/null") : fd;
}

static int check_data(struct verify_job *job, const struct lineage *lineage,
		      const struct manifest *manifest,
		      const struct chunk_table *table,
		      const struct engine_call *call, struct hib_error *error)
{
	CLEANUP_FREE struct manifest_entry **entries = NULL;
	CLEANUP_FREE struct target_file *files = NULL;
	size_t count = 0;

	entries = calloc(manifest->entry_count + 1, sizeof(*entries));
	files = calloc(manifest->entry_count + 1, sizeof(*files));
	if (!entries || !files)
		return hib_fail(error, ENOMEM, "out of memory");
	for (size_t i = 0; i < manifest->entry_count; i++) {
		struct manifest_entry *entry = &manifest->entries[i];

		if (entry->type != ENTRY_FILE || !entry->chunk_count)
			continue;
		entries[count] = entry;
		files[count++] = (struct target_file){
			.size = entry->size,
			.chunk_bytes = entry->chunk_bytes,
			.first_chunk = entry->first_chunk,
			.chunk_count = entry->chunk_count,
			.sparse = entry->sparse,
			.extents = entry->extents,
			.extent_count = entry->extent_count,
		};
	}
	progress_add_bytes_total(call->progress, manifest->logical_bytes);
	progress_add_files_total(call->progress, manifest->file_count);
	return engine_fetch(job->daemon->engine, lineage, table, files, count,
			    open_null, entries, false, call, error);
}

static int check_shard(struct verify_job *job, const struct bucket_shard *shard,
		       struct lineage *lineage, struct cancel *cancel,
		       struct hib_error *error)
{
	struct progress *progress = task_progress(job->task);
	struct store_call store_call = { .cancel = cancel,
					 .progress = progress };
	struct engine_call call = { cancel, progress };
	struct chunk_table *table = NULL;
	struct manifest *manifest = NULL;
	int r;

	r = lineage_init(lineage, job->bucket, shard->name, error);
	if (r == 0)
		r = snapshot_read(job->daemon->store, lineage, shard->seq,
				  &store_call, &manifest, &table, error);
	if (r == 0)
		r = check_packs(job, lineage, table, &store_call, error);
	if (r == 0 && job->read_data)
		r = check_data(job, lineage, manifest, table, &call, error);
	manifest_free(manifest);
	chunk_table_free(table);
	return r;
}

static int check_one(void *arg, size_t index, struct cancel *cancel,
		     struct hib_error *error)
{
	struct verify_job *job = arg;
	const struct bucket_shard *shard = &job->index->shards[index];
	char text[TARGET_TEXT_BYTES];
	struct lineage lineage = { 0 };
	int r;

	if (job->shard && strcmp(job->shard, shard->name) != 0)
		return 0;
	r = check_shard(job, shard, &lineage, cancel, error);
	target_text(job->bucket, shard->name, job->daemon->options->shard_depth,
		    text);
	task_add_result(job->task, shard->name,
			r == 0		  ? TASK_COMPLETED
			: r == -ECANCELED ? TASK_STOPPED
					  : TASK_FAILED,
			r < 0 ? error->message : NULL, lineage.prefix);
	return r < 0 ? hib_wrap(error, r, "verify %s", text) : 0;
}

static int run(struct job *base, struct daemon *daemon, struct task *task,
	       struct hib_error *error)
{
	struct verify_job *job = container_of(base, struct verify_job, job);
	struct store_call call = { .cancel = task_cancel(task),
				   .progress = task_progress(task) };
	struct lineage bucket;
	int r;

	job->daemon = daemon;
	job->task = task;
	progress_set_phase(task_progress(task), "verifying");
	r = lineage_init_bucket(&bucket, job->bucket, error);
	if (r == 0)
		r = snapshot_read_bucket(daemon->store, &bucket, &call,
					 &job->index, error);
	if (r == 0 && job->shard && !bucket_index_find(job->index, job->shard))
		r = hib_fail(
			error, ENOENT,
			"bucket.json in %s%s does not name this shard: it was never paused completely",
			store_url(daemon->store), bucket.bucket_prefix);
	if (r == 0)
		r = parallel_run(job->index->shard_count, SHARDS_AT_ONCE,
				 check_one, job, task_cancel(task), error);
	return r;
}

static void free_job(struct job *base)
{
	struct verify_job *job = container_of(base, struct verify_job, job);

	bucket_index_free(job->index);
	free(job->bucket);
	free(job->shard);
	free(job);
}

struct job *verify_new(const char *bucket, const char *shard, bool read_data,
		       struct hib_error *error)
{
	struct verify_job *job = calloc(1, sizeof(*job));

	if (!job) {
		hib_fail(error, ENOMEM, "out of memory");
		return NULL;
	}
	job->job = (struct job){ "Verify", run, free_job };
	job->read_data = read_data;
	job->bucket = strdup(bucket);
	job->shard = shard && *shard ? strdup(shard) : NULL;
	if (!job->bucket || (shard && *shard && !job->shard)) {
		free_job(&job->job);
		hib_fail(error, ENOMEM, "out of memory");
		return NULL;
	}
	return &job->job;
}
