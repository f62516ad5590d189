/*
 * The engine where it gets difficult: files that change while they are read,
 * failures and cancels in the middle, many jobs and little memory, very large
 * and very holey files.
 */
#include <errno.h>
#include <pthread.h>

#include "base/clock.h"
#include "base/fault.h"
#include "tests/unit/engine_fixture.h"

static void set_faults(const char *faults)
{
	setenv("HIBFS_FAULTS", faults, 1);
	CHECK_INT(fault_init(NULL), 0);
}

static struct snapshot_writer *begin_upload(struct fixture *f,
					    struct source_file *files)
{
	struct snapshot_writer *writer;

	strcpy(f->prefix, "in");
	f->flags = O_RDONLY;
	for (size_t i = 0; i < f->count; i++)
		files[i] = (struct source_file){
			.size = f->sizes[i],
			.chunk_bytes = chunk_bytes_for(f->sizes[i]),
		};
	CHECK_INT(snapshot_writer_new(f->engine, &f->lineage, NULL, &writer,
				      NULL),
		  0);
	return writer;
}

/* req: T11 */
TEST(a_file_that_vanished_or_shrank_is_left_to_the_next_round)
{
	struct source_file files[FILES] = { 0 };
	struct hib_error error = HIB_ERROR_INIT;
	struct snapshot_writer *writer;
	struct fixture f;

	set_up(&f);
	for (int i = 0; i < 3; i++)
		make_file(&f, "in", 1000000, 5 + (unsigned)i, false);
	CHECK_INT(unlinkat(f.dirfd, "in0000", 0), 0);
	{
		CLEANUP_CLOSE int fd = openat(f.dirfd, "in0001", O_WRONLY);

		CHECK_INT(ftruncate(fd, 300000), 0);
	}
	writer = begin_upload(&f, files);
	CHECK_INT(snapshot_writer_round(writer, files, f.count, open_file, &f,
					&f.call, &error),
		  0);
	CHECK(files[0].ret_changed_size && files[0].ret_record_count == 0);
	CHECK(files[1].ret_changed_size && files[1].ret_record_count == 4);
	CHECK(!files[2].ret_changed_size && files[2].ret_record_count == 4);
	CHECK_INT(snapshot_writer_flush(writer, &f.call, &error), 0);
	snapshot_writer_free(writer);
	free_sources(&f, files);
	tear_down(&f);
}

static int open_but_one(void *arg, size_t index, const char **ret_path,
			struct hib_error *error)
{
	*ret_path = "the path";
	return index == 7 ? hib_fail(error, EACCES, "no")
			  : open_file(arg, index, ret_path, error);
}

/* req: T4 */
TEST(the_first_failure_is_told_and_failing_twice_is_harmless)
{
	struct source_file files[FILES] = { 0 };
	struct hib_error error = HIB_ERROR_INIT;
	struct snapshot_writer *writer;
	struct fixture f;

	set_up(&f);
	make_files(&f);
	writer = begin_upload(&f, files);
	CHECK_INT(snapshot_writer_round(writer, files, f.count, open_but_one,
					&f, &f.call, &error),
		  -EACCES);
	CHECK_STR(error.message, "no");
	CHECK_INT(snapshot_writer_flush(writer, &f.call, &error), -EACCES);
	snapshot_writer_free(writer);
	free_sources(&f, files);
	tear_down(&f);
}

#ifdef HIBFS_FAULT_POINTS
/* req: T4 T13 */
TEST(every_pack_failing_is_one_failure)
{
	static const char *const faults[] = {
		"upload.pack.before=always-fail:28",
		"upload.pack.after=always-fail:28",
	};
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		struct source_file files[FILES] = { 0 };
		struct hib_error error = HIB_ERROR_INIT;
		struct snapshot_writer *writer;
		struct fixture f;
		int r;

		set_up(&f);
		make_files(&f);
		set_faults(faults[i]);
		writer = begin_upload(&f, files);
		r = snapshot_writer_round(writer, files, f.count, open_file, &f,
					  &f.call, &error);
		if (r == 0)
			r = snapshot_writer_flush(writer, &f.call, &error);
		CHECK_INT(r, -ENOSPC);
		CHECK(strstr(error.message, "upload.pack."));
		snapshot_writer_free(writer);
		set_faults("");
		free_sources(&f, files);
		tear_down(&f);
	}
}

