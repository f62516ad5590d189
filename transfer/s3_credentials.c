#include "transfer/s3_credentials.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define FILE_LIMIT_BYTES (1u << 20)

void s3_credentials_done(struct s3_credentials *credentials)
{
	OPENSSL_cleanse(credentials, sizeof(*credentials));
}

bool s3_credentials_equal(const struct s3_credentials *a,
			  const struct s3_credentials *b)
{
	return strcmp(a->access_key, b->access_key) == 0 &&
	       strcmp(a->secret_key, b->secret_key) == 0 &&
	       strcmp(a->token, b->token) == 0;
}

bool s3_credentials_in(const struct s3_credentials *credentials,
		       const char *text)
{
	const char *parts[] = { credentials->access_key,
				credentials->secret_key, credentials->token };

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (*parts[i] && strstr(text, parts[i]))
			return true;
	return false;
}

/* False when the value is too long or holds what no header may. */
static bool take_value(char *ret, size_t size, const char *value)
{
	size_t length = strlen(value);

	if (length >= size)
		return false;
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)value[i] <= ' ' ||
		    (unsigned char)value[i] > '~')
			return false;
	memcpy(ret, value, length + 1);
	return true;
}

/* What a profile may hold; each is one `name = value` line. */
struct ini_profile {
	struct s3_credentials *credentials; /* NULL: not wanted */
	char *region; /* S3_REGION_BYTES; NULL: not wanted */
	bool malformed;
};

static char *trim(char *text)
{
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	end = text + strlen(text);
	while (end > text && isspace((unsigned char)end[-1]))
		*--end = 0;
	return text;
}

/* "[name]", "[profile name]"; NULL for another line. */
static const char *section_name(char *line)
{
	size_t length = strlen(line);

	if (length < 2 || line[0] != '[' || line[length - 1] != ']')
		return NULL;
	line[length - 1] = 0;
	line = trim(line + 1);
	if (strncmp(line, "profile", 7) == 0 && isspace((unsigned char)line[7]))
		line = trim(line + 7);
	return line;
}

static void take_line(struct ini_profile *profile, char *line)
{
	struct s3_credentials *credentials = profile->credentials;
	char *equals = strchr(line, '=');
	const char *name, *value;
	bool good = true;

	if (!equals)
		return;
	*equals = 0;
	name = trim(line);
	value = trim(equals + 1);
	if (credentials && strcmp(name, "aws_access_key_id") == 0)
		good = take_value(credentials->access_key, S3_ACCESS_KEY_BYTES,
				  value);
	else if (credentials && strcmp(name, "aws_secret_access_key") == 0)
		good = take_value(credentials->secret_key, S3_SECRET_KEY_BYTES,
				  value);
	else if (credentials && strcmp(name, "aws_session_token") == 0)
		good = take_value(credentials->token, S3_TOKEN_BYTES, value);
	else if (profile->region && strcmp(name, "region") == 0)
		good = take_value(profile->region, S3_REGION_BYTES, value);
	if (!good)
		profile->malformed = true;
}

/* `text` is taken apart in place. */
static bool parse_profile(char *text, const char *name,
			  struct ini_profile *profile)
{
	bool found = false, inside = false;
	char *rest = text, *line;

	while ((line = strsep(&rest, "\n"))) {
		const char *section;

		line = trim(line);
		if (*line == 0 || *line == '#' || *line == ';')
			continue;
		section = section_name(line);
		if (section) {
			inside = strcmp(section, name) == 0;
			found = found || inside;
		} else if (inside) {
			take_line(profile, line);
		}
	}
	return found;
}

/* 0: the profile is there; -ENOENT: file or profile is not. */
static int read_profile(const char *path, const char *name,
			struct ini_profile *profile, struct hib_error *error)
{
	struct buffer text = BUFFER_INIT(FILE_LIMIT_BYTES);
	bool found = false;
	int r;

