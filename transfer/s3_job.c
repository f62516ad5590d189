/*
 * Threads: s3_submit() runs in the caller's thread and does what costs CPU (the
 * body's hash, the buffer's memory); everything after it runs in the HTTP
 * thread, as a chain of exchanges.
 */
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/encode.h"
#include "transfer/s3.h"
#include "transfer/s3_exchange.h"
#include "transfer/s3_message.h"

#define QUERY_LIMIT_BYTES (16u << 10)
#define DELETE_BODY_BYTES (8u << 20)

/* A request and the exchange that it is at. */
struct s3_job {
	struct s3_exchange exchange; /* first: casts */
	struct store_request *request;
	size_t ret_start; /* GET: size of the caller's buffer before */
	size_t compared; /* PUT: bytes of the object that agreed so far */
	struct buffer body; /* DELETE */
	struct buffer query; /* LIST */
	uint64_t deadline_ms;
};

/* --- ends ----------------------------------------------------------------- */

static void job_end(struct s3_job *job, int result,
		    const struct hib_error *error)
{
	struct store_request *request = job->request;
	struct hib_error copy = HIB_ERROR_INIT;

	if (error)
		copy = *error;
	s3_exchange_done(&job->exchange);
	buffer_done(&job->body);
	buffer_done(&job->query);
	free(job);
	store_request_finish(request, result, result < 0 ? &copy : NULL);
}

static struct s3_job *job_of(struct s3_exchange *exchange)
{
	return (struct s3_job *)(void *)exchange;
}

static void job_done(struct s3_exchange *exchange, int result,
		     const struct hib_error *error)
{
	job_end(job_of(exchange), result, error);
}

/* A new exchange for the same job, when the first has told too little. */
static bool job_restart(struct s3_job *job, const char *method)
{
	struct s3 *s3 = job->exchange.s3;
	struct hib_error error;
	int r;

	s3_exchange_done(&job->exchange);
	r = s3_exchange_init(&job->exchange, s3, job->request, method,
			     job->request->key, "");
	if (r < 0) {
		hib_fail_errno(&error, -r, "cannot make the request");
		job_end(job, r, &error);
		return false;
	}
	job->exchange.deadline_ms = job->deadline_ms;
	job->exchange.done = job_done;
	return true;
}

/* --- PUT ------------------------------------------------------------------ */

/* S3 confirms a put with the object's ETag and an empty body. */
static int judge_put(struct s3_exchange *exchange, struct s3_error *ret)
{
	if (exchange->answer.size &&
	    s3_parse_error(exchange->answer.data, exchange->answer.size, ret) ==
		    0)
		return -EIO;
	return *exchange->http.response.etag && !exchange->answer.size ? 0
								       : -EIO;
}

static void begin_compare(struct s3_exchange *exchange)
{
	job_of(exchange)->compared = 0;
}

static int compare_data(struct s3_exchange *exchange, const void *data,
			size_t size)
{
	struct s3_job *job = job_of(exchange);
	const struct store_request *request = job->request;

	if (size > request->size - job->compared ||
	    memcmp((const char *)request->data + job->compared, data, size) !=
		    0)
		return hib_fail(&exchange->failure, EEXIST,
				"the object is there");
	job->compared += size;
	return 0;
}

static void compare_done(struct s3_exchange *exchange, int result,
			 const struct hib_error *error)
{
	struct s3_job *job = job_of(exchange);
	struct hib_error other;

	if (result == 0 && job->compared != job->request->size)
		result = hib_fail(&other, EEXIST, "the object is there");
	else if (result < 0)
		other = *error;
	job_end(job, result, &other);
}

/*
 * The object is there, and an earlier attempt whose answer was lost may be the
 * one that made it: it is ours if it is what we sent.
 */
static void compare_object(struct s3_job *job)
{
	if (!job_restart(job, "GET"))
		return;
	job->exchange.expected_status = 200;
	job->exchange.bytes = job->request->size;
	job->exchange.begin = begin_compare;
	job->exchange.on_data = compare_data;
	job->exchange.done = compare_done;
	s3_exchange_submit(&job->exchange);
}

