/*
 * Where S3 credentials come from, in this order:
 *
 *	the file and the profile named in the configuration, if either is
 *	AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
 *	AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials, profile AWS_PROFILE
 *	or "default"; then the same profile in AWS_CONFIG_FILE or ~/.aws/config
 *
 * No message holds a key, a secret or a token, nor a line of a file.
 *
 * Thread-safety: none; a struct belongs to one thread at a time. Reads the
 * environment.
 */
#ifndef HIBFS_TRANSFER_S3_CREDENTIALS_H
#define HIBFS_TRANSFER_S3_CREDENTIALS_H

#include <stdbool.h>

#include "base/error.h"

#define S3_ACCESS_KEY_BYTES 132
#define S3_SECRET_KEY_BYTES 132
#define S3_TOKEN_BYTES 8192
#define S3_REGION_BYTES 64

struct s3_credentials {
	char access_key[S3_ACCESS_KEY_BYTES];
	char secret_key[S3_SECRET_KEY_BYTES];
	char token[S3_TOKEN_BYTES]; /* "" without */
};

/* Overwrites the memory, so that no core dump holds it. */
void s3_credentials_done(struct s3_credentials *credentials);

/* `file` and `profile` may be NULL. -EACCES when there are none. */
int s3_credentials_load(const char *file, const char *profile,
			struct s3_credentials *ret, struct hib_error *error);

bool s3_credentials_equal(const struct s3_credentials *a,
			  const struct s3_credentials *b);

/* True when `text` quotes a key, a secret or a token. */
bool s3_credentials_in(const struct s3_credentials *credentials,
		       const char *text);

/* AWS_REGION, AWS_DEFAULT_REGION, the profile's region, "us-east-1". */
void s3_region_load(const char *profile, char ret_region[S3_REGION_BYTES]);

#endif