	r = file_read_all(AT_FDCWD, path, &text, error);
	if (r == 0 && text.data)
		found = parse_profile((char *)text.data, name, profile);
	if (text.data)
		OPENSSL_cleanse(text.data, text.capacity);
	buffer_done(&text);
	if (r < 0)
		return r;
	if (!found)
		return hib_fail(error, ENOENT, "%s has no profile \"%s\"", path,
				name);
	if (profile->malformed)
		return hib_fail(
			error, EINVAL,
			"%s, profile \"%s\": a value is too long or not plain text",
			path, name);
	return 0;
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

static bool aws_file(char ret_path[PATH_MAX], const char *variable,
		     const char *name)
{
	const char *path = environment(variable);
	const char *home = environment("HOME");
	struct passwd entry, *found = NULL;
	char text[4096];
	int n;

	if (path) {
		n = snprintf(ret_path, PATH_MAX, "%s", path);
		return n < PATH_MAX;
	}
	if (!home &&
	    getpwuid_r(getuid(), &entry, text, sizeof(text), &found) == 0 &&
	    found)
		home = found->pw_dir;
	if (!home)
		return false;
	n = snprintf(ret_path, PATH_MAX, "%s/.aws/%s", home, name);
	return n < PATH_MAX;
}

static const char *profile_name(const char *profile)
{
	if (!profile)
		profile = environment("AWS_PROFILE");
	return profile ? profile : "default";
}

static bool is_complete(const struct s3_credentials *credentials)
{
	return *credentials->access_key && *credentials->secret_key;
}

/* True when the environment has both; *error is set when they are unusable. */
static bool from_environment(struct s3_credentials *ret,
			     struct hib_error *error)
{
	const char *key = environment("AWS_ACCESS_KEY_ID");
	const char *secret = environment("AWS_SECRET_ACCESS_KEY");
	const char *token = environment("AWS_SESSION_TOKEN");

	if (!key || !secret)
		return false;
	if (!take_value(ret->access_key, S3_ACCESS_KEY_BYTES, key) ||
	    !take_value(ret->secret_key, S3_SECRET_KEY_BYTES, secret) ||
	    !take_value(ret->token, S3_TOKEN_BYTES, token ? token : ""))
		hib_fail(
			error, EACCES,
			"AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_SESSION_TOKEN is too long or not plain text");
	return true;
}

static int from_files(const char *file, const char *profile,
		      struct s3_credentials *ret, struct hib_error *error)
{
	struct ini_profile wanted = { .credentials = ret };
	const char *name = profile_name(profile);
	struct hib_error first = HIB_ERROR_INIT;
	char path[PATH_MAX];
	int r = -ENOENT;

	if (file)
		r = read_profile(file, name, &wanted, &first);
	else if (aws_file(path, "AWS_SHARED_CREDENTIALS_FILE", "credentials"))
		r = read_profile(path, name, &wanted, &first);
	if (!file && r == -ENOENT &&
	    aws_file(path, "AWS_CONFIG_FILE", "config"))
		r = read_profile(path, name, &wanted, NULL);
	if (r == 0 && is_complete(ret))
		return 0;
	if (r == 0)
		return hib_fail(
			error, EACCES,
			"profile \"%s\" lacks aws_access_key_id or aws_secret_access_key",
			name);
	if (r == -ENOENT && !file)
		return hib_fail(
			error, EACCES,
			"no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials (profile \"%s\")",
			name);
	return hib_fail(error, EACCES, "no S3 credentials: %s", first.message);
}

int s3_credentials_load(const char *file, const char *profile,
			struct s3_credentials *ret, struct hib_error *error)
{
	struct s3_credentials loaded = { 0 };
	struct hib_error failure = HIB_ERROR_INIT;
	int r = 0;

	if (file || profile || !from_environment(&loaded, &failure))
		r = from_files(file, profile, &loaded, &failure);
	if (r == 0 && !failure.code)
		*ret = loaded;
	else
		r = hib_fail(error, failure.code, "%s", failure.message);
	s3_credentials_done(&loaded);
	return r;
}

void s3_region_load(const char *profile, char ret_region[S3_REGION_BYTES])
{
	char region[S3_REGION_BYTES] = "";
	struct ini_profile wanted = { .region = region };
	const char *value = environment("AWS_REGION");
	char path[PATH_MAX];

	if (!value)
		value = environment("AWS_DEFAULT_REGION");
	if (value && take_value(ret_region, S3_REGION_BYTES, value))
		return;
	if (aws_file(path, "AWS_CONFIG_FILE", "config") &&
	    read_profile(path, profile_name(profile), &wanted, NULL) == 0 &&
	    *region)
		memcpy(ret_region, region, S3_REGION_BYTES);
	else
		strcpy(ret_region, "us-east-1");
}
