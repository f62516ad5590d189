/*
 * Text forms of bytes: percent-encoding for object keys (RFC 3986, unreserved
 * characters stay; '/' is encoded), base64 (RFC 4648 section 4) for what JSON
 * cannot hold, hexadecimal for hashes, and the UTF-8 test that decides which.
 */
#ifndef HIBFS_BASE_ENCODE_H
#define HIBFS_BASE_ENCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

/* Append the encoded form. Errors are buffer_append()'s. */
int encode_percent(struct buffer *out, const void *data, size_t size);
int encode_base64(struct buffer *out, const void *data, size_t size);

/*
 * Append the decoded bytes; -EBADMSG when the text is not of that form. In
 * percent-encoding every character but '%' is taken as it stands.
 */
int decode_percent(struct buffer *out, const char *text);
int decode_base64(struct buffer *out, const char *text);

/* Lower-case hex with a final NUL: 2 * size + 1 bytes. */
void encode_hex(const uint8_t *data, size_t size, char *ret_text);
/* Exactly 2 * size lower- or upper-case digits and then NUL, else -EBADMSG. */
int decode_hex(const char *text, uint8_t *ret_data, size_t size);

/* Well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms), no NUL. */
bool utf8_is_valid(const void *data, size_t size);

#endif
