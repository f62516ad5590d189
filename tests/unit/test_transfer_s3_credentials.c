#include "transfer/s3_credentials.h"

#include <errno.h>

#include "tests/unit/scratch.h"
#include "tests/unit/test.h"

static const char *const variables[] = {
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
	"AWS_SESSION_TOKEN", "AWS_SHARED_CREDENTIALS_FILE",
	"AWS_CONFIG_FILE",   "AWS_PROFILE",
	"AWS_REGION",	     "AWS_DEFAULT_REGION",
};

/* A home with nothing in it and no word of AWS around. */
static int new_home(void)
{
	int fd = scratch_new();
	char path[256];

	for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
		unsetenv(variables[i]);
	scratch_path(fd, path);
	setenv("HOME", path, 1);
	CHECK_INT(mkdirat(fd, ".aws", 0700), 0);
	return fd;
}

static void write_text(int fd, const char *name, const char *text)
{
	scratch_write(fd, name, text, strlen(text));
}

TEST(the_environment_is_taken)
{
	int fd = new_home();
	struct s3_credentials found;

	setenv("AWS_ACCESS_KEY_ID", "key", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	CHECK_INT(s3_credentials_load(NULL, NULL, &found, NULL), 0);
	CHECK_STR(found.access_key, "key");
	CHECK_STR(found.secret_key, "secret");
	CHECK_STR(found.token, "");
	setenv("AWS_SESSION_TOKEN", "token", 1);
	CHECK_INT(s3_credentials_load(NULL, NULL, &found, NULL), 0);
	CHECK_STR(found.token, "token");
	s3_credentials_done(&found);
	CHECK_STR(found.secret_key, "");
	scratch_done(fd);
}

TEST(the_file_of_the_home_directory_is_taken)
{
	int fd = new_home();
	struct s3_credentials found;

	write_text(fd, ".aws/credentials",
		   "# note\n"
		   "[other]\naws_access_key_id=wrong\n"
		   "[default]\r\n aws_access_key_id = k1 \r\n"
		   "aws_secret_access_key=a/b+c=d\n; note\n\n"
		   "aws_session_token = t\n"
		   "[last]\naws_access_key_id=k2\naws_secret_access_key=s2");
	CHECK_INT(s3_credentials_load(NULL, NULL, &found, NULL), 0);
	CHECK_STR(found.access_key, "k1");
	CHECK_STR(found.secret_key, "a/b+c=d");
	CHECK_STR(found.token, "t");
	setenv("AWS_PROFILE", "last", 1);
	CHECK_INT(s3_credentials_load(NULL, NULL, &found, NULL), 0);
	CHECK_STR(found.secret_key, "s2");
	CHECK_STR(found.token, "");
	scratch_done(fd);
}

TEST(a_named_file_or_profile_goes_before_the_environment)
{
	int fd = new_home();
	struct s3_credentials found;
	char path[300], directory[256];

	setenv("AWS_ACCESS_KEY_ID", "env", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "env", 1);
	write_text(fd, "named",
		   "[default]\naws_access_key_id=k\naws_secret_access_key=s\n");
	scratch_path(fd, directory);
	snprintf(path, sizeof(path), "%s/named", directory);
	CHECK_INT(s3_credentials_load(path, NULL, &found, NULL), 0);
	CHECK_STR(found.access_key, "k");
	CHECK_INT(s3_credentials_load(path, "none", &found, NULL), -EACCES);
	scratch_done(fd);
}

TEST(the_configuration_file_may_hold_them_and_the_region)
{
	int fd = new_home();
	struct s3_credentials found;
	char region[S3_REGION_BYTES];

	write_text(
		fd, ".aws/config",
		"[profile p]\nregion = eu-west-1\naws_access_key_id=k\naws_secret_access_key=s\n");
	CHECK_INT(s3_credentials_load(NULL, "p", &found, NULL), 0);
	CHECK_STR(found.access_key, "k");
	s3_region_load("p", region);
	CHECK_STR(region, "eu-west-1");
	s3_region_load(NULL, region);
	CHECK_STR(region, "us-east-1");
	setenv("AWS_DEFAULT_REGION", "r2", 1);
	s3_region_load("p", region);
	CHECK_STR(region, "r2");
	scratch_done(fd);
}

/* req: A3 */
TEST(messages_quote_no_secret)
{
	int fd = new_home();
	struct s3_credentials found;
	struct hib_error error = HIB_ERROR_INIT;

	CHECK_INT(s3_credentials_load(NULL, NULL, &found, &error), -EACCES);
	CHECK(strstr(error.message, "AWS_ACCESS_KEY_ID"));
	write_text(
		fd, ".aws/credentials",
		"[default]\naws_access_key_id=TOPKEY\naws_secret_access_key=TOP SECRET\n");
	CHECK_INT(s3_credentials_load(NULL, NULL, &found, &error), -EACCES);
	CHECK(!strstr(error.message, "TOP"));
	write_text(fd, ".aws/credentials",
		   "[default]\naws_secret_access_key=TOPSECRET\n");
	CHECK_INT(s3_credentials_load(NULL, NULL, &found, &error), -EACCES);
	CHECK(!strstr(error.message, "TOP"));
	scratch_done(fd);
}

/* A header injected by a line end would be signed and sent. */
TEST(values_with_control_characters_are_refused)
{
	int fd = new_home();
	struct s3_credentials found;

	setenv("AWS_ACCESS_KEY_ID", "key\r\nx: y", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	CHECK_INT(s3_credentials_load(NULL, NULL, &found, NULL), -EACCES);
	scratch_done(fd);
}

/* req: A3 */
TEST(a_text_that_quotes_credentials_is_recognised)
{
	const struct s3_credentials credentials = {
		.access_key = "KEY",
		.secret_key = "SECRET",
	};

	CHECK(s3_credentials_in(&credentials, "the SECRET is out"));
	CHECK(s3_credentials_in(&credentials, "KEY"));
	CHECK(!s3_credentials_in(&credentials, "nothing"));
}

TEST_MAIN()
