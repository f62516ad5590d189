/*
 * The last step of a pause: a shard whose snapshot is committed becomes a stub.
 * Used by the pauser, and at start to roll forward what a crash cut off: every
 * part of it may be done again.
 */
#ifndef HIBFS_CONTROL_EVICT_H
#define HIBFS_CONTROL_EVICT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "control/shards.h"

struct daemon;

/*
 * COMMITTED to HIBERNATED, by the holder of the shard's operation: one rename
 * takes the tree to the stub's place, then its blocks are freed; with `purge`
 * the stub is removed as well. On failure it stays COMMITTED.
 */
int evict_shard(struct daemon *daemon, struct shard *shard, bool purge,
		uint64_t *ret_freed_bytes, struct hib_error *error);

#endif
