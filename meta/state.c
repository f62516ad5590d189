#include "meta/state.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

struct cell {
	int code; /* 0: allowed */
	struct shard_step step; /* when allowed */
	const char *refusal; /* when not */
};

/* clang-format off */
#define GO(new_state, ...) { .step = { SHARD_##new_state, 0 __VA_OPT__(|) __VA_ARGS__ } }
#define NO(errno_value, text) { .code = (errno_value), .refusal = (text) }

#define OUT_OF_ORDER NO(EINVAL, "is not in a state that this step can follow")
#define PAUSING_NOW NO(EBUSY, "is being paused")
#define RESUMING_NOW NO(EBUSY, "is being resumed")
#define COMMITTED_NOW \
	NO(EBUSY, "is being evicted: its pause is committed and will finish")
#define TOO_LATE \
	NO(EALREADY, "has a committed pause: it can no longer be rolled back")
#define NOT_PAUSING NO(EALREADY, "is not being paused")
#define NOT_RESUMING NO(EALREADY, "is not being resumed")

static const struct cell cells[SHARD_STATE_COUNT][SHARD_EVENT_COUNT] = {
	[SHARD_LIVE] = {
		[SHARD_PAUSE_START] = GO(PAUSING, SHARD_CAPTURE),
		[SHARD_PAUSE_COMMITTED] = OUT_OF_ORDER,
		[SHARD_PAUSE_FAILED] = NOT_PAUSING,
		[SHARD_PAUSE_FAILED_HYDRATING] = NOT_PAUSING,
		[SHARD_EVICTED] = OUT_OF_ORDER,
		[SHARD_RESUME_START] = NO(EALREADY, "is live already"),
		[SHARD_RESUME_STAGED] = OUT_OF_ORDER,
		[SHARD_RESUME_PUBLISHED] = OUT_OF_ORDER,
		[SHARD_RESUME_FAILED] = NOT_RESUMING,
		[SHARD_HYDRATED] = OUT_OF_ORDER,
		[SHARD_RECOVER_TREE] = GO(LIVE, SHARD_TRASH_STUB),
		[SHARD_RECOVER_STUB] = NO(EIO,
			"is recorded as live, but only a stub of it is there"),
		/* Removed by its user: what is left is its lineage. */
		[SHARD_RECOVER_NOTHING] = GO(LIVE),
	},
	[SHARD_PAUSING] = {
		[SHARD_PAUSE_START] = PAUSING_NOW,
		[SHARD_PAUSE_COMMITTED] = GO(COMMITTED, SHARD_EVICT),
		[SHARD_PAUSE_FAILED] =
			GO(LIVE, SHARD_THAW | SHARD_COLLECT_PACKS),
		[SHARD_PAUSE_FAILED_HYDRATING] =
			GO(HYDRATING, SHARD_THAW | SHARD_COLLECT_PACKS |
			   SHARD_HYDRATE),
		[SHARD_EVICTED] = OUT_OF_ORDER,
		[SHARD_RESUME_START] = PAUSING_NOW,
		[SHARD_RESUME_STAGED] = OUT_OF_ORDER,
		[SHARD_RESUME_PUBLISHED] = OUT_OF_ORDER,
		[SHARD_RESUME_FAILED] = NOT_RESUMING,
		[SHARD_HYDRATED] = OUT_OF_ORDER,
		[SHARD_RECOVER_TREE] =
			GO(LIVE, SHARD_THAW | SHARD_COLLECT_PACKS),
		[SHARD_RECOVER_STUB] =
			GO(HYDRATING, SHARD_THAW | SHARD_COLLECT_PACKS |
			   SHARD_HYDRATE),
		[SHARD_RECOVER_NOTHING] = NO(EIO,
			"was being paused, and its files are gone"),
	},
	[SHARD_COMMITTED] = {
		[SHARD_PAUSE_START] = COMMITTED_NOW,
		[SHARD_PAUSE_COMMITTED] = OUT_OF_ORDER,
		[SHARD_PAUSE_FAILED] = TOO_LATE,
		[SHARD_PAUSE_FAILED_HYDRATING] = TOO_LATE,
		[SHARD_EVICTED] = GO(HIBERNATED, SHARD_THAW),
		[SHARD_RESUME_START] = COMMITTED_NOW,
		[SHARD_RESUME_STAGED] = OUT_OF_ORDER,
		[SHARD_RESUME_PUBLISHED] = OUT_OF_ORDER,
		[SHARD_RESUME_FAILED] = NOT_RESUMING,
		[SHARD_HYDRATED] = OUT_OF_ORDER,
		[SHARD_RECOVER_TREE] = GO(COMMITTED, SHARD_EVICT),
		[SHARD_RECOVER_STUB] = GO(COMMITTED, SHARD_EVICT),
		[SHARD_RECOVER_NOTHING] = GO(COMMITTED, SHARD_EVICT),
	},
	[SHARD_HIBERNATED] = {
		[SHARD_PAUSE_START] = NO(EALREADY, "is hibernated already"),
		[SHARD_PAUSE_COMMITTED] = OUT_OF_ORDER,
		[SHARD_PAUSE_FAILED] = TOO_LATE,
		[SHARD_PAUSE_FAILED_HYDRATING] = TOO_LATE,
		[SHARD_EVICTED] = OUT_OF_ORDER,
		[SHARD_RESUME_START] = GO(RESUMING, SHARD_STAGE),
		[SHARD_RESUME_STAGED] = OUT_OF_ORDER,
		[SHARD_RESUME_PUBLISHED] = OUT_OF_ORDER,
		[SHARD_RESUME_FAILED] = NOT_RESUMING,
		[SHARD_HYDRATED] = OUT_OF_ORDER,
		[SHARD_RECOVER_TREE] = NO(EIO,
			"is recorded as hibernated, but a directory is in its "
			"place: move that away, or remove the record"),
		[SHARD_RECOVER_STUB] = GO(HIBERNATED),
		[SHARD_RECOVER_NOTHING] = GO(HIBERNATED),
	},
	[SHARD_RESUMING] = {
		[SHARD_PAUSE_START] = RESUMING_NOW,
		[SHARD_PAUSE_COMMITTED] = OUT_OF_ORDER,
		[SHARD_PAUSE_FAILED] = NOT_PAUSING,
		[SHARD_PAUSE_FAILED_HYDRATING] = NOT_PAUSING,
		[SHARD_EVICTED] = OUT_OF_ORDER,
		[SHARD_RESUME_START] = RESUMING_NOW,
		[SHARD_RESUME_STAGED] = GO(HYDRATING, SHARD_HYDRATE),
		[SHARD_RESUME_PUBLISHED] = GO(LIVE, SHARD_TRASH_STUB),
		[SHARD_RESUME_FAILED] = GO(HIBERNATED, SHARD_REMOVE_STAGING),
		[SHARD_HYDRATED] = OUT_OF_ORDER,
		/* The rename that publishes was done: there is no way back. */
		[SHARD_RECOVER_TREE] =
			GO(LIVE, SHARD_REMOVE_STAGING | SHARD_TRASH_STUB),
		[SHARD_RECOVER_STUB] = GO(HIBERNATED, SHARD_REMOVE_STAGING),
		[SHARD_RECOVER_NOTHING] = GO(HIBERNATED, SHARD_REMOVE_STAGING),
	},
	[SHARD_HYDRATING] = {
		[SHARD_PAUSE_START] = GO(PAUSING, SHARD_CAPTURE),
		[SHARD_PAUSE_COMMITTED] = OUT_OF_ORDER,
		[SHARD_PAUSE_FAILED] = NOT_PAUSING,
		[SHARD_PAUSE_FAILED_HYDRATING] = NOT_PAUSING,
		[SHARD_EVICTED] = OUT_OF_ORDER,
		[SHARD_RESUME_START] = NO(EALREADY,
			"is resumed already, its data is still arriving"),
		[SHARD_RESUME_STAGED] = OUT_OF_ORDER,
		[SHARD_RESUME_PUBLISHED] = OUT_OF_ORDER,
		[SHARD_RESUME_FAILED] = NO(EALREADY,
			"is resumed already: pause it to free its data"),
		[SHARD_HYDRATED] = GO(LIVE, SHARD_TRASH_STUB),
		[SHARD_RECOVER_TREE] = GO(LIVE, SHARD_TRASH_STUB),
		[SHARD_RECOVER_STUB] = GO(HYDRATING, SHARD_HYDRATE),
		/* Writes since the resume may be in no snapshot. */
		[SHARD_RECOVER_NOTHING] = NO(EIO,
			"was hydrating, and its stub is gone"),
	},
};
/* clang-format on */

