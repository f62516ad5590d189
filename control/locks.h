/*
 * Who holds which shard: the operator's locks, with owner, count and time to
 * live. A lock is the shard's operation (shards.h) and its freeze (fs.h); it is
 * gone with the daemon. The pauser freezes by itself.
 *
 * Thread-safety: all functions from any thread.
 */
#ifndef HIBFS_CONTROL_LOCKS_H
#define HIBFS_CONTROL_LOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "control/shards.h"

struct locks;

#define LOCK_OWNER_BYTES 256

struct locks *locks_new(struct fs *fs);
struct locks *locks_free(struct locks *locks); /* releases all */

struct lock_request {
	const char *owner; /* at most LOCK_OWNER_BYTES - 1 bytes */
	uint64_t ttl_ms; /* 0: bound to connection */
	uint64_t connection;
	bool deny;
};

struct lock_result {
	unsigned count;
	uint64_t held_inodes;
	uint64_t freeze_ns; /* 0 when it was held already */
};

/*
 * All shards or none (L4). Locking again by the owner counts up and sets a new
 * time to live. -EBUSY names the holder. ret_results: `count` entries.
 */
int locks_acquire(struct locks *locks, struct shard **shards, size_t count,
		  const struct lock_request *request,
		  struct lock_result *ret_results, struct hib_error *error);

struct unlock_result {
	bool held; /* by the owner, before */
	unsigned count; /* left */
	char changed[HIB_ERROR_MESSAGE_BYTES]; /* a store through a mapping was
						  seen: message */
};

/*
 * Counts down the owner's lock on each shard that has one. -EPERM when another
 * owner holds one of them; nothing is released then.
 */
int locks_release(struct locks *locks, struct shard **shards, size_t count,
		  const char *owner, struct unlock_result *ret_results,
		  struct hib_error *error);

/* Releases the locks without a time to live that came over this connection. */
void locks_connection_closed(struct locks *locks, uint64_t connection);

struct lock_info {
	char owner[LOCK_OWNER_BYTES];
	unsigned count;
	bool deny;
	int64_t since_ms; /* wall clock */
	int64_t expires_ms; /* wall clock; 0: with its connection */
};
/* False when no operator's lock is on it. */
bool locks_info(struct locks *locks, const struct shard *shard,
		struct lock_info *ret);

#endif
