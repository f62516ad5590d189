/* A pack describes itself, and knows when it is damaged. */
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tests/unit/test.h"
#include "transfer/pack.h"

#define BYTES 4096
#define CHUNKS 3

/* Three chunks of 100, 200 and 300 bytes; the second is compressed. */
static size_t make_pack(uint8_t *data, uint8_t id[PACK_ID_BYTES])
{
	uint8_t stored[300];
	struct pack pack;
	size_t size;

	pack_init(&pack, data, BYTES);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		struct chunk_record record = { 0 };
		uint32_t bytes = 100 * (i + 1);

		memset(stored, (int)i + 1, sizeof(stored));
		memset(record.id, (int)i + 0x30, sizeof(record.id));
		CHECK(pack_has_room(&pack, bytes));
		CHECK_INT(pack_append(&pack, stored, bytes,
				      i == 1 ? 5000 : bytes,
				      i == 1 ? CHUNK_ZSTD : 0, &record),
			  0);
		CHECK_INT(record.offset, i == 0 ? 32 : i == 1 ? 132 : 332);
		CHECK_INT(record.stored_bytes, bytes);
	}
	CHECK_INT(pack_seal(&pack, id), 0);
	size = pack.size;
	pack_done(&pack);
	return size;
}

static int parse(const uint8_t *data, size_t size, struct hib_error *error)
{
	struct chunk_record *records = NULL;
	uint32_t *plain = NULL, count;
	int r = pack_parse("packs/ab", data, size, &records, &plain, &count,
			   error);

	CHECK((r == 0) == (records != NULL));
	free(records);
	free(plain);
	return r;
}

/* req: T6 */
TEST(the_bytes_are_those_of_the_format)
{
	uint8_t data[BYTES], id[PACK_ID_BYTES], hash[PACK_ID_BYTES];
	size_t size = make_pack(data, id);

	CHECK_INT(size, 32 + 600 + 3 * 48 + 32);
	CHECK(memcmp(data, "HIBPACK1\1\0\0\0\x20\0\0\0\0\0\0\0", 20) == 0);
	CHECK(memcmp(data + size - 8, "HIBPEND1", 8) == 0);
	CHECK_INT(data[size - 32] | data[size - 31] << 8, 632);
	CHECK_INT(data[size - 28], 3);
	CHECK_INT(EVP_Digest(data, size, hash, NULL, EVP_sha256(), NULL), 1);
	CHECK(memcmp(id, hash, sizeof(id)) == 0);
}

TEST(the_index_tells_of_every_chunk)
{
	uint8_t data[BYTES], id[PACK_ID_BYTES];
	size_t size = make_pack(data, id);
	struct chunk_record *records;
	uint32_t *plain, count;

	CHECK_INT(pack_parse("x", data, size, &records, &plain, &count, NULL),
		  0);
	CHECK_INT(count, CHUNKS);
	CHECK_INT(records[1].offset, 132);
	CHECK_INT(records[1].stored_bytes, 200);
	CHECK_INT(records[1].flags, CHUNK_ZSTD);
	CHECK_INT(plain[1], 5000);
	CHECK_INT(plain[2], 300);
	CHECK_INT(records[2].id[0], 0x32);
	free(records);
	free(plain);
}

TEST(a_pack_without_chunks_is_one)
{
	uint8_t data[BYTES], id[PACK_ID_BYTES];
	struct pack pack;

	pack_init(&pack, data, sizeof(data));
	CHECK_INT(pack_seal(&pack, id), 0);
	CHECK_INT(parse(data, pack.size, NULL), 0);
	pack_done(&pack);
}

TEST(a_pack_is_never_filled_beyond_its_memory)
{
	uint8_t data[1024], stored[100] = { 1 }, id[PACK_ID_BYTES];
	struct chunk_record record = { 0 };
	struct pack pack;

	pack_init(&pack, data, sizeof(data));
	while (pack_has_room(&pack, sizeof(stored)))
		CHECK_INT(pack_append(&pack, stored, sizeof(stored),
				      sizeof(stored), 0, &record),
			  0);
	CHECK_INT(pack.chunk_count, (1024 - 64) / 148);
	CHECK_INT(pack_seal(&pack, id), 0);
	CHECK(pack.size <= sizeof(data));
	CHECK_INT(parse(data, pack.size, NULL), 0);
	pack_done(&pack);
}

/* req: T10 */
TEST(a_newer_version_is_refused_by_name_and_number)
{
	uint8_t data[BYTES], id[PACK_ID_BYTES];
	size_t size = make_pack(data, id);
	struct hib_error error = HIB_ERROR_INIT;

	data[8] = 3;
	CHECK_INT(parse(data, size, &error), -EPROTONOSUPPORT);
	CHECK(strstr(error.message, "packs/ab has version 3"));
}

/* req: T9 */
TEST(every_flipped_bit_outside_of_the_chunks_is_noticed)
{
	uint8_t data[BYTES], id[PACK_ID_BYTES];
	size_t size = make_pack(data, id);

	for (size_t i = 0; i < size; i++) {
		for (int bit = 0; bit < 8; bit++) {
			int r;

			data[i] ^= (uint8_t)(1 << bit);
			r = parse(data, size, NULL);
			if (i >= 32 && i < 632)
				CHECK_INT(r, 0); /* its id tells */
			else
				CHECK(r == -EBADMSG || r == -EPROTONOSUPPORT);
			data[i] ^= (uint8_t)(1 << bit);
		}
	}
	for (size_t cut = 0; cut < size; cut++)
		CHECK_INT(parse(data, cut, NULL), -EBADMSG);
}

TEST_MAIN()
