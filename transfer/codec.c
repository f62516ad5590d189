#include "transfer/codec.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

/* Fast: a disk image or table page shrinks, and a core does some 500 MB/s. */
#define LEVEL 1

struct codec {
	ZSTD_CCtx *compressor;
	ZSTD_DCtx *decompressor;
	EVP_MD_CTX *digest;
	const EVP_MD *sha256;
	uint8_t *buffer;
	size_t buffer_bytes;
};

struct codec *codec_new(void)
{
	struct codec *codec = calloc(1, sizeof(*codec));

	if (!codec)
		return NULL;
	codec->compressor = ZSTD_createCCtx();
	codec->decompressor = ZSTD_createDCtx();
	codec->digest = EVP_MD_CTX_new();
	codec->sha256 = EVP_sha256();
	if (!codec->compressor || !codec->decompressor || !codec->digest)
		return codec_free(codec);
	return codec;
}

struct codec *codec_free(struct codec *codec)
{
	if (codec) {
		ZSTD_freeCCtx(codec->compressor);
		ZSTD_freeDCtx(codec->decompressor);
		EVP_MD_CTX_free(codec->digest);
		free(codec->buffer);
		free(codec);
	}
	return NULL;
}

static int reserve(struct codec *codec, size_t bytes)
{
	uint8_t *grown;

	if (bytes <= codec->buffer_bytes)
		return 0;
	grown = malloc(bytes);
	if (!grown)
		return -ENOMEM;
	free(codec->buffer);
	codec->buffer = grown;
	codec->buffer_bytes = bytes;
	return 0;
}

int codec_id(struct codec *codec, const void *plain, size_t size,
	     uint8_t ret_id[CHUNK_ID_BYTES])
{
	if (EVP_DigestInit_ex(codec->digest, codec->sha256, NULL) != 1 ||
	    EVP_DigestUpdate(codec->digest, plain, size) != 1 ||
	    EVP_DigestFinal_ex(codec->digest, ret_id, NULL) != 1)
		return -ENOMEM;
	return 0;
}

int codec_encode(struct codec *codec, bool compress, const void *plain,
		 size_t size, const void **ret_stored, uint32_t *ret_size,
		 uint32_t *ret_flags)
{
	size_t worthwhile = size - size / 16, stored;

	*ret_stored = plain;
	*ret_size = (uint32_t)size;
	*ret_flags = 0;
	if (!compress || worthwhile < 64)
		return 0;
	if (reserve(codec, worthwhile) < 0)
		return -ENOMEM;
	/* no room beyond what is worthwhile: then it fails, and stays raw */
	stored = ZSTD_compressCCtx(codec->compressor, codec->buffer, worthwhile,
				   plain, size, LEVEL);
	if (!ZSTD_isError(stored)) {
		*ret_stored = codec->buffer;
		*ret_size = (uint32_t)stored;
		*ret_flags = CHUNK_ZSTD;
	}
	return 0;
}

int codec_decode(struct codec *codec, const struct chunk_record *record,
		 const void *stored, size_t plain_size, const void **ret_plain,
		 struct hib_error *error)
{
	uint8_t id[CHUNK_ID_BYTES];
	const void *plain = stored;
	size_t size = record->stored_bytes;

	if (record->flags & CHUNK_ZSTD) {
		if (reserve(codec, plain_size) < 0)
			return hib_fail(error, ENOMEM, "out of memory");
		size = ZSTD_decompressDCtx(codec->decompressor, codec->buffer,
					   plain_size, stored,
					   record->stored_bytes);
		if (ZSTD_isError(size))
			return hib_fail(error, EBADMSG,
					"its compressed bytes are broken (%s)",
					ZSTD_getErrorName(size));
		plain = codec->buffer;
	}
	if (size != plain_size)
		return hib_fail(error, EBADMSG,
				"it has %zu bytes instead of %zu", size,
				plain_size);
	if (codec_id(codec, plain, plain_size, id) < 0)
		return hib_fail(error, ENOMEM, "out of memory");
	if (memcmp(id, record->id, sizeof(id)) != 0)
		return hib_fail(error, EBADMSG,
				"its bytes do not have its SHA-256");
	*ret_plain = plain;
	return 0;
}

bool codec_is_zero(const void *data, size_t size)
{
	const uint8_t *bytes = data;

	return size == 0 ||
	       (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}
