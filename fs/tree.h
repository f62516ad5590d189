/*
 * A shard's directory as a whole: capture what is there into a manifest, build
 * it again from one, turn files into holes. Works on plain directories below
 * the source, never through the mount, and follows no symlink.
 *
 * Used by the pauser and the resumer (control/). Thread-safety: no shared
 * state; one directory is worked on by one caller.
 */
#ifndef HIBFS_FS_TREE_H
#define HIBFS_FS_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/cancel.h"
#include "base/error.h"
#include "meta/manifest.h"

/*
 * What tells that a file is unchanged: noted before its bytes are read, and
 * compared later. ctime counts because no caller can set it.
 */
struct tree_identity {
	dev_t device;
	ino_t inode;
	uint64_t size;
	struct timespec mtime, ctime;
	struct timespec noted; /* CLOCK_REALTIME_COARSE, before the stat */
};

/*
 * Appends an entry for each name below dirfd (and "." for itself) to
 * *manifest, sorted, with everything but the chunk fields; identities[i]
 * belongs to entry i (owned by the caller, free()). A file that vanishes during
 * the walk is left out. Another file system mounted inside is -EXDEV naming it.
 */
int tree_capture(int dirfd, struct manifest *manifest,
		 struct tree_identity **ret_identities, struct cancel *cancel,
		 struct hib_error *error);

/*
 * Opens a file below dirfd, refusing symlinks anywhere in the path.
 * O_NOATIME is added when it is allowed.
 */
int tree_open(int dirfd, const char *path, int flags, struct hib_error *error);

/*
 * Makes dirty pages of shared mappings of fd write-protected (so that the next
 * store changes ctime) and notes the identity. Waits for the writeback that
 * does it.
 */
int tree_identify(int fd, struct tree_identity *ret, struct hib_error *error);
/* The same without touching pages, for a path below dirfd. */
int tree_identity_at(int dirfd, const char *path, struct tree_identity *ret,
		     struct hib_error *error);

/*
 * Equal in every field, and ctime older than `before`'s noting by more than a
 * tick of the file system's clock: a change within the same tick as the noting
 * would leave the same ctime, so a file as young as that counts as changed.
 */
bool tree_identity_same(const struct tree_identity *before,
			const struct tree_identity *now);

/*
 * Builds the skeleton of a manifest into the empty directory dirfd:
 * directories, files of full size with no data, symlinks, hard links, special
 * files. All of it belongs to the caller and is closed to others until
 * tree_seal().
 */
int tree_build(int dirfd, const struct manifest *manifest,
	       struct cancel *cancel, struct hib_error *error);

/*
 * Gives owners, xattrs, ACLs, modes and times, after the contents are written:
 * a write clears set-id bits and capabilities, and a default ACL would be
 * inherited by what is made below it. Directories come last. May be repeated.
 * -EPERM: only root can give files to another owner.
 */
int tree_seal(int dirfd, const struct manifest *manifest, struct cancel *cancel,
	      struct hib_error *error);

/*
 * Frees the blocks of every regular file below dirfd and keeps size, mtime and
 * everything else. Idempotent. -EBUSY naming the file when somebody has it
 * open or mapped (lease probe); files before it are already holes then.
 */
int tree_evict(int dirfd, struct cancel *cancel, uint64_t *ret_freed_bytes,
	       struct hib_error *error);

#endif
