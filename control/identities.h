/*
 * What a resume leaves behind for the next pause: for each file that it wrote,
 * the identity (fs/tree.h) it had when it was complete. A file that still has
 * it need not be read again (T11): its chunks are those of the snapshot. Kept
 * in SOURCE/.hibfs/shards/<bucket>/<shard>/identities; a broken or missing one
 * only means that everything is read.
 *
 * Thread-safety: of one shard, by the holder of its operation.
 */
#ifndef HIBFS_CONTROL_IDENTITIES_H
#define HIBFS_CONTROL_IDENTITIES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "control/shards.h"
#include "fs/tree.h"
#include "meta/manifest.h"

struct identities {
	uint64_t seq; /* of the snapshot that the files were resumed from */
	size_t count;
	struct file_identity {
		uint64_t entry; /* index in its manifest */
		struct tree_identity identity;
	} * files;
};

/*
 * Notes the files below dirfd that the manifest has contents of. Waits out the
 * clock tick in which the last of them may have been changed.
 */
int identities_note(int dirfd, const struct manifest *manifest,
		    struct identities *ret, struct hib_error *error);
void identities_done(struct identities *identities);

int identities_save(int hibfs_fd, const struct shard *shard,
		    const struct identities *identities,
		    struct hib_error *error);
/* -ENOENT when there are none, -EBADMSG when they are broken. */
int identities_load(int hibfs_fd, const struct shard *shard,
		    struct identities *ret, struct hib_error *error);

#endif
