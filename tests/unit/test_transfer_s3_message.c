#include "transfer/s3_message.h"

#include <errno.h>

#include "tests/unit/test.h"

#define HEAD                                         \
	"<?xml version=\"1.0\" encoding=\"UTF-8\"?>" \
	"<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"

static int parse_list(const char *document, const char *strip,
		      struct store_page *page)
{
	return s3_parse_list(document, strlen(document), strip, page);
}

TEST(a_listing_is_read)
{
	struct store_page *page = store_page_new();

	CHECK_INT(
		parse_list(
			HEAD
			"<Contents><Key>p/a%2Fb+c%2Bd</Key><Size>12</Size>"
			"<LastModified>2009-10-12T17:50:30.250Z</LastModified></Contents>"
			"<Contents><Key>p/z</Key><Size>0</Size></Contents>"
			"<IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>"
			"<NextContinuationToken>t&amp;1</NextContinuationToken>"
			"</ListBucketResult>",
			"p/", page),
		0);
	CHECK_INT(page->count, 2);
	CHECK_STR(store_page_key(page, 0), "a/b c+d");
	CHECK_INT(page->entries[0].object.size, 12);
	CHECK_INT(page->entries[0].object.modified_ms, INT64_C(1255369830250));
	CHECK_STR(store_page_key(page, 1), "z");
	CHECK(page->truncated);
	CHECK_STR(page->token, "t&1");
	store_page_free(page);
}

TEST(a_listing_without_encoding_is_taken_literally)
{
	struct store_page *page = store_page_new();

	CHECK_INT(parse_list(HEAD "<Contents><Key>a%20b+</Key><Size>1</Size>"
				  "</Contents></ListBucketResult>",
			     "", page),
		  0);
	CHECK_STR(store_page_key(page, 0), "a%20b+");
	CHECK(!page->truncated);
	store_page_free(page);
}

/* req: P8 A2 */
TEST(a_listing_that_is_not_one_is_refused)
{
	static const char *const documents[] = {
		"",
		"<html></html>",
		"<Error><Code>x</Code></Error>",
		HEAD,
		HEAD "<Contents><Key>a</Key></Contents></ListBucketResult>",
		HEAD "<Contents><Size>1</Size></Contents></ListBucketResult>",
		HEAD
		"<Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
		HEAD
		"<EncodingType>url</EncodingType><Contents><Key>%zz</Key><Size>1</Size></Contents></ListBucketResult>",
		HEAD
		"<EncodingType>url</EncodingType><Contents><Key>%00</Key><Size>1</Size></Contents></ListBucketResult>",
	};
	struct store_page *page = store_page_new();

	for (size_t i = 0; i < sizeof(documents) / sizeof(*documents); i++) {
		CHECK_INT(parse_list(documents[i], "", page), -EBADMSG);
		CHECK_INT(page->count, 0);
	}
	CHECK_INT(parse_list(HEAD "<Contents><Key>other/a</Key><Size>1</Size>"
				  "</Contents></ListBucketResult>",
			     "mine/", page),
		  -EBADMSG);
	store_page_free(page);
}

TEST(an_error_document_is_read)
{
	static const char text[] =
		"<Error><Code>SlowDown</Code><Message>a\tb</Message><Region>eu</Region></Error>";
	struct s3_error error;

	CHECK_INT(s3_parse_error(text, strlen(text), &error), 0);
	CHECK_STR(error.code, "SlowDown");
	CHECK_STR(error.message, "a?b");
	CHECK_STR(error.region, "eu");
	CHECK_INT(s3_parse_error("<Error></Error>", 15, &error), -EBADMSG);
	CHECK_INT(s3_parse_error("<html/>", 7, &error), -EBADMSG);
	CHECK_INT(s3_parse_error("", 0, &error), -EBADMSG);
}

static const char *const keys[] = { "a", "b&c", "d" };

static int parse_delete(const char *document, const char **ret_key,
			struct s3_error *ret_error)
{
	return s3_parse_delete(document, strlen(document), "p/", keys, 3,
			       ret_key, ret_error);
}

