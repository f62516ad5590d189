#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/file.h"
#include "control/resumer_internal.h"

#define EPOCH_TRIES 5

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

int resume_make_bucket(struct resume_job *job, const struct bucket_index *index,
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
		r = resume_make_bucket(job, index, error);
	if (entry) {
		s->seq = entry->seq;
		*ret_epoch = entry->epoch;
	} else {
		r = hib_fail(
			error, ENOENT,
			"bucket.json in %s%s does not name the shard %s: it was never paused completely",
			store_url(job->daemon->store), bucket.bucket_prefix,
			shard_text(s->shard));
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

int resume_prepare(struct resume_job *job, struct resuming *s,
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
