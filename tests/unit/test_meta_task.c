#include <errno.h>
#include <pthread.h>

#include "base/clock.h"
#include "meta/task.h"
#include "tests/unit/scratch.h"
#include "tests/unit/test.h"

static struct task_registry *open_registry(int fd, size_t keep_count,
					   uint64_t keep_ms)
{
	struct task_registry_config config = {
		.hibfs_fd = fd,
		.keep_count = keep_count,
		.keep_ms = keep_ms,
	};
	struct task_registry *registry = NULL;

	CHECK_INT(task_registry_open(&config, &registry, NULL), 0);
	return registry;
}

static struct task *new_task(struct task_registry *registry,
			     enum task_kind kind)
{
	struct task_params params = { .kind = kind, .bucket = "b\n" };
	struct task *task;

	CHECK_INT(task_new(registry, &params, &task, NULL), 0);
	return task;
}

static void check_member(struct task *task, const char *key, const char *wanted)
{
	json_t *json = task_to_json(task);

	CHECK(json);
	CHECK_STR(json_string_value(json_object_get(json, key)), wanted);
	json_decref(json);
}

static json_int_t progress_member(struct task *task, const char *key)
{
	json_t *json = task_to_json(task);
	json_int_t value = json_integer_value(
		json_object_get(json_object_get(json, "progress"), key));

	json_decref(json);
	return value;
}

static void check_file(int fd, const struct task *task, bool wanted)
{
	char path[100];

	snprintf(path, sizeof(path), "tasks/%s.json", task_id(task));
	CHECK_INT(scratch_has(fd, path), wanted);
}

/* req: E1 E2 */
TEST(a_task_goes_from_queued_to_completed)
{
	int fd = scratch_new();
	struct task_registry *registry = open_registry(fd, 0, 0);
	struct task *task = new_task(registry, TASK_PAUSE), *found;

	CHECK(uuid_is_valid(task_id(task)));
	check_member(task, "status", "queued");
	check_member(task, "kind", "pause");
	check_member(task, "bucket", "b%0A");
	check_member(task, "shard", NULL);
	check_file(fd, task, true);
	task_start(task);
	check_member(task, "status", "running");
	CHECK(!task_has_ended(task));
	progress_add_bytes_total(task_progress(task), 100);
	progress_add_bytes_done(task_progress(task), 60);
	progress_set_phase(task_progress(task), "reading");
	CHECK_INT(progress_member(task, "bytes_total"), 100);
	CHECK_INT(progress_member(task, "bytes_done"), 60);
	CHECK_INT(task_add_result(task, "s1", TASK_COMPLETED, NULL, "a/b"), 0);
	CHECK_INT(task_end(task, TASK_COMPLETED, NULL, NULL), 0);
	check_member(task, "status", "completed");
	check_member(task, "error", NULL);
	found = task_find(registry, task_id(task));
	CHECK(found == task);
	task_unref(found);
	CHECK(!task_find(registry, "01234567-89ab-4def-8123-456789abcdef"));
	CHECK(!task_find(registry, ""));
	task_unref(task);
	task_registry_close(registry);
	scratch_done(fd);
}

/* req: T4 P5 */
TEST(the_first_end_is_the_one_that_counts)
{
	struct hib_error error = HIB_ERROR_INIT;
	int fd = scratch_new();
	struct task_registry *registry = open_registry(fd, 0, 0);
	struct task *task = new_task(registry, TASK_RESUME);

	CHECK_INT(task_end(task, TASK_FAILED, "first", NULL), 0);
	CHECK_INT(task_end(task, TASK_STOPPED, "second", &error), -EALREADY);
	CHECK(strstr(error.message, task_id(task)));
	check_member(task, "status", "failed");
	check_member(task, "error", "first");
	task_start(task);
	check_member(task, "status", "failed");
	CHECK_INT(task_add_result(task, "late", TASK_FAILED, NULL, NULL), 0);
	progress_add_bytes_total(task_progress(task), 5);
	CHECK_INT(progress_member(task, "bytes_total"), 0);
	cancel_request(task_cancel(task));
	check_member(task, "status", "failed");
	task_unref(task);
	task_registry_close(registry);
	scratch_done(fd);
}