#define DELETED(key) "<Deleted><Key>p/" key "</Key></Deleted>"
#define REFUSED(key, code)                       \
	"<Error><Key>p/" key "</Key><Code>" code \
	"</Code><Message>m</Message></Error>"

TEST(a_delete_is_confirmed_key_by_key)
{
	struct s3_error error;
	const char *key;

	CHECK_INT(parse_delete("<DeleteResult>" DELETED("d") DELETED("a")
				       DELETED("b&amp;c") "</DeleteResult>",
			       &key, &error),
		  0);
	CHECK_INT(parse_delete("<DeleteResult>" DELETED("a")
				       REFUSED("b&amp;c", "NoSuchKey")
					       DELETED("d") "</DeleteResult>",
			       &key, &error),
		  0);
}

/* req: P8 T13 */
TEST(an_empty_or_partial_confirmation_is_none)
{
	struct s3_error error;
	const char *key;

	CHECK_INT(parse_delete("<DeleteResult/>", &key, &error), -EIO);
	CHECK_STR(key, "a");
	CHECK_STR(error.code, "");
	CHECK_INT(parse_delete("<DeleteResult>" DELETED("a")
				       DELETED("d") "</DeleteResult>",
			       &key, &error),
		  -EIO);
	CHECK_STR(key, "b&c");
	CHECK_INT(
		parse_delete("<DeleteResult>" DELETED("a") DELETED("b&amp;c")
				     REFUSED("d",
					     "AccessDenied") "</DeleteResult>",
			     &key, &error),
		-EIO);
	CHECK_STR(key, "d");
	CHECK_STR(error.code, "AccessDenied");
	CHECK_INT(parse_delete("", &key, &error), -EBADMSG);
	CHECK_INT(parse_delete("<Error><Code>InternalError</Code></Error>",
			       &key, &error),
		  -EBADMSG);
}

TEST(a_delete_names_its_keys)
{
	struct buffer out = BUFFER_INIT(4096);

	CHECK_INT(s3_append_delete_body(&out, "p/", keys, 2), 0);
	CHECK_STR(
		buffer_string(&out),
		"<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
		"<Object><Key>p/a</Key></Object><Object><Key>p/b&amp;c</Key></Object></Delete>");
	buffer_done(&out);
}

TEST(paths_and_queries_are_encoded_for_signing)
{
	struct buffer out = BUFFER_INIT(4096);

	CHECK_INT(s3_append_path(&out, "a b/c%d/~e"), 0);
	CHECK_STR(buffer_string(&out), "a%20b/c%25d/~e");
	buffer_clear(&out);
	CHECK_INT(s3_append_list_query(&out, "p/", "p/a+", NULL), 0);
	CHECK_STR(
		buffer_string(&out),
		"encoding-type=url&list-type=2&max-keys=1000&prefix=p%2F&start-after=p%2Fa%2B");
	buffer_clear(&out);
	CHECK_INT(s3_append_list_query(&out, "", "x", "t/="), 0);
	CHECK_STR(
		buffer_string(&out),
		"continuation-token=t%2F%3D&encoding-type=url&list-type=2&max-keys=1000&prefix=");
	buffer_done(&out);
}

/* req: T13 */
TEST(a_completed_upload_is_told_from_an_error_with_status_200)
{
	static const char good[] =
		"<CompleteMultipartUploadResult><ETag>x-2</ETag></CompleteMultipartUploadResult>";
	static const char bad[] =
		"<Error><Code>InternalError</Code><Message>m</Message></Error>";
	char id[S3_UPLOAD_ID_BYTES];
	static const char create[] =
		"<InitiateMultipartUploadResult><Bucket>b</Bucket><UploadId>2~x</UploadId></InitiateMultipartUploadResult>";

	CHECK_INT(s3_parse_complete(good, strlen(good)), 0);
	CHECK_INT(s3_parse_complete(bad, strlen(bad)), -EBADMSG);
	CHECK_INT(s3_parse_complete("", 0), -EBADMSG);
	CHECK_INT(s3_parse_upload_id(create, strlen(create), id), 0);
	CHECK_STR(id, "2~x");
	CHECK_INT(s3_parse_upload_id(bad, strlen(bad), id), -EBADMSG);
}

TEST_MAIN()
