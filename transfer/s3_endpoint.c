#include "transfer/s3_endpoint.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "transfer/s3_message.h"

#define BUCKET_BYTES 256
#define HOSTNAME_BYTES 256

static bool is_address(const char *host)
{
	struct in_addr v4;

	return *host == '[' || inet_pton(AF_INET, host, &v4) == 1;
}

static bool is_loopback(const char *host)
{
	const char *dot = strrchr(host, '.');
	struct in_addr v4;

	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return strcmp(host, "[::1]") == 0 ||
	       strcasecmp(host, "localhost") == 0 ||
	       (dot && strcasecmp(dot, ".localhost") == 0);
}

/* What a bucket needs to be a part of a host's name. */
static bool is_dns_label(const char *bucket)
{
	size_t length = strlen(bucket);

	if (length < 3 || length > 63 || bucket[0] == '-' ||
	    bucket[length - 1] == '-')
		return false;
	for (; *bucket; bucket++)
		if (!islower((unsigned char)*bucket) &&
		    !isdigit((unsigned char)*bucket) && *bucket != '-')
			return false;
	return true;
}

static bool is_bucket(const char *bucket)
{
	if (!*bucket || *bucket == '.')
		return false;
	for (; *bucket; bucket++)
		if (!isalnum((unsigned char)*bucket) && !strchr("-._", *bucket))
			return false;
	return true;
}

/* "a/b", with any slash at the end; every component a plain word. */
static bool take_prefix(char ret[STORE_KEY_BYTES], const char *prefix)
{
	size_t used = 0;

	*ret = 0;
	while (*prefix) {
		size_t length = strcspn(prefix, "/");

		if (length == 0 && !prefix[1])
			return true;
		if (length == 0 || used + length + 2 > STORE_KEY_BYTES ||
		    (length <= 2 && strspn(prefix, ".") == length))
			return false;
		for (size_t i = 0; i < length; i++)
			if (prefix[i] < '!' || prefix[i] > '~' ||
			    strchr("?#@", prefix[i]))
				return false;
		memcpy(ret + used, prefix, length);
		used += length;
		ret[used++] = '/';
		ret[used] = 0;
		prefix += length;
		if (*prefix == '/')
			prefix++;
	}
	return true;
}

/* The message quotes nothing: a wrong URL may hold a secret. */
static int take_url(struct s3_endpoint *endpoint, const char *url,
		    char ret_bucket[BUCKET_BYTES], struct hib_error *error)
{
	size_t length;

	url += strlen("s3://");
	length = strcspn(url, "/");
	if (length < BUCKET_BYTES) {
		memcpy(ret_bucket, url, length);
		ret_bucket[length] = 0;
		url += length;
		if (*url == '/')
			url++;
		if (is_bucket(ret_bucket) && take_prefix(endpoint->prefix, url))
			return 0;
	}
	return hib_fail(
		error, EINVAL,
		"the store's URL is not of the form s3://bucket or s3://bucket/prefix");
}

struct parts {
	bool tls;
	char host[HOSTNAME_BYTES];
	char port[8]; /* "" for the scheme's own */
};

static bool get_part(CURLU *url, CURLUPart part, unsigned flags, char *ret,
		     size_t size)
{
	char *text = NULL;
	bool good;

	*ret = 0;
	if (curl_url_get(url, part, &text, flags) != CURLUE_OK || !text)
		return true;
	good = strlen(text) < size;
	if (good)
		strcpy(ret, text);
	curl_free(text);
	return good;
}

static bool take_parts(const char *endpoint, struct parts *ret)
{
	char scheme[16], user[8], password[8], path[8], query[8];
	CURLU *url = curl_url();
	bool good;

	if (!url)
		return false;
	good = curl_url_set(url, CURLUPART_URL, endpoint, 0) == CURLUE_OK &&
	       get_part(url, CURLUPART_SCHEME, 0, scheme, sizeof(scheme)) &&
	       get_part(url, CURLUPART_USER, 0, user, sizeof(user)) &&
	       get_part(url, CURLUPART_PASSWORD, 0, password,
			sizeof(password)) &&
	       get_part(url, CURLUPART_HOST, 0, ret->host, sizeof(ret->host)) &&
	       get_part(url, CURLUPART_PORT, CURLU_NO_DEFAULT_PORT, ret->port,
			sizeof(ret->port)) &&
	       get_part(url, CURLUPART_PATH, 0, path, sizeof(path)) &&
	       get_part(url, CURLUPART_QUERY, 0, query, sizeof(query));
	curl_url_cleanup(url);
	if (!good || *user || *password || *query || !*ret->host ||
	    (*path && strcmp(path, "/") != 0))
		return false;
	ret->tls = strcmp(scheme, "https") == 0;
	return ret->tls || strcmp(scheme, "http") == 0;
}

int s3_endpoint_init(struct s3_endpoint *ret, const struct store_config *config,
		     const char *region, struct hib_error *error)
{
	struct s3_endpoint endpoint = { 0 };
	char bucket[BUCKET_BYTES], aws[128];
	const char *colon;
	struct parts parts;
	bool path_style;
	int r;

	r = take_url(&endpoint, config->url, bucket, error);
	if (r < 0)
		return r;
	snprintf(aws, sizeof(aws), "https://s3.%s.amazonaws.com", region);
	if (!take_parts(config->endpoint ? config->endpoint : aws, &parts))
		return hib_fail(
			error, EINVAL,
			"the S3 endpoint is not of the form https://host[:port]");
	endpoint.loopback = is_loopback(parts.host);
	if (!parts.tls && !endpoint.loopback && !config->allow_plain_http)
		return hib_fail(
			error, EPERM,
			"refusing plain http:// to %s: use https://, or allow it with -o s3_insecure_http",
			parts.host);
	path_style = config->path_style || is_address(parts.host) ||
		     !is_dns_label(bucket);
	colon = *parts.port ? ":" : "";
	snprintf(endpoint.host, sizeof(endpoint.host), "%s%s%s%s%s",
		 path_style ? "" : bucket, path_style ? "" : ".", parts.host,
		 colon, parts.port);
	r = snprintf(endpoint.base, sizeof(endpoint.base), "%s://%s",
		     parts.tls ? "https" : "http", endpoint.host);
	if (r < 0 || (size_t)r >= sizeof(endpoint.base))
		return hib_fail(error, EINVAL, "the S3 endpoint is too long");
	if (path_style)
		snprintf(endpoint.bucket_path, sizeof(endpoint.bucket_path),
			 "/%s", bucket);
	*ret = endpoint;
	return 0;
}

int s3_endpoint_append_path(const struct s3_endpoint *endpoint, const char *key,
			    struct buffer *out)
{
	int r = buffer_append_string(out, endpoint->bucket_path);

	if (r == 0 && (key || !*endpoint->bucket_path))
		r = buffer_append_string(out, "/");
	if (r < 0 || !key)
		return r;
	if (strlen(endpoint->prefix) + strlen(key) > STORE_KEY_BYTES)
		return -ENAMETOOLONG;
	r = s3_append_path(out, endpoint->prefix);
	return r < 0 ? r : s3_append_path(out, key);
}