/* req: T4 */
TEST(a_fetch_that_fails_leaves_nothing_under_way)
{
	struct source_file files[FILES] = { 0 };
	struct hib_error error = HIB_ERROR_INIT;
	struct chunk_table *table;
	uint64_t first[FILES];
	struct fixture f;

	set_up(&f);
	make_files(&f);
	upload(&f, NULL, files, &table, first);
	set_faults("fetch.pack.before=fail:5@2");
	CHECK_INT(fetch(&f, files, table, first, &error), -EIO);
	set_faults("");
	CHECK_INT(fetch(&f, files, table, first, &error), 0);
	for (size_t i = 0; i < f.count; i++)
		check_same(&f, i);
	chunk_table_free(table);
	free_sources(&f, files);
	tear_down(&f);
}
#endif

struct cancelling {
	struct fixture *fixture;
	size_t at; /* the file at whose opening it fires */
};

static int open_and_cancel(void *arg, size_t index, const char **ret_path,
			   struct hib_error *error)
{
	struct cancelling *cancelling = arg;

	if (index == cancelling->at)
		cancel_request(cancelling->fixture->call.cancel);
	return open_file(cancelling->fixture, index, ret_path, error);
}

/* req: T5 */
TEST(a_cancel_in_the_middle_of_an_upload_ends_it)
{
	for (size_t at = 0; at < 13; at += 3) {
		struct source_file files[FILES] = { 0 };
		struct hib_error error = HIB_ERROR_INIT;
		struct snapshot_writer *writer;
		struct cancelling cancelling;
		struct cancel cancel;
		struct fixture f;
		uint64_t begin;

		set_up(&f);
		make_files(&f);
		cancel_init(&cancel, NULL);
		f.call.cancel = &cancel;
		cancelling = (struct cancelling){ &f, at };
		writer = begin_upload(&f, files);
		begin = clock_monotonic_ms();
		CHECK_INT(snapshot_writer_round(writer, files, f.count,
						open_and_cancel, &cancelling,
						&f.call, &error),
			  -ECANCELED);
		CHECK(clock_monotonic_ms() - begin < 5000);
		snapshot_writer_free(writer);
		cancel_done(&cancel);
		free_sources(&f, files);
		tear_down(&f);
	}
}

/* Targets for the files that went up. */
static void make_targets(const struct fixture *f,
			 const struct source_file *files, const uint64_t *first,
			 struct target_file *ret)
{
	for (size_t i = 0; i < f->count; i++)
		ret[i] = (struct target_file){
			.size = files[i].size,
			.chunk_bytes = files[i].chunk_bytes,
			.first_chunk = first[i],
			.chunk_count = files[i].ret_record_count,
			.sparse = files[i].ret_sparse,
			.extents = files[i].ret_extents,
			.extent_count = files[i].ret_extent_count,
		};
}

/* req: T5 */
TEST(a_cancel_in_the_middle_of_a_download_ends_it)
{
	struct source_file files[FILES] = { 0 };
	struct target_file targets[FILES];
	struct hib_error error = HIB_ERROR_INIT;
	struct cancelling cancelling;
	struct chunk_table *table;
	uint64_t first[FILES];
	struct cancel cancel;
	struct fixture f;

	set_up(&f);
	make_files(&f);
	upload(&f, NULL, files, &table, first);
	cancel_init(&cancel, NULL);
	f.call.cancel = &cancel;
	strcpy(f.prefix, "out");
	f.flags = O_WRONLY | O_CREAT;
	cancelling = (struct cancelling){ &f, 5 };
	make_targets(&f, files, first, targets);
	CHECK_INT(engine_fetch(f.engine, &f.lineage, table, targets, f.count,
			       open_and_cancel, &cancelling, true, &f.call,
			       &error),
		  -ECANCELED);
	cancel_done(&cancel);
	chunk_table_free(table);
	free_sources(&f, files);
	tear_down(&f);
}

/* req: T9 */
TEST(heads_and_small_files_come_first_and_in_path_order)
{
	struct source_file files[FILES] = { 0 };
	struct chunk_table *table;
	uint64_t first[FILES], before = 0;
	struct fixture f;

	set_up(&f);
	for (unsigned i = 0; i < 30; i++)
		make_file(&f, "in", i % 2 ? 5000 : 600000, 100 + i, false);
	upload(&f, NULL, files, &table, first);
	for (size_t i = 0; i < f.count; i++) {
		const struct chunk_record *head = &table->records[first[i]];

		CHECK_INT(head->pack, 0);
		CHECK(head->offset > before);
		before = head->offset;
	}
	for (size_t i = 0; i < f.count; i++)
		for (uint64_t c = 1; c < files[i].ret_record_count; c++)
			CHECK(table->records[first[i] + c].offset > before);
	chunk_table_free(table);
	free_sources(&f, files);
	tear_down(&f);
}

