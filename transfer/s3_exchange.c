/*
 * Threads: everything but init, set_body, done and submit runs in the HTTP
 * thread. Nothing blocks there, except that renewing expired credentials reads
 * a small local file.
 */
#include "transfer/s3_exchange.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/encode.h"
#include "transfer/store_retry.h"

#define PATH_LIMIT_BYTES (8u << 10)
#define QUERY_LIMIT_BYTES (16u << 10)
#define URL_LIMIT_BYTES (32u << 10)
#define HEADER_LIMIT_BYTES (16u << 10)
#define NONSENSE_LIMIT 3
#define CLOCK_FIXES_LIMIT 2
#define CLOCK_TOLERANCE_MS 30000

static struct s3_exchange *from_http(struct http_request *http)
{
	return (struct s3_exchange *)(void *)http;
}

/* --- the question --------------------------------------------------------- */

/* Headers carry the session token: their memory is overwritten. */
static void free_headers(struct s3_exchange *exchange)
{
	struct curl_slist *item;

	for (item = exchange->http.headers; item; item = item->next)
		OPENSSL_cleanse(item->data, strlen(item->data));
	curl_slist_free_all(TAKE_PTR(exchange->http.headers));
}

static int add_header(struct s3_exchange *exchange, const char *name,
		      const char *value)
{
	CLEANUP(buffer_done)
	struct buffer line = BUFFER_INIT(HEADER_LIMIT_BYTES);
	struct curl_slist *list;
	int r = buffer_append_format(&line, "%s:%s%s", name, *value ? " " : "",
				     value);

	if (r < 0)
		return r;
	list = curl_slist_append(exchange->http.headers, buffer_string(&line));
	OPENSSL_cleanse(line.data, line.size);
	if (!list)
		return -ENOMEM;
	exchange->http.headers = list;
	return 0;
}

/* The signed headers, then the signature and what need not be signed. */
static int add_headers(struct s3_exchange *exchange,
		       const struct s3_credentials *credentials)
{
	CLEANUP(buffer_done)
	struct buffer signature = BUFFER_INIT(HEADER_LIMIT_BYTES);
	char date[S3_DATE_BYTES], hash[2 * S3_SHA256_BYTES + 1];
	struct s3_header headers[5];
	struct s3_sign_input input = {
		.method = exchange->method,
		.path = buffer_string(&exchange->path),
		.query = buffer_string(&exchange->query),
		.headers = headers,
		.payload_sha256 = hash,
		.date = date,
		.region = exchange->s3->region,
		.service = "s3",
	};
	size_t n = 0;
	int r = 0;

	s3_sign_date(clock_realtime_ms() + exchange->offset_ms, date);
	encode_hex(exchange->body_sha256, S3_SHA256_BYTES, hash);
	if (*exchange->content_md5)
		headers[n++] = (struct s3_header){ "content-md5",
						   exchange->content_md5 };
	headers[n++] =
		(struct s3_header){ "host", exchange->s3->endpoint.host };
	headers[n++] = (struct s3_header){ "x-amz-content-sha256", hash };
	headers[n++] = (struct s3_header){ "x-amz-date", date };
	if (*credentials->token)
		headers[n++] = (struct s3_header){ "x-amz-security-token",
						   credentials->token };
	input.header_count = n;
	r = s3_sign(&input, credentials, &signature);
	for (size_t i = 0; i < n && r == 0; i++)
		r = add_header(exchange, headers[i].name, headers[i].value);
	if (r == 0)
		r = add_header(exchange, "Authorization",
			       buffer_string(&signature));
	if (r == 0 && exchange->if_absent)
		r = add_header(exchange, "If-None-Match", "*");
	if (r == 0 && *exchange->range)
		r = add_header(exchange, "Range", exchange->range);
	/* Not to wait a round trip before a body that is mostly wanted. */
	return r < 0 ? r : add_header(exchange, "Expect", "");
}

static void set_deadline(struct s3_exchange *exchange)
{
	if (!exchange->deadline_ms)
		exchange->deadline_ms =
			clock_monotonic_ms() +
			exchange->s3->request_timeout_ms +
			exchange->bytes / STORE_SLOWEST_BYTES_PER_MS;
	exchange->http.deadline_ms = exchange->deadline_ms;
}

