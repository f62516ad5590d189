#include <errno.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "tests/unit/test.h"

TEST(a_buffer_grows_up_to_its_limit_and_not_beyond)
{
	CLEANUP(buffer_done) struct buffer buffer = BUFFER_INIT(1000);

	for (int i = 0; i < 1000; i++)
		CHECK_INT(buffer_append(&buffer, "x", 1), 0);
	CHECK_INT(buffer_append(&buffer, "x", 1), -EMSGSIZE);
	CHECK_INT(buffer_append_format(&buffer, "%d", 1), -EMSGSIZE);
	CHECK_INT(buffer_reserve(&buffer, SIZE_MAX), -EMSGSIZE);
	CHECK_INT(buffer.size, 1000);
	CHECK_INT(strlen(buffer_string(&buffer)), 1000);
}

TEST(formatted_and_plain_text_are_appended)
{
	CLEANUP(buffer_done) struct buffer buffer = BUFFER_INIT(1 << 20);

	CHECK_STR(buffer_string(&buffer), "");
	CHECK_INT(buffer_append_format(&buffer, "%s-%d", "a", 5), 0);
	CHECK_INT(buffer_append_string(&buffer, "z"), 0);
	CHECK_STR(buffer_string(&buffer), "a-5z");
	buffer_clear(&buffer);
	CHECK_STR(buffer_string(&buffer), "");
}

TEST_MAIN()
