#include "transfer/s3_xml.h"

#include <errno.h>

#include "base/buffer.h"
#include "tests/unit/test.h"

static int record(void *arg, const char *path, const char *text)
{
	return buffer_append_format(arg, "%s=%s;", path, text ? text : "(...)");
}

/* The visits as one string, or the failure. */
static int parse(const char *document, struct buffer *out)
{
	buffer_clear(out);
	return s3_xml_parse(document, strlen(document), record, out);
}

static void check(const char *document, const char *wanted)
{
	struct buffer out = BUFFER_INIT(1 << 20);

	CHECK_INT(parse(document, &out), 0);
	CHECK_STR(buffer_string(&out), wanted);
	buffer_done(&out);
}

static void check_refused(const char *document)
{
	struct buffer out = BUFFER_INIT(1 << 20);
	int r = parse(document, &out);

	buffer_done(&out);
	if (r != -EBADMSG)
		fprintf(stderr, "accepted: %s\n", document);
	CHECK_INT(r, -EBADMSG);
}

TEST(elements_are_visited_at_their_end)
{
	check("<a/>", "a=;");
	check("<a></a>", "a=;");
	check("<a>x</a>", "a=x;");
	check("<a><b>1</b> <b>2</b></a>", "a/b=1;a/b=2;a=(...);");
	check("<?xml version=\"1.0\"?>\n<a x='1' y = \"2>\"><b z=''/></a>\n",
	      "a/b=;a=(...);");
	check("\xef\xbb\xbf<a>1</a>", "a=1;");
}

TEST(prefixes_are_dropped)
{
	check("<s3:a xmlns:s3=\"u\"><s3:b>1</s3:b></s3:a>", "a/b=1;a=(...);");
}

TEST(text_is_decoded)
{
	check("<a>&lt;&gt;&amp;&quot;&apos;</a>", "a=<>&\"';");
	check("<a>&#65;&#x42;&#xe9;&#x20ac;&#x1F600;</a>",
	      "a=AB\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80;");
	check("<a><![CDATA[<&>]]></a>", "a=<&>;");
	check("<a>1<!-- no -->2</a>", "a=12;");
}

TEST(malformed_documents_are_refused)
{
	static const char *const documents[] = {
		"",
		" ",
		"text",
		"<a>",
		"<a></b>",
		"</a>",
		"<a/><b/>",
		"<a/>x",
		"x<a/>",
		"<a",
		"<a ",
		"<a/",
		"<a x>",
		"<a x=1/>",
		"<a x='1/>",
		"<a x=\"<\"/>",
		"<>x</>",
		"<a>&unknown;</a>",
		"<a>&amp</a>",
		"<a>&#;</a>",
		"<a>&#x;</a>",
		"<a>&#0;</a>",
		"<a>&#xd800;</a>",
		"<a>&#x110000;</a>",
		"<a>&#99999999999999999999;</a>",
		"<a>\x01</a>",
		"<a>\xff</a>",
		"<a><![CDATA[</a>",
		"<a><!-- </a>",
		"<?xml ",
		"<a><?php x ?></a>",
		"<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
	};

	for (size_t i = 0; i < sizeof(documents) / sizeof(*documents); i++)
		check_refused(documents[i]);
}

TEST(limits_hold)
{
	struct buffer text = BUFFER_INIT(1 << 20);

	check_refused("<a><a><a><a><a><a><a><a><a/></a></a></a></a></a></a>"
		      "</a></a>");
	CHECK_INT(buffer_append_string(&text, "<a>"), 0);
	for (int i = 0; i < S3_XML_TEXT_BYTES; i++)
		CHECK_INT(buffer_append_string(&text, "x"), 0);
	CHECK_INT(buffer_append_string(&text, "y</a>"), 0);
	check_refused(buffer_string(&text));
	buffer_clear(&text);
	CHECK_INT(buffer_append_string(&text, "<"), 0);
	for (int i = 0; i < S3_XML_PATH_BYTES; i++)
		CHECK_INT(buffer_append_string(&text, "x"), 0);
	CHECK_INT(buffer_append_string(&text, "/>"), 0);
	check_refused(buffer_string(&text));
	buffer_done(&text);
}

static int refuse(void *arg, const char *path, const char *text)
{
	(void)arg;
	(void)path;
	(void)text;
	return -ENOSPC;
}

TEST(a_visitor_ends_the_parse)
{
	CHECK_INT(s3_xml_parse("<a/>", 4, refuse, NULL), -ENOSPC);
}

TEST_MAIN()
