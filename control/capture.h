/*
 * Capturing one shard into a snapshot: rounds that read what changed since the
 * round before, the last of them with the shard frozen, and in the end a
 * manifest and a chunk table ready to be committed. Used by the pauser.
 *
 * A file is read again when its inode, size, mtime or ctime differ from what
 * was noted just before it was read, or when that was noted within the same
 * clock tick as its last change. Noting write-protects the pages of shared
 * mappings first, so that a store after it changes ctime.
 *
 * Thread-safety: one capture is used by one thread at a time.
 */
#ifndef HIBFS_CONTROL_CAPTURE_H
#define HIBFS_CONTROL_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cancel.h"
#include "base/error.h"
#include "control/identities.h"
#include "meta/manifest.h"
#include "transfer/chunk_table.h"
#include "transfer/engine.h"

struct capture;

/*
 * `parent_manifest` and `parent_table` (may be NULL) are the lineage's latest
 * snapshot: its chunks are known, its files keep their chunk size. Taken over.
 * `dirfd` is the shard's live directory; taken over. All even on failure. A new
 * file gets chunks of `chunk_bytes` (a power of two) at least.
 */
int capture_new(struct engine *engine, const struct lineage *lineage,
		uint32_t chunk_bytes, int dirfd,
		struct manifest *parent_manifest,
		struct chunk_table *parent_table, struct capture **ret,
		struct hib_error *error);
struct capture *capture_free(struct capture *capture);

/*
 * Before the first round: files that still have these identities are what the
 * parent snapshot has of them, and are not read. Ignored when they were noted
 * for another snapshot. -ENOMEM.
 */
int capture_preload(struct capture *capture,
		    const struct identities *identities,
		    struct hib_error *error);

/* What a round found. */
struct capture_round {
	uint64_t files, bytes; /* in the shard */
	uint64_t changed_files,
		changed_bytes; /* of these, read in this round */
	uint64_t kept_bytes; /* of these, known from before and not read */
};

/* Walks the shard and reads what changed. */
int capture_run_round(struct capture *capture, const struct engine_call *call,
		      struct capture_round *ret, struct hib_error *error);

/*
 * Waits until the store has what the rounds have sent, so that nobody who waits
 * for the lock waits for that.
 */
int capture_flush(struct capture *capture, const struct engine_call *call,
		  struct hib_error *error);

/*
 * After the round under the lock: looks once more at every file's identity.
 * -ESTALE naming a file that changed.
 */
int capture_verify(struct capture *capture, struct cancel *cancel,
		   struct hib_error *error);

/*
 * Waits for the packs and gives manifest (but for its header) and table; the
 * caller owns them then.
 */
int capture_finish(struct capture *capture, const struct engine_call *call,
		   struct manifest **ret_manifest,
		   struct chunk_table **ret_table, struct hib_error *error);

#endif