/* req: T2 E2 */
TEST(ended_tasks_are_there_after_a_restart)
{
	int fd = scratch_new();
	struct task_registry *registry = open_registry(fd, 0, 0);
	struct task *task = new_task(registry, TASK_PAUSE);
	char id[UUID_TEXT_BYTES];
	json_t *before, *after;

	task_start(task);
	progress_add_bytes_total(task_progress(task), 100);
	task_add_result(task, "s\xff", TASK_FAILED, "no space", "x/y");
	task_add_result(task, "t", TASK_STOPPED, NULL, NULL);
	CHECK_INT(task_end(task, TASK_FAILED, "no space", NULL), 0);
	before = task_to_json(task);
	strcpy(id, task_id(task));
	task_unref(task);
	task_registry_close(registry);

	registry = open_registry(fd, 0, 0);
	task = task_find(registry, id);
	CHECK(task);
	CHECK_STR(task_bucket(task), "b\n");
	after = task_to_json(task);
	CHECK(json_equal(before, after));
	CHECK_INT(json_array_size(json_object_get(after, "results")), 2);
	json_decref(before);
	json_decref(after);
	task_unref(task);
	task_registry_close(registry);
	scratch_done(fd);
}

static enum task_status interrupted(void *arg, struct task *task)
{
	++*(int *)arg;
	CHECK(!task_has_ended(task));
	return task_get_kind(task) == TASK_PAUSE ? TASK_COMPLETED : TASK_FAILED;
}

/* req: E3 */
TEST(what_a_crash_interrupted_is_failed_by_the_next_start)
{
	int fd = scratch_new(), calls = 0;
	struct task_registry *registry = open_registry(fd, 0, 0);
	struct task *queued = new_task(registry, TASK_RESUME);
	struct task *running = new_task(registry, TASK_VERIFY);
	struct task *said = new_task(registry, TASK_PAUSE);
	struct task_registry_config config = {
		.hibfs_fd = fd,
		.interrupted = interrupted,
		.arg = &calls,
	};
	struct task **tasks;
	size_t count;

	task_start(running);
	task_unref(queued);
	task_unref(running);
	task_unref(said);
	task_registry_close(registry); /* without an end, as after kill -9 */

	CHECK_INT(task_registry_open(&config, &registry, NULL), 0);
	CHECK_INT(calls, 3);
	CHECK_INT(task_list(registry, true, &tasks, &count), 0);
	CHECK_INT(count, 0);
	task_list_free(tasks, count);
	CHECK_INT(task_list(registry, false, &tasks, &count), 0);
	CHECK_INT(count, 3);
	for (size_t i = 0; i < count; i++) {
		if (task_get_kind(tasks[i]) == TASK_PAUSE) {
			check_member(tasks[i], "status", "completed");
			continue;
		}
		check_member(tasks[i], "status", "failed");
		check_member(tasks[i], "error",
			     "the daemon ended while the task was queued");
	}
	task_list_free(tasks, count);
	task_registry_close(registry);

	CHECK_INT(task_registry_open(&config, &registry, NULL), 0);
	CHECK_INT(calls, 3);
	task_registry_close(registry);
	scratch_done(fd);
}

/* Until what ended before is older than keep_ms = 1 on both clocks. */
static void let_time_pass(void)
{
	uint64_t start_ms = clock_monotonic_ms();
	int64_t wall_ms = clock_realtime_ms();

	while (clock_monotonic_ms() < start_ms + 3 ||
	       clock_realtime_ms() < wall_ms + 3)
		;
}