static void put_done(struct s3_exchange *exchange, int result,
		     const struct hib_error *error)
{
	struct hib_error there;

	if (result == -EEXIST && exchange->ambiguous) {
		compare_object(job_of(exchange));
		return;
	}
	if (result == -EEXIST) {
		hib_fail(&there, EEXIST, "the object is there");
		error = &there;
	}
	job_end(job_of(exchange), result, error);
}

static int init_put(struct s3_job *job, struct s3 *s3)
{
	struct store_request *request = job->request;
	int r;

	r = s3_exchange_init(&job->exchange, s3, request, "PUT", request->key,
			     "");
	if (r < 0)
		return r;
	if (request->size > S3_PUT_MAX_BYTES)
		return -EFBIG;
	job->exchange.if_absent = request->flags & STORE_IF_ABSENT;
	job->exchange.judge = judge_put;
	job->exchange.done = put_done;
	return s3_exchange_set_body(&job->exchange, request->data,
				    request->size, request->call.body_sha256);
}

/* --- GET ------------------------------------------------------------------ */

static void begin_get(struct s3_exchange *exchange)
{
	struct s3_job *job = job_of(exchange);

	job->request->ret->size = job->ret_start;
}

static int head_get(struct s3_exchange *exchange)
{
	const struct http_response *response = &exchange->http.response;
	struct store_request *request = job_of(exchange)->request;
	uint64_t offset = request->offset, last;
	int r;

	if (exchange->expected_status == 206) {
		last = request->length ? offset + request->length - 1
				       : (uint64_t)response->range_total - 1;
		if (response->range_first < 0 ||
		    (uint64_t)response->range_first != offset ||
		    response->range_last < response->range_first)
			return hib_fail(
				&exchange->failure, EIO,
				"the answer is not the range that was asked for");
		if ((uint64_t)response->range_last != last)
			return hib_fail(&exchange->failure, EIO,
					"the object has %" PRId64
					" bytes, %" PRIu64 " to %" PRIu64
					" were asked for",
					response->range_total, offset, last);
	}
	if (response->content_length <= 0)
		return 0;
	r = buffer_reserve(request->ret, (size_t)response->content_length);
	if (r < 0)
		return hib_fail(&exchange->failure, -r,
				"%" PRId64 " bytes, more than fit",
				response->content_length);
	if (!request->length && !job_of(exchange)->deadline_ms) {
		exchange->deadline_ms += (uint64_t)response->content_length /
					 STORE_SLOWEST_BYTES_PER_MS;
		exchange->http.deadline_ms = exchange->deadline_ms;
	}
	return 0;
}

static int data_get(struct s3_exchange *exchange, const void *data, size_t size)
{
	struct store_request *request = job_of(exchange)->request;
	int r = buffer_append(request->ret, data, size);

	if (r < 0)
		hib_fail(&exchange->failure, -r, "more bytes than fit");
	return r;
}

/* S3 names an ETag with every object; another server's page has none. */
static int judge_get(struct s3_exchange *exchange, struct s3_error *ret)
{
	struct s3_job *job = job_of(exchange);
	struct store_request *request = job->request;
	size_t got = request->ret->size - job->ret_start;

	(void)ret;
	if (!*exchange->http.response.etag)
		return -EIO;
	if (request->length && got != request->length)
		return hib_fail(&exchange->failure, EIO,
				"%zu bytes came, %" PRIu64 " were asked for",
				got, request->length);
	request->length = got;
	return 0;
}

static void get_done(struct s3_exchange *exchange, int result,
		     const struct hib_error *error)
{
	if (result < 0)
		begin_get(exchange);
	job_end(job_of(exchange), result, error);
}