/* req: T9 */
TEST(one_chunk_in_many_places_goes_over_the_network_once)
{
	struct source_file files[FILES] = { 0 };
	struct hib_error error = HIB_ERROR_INIT;
	struct chunk_table *table;
	uint64_t first[FILES];
	struct fixture f;

	set_up(&f);
	for (int i = 0; i < 20; i++)
		make_file(&f, "in", 1500000, 42, false);
	upload(&f, NULL, files, &table, first);
	CHECK(atomic_load(&f.progress.bytes_sent) < 1600000);
	CHECK_INT(fetch(&f, files, table, first, &error), 0);
	CHECK(atomic_load(&f.progress.bytes_received) < 1600000);
	for (size_t i = 0; i < f.count; i++)
		check_same(&f, i);
	chunk_table_free(table);
	free_sources(&f, files);
	tear_down(&f);
}

TEST(what_is_not_wanted_is_not_fetched)
{
	struct source_file files[FILES] = { 0 };
	struct hib_error error = HIB_ERROR_INIT;
	struct chunk_table *table;
	uint64_t first[FILES];
	struct fixture f;

	set_up(&f);
	for (unsigned i = 0; i < 4; i++)
		make_file(&f, "in", 8000000, 1 + i, false);
	upload(&f, NULL, files, &table, first);
	f.count = 1; /* the first alone */
	CHECK_INT(fetch(&f, files, table, first, &error), 0);
	check_same(&f, 0);
	CHECK(atomic_load(&f.progress.bytes_received) < 20000000);
	f.count = 4;
	chunk_table_free(table);
	free_sources(&f, files);
	tear_down(&f);
}

/* req: P3 */
TEST(zero_bytes_that_are_no_hole_come_back_as_data)
{
	struct source_file files[FILES] = { 0 };
	struct hib_error error = HIB_ERROR_INIT;
	CLEANUP_FREE uint8_t *zeros = calloc(1, 2000000);
	struct chunk_table *table;
	uint64_t first[FILES];
	struct fixture f;
	int fd;

	set_up(&f);
	make_file(&f, "in", 2000000, 1, true);
	make_file(&f, "in", 2000000, 2, true);
	fd = openat(f.dirfd, "in0000", O_WRONLY);
	CHECK_INT(file_write_full(fd, zeros, 2000000, 0), 0);
	close(fd);
	fd = openat(f.dirfd, "in0001", O_WRONLY);
	CHECK_INT(file_write_full(fd, zeros, 1000000, 500000), 0);
	close(fd);
	upload(&f, NULL, files, &table, first);
	CHECK(table->records[first[0]].flags == CHUNK_ZERO);
	CHECK_INT(fetch(&f, files, table, first, &error), 0);
	check_same(&f, 0);
	check_same(&f, 1);
	chunk_table_free(table);
	free_sources(&f, files);
	tear_down(&f);
}

static void write_blocks(struct fixture *f, const char *name, uint64_t size,
			 const uint64_t *offsets, size_t count)
{
	CLEANUP_CLOSE int fd = openat(f->dirfd, name, O_CREAT | O_WRONLY, 0600);
	uint8_t block[4096];

	memset(block, 7, sizeof(block));
	CHECK_INT(ftruncate(fd, (off_t)size), 0);
	for (size_t i = 0; i < count; i++)
		CHECK_INT(file_write_full(fd, block, sizeof(block), offsets[i]),
			  0);
}

static bool block_is_data(struct fixture *f, const char *name, uint64_t offset)
{
	CLEANUP_CLOSE int fd = openat(f->dirfd, name, O_RDONLY);
	uint8_t block[4096];

	CHECK_INT(file_read_full(fd, block, sizeof(block), offset), 0);
	CHECK(block[0] == block[4095]);
	CHECK(block[0] == 7 ||
	      lseek(fd, (off_t)offset, SEEK_DATA) != (off_t)offset);
	return block[0] == 7;
}

