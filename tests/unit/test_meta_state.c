#include <errno.h>

#include "meta/state.h"
#include "tests/unit/test.h"

/*
 * Every cell, written down a second time: rows are states, columns events in the
 * order of enum shard_event. A letter is the new state, '.' a step out of order
 * (-EINVAL), 'a' -EALREADY, 'b' -EBUSY, 'e' -EIO.
 *
 *	pause: start committed failed failed_hydrating, evicted
 *	resume: start staged published failed, hydrated
 *	recover: tree stub nothing
 */
static const char *const wanted[SHARD_STATE_COUNT] = {
	/*                    pause|ev|resume|hy|recover */
	[SHARD_LIVE] = "P.aa"
		       "."
		       "a..a"
		       "."
		       "LeL",
	[SHARD_PAUSING] = "bCLY"
			  "."
			  "b..a"
			  "."
			  "LYe",
	[SHARD_COMMITTED] = "b.aa"
			    "H"
			    "b..a"
			    "."
			    "CCC",
	[SHARD_HIBERNATED] = "a.aa"
			     "."
			     "R..a"
			     "."
			     "eHH",
	[SHARD_RESUMING] = "b.aa"
			   "."
			   "bYLH"
			   "."
			   "LHH",
	[SHARD_HYDRATING] = "P.aa"
			    "."
			    "a..a"
			    "L"
			    "LYe",
};

static const char letters[SHARD_STATE_COUNT + 1] = "LPCHRY";

/* req: P1 P6 P9 */
TEST(every_cell_of_the_table_is_as_documented)
{
	for (int state = 0; state < SHARD_STATE_COUNT; state++) {
		CHECK_INT(strlen(wanted[state]), SHARD_EVENT_COUNT);
		for (int event = 0; event < SHARD_EVENT_COUNT; event++) {
			char cell = wanted[state][event];
			struct shard_step step = { .state = 77, .actions = 77 };
			int r = shard_state_step((enum shard_state)state,
						 (enum shard_event)event,
						 &step);
			const char *refusal =
				shard_state_refusal((enum shard_state)state,
						    (enum shard_event)event);
			int code = cell == '.'	 ? EINVAL
				   : cell == 'a' ? EALREADY
				   : cell == 'b' ? EBUSY
				   : cell == 'e' ? EIO
						 : 0;

			if (r != -code)
				TEST_FAIL("%s, %s: %d",
					  shard_state_name(
						  (enum shard_state)state),
					  shard_event_name(
						  (enum shard_event)event),
					  r);
			if (code) {
				CHECK_INT(step.state, 77);
				CHECK(refusal && *refusal);
			} else {
				CHECK_INT(step.state,
					  strchr(letters, cell) - letters);
				CHECK(!refusal);
			}
		}
	}
}

static unsigned int actions(enum shard_state state, enum shard_event event)
{
	struct shard_step step;

	CHECK_INT(shard_state_step(state, event, &step), 0);
	return step.actions;
}

/* req: P1 */
TEST(a_pause_that_ends_before_its_commit_thaws_and_collects)
{
	unsigned int back = SHARD_THAW | SHARD_COLLECT_PACKS;

	CHECK_INT(actions(SHARD_PAUSING, SHARD_PAUSE_FAILED), back);
	CHECK_INT(actions(SHARD_PAUSING, SHARD_RECOVER_TREE), back);
	CHECK_INT(actions(SHARD_PAUSING, SHARD_PAUSE_FAILED_HYDRATING),
		  back | SHARD_HYDRATE);
	CHECK_INT(actions(SHARD_PAUSING, SHARD_RECOVER_STUB),
		  back | SHARD_HYDRATE);
}

/* req: P6 */
TEST(a_committed_pause_rolls_forward_after_a_crash)
{
	CHECK_INT(actions(SHARD_PAUSING, SHARD_PAUSE_COMMITTED), SHARD_EVICT);
	CHECK_INT(actions(SHARD_COMMITTED, SHARD_RECOVER_TREE), SHARD_EVICT);
	CHECK_INT(actions(SHARD_COMMITTED, SHARD_RECOVER_STUB), SHARD_EVICT);
	CHECK_INT(actions(SHARD_COMMITTED, SHARD_RECOVER_NOTHING), SHARD_EVICT);
	CHECK_INT(actions(SHARD_COMMITTED, SHARD_EVICTED), SHARD_THAW);
}

/* req: P4 P6 */
TEST(a_resume_cut_off_is_published_or_removed_never_between)
{
	CHECK_INT(actions(SHARD_RESUMING, SHARD_RECOVER_TREE),
		  SHARD_REMOVE_STAGING | SHARD_TRASH_STUB);
	CHECK_INT(actions(SHARD_RESUMING, SHARD_RECOVER_STUB),
		  SHARD_REMOVE_STAGING);
	CHECK_INT(actions(SHARD_RESUMING, SHARD_RECOVER_NOTHING),
		  SHARD_REMOVE_STAGING);
	CHECK_INT(actions(SHARD_RESUMING, SHARD_RESUME_FAILED),
		  SHARD_REMOVE_STAGING);
	CHECK_INT(actions(SHARD_HYDRATING, SHARD_RECOVER_STUB), SHARD_HYDRATE);
	CHECK_INT(actions(SHARD_HYDRATING, SHARD_RECOVER_TREE),
		  SHARD_TRASH_STUB);
}

TEST(starts_and_ends_have_their_actions)
{
	CHECK_INT(actions(SHARD_LIVE, SHARD_PAUSE_START), SHARD_CAPTURE);
	CHECK_INT(actions(SHARD_HYDRATING, SHARD_PAUSE_START), SHARD_CAPTURE);
	CHECK_INT(actions(SHARD_HIBERNATED, SHARD_RESUME_START), SHARD_STAGE);
	CHECK_INT(actions(SHARD_RESUMING, SHARD_RESUME_STAGED), SHARD_HYDRATE);
	CHECK_INT(actions(SHARD_RESUMING, SHARD_RESUME_PUBLISHED),
		  SHARD_TRASH_STUB);
	CHECK_INT(actions(SHARD_HYDRATING, SHARD_HYDRATED), SHARD_TRASH_STUB);
}

TEST(names_are_read_back)
{
	enum shard_state back = SHARD_LIVE;

	for (int state = 0; state < SHARD_STATE_COUNT; state++) {
		CHECK_INT(shard_state_parse(
				  shard_state_name((enum shard_state)state),
				  &back),
			  0);
		CHECK_INT(back, state);
	}
	CHECK_INT(shard_state_parse("LIVE", &back), -EINVAL);
	CHECK_INT(shard_state_parse("", &back), -EINVAL);
	for (int event = 0; event < SHARD_EVENT_COUNT; event++)
		CHECK(*shard_event_name((enum shard_event)event));
}

TEST(what_is_on_disk_gives_the_event_of_a_start)
{
	CHECK_INT(shard_recover_event(true, true), SHARD_RECOVER_TREE);
	CHECK_INT(shard_recover_event(true, false), SHARD_RECOVER_TREE);
	CHECK_INT(shard_recover_event(false, true), SHARD_RECOVER_STUB);
	CHECK_INT(shard_recover_event(false, false), SHARD_RECOVER_NOTHING);
}

TEST_MAIN()
