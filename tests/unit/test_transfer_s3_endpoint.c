#include "transfer/s3_endpoint.h"

#include <errno.h>

#include "tests/unit/test.h"

static int init(const char *url, const char *endpoint, bool plain_http,
		struct s3_endpoint *ret, struct hib_error *error)
{
	const struct store_config config = {
		.url = url,
		.endpoint = endpoint,
		.allow_plain_http = plain_http,
	};

	return s3_endpoint_init(ret, &config, "eu-west-1", error);
}

static void check(const char *url, const char *endpoint, const char *base,
		  const char *path)
{
	struct buffer out = BUFFER_INIT(4096);
	struct s3_endpoint found;

	CHECK_INT(init(url, endpoint, false, &found, NULL), 0);
	CHECK_STR(found.base, base);
	CHECK_STR(found.host, strstr(base, "://") + 3);
	CHECK_INT(s3_endpoint_append_path(&found, "k y", &out), 0);
	CHECK_STR(buffer_string(&out), path);
	buffer_done(&out);
}

TEST(the_bucket_is_in_the_host_or_in_the_path)
{
	check("s3://bucket", NULL, "https://bucket.s3.eu-west-1.amazonaws.com",
	      "/k%20y");
	check("s3://bucket/a/b/", "https://s3.example.com:9000/",
	      "https://bucket.s3.example.com:9000", "/a/b/k%20y");
	check("s3://bucket/a", "http://127.0.0.1:7480", "http://127.0.0.1:7480",
	      "/bucket/a/k%20y");
	check("s3://bucket", "https://[2001:db8::1]:9000",
	      "https://[2001:db8::1]:9000", "/bucket/k%20y");
	check("s3://buck.et", "https://s3.example.com",
	      "https://s3.example.com", "/buck.et/k%20y");
	check("s3://bucket", "http://localhost:80", "http://bucket.localhost",
	      "/k%20y");
}

TEST(urls_that_are_none_are_refused)
{
	static const char *const urls[] = {
		"s3://",	"s3:///x",	 "s3://b//x",  "s3://b/../x",
		"s3://b/./x",	"s3://user@b/x", "s3://b?x=y", "s3://b/a b",
		"s3://b/x?y=z", "s3://b/x#f",	 "s3://../x",
	};
	struct s3_endpoint found;

	for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++)
		CHECK_INT(init(urls[i], "https://h", false, &found, NULL),
			  -EINVAL);
}

TEST(endpoints_that_are_none_are_refused)
{
	static const char *const endpoints[] = {
		"",	    "host",	   "ftp://h",	    "https://",
		"file:///", "https://h/a", "https://h?a=b", "https://h:x",
		"h t",
	};
	struct s3_endpoint found;

	for (size_t i = 0; i < sizeof(endpoints) / sizeof(*endpoints); i++)
		CHECK_INT(init("s3://b", endpoints[i], false, &found, NULL),
			  -EINVAL);
}

/* req: A3 */
TEST(a_password_in_a_url_is_refused_and_not_quoted)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct s3_endpoint found;

	CHECK_INT(init("s3://b", "https://user:hush@h", false, &found, &error),
		  -EINVAL);
	CHECK(!strstr(error.message, "hush"));
	CHECK_INT(init("s3://user:hush@b/x", "https://h", false, &found,
		       &error),
		  -EINVAL);
	CHECK(!strstr(error.message, "hush"));
}

/* req: A4 */
TEST(plain_http_goes_to_loopback_only)
{
	static const char *const foreign[] = {
		"http://s3.example.com",	"http://10.0.0.1",
		"http://[2001:db8::1]",		"http://127.0.0.1.example.com",
		"http://localhost.example.com", "http://128.0.0.1",
	};
	static const char *const loopback[] = {
		"http://localhost:1", "http://127.0.0.1", "http://127.9.9.9:2",
		"http://[::1]:3",     "http://LOCALHOST",
	};
	struct s3_endpoint found;

	for (size_t i = 0; i < sizeof(foreign) / sizeof(*foreign); i++) {
		CHECK_INT(init("s3://bucket", foreign[i], false, &found, NULL),
			  -EPERM);
		CHECK_INT(init("s3://bucket", foreign[i], true, &found, NULL),
			  0);
		CHECK(!found.loopback);
	}
	for (size_t i = 0; i < sizeof(loopback) / sizeof(*loopback); i++) {
		CHECK_INT(init("s3://bucket", loopback[i], false, &found, NULL),
			  0);
		CHECK(found.loopback);
	}
}

TEST(prefix_and_key_are_limited_together)
{
	struct buffer out = BUFFER_INIT(8192);
	struct s3_endpoint found;
	char key[STORE_KEY_BYTES];

	memset(key, 'k', sizeof(key) - 1);
	key[sizeof(key) - 1] = 0;
	CHECK_INT(init("s3://b/pre", "https://h", false, &found, NULL), 0);
	CHECK_INT(s3_endpoint_append_path(&found, key, &out), -ENAMETOOLONG);
	buffer_done(&out);
}

TEST_MAIN()
