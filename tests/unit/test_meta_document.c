#include <errno.h>

#include "meta/document.h"
#include "tests/unit/scratch.h"
#include "tests/unit/test.h"

static int parse(const char *text, struct hib_error *error)
{
	json_t *document;
	int r = document_parse("x.json", text, strlen(text), "test", 3,
			       &document, error);

	if (r == 0)
		json_decref(document);
	return r;
}

/* req: T10 */
TEST(a_newer_version_is_refused_by_name_and_number)
{
	struct hib_error error = HIB_ERROR_INIT;

	CHECK_INT(parse("{\"format\":\"test\",\"version\":4}", &error),
		  -EPROTONOSUPPORT);
	CHECK(strstr(error.message, "x.json"));
	CHECK(strstr(error.message, "\"test\""));
	CHECK(strstr(error.message, "version 4"));
	CHECK_INT(parse("{\"format\":\"test\",\"version\":3}", &error), 0);
	CHECK_INT(parse("{\"format\":\"test\",\"version\":1}", &error), 0);
}

TEST(what_is_broken_is_refused_naming_the_file)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{}",
		"null",
		"{\"format\":\"other\",\"version\":1}",
		"{\"format\":\"test\"}",
		"{\"format\":\"test\",\"version\":\"1\"}",
		"{\"format\":\"test\",\"version\":0}",
		"{\"format\":\"test\",\"version\":-1}",
		"{\"format\":\"test\",\"version\":1,\"version\":1}",
		"{\"format\":\"test\",\"version\":1} x",
		"{\"format\":\"te\xff\",\"version\":1}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct hib_error error = HIB_ERROR_INIT;

		CHECK_INT(parse(bad[i], &error), -EBADMSG);
		CHECK(strncmp(error.message, "x.json: ", 8) == 0);
	}
}

static void check_name(const char *name, const char *text)
{
	json_t *object = json_pack("{s:o}", "n", document_name(name));
	char back[DOCUMENT_NAME_BYTES];

	CHECK(object);
	CHECK_STR(json_string_value(json_object_get(object, "n")), text);
	CHECK_INT(document_get_name("x", object, "n", back, NULL), 0);
	CHECK_STR(back, name ? name : "");
	json_decref(object);
}

TEST(names_of_any_bytes_are_read_back)
{
	char longest[256], encoded[3 * 255 + 1];

	check_name(NULL, NULL);
	check_name("", NULL);
	check_name("plain name", "plain name");
	check_name("50%\n", "50%25%0A");
	check_name("\xc3\xa4", "\xc3\xa4");
	check_name("\xc3\xa4\xff", "%C3%A4%FF");
	memset(longest, 0xff, 255);
	longest[255] = 0;
	for (size_t i = 0; i < 255; i++)
		memcpy(encoded + 3 * i, "%FF", 4);
	check_name(longest, encoded);
}

/* req: A2 */
TEST(a_name_that_is_none_is_refused)
{
	static const char *const bad[] = { "..",     ".",  "a%2Fb", "a/b",
					   "%2E%2E", "%0", "a%00b" };
	char back[DOCUMENT_NAME_BYTES] = "untouched";

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *object = json_pack("{s:s}", "n", bad[i]);

		CHECK_INT(document_get_name("x", object, "n", back, NULL),
			  -EBADMSG);
		CHECK_STR(back, "untouched");
		json_decref(object);
	}
}

static void check_text(const char *text, const char *wanted)
{
	json_t *json = document_text(text);

	CHECK(json);
	CHECK_STR(json_string_value(json), wanted);
	json_decref(json);
}

TEST(text_that_is_not_utf_8_is_made_readable)
{
	check_text(NULL, NULL);
	check_text("", NULL);
	check_text("a\xc3\xa4", "a\xc3\xa4");
	check_text("\xff", "?");
	check_text("a\xff\xc3\xa4\xc3", "a?\xc3\xa4?");
	check_text("\xf0\x9f\x98\x80\xf0\x9f\x98", "\xf0\x9f\x98\x80???");
}

TEST(numbers_and_texts_have_a_range)
{
	json_t *object = json_pack("{s:i, s:s, s:b, s:f}", "minus", -1, "text",
				   "four", "yes", 1, "real", 1.5);
	uint64_t number = 7;
	int64_t sign;
	bool flag;
	char text[5];

	CHECK_INT(document_get_u64("x", object, "minus", &number, NULL),
		  -EBADMSG);
	CHECK_INT(document_get_u64("x", object, "none", &number, NULL),
		  -EBADMSG);
	CHECK_INT(document_get_u64("x", object, "real", &number, NULL),
		  -EBADMSG);
	CHECK_INT(number, 7);
	CHECK_INT(document_get_i64("x", object, "minus", &sign, NULL), 0);
	CHECK_INT(document_get_bool("x", object, "yes", &flag, NULL), 0);
	CHECK_INT(document_get_bool("x", object, "text", &flag, NULL),
		  -EBADMSG);
	CHECK_INT(document_get_text("x", object, "text", text, 5, NULL), 0);
	CHECK_INT(document_get_text("x", object, "text", text, 4, NULL),
		  -EBADMSG);
	CHECK_INT(document_get_text("x", object, "none", text, 4, NULL), 0);
	CHECK_STR(text, "");
	json_decref(object);
}

TEST(a_document_is_saved_and_loaded)
{
	struct hib_error error = HIB_ERROR_INIT;
	json_t *document = document_new("test", 3), *back;
	int fd = scratch_new();

	CHECK_INT(document_load(fd, "d", "d", "test", 3, &back, &error),
		  -ENOENT);
	CHECK_INT(document_save(fd, "d", document, NULL), 0);
	CHECK_INT(document_load(fd, "d", "d", "test", 3, &back, NULL), 0);
	CHECK(json_equal(document, back));
	json_decref(back);
	json_decref(document);
	scratch_done(fd);
}

TEST_MAIN()