static int prepare(struct http_request *http, struct hib_error *error)
{
	struct s3_exchange *exchange = from_http(http);
	struct s3 *s3 = exchange->s3;
	struct s3_credentials credentials;
	int r;

	if (exchange->early_result < 0) {
		*error = exchange->failure;
		return exchange->early_result;
	}
	set_deadline(exchange);
	if (exchange->request) {
		store_request_started(exchange->request);
		store_request_attempt(exchange->request,
				      exchange->attempts > 0);
	}
	exchange->attempts++;
	buffer_clear(&exchange->answer);
	exchange->failure = HIB_ERROR_INIT;
	if (exchange->begin)
		exchange->begin(exchange);
	free_headers(exchange);
	exchange->offset_ms = s3->clock_offset_ms;
	pthread_mutex_lock(&s3->lock);
	credentials = s3->credentials;
	exchange->generation = s3->generation;
	pthread_mutex_unlock(&s3->lock);
	r = add_headers(exchange, &credentials);
	s3_credentials_done(&credentials);
	if (r < 0)
		return hib_fail_errno(error, -r, "cannot sign the request");
	http->method = exchange->method;
	http->url = buffer_string(&exchange->url);
	http->body = exchange->body;
	http->body_size = exchange->body_size;
	/* curl sends again what a stale connection lost; what must happen at
	 * most once has to know of every time it was sent. */
	http->fresh_connection = exchange->if_absent;
	return 0;
}

/* --- the answer ----------------------------------------------------------- */

static bool is_expected(const struct s3_exchange *exchange)
{
	long status = exchange->http.response.status;

	if (exchange->expected_status)
		return status == exchange->expected_status;
	return status >= 200 && status <= 299;
}

static int on_head(struct http_request *http)
{
	struct s3_exchange *exchange = from_http(http);

	if (!exchange->on_head || !is_expected(exchange))
		return 0;
	return exchange->on_head(exchange);
}

static int on_body(struct http_request *http, const void *data, size_t size)
{
	struct s3_exchange *exchange = from_http(http);
	int r;

	if (is_expected(exchange) && exchange->on_data)
		return exchange->on_data(exchange, data, size);
	r = buffer_append(&exchange->answer, data, size);
	/* Of an overlong error page the beginning will do. */
	if (r == -EMSGSIZE && !is_expected(exchange))
		return 0;
	if (r < 0)
		hib_fail_errno(&exchange->failure, -r, "the answer's body");
	return r;
}

static void finish(struct s3_exchange *exchange, int result,
		   const struct hib_error *error)
{
	free_headers(exchange);
	exchange->done(exchange, result, error);
}

static void give_up(struct s3_exchange *exchange, int code,
		    const struct hib_error *why)
{
	struct hib_error error = *why;

	if (exchange->attempts > 1)
		hib_wrap(&error, -code, "gave up after %u attempts",
			 exchange->attempts);
	error.code = code;
	finish(exchange, -code, &error);
}

static void try_again(struct s3_exchange *exchange, int code, bool slower,
		      const struct hib_error *why)
{
	uint64_t now = clock_monotonic_ms(), delay, remaining;
	uint32_t random = 0;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = (uint32_t)clock_monotonic_ns();
	remaining =
		exchange->deadline_ms > now ? exchange->deadline_ms - now : 0;
	delay = store_retry_delay_ms(
		exchange->attempts, slower,
		exchange->http.response.retry_after_ms > 0
			? (uint64_t)exchange->http.response.retry_after_ms
			: 0,
		remaining, random);
	if (delay == STORE_RETRY_NEVER) {
		give_up(exchange, code, why);
		return;
	}
	exchange->last_failure = *why;
	if (exchange->request)
		store_request_attempt_failed(exchange->request, why);
	exchange->http.not_before_ms = now + delay;
	http_submit(exchange->s3->http, &exchange->http);
}

/* At once: the reason for the failure has been put right. */
static void try_corrected(struct s3_exchange *exchange)
{
	exchange->http.not_before_ms = 0;
	http_submit(exchange->s3->http, &exchange->http);
}

