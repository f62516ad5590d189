/*
 * A put in parts (S3 multipart upload): create, a few parts at a time,
 * complete; abort when any of it fails.
 *
 * Threads: s3_multipart_submit() hashes all parts in the caller's thread; the
 * rest runs in the HTTP thread, which alone touches the struct from then on.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/encode.h"
#include "transfer/s3.h"
#include "transfer/s3_exchange.h"
#include "transfer/s3_message.h"

#define PARTS_AT_ONCE 4
#define COMPLETE_BODY_BYTES (4u << 20)
#define QUERY_BYTES (S3_UPLOAD_ID_BYTES * 3 + 64)
#define ABORT_TIMEOUT_MS 5000

struct multipart;

struct part_slot {
	struct s3_exchange exchange; /* first: casts */
	struct multipart *multipart;
	size_t part;
};

struct multipart {
	struct s3_exchange control; /* first: casts; create, complete, abort */
	struct s3 *s3;
	struct store_request *request; /* NULL once it has ended */
	uint64_t deadline_ms;
	struct cancel cancel; /* fired by the caller's, and by a failure */
	size_t part_bytes, part_count;
	uint8_t (*hashes)[S3_SHA256_BYTES];
	char (*etags)[S3_ETAG_BYTES];
	size_t next_part, under_way;
	struct part_slot slots[PARTS_AT_ONCE];
	char upload_id[S3_UPLOAD_ID_BYTES];
	struct buffer body;
	int result; /* the first failure */
	struct hib_error error;
};

static struct multipart *multipart_of(struct s3_exchange *control)
{
	return (struct multipart *)(void *)control;
}

static void multipart_free(struct multipart *m)
{
	for (size_t i = 0; i < PARTS_AT_ONCE; i++)
		s3_exchange_done(&m->slots[i].exchange);
	s3_exchange_done(&m->control);
	buffer_done(&m->body);
	cancel_done(&m->cancel);
	free(m->hashes);
	free(m->etags);
	free(m);
}

/* The caller gets its answer; what is left to do needs nothing of his. */
static void answer(struct multipart *m)
{
	struct store_request *request = TAKE_PTR(m->request);

	cancel_done(&m->cancel);
	cancel_init(&m->cancel, NULL);
	store_request_finish(request, m->result, &m->error);
}

static void keep_failure(struct multipart *m, int result,
			 const struct hib_error *error)
{
	if (m->result == 0) {
		m->result = result;
		m->error = *error;
	}
}

static int control_init(struct multipart *m, const char *method,
			const char *query)
{
	const char *key = m->request->key;
	int r;

	s3_exchange_done(&m->control);
	r = s3_exchange_init(&m->control, m->s3, m->request, method, key,
			     query);
	m->control.deadline_ms = m->deadline_ms;
	m->control.http.cancel = &m->cancel;
	return r;
}

static int upload_query(const struct multipart *m, size_t part,
			char ret[QUERY_BYTES])
{
	CLEANUP(buffer_done) struct buffer query = BUFFER_INIT(QUERY_BYTES - 1);
	int r = 0;

	if (part)
		r = buffer_append_format(&query, "partNumber=%zu&", part);
	if (r == 0)
		r = buffer_append_string(&query, "uploadId=");
	if (r == 0)
		r = encode_percent(&query, m->upload_id, strlen(m->upload_id));
	if (r == 0)
		memcpy(ret, buffer_string(&query), query.size + 1);
	return r;
}

/* --- abort ---------------------------------------------------------------- */

static void abort_done(struct s3_exchange *control, int result,
		       const struct hib_error *error)
{
	struct multipart *m = multipart_of(control);

	/* What could not be aborted stays invisible; the store's own expiry
	 * of incomplete uploads removes it. */
	(void)result;
	(void)error;
	if (m->request)
		answer(m);
	multipart_free(m);
}

/*
 * The caller hears of the failure when the upload is gone, so that he may close
 * the store then; of a cancel at once.
 */
static void fail(struct multipart *m)
{
	char query[QUERY_BYTES];
	int r;

	r = *m->upload_id ? upload_query(m, 0, query) : -ENOENT;
	if (r == 0)
		r = control_init(m, "DELETE", query);
	m->control.request = NULL;
	m->control.http.cancel = NULL;
	m->control.done = abort_done;
	m->control.deadline_ms = clock_monotonic_ms() + ABORT_TIMEOUT_MS;
	if (r < 0 || m->result == -ECANCELED)
		answer(m);
	if (r == 0)
		s3_exchange_submit(&m->control);
	else
		multipart_free(m);
}

