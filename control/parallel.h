/*
 * The shards of a bucket, worked on at the same time: one function for each
 * item on a few threads, the first failure cancels the others, all are awaited.
 *
 * Thread-safety: parallel_run() blocks its caller; items run in other threads.
 */
#ifndef HIBFS_CONTROL_PARALLEL_H
#define HIBFS_CONTROL_PARALLEL_H

#include <stddef.h>

#include "base/cancel.h"
#include "base/error.h"

/*
 * Item `index`: 0 or a negative errno with a message. `cancel` fires when
 * another item failed or the caller's own cancel did.
 */
typedef int (*parallel_fn)(void *arg, size_t index, struct cancel *cancel,
			   struct hib_error *error);

/*
 * Runs `run` for 0 .. count - 1 on at most `threads` threads. Items that were
 * not begun when something failed are not begun. Returns the first failure by
 * time (an item that was cancelled because of it does not count), in *error as
 * the item gave it; 0 when all succeeded.
 */
int parallel_run(size_t count, unsigned threads, parallel_fn run, void *arg,
		 struct cancel *cancel, struct hib_error *error);

#endif
