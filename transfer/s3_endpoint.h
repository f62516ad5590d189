/*
 * From s3://bucket[/prefix] and the configured endpoint to where requests go.
 * Refuses what must never be spoken to: plain HTTP to a foreign host, an
 * endpoint with a user name or a password in it.
 *
 * Thread-safety: pure functions; a finished struct may be read by many.
 */
#ifndef HIBFS_TRANSFER_S3_ENDPOINT_H
#define HIBFS_TRANSFER_S3_ENDPOINT_H

#include <stdbool.h>

#include "base/buffer.h"
#include "base/error.h"
#include "transfer/store.h"

#define S3_HOST_BYTES 600

struct s3_endpoint {
	char base[S3_HOST_BYTES]; /* "https://bucket.host:port" */
	char host[S3_HOST_BYTES]; /* the Host header */
	char bucket_path[S3_HOST_BYTES]; /* "/bucket", "" in the host's name */
	char prefix[STORE_KEY_BYTES]; /* of keys, "" or ends in '/' */
	bool loopback;
};

int s3_endpoint_init(struct s3_endpoint *ret, const struct store_config *config,
		     const char *region, struct hib_error *error);

/*
 * Appends the path of the object, percent-encoded; `key` NULL: of the bucket.
 * -ENAMETOOLONG when prefix and key are more than S3 takes.
 */
int s3_endpoint_append_path(const struct s3_endpoint *endpoint, const char *key,
			    struct buffer *out);

#endif