/* --- complete ------------------------------------------------------------- */

/* "md5 of the parts' md5s"-count, as S3 makes it; false: parts have no md5. */
static bool expected_etag(const struct multipart *m, char ret[S3_ETAG_BYTES])
{
	CLEANUP(buffer_done)
	struct buffer all = BUFFER_INIT(S3_PARTS_MAX * 16);
	uint8_t md5[EVP_MAX_MD_SIZE];
	char hex[2 * 16 + 1];

	for (size_t i = 0; i < m->part_count; i++) {
		const char *etag = m->etags[i];

		snprintf(hex, sizeof(hex), "%s", etag + (*etag == '"'));
		if (decode_hex(hex, md5, 16) < 0 ||
		    buffer_append(&all, md5, 16) < 0)
			return false;
	}
	if (EVP_Digest(all.data, all.size, md5, NULL, EVP_md5(), NULL) != 1)
		return false;
	encode_hex(md5, 16, hex);
	snprintf(ret, S3_ETAG_BYTES, "\"%s-%zu\"", hex, m->part_count);
	return true;
}

static void check_done(struct s3_exchange *control, int result,
		       const struct hib_error *error)
{
	const struct http_response *response = &control->http.response;
	struct multipart *m = multipart_of(control);
	char etag[S3_ETAG_BYTES];

	if (result == 0 && response->range_total == (int64_t)m->request->size &&
	    expected_etag(m, etag) && strcmp(etag, response->etag) == 0) {
		m->result = 0;
		answer(m);
		multipart_free(m);
		return;
	}
	if (result < 0 && result != -ENOENT) {
		m->result = result;
		m->error = *error;
	}
	fail(m);
}

/*
 * "No such upload" after an attempt whose answer was lost: that one may have
 * completed it. Then the object is there, with the ETag that it must have.
 */
static void check_completed(struct multipart *m)
{
	int r = control_init(m, "GET", "");

	if (r < 0) {
		fail(m);
		return;
	}
	strcpy(m->control.range, "bytes=0-0");
	m->control.expected_status = 206;
	m->control.done = check_done;
	s3_exchange_submit(&m->control);
}

/* The status was sent before S3 knew how it would end: the body counts. */
static int judge_complete(struct s3_exchange *control, struct s3_error *ret)
{
	int r = s3_parse_complete(control->answer.data, control->answer.size);

	if (r == -EBADMSG)
		s3_parse_error(control->answer.data, control->answer.size, ret);
	return r;
}

static void complete_done(struct s3_exchange *control, int result,
			  const struct hib_error *error)
{
	struct multipart *m = multipart_of(control);

	if (result == 0) {
		answer(m);
		multipart_free(m);
		return;
	}
	keep_failure(m, result == -ESTALE ? -EIO : result, error);
	if (result == -ESTALE && control->ambiguous)
		check_completed(m);
	else
		fail(m);
}

static void complete(struct multipart *m)
{
	struct hib_error error;
	char query[QUERY_BYTES];
	int r;

	r = upload_query(m, 0, query);
	if (r == 0)
		r = control_init(m, "POST", query);
	if (r == 0)
		r = s3_append_complete_body(
			&m->body, (const char(*)[S3_ETAG_BYTES])m->etags,
			m->part_count);
	if (r == 0)
		r = s3_exchange_set_body(&m->control, m->body.data,
					 m->body.size, NULL);
	if (r < 0) {
		hib_fail_errno(&error, -r, "complete the upload");
		keep_failure(m, r, &error);
		fail(m);
		return;
	}
	m->control.judge = judge_complete;
	m->control.done = complete_done;
	s3_exchange_submit(&m->control);
}

/* --- parts ---------------------------------------------------------------- */

static void part_done(struct s3_exchange *exchange, int result,
		      const struct hib_error *error);

static int judge_part(struct s3_exchange *exchange, struct s3_error *ret)
{
	if (exchange->answer.size &&
	    s3_parse_error(exchange->answer.data, exchange->answer.size, ret) ==
		    0)
		return -EIO;
	return *exchange->http.response.etag ? 0 : -EIO;
}