static const char *const state_names[SHARD_STATE_COUNT] = {
	[SHARD_LIVE] = "live",		 [SHARD_PAUSING] = "pausing",
	[SHARD_COMMITTED] = "committed", [SHARD_HIBERNATED] = "hibernated",
	[SHARD_RESUMING] = "resuming",	 [SHARD_HYDRATING] = "hydrating",
};

static const char *const event_names[SHARD_EVENT_COUNT] = {
	[SHARD_PAUSE_START] = "pause_start",
	[SHARD_PAUSE_COMMITTED] = "pause_committed",
	[SHARD_PAUSE_FAILED] = "pause_failed",
	[SHARD_PAUSE_FAILED_HYDRATING] = "pause_failed_hydrating",
	[SHARD_EVICTED] = "evicted",
	[SHARD_RESUME_START] = "resume_start",
	[SHARD_RESUME_STAGED] = "resume_staged",
	[SHARD_RESUME_PUBLISHED] = "resume_published",
	[SHARD_RESUME_FAILED] = "resume_failed",
	[SHARD_HYDRATED] = "hydrated",
	[SHARD_RECOVER_TREE] = "recover_tree",
	[SHARD_RECOVER_STUB] = "recover_stub",
	[SHARD_RECOVER_NOTHING] = "recover_nothing",
};

int shard_state_step(enum shard_state state, enum shard_event event,
		     struct shard_step *ret)
{
	const struct cell *cell = &cells[state][event];

	if (cell->code)
		return -cell->code;
	*ret = cell->step;
	return 0;
}

const char *shard_state_refusal(enum shard_state state, enum shard_event event)
{
	return cells[state][event].refusal;
}

enum shard_event shard_recover_event(bool tree_exists, bool stub_exists)
{
	if (tree_exists)
		return SHARD_RECOVER_TREE;
	return stub_exists ? SHARD_RECOVER_STUB : SHARD_RECOVER_NOTHING;
}

const char *shard_state_name(enum shard_state state)
{
	return state_names[state];
}

const char *shard_event_name(enum shard_event event)
{
	return event_names[event];
}

int shard_state_parse(const char *text, enum shard_state *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(state_names); i++) {
		if (strcmp(text, state_names[i]) == 0) {
			*ret = (enum shard_state)i;
			return 0;
		}
	}
	return -EINVAL;
}