/* req: F4 P3 */
TEST(a_tebibyte_of_hole_takes_no_time)
{
	static const uint64_t tebibyte = 1ull << 40;
	const uint64_t data[] = { 4096, tebibyte / 2, tebibyte - 4096 };
	struct source_file files[FILES] = { 0 };
	struct hib_error error = HIB_ERROR_INIT;
	uint64_t first[FILES], begin;
	struct chunk_table *table;
	struct fixture f;

	set_up(&f);
	write_blocks(&f, "in0000", tebibyte, data, ARRAY_SIZE(data));
	f.sizes[f.count++] = tebibyte;
	begin = clock_monotonic_ms();
	upload(&f, NULL, files, &table, first);
	CHECK_INT(table->record_count, 262144);
	CHECK_INT(files[0].ret_extent_count, 3);
	CHECK(atomic_load(&f.progress.bytes_read) <= 12u << 20);
	CHECK_INT(fetch(&f, files, table, first, &error), 0);
	CHECK(clock_monotonic_ms() - begin < 10000);
	CHECK_INT(atomic_load(&f.progress.bytes_done), 2 * tebibyte);
	for (size_t i = 0; i < ARRAY_SIZE(data); i++) {
		CHECK(block_is_data(&f, "out0000", data[i]));
		CHECK(!block_is_data(&f, "out0000", data[i] ^ 8192));
	}
	chunk_table_free(table);
	free_sources(&f, files);
	tear_down(&f);
}

/* req: F4 P3 */
TEST(more_runs_of_data_than_a_manifest_lists_lose_small_holes_only)
{
	enum { RUNS = 70000 };
	CLEANUP_FREE uint64_t *data = calloc(RUNS + 1, sizeof(*data));
	static const uint64_t far = 50ull << 30;
	struct source_file files[FILES] = { 0 };
	struct hib_error error = HIB_ERROR_INIT;
	struct chunk_table *table;
	uint64_t first[FILES];
	struct fixture f;

	set_up(&f);
	for (uint64_t i = 0; i < RUNS; i++)
		data[i] = i * 8192;
	data[RUNS] = far;
	write_blocks(&f, "in0000", far + 8192, data, RUNS + 1);
	f.sizes[f.count++] = far + 8192;
	upload(&f, NULL, files, &table, first);
	CHECK(files[0].ret_sparse);
	CHECK(files[0].ret_extent_count >= 2 &&
	      files[0].ret_extent_count <= 65536);
	CHECK(atomic_load(&f.progress.bytes_read) < 700u << 20);
	CHECK_INT(fetch(&f, files, table, first, &error), 0);
	for (size_t i = 0; i <= RUNS; i += 1000)
		CHECK(block_is_data(&f, "out0000", data[i]));
	CHECK(!block_is_data(&f, "out0000", far + 4096));
	CHECK(!block_is_data(&f, "out0000", far / 2));
	chunk_table_free(table);
	free_sources(&f, files);
	tear_down(&f);
}

struct blocked_round {
	struct fixture fixture;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool begun, released; /* guarded by lock */
};

static int open_and_wait(void *arg, size_t index, const char **ret_path,
			 struct hib_error *error)
{
	struct blocked_round *round = arg;

	pthread_mutex_lock(&round->lock);
	round->begun = true;
	pthread_cond_broadcast(&round->changed);
	while (!round->released)
		pthread_cond_wait(&round->changed, &round->lock);
	pthread_mutex_unlock(&round->lock);
	return open_file(&round->fixture, index, ret_path, error);
}

static void *run_blocked_round(void *arg)
{
	struct blocked_round *round = arg;
	struct fixture *f = &round->fixture;
	struct source_file file = { .size = f->sizes[0],
				    .chunk_bytes = CHUNK_BYTES_MAX };
	struct hib_error error = HIB_ERROR_INIT;
	struct snapshot_writer *writer = NULL;
	int r = snapshot_writer_new(f->engine, &f->lineage, NULL, &writer,
				    &error);

	if (r == 0)
		r = snapshot_writer_round(writer, &file, 1, open_and_wait,
					  round, &f->call, &error);
	if (r < 0)
		TEST_FAIL_THREAD("%s", error.message);
	snapshot_writer_free(writer);
	free(file.ret_records);
	free(file.ret_extents);
	return NULL;
}

