/*
 * Where the objects of a bucket, of a shard's lineage and of its snapshots lie
 * in the store (docs/FORMAT.md, "Object layout"). The only place that builds
 * or takes apart a key.
 *
 *	hibfs_storage/PauseResume/<bucket>/bucket.json
 *	hibfs_storage/PauseResume/<bucket>/<shard>/HEAD
 *	.../epochs/<epoch, 16 digits>
 *	.../manifests/<seq, 16 digits>.json.zst
 *	.../chunks/<seq, 16 digits>.bin
 *	.../packs/<2 hex>/<64 hex>
 *
 * Bucket and shard are percent-encoded (base/encode.h). Names whose encoding
 * would pass the store's limit are -ENAMETOOLONG.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_TRANSFER_LINEAGE_H
#define HIBFS_TRANSFER_LINEAGE_H

#include <stdint.h>

#include "base/error.h"
#include "transfer/store.h"

#define LINEAGE_ROOT "hibfs_storage/PauseResume/"

struct lineage {
	char bucket_prefix[STORE_KEY_BYTES]; /* ends in '/' */
	char prefix[STORE_KEY_BYTES]; /* of the shard, ends in '/' */
};

int lineage_init(struct lineage *ret, const char *bucket, const char *shard,
		 struct hib_error *error);

/* For a bucket alone: only the bucket's key may be asked for. */
int lineage_init_bucket(struct lineage *ret, const char *bucket,
			struct hib_error *error);

/* Each writes a key of at most STORE_KEY_BYTES with its NUL. */
void lineage_bucket_key(const struct lineage *lineage, char *ret_key);
void lineage_head_key(const struct lineage *lineage, char *ret_key);
void lineage_epoch_key(const struct lineage *lineage, uint64_t epoch,
		       char *ret_key);
void lineage_manifest_key(const struct lineage *lineage, uint64_t seq,
			  char *ret_key);
void lineage_chunks_key(const struct lineage *lineage, uint64_t seq,
			char *ret_key);
void lineage_pack_key(const struct lineage *lineage, const uint8_t pack_id[32],
		      char *ret_key);

/* The number in an epoch's, a manifest's or a chunk table's key; -EBADMSG. */
int lineage_parse_epoch(const struct lineage *lineage, const char *key,
			uint64_t *ret_epoch);
int lineage_parse_manifest(const struct lineage *lineage, const char *key,
			   uint64_t *ret_seq);

#endif
