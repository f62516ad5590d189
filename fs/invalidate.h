/*
 * Telling the kernel to forget what it remembers. A notification may wait for
 * a directory's lock, which a request in some handler may hold, so only this
 * module's own thread sends any.
 *
 * Used by shard.c. Thread-safety: any thread but request threads.
 */
#ifndef HIBFS_FS_INVALIDATE_H
#define HIBFS_FS_INVALIDATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct fs;
struct invalidator;

int invalidator_new(struct fs *fs, struct invalidator **ret,
		    struct hib_error *error);
/* Waits for its thread. Returns NULL; takes NULL. */
struct invalidator *invalidator_free(struct invalidator *invalidator);

/*
 * Drops the entry `name` (NULL: none) below the directory `parent` with all
 * cached below it, and the attributes of nodeids[]. Returns when the kernel has
 * done so; -ETIMEDOUT when it still has not after some seconds, and it will
 * later.
 */
int invalidator_run(struct invalidator *invalidator, uint64_t parent,
		    const char *name, const uint64_t *nodeids, size_t count,
		    struct hib_error *error);

#endif
