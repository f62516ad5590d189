#include "transfer/s3_sign.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/encode.h"

#define CANONICAL_LIMIT_BYTES (64u << 10)
#define SCOPE_BYTES 192

void s3_sign_date(int64_t realtime_ms, char ret_date[S3_DATE_BYTES])
{
	time_t seconds = (time_t)(realtime_ms / 1000);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	if (strftime(ret_date, S3_DATE_BYTES, "%Y%m%dT%H%M%SZ", &tm) == 0)
		*ret_date = 0;
}

int s3_sha256(const void *data, size_t size, uint8_t ret_hash[S3_SHA256_BYTES])
{
	return EVP_Digest(data, size, ret_hash, NULL, EVP_sha256(), NULL) == 1
		       ? 0
		       : -EIO;
}

static int hmac(const void *key, size_t key_size, const char *text,
		uint8_t ret[S3_SHA256_BYTES])
{
	return HMAC(EVP_sha256(), key, (int)key_size, (const uint8_t *)text,
		    strlen(text), ret, NULL)
		       ? 0
		       : -EIO;
}

static int append_signed_names(struct buffer *out,
			       const struct s3_sign_input *input)
{
	int r = 0;

	for (size_t i = 0; i < input->header_count && r == 0; i++)
		r = buffer_append_format(out, "%s%s", i ? ";" : "",
					 input->headers[i].name);
	return r;
}

/* Task 1 of the specification: the hash of the canonical request. */
static int canonical_hash(const struct s3_sign_input *input, char ret_hex[65])
{
	CLEANUP(buffer_done)
	struct buffer text = BUFFER_INIT(CANONICAL_LIMIT_BYTES);
	uint8_t hash[S3_SHA256_BYTES];
	int r;

	r = buffer_append_format(&text, "%s\n%s\n%s\n", input->method,
				 input->path, input->query);
	for (size_t i = 0; i < input->header_count && r == 0; i++)
		r = buffer_append_format(&text, "%s:%s\n",
					 input->headers[i].name,
					 input->headers[i].value);
	if (r == 0)
		r = buffer_append_string(&text, "\n");
	if (r == 0)
		r = append_signed_names(&text, input);
	if (r == 0)
		r = buffer_append_format(&text, "\n%s", input->payload_sha256);
	if (r == 0)
		r = s3_sha256(text.data, text.size, hash);
	if (r < 0)
		return r;
	encode_hex(hash, sizeof(hash), ret_hex);
	return 0;
}

/* Task 3: HMAC chain from the secret to the signature of `text`. */
static int sign_text(const struct s3_sign_input *input, const char *secret_key,
		     const char *text, char ret_hex[65])
{
	char day[9], first[S3_SECRET_KEY_BYTES + 4];
	uint8_t key[S3_SHA256_BYTES];
	int length, r;

	snprintf(day, sizeof(day), "%.8s", input->date);
	length = snprintf(first, sizeof(first), "AWS4%s", secret_key);
	r = hmac(first, (size_t)length, day, key);
	if (r == 0)
		r = hmac(key, sizeof(key), input->region, key);
	if (r == 0)
		r = hmac(key, sizeof(key), input->service, key);
	if (r == 0)
		r = hmac(key, sizeof(key), "aws4_request", key);
	if (r == 0)
		r = hmac(key, sizeof(key), text, key);
	if (r == 0)
		encode_hex(key, sizeof(key), ret_hex);
	OPENSSL_cleanse(first, sizeof(first));
	OPENSSL_cleanse(key, sizeof(key));
	return r;
}

int s3_sign(const struct s3_sign_input *input,
	    const struct s3_credentials *credentials, struct buffer *out)
{
	char scope[SCOPE_BYTES], text[SCOPE_BYTES + 128];
	char request_hex[65], signature[65];
	int r, n;

	n = snprintf(scope, sizeof(scope), "%.8s/%s/%s/aws4_request",
		     input->date, input->region, input->service);
	if (n < 0 || (size_t)n >= sizeof(scope))
		return -EINVAL;
	r = canonical_hash(input, request_hex);
	if (r < 0)
		return r;
	snprintf(text, sizeof(text), "AWS4-HMAC-SHA256\n%s\n%s\n%s",
		 input->date, scope, request_hex);
	r = sign_text(input, credentials->secret_key, text, signature);
	if (r == 0)
		r = buffer_append_format(
			out, "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=",
			credentials->access_key, scope);
	if (r == 0)
		r = append_signed_names(out, input);
	if (r == 0)
		r = buffer_append_format(out, ",Signature=%s", signature);
	return r;
}
