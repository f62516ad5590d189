/*
 * Without passthrough, mappings are of the kernel's page cache of the mount. At
 * a freeze it has to write them back, past the gate, so that what was stored
 * before is on the source. What is stored later stays in that cache.
 *
 * Used by freeze.c.
 */
#ifndef HIBFS_FS_FLUSH_H
#define HIBFS_FS_FLUSH_H

#include <stdint.h>

#include "base/error.h"

struct fs;
struct fs_shard;

/* The gate is frozen. -ETIMEDOUT at the deadline (CLOCK_MONOTONIC, ns). */
int flush_cached(struct fs *fs, struct fs_shard *shard, uint64_t deadline_ns,
		 struct hib_error *error);

#endif
