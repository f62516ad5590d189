/* The chunk table's bytes, its checks, and the set that looks ids up. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tests/unit/test.h"
#include "transfer/chunk_set.h"
#include "transfer/chunk_table.h"

#define HEADER 64
#define RECORD 48

static struct chunk_table *make_table(void)
{
	struct chunk_table *table = chunk_table_new();
	uint8_t pack[32];
	uint32_t index;
	uint64_t first;

	for (uint8_t i = 0; i < 2; i++) {
		memset(pack, 0x10 + i, sizeof(pack));
		CHECK_INT(chunk_table_add_pack(table, pack, &index), 0);
		CHECK_INT(index, i);
		CHECK_INT(chunk_table_add_pack(table, pack, &index), 0);
		CHECK_INT(index, i);
	}
	CHECK_INT(chunk_table_extend(table, 3, &first), 0);
	CHECK_INT(first, 0);
	table->records[0].flags = CHUNK_ZERO;
	memset(table->records[1].id, 0xaa, 32);
	table->records[1].pack = 1;
	table->records[1].offset = 0x01020304;
	table->records[1].stored_bytes = 0x8090a;
	table->records[1].flags = CHUNK_ZSTD;
	memset(table->records[2].id, 0xbb, 32);
	table->records[2].offset = 32;
	table->records[2].stored_bytes = 1;
	return table;
}

static void write_table(struct buffer *out)
{
	struct chunk_table *table = make_table();

	CHECK_INT(chunk_table_write(table, out, NULL), 0);
	chunk_table_free(table);
}

static int parse(const struct buffer *object, struct hib_error *error)
{
	struct chunk_table *table = NULL;
	int r = chunk_table_parse("chunks/1", object->data, object->size,
				  &table, error);

	CHECK((r == 0) == (table != NULL));
	if (r < 0 && error)
		CHECK(strstr(error->message, "chunks/1"));
	chunk_table_free(table);
	return r;
}

/* req: T6 */
TEST(the_bytes_are_those_of_the_format)
{
	CLEANUP(buffer_done) struct buffer object = BUFFER_INIT(4096);
	static const uint8_t record[16] = { 1,	  0,	0, 0, 4, 3, 2, 1,
					    0x0a, 0x09, 8, 0, 2, 0, 0, 0 };

	write_table(&object);
	CHECK_INT(object.size, HEADER + 3 * RECORD + 2 * 32);
	CHECK(memcmp(object.data, "HIBCHNK1\1\0\0\0\x40\0\0\0\3\0", 18) == 0);
	CHECK_INT(object.data[24], 2);
	CHECK_INT(object.data[32], RECORD);
	CHECK(memcmp(object.data + HEADER + RECORD + 32, record, 16) == 0);
	CHECK_INT(object.data[HEADER + 3 * RECORD + 32], 0x11);
}

TEST(what_is_written_is_read_again)
{
	CLEANUP(buffer_done) struct buffer object = BUFFER_INIT(4096);
	struct chunk_table *table = make_table(), *again;

	write_table(&object);
	CHECK_INT(chunk_table_parse("x", object.data, object.size, &again,
				    NULL),
		  0);
	CHECK_INT(again->record_count, 3);
	CHECK_INT(again->pack_count, 2);
	CHECK(memcmp(again->records, table->records, 3 * RECORD) == 0);
	CHECK(memcmp(again->packs, table->packs, 64) == 0);
	chunk_table_free(table);
	chunk_table_free(again);
}

TEST(an_empty_table_is_one)
{
	CLEANUP(buffer_done) struct buffer object = BUFFER_INIT(4096);
	struct chunk_table *table = chunk_table_new();

	CHECK_INT(chunk_table_write(table, &object, NULL), 0);
	CHECK_INT(object.size, HEADER);
	CHECK_INT(parse(&object, NULL), 0);
	chunk_table_free(table);
}

/* req: T10 */
TEST(a_newer_version_and_sealed_chunks_are_refused_by_name)
{
	CLEANUP(buffer_done) struct buffer object = BUFFER_INIT(4096);
	struct hib_error error = HIB_ERROR_INIT;

	write_table(&object);
	object.data[8] = 5;
	CHECK_INT(parse(&object, &error), -EPROTONOSUPPORT);
	CHECK(strstr(error.message, "version 5"));
	object.data[8] = 1;
	object.data[HEADER + RECORD + 44] = CHUNK_ZSTD | CHUNK_SEALED;
	CHECK_INT(parse(&object, &error), -EPROTONOSUPPORT);
	CHECK(strstr(error.message, "sealed"));
}

