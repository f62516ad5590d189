#include <errno.h>

#include "base/cleanup.h"
#include "base/encode.h"
#include "tests/unit/test.h"

static void check_round(int (*encode)(struct buffer *, const void *, size_t),
			int (*decode)(struct buffer *, const char *),
			const void *data, size_t size, const char *text)
{
	CLEANUP(buffer_done) struct buffer encoded = BUFFER_INIT(4096);
	CLEANUP(buffer_done) struct buffer decoded = BUFFER_INIT(4096);

	CHECK_INT(encode(&encoded, data, size), 0);
	if (text)
		CHECK_STR(buffer_string(&encoded), text);
	CHECK_INT(decode(&decoded, buffer_string(&encoded)), 0);
	CHECK_INT(decoded.size, size);
	if (size)
		CHECK_MEM(decoded.data, data, size);
}

static void check_refused(int (*decode)(struct buffer *, const char *),
			  const char *text)
{
	CLEANUP(buffer_done) struct buffer decoded = BUFFER_INIT(4096);

	CHECK_INT(buffer_append_string(&decoded, "before"), 0);
	CHECK_INT(decode(&decoded, text), -EBADMSG);
	CHECK_STR(buffer_string(&decoded), "before");
}

TEST(every_byte_survives_percent_base64_and_hex)
{
	uint8_t all[256], back[256];
	char text[513];

	for (int i = 0; i < 256; i++)
		all[i] = (uint8_t)i;
	check_round(encode_percent, decode_percent, all, 256, NULL);
	for (size_t size = 0; size <= 256; size++)
		check_round(encode_base64, decode_base64, all, size, NULL);
	encode_hex(all, 256, text);
	CHECK_INT(decode_hex(text, back, 256), 0);
	CHECK_MEM(all, back, 256);
}

TEST(percent_keeps_only_unreserved_characters)
{
	check_round(encode_percent, decode_percent, "a b/%~-._Z9", 11,
		    "a%20b%2F%25~-._Z9");
	check_round(encode_percent, decode_percent, "\xff\x0a", 2, "%FF%0A");
	check_round(encode_percent, decode_percent, "", 0, "");
}

TEST(percent_decoding_takes_other_characters_as_they_stand)
{
	CLEANUP(buffer_done) struct buffer out = BUFFER_INIT(100);

	CHECK_INT(decode_percent(&out, "a b/\xc3\xa4%2f+"), 0);
	CHECK_STR(buffer_string(&out), "a b/\xc3\xa4/+");
}

TEST(malformed_percent_is_refused_and_appends_nothing)
{
	static const char *const bad[] = { "%",	  "%4",	 "ab%",
					   "%zz", "%4g", "%%41" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		check_refused(decode_percent, bad[i]);
}

/* RFC 4648 section 10. */
TEST(base64_vectors)
{
	check_round(encode_base64, decode_base64, "f", 1, "Zg==");
	check_round(encode_base64, decode_base64, "fo", 2, "Zm8=");
	check_round(encode_base64, decode_base64, "foo", 3, "Zm9v");
	check_round(encode_base64, decode_base64, "foobar", 6, "Zm9vYmFy");
}

TEST(malformed_base64_is_refused_and_appends_nothing)
{
	static const char *const bad[] = {
		"Z",	"Zg",	"Zg=",	"====",	    "Zg==Zg==", "Z===",
		"Zh==", "Zm9=", "Zm 8", "Zm9vZ===", "Zg=a",	"\xff\xff=="
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		check_refused(decode_base64, bad[i]);
}

TEST(hex_takes_exactly_its_length)
{
	uint8_t data[2] = { 1, 2 };

	CHECK_INT(decode_hex("aBcD", data, 2), 0);
	CHECK_INT(data[0], 0xab);
	CHECK_INT(data[1], 0xcd);
	CHECK_INT(decode_hex("abc", data, 2), -EBADMSG);
	CHECK_INT(decode_hex("abcde", data, 2), -EBADMSG);
	CHECK_INT(decode_hex("00x0", data, 2), -EBADMSG);
	CHECK_INT(data[0], 0xab);
}

TEST(a_full_buffer_stops_encoding_and_appends_nothing)
{
	CLEANUP(buffer_done) struct buffer out = BUFFER_INIT(4);

	CHECK_INT(encode_percent(&out, "//", 2), -EMSGSIZE);
	CHECK_INT(out.size, 0);
	CHECK_INT(encode_base64(&out, "1234", 4), -EMSGSIZE);
	CHECK_INT(out.size, 0);
	CHECK_INT(decode_base64(&out, "Zm9vYmFy"), -EMSGSIZE);
	CHECK_INT(out.size, 0);
}

TEST(utf8_follows_rfc_3629)
{
	static const struct {
		const char *text;
		size_t size;
		bool valid;
	} cases[] = {
		{ "", 0, true },
		{ "plain", 5, true },
		{ "\xc3\xa4", 2, true },
		{ "\xe2\x82\xac", 3, true },
		{ "\xf0\x9f\x98\x80", 4, true },
		{ "\xf4\x8f\xbf\xbf", 4, true },
		{ "\xef\xbf\xbf", 3, true },
		{ "a\0b", 3, false },
		{ "\x80", 1, false },
		{ "\xc0\x80", 2, false }, /* overlong */
		{ "\xc1\xbf", 2, false },
		{ "\xe0\x9f\xbf", 3, false },
		{ "\xf0\x8f\xbf\xbf", 4, false },
		{ "\xed\xa0\x80", 3, false }, /* surrogate */
		{ "\xf4\x90\x80\x80", 4, false }, /* beyond U+10FFFF */
		{ "\xf5\x80\x80\x80", 4, false },
		{ "\xe2\x82", 2, false }, /* cut */
		{ "\xe2\x82x", 3, false },
		{ "\xff", 1, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		CHECK_INT(utf8_is_valid(cases[i].text, cases[i].size),
			  cases[i].valid);
}

TEST_MAIN()
