/*
 * Whatever may lie in packs/. What is accepted has chunks inside the pack, and
 * each is decoded as a reader would.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "transfer/codec.h"
#include "transfer/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct chunk_record *records;
	struct codec *codec;
	uint32_t *plain_bytes, count;
	const void *plain;

	if (pack_parse("p", data, size, &records, &plain_bytes, &count,
		       &error) < 0) {
		if (!error.code)
			abort();
		return 0;
	}
	codec = codec_new();
	if (!codec)
		abort();
	for (uint32_t i = 0; i < count; i++) {
		if ((uint64_t)records[i].offset + records[i].stored_bytes >
		    size)
			abort();
		codec_decode(codec, &records[i], data + records[i].offset,
			     plain_bytes[i], &plain, &error);
	}
	codec_free(codec);
	free(records);
	free(plain_bytes);
	return 0;
}

#ifdef FUZZ_MAIN
static void fuzz_seed(struct buffer *out)
{
	struct codec *codec = codec_new();
	uint8_t plain[3000] = "compressible", id[PACK_ID_BYTES];
	struct pack pack;

	if (!codec || buffer_reserve(out, 65536) < 0)
		abort();
	pack_init(&pack, out->data, 65536);
	for (int i = 0; i < 3; i++) {
		struct chunk_record record;
		const void *stored;
		uint32_t size, flags;

		plain[100] = (uint8_t)i;
		if (codec_id(codec, plain, sizeof(plain), record.id) < 0 ||
		    codec_encode(codec, i > 0, plain, sizeof(plain), &stored,
				 &size, &flags) < 0 ||
		    pack_append(&pack, stored, size, sizeof(plain), flags,
				&record) < 0)
			abort();
	}
	if (pack_seal(&pack, id) < 0)
		abort();
	out->size = pack.size;
	pack_done(&pack);
	codec_free(codec);
}
#endif