static bool learn_clock(struct s3_exchange *exchange)
{
	int64_t theirs = exchange->http.response.date_ms, offset;

	if (!theirs || exchange->clock_fixes == CLOCK_FIXES_LIMIT)
		return false;
	offset = theirs - clock_realtime_ms();
	if (llabs(offset - exchange->offset_ms) < CLOCK_TOLERANCE_MS)
		return false;
	exchange->clock_fixes++;
	exchange->s3->clock_offset_ms = offset;
	return true;
}

static bool renew(struct s3_exchange *exchange)
{
	if (exchange->renewed)
		return false;
	exchange->renewed = true;
	return s3_renew_credentials(exchange->s3, exchange->generation);
}

static void act_on(struct s3_exchange *exchange, struct store_verdict verdict,
		   const struct hib_error *why)
{
	switch (verdict.remedy) {
	case STORE_RETRY:
	case STORE_RETRY_SLOWER:
		exchange->ambiguous |= exchange->http.maybe_received;
		try_again(exchange, verdict.code,
			  verdict.remedy == STORE_RETRY_SLOWER, why);
		return;
	case STORE_RELOAD_CREDENTIALS:
		if (renew(exchange)) {
			try_corrected(exchange);
			return;
		}
		break;
	case STORE_LEARN_CLOCK:
		if (learn_clock(exchange)) {
			try_corrected(exchange);
			return;
		}
		break;
	case STORE_GIVE_UP:
		break;
	}
	give_up(exchange, verdict.code, why);
}

/* "HTTP 503 SlowDown: Please reduce your request rate" */
static void describe(struct s3_exchange *exchange, const struct s3_error *s3,
		     int code, struct hib_error *ret)
{
	const struct http_response *response = &exchange->http.response;
	const char *region = *response->region ? response->region : s3->region;
	const char *text = s3->message;
	bool secret;

	pthread_mutex_lock(&exchange->s3->lock);
	secret = s3_credentials_in(&exchange->s3->credentials, text);
	pthread_mutex_unlock(&exchange->s3->lock);
	if (secret)
		text = "";
	if (*region && strcmp(region, exchange->s3->region) != 0)
		hib_fail(
			ret, code,
			"HTTP %ld %s%s%s (the bucket is in region %.64s: set s3_region)",
			response->status, s3->code, *text ? ": " : "", text,
			region);
	else
		hib_fail(
			ret, code, "HTTP %ld%s%s%s%s%s", response->status,
			*s3->code ? " " : " without an S3 error code", s3->code,
			*text ? ": " : "", text,
			code == EACCES
				? " (the store refuses these credentials: check them and what they allow)"
				: "");
}

/* The server spoke, but not as S3 does: tried again a few times only. */
static void on_nonsense(struct s3_exchange *exchange,
			const struct hib_error *why)
{
	struct store_verdict verdict = { EIO, STORE_RETRY };

	if (++exchange->nonsense >= NONSENSE_LIMIT)
		verdict.remedy = STORE_GIVE_UP;
	act_on(exchange, verdict, why);
}

static void on_success(struct s3_exchange *exchange)
{
	struct s3_error s3 = { 0 };
	struct hib_error why = HIB_ERROR_INIT;
	struct store_verdict verdict;
	int r = exchange->judge ? exchange->judge(exchange, &s3) : 0;

	if (r == 0) {
		finish(exchange, 0, NULL);
		return;
	}
	if (*s3.code) {
		verdict = store_judge(exchange->http.response.status, s3.code);
		describe(exchange, &s3, verdict.code, &why);
		act_on(exchange, verdict, &why);
		return;
	}
	if (exchange->failure.code)
		why = exchange->failure;
	else
		hib_fail(&why, EIO, "HTTP %ld with an answer that is not S3's",
			 exchange->http.response.status);
	if (r == -ENOMEM)
		give_up(exchange, ENOMEM, &why);
	else
		on_nonsense(exchange, &why);
}