/* req: L7 */
TEST(a_small_round_does_not_wait_for_a_large_one)
{
	static const uint64_t block = 4096;
	struct source_file files[FILES] = { 0 };
	struct hib_error error = HIB_ERROR_INIT;
	static struct blocked_round large;
	struct snapshot_writer *writer;
	struct fixture f;

	set_up(&f);
	write_blocks(&f, "large0000", 1ull << 30, &block, 1);
	large = (struct blocked_round){ .fixture = f };
	strcpy(large.fixture.prefix, "large");
	large.fixture.flags = O_RDONLY;
	large.fixture.sizes[0] = 1ull << 30;
	pthread_mutex_init(&large.lock, NULL);
	pthread_cond_init(&large.changed, NULL);
	CHECK_INT(pthread_create(&large.thread, NULL, run_blocked_round,
				 &large),
		  0);
	pthread_mutex_lock(&large.lock);
	while (!large.begun)
		pthread_cond_wait(&large.changed, &large.lock);
	pthread_mutex_unlock(&large.lock);
	make_file(&f, "in", 1000000, 1, false);
	writer = begin_upload(&f, files);
	CHECK_INT(snapshot_writer_round(writer, files, f.count, open_file, &f,
					&f.call, &error),
		  0);
	CHECK_INT(snapshot_writer_flush(writer, &f.call, &error), 0);
	snapshot_writer_free(writer);
	pthread_mutex_lock(&large.lock);
	large.released = true;
	pthread_cond_broadcast(&large.changed);
	pthread_mutex_unlock(&large.lock);
	pthread_join(large.thread, NULL);
	free_sources(&f, files);
	tear_down(&f);
}

struct user {
	struct fixture fixture;
	pthread_t thread;
};

/* Up and down, several times, as one task of many. */
static void *use_engine(void *arg)
{
	struct user *user = arg;
	struct fixture *f = &user->fixture;

	for (int round = 0; round < 3; round++) {
		struct source_file files[FILES] = { 0 };
		struct target_file targets[FILES];
		struct hib_error error = HIB_ERROR_INIT;
		struct snapshot_writer *writer = NULL;
		struct chunk_table *table = chunk_table_new();
		uint64_t first[FILES];
		int r;

		strcpy(f->prefix, "in");
		f->flags = O_RDONLY;
		for (size_t i = 0; i < f->count; i++)
			files[i] = (struct source_file){
				.size = f->sizes[i],
				.chunk_bytes = CHUNK_BYTES_MIN,
			};
		r = snapshot_writer_new(f->engine, &f->lineage, NULL, &writer,
					&error);
		if (r == 0)
			r = snapshot_writer_round(writer, files, f->count,
						  open_file, f, &f->call,
						  &error);
		if (r == 0)
			r = snapshot_writer_flush(writer, &f->call, &error);
		for (size_t i = 0; i < f->count && r == 0; i++)
			r = snapshot_writer_append(writer, &files[i], table,
						   &first[i], &error);
		snapshot_writer_free(writer);
		strcpy(f->prefix, "out");
		f->flags = O_WRONLY | O_CREAT;
		make_targets(f, files, first, targets);
		if (r == 0)
			r = engine_fetch(f->engine, &f->lineage, table, targets,
					 f->count, open_file, f, false,
					 &f->call, &error);
		if (r < 0)
			TEST_FAIL_THREAD("%s", error.message);
		chunk_table_free(table);
		free_sources(f, files);
	}
	return NULL;
}

/* req: T1 T2 */
TEST(many_jobs_share_little_memory)
{
	enum { USERS = 6 };
	struct engine_config config = { .workers = 2, .memory_bytes = 1 };
	struct hib_error error = HIB_ERROR_INIT;
	static struct user users[USERS];
	struct engine *engine, *own;

	set_up(&users[0].fixture);
	config.store = users[0].fixture.store;
	CHECK_INT(engine_new(&config, &engine, &error), 0);
	own = users[0].fixture.engine;
	users[0].fixture.engine = engine;
	for (unsigned i = 0; i < USERS; i++) {
		struct fixture *f = &users[i].fixture;
		char shard[16];

		if (i > 0) {
			*f = users[0].fixture;
			f->dirfd = scratch_new();
			f->count = 0;
			progress_init(&f->progress);
			f->call.progress = &f->progress;
		}
		snprintf(shard, sizeof(shard), "s%u", i);
		CHECK_INT(lineage_init(&f->lineage, "b", shard, &error), 0);
		for (unsigned j = 0; j < 6; j++)
			make_file(f, "in", 6000000 + j * 100000, 10 * i + j,
				  false);
	}
	for (unsigned i = 0; i < USERS; i++)
		CHECK_INT(pthread_create(&users[i].thread, NULL, use_engine,
					 &users[i]),
			  0);
	for (unsigned i = 0; i < USERS; i++)
		pthread_join(users[i].thread, NULL);
	for (unsigned i = 0; i < USERS; i++)
		for (size_t j = 0; j < users[i].fixture.count; j++)
			check_same(&users[i].fixture, j);
	for (unsigned i = 1; i < USERS; i++)
		scratch_done(users[i].fixture.dirfd);
	engine_free(engine);
	users[0].fixture.engine = own;
	tear_down(&users[0].fixture);
}

TEST_MAIN()
