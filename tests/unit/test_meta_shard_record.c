#include <errno.h>

#include "base/clock.h"
#include "meta/shard_record.h"
#include "tests/unit/scratch.h"
#include "tests/unit/test.h"

static const char odd_name[] = "odd \xff\n%";

static struct shard_record sample(const char *bucket, const char *shard)
{
	struct shard_record record;

	CHECK_INT(shard_record_init(&record, bucket, shard, NULL), 0);
	record.state = SHARD_HYDRATING;
	record.seq = 12;
	record.epoch = INT64_MAX;
	uuid_new(record.task);
	strcpy(record.node, "node one");
	record.logical_bytes = UINT64_C(1) << 50;
	record.files = 100000;
	record.stub = true;
	strcpy(record.error, "it said \"no\"");
	return record;
}

static void check_same(const struct shard_record *a,
		       const struct shard_record *b)
{
	CHECK_STR(a->bucket, b->bucket);
	CHECK_STR(a->shard, b->shard);
	CHECK_INT(a->state, b->state);
	CHECK_INT(a->seq, b->seq);
	CHECK_INT(a->epoch, b->epoch);
	CHECK_STR(a->task, b->task);
	CHECK_STR(a->node, b->node);
	CHECK_INT(a->logical_bytes, b->logical_bytes);
	CHECK_INT(a->files, b->files);
	CHECK_INT(a->stub, b->stub);
	CHECK_INT(a->changed_ms, b->changed_ms);
	CHECK_STR(a->error, b->error);
}

/* req: P3 P6 */
TEST(a_record_is_read_back_as_it_was_saved)
{
	struct shard_record record = sample("tenant", odd_name), back;
	int64_t before = clock_realtime_ms();
	int fd = scratch_new();

	CHECK_INT(shard_record_save(fd, &record, NULL), 0);
	CHECK(record.changed_ms >= before);
	CHECK_INT(shard_record_load(fd, "tenant", odd_name, &back, NULL), 0);
	check_same(&back, &record);
	record.state = SHARD_LIVE;
	record.task[0] = record.error[0] = 0;
	CHECK_INT(shard_record_save(fd, &record, NULL), 0);
	CHECK_INT(shard_record_load(fd, "tenant", odd_name, &back, NULL), 0);
	check_same(&back, &record);
	scratch_done(fd);
}

TEST(names_of_255_bytes_work)
{
	struct shard_record record, back;
	char name[256];
	int fd = scratch_new();

	memset(name, 0xff, 255);
	name[255] = 0;
	record = sample(name, name);
	CHECK_INT(shard_record_save(fd, &record, NULL), 0);
	CHECK_INT(shard_record_load(fd, name, name, &back, NULL), 0);
	check_same(&back, &record);
	scratch_done(fd);
}

/* req: A2 */
TEST(names_that_leave_the_directory_are_refused)
{
	static const char *const bad[] = { "", ".", "..", "a/b", "/" };
	struct shard_record record;
	int fd = scratch_new();

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK_INT(shard_record_init(&record, bad[i], "s", NULL),
			  -EINVAL);
		CHECK_INT(shard_record_init(&record, "b", bad[i], NULL),
			  -EINVAL);
		CHECK_INT(shard_record_load(fd, "b", bad[i], &record, NULL),
			  -EINVAL);
		CHECK_INT(shard_record_remove(fd, bad[i], "s", NULL), -EINVAL);
	}
	scratch_done(fd);
}

struct seen {
	int count;
	uint64_t seq_sum;
};

static int count(void *arg, const struct shard_record *record)
{
	struct seen *seen = arg;

	seen->count++;
	seen->seq_sum += record->seq;
	return record->seq == 99 ? -ECANCELED : 0;
}

TEST(all_records_are_visited_and_removed_ones_are_not)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct seen seen = { 0 };
	int fd = scratch_new(), empty;

	CHECK_INT(shard_record_each(fd, count, &seen, &error), 0);
	CHECK_INT(seen.count, 0);
	for (int i = 0; i < 20; i++) {
		char shard[20];
		struct shard_record record;

		snprintf(shard, sizeof(shard), "s%d", i);
		record = sample(i % 2 ? "odd" : "even", shard);
		record.seq = (uint64_t)i;
		CHECK_INT(shard_record_save(fd, &record, &error), 0);
	}
	/* A crash between the directory and its record. */
	CHECK_INT(dir_make(fd, "shards/odd/half", 0700, &empty, NULL), 0);
	close(empty);
	CHECK_INT(shard_record_each(fd, count, &seen, &error), 0);
	CHECK_INT(error.code, 0);
	CHECK_INT(seen.count, 20);
	CHECK_INT(seen.seq_sum, 190);
	for (int i = 0; i < 20; i += 2) {
		char shard[20];

		snprintf(shard, sizeof(shard), "s%d", i);
		CHECK_INT(shard_record_remove(fd, "even", shard, &error), 0);
		CHECK_INT(shard_record_remove(fd, "even", shard, &error), 0);
	}
	CHECK(!scratch_has(fd, "shards/even"));
	seen = (struct seen){ 0 };
	CHECK_INT(shard_record_each(fd, count, &seen, &error), 0);
	CHECK_INT(seen.count, 10);
	scratch_done(fd);
}

