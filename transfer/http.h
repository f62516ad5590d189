/*
 * HTTP requests on one thread that owns a curl multi handle. Knows nothing of
 * S3, signs nothing and retries nothing: one struct http_request is one
 * attempt. Used by the s3 backend.
 *
 * Urgent requests go before the others and may use a few connections more.
 * A request that moves no byte for the stall timeout, whose deadline passes or
 * whose cancel fires ends at once.
 *
 * Thread-safety: http_submit() and http_stop() from any thread; the callbacks
 * of a request run in the loop's thread and must not block.
 */
#ifndef HIBFS_TRANSFER_HTTP_H
#define HIBFS_TRANSFER_HTTP_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cancel.h"
#include "base/error.h"
#include "transfer/http_response.h"

struct http;

struct http_config {
	unsigned connections;
	uint64_t stall_timeout_ms;
	const char *ca_file; /* PEM; replaces the system's; NULL: the system's */
	bool no_proxy; /* even when the environment names one */
};

struct http_request {
	/* set by the owner before http_submit() */
	bool urgent;
	uint64_t not_before_ms, deadline_ms; /* monotonic; 0: none */
	struct cancel *cancel;
	/*
	 * Called right before the request is sent, which may be long after
	 * http_submit(): sets what is below. 0 or a negative errno.
	 */
	int (*prepare)(struct http_request *request, struct hib_error *error);
	/* The head of the answer is complete. 0 or a negative errno. */
	int (*on_head)(struct http_request *request);
	/* A piece of the body. 0 or a negative errno. */
	int (*on_body)(struct http_request *request, const void *data,
		       size_t size);
	/*
	 * The end of the attempt, the request may be submitted again or freed.
	 * 0: there is an answer, of whatever status; else a negative errno:
	 * that of prepare, on_head or on_body, -ECANCELED, -ETIMEDOUT (the
	 * deadline), or that of the failed transfer.
	 */
	void (*done)(struct http_request *request, int result,
		     const struct hib_error *error);

	/* set by prepare */
	const char *method; /* GET, HEAD, PUT, POST or DELETE */
	const char *url;
	struct curl_slist *headers; /* owned by the request's owner */
	const void *body; /* PUT and POST; not copied */
	size_t body_size;
	bool fresh_connection; /* never send it twice on a stale one */

	/* read by done */
	struct http_response response;
	bool transient; /* the failed transfer may succeed if tried again */
	bool maybe_received; /* the server may have got the whole request */

	/* the loop's own */
	struct http *http;
	struct http_request *next, *previous;
	CURL *easy;
	struct cancel_watch watch;
	size_t body_at;
	int callback_error;
	uint64_t moved_ms; /* when bytes last moved */
	curl_off_t moved_bytes;
	char message[CURL_ERROR_SIZE];
};

int http_new(const struct http_config *config, struct http **ret,
	     struct hib_error *error);
/* Ends every request with -ECANCELED, now and from now on. */
void http_stop(struct http *http);
/* After http_stop(): waits for the last request. Takes NULL. */
struct http *http_free(struct http *http);

void http_submit(struct http *http, struct http_request *request);

#endif
