/*
 * The states of a shard and what may happen in each (docs/STATES.md): a pure
 * function over one const table, no I/O. control/ asks it before every step,
 * makes the new state durable (shard_record.h), and then does the actions,
 * all of which are idempotent, since a crash may make it do them again.
 *
 *	LIVE -> PAUSING -> COMMITTED -> HIBERNATED
 *	HIBERNATED -> RESUMING -> HYDRATING -> LIVE	(lazy)
 *	HIBERNATED -> RESUMING -> LIVE			(eager)
 *	HYDRATING -> PAUSING				(a half-hydrated shard)
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_META_STATE_H
#define HIBFS_META_STATE_H

#include <stdbool.h>

#include "base/error.h"

enum shard_state {
	SHARD_LIVE,
	SHARD_PAUSING,
	SHARD_COMMITTED,
	SHARD_HIBERNATED,
	SHARD_RESUMING,
	SHARD_HYDRATING,
};
#define SHARD_STATE_COUNT 6

enum shard_event {
	SHARD_PAUSE_START,
	SHARD_PAUSE_COMMITTED, /* the manifest is in the store and verified */
	/*
	 * Failed or cancelled before the commit. Two events, because PAUSING
	 * does not say where it came from: the caller names what it paused.
	 */
	SHARD_PAUSE_FAILED, /* a live shard */
	SHARD_PAUSE_FAILED_HYDRATING, /* a half-hydrated shard */
	SHARD_EVICTED, /* the live tree is gone, the stub is in place */
	SHARD_RESUME_START,
	SHARD_RESUME_STAGED, /* lazy: the skeleton has become the stub */
	SHARD_RESUME_PUBLISHED, /* eager: the tree is in place, complete */
	SHARD_RESUME_FAILED,
	SHARD_HYDRATED, /* the complete stub has been renamed into place */
	/*
	 * The daemon starts and finds the shard in this state. The caller looks
	 * which of its directories exist, see shard_recover_event().
	 */
	SHARD_RECOVER_TREE, /* SOURCE/<bucket>/<shard> exists */
	SHARD_RECOVER_STUB, /* no tree, but a stub */
	SHARD_RECOVER_NOTHING, /* neither */
};
#define SHARD_EVENT_COUNT 13

/* What the caller does after the new state is durable. Flags. */
enum shard_action {
	SHARD_CAPTURE = 1 << 0, /* read, lock, upload, commit */
	SHARD_THAW = 1 << 1, /* release the pause's lock */
	SHARD_COLLECT_PACKS = 1 << 2, /* uploaded packs that nothing names */
	SHARD_EVICT = 1 << 3, /* make the stub, free the blocks */
	SHARD_STAGE = 1 << 4, /* read the manifest, build in staging */
	SHARD_REMOVE_STAGING = 1 << 5,
	SHARD_TRASH_STUB = 1 << 6, /* a stub that a complete tree replaced */
	SHARD_HYDRATE = 1 << 7, /* start or go on filling the stub */
};

struct shard_step {
	enum shard_state state; /* the new one; may be the old one */
	unsigned int actions; /* enum shard_action, or'ed */
};

/*
 * 0, or for an event that the state does not allow:
 *	-EALREADY	it is so already (pause of a hibernated shard)
 *	-EBUSY		another operation is under way
 *	-EIO		what is on disk contradicts the state
 *	-EINVAL		a step out of order: a bug of the caller
 */
int shard_state_step(enum shard_state state, enum shard_event event,
		     struct shard_step *ret);

/* Why shard_state_step() refuses, a clause about "the shard"; NULL: it does
 * not. */
const char *shard_state_refusal(enum shard_state state, enum shard_event event);

/* The event of a start that finds (or does not find) these directories. */
enum shard_event shard_recover_event(bool tree_exists, bool stub_exists);

/* "live", "pausing", ...; "pause_start", ... */
const char *shard_state_name(enum shard_state state);
const char *shard_event_name(enum shard_event event);
/* -EINVAL for a text that is none. */
int shard_state_parse(const char *text, enum shard_state *ret);

#endif
