#include <errno.h>
#include <pthread.h>

#include "base/clock.h"
#include "meta/event.h"
#include "tests/unit/scratch.h"
#include "tests/unit/test.h"

static struct event_log *open_log(int fd, size_t keep)
{
	struct event_log_config config = {
		.hibfs_fd = fd,
		.node = "left",
		.otp_node = "left@host",
		.keep = keep,
	};
	struct event_log *log = NULL;

	CHECK_INT(event_log_open(&config, &log, NULL), 0);
	return log;
}

static uint64_t append(struct event_log *log, const char *description)
{
	uint64_t id;

	CHECK_INT(event_append(log, EVENT_INFO, description, NULL, &id, NULL),
		  0);
	return id;
}

static size_t count_after(struct event_log *log, uint64_t since_id,
			  json_int_t *ret_first)
{
	struct event_filter filter = { .since_id = since_id };
	json_t *events;
	size_t count;

	CHECK_INT(event_read(log, &filter, &events, NULL), 0);
	count = json_array_size(events);
	if (ret_first)
		*ret_first = json_integer_value(
			json_object_get(json_array_get(events, 0), "event_id"));
	json_decref(events);
	return count;
}

static void read_file(int fd, struct buffer *text)
{
	buffer_clear(text);
	CHECK_INT(file_read_all(fd, "events.jsonl", text, NULL), 0);
}

/* req: E1 */
TEST(an_event_has_exactly_the_documented_fields)
{
	static const char *const keys[] = {
		"timestamp",   "event_id", "component",
		"description", "severity", "node",
		"otp_node",    "uuid",	   "extra_attributes",
	};
	int fd = scratch_new();
	struct event_log *log = open_log(fd, 0);
	struct event_filter filter = { 0 };
	json_t *events, *event;

	CHECK_INT(event_append(log, EVENT_ERROR, "Pause failed",
			       json_pack("{s:s}", "bucket", "b"), NULL, NULL),
		  0);
	CHECK_INT(event_read(log, &filter, &events, NULL), 0);
	event = json_array_get(events, 0);
	CHECK_INT(json_object_size(event), ARRAY_SIZE(keys));
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		CHECK(json_object_get(event, keys[i]));
#define TEXT(key) json_string_value(json_object_get(event, key))
	CHECK_INT(strlen(TEXT("timestamp")), 24);
	CHECK_STR(TEXT("component"), "hibfs");
	CHECK_STR(TEXT("description"), "Pause failed");
	CHECK_STR(TEXT("severity"), "error");
	CHECK_STR(TEXT("node"), "left");
	CHECK_STR(TEXT("otp_node"), "left@host");
	CHECK_INT(strlen(TEXT("uuid")), 36);
	json_decref(events);
	event_log_close(log);
	scratch_done(fd);
}

/* req: E7 */
TEST(ids_grow_over_restarts)
{
	int fd = scratch_new();
	struct event_log *log = open_log(fd, 0);

	CHECK_INT(event_last_id(log), 0);
	CHECK_INT(append(log, "a"), 1);
	CHECK_INT(append(log, "b"), 2);
	event_log_close(log);
	log = open_log(fd, 0);
	CHECK_INT(event_last_id(log), 2);
	CHECK_INT(append(log, "c"), 3);
	CHECK_INT(count_after(log, 0, NULL), 3);
	CHECK_INT(count_after(log, 1, NULL), 2);
	CHECK_INT(count_after(log, 3, NULL), 0);
	CHECK_INT(count_after(log, 99, NULL), 0);
	event_log_close(log);
	scratch_done(fd);
}

