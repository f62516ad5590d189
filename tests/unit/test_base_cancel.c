#include <stddef.h>

#include "base/cancel.h"
#include "tests/unit/test.h"

static void count(void *arg)
{
	++*(int *)arg;
}

TEST(a_watch_is_woken_once)
{
	struct cancel cancel;
	int woken = 0;
	struct cancel_watch watch = { .wake = count, .arg = &woken };

	cancel_init(&cancel, NULL);
	CHECK(!cancel_requested(&cancel));
	cancel_watch_add(&cancel, &watch);
	cancel_request(&cancel);
	cancel_request(&cancel);
	CHECK(cancel_requested(&cancel));
	CHECK_INT(woken, 1);
	cancel_watch_remove(&cancel, &watch);
	cancel_done(&cancel);
}

TEST(a_watch_added_late_is_woken_at_once)
{
	struct cancel cancel;
	int woken = 0;
	struct cancel_watch watch = { .wake = count, .arg = &woken };

	cancel_init(&cancel, NULL);
	cancel_request(&cancel);
	cancel_watch_add(&cancel, &watch);
	CHECK_INT(woken, 1);
	cancel_watch_remove(&cancel, &watch);
	cancel_done(&cancel);
}

TEST(a_removed_watch_is_not_woken)
{
	struct cancel cancel;
	int woken[3] = { 0 };
	struct cancel_watch watches[3];

	cancel_init(&cancel, NULL);
	for (int i = 0; i < 3; i++) {
		watches[i] = (struct cancel_watch){ .wake = count,
						    .arg = &woken[i] };
		cancel_watch_add(&cancel, &watches[i]);
	}
	cancel_watch_remove(&cancel, &watches[1]);
	cancel_watch_remove(&cancel, &watches[1]);
	cancel_request(&cancel);
	CHECK_INT(woken[0], 1);
	CHECK_INT(woken[1], 0);
	CHECK_INT(woken[2], 1);
	cancel_done(&cancel);
}

TEST(a_child_is_fired_with_its_parent_and_not_the_other_way)
{
	struct cancel parent, first, second, late;
	int woken = 0;
	struct cancel_watch watch = { .wake = count, .arg = &woken };

	cancel_init(&parent, NULL);
	cancel_init(&first, &parent);
	cancel_init(&second, &parent);
	cancel_watch_add(&second, &watch);
	cancel_request(&first);
	CHECK(!cancel_requested(&parent));
	CHECK(!cancel_requested(&second));
	cancel_request(&parent);
	CHECK(cancel_requested(&second));
	CHECK_INT(woken, 1);
	cancel_init(&late, &parent);
	CHECK(cancel_requested(&late));
	cancel_done(&late);
	cancel_done(&second);
	cancel_done(&first);
	cancel_done(&parent);
}

TEST(no_cancel_is_never_fired)
{
	int woken = 0;
	struct cancel_watch watch = { .wake = count, .arg = &woken };

	CHECK(!cancel_requested(NULL));
	cancel_watch_add(NULL, &watch);
	cancel_watch_remove(NULL, &watch);
	CHECK_INT(woken, 0);
}

static void *request(void *arg)
{
	cancel_request(arg);
	return NULL;
}

/* Watches come and go while another thread fires: for ASan and TSan. */
TEST(removing_while_firing_is_safe)
{
	for (int round = 0; round < 200; round++) {
		struct cancel parent, child;
		int woken = 0;
		struct cancel_watch watch = { .wake = count, .arg = &woken };
		pthread_t thread;

		cancel_init(&parent, NULL);
		CHECK_INT(pthread_create(&thread, NULL, request, &parent), 0);
		cancel_init(&child, &parent);
		cancel_watch_add(&child, &watch);
		cancel_watch_remove(&child, &watch);
		CHECK(woken == 0 || woken == 1);
		cancel_done(&child);
		pthread_join(thread, NULL);
		cancel_done(&parent);
	}
}

TEST_MAIN()