static void check_refused(const char *text, int code, const char *message)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct shard_record record;
	int fd = scratch_new(), dir;

	CHECK_INT(dir_make(fd, "shards/b/s", 0700, &dir, NULL), 0);
	scratch_write(dir, "state.json", text, strlen(text));
	close(dir);
	CHECK_INT(shard_record_load(fd, "b", "s", &record, &error), -code);
	CHECK(strstr(error.message, ".hibfs/shards/b/s/state.json"));
	CHECK(strstr(error.message, message));
	scratch_done(fd);
}

/* req: T10 */
TEST(broken_and_newer_records_are_refused_naming_the_file)
{
	check_refused("", EBADMSG, "broken JSON");
	check_refused("{\"format\": \"hibfs-shard\"", EBADMSG, "broken JSON");
	check_refused("{\"format\": \"hibfs-shard\", \"version\": 2}",
		      EPROTONOSUPPORT, "version 2");
	check_refused("{\"format\": \"hibfs-shard\", \"version\": 1}", EBADMSG,
		      "not a number");
	check_refused("{\"format\": \"hibfs-shard\", \"version\": 1, "
		      "\"bucket\": \"..\"}",
		      EBADMSG, "\"bucket\"");
}

static void check_changed(const char *from, const char *to)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(1 << 20);
	CLEANUP(buffer_done) struct buffer changed = BUFFER_INIT(1 << 20);
	struct shard_record record = sample("b", "s");
	const char *at;

	CHECK_INT(shard_record_format(&record, &text, NULL), 0);
	at = strstr(buffer_string(&text), from);
	CHECK(at);
	buffer_append(&changed, text.data, (size_t)(at - buffer_string(&text)));
	buffer_append_string(&changed, to);
	buffer_append_string(&changed, at + strlen(from));
	CHECK_INT(shard_record_parse("x", changed.data, changed.size, &record,
				     NULL),
		  -EBADMSG);
}

TEST(every_member_is_checked)
{
	check_changed("\"hydrating\"", "\"asleep\"");
	check_changed("\"hydrating\"", "null");
	check_changed("\"seq\": 12", "\"seq\": -12");
	check_changed("\"seq\": 12", "\"seq\": 99999999999999999999");
	check_changed("\"stub\": true", "\"stub\": 1");
	check_changed("\"bucket\": \"b\"", "\"bucket\": null");
	check_changed("\"shard\": \"s\"", "\"shard\": \"%2Fetc\"");
	check_changed("\"task\": \"", "\"task\": \"x");
	check_changed("\"files\": 100000", "\"files\": \"x\"");
}

TEST(a_record_of_another_shard_is_refused)
{
	struct shard_record record = sample("b", "s"), back;
	int fd = scratch_new(), b;

	CHECK_INT(shard_record_save(fd, &record, NULL), 0);
	CHECK_INT(dir_open(fd, "shards/b", &b, NULL), 0);
	CHECK_INT(renameat(b, "s", b, "t"), 0);
	CHECK_INT(shard_record_load(fd, "b", "t", &back, NULL), -EBADMSG);
	close(b);
	scratch_done(fd);
}

/* Not a fuzzer, but every prefix and every byte changed once. */
TEST(no_change_of_a_byte_harms_the_parser)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(1 << 20);
	struct shard_record record = sample(odd_name, "s"), back;

	CHECK_INT(shard_record_format(&record, &text, NULL), 0);
	for (size_t i = 0; i < text.size; i++) {
		static const uint8_t values[] = { 0,   0xff, '"', '{', '}',
						  '9', '\\', ',', '%' };
		uint8_t old = text.data[i];

		CHECK(shard_record_parse("x", text.data, i, &back, NULL) < 0);
		for (size_t v = 0; v < sizeof(values); v++) {
			text.data[i] = values[v];
			shard_record_parse("x", text.data, text.size, &back,
					   NULL);
		}
		text.data[i] = old;
	}
	CHECK_INT(shard_record_parse("x", text.data, text.size, &back, NULL),
		  0);
	check_same(&back, &record);
}

TEST_MAIN()
