/*
 * The small objects around a lineage's snapshots: manifests, chunk tables,
 * epochs, HEAD and bucket.json; written, read and checked here. control/ says
 * when.
 *
 * Fencing (P14), with nothing but create-if-absent and consistent reads:
 * a new owner creates epochs/<e+1> and then lists the manifests; an owner
 * that commits creates manifests/<n+1> and then looks whether epochs/<e+1>
 * exists. Whichever came first, at least one of the two sees the other: the
 * stale owner fails its commit and keeps its live data. A manifest of a fenced
 * owner may stay behind; bucket.json never names it.
 *
 * All functions are synchronous, name the object in messages, and may be
 * called from any thread.
 */
#ifndef HIBFS_TRANSFER_SNAPSHOT_H
#define HIBFS_TRANSFER_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "meta/manifest.h"
#include "transfer/chunk_table.h"
#include "transfer/lineage.h"
#include "transfer/store.h"

/* What the store holds of a lineage. */
struct lineage_state {
	uint64_t latest_epoch; /* 0: none was ever created */
	uint64_t latest_seq; /* 0: no manifest */
};
int snapshot_lineage_state(struct store *store, const struct lineage *lineage,
			   const struct store_call *call,
			   struct lineage_state *ret, struct hib_error *error);

/*
 * Creates epochs/<epoch>, owned by `node` for `task`. -EEXIST when somebody
 * else has it: take a higher one. On a store without conditional PUT it looks
 * first and says so through *ret_unfenced.
 */
int snapshot_take_epoch(struct store *store, const struct lineage *lineage,
			uint64_t epoch, const char *node, const char *task,
			const struct store_call *call, bool *ret_unfenced,
			struct hib_error *error);

/* The node that created epochs/<epoch>. */
int snapshot_read_epoch(struct store *store, const struct lineage *lineage,
			uint64_t epoch, const struct store_call *call,
			char ret_node[256], struct hib_error *error);

/*
 * Gives an epoch back that was taken for a resume which then failed: nothing
 * was published under it. Needs a few seconds at most, even when the store
 * does not answer.
 */
int snapshot_drop_epoch(struct store *store, const struct lineage *lineage,
			uint64_t epoch, struct hib_error *error);

/* -ESTALE with a message naming the new owner when an epoch above exists. */
int snapshot_check_epoch(struct store *store, const struct lineage *lineage,
			 uint64_t epoch, const struct store_call *call,
			 struct hib_error *error);

/*
 * Commits a snapshot: the chunk table, then the manifest, each created only if
 * absent, then the check of the epoch, then HEAD (its failure is no failure).
 * Fills in manifest->chunk_table_sha256, and raises manifest->seq past numbers
 * that commits which failed have used. -EEXIST when somebody else has committed
 * that number, -ESTALE when the owner is fenced.
 */
int snapshot_commit(struct store *store, const struct lineage *lineage,
		    struct manifest *manifest, const struct chunk_table *table,
		    const struct store_call *call, struct hib_error *error);

/*
 * Reads manifest and chunk table of `seq` and checks them against each other
 * (sha256 of the table, chunk ranges inside it) and against `lineage` only in
 * what must hold when a store is moved or copied as a whole.
 */
int snapshot_read(struct store *store, const struct lineage *lineage,
		  uint64_t seq, const struct store_call *call,
		  struct manifest **ret_manifest, struct chunk_table **ret_table,
		  struct hib_error *error);

/* bucket.json: which snapshot of each shard makes up the paused bucket. */
#define BUCKET_INDEX_FORMAT "hibfs-bucket"
#define BUCKET_INDEX_VERSION 1

struct bucket_shard {
	char *name; /* bytes */
	uint64_t seq, epoch;
	uint64_t logical_bytes, files;
};

struct bucket_index {
	char uuid[UUID_TEXT_BYTES]; /* of the bucket, made at its first pause */
	char *bucket; /* bytes: its name when it was paused */
	char node[256];
	int64_t written_ms;
	struct bucket_shard *shards; /* sorted by name */
	size_t shard_count;
};

struct bucket_index *bucket_index_free(struct bucket_index *index);
/* A new empty one with a fresh uuid. */
struct bucket_index *bucket_index_new(const char *bucket);
/* Adds or replaces the entry of that shard; copies. */
int bucket_index_set(struct bucket_index *index, const struct bucket_shard *shard,
		     struct hib_error *error);
const struct bucket_shard *bucket_index_find(const struct bucket_index *index,
					     const char *shard);

/* -ENOENT: "no bucket.json: the bucket was never paused completely". */
int bucket_index_read(struct store *store, const struct lineage *lineage,
		      const struct store_call *call, struct bucket_index **ret,
		      struct hib_error *error);
int bucket_index_write(struct store *store, const struct lineage *lineage,
		       const struct bucket_index *index,
		       const struct store_call *call, struct hib_error *error);

#endif
