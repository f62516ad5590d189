/*
 * One question to S3 and its answer: signed, sent, judged, and tried again as
 * store_retry.h says until the deadline. Used by s3.c and s3_multipart.c.
 *
 * Thread-safety: s3_exchange_init() and _submit() from any thread, one at a
 * time; the callbacks run in the HTTP thread.
 */
#ifndef HIBFS_TRANSFER_S3_EXCHANGE_H
#define HIBFS_TRANSFER_S3_EXCHANGE_H

#include "transfer/s3.h"
#include "transfer/s3_message.h"
#include "transfer/s3_sign.h"

#define S3_ANSWER_BYTES (64u << 10)
#define S3_LONG_ANSWER_BYTES (8u << 20)

struct s3_exchange {
	struct http_request http; /* first: the callbacks cast */
	struct s3 *s3;
	struct store_request *request; /* for whom it counts; NULL: nobody */

	/* the question; what s3_exchange_init() leaves 0 may be set */
	const char *method;
	struct buffer path, query, url;
	const void *body; /* borrowed */
	size_t body_size;
	uint8_t body_sha256[S3_SHA256_BYTES];
	char content_md5[32]; /* base64; "" without */
	char range[64]; /* value of the Range header; "" without */
	bool if_absent;
	uint64_t deadline_ms; /* monotonic; 0: from the first attempt on */
	uint64_t bytes; /* expected to move: the default deadline grows by it */
	long expected_status; /* 0: any 2xx */

	/*
	 * All optional. begin: an attempt starts, forget the last one's bytes.
	 * on_head, on_data: of an answer with the expected status; without
	 * on_data its body is kept in `answer`. They return 0 or a negative
	 * errno with *failure set, which ends the exchange.
	 * judge: the answer is complete and has the expected status. 0, or a
	 * negative errno: with ret->code set that code is judged, else the
	 * answer is nonsense, and tried again a few times.
	 */
	void (*begin)(struct s3_exchange *exchange);
	int (*on_head)(struct s3_exchange *exchange);
	int (*on_data)(struct s3_exchange *exchange, const void *data,
		       size_t size);
	int (*judge)(struct s3_exchange *exchange, struct s3_error *ret);
	/* The end; the exchange may be freed or submitted anew. */
	void (*done)(struct s3_exchange *exchange, int result,
		     const struct hib_error *error);
	void *arg;

	/* the answer */
	struct buffer answer;
	struct hib_error failure;
	/* An attempt that failed may nevertheless have been carried out. */
	bool ambiguous;

	/* its own */
	int early_result; /* with `failure` set: nothing is sent */
	unsigned attempts, nonsense, clock_fixes;
	bool renewed;
	unsigned generation; /* of the credentials used */
	int64_t offset_ms; /* of the clock used */
	struct hib_error last_failure;
};

/*
 * Path and URL of `key` (NULL: the bucket) with `query` ("" without). On
 * failure the exchange can only be done away with.
 */
int s3_exchange_init(struct s3_exchange *exchange, struct s3 *s3,
		     struct store_request *request, const char *method,
		     const char *key, const char *query);
void s3_exchange_done(struct s3_exchange *exchange);

/* Sets the body and its hash: `sha256` if known, else computed here. */
int s3_exchange_set_body(struct s3_exchange *exchange, const void *data,
			 size_t size, const uint8_t *sha256);

void s3_exchange_submit(struct s3_exchange *exchange);

/*
 * Makes an exchange, whether _init() was called and went well or not, that
 * sends nothing: once submitted it ends with `result`, in the HTTP thread.
 */
void s3_exchange_fail(struct s3_exchange *exchange, struct s3 *s3, int result,
		      const struct hib_error *error,
		      void (*done)(struct s3_exchange *exchange, int result,
				   const struct hib_error *error));

#endif
