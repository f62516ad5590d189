/*
 * bucket.json: which snapshot of each shard makes up a paused bucket. Written
 * last of all in a pause; without it a bucket cannot be resumed (T8). This is
 * its content; transfer/snapshot.h moves it.
 *
 * Thread-safety: one owner at a time.
 */
#ifndef HIBFS_META_BUCKET_INDEX_H
#define HIBFS_META_BUCKET_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/uuid.h"

#define BUCKET_INDEX_FORMAT "hibfs-bucket"
#define BUCKET_INDEX_VERSION 1
#define BUCKET_INDEX_MAX_BYTES (64u << 20)

struct bucket_shard {
	char *name; /* bytes */
	uint64_t seq, epoch; /* of its manifest */
	uint64_t logical_bytes, files;
};

struct bucket_index {
	char uuid[UUID_TEXT_BYTES]; /* of the bucket, made at its first pause */
	char bucket[256]; /* bytes: its name when it was paused */
	char node[256];
	int64_t written_ms; /* wall clock */
	/* of the bucket's own directory, for a node that has none */
	uint32_t mode, uid, gid;
	struct bucket_shard *shards; /* sorted by name */
	size_t shard_count;
};

/* A new empty one with a fresh uuid; NULL: no memory. */
struct bucket_index *bucket_index_new(const char *bucket);
struct bucket_index *bucket_index_free(struct bucket_index *index);

/* Adds or replaces the entry of that shard; copies. -ENOMEM. */
int bucket_index_set(struct bucket_index *index,
		     const struct bucket_shard *shard);
/* Its entry, or NULL. */
const struct bucket_shard *bucket_index_find(const struct bucket_index *index,
					     const char *shard);

int bucket_index_format(const struct bucket_index *index, struct buffer *out,
			struct hib_error *error);
/* -EBADMSG, -EPROTONOSUPPORT for a newer version; `label` names the object. */
int bucket_index_parse(const char *label, const void *data, size_t size,
		       struct bucket_index **ret, struct hib_error *error);

#endif