static int init_get(struct s3_job *job, struct s3 *s3)
{
	struct store_request *request = job->request;
	uint64_t offset = request->offset, length = request->length;
	struct s3_exchange *exchange = &job->exchange;
	int r;

	r = s3_exchange_init(exchange, s3, request, "GET", request->key, "");
	if (r < 0)
		return r;
	job->ret_start = request->ret->size;
	exchange->bytes = length;
	exchange->expected_status = offset || length ? 206 : 200;
	exchange->begin = begin_get;
	exchange->on_head = head_get;
	exchange->on_data = data_get;
	exchange->judge = judge_get;
	exchange->done = get_done;
	if (length && offset + length < offset)
		return -EOVERFLOW;
	if (length)
		snprintf(exchange->range, sizeof(exchange->range),
			 "bytes=%" PRIu64 "-%" PRIu64, offset,
			 offset + length - 1);
	else if (offset)
		snprintf(exchange->range, sizeof(exchange->range),
			 "bytes=%" PRIu64 "-", offset);
	/* Memory is touched for the first time here rather than there. */
	return length ? buffer_reserve(request->ret, (size_t)length) : 0;
}

/* --- HEAD ----------------------------------------------------------------- */

/*
 * HEAD is asked as a GET of the first byte: an answer to HEAD has no error
 * document, and without one "no such object" cannot be told from "no such
 * bucket" or from another server's 404. Only an empty object, which has no
 * first byte, needs the HEAD itself.
 */
static void head_done(struct s3_exchange *exchange, int result,
		      const struct hib_error *error)
{
	const struct http_response *response = &exchange->http.response;
	struct s3_job *job = job_of(exchange);
	struct hib_error nonsense;

	if (result == -EIO && response->status == 416 && *exchange->range) {
		if (job_restart(job, "HEAD")) {
			exchange->done = head_done;
			s3_exchange_submit(exchange);
		}
		return;
	}
	if (result == 0) {
		int64_t size = *exchange->range ? response->range_total
						: response->content_length;

		if (size < 0) {
			result = hib_fail(&nonsense, EIO,
					  "the answer names no size");
			error = &nonsense;
		} else {
			job->request->object = (struct store_object){
				.size = (uint64_t)size,
				.modified_ms = response->last_modified_ms,
			};
		}
	}
	job_end(job, result, error);
}

static int init_head(struct s3_job *job, struct s3 *s3)
{
	int r = s3_exchange_init(&job->exchange, s3, job->request, "GET",
				 job->request->key, "");

	strcpy(job->exchange.range, "bytes=0-0");
	job->exchange.expected_status = 206;
	job->exchange.done = head_done;
	return r;
}

/* --- LIST ----------------------------------------------------------------- */

static int judge_list(struct s3_exchange *exchange, struct s3_error *ret)
{
	int r = s3_parse_list(exchange->answer.data, exchange->answer.size,
			      exchange->s3->endpoint.prefix,
			      job_of(exchange)->request->page);

	if (r == -EBADMSG)
		s3_parse_error(exchange->answer.data, exchange->answer.size,
			       ret);
	return r;
}

static int init_list(struct s3_job *job, struct s3 *s3)
{
	const struct store_request *request = job->request;
	const char *prefix = s3->endpoint.prefix;
	CLEANUP(buffer_done)
	struct buffer full = BUFFER_INIT(2 * STORE_KEY_BYTES);
	CLEANUP(buffer_done)
	struct buffer after = BUFFER_INIT(2 * STORE_KEY_BYTES);
	int r;

	r = buffer_append_format(&full, "%s%s", prefix, request->key);
	if (r == 0 && request->after)
		r = buffer_append_format(&after, "%s%s", prefix,
					 request->after);
	if (r == 0)
		r = s3_append_list_query(&job->query, buffer_string(&full),
					 request->after ? buffer_string(&after)
							: NULL,
					 request->page->token);
	if (r == 0)
		r = s3_exchange_init(&job->exchange, s3, job->request, "GET",
				     NULL, buffer_string(&job->query));
	job->exchange.answer.limit = S3_LONG_ANSWER_BYTES;
	job->exchange.judge = judge_list;
	job->exchange.done = job_done;
	return r;
}

/* --- DELETE --------------------------------------------------------------- */

