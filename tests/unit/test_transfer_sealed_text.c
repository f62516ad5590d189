/* The check at the end of bucket.json and epochs. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "tests/unit/test.h"
#include "transfer/sealed_text.h"

static const char plain[] = "{\n  \"seq\": 12,\n  \"name\": \"x\"\n}";

/* req: T9 */
TEST(what_was_sealed_opens_as_it_was)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(1000);

	CHECK_INT(buffer_append_string(&text, plain), 0);
	CHECK_INT(sealed_text_seal(&text, NULL), 0);
	CHECK(strstr(buffer_string(&text), "\"sha256\": \""));
	CHECK_INT(sealed_text_open("object", &text, NULL), 0);
	CHECK_STR(buffer_string(&text), plain);
}

/* req: T9 */
TEST(every_flipped_bit_and_every_cut_is_refused_by_name)
{
	CLEANUP(buffer_done) struct buffer sealed = BUFFER_INIT(1000);

	CHECK_INT(buffer_append_string(&sealed, plain), 0);
	CHECK_INT(sealed_text_seal(&sealed, NULL), 0);
	for (size_t bit = 0; bit < 8 * sealed.size; bit++) {
		CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(1000);
		struct hib_error error = HIB_ERROR_INIT;

		CHECK_INT(buffer_append(&text, sealed.data, sealed.size), 0);
		text.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		CHECK_INT(sealed_text_open("object", &text, &error), -EBADMSG);
		CHECK(strstr(error.message, "object is damaged"));
	}
	for (size_t size = 0; size < sealed.size; size++) {
		CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(1000);

		CHECK_INT(buffer_append(&text, sealed.data, size), 0);
		CHECK_INT(sealed_text_open("object", &text, NULL), -EBADMSG);
	}
}

TEST_MAIN()