/* req: E7 */
TEST(the_last_ones_are_kept_across_restarts_and_the_file_stays_short)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(1 << 20);
	int fd = scratch_new();
	struct event_log *log = open_log(fd, 10);
	json_int_t first;
	size_t lines;

	for (int i = 0; i < 95; i++) {
		append(log, "x");
		lines = 0;
		read_file(fd, &text);
		for (size_t n = 0; n < text.size; n++)
			lines += text.data[n] == '\n';
		CHECK(lines <= 20);
		CHECK(lines >= (size_t)(i < 9 ? i + 1 : 10));
	}
	CHECK_INT(count_after(log, 0, &first), 10);
	CHECK_INT(first, 86);
	event_log_close(log);
	log = open_log(fd, 10);
	CHECK_INT(count_after(log, 0, &first), 10);
	CHECK_INT(first, 86);
	CHECK_INT(append(log, "x"), 96);
	event_log_close(log);
	scratch_done(fd);
}

/* req: E7 */
TEST(a_torn_last_line_is_dropped_and_nothing_else)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(1 << 20);
	CLEANUP(buffer_done) struct buffer after = BUFFER_INIT(1 << 20);
	int fd = scratch_new();
	struct event_log *log = open_log(fd, 0);
	size_t last;

	append(log, "a");
	append(log, "b");
	append(log, "c");
	event_log_close(log);
	read_file(fd, &text);
	last = text.size - 1;
	while (text.data[last - 1] != '\n')
		last--;
	/* Cut everywhere in the last line, its newline included. */
	for (size_t cut = last; cut < text.size; cut++) {
		scratch_write(fd, "events.jsonl", text.data, cut);
		log = open_log(fd, 0);
		CHECK_INT(event_last_id(log), 2);
		read_file(fd, &after);
		CHECK_INT(after.size, last);
		CHECK_MEM(after.data, text.data, last);
		CHECK_INT(append(log, "d"), 3);
		CHECK_INT(count_after(log, 0, NULL), 3);
		event_log_close(log);
	}
	scratch_done(fd);
}

TEST(a_line_that_is_no_event_is_passed_over)
{
	static const char lines[] = "{\"event_id\":5}\n"
				    "nonsense\n"
				    "\n"
				    "\xff\0\n"
				    "{\"event_id\":3}\n"
				    "{\"event_id\":-1}\n"
				    "{\"event_id\":7}\n"
				    "{\"event_id\":\"8\"}\n";
	int fd = scratch_new();
	struct event_log *log;

	scratch_write(fd, "events.jsonl", lines, sizeof(lines) - 1);
	log = open_log(fd, 0);
	CHECK_INT(event_last_id(log), 7);
	CHECK_INT(count_after(log, 0, NULL), 2);
	CHECK_INT(append(log, "x"), 8);
	event_log_close(log);
	log = open_log(fd, 0);
	CHECK_INT(count_after(log, 0, NULL), 3);
	event_log_close(log);
	scratch_done(fd);
}

static size_t count_matching(struct event_log *log, struct event_filter filter)
{
	json_t *events;
	size_t count;

	CHECK_INT(event_read(log, &filter, &events, NULL), 0);
	count = json_array_size(events);
	json_decref(events);
	return count;
}

TEST(a_filter_selects)
{
	int fd = scratch_new();
	struct event_log *log = open_log(fd, 0);

	for (int i = 0; i < 12; i++)
		CHECK_INT(event_append(log, (enum event_severity)(i % 3), "x",
				       json_pack("{s:s, s:s}", "bucket",
						 i % 2 ? "odd" : "even",
						 "task_id", "t"),
				       NULL, NULL),
			  0);
#define COUNT(...) count_matching(log, (struct event_filter){ __VA_ARGS__ })
	CHECK_INT(COUNT(.limit = 5), 5);
	CHECK_INT(COUNT(.severity = EVENT_WARNING), 8);
	CHECK_INT(COUNT(.severity = EVENT_ERROR), 4);
	CHECK_INT(COUNT(.bucket = "odd"), 6);
	CHECK_INT(COUNT(.bucket = "odd", .since_id = 6), 3);
	CHECK_INT(COUNT(.bucket = "none"), 0);
	CHECK_INT(COUNT(.shard = "s"), 0);
	CHECK_INT(COUNT(.task_id = "t", .limit = 100), 12);
	event_log_close(log);
	scratch_done(fd);
}