/* req: E4 */
TEST(ended_tasks_are_dropped_by_count_and_only_after_their_time)
{
	int fd = scratch_new();
	struct task_registry *registry = open_registry(fd, 3, 3600 * 1000);
	struct task *tasks[6], **list;
	size_t count;

	for (int i = 0; i < 6; i++)
		tasks[i] = new_task(registry, TASK_GC);
	for (int i = 5; i > 0; i--)
		CHECK_INT(task_end(tasks[i], TASK_COMPLETED, NULL, NULL), 0);
	for (int i = 0; i < 6; i++)
		check_file(fd, tasks[i], true);
	for (int i = 0; i < 6; i++)
		task_unref(tasks[i]);
	task_registry_close(registry);

	/* Long enough has passed now. */
	let_time_pass();
	registry = open_registry(fd, 3, 1);
	CHECK_INT(task_list(registry, false, &list, &count), 0);
	CHECK_INT(count, 3);
	task_list_free(list, count);
	let_time_pass();
	for (int i = 0; i < 3; i++) {
		struct task *task = new_task(registry, TASK_GC);

		CHECK_INT(task_end(task, TASK_COMPLETED, NULL, NULL), 0);
		task_unref(task);
		let_time_pass();
	}
	CHECK_INT(task_list(registry, false, &list, &count), 0);
	CHECK_INT(count, 3);
	for (size_t i = 0; i < count; i++)
		check_file(fd, list[i], true);
	task_list_free(list, count);
	task_registry_close(registry);
	scratch_done(fd);
}

TEST(a_broken_task_file_is_set_aside_and_a_newer_one_refused)
{
	struct hib_error error = HIB_ERROR_INIT;
	int fd = scratch_new(), tasks;
	struct task_registry_config config = { .hibfs_fd = fd };
	struct task_registry *registry;
	static const char newer[] =
		"{\"format\": \"hibfs-task\", \"version\": 2}";
#define FILE_NAME "01234567-89ab-4def-8123-456789abcdef.json"

	CHECK_INT(dir_make(fd, "tasks", 0700, &tasks, NULL), 0);
	scratch_write(tasks, FILE_NAME, "{", 1);
	scratch_write(tasks, "." FILE_NAME ".tmp", "{", 1);
	scratch_write(tasks, "README", "x", 1);
	registry = open_registry(fd, 0, 0);
	task_registry_close(registry);
	CHECK(!scratch_has(tasks, FILE_NAME));
	CHECK(!scratch_has(tasks, "." FILE_NAME ".tmp"));
	CHECK(scratch_has(tasks, FILE_NAME ".broken"));
	CHECK(scratch_has(tasks, "README"));
	scratch_write(tasks, FILE_NAME, newer, strlen(newer));
	CHECK_INT(task_registry_open(&config, &registry, &error),
		  -EPROTONOSUPPORT);
	CHECK(strstr(error.message, FILE_NAME));
	close(tasks);
	scratch_done(fd);
}

TEST(many_tasks_are_found_by_id)
{
	int fd = scratch_new();
	struct task_registry *registry = open_registry(fd, 0, 0);
	struct task **tasks;
	size_t count;

	for (int i = 0; i < 300; i++)
		task_unref(new_task(registry, TASK_LOAD));
	CHECK_INT(task_list(registry, true, &tasks, &count), 0);
	CHECK_INT(count, 300);
	for (size_t i = 0; i < count; i++) {
		struct task *found = task_find(registry, task_id(tasks[i]));

		CHECK(found == tasks[i]);
		task_unref(found);
	}
	task_list_free(tasks, count);
	task_registry_close(registry);
	scratch_done(fd);
}

/* req: A2 */
TEST(a_target_that_is_no_name_is_refused)
{
	int fd = scratch_new();
	struct task_registry *registry = open_registry(fd, 0, 0);
	struct task_params params = { .bucket = "..", .shard = "x" };
	struct task *task;

	CHECK_INT(task_new(registry, &params, &task, NULL), -EINVAL);
	params = (struct task_params){ .bucket = "b", .shard = "a/b" };
	CHECK_INT(task_new(registry, &params, &task, NULL), -EINVAL);
	task_registry_close(registry);
	scratch_done(fd);
}

TEST(a_parent_cancel_fires_the_task_until_it_ends)
{
	int fd = scratch_new();
	struct task_registry *registry = open_registry(fd, 0, 0);
	struct cancel parent;
	struct task_params params = { .kind = TASK_PAUSE, .parent = &parent };
	struct task *one, *two;

	cancel_init(&parent, NULL);
	CHECK_INT(task_new(registry, &params, &one, NULL), 0);
	CHECK_INT(task_new(registry, &params, &two, NULL), 0);
	CHECK_INT(task_end(two, TASK_COMPLETED, NULL, NULL), 0);
	cancel_request(&parent);
	CHECK(cancel_requested(task_cancel(one)));
	CHECK(!cancel_requested(task_cancel(two)));
	CHECK_INT(task_end(one, TASK_STOPPED, NULL, NULL), 0);
	cancel_done(&parent);
	task_unref(one);
	task_unref(two);
	task_registry_close(registry);
	scratch_done(fd);
}

