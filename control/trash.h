/*
 * What is to be deleted is first renamed into SOURCE/.hibfs/trash, which is
 * one durable step whatever its size, and removed from there at leisure; what a
 * crash leaves in the trash is removed at the next start.
 *
 * Thread-safety: all functions from any thread.
 */
#ifndef HIBFS_CONTROL_TRASH_H
#define HIBFS_CONTROL_TRASH_H

#include "base/error.h"
#include "control/daemon.h"
#include "control/shards.h"

/*
 * Renames dirfd/name into the trash and removes it. Not there is fine. Only the
 * rename decides about success; what cannot be removed stays for the next start.
 */
int trash_path(struct daemon *daemon, int dirfd, const char *name,
	       struct hib_error *error);

/* The stub of a shard; none is fine. */
int trash_stub(struct daemon *daemon, const struct shard *shard,
	       struct hib_error *error);

/* Empties .hibfs/trash and .hibfs/staging. At start, before anything runs. */
int trash_sweep(struct daemon *daemon, struct hib_error *error);

#endif