TEST(too_long_an_event_is_refused_and_odd_text_made_readable)
{
	int fd = scratch_new();
	struct event_log *log = open_log(fd, 0);
	char *text = malloc(EVENT_LINE_BYTES);

	memset(text, 'x', EVENT_LINE_BYTES);
	text[EVENT_LINE_BYTES - 1] = 0;
	CHECK_INT(event_append(log, EVENT_INFO, text, NULL, NULL, NULL),
		  -EMSGSIZE);
	free(text);
	CHECK_INT(append(log, "\xff\n"), 1);
	CHECK_INT(count_after(log, 0, NULL), 1);
	event_log_close(log);
	scratch_done(fd);
}

static void *append_some(void *arg)
{
	for (int i = 0; i < 25; i++)
		if (event_append(arg, EVENT_INFO, "x", NULL, NULL, NULL) < 0)
			TEST_FAIL_THREAD("append");
	return NULL;
}

static void *fire(void *arg)
{
	cancel_request(arg);
	return NULL;
}

TEST(followers_see_every_event_in_order)
{
	int fd = scratch_new();
	struct event_log *log = open_log(fd, 20);
	uint64_t seen = 0;
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		CHECK_INT(pthread_create(&threads[i], NULL, append_some, log),
			  0);
	while (seen < 100) {
		CHECK_INT(event_wait(log, seen, clock_monotonic_ms() + 60000,
				     NULL),
			  0);
		count_after(log, seen, NULL);
		seen = event_last_id(log);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK_INT(event_last_id(log), 100);
	event_log_close(log);
	log = open_log(fd, 20);
	CHECK_INT(count_after(log, 0, NULL), 20);
	event_log_close(log);
	scratch_done(fd);
}

TEST(waiting_ends_at_the_deadline_or_by_a_cancel)
{
	int fd = scratch_new();
	struct event_log *log = open_log(fd, 0);
	struct cancel cancel;
	pthread_t thread;

	CHECK_INT(event_wait(log, 0, clock_monotonic_ms() + 10, NULL),
		  -ETIMEDOUT);
	cancel_init(&cancel, NULL);
	CHECK_INT(pthread_create(&thread, NULL, fire, &cancel), 0);
	CHECK_INT(event_wait(log, 0, UINT64_MAX, &cancel), -ECANCELED);
	pthread_join(thread, NULL);
	append(log, "x");
	CHECK_INT(event_wait(log, 0, 0, &cancel), 0);
	cancel_done(&cancel);
	event_log_close(log);
	scratch_done(fd);
}

#ifdef HIBFS_FAULT_POINTS
#include "base/fault.h"

static void arm(const char *faults)
{
	setenv("HIBFS_FAULTS", faults, 1);
	CHECK_INT(fault_init(NULL), 0);
}

/* req: E7 */
TEST(a_failed_append_leaves_nothing_and_a_failed_compaction_loses_nothing)
{
	int fd = scratch_new();
	struct event_log *log = open_log(fd, 5);

	arm("event.append.after=fail:28");
	CHECK_INT(event_append(log, EVENT_INFO, "x", NULL, NULL, NULL),
		  -ENOSPC);
	CHECK_INT(append(log, "x"), 1);
	arm("file.rename.before=always-fail:28");
	for (int i = 0; i < 30; i++)
		append(log, "x");
	arm("file.rename.after=fail:5");
	for (int i = 0; i < 30; i++)
		append(log, "x");
	arm("");
	CHECK_INT(event_last_id(log), 61);
	event_log_close(log);
	log = open_log(fd, 5);
	CHECK_INT(event_last_id(log), 61);
	CHECK_INT(count_after(log, 0, NULL), 5);
	event_log_close(log);
	scratch_done(fd);
}
#endif

TEST_MAIN()
