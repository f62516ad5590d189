#include "transfer/chunk_table.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "HIBCHNK1"
#define VERSION 1
#define HEADER_BYTES 64
#define RECORD_BYTES 48
#define CHUNKS_PER_FILE 2048
#define KNOWN_FLAGS (CHUNK_ZERO | CHUNK_ZSTD)
/* What zstd may add to a chunk that does not shrink; such are stored raw. */
#define STORED_BYTES_MAX CHUNK_BYTES_MAX

/* As it lies in the object: docs/FORMAT.md. */
struct disk_header {
	char magic[8];
	uint32_t version, header_bytes;
	uint64_t record_count, pack_count;
	uint32_t record_bytes, flags;
	uint8_t zero[24];
} __attribute__((packed));
_Static_assert(sizeof(struct disk_header) == HEADER_BYTES, "header layout");

struct disk_record {
	uint8_t id[CHUNK_ID_BYTES];
	uint32_t pack, offset, stored_bytes, flags;
} __attribute__((packed));
_Static_assert(sizeof(struct disk_record) == RECORD_BYTES, "record layout");

struct chunk_table *chunk_table_new(void)
{
	return calloc(1, sizeof(struct chunk_table));
}

struct chunk_table *chunk_table_free(struct chunk_table *table)
{
	if (table) {
		free(table->records);
		free(table->packs);
		free(table);
	}
	return NULL;
}

