#include "base/encode.h"

#include <errno.h>
#include <string.h>

static const char hex_lower[] = "0123456789abcdef";
static const char hex_upper[] = "0123456789ABCDEF";
static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static bool is_unreserved(uint8_t c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
	       c == '~';
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Back to `size` after a failure part-way: all or nothing is appended. */
static int cut_back(struct buffer *out, size_t size, int r)
{
	if (r < 0) {
		out->size = size;
		if (out->data)
			out->data[size] = 0;
	}
	return r;
}

int encode_percent(struct buffer *out, const void *data, size_t size)
{
	const uint8_t *bytes = data;
	size_t before = out->size;
	int r = 0;

	for (size_t i = 0; i < size && r == 0; i++) {
		char escaped[3] = { '%', hex_upper[bytes[i] >> 4],
				    hex_upper[bytes[i] & 15] };

		if (is_unreserved(bytes[i]))
			r = buffer_append(out, &bytes[i], 1);
		else
			r = buffer_append(out, escaped, sizeof(escaped));
	}
	return cut_back(out, before, r);
}

int decode_percent(struct buffer *out, const char *text)
{
	size_t before = out->size;
	int r = 0;

	for (; *text && r == 0; text++) {
		uint8_t byte = (uint8_t)*text;

		if (byte == '%') {
			int high = hex_value(text[1]);
			int low = high < 0 ? -1 : hex_value(text[2]);

			if (low < 0)
				return cut_back(out, before, -EBADMSG);
			byte = (uint8_t)(high << 4 | low);
			text += 2;
		}
		r = buffer_append(out, &byte, 1);
	}
	return cut_back(out, before, r);
}

int encode_base64(struct buffer *out, const void *data, size_t size)
{
	const uint8_t *bytes = data;
	size_t before = out->size;
	int r = 0;

	for (size_t i = 0; i < size && r == 0; i += 3) {
		size_t left = size - i;
		uint32_t group = (uint32_t)bytes[i] << 16;
		char text[4];

		if (left > 1)
			group |= (uint32_t)bytes[i + 1] << 8;
		if (left > 2)
			group |= bytes[i + 2];
		text[0] = base64_digits[group >> 18];
		text[1] = base64_digits[group >> 12 & 63];
		text[2] = left > 1 ? base64_digits[group >> 6 & 63] : '=';
		text[3] = left > 2 ? base64_digits[group & 63] : '=';
		r = buffer_append(out, text, sizeof(text));
	}
	return cut_back(out, before, r);
}

/* Four digits to 1..3 bytes; -EBADMSG. Only the last group may be padded. */
static int decode_base64_group(const char *text, bool last, uint8_t ret[3])
{
	uint32_t group = 0;
	int digits = 4;

	if (last && text[3] == '=')
		digits = text[2] == '=' ? 2 : 3;
	for (int i = 0; i < digits; i++) {
		const char *at = memchr(base64_digits, text[i], 64);

		if (!at)
			return -EBADMSG;
		group |= (uint32_t)(at - base64_digits) << (18 - 6 * i);
	}
	/* Bits that belong to no byte are zero: one text for each value. */
	if ((digits == 2 && (group & 0xffff)) ||
	    (digits == 3 && (group & 0xff)))
		return -EBADMSG;
	ret[0] = (uint8_t)(group >> 16);
	ret[1] = (uint8_t)(group >> 8);
	ret[2] = (uint8_t)group;
	return digits - 1;
}

int decode_base64(struct buffer *out, const char *text)
{
	size_t length = strlen(text);
	size_t before = out->size;
	int r = 0;

	if (length % 4 != 0)
		return -EBADMSG;
	for (size_t i = 0; i < length && r >= 0; i += 4) {
		uint8_t bytes[3];

		r = decode_base64_group(text + i, i + 4 == length, bytes);
		if (r > 0)
			r = buffer_append(out, bytes, (size_t)r);
	}
	return cut_back(out, before, r);
}

void encode_hex(const uint8_t *data, size_t size, char *ret_text)
{
	for (size_t i = 0; i < size; i++) {
		ret_text[2 * i] = hex_lower[data[i] >> 4];
		ret_text[2 * i + 1] = hex_lower[data[i] & 15];
	}
	ret_text[2 * size] = 0;
}

int decode_hex(const char *text, uint8_t *ret_data, size_t size)
{
	/* Checked as a whole first: an output stays untouched on failure. */
	for (size_t i = 0; i < 2 * size; i++)
		if (hex_value(text[i]) < 0)
			return -EBADMSG;
	if (text[2 * size] != 0)
		return -EBADMSG;
	for (size_t i = 0; i < size; i++)
		ret_data[i] = (uint8_t)(hex_value(text[2 * i]) << 4 |
					hex_value(text[2 * i + 1]));
	return 0;
}

/* Length of the well-formed sequence at `at`, 0 if there is none. */
static size_t utf8_sequence(const uint8_t *at, size_t left)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t length;

	if (at[0] == 0)
		return 0;
	if (at[0] < 0x80)
		return 1;
	if (at[0] < 0xc2 || at[0] > 0xf4)
		return 0;
	length = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
	if (left < length)
		return 0;
	/* Table 3-7 of the Unicode standard: the second byte's range. */
	if (at[0] == 0xe0)
		low = 0xa0; /* overlong */
	else if (at[0] == 0xed)
		high = 0x9f; /* surrogates */
	else if (at[0] == 0xf0)
		low = 0x90; /* overlong */
	else if (at[0] == 0xf4)
		high = 0x8f; /* beyond U+10FFFF */
	if (at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i < length; i++)
		if (at[i] < 0x80 || at[i] > 0xbf)
			return 0;
	return length;
}

bool utf8_is_valid(const void *data, size_t size)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < size;) {
		size_t length = utf8_sequence(bytes + i, size - i);

		if (length == 0)
			return false;
		i += length;
	}
	return true;
}
