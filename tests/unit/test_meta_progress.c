#include <pthread.h>

#include "meta/progress.h"
#include "tests/unit/test.h"

TEST(counters_add_up_and_nobody_need_count)
{
	struct progress progress;
	struct progress_values values;

	progress_init(&progress);
	progress_add_bytes_total(&progress, 10);
	progress_add_bytes_total(&progress, 5);
	progress_add_bytes_done(&progress, 7);
	progress_add_retries(&progress, 1);
	progress_set_phase(&progress, "reading");
	progress_add_bytes_total(NULL, 1);
	progress_set_phase(NULL, "x");
	progress_read(&progress, &values);
	CHECK_INT(values.bytes_total, 15);
	CHECK_INT(values.bytes_done, 7);
	CHECK_INT(values.retries, 1);
	CHECK_STR(values.phase, "reading");
}

/* req: E5 */
TEST(done_is_never_more_than_total)
{
	struct progress progress;
	struct progress_values values;

	progress_init(&progress);
	progress_add_bytes_done(&progress, 7);
	progress_add_files_done(&progress, 2);
	progress_add_files_total(&progress, 1);
	progress_read(&progress, &values);
	CHECK_INT(values.bytes_done, 0);
	CHECK_INT(values.files_done, 1);
}

static void *work(void *arg)
{
	for (int i = 0; i < 1000; i++) {
		progress_add_bytes_total(arg, 2);
		progress_add_bytes_done(arg, 2);
		progress_set_phase(arg, i % 2 ? "a" : "b");
	}
	return NULL;
}

/* req: E5 */
TEST(progress_is_monotonic_while_threads_count)
{
	struct progress progress;
	struct progress_values values = { 0 };
	pthread_t threads[2];
	uint64_t last = 0;

	progress_init(&progress);
	for (int i = 0; i < 2; i++)
		CHECK_INT(pthread_create(&threads[i], NULL, work, &progress),
			  0);
	while (last < 4000) {
		progress_read(&progress, &values);
		CHECK(values.bytes_done >= last);
		CHECK(values.bytes_done <= values.bytes_total);
		last = values.bytes_done;
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

TEST_MAIN()
