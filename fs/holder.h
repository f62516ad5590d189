/*
 * Who still uses files of a shard: for closing it, and for the message that
 * says why it cannot be closed.
 *
 * Used by freeze.c. Thread-safety: no shared state.
 */
#ifndef HIBFS_FS_HOLDER_H
#define HIBFS_FS_HOLDER_H

#include "base/error.h"

struct fs;
struct fs_shard;

/* Fails with -EBUSY and the processes that have files of the shard open. */
int holder_busy(struct fs *fs, struct fs_shard *shard, struct hib_error *error);

/*
 * -EBUSY naming a regular file of the shard that is open or mapped, by whatever
 * way, and the processes. The shard must have no open file of the mount's, and
 * its directory lie below the source.
 */
int holder_check_unmapped(struct fs *fs, struct fs_shard *shard,
			  struct hib_error *error);

#endif
