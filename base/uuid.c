#include "base/uuid.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/encode.h"

#define UUID_BYTES 16

static void random_bytes(uint8_t *ret_data, size_t size)
{
	while (size > 0) {
		ssize_t n = getrandom(ret_data, size, 0);

		if (n < 0 && errno == EINTR)
			continue;
		/* A name that is not unique would destroy data: no fallback. */
		if (n <= 0)
			abort();
		ret_data += n;
		size -= (size_t)n;
	}
}

void uuid_new(char ret_text[UUID_TEXT_BYTES])
{
	static const uint8_t group_bytes[] = { 4, 2, 2, 2, 6 };
	uint8_t bytes[UUID_BYTES];
	const uint8_t *from = bytes;
	char *to = ret_text;

	random_bytes(bytes, sizeof(bytes));
	bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40); /* version 4 */
	bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80); /* variant */
	for (size_t i = 0; i < sizeof(group_bytes); i++) {
		encode_hex(from, group_bytes[i], to);
		from += group_bytes[i];
		to += 2 * group_bytes[i];
		*to++ = '-';
	}
	to[-1] = 0;
}

bool uuid_is_valid(const char *text)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

	if (strlen(text) != UUID_TEXT_BYTES - 1)
		return false;
	for (size_t i = 0; form[i]; i++) {
		bool digit = (text[i] >= '0' && text[i] <= '9') ||
			     (text[i] >= 'a' && text[i] <= 'f');

		if (form[i] == '-' ? text[i] != '-' : !digit)
			return false;
	}
	return true;
}