static void on_refusal(struct s3_exchange *exchange)
{
	struct s3_error s3 = { 0 };
	struct hib_error why = HIB_ERROR_INIT;
	struct store_verdict verdict;
	long status = exchange->http.response.status;
	bool named = s3_parse_error(exchange->answer.data,
				    exchange->answer.size, &s3) == 0;

	if (status >= 200 && status <= 299) {
		hib_fail(&why, EIO, "HTTP %ld where %ld was expected", status,
			 exchange->expected_status);
		on_nonsense(exchange, &why);
		return;
	}
	verdict = store_judge(status, named ? s3.code : NULL);
	describe(exchange, &s3, verdict.code, &why);
	act_on(exchange, verdict, &why);
}

static void on_done(struct http_request *http, int result,
		    const struct hib_error *error)
{
	struct s3_exchange *exchange = from_http(http);
	struct hib_error why;

	if (result == 0 && is_expected(exchange)) {
		on_success(exchange);
	} else if (result == 0) {
		on_refusal(exchange);
	} else if (result == -ECANCELED) {
		finish(exchange, result, error);
	} else if (exchange->failure.code) {
		give_up(exchange, -result, &exchange->failure);
	} else if (http->transient) {
		exchange->ambiguous |= http->maybe_received;
		try_again(exchange, result == -EIO ? EIO : ETIMEDOUT, false,
			  error);
	} else {
		why = *error;
		if (exchange->last_failure.code)
			hib_fail(&why, -result, "%s; before that: %s",
				 error->message,
				 exchange->last_failure.message);
		give_up(exchange, -result, &why);
	}
}

/* --- what others call ----------------------------------------------------- */

static void set_callbacks(struct s3_exchange *exchange)
{
	exchange->http.prepare = prepare;
	exchange->http.on_head = on_head;
	exchange->http.on_body = on_body;
	exchange->http.done = on_done;
}

int s3_exchange_init(struct s3_exchange *exchange, struct s3 *s3,
		     struct store_request *request, const char *method,
		     const char *key, const char *query)
{
	int r;

	*exchange = (struct s3_exchange){
		.s3 = s3,
		.request = request,
		.method = method,
		.path = BUFFER_INIT(PATH_LIMIT_BYTES),
		.query = BUFFER_INIT(QUERY_LIMIT_BYTES),
		.url = BUFFER_INIT(URL_LIMIT_BYTES),
		.answer = BUFFER_INIT(S3_ANSWER_BYTES),
	};
	set_callbacks(exchange);
	if (request) {
		exchange->http.cancel = request->call.cancel;
		exchange->http.urgent = request->call.urgent;
	}
	r = s3_endpoint_append_path(&s3->endpoint, key, &exchange->path);
	if (r == 0)
		r = buffer_append_string(&exchange->query, query);
	if (r == 0)
		r = buffer_append_format(&exchange->url, "%s%s%s%s",
					 s3->endpoint.base,
					 buffer_string(&exchange->path),
					 *query ? "?" : "", query);
	return r < 0 ? r : s3_exchange_set_body(exchange, "", 0, NULL);
}

void s3_exchange_done(struct s3_exchange *exchange)
{
	free_headers(exchange);
	buffer_done(&exchange->path);
	buffer_done(&exchange->query);
	buffer_done(&exchange->url);
	buffer_done(&exchange->answer);
}

int s3_exchange_set_body(struct s3_exchange *exchange, const void *data,
			 size_t size, const uint8_t *sha256)
{
	exchange->body = data;
	exchange->body_size = size;
	exchange->bytes = size;
	if (!sha256)
		return s3_sha256(data, size, exchange->body_sha256);
	memcpy(exchange->body_sha256, sha256, S3_SHA256_BYTES);
	return 0;
}

void s3_exchange_submit(struct s3_exchange *exchange)
{
	exchange->http.deadline_ms = exchange->deadline_ms;
	http_submit(exchange->s3->http, &exchange->http);
}

void s3_exchange_fail(struct s3_exchange *exchange, struct s3 *s3, int result,
		      const struct hib_error *error,
		      void (*done)(struct s3_exchange *exchange, int result,
				   const struct hib_error *error))
{
	set_callbacks(exchange);
	exchange->s3 = s3;
	exchange->early_result = result;
	exchange->failure = *error;
	exchange->done = done;
}
