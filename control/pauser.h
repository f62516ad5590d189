/*
 * Pause: snapshot the shards of a target to the store, then free their local
 * blocks. One task; the shards move in parallel, in steps that they take
 * together:
 *
 *	1. prepare	state PAUSING; epoch; parent snapshot; rounds without
 *lock
 *	2. freeze	all shards or none
 *	3. last round	what changed since; check that nothing did meanwhile;
 *			close: nobody has a file open
 *	4. commit	each shard's packs, chunk table, manifest; bucket.json
 *last
 *	5. evict	COMMITTED; the tree becomes a stub; HIBERNATED; thaw
 *
 * Up to and including 4 a failure or a cancel leaves every shard live and
 * unlocked; from 5 on the pause is rolled forward, by the next start if it
 *must.
 */
#ifndef HIBFS_CONTROL_PAUSER_H
#define HIBFS_CONTROL_PAUSER_H

#include "base/error.h"
#include "control/daemon.h"
#include "control/runner.h"

/*
 * A job that pauses the shards (taken over, with the shards' operations that
 * the caller has begun; they end when the job is freed).
 */
struct job *pauser_new(const char *bucket, struct shard **shards, size_t count,
		       const struct daemon_pause_params *params,
		       struct hib_error *error);

#endif
