/*
 * Resume: bring the shards of a target back from the store. One task; the
 * shards move in parallel, in steps that they take together:
 *
 *	1. prepare	state RESUMING; next epoch; bucket.json, manifest,
 *table; is there room
 *	2. stage	skeleton and contents in .hibfs/staging/<task>/<n>, each
 *			chunk verified
 *	3. publish	one rename each; LIVE; the old stub goes to the trash
 *
 * A failure or a cancel in 1 or 2 removes the staging and leaves the shards
 * hibernated.
 */
#ifndef HIBFS_CONTROL_RESUMER_H
#define HIBFS_CONTROL_RESUMER_H

#include "base/error.h"
#include "control/daemon.h"
#include "control/runner.h"

/*
 * A job that resumes one shard (whose operation the caller has begun; it ends
 * when the job is freed), or with `shard` NULL those of the bucket that
 * bucket.json names and that are not live here; none is a success.
 */
struct job *resumer_new(const char *bucket, struct shard *shard,
			const struct daemon_resume_params *params,
			struct hib_error *error);

#endif
