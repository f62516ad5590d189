/*
 * The vectors are AWS's own: "Signature Calculations for the Authorization
 * Header" in the Amazon S3 API reference, and get-vanilla of the Signature
 * Version 4 test suite.
 */
#include "transfer/s3_sign.h"

#include "base/encode.h"
#include "tests/unit/test.h"

#define EMPTY_SHA256 \
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const struct s3_credentials example = {
	.access_key = "AKIAIOSFODNN7EXAMPLE",
	.secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
};

/* The signature of `input` with S3's example account, day and region. */
static void check_signature(struct s3_sign_input *input,
			    const char *signed_names, const char *signature)
{
	struct buffer out = BUFFER_INIT(4096);
	char wanted[1024];

	input->date = "20130524T000000Z";
	input->region = "us-east-1";
	input->service = "s3";
	CHECK_INT(s3_sign(input, &example, &out), 0);
	snprintf(
		wanted, sizeof(wanted),
		"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=%s,Signature=%s",
		signed_names, signature);
	CHECK_STR(buffer_string(&out), wanted);
	buffer_done(&out);
}

TEST(signs_aws_example_get_object)
{
	const struct s3_header headers[] = {
		{ "host", "examplebucket.s3.amazonaws.com" },
		{ "range", "bytes=0-9" },
		{ "x-amz-content-sha256", EMPTY_SHA256 },
		{ "x-amz-date", "20130524T000000Z" },
	};
	struct s3_sign_input input = {
		.method = "GET",
		.path = "/test.txt",
		.query = "",
		.headers = headers,
		.header_count = 4,
		.payload_sha256 = EMPTY_SHA256,
	};

	check_signature(
		&input, "host;range;x-amz-content-sha256;x-amz-date",
		"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(signs_aws_example_put_object)
{
	static const char body[] = "Welcome to Amazon S3.";
	char hex[65];
	uint8_t hash[32];
	const struct s3_header headers[] = {
		{ "date", "Fri, 24 May 2013 00:00:00 GMT" },
		{ "host", "examplebucket.s3.amazonaws.com" },
		{ "x-amz-content-sha256", hex },
		{ "x-amz-date", "20130524T000000Z" },
		{ "x-amz-storage-class", "REDUCED_REDUNDANCY" },
	};
	struct s3_sign_input input = {
		.method = "PUT",
		.path = "/test%24file.text",
		.query = "",
		.headers = headers,
		.header_count = 5,
		.payload_sha256 = hex,
	};

	CHECK_INT(s3_sha256(body, strlen(body), hash), 0);
	encode_hex(hash, sizeof(hash), hex);
	check_signature(
		&input,
		"date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
		"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(signs_aws_example_queries)
{
	const struct s3_header headers[] = {
		{ "host", "examplebucket.s3.amazonaws.com" },
		{ "x-amz-content-sha256", EMPTY_SHA256 },
		{ "x-amz-date", "20130524T000000Z" },
	};
	struct s3_sign_input input = {
		.method = "GET",
		.path = "/",
		.query = "lifecycle=",
		.headers = headers,
		.header_count = 3,
		.payload_sha256 = EMPTY_SHA256,
	};

	check_signature(
		&input, "host;x-amz-content-sha256;x-amz-date",
		"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	input.query = "max-keys=2&prefix=J";
	check_signature(
		&input, "host;x-amz-content-sha256;x-amz-date",
		"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(signs_get_vanilla_of_the_test_suite)
{
	const struct s3_credentials suite = {
		.access_key = "AKIDEXAMPLE",
		.secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
	};
	const struct s3_header headers[] = {
		{ "host", "example.amazonaws.com" },
		{ "x-amz-date", "20150830T123600Z" },
	};
	const struct s3_sign_input input = {
		.method = "GET",
		.path = "/",
		.query = "",
		.headers = headers,
		.header_count = 2,
		.payload_sha256 = EMPTY_SHA256,
		.date = "20150830T123600Z",
		.region = "us-east-1",
		.service = "service",
	};
	struct buffer out = BUFFER_INIT(4096);

	CHECK_INT(s3_sign(&input, &suite, &out), 0);
	CHECK(strstr(
		buffer_string(&out),
		"Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"));
	buffer_done(&out);
}

TEST(a_date_has_the_basic_iso_form)
{
	char date[S3_DATE_BYTES];

	s3_sign_date(INT64_C(1369353600000), date);
	CHECK_STR(date, "20130524T000000Z");
}

/* req: A3 */
TEST(a_signature_does_not_hold_the_secret)
{
	const struct s3_header headers[] = { { "host", "h" } };
	const struct s3_sign_input input = {
		.method = "GET",
		.path = "/",
		.query = "",
		.headers = headers,
		.header_count = 1,
		.payload_sha256 = EMPTY_SHA256,
		.date = "20150830T123600Z",
		.region = "r",
		.service = "s3",
	};
	struct buffer out = BUFFER_INIT(4096);

	CHECK_INT(s3_sign(&input, &example, &out), 0);
	CHECK(!strstr(buffer_string(&out), example.secret_key));
	buffer_done(&out);
}

TEST_MAIN()
