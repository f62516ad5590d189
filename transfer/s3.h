/*
 * The S3 backend's own context, shared by its files; store.h is the front
 * door. What a request becomes:
 *
 *	s3.c		opens, closes, keeps the credentials
 *	s3_job.c	struct store_request -> one or more exchanges
 *	s3_multipart.c	a put in parts: many exchanges
 *	s3_exchange.c	one exchange: sign, send, judge, try again
 *	s3_message.c	the bytes of questions and answers
 *	http.c		one attempt
 */
#ifndef HIBFS_TRANSFER_S3_H
#define HIBFS_TRANSFER_S3_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "transfer/http.h"
#include "transfer/s3_credentials.h"
#include "transfer/s3_endpoint.h"
#include "transfer/store_backend.h"

/* Beyond this a put goes up in parts, this much each. */
#define S3_PART_BYTES ((size_t)64 << 20)
/* S3's limit for what is put at once. */
#define S3_PUT_MAX_BYTES ((uint64_t)5 << 30)

struct s3 {
	struct http *http;
	struct s3_endpoint endpoint;
	char region[S3_REGION_BYTES];
	char *credentials_file, *profile; /* NULL: the usual places */
	uint64_t request_timeout_ms;
	/* The store's clock minus ours, learnt when it refused ours. */
	_Atomic int64_t clock_offset_ms;

	pthread_mutex_t lock;
	struct s3_credentials credentials; /* guarded by lock */
	unsigned generation; /* guarded by lock: of the credentials */
};

/* True when credentials were found that differ from those of `generation`. */
bool s3_renew_credentials(struct s3 *s3, unsigned generation);

/* The backend's submit(). */
void s3_submit(void *backend, struct store_request *request);

/* Takes over the request; runs in the caller's thread and hashes the data. */
void s3_multipart_submit(struct s3 *s3, struct store_request *request,
			 uint64_t deadline_ms);

#endif
