/*
 * Everything that is read from a store is hostile: manifests, chunk tables,
 * packs, bucket.json and epochs, with thousands of systematic and random
 * changes. Nothing may crash (the sanitizers look), be accepted with contents
 * that lead out of a shard, or be refused without a reason.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "meta/bucket_index.h"
#include "meta/epoch.h"
#include "meta/manifest.h"
#include "tests/unit/test.h"
#include "transfer/chunk_table.h"
#include "transfer/pack.h"

#define RANDOM_CHANGES 20000

typedef int (*parse_fn)(const void *data, size_t size, struct hib_error *error);

static struct manifest_entry *add(struct manifest *m, const char *path,
				  enum entry_type type)
{
	struct manifest_entry *entry = manifest_add(m);

	CHECK(entry);
	entry->path = strdup(path);
	entry->type = type;
	entry->mode = 0644;
	entry->mtime.tv_nsec = 5;
	return entry;
}

static struct manifest *sample(void)
{
	struct manifest *m = manifest_new();
	struct manifest_entry *entry;

	m->bucket = strdup("b");
	m->shard = strdup("s\xff");
	strcpy(m->node, "node");
	strcpy(m->task, "7b0c0a3e-6b1e-4b43-9d0c-1d5a5d8f2f10");
	strcpy(m->tool_version, "test");
	m->seq = 3;
	m->epoch = 1;
	add(m, ".", ENTRY_DIRECTORY);
	add(m, "dir", ENTRY_DIRECTORY);
	entry = add(m, "dir/file\xfe", ENTRY_FILE);
	entry->size = 600000;
	entry->chunk_bytes = 262144;
	entry->chunk_count = 3;
	entry->sparse = true;
	entry->extents = calloc(2, sizeof(*entry->extents));
	entry->extents[0] = (struct entry_extent){ 0, 4096 };
	entry->extents[1] = (struct entry_extent){ 300000, 300000 };
	entry->extent_count = 2;
	entry->xattrs = calloc(1, sizeof(*entry->xattrs));
	entry->xattrs[0] = (struct entry_xattr){ strdup("user.a"),
						 (uint8_t *)strdup("v"), 1 };
	entry->xattr_count = 1;
	add(m, "dir/fifo", ENTRY_FIFO)->hard_link_group = 1;
	add(m, "dir/fifo2", ENTRY_FIFO)->hard_link_group = 1;
	add(m, "link", ENTRY_SYMLINK)->target = strdup("dir/../../x");
	manifest_sort(m);
	CHECK_INT(manifest_total(m), 0);
	return m;
}

static bool stays_inside(const char *path)
{
	return path[0] && path[0] != '/' && !strstr(path, "/../") &&
	       strncmp(path, "../", 3) != 0 && strcmp(path, "..") != 0 &&
	       !(strlen(path) > 3 &&
		 strcmp(path + strlen(path) - 3, "/..") == 0);
}

static int parse_manifest(const void *data, size_t size,
			  struct hib_error *error)
{
	struct manifest *m;
	int r = manifest_parse("object", data, size, &m, error);

	if (r == 0) {
		for (size_t i = 0; i < m->entry_count; i++)
			CHECK(stays_inside(m->entries[i].path));
		manifest_free(m);
	}
	return r;
}

static int parse_table(const void *data, size_t size, struct hib_error *error)
{
	struct chunk_table *table;
	int r = chunk_table_parse("object", data, size, &table, error);

	if (r == 0) {
		for (uint64_t i = 0; i < table->record_count; i++)
			CHECK((table->records[i].flags & CHUNK_ZERO) ||
			      table->records[i].pack < table->pack_count);
		chunk_table_free(table);
	}
	return r;
}

static int parse_pack(const void *data, size_t size, struct hib_error *error)
{
	struct chunk_record *records;
	uint32_t *plain, count;
	int r = pack_parse("object", data, size, &records, &plain, &count,
			   error);

	if (r == 0) {
		for (uint32_t i = 0; i < count; i++)
			CHECK((uint64_t)records[i].offset +
				      records[i].stored_bytes <=
			      size);
		free(records);
		free(plain);
	}
	return r;
}

static int parse_bucket(const void *data, size_t size, struct hib_error *error)
{
	struct bucket_index *index;
	int r = bucket_index_parse("object", data, size, &index, error);

	if (r == 0)
		bucket_index_free(index);
	return r;
}

static int parse_epoch(const void *data, size_t size, struct hib_error *error)
{
	struct epoch epoch;

	return epoch_parse("object", data, size, &epoch, error);
}

static void try(parse_fn parse, const uint8_t *data, size_t size)
{
	struct hib_error error = HIB_ERROR_INIT;
	/* of its exact size, so that ASan sees each byte too far */
	uint8_t *copy = malloc(size ? size : 1);

	memcpy(copy, data, size);
	if (parse(copy, size, &error) < 0)
		CHECK(error.code && strstr(error.message, "object"));
	free(copy);
}

