/*
 * The engine against a file:// store: what goes up comes back, what is known
 * does not go up again, what is damaged is not written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/engine_fixture.h"

/* req: T9 */
TEST(what_goes_up_comes_back_with_its_holes)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct source_file files[FILES] = { 0 };
	struct chunk_table *table;
	uint64_t first[FILES];
	struct fixture f;

	set_up(&f);
	make_files(&f);
	upload(&f, NULL, files, &table, first);
	CHECK_INT(fetch(&f, files, table, first, &error), 0);
	for (size_t i = 0; i < f.count; i++)
		check_same(&f, i);
	chunk_table_free(table);
	free_sources(&f, files);
	tear_down(&f);
}

/* req: T11 */
TEST(known_chunks_do_not_go_up_again)
{
	struct source_file files[FILES] = { 0 }, again[FILES] = { 0 };
	struct chunk_table *table, *second;
	uint64_t first[FILES], sent;
	struct fixture f;

	set_up(&f);
	make_files(&f);
	upload(&f, NULL, files, &table, first);
	sent = atomic_load(&f.progress.bytes_sent);
	CHECK(sent > 10000000);
	upload(&f, table, again, &second, first);
	CHECK_INT(atomic_load(&f.progress.bytes_sent), sent);
	CHECK_INT(second->pack_count, table->pack_count);
	chunk_table_free(table);
	chunk_table_free(second);
	free_sources(&f, files);
	free_sources(&f, again);
	tear_down(&f);
}

static int flip_byte(void *arg, const char *key,
		     const struct store_object *object)
{
	struct fixture *f = arg;
	char path[2048];
	uint8_t byte;
	int fd;

	if (!strstr(key, "/packs/"))
		return 0;
	snprintf(path, sizeof(path), "%s/store/%s", f->root, key);
	chmod(path, 0600);
	fd = open(path, O_RDWR);
	CHECK(fd >= 0);
	CHECK_INT(pread(fd, &byte, 1, (off_t)object->size / 2), 1);
	byte ^= 4;
	CHECK_INT(pwrite(fd, &byte, 1, (off_t)object->size / 2), 1);
	close(fd);
	return 1;
}

/* req: T9 */
TEST(a_flipped_byte_in_a_pack_is_refused_by_name)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct source_file files[FILES] = { 0 };
	struct chunk_table *table;
	uint64_t first[FILES];
	struct fixture f;

	set_up(&f);
	make_files(&f);
	upload(&f, NULL, files, &table, first);
	store_list(f.store, f.lineage.prefix, NULL, flip_byte, &f, NULL,
		   &error);
	CHECK_INT(fetch(&f, files, table, first, &error), -EBADMSG);
	CHECK(strstr(error.message, "packs/"));
	chunk_table_free(table);
	free_sources(&f, files);
	tear_down(&f);
}

/* req: T5 */
TEST(a_cancelled_upload_ends_with_nothing_under_way)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct source_file files[FILES] = { 0 };
	struct snapshot_writer *writer;
	struct cancel cancel;
	struct fixture f;

	set_up(&f);
	make_files(&f);
	cancel_init(&cancel, NULL);
	cancel_request(&cancel);
	f.call.cancel = &cancel;
	strcpy(f.prefix, "in");
	for (size_t i = 0; i < f.count; i++)
		files[i] = (struct source_file){
			.size = f.sizes[i],
			.chunk_bytes = chunk_bytes_for(f.sizes[i]),
		};
	CHECK_INT(snapshot_writer_new(f.engine, &f.lineage, NULL, &writer,
				      &error),
		  0);
	CHECK_INT(snapshot_writer_round(writer, files, f.count, open_file, &f,
					&f.call, &error),
		  -ECANCELED);
	snapshot_writer_free(writer);
	cancel_done(&cancel);
	free_sources(&f, files);
	tear_down(&f);
}

TEST_MAIN()