static void refused(size_t at, uint8_t value)
{
	CLEANUP(buffer_done) struct buffer object = BUFFER_INIT(4096);
	struct hib_error error = HIB_ERROR_INIT;

	write_table(&object);
	CHECK(object.data[at] != value);
	object.data[at] = value;
	if (parse(&object, &error) != -EBADMSG)
		TEST_FAIL("byte %zu = %u is accepted", at, value);
}

/* req: T9 */
TEST(what_cannot_be_is_refused)
{
	CLEANUP(buffer_done) struct buffer object = BUFFER_INIT(4096);
	const size_t zero = HEADER, one = HEADER + RECORD;

	refused(0, 'X');
	refused(8, 0); /* version */
	refused(12, 65); /* header bytes */
	refused(16, 4); /* more records */
	refused(16, 2);
	refused(23, 0x80); /* very many */
	refused(24, 1); /* packs */
	refused(24, 4); /* more packs than records */
	refused(32, 47); /* record bytes */
	refused(36, 1); /* flags */
	refused(one + 32, 2); /* a pack that is not there */
	refused(one + 42, 0x41); /* larger than a chunk */
	refused(one + 44, 8); /* an unknown flag */
	refused(zero, 1); /* a zero chunk with an id */
	refused(zero + 40, 1); /* ... with bytes */
	refused(zero + 44, CHUNK_ZERO | CHUNK_ZSTD);
	refused(zero + 44, 0); /* without bytes, and no zero chunk */
	refused(HEADER + 2 * RECORD + 40, 0);
	write_table(&object);
	for (size_t size = 0; size < object.size; size++) {
		struct chunk_table *table;

		CHECK_INT(chunk_table_parse("x", object.data, size, &table,
					    NULL),
			  -EBADMSG);
	}
}

TEST(chunks_grow_with_the_file)
{
	CHECK_INT(chunk_bytes_for(0), 256 << 10);
	CHECK_INT(chunk_bytes_for((512ull << 20) - 1), 256 << 10);
	CHECK_INT(chunk_bytes_for(512ull << 20), 512 << 10);
	CHECK_INT(chunk_bytes_for(1ull << 30), 1 << 20);
	CHECK_INT(chunk_bytes_for(100ull << 30), 4 << 20);
	CHECK_INT(chunk_bytes_for(UINT64_MAX), 4 << 20);
}

static struct chunk_record record_of(uint32_t number)
{
	struct chunk_record record = { .offset = number, .stored_bytes = 1 };

	/* many begin with the same bytes */
	record.id[0] = (uint8_t)(number % 7);
	memcpy(record.id + 8, &number, sizeof(number));
	return record;
}

/* req: T11 */
TEST(the_set_finds_what_the_parent_and_the_upload_have)
{
	struct chunk_table *parent = chunk_table_new();
	struct chunk_set set;
	uint64_t first;

	CHECK_INT(chunk_table_extend(parent, 2000, &first), 0);
	for (uint32_t i = 0; i < 2000; i++)
		parent->records[i] = record_of(i / 2); /* each twice */
	parent->records[1999] = (struct chunk_record){ .flags = CHUNK_ZERO };
	CHECK_INT(chunk_set_init(&set, parent), 0);
	CHECK_INT(set.slots_used, 1000);
	for (uint32_t i = 500; i < 3000; i++) {
		struct chunk_record record = record_of(i);

		record.pack = 9;
		CHECK_INT(chunk_set_add(&set, &record), 0);
	}
	CHECK_INT(set.count, 2000);
	for (uint32_t i = 0; i < 3000; i++) {
		struct chunk_record wanted = record_of(i);
		const struct chunk_record *found =
			chunk_set_find(&set, wanted.id);

		CHECK(found && found->offset == i);
		CHECK_INT(found->pack, i < 1000 ? 0 : 9);
	}
	for (uint32_t i = 3000; i < 4000; i++) {
		struct chunk_record wanted = record_of(i);

		CHECK(!chunk_set_find(&set, wanted.id));
	}
	chunk_set_done(&set);
	chunk_table_free(parent);
}

TEST(an_empty_set_finds_nothing)
{
	struct chunk_record record = record_of(1);
	struct chunk_set set;

	CHECK_INT(chunk_set_init(&set, NULL), 0);
	CHECK(!chunk_set_find(&set, record.id));
	chunk_set_done(&set);
}

TEST_MAIN()
