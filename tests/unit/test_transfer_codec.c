/* Ids, the stored form of a chunk, and when it is compressed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/encode.h"
#include "tests/unit/test.h"
#include "transfer/codec.h"
#include "transfer/engine_internal.h"

#define BYTES (256u << 10)

static uint8_t *make_bytes(bool random)
{
	uint8_t *bytes = malloc(BYTES);
	unsigned seed = 1;

	CHECK(bytes);
	for (size_t i = 0; i < BYTES; i++)
		bytes[i] = random ? (uint8_t)(rand_r(&seed) >> 7)
				  : (uint8_t)(i / 100);
	return bytes;
}

TEST(the_id_is_sha_256)
{
	struct codec *codec = codec_new();
	uint8_t id[CHUNK_ID_BYTES];
	char text[65];

	CHECK_INT(codec_id(codec, "abc", 3, id), 0);
	encode_hex(id, sizeof(id), text);
	CHECK_STR(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff"
			"61f20015ad");
	codec_free(codec);
}

static void round_trip(bool random, bool compress, uint32_t wanted_flags)
{
	CLEANUP_FREE uint8_t *bytes = make_bytes(random);
	struct codec *codec = codec_new(), *other = codec_new();
	struct chunk_record record = { 0 };
	const void *stored, *plain;

	CHECK_INT(codec_id(codec, bytes, BYTES, record.id), 0);
	CHECK_INT(codec_encode(codec, compress, bytes, BYTES, &stored,
			       &record.stored_bytes, &record.flags),
		  0);
	CHECK_INT(record.flags, wanted_flags);
	if (wanted_flags)
		CHECK(record.stored_bytes <= BYTES / 16 * 15);
	else
		CHECK(stored == bytes && record.stored_bytes == BYTES);
	CHECK_INT(codec_decode(other, &record, stored, BYTES, &plain, NULL), 0);
	CHECK(memcmp(plain, bytes, BYTES) == 0);
	codec_free(codec);
	codec_free(other);
}

TEST(bytes_are_compressed_only_when_they_shrink_and_it_is_wanted)
{
	round_trip(false, true, CHUNK_ZSTD);
	round_trip(false, false, 0);
	round_trip(true, true, 0);
	round_trip(true, false, 0);
}

TEST(the_smallest_chunks_have_a_stored_form)
{
	struct codec *codec = codec_new();
	const void *stored;
	uint32_t size, flags;

	for (size_t i = 1; i < 200; i++) {
		static const uint8_t bytes[200] = "a";

		CHECK_INT(codec_encode(codec, true, bytes, i, &stored, &size,
				       &flags),
			  0);
		CHECK(size <= i && size > 0);
	}
	codec_free(codec);
}

/* req: T9 */
TEST(every_damage_is_noticed)
{
	CLEANUP_FREE uint8_t *bytes = make_bytes(false);
	struct hib_error error = HIB_ERROR_INIT;
	struct codec *codec = codec_new(), *other = codec_new();
	struct chunk_record record = { 0 };
	CLEANUP_FREE uint8_t *copy = NULL;
	const void *stored, *plain;

	CHECK_INT(codec_id(codec, bytes, BYTES, record.id), 0);
	CHECK_INT(codec_encode(codec, true, bytes, BYTES, &stored,
			       &record.stored_bytes, &record.flags),
		  0);
	copy = memcpy(malloc(record.stored_bytes), stored, record.stored_bytes);
	for (size_t i = 0; i < record.stored_bytes; i++) {
		int r;

		copy[i] ^= 0x40;
		plain = NULL;
		r = codec_decode(other, &record, copy, BYTES, &plain, &error);
		/* a byte zstd does not use is none of the chunk's */
		if (r == 0)
			CHECK(memcmp(plain, bytes, BYTES) == 0);
		else
			CHECK_INT(r, -EBADMSG);
		copy[i] ^= 0x40;
	}
	CHECK_INT(codec_decode(other, &record, copy, BYTES - 1, &plain, &error),
		  -EBADMSG);
	CHECK_INT(codec_decode(other, &record, copy, BYTES + 1, &plain, &error),
		  -EBADMSG);
	record.id[31] ^= 1;
	CHECK_INT(codec_decode(other, &record, copy, BYTES, &plain, &error),
		  -EBADMSG);
	CHECK(strstr(error.message, "SHA-256"));
	codec_free(codec);
	codec_free(other);
}

TEST(zero_bytes_are_seen)
{
	CLEANUP_FREE uint8_t *bytes = calloc(1, BYTES);

	CHECK(codec_is_zero(bytes, BYTES));
	CHECK(codec_is_zero(bytes, 1));
	CHECK(codec_is_zero(bytes, 0));
	for (size_t at = 1; at <= BYTES; at *= 2) {
		bytes[at - 1] = 1;
		CHECK(!codec_is_zero(bytes, BYTES));
		bytes[at - 1] = 0;
	}
}

TEST(the_cpu_compresses_while_it_waits_for_the_network)
{
	CHECK(!engine_wants_compression(ENGINE_COMPRESSION_OFF, 8, 8));
	CHECK(engine_wants_compression(ENGINE_COMPRESSION_ON, 0, 8));
	CHECK(!engine_wants_compression(ENGINE_COMPRESSION_AUTO, 0, 8));
	CHECK(!engine_wants_compression(ENGINE_COMPRESSION_AUTO, 3, 8));
	CHECK(engine_wants_compression(ENGINE_COMPRESSION_AUTO, 4, 8));
	CHECK(engine_wants_compression(ENGINE_COMPRESSION_AUTO, 8, 8));
	CHECK(!engine_wants_compression(ENGINE_COMPRESSION_AUTO, 1, 4));
}

TEST_MAIN()
