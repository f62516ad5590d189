#include "base/cleanup.h"
#include "base/uuid.h"
#include "tests/unit/test.h"

TEST(new_uuids_are_valid_random_and_of_version_4)
{
	char last[UUID_TEXT_BYTES] = "", text[UUID_TEXT_BYTES];

	for (int i = 0; i < 1000; i++) {
		uuid_new(text);
		CHECK(uuid_is_valid(text));
		CHECK_INT(text[14], '4');
		CHECK(strchr("89ab", text[19]));
		CHECK(strcmp(text, last) != 0);
		memcpy(last, text, sizeof(last));
	}
}

TEST(what_is_not_a_uuid_is_refused)
{
	static const char *const bad[] = {
		"",
		"..",
		"0123456789abcdef0123456789abcdef0123",
		"01234567-89ab-4def-8123-456789abcde",
		"01234567-89ab-4def-8123-456789abcdef0",
		"01234567-89AB-4def-8123-456789abcdef",
		"01234567-89ab-4def-8123-456789abcde/",
		"01234567089ab-4def-8123-456789abcdef",
	};

	CHECK(uuid_is_valid("01234567-89ab-4def-8123-456789abcdef"));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK(!uuid_is_valid(bad[i]));
}

TEST_MAIN()