static int judge_delete(struct s3_exchange *exchange, struct s3_error *ret)
{
	const struct store_request *request = job_of(exchange)->request;
	const char *key = request->key;
	int r;

	r = s3_parse_delete(exchange->answer.data, exchange->answer.size,
			    exchange->s3->endpoint.prefix, request->keys,
			    request->count, &key, ret);
	if (r == -EBADMSG)
		s3_parse_error(exchange->answer.data, exchange->answer.size,
			       ret);
	if (r < 0 && !*ret->code)
		hib_fail(&exchange->failure, EIO,
			 "the store has not confirmed that %s is deleted", key);
	return r;
}

static int init_delete(struct s3_job *job, struct s3 *s3)
{
	const struct store_request *request = job->request;
	CLEANUP(buffer_done) struct buffer base64 = BUFFER_INIT(64);
	uint8_t md5[EVP_MAX_MD_SIZE];
	unsigned md5_size;
	int r;

	r = s3_exchange_init(&job->exchange, s3, job->request, "POST", NULL,
			     "delete=");
	if (r == 0)
		r = s3_append_delete_body(&job->body, s3->endpoint.prefix,
					  request->keys, request->count);
	if (r == 0)
		r = s3_exchange_set_body(&job->exchange, job->body.data,
					 job->body.size, NULL);
	if (r == 0 && EVP_Digest(job->body.data, job->body.size, md5, &md5_size,
				 EVP_md5(), NULL) != 1)
		r = -EIO;
	if (r == 0)
		r = encode_base64(&base64, md5, md5_size);
	if (r == 0)
		snprintf(job->exchange.content_md5,
			 sizeof(job->exchange.content_md5), "%s",
			 buffer_string(&base64));
	job->exchange.answer.limit = S3_LONG_ANSWER_BYTES;
	job->exchange.judge = judge_delete;
	job->exchange.done = job_done;
	return r;
}

/* --- all of them ---------------------------------------------------------- */

/* 0: the exchange's own, which begins with its first attempt. */
static uint64_t deadline_of(const struct s3 *s3,
			    const struct store_request *request)
{
	uint64_t now = clock_monotonic_ms();
	uint64_t bytes =
		request->op == STORE_OP_PUT ? request->size : request->length;

	if (request->call.timeout_ms)
		return now + request->call.timeout_ms;
	if (request->call.urgent)
		return now + s3->request_timeout_ms +
		       bytes / STORE_SLOWEST_BYTES_PER_MS;
	return 0;
}

void s3_submit(void *backend, struct store_request *request)
{
	static int (*const init[])(struct s3_job *, struct s3 *) = {
		[STORE_OP_PUT] = init_put,	 [STORE_OP_GET] = init_get,
		[STORE_OP_HEAD] = init_head,	 [STORE_OP_LIST] = init_list,
		[STORE_OP_DELETE] = init_delete,
	};
	struct s3 *s3 = backend;
	struct s3_job *job;
	int r;

	if (!request->early_result && request->op == STORE_OP_PUT &&
	    request->size > S3_PART_BYTES &&
	    !(request->flags & STORE_IF_ABSENT)) {
		s3_multipart_submit(s3, request, deadline_of(s3, request));
		return;
	}
	job = calloc(1, sizeof(*job));
	if (!job) {
		store_request_finish(request, -ENOMEM, NULL);
		return;
	}
	job->request = request;
	job->body = BUFFER_INIT(DELETE_BODY_BYTES);
	job->query = BUFFER_INIT(QUERY_LIMIT_BYTES);
	r = init[request->op](job, s3);
	if (!request->early_result && r < 0) {
		request->early_result = r;
		hib_fail_errno(&request->early_error, -r,
			       "cannot make the request");
	}
	if (request->early_result)
		s3_exchange_fail(&job->exchange, s3, request->early_result,
				 &request->early_error, job_done);
	job->deadline_ms = deadline_of(s3, request);
	job->exchange.deadline_ms = job->deadline_ms;
	s3_exchange_submit(&job->exchange);
}
