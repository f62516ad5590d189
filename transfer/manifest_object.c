#include "transfer/manifest_object.h"

#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <string.h>
#include <zstd.h>

#include "base/cleanup.h"

#define LEVEL 3
/* One of zstd's sixteen magic numbers for frames to be skipped. */
#define SEAL_MAGIC (ZSTD_MAGIC_SKIPPABLE_START + 8)
/* Names, numbers and hashes shrink by 10 to 50: more is no manifest. */
#define EXPANSION_MAX 1000
#define EXPANSION_SLACK_BYTES ((size_t)16 << 20)

/* As it lies in the object: docs/FORMAT.md. */
struct disk_seal {
	uint32_t magic, size; /* size of what follows */
	uint8_t sha256[32]; /* of the object up to here */
} __attribute__((packed));
_Static_assert(sizeof(struct disk_seal) == 40, "seal layout");

static int make_seal(const void *data, size_t size, struct disk_seal *ret)
{
	struct disk_seal seal = {
		.magic = htole32(SEAL_MAGIC),
		.size = htole32(sizeof(seal.sha256)),
	};

	if (EVP_Digest(data, size, seal.sha256, NULL, EVP_sha256(), NULL) != 1)
		return -ENOMEM;
	*ret = seal;
	return 0;
}

static int compress(const struct buffer *text, struct buffer *out,
		    struct hib_error *error)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();
	size_t size;

	if (!context)
		return hib_fail(error, ENOMEM, "out of memory");
	ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, LEVEL);
	ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
	size = ZSTD_compress2(context, out->data + out->size,
			      out->capacity - out->size, text->data,
			      text->size);
	ZSTD_freeCCtx(context);
	if (ZSTD_isError(size))
		return hib_fail(error, EIO, "compress the manifest: %s",
				ZSTD_getErrorName(size));
	out->size += size;
	return 0;
}

static int check_readable(const char *name, const struct buffer *text,
			  struct hib_error *error)
{
	struct manifest *manifest;
	int r = manifest_parse(name, text->data, text->size, &manifest, error);

	if (r < 0)
		return hib_wrap(error, r,
				"this manifest could not be read back");
	manifest_free(manifest);
	return 0;
}

int manifest_object_build(const char *name, const struct manifest *manifest,
			  struct buffer *out, struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer text = BUFFER_INIT(MANIFEST_MAX_BYTES);
	size_t begin = out->size;
	struct disk_seal seal;
	int r = manifest_write(manifest, &text, error);

	if (r == 0)
		r = check_readable(name, &text, error);
	if (r < 0)
		return r;
	if (buffer_reserve(out, ZSTD_compressBound(text.size) + sizeof(seal)) <
	    0)
		return hib_fail(error, EFBIG, "the manifest is too large");
	r = compress(&text, out, error);
	if (r < 0)
		return r;
	if (make_seal(out->data + begin, out->size - begin, &seal) < 0 ||
	    buffer_append(out, &seal, sizeof(seal)) < 0)
		return hib_fail(error, ENOMEM, "out of memory");
	return 0;
}

/* Into a buffer that grows with what really comes out. */
static int decompress(ZSTD_DStream *stream, const void *data, size_t size,
		      struct buffer *out)
{
	ZSTD_inBuffer in = { data, size, 0 };
	size_t step = ZSTD_DStreamOutSize(), left = 1;

	while (left) {
		ZSTD_outBuffer part;
		int r = buffer_reserve(out, step);

		if (r < 0)
			return r;
		part = (ZSTD_outBuffer){ out->data + out->size, step, 0 };
		left = ZSTD_decompressStream(stream, &part, &in);
		if (ZSTD_isError(left) ||
		    (left && in.pos == in.size && part.pos < step))
			return -EBADMSG;
		out->size += part.pos;
	}
	return in.pos == in.size ? 0 : -EBADMSG;
}

/* The bytes before the seal, or all when there is none. */
static int check_seal(const char *name, const uint8_t *data, size_t size,
		      size_t *ret_size, struct hib_error *error)
{
	struct disk_seal seal, expected;

	*ret_size = size;
	if (size < sizeof(seal))
		return 0;
	memcpy(&seal, data + size - sizeof(seal), sizeof(seal));
	if (le32toh(seal.magic) != SEAL_MAGIC ||
	    le32toh(seal.size) != sizeof(seal.sha256))
		return 0;
	*ret_size = size - sizeof(seal);
	if (make_seal(data, *ret_size, &expected) < 0)
		return hib_fail(error, ENOMEM, "out of memory");
	if (memcmp(&seal, &expected, sizeof(seal)) != 0)
		return hib_fail(
			error, EBADMSG,
			"%s is damaged: its bytes do not have the SHA-256 at its end",
			name);
	return 0;
}

static size_t text_limit(size_t size)
{
	if (size > (MANIFEST_MAX_BYTES - EXPANSION_SLACK_BYTES) / EXPANSION_MAX)
		return MANIFEST_MAX_BYTES;
	return size * EXPANSION_MAX + EXPANSION_SLACK_BYTES;
}

int manifest_object_parse(const char *name, const void *data, size_t size,
			  struct manifest **ret, struct hib_error *error)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(0);
	ZSTD_DStream *stream;
	int r = check_seal(name, data, size, &size, error);

	if (r < 0)
		return r;
	stream = ZSTD_createDStream();
	if (!stream)
		return hib_fail(error, ENOMEM, "out of memory");
	text.limit = text_limit(size);
	r = decompress(stream, data, size, &text);
	ZSTD_freeDStream(stream);
	if (r == -ENOMEM)
		return hib_fail(error, ENOMEM, "out of memory");
	if (r == -EMSGSIZE)
		return hib_fail(
			error, EBADMSG,
			"%s is damaged: it unpacks to more than a manifest can be",
			name);
	if (r < 0)
		return hib_fail(error, EBADMSG,
				"%s is damaged: it cannot be decompressed",
				name);
	return manifest_parse(name, text.data, text.size, ret, error);
}
