/*
 * The head of an HTTP answer, line by line, as far as the s3 backend asks for
 * it. What is malformed counts as absent.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_TRANSFER_HTTP_RESPONSE_H
#define HIBFS_TRANSFER_HTTP_RESPONSE_H

#include <stddef.h>
#include <stdint.h>

#define HTTP_TEXT_BYTES 128

/* The answer's head, as far as somebody asks for it; "" and -1: absent. */
struct http_response {
	long status;
	int64_t content_length;
	int64_t range_first, range_last, range_total; /* Content-Range */
	int64_t retry_after_ms;
	int64_t date_ms, last_modified_ms; /* 0: absent */
	char etag[HTTP_TEXT_BYTES];
	char region[HTTP_TEXT_BYTES]; /* x-amz-bucket-region */
};

void http_response_clear(struct http_response *response);

/*
 * One line with its line end, or without. A status line begins a new answer:
 * everything before it (100 Continue, a proxy's answer) is forgotten.
 */
void http_response_take(struct http_response *response, const char *line,
			size_t size);

#endif
