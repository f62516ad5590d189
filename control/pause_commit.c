#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "control/pauser_internal.h"

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

void pause_set_committed(void *arg, struct shard_record *record)
{
	const struct pausing *p = arg;

	record->seq = p->seq;
	record->epoch = p->epoch;
	record->logical_bytes = p->manifest->logical_bytes;
	record->files = p->manifest->file_count;
}

int pause_commit(struct pause_job *job, struct pausing *p,
		 struct cancel *cancel, struct hib_error *error)
{
	struct store_call call = pause_store_call(job, cancel);
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
	if (r < 0)
		return r;
	p->seq = p->manifest->seq;
	/* a crash from here on may have to finish this without the store */
	return shard_update(p->shard, pause_set_committed, p, error);
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

int pause_write_bucket(struct pause_job *job, struct cancel *cancel,
		       struct hib_error *error)
{
	struct store_call call = pause_store_call(job, cancel);
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