static void change(parse_fn parse, const struct buffer *valid)
{
	struct hib_error error = HIB_ERROR_INIT;
	uint8_t *data = malloc(valid->size);
	unsigned seed = 1;

	CHECK_INT(parse(valid->data, valid->size, &error), 0);
	for (size_t size = 0; size < valid->size; size++)
		try(parse, valid->data, size);
	for (int i = 0; i < RANDOM_CHANGES; i++) {
		memcpy(data, valid->data, valid->size);
		for (int n = rand_r(&seed) % 4; n >= 0; n--) {
			static const char bytes[] = "0-9\"{}[],:./\0\xff\n ";
			size_t at = (size_t)rand_r(&seed) % valid->size;

			data[at] =
				rand_r(&seed) % 2
					? (uint8_t)rand_r(&seed)
					: (uint8_t)bytes[(size_t)rand_r(&seed) %
							 (sizeof(bytes) - 1)];
		}
		try(parse, data, valid->size);
	}
	free(data);
}

/* req: A2 T9 T10 */
TEST(a_changed_manifest_is_refused_or_harmless)
{
	CLEANUP(buffer_done) struct buffer out = BUFFER_INIT(1 << 20);
	struct manifest *m = sample();

	CHECK_INT(manifest_write(m, &out, NULL), 0);
	change(parse_manifest, &out);
	manifest_free(m);
}

/* req: T9 T10 */
TEST(a_changed_chunk_table_is_refused_or_harmless)
{
	CLEANUP(buffer_done) struct buffer out = BUFFER_INIT(1 << 20);
	struct chunk_table *table = chunk_table_new();
	uint8_t id[32] = { 1 };
	uint32_t pack;
	uint64_t first;

	CHECK_INT(chunk_table_extend(table, 5, &first), 0);
	CHECK_INT(chunk_table_add_pack(table, id, &pack), 0);
	for (int i = 0; i < 5; i++) {
		table->records[i].flags = i == 2 ? CHUNK_ZERO : CHUNK_ZSTD;
		if (i != 2) {
			table->records[i].id[0] = (uint8_t)i;
			table->records[i].stored_bytes = 1000;
			table->records[i].offset = 32 + 1000 * (uint32_t)i;
		}
	}
	CHECK_INT(chunk_table_write(table, &out, NULL), 0);
	change(parse_table, &out);
	chunk_table_free(table);
}

/* req: T9 T10 */
TEST(a_changed_pack_is_refused_or_harmless)
{
	struct chunk_record record = { .id = { 7 } };
	struct buffer out = BUFFER_INIT(1 << 20);
	uint8_t memory[4096], id[32];
	struct pack pack;

	pack_init(&pack, memory, sizeof(memory));
	for (int i = 0; i < 4; i++) {
		record.id[1] = (uint8_t)i;
		CHECK_INT(pack_append(&pack, "stored bytes", 12, 12, 0,
				      &record),
			  0);
	}
	CHECK_INT(pack_seal(&pack, id), 0);
	CHECK_INT(buffer_append(&out, pack.data, pack.size), 0);
	change(parse_pack, &out);
	buffer_done(&out);
	pack_done(&pack);
}

/* req: A2 T9 T10 */
TEST(a_changed_bucket_index_is_refused_or_harmless)
{
	CLEANUP(buffer_done) struct buffer out = BUFFER_INIT(1 << 20);
	struct bucket_index *index = bucket_index_new("bucket");
	char name[] = "shard\xff";
	struct bucket_shard shard = { name, 3, 2, 100, 4 };

	strcpy(index->node, "node");
	CHECK_INT(bucket_index_set(index, &shard), 0);
	CHECK_INT(bucket_index_format(index, &out, NULL), 0);
	change(parse_bucket, &out);
	bucket_index_free(index);
}

/* req: T9 T10 */
TEST(a_changed_epoch_is_refused_or_harmless)
{
	CLEANUP(buffer_done) struct buffer out = BUFFER_INIT(1 << 20);
	struct epoch epoch = { 3, "node", "task", 5 };

	CHECK_INT(epoch_format(&epoch, &out, NULL), 0);
	change(parse_epoch, &out);
}

/* req: T10 */
TEST(a_newer_version_is_refused_by_name_and_number)
{
	CLEANUP(buffer_done) struct buffer out = BUFFER_INIT(1 << 20);
	struct hib_error error = HIB_ERROR_INIT;
	struct manifest *m = sample(), *parsed;
	char *version;

	CHECK_INT(manifest_write(m, &out, NULL), 0);
	version = strstr((char *)out.data, "\"version\":1");
	CHECK(version);
	version[10] = '9';
	CHECK_INT(manifest_parse("object", out.data, out.size, &parsed, &error),
		  -EPROTONOSUPPORT);
	CHECK(strstr(error.message, "version 9"));
	CHECK(strstr(error.message, MANIFEST_FORMAT));
	manifest_free(m);
}

/* req: P3 */
TEST(a_manifest_reads_back_as_it_was_written)
{
	CLEANUP(buffer_done) struct buffer out = BUFFER_INIT(1 << 20);
	CLEANUP(buffer_done) struct buffer again = BUFFER_INIT(1 << 20);
	struct manifest *m = sample(), *parsed;

	CHECK_INT(manifest_write(m, &out, NULL), 0);
	CHECK_INT(manifest_parse("object", out.data, out.size, &parsed, NULL),
		  0);
	CHECK_INT(manifest_write(parsed, &again, NULL), 0);
	CHECK_STR(buffer_string(&again), buffer_string(&out));
	manifest_free(m);
	manifest_free(parsed);
}

TEST_MAIN()
