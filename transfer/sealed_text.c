#include "transfer/sealed_text.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/encode.h"

#define SEAL_BEGIN ",\n  \"sha256\": \""
#define SEAL_END "\"\n}"
#define SEAL_HEX_BYTES 64
#define SEAL_BYTES \
	(sizeof(SEAL_BEGIN) - 1 + SEAL_HEX_BYTES + sizeof(SEAL_END) - 1)

static int sha256(const struct buffer *data, uint8_t ret[32])
{
	return EVP_Digest(data->data, data->size, ret, NULL, EVP_sha256(),
			  NULL) == 1
		       ? 0
		       : -ENOMEM;
}

int sealed_text_seal(struct buffer *text, struct hib_error *error)
{
	uint8_t digest[32];
	char hex[SEAL_HEX_BYTES + 1];
	int r;

	if (sha256(text, digest) < 0)
		return hib_fail(error, ENOMEM, "out of memory");
	encode_hex(digest, sizeof(digest), hex);
	/* "...\n}": json_dumps() with an indent ends so */
	text->size -= 2;
	r = buffer_append_format(text, "%s%s%s", SEAL_BEGIN, hex, SEAL_END);
	return r < 0 ? hib_fail(error, ENOMEM, "out of memory") : 0;
}

int sealed_text_open(const char *key, struct buffer *text,
		     struct hib_error *error)
{
	const char *end = (const char *)text->data + text->size;
	char told[SEAL_HEX_BYTES], hex[SEAL_HEX_BYTES + 1];
	uint8_t digest[32];

	if (text->size < SEAL_BYTES ||
	    memcmp(end - SEAL_BYTES, SEAL_BEGIN, sizeof(SEAL_BEGIN) - 1) != 0 ||
	    memcmp(end - (sizeof(SEAL_END) - 1), SEAL_END,
		   sizeof(SEAL_END) - 1) != 0)
		return hib_fail(
			error, EBADMSG,
			"%s is damaged: its check (\"sha256\") is not there",
			key);
	memcpy(told, end - SEAL_BYTES + sizeof(SEAL_BEGIN) - 1, sizeof(told));
	text->size -= SEAL_BYTES;
	if (buffer_append_string(text, "\n}") < 0 || sha256(text, digest) < 0)
		return hib_fail(error, ENOMEM, "out of memory");
	encode_hex(digest, sizeof(digest), hex);
	if (memcmp(told, hex, sizeof(told)) != 0)
		return hib_fail(
			error, EBADMSG,
			"%s is damaged: its SHA-256 is not what it says", key);
	return 0;
}