int chunk_table_extend(struct chunk_table *table, uint64_t count,
		       uint64_t *ret_first)
{
	uint64_t needed = table->record_count + count;

	if (needed > CHUNK_TABLE_MAX_RECORDS)
		return -EFBIG;
	if (needed > table->record_capacity) {
		uint64_t capacity = table->record_capacity * 3 / 2 + 64;
		struct chunk_record *grown;

		if (capacity < needed)
			capacity = needed;
		grown = reallocarray(table->records, capacity, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		table->records = grown;
		table->record_capacity = capacity;
	}
	if (count)
		memset(&table->records[table->record_count], 0,
		       count * sizeof(*table->records));
	*ret_first = table->record_count;
	table->record_count = needed;
	return 0;
}

int chunk_table_add_pack(struct chunk_table *table, const uint8_t id[32],
			 uint32_t *ret_index)
{
	/* the newest are asked for again and again */
	for (uint32_t i = table->pack_count; i-- > 0;) {
		if (memcmp(table->packs[i], id, 32) == 0) {
			*ret_index = i;
			return 0;
		}
	}
	if (table->pack_count == table->pack_capacity) {
		uint32_t capacity = table->pack_capacity * 2 + 16;
		uint8_t(*grown)[32] =
			reallocarray(table->packs, capacity, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		table->packs = grown;
		table->pack_capacity = capacity;
	}
	memcpy(table->packs[table->pack_count], id, 32);
	*ret_index = table->pack_count++;
	return 0;
}

int chunk_table_write(const struct chunk_table *table, struct buffer *out,
		      struct hib_error *error)
{
	struct disk_header header = {
		.magic = MAGIC,
		.version = htole32(VERSION),
		.header_bytes = htole32(HEADER_BYTES),
		.record_count = htole64(table->record_count),
		.pack_count = htole64(table->pack_count),
		.record_bytes = htole32(RECORD_BYTES),
	};
	int r = buffer_reserve(out, HEADER_BYTES +
					    table->record_count * RECORD_BYTES +
					    (size_t)table->pack_count * 32);

	if (r == 0)
		r = buffer_append(out, &header, sizeof(header));
	for (uint64_t i = 0; i < table->record_count && r == 0; i++) {
		const struct chunk_record *record = &table->records[i];
		struct disk_record disk = {
			.pack = htole32(record->pack),
			.offset = htole32(record->offset),
			.stored_bytes = htole32(record->stored_bytes),
			.flags = htole32(record->flags),
		};

		memcpy(disk.id, record->id, sizeof(disk.id));
		r = buffer_append(out, &disk, sizeof(disk));
	}
	if (r == 0 && table->pack_count)
		r = buffer_append(out, table->packs,
				  (size_t)table->pack_count * 32);
	return r < 0 ? hib_fail_errno(error, -r, "build the chunk table") : 0;
}

static int parse_header(const char *name, const void *data, size_t size,
			struct disk_header *ret, struct hib_error *error)
{
	uint64_t expected;

	if (size < HEADER_BYTES || memcmp(data, MAGIC, 8) != 0)
		return hib_fail(error, EBADMSG, "%s is no chunk table", name);
	memcpy(ret, data, sizeof(*ret));
	ret->version = le32toh(ret->version);
	ret->record_count = le64toh(ret->record_count);
	ret->pack_count = le64toh(ret->pack_count);
	if (ret->version > VERSION)
		return hib_fail(
			error, EPROTONOSUPPORT,
			"%s has version %u of the chunk table format; this hibfs knows version %u: a newer hibfs is needed",
			name, ret->version, VERSION);
	if (ret->version != VERSION ||
	    le32toh(ret->header_bytes) != HEADER_BYTES ||
	    le32toh(ret->record_bytes) != RECORD_BYTES || ret->flags)
		return hib_fail(error, EBADMSG,
				"%s: the header of the chunk table is broken",
				name);
	if (ret->record_count > CHUNK_TABLE_MAX_RECORDS ||
	    ret->pack_count > ret->record_count)
		return hib_fail(error, EBADMSG,
				"%s: %" PRIu64 " chunks in %" PRIu64
				" packs are beyond the limits",
				name, ret->record_count, ret->pack_count);
	expected = HEADER_BYTES + ret->record_count * RECORD_BYTES +
		   ret->pack_count * 32;
	if (size != expected)
		return hib_fail(
			error, EBADMSG,
			"%s has %zu bytes, but its header tells %" PRIu64, name,
			size, expected);
	return 0;
}

static bool record_is_sound(const struct chunk_record *record,
			    uint64_t pack_count)
{
	static const uint8_t no_id[CHUNK_ID_BYTES];

	if (record->flags & ~(uint32_t)KNOWN_FLAGS)
		return false;
	if (record->flags & CHUNK_ZERO)
		return record->flags == CHUNK_ZERO && !record->pack &&
		       !record->offset && !record->stored_bytes &&
		       memcmp(record->id, no_id, sizeof(no_id)) == 0;
	return record->pack < pack_count && record->stored_bytes > 0 &&
	       record->stored_bytes <= STORED_BYTES_MAX &&
	       record->offset <= UINT32_MAX - record->stored_bytes;
}

static int parse_records(const char *name, const uint8_t *data,
			 const struct disk_header *header,
			 struct chunk_table *table, struct hib_error *error)
{
	for (uint64_t i = 0; i < header->record_count; i++) {
		struct chunk_record *record = &table->records[i];
		struct disk_record disk;

		memcpy(&disk, data + i * RECORD_BYTES, sizeof(disk));
		memcpy(record->id, disk.id, sizeof(record->id));
		record->pack = le32toh(disk.pack);
		record->offset = le32toh(disk.offset);
		record->stored_bytes = le32toh(disk.stored_bytes);
		record->flags = le32toh(disk.flags);
		if (record->flags & CHUNK_SEALED)
			return hib_fail(
				error, EPROTONOSUPPORT,
				"%s: chunk %" PRIu64
				" is sealed, which this hibfs cannot read",
				name, i);
		if (!record_is_sound(record, header->pack_count))
			return hib_fail(error, EBADMSG,
					"%s: chunk %" PRIu64 " is broken", name,
					i);
	}
	return 0;
}

int chunk_table_parse(const char *name, const void *data, size_t size,
		      struct chunk_table **ret, struct hib_error *error)
{
	const uint8_t *bytes = data;
	struct disk_header header = { 0 };
	struct chunk_table *table;
	uint64_t first;
	int r = parse_header(name, data, size, &header, error);

	if (r < 0)
		return r;
	table = chunk_table_new();
	if (!table)
		return hib_fail(error, ENOMEM, "out of memory");
	if (chunk_table_extend(table, header.record_count, &first) < 0) {
		chunk_table_free(table);
		return hib_fail(error, ENOMEM, "out of memory");
	}
	table->packs = malloc(header.pack_count * 32 + 1);
	if (!table->packs) {
		chunk_table_free(table);
		return hib_fail(error, ENOMEM, "out of memory");
	}
	table->pack_count = table->pack_capacity = (uint32_t)header.pack_count;
	memcpy(table->packs,
	       bytes + HEADER_BYTES + header.record_count * RECORD_BYTES,
	       header.pack_count * 32);
	r = parse_records(name, bytes + HEADER_BYTES, &header, table, error);
	if (r < 0) {
		chunk_table_free(table);
		return r;
	}
	*ret = table;
	return 0;
}

uint32_t chunk_bytes_for(uint64_t file_bytes)
{
	uint32_t bytes = CHUNK_BYTES_MIN;

	while (bytes < CHUNK_BYTES_MAX && file_bytes / bytes >= CHUNKS_PER_FILE)
		bytes *= 2;
	return bytes;
}
