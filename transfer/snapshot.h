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
#include "meta/bucket_index.h"
#include "meta/epoch.h"
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

/* Who created epochs/<epoch>. */
int snapshot_read_epoch(struct store *store, const struct lineage *lineage,
			uint64_t epoch, const struct store_call *call,
			struct epoch *ret, struct hib_error *error);

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
		  struct manifest **ret_manifest,
		  struct chunk_table **ret_table, struct hib_error *error);

/*
 * bucket.json of the bucket. -ENOENT when there is none: the bucket was never
 * paused completely.
 */
int snapshot_read_bucket(struct store *store, const struct lineage *lineage,
			 const struct store_call *call,
			 struct bucket_index **ret, struct hib_error *error);
int snapshot_write_bucket(struct store *store, const struct lineage *lineage,
			  const struct bucket_index *index,
			  const struct store_call *call,
			  struct hib_error *error);

#endif
