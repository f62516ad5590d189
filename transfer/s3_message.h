/*
 * What S3 is asked and what it answers, as bytes: URL paths and queries, the
 * XML bodies of requests, and the XML documents of answers. Does no I/O. Used
 * by the s3 backend.
 *
 * Reference: "Amazon S3 API Reference", Actions.
 *
 * Parsers return -EBADMSG for a document that is malformed or of another kind,
 * -ENOMEM.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_TRANSFER_S3_MESSAGE_H
#define HIBFS_TRANSFER_S3_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "transfer/store_backend.h"

#define S3_CODE_BYTES 64
#define S3_UPLOAD_ID_BYTES 1024
#define S3_ETAG_BYTES 128
#define S3_PARTS_MAX 10000

/* The <Error> document. */
struct s3_error {
	char code[S3_CODE_BYTES]; /* "" when there was none */
	char message[256]; /* printable, cut at the end if too long */
	char region[S3_CODE_BYTES]; /* where the bucket really is, "" unknown */
};
int s3_parse_error(const void *data, size_t size, struct s3_error *ret);

/* Appends `path`, percent-encoded but for its slashes. */
int s3_append_path(struct buffer *out, const char *path);

/* ListObjectsV2; `after` and `token` may be NULL. Sorted, as signing wants. */
int s3_append_list_query(struct buffer *out, const char *prefix,
			 const char *after, const char *token);
/*
 * Fills *page. Each key must begin with `strip`, which is taken away: the
 * prefix in the store's URL.
 */
int s3_parse_list(const void *data, size_t size, const char *strip,
		  struct store_page *page);

/* DeleteObjects; each key has `prefix` put before it. */
int s3_append_delete_body(struct buffer *out, const char *prefix,
			  const char *const *keys, size_t count);
/*
 * 0 when each of the keys is confirmed. Else -EIO, and *ret_key is the first
 * that is not, with what the store said about it in *ret_error (code "" when
 * it said nothing).
 */
int s3_parse_delete(const void *data, size_t size, const char *prefix,
		    const char *const *keys, size_t count, const char **ret_key,
		    struct s3_error *ret_error);

int s3_parse_upload_id(const void *data, size_t size,
		       char ret_id[S3_UPLOAD_ID_BYTES]);
int s3_append_complete_body(struct buffer *out,
			    const char (*etags)[S3_ETAG_BYTES], size_t count);
/* 0 when it is the document of a completed upload. */
int s3_parse_complete(const void *data, size_t size);

#endif