static int slot_init(struct multipart *m, struct part_slot *slot, size_t part)
{
	size_t offset = part * m->part_bytes;
	size_t size = m->request->size - offset;
	char query[QUERY_BYTES];
	int r;

	if (size > m->part_bytes)
		size = m->part_bytes;
	s3_exchange_done(&slot->exchange);
	r = upload_query(m, part + 1, query);
	if (r == 0)
		r = s3_exchange_init(&slot->exchange, m->s3, m->request, "PUT",
				     m->request->key, query);
	if (r < 0)
		return r;
	slot->multipart = m;
	slot->part = part;
	slot->exchange.deadline_ms = m->deadline_ms;
	slot->exchange.http.cancel = &m->cancel;
	slot->exchange.judge = judge_part;
	slot->exchange.done = part_done;
	return s3_exchange_set_body(&slot->exchange,
				    (const char *)m->request->data + offset,
				    size, m->hashes[part]);
}

/* Starts the next part in a free slot; what is at an end goes on from here. */
static void next(struct multipart *m, struct part_slot *slot)
{
	struct hib_error error;
	int r;

	if (m->result == 0 && m->next_part < m->part_count) {
		r = slot_init(m, slot, m->next_part);
		if (r == 0) {
			m->next_part++;
			m->under_way++;
			s3_exchange_submit(&slot->exchange);
			return;
		}
		hib_fail_errno(&error, -r, "send a part");
		keep_failure(m, r, &error);
		cancel_request(&m->cancel);
	}
	if (m->under_way)
		return;
	if (m->result < 0)
		fail(m);
	else
		complete(m);
}

static void part_done(struct s3_exchange *exchange, int result,
		      const struct hib_error *error)
{
	struct part_slot *slot = (struct part_slot *)(void *)exchange;
	struct multipart *m = slot->multipart;

	m->under_way--;
	if (result < 0) {
		keep_failure(m, result, error);
		cancel_request(&m->cancel);
	} else {
		memcpy(m->etags[slot->part], exchange->http.response.etag,
		       HTTP_TEXT_BYTES);
	}
	next(m, slot);
}

/* --- create --------------------------------------------------------------- */

static int judge_create(struct s3_exchange *control, struct s3_error *ret)
{
	int r = s3_parse_upload_id(control->answer.data, control->answer.size,
				   multipart_of(control)->upload_id);

	if (r == -EBADMSG)
		s3_parse_error(control->answer.data, control->answer.size, ret);
	return r;
}

static void create_done(struct s3_exchange *control, int result,
			const struct hib_error *error)
{
	struct multipart *m = multipart_of(control);
	size_t count =
		m->part_count < PARTS_AT_ONCE ? m->part_count : PARTS_AT_ONCE;

	if (result < 0) {
		keep_failure(m, result, error);
		fail(m);
		return;
	}
	/* The first holds the others' place, so that none ends it too early. */
	m->under_way++;
	for (size_t i = 1; i < count; i++)
		next(m, &m->slots[i]);
	m->under_way--;
	next(m, &m->slots[0]);
}

static int hash_parts(struct multipart *m)
{
	const struct store_request *request = m->request;
	int r = 0;

	for (size_t i = 0; i < m->part_count && r == 0; i++) {
		size_t offset = i * m->part_bytes;
		size_t size = request->size - offset;

		r = s3_sha256((const char *)request->data + offset,
			      size < m->part_bytes ? size : m->part_bytes,
			      m->hashes[i]);
	}
	return r;
}

void s3_multipart_submit(struct s3 *s3, struct store_request *request,
			 uint64_t deadline_ms)
{
	struct multipart *m = calloc(1, sizeof(*m));
	struct hib_error error;
	int r;

	if (!m) {
		store_request_finish(request, -ENOMEM, NULL);
		return;
	}
	m->s3 = s3;
	m->request = request;
	m->deadline_ms = deadline_ms;
	m->body = BUFFER_INIT(COMPLETE_BODY_BYTES);
	cancel_init(&m->cancel, request->call.cancel);
	m->part_bytes = S3_PART_BYTES;
	while (request->size / m->part_bytes >= S3_PARTS_MAX)
		m->part_bytes *= 2;
	m->part_count = (request->size + m->part_bytes - 1) / m->part_bytes;
	m->hashes = calloc(m->part_count, sizeof(*m->hashes));
	m->etags = calloc(m->part_count, sizeof(*m->etags));
	r = control_init(m, "POST", "uploads=");
	if (r == 0)
		r = m->hashes && m->etags ? hash_parts(m) : -ENOMEM;
	m->control.judge = judge_create;
	m->control.done = create_done;
	if (r < 0) {
		hib_fail_errno(&error, -r, "cannot make the request");
		s3_exchange_fail(&m->control, s3, r, &error, create_done);
	}
	s3_exchange_submit(&m->control);
}
