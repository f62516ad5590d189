/*
 * AWS Signature Version 4, signing by headers ("Authenticating Requests: Using
 * the Authorization Header", Amazon S3 API reference). Used by the s3 backend.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_TRANSFER_S3_SIGN_H
#define HIBFS_TRANSFER_S3_SIGN_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "transfer/s3_credentials.h"

#define S3_SHA256_BYTES 32
#define S3_DATE_BYTES 17 /* 20130524T000000Z */

struct s3_header {
	const char *name; /* lower case */
	const char *value; /* without white space around it */
};

struct s3_sign_input {
	const char *method;
	const char *path; /* percent-encoded once, begins with '/' */
	const char *query; /* encoded, sorted by name, "" without */
	const struct s3_header *headers; /* all to be signed, sorted by name */
	size_t header_count;
	const char *payload_sha256; /* hex */
	const char *date; /* S3_DATE_BYTES, the value of x-amz-date */
	const char *region;
	const char *service; /* "s3" */
};

/* "20130524T000000Z" */
void s3_sign_date(int64_t realtime_ms, char ret_date[S3_DATE_BYTES]);

/* Appends the value of the Authorization header. Errors are buffer_append()'s. */
int s3_sign(const struct s3_sign_input *input,
	    const struct s3_credentials *credentials, struct buffer *out);

/* -EIO when the cryptographic library refuses. */
int s3_sha256(const void *data, size_t size, uint8_t ret_hash[S3_SHA256_BYTES]);

#endif