static void *end_tasks(void *arg)
{
	struct task **tasks = arg;

	for (int i = 0; i < 3; i++) {
		task_start(tasks[i]);
		for (int n = 0; n < 100; n++)
			progress_add_bytes_done(task_progress(tasks[i]), 1);
		if (task_end(tasks[i], TASK_COMPLETED, NULL, NULL) < 0)
			TEST_FAIL_THREAD("end");
	}
	return NULL;
}

static void *fire(void *arg)
{
	cancel_request(arg);
	return NULL;
}

TEST(waiting_ends_with_the_tasks_the_deadline_or_a_cancel)
{
	int fd = scratch_new();
	struct task_registry *registry = open_registry(fd, 0, 0);
	struct task *tasks[4];
	struct cancel cancel;
	pthread_t thread;

	for (int i = 0; i < 4; i++)
		tasks[i] = new_task(registry, TASK_PAUSE);
	CHECK_INT(task_wait(registry, tasks, 3, clock_monotonic_ms() + 10,
			    NULL),
		  -ETIMEDOUT);
	CHECK_INT(task_wait(registry, tasks, 0, 0, NULL), 0);
	CHECK_INT(pthread_create(&thread, NULL, end_tasks, tasks), 0);
	CHECK_INT(task_wait(registry, tasks, 3, clock_monotonic_ms() + 60000,
			    NULL),
		  0);
	pthread_join(thread, NULL);
	CHECK_INT(task_wait(registry, tasks, 3, 0, NULL), 0);

	cancel_init(&cancel, NULL);
	CHECK_INT(pthread_create(&thread, NULL, fire, &cancel), 0);
	CHECK_INT(task_wait(registry, tasks, 4, UINT64_MAX, &cancel),
		  -ECANCELED);
	pthread_join(thread, NULL);
	CHECK_INT(task_wait(registry, tasks, 4, UINT64_MAX, &cancel),
		  -ECANCELED);
	cancel_done(&cancel);
	for (int i = 0; i < 4; i++)
		task_unref(tasks[i]);
	task_registry_close(registry);
	scratch_done(fd);
}

static void *make_and_end(void *arg)
{
	for (int i = 0; i < 20; i++) {
		struct task_params params = { .kind = TASK_GC };
		struct task *task, *found;

		if (task_new(arg, &params, &task, NULL) < 0) {
			TEST_FAIL_THREAD("new");
			return NULL;
		}
		task_start(task);
		progress_add_requests(task_progress(task), 1);
		json_decref(task_to_json(task));
		found = task_find(arg, task_id(task));
		task_unref(found);
		task_end(task, TASK_COMPLETED, NULL, NULL);
		task_unref(task);
	}
	return NULL;
}

/* For TSan: makers, enders, readers and the dropping of old ones at once. */
TEST(many_threads_share_a_registry)
{
	int fd = scratch_new();
	struct task_registry *registry = open_registry(fd, 5, 1);
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		CHECK_INT(pthread_create(&threads[i], NULL, make_and_end,
					 registry),
			  0);
	for (int i = 0; i < 50; i++) {
		struct task **tasks;
		size_t count;

		CHECK_INT(task_list(registry, false, &tasks, &count), 0);
		for (size_t n = 0; n < count; n++)
			json_decref(task_to_json(tasks[n]));
		task_list_free(tasks, count);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	task_registry_close(registry);
	scratch_done(fd);
}

TEST(a_task_outlives_its_registry)
{
	int fd = scratch_new();
	struct task_registry *registry = open_registry(fd, 0, 0);
	struct task *task = new_task(registry, TASK_DROP);

	task_registry_close(registry);
	check_member(task, "status", "queued");
	CHECK_INT(task_end(task, TASK_STOPPED, NULL, NULL), 0);
	task_unref(task);
	scratch_done(fd);
}

TEST_MAIN()
