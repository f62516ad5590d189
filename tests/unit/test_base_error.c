#include <errno.h>

#include "base/error.h"
#include "tests/unit/test.h"

TEST(a_failure_carries_code_and_message)
{
	struct hib_error error = HIB_ERROR_INIT;

	CHECK_INT(hib_fail(&error, EIO, "pack %d", 7), -EIO);
	CHECK_INT(error.code, EIO);
	CHECK_STR(error.message, "pack 7");
	CHECK_INT(hib_fail_errno(&error, ENOENT, "open %s", "x"), -ENOENT);
	CHECK_STR(error.message, "open x: No such file or directory");
}

TEST(wrapping_puts_what_was_done_before_the_message)
{
	struct hib_error error = HIB_ERROR_INIT;

	hib_fail(&error, EIO, "connection reset");
	CHECK_INT(hib_wrap(&error, -EIO, "put %s", "a"), -EIO);
	CHECK_STR(error.message, "put a: connection reset");
	error = HIB_ERROR_INIT;
	CHECK_INT(hib_wrap(&error, -ENOSPC, "write"), -ENOSPC);
	CHECK_INT(error.code, ENOSPC);
	CHECK_STR(error.message, "write: No space left on device");
}

TEST(nobody_needs_to_ask_for_the_message)
{
	CHECK_INT(hib_fail(NULL, EIO, "x"), -EIO);
	CHECK_INT(hib_fail_errno(NULL, EIO, "x"), -EIO);
	CHECK_INT(hib_wrap(NULL, -EIO, "x"), -EIO);
}

TEST(a_message_too_long_is_cut)
{
	struct hib_error error = HIB_ERROR_INIT;
	char text[3000];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = 0;
	hib_fail(&error, EIO, "%s", text);
	CHECK_INT(strlen(error.message), HIB_ERROR_MESSAGE_BYTES - 1);
	hib_wrap(&error, -EIO, "%s", text);
	CHECK_INT(strlen(error.message), HIB_ERROR_MESSAGE_BYTES - 1);
	hib_fail_errno(&error, EIO, "%s", text);
	CHECK_INT(strlen(error.message), HIB_ERROR_MESSAGE_BYTES - 1);
}

TEST_MAIN()
