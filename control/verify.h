/*
 * Verify: is what the store holds of a paused bucket or shard complete and
 * sound? Reads bucket.json, each shard's manifest and chunk table, looks at
 * every pack's size, and with `read_data` fetches every chunk and checks its
 * id. A task; changes nothing anywhere.
 */
#ifndef HIBFS_CONTROL_VERIFY_H
#define HIBFS_CONTROL_VERIFY_H

#include <stdbool.h>

#include "base/error.h"
#include "control/runner.h"

/* `shard` NULL: all shards that bucket.json names. Names are copied. */
struct job *verify_new(const char *bucket, const char *shard, bool read_data,
		       struct hib_error *error);

#endif
