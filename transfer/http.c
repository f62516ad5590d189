/*
 * Threads: run() is the only thread that touches curl, `waiting` and `active`.
 * It blocks in curl_multi_poll() alone; curl_multi_wakeup() ends that, from
 * http_submit(), http_stop() and a fired cancel.
 */
#include "transfer/http.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define URGENT_EXTRA 4
#define RECEIVE_BUFFER_BYTES (512L << 10)
#define SEND_BUFFER_BYTES (256L << 10)
#define LONGEST_WAIT_MS 60000

struct http_list {
	struct http_request *first, *last;
	size_t count;
};

struct http {
	struct http_config config;
	char *ca_file;
	CURLM *multi;
	pthread_t thread;
	atomic_bool cancel_fired; /* some request's cancel has fired */

	pthread_mutex_t lock;
	struct http_list inbox; /* guarded by lock */
	bool stopping; /* guarded by lock */
	bool ending; /* guarded by lock: nothing will be submitted any more */

	/* the thread's own */
	struct http_list waiting[2]; /* [1]: urgent */
	struct http_list active;
	CURL **idle; /* handles to use again */
	size_t idle_count, idle_capacity;
};

static void list_append(struct http_list *list, struct http_request *request)
{
	request->next = NULL;
	request->previous = list->last;
	if (list->last)
		list->last->next = request;
	else
		list->first = request;
	list->last = request;
	list->count++;
}

static void list_remove(struct http_list *list, struct http_request *request)
{
	if (request->previous)
		request->previous->next = request->next;
	else
		list->first = request->next;
	if (request->next)
		request->next->previous = request->previous;
	else
		list->last = request->previous;
	request->next = request->previous = NULL;
	list->count--;
}

/* --- callbacks of curl ---------------------------------------------------- */

static size_t on_read(char *ret, size_t size, size_t count, void *arg)
{
	struct http_request *request = arg;
	size_t n = request->body_size - request->body_at;

	if (n > size * count)
		n = size * count;
	if (n)
		memcpy(ret, (const char *)request->body + request->body_at, n);
	request->body_at += n;
	if (request->body_at == request->body_size)
		request->maybe_received = true;
	return n;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
	struct http_request *request = arg;

	if (origin != SEEK_SET || offset < 0 ||
	    (uint64_t)offset > request->body_size)
		return CURL_SEEKFUNC_FAIL;
	request->body_at = (size_t)offset;
	return CURL_SEEKFUNC_OK;
}

static size_t on_write(char *data, size_t size, size_t count, void *arg)
{
	struct http_request *request = arg;
	int r = request->on_body(request, data, size * count);

	if (r == 0)
		return size * count;
	request->callback_error = r;
	return CURL_WRITEFUNC_ERROR;
}

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
	struct http_request *request = arg;
	struct http_response *response = &request->response;
	int r;

	size *= count;
	if (size > 2 || *line != '\r') {
		http_response_take(response, line, size);
		return size;
	}
	if (response->status < 200)
		return size;
	r = request->on_head(request);
	if (r == 0)
		return size;
	request->callback_error = r;
	return CURL_WRITEFUNC_ERROR;
}

/* --- one transfer --------------------------------------------------------- */

static void set_tls(struct http *http, CURL *easy)
{
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION,
			 (long)CURL_SSLVERSION_TLSv1_2);
	if (http->ca_file) {
		curl_easy_setopt(easy, CURLOPT_CAINFO, http->ca_file);
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	}
}

static void set_method(CURL *easy, struct http_request *request)
{
	if (strcmp(request->method, "GET") == 0) {
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
	} else if (strcmp(request->method, "HEAD") == 0) {
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	} else {
		if (strcmp(request->method, "DELETE") != 0) {
			curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
			curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE,
					 (curl_off_t)request->body_size);
		}
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
	}
}

static void set_options(struct http *http, struct http_request *request)
{
	CURL *easy = request->easy;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
	curl_easy_setopt(easy, CURLOPT_URL, request->url);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->message);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	/* Else a removed transfer waits for its name lookup to time out. */
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
			 (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES);
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BUFFER_BYTES);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)http->config.stall_timeout_ms);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	if (http->config.no_proxy)
		curl_easy_setopt(easy, CURLOPT_PROXY, "");
	if (request->fresh_connection)
		curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(easy, CURLOPT_READDATA, request);
	curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
	curl_easy_setopt(easy, CURLOPT_SEEKDATA, request);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
	set_tls(http, easy);
	set_method(easy, request);
}

static void put_easy(struct http *http, CURL *easy)
{
	if (!easy)
		return;
	if (http->idle_count == http->idle_capacity) {
		curl_easy_cleanup(easy);
		return;
	}
	curl_easy_reset(easy);
	http->idle[http->idle_count++] = easy;
}

/* The request is in no list any more. */
static void end_request(struct http *http, struct http_request *request,
			int result, const struct hib_error *error)
{
	put_easy(http, TAKE_PTR(request->easy));
	cancel_watch_remove(request->cancel, &request->watch);
	request->done(request, result, error);
}

static void end_failed(struct http *http, struct http_request *request,
		       int code, const char *text)
{
	struct hib_error error;

	hib_fail(&error, code, "%s", text);
	end_request(http, request, -code, &error);
}

static void end_active(struct http *http, struct http_request *request,
		       int code, const char *text)
{
	list_remove(&http->active, request);
	curl_multi_remove_handle(http->multi, request->easy);
	end_failed(http, request, code, text);
}

static void start_request(struct http *http, struct http_request *request)
{
	struct hib_error error = HIB_ERROR_INIT;
	int r;

	request->body_at = 0;
	request->callback_error = 0;
	request->transient = request->maybe_received = false;
	request->message[0] = 0;
	http_response_clear(&request->response);
	r = request->prepare(request, &error);
	if (r < 0) {
		end_request(http, request, r, &error);
		return;
	}
	request->easy = http->idle_count ? http->idle[--http->idle_count]
					 : curl_easy_init();
	if (!request->easy) {
		end_failed(http, request, ENOMEM, "out of memory");
		return;
	}
	request->maybe_received = request->body_size == 0;
	request->moved_ms = clock_monotonic_ms();
	request->moved_bytes = 0;
	set_options(http, request);
	if (curl_multi_add_handle(http->multi, request->easy) != CURLM_OK) {
		end_failed(http, request, ENOMEM, "out of memory");
		return;
	}
	list_append(&http->active, request);
}

/* --- what curl's failures mean -------------------------------------------- */

static const struct {
	CURLcode curl;
	int code;
	bool transient;
	bool unsent; /* no byte of the request has left */
} failures[] = {
	{ CURLE_COULDNT_RESOLVE_HOST, EHOSTUNREACH, true, true },
	{ CURLE_COULDNT_RESOLVE_PROXY, EHOSTUNREACH, true, true },
	{ CURLE_COULDNT_CONNECT, ECONNREFUSED, true, true },
	{ CURLE_OPERATION_TIMEDOUT, ETIMEDOUT, true, false },
	{ CURLE_SSL_CONNECT_ERROR, ECONNRESET, true, true },
	{ CURLE_SEND_ERROR, ECONNRESET, true, false },
	{ CURLE_RECV_ERROR, ECONNRESET, true, false },
	{ CURLE_GOT_NOTHING, ECONNRESET, true, false },
	{ CURLE_PARTIAL_FILE, EIO, true, false },
	{ CURLE_SEND_FAIL_REWIND, ECONNRESET, true, false },
	{ CURLE_WEIRD_SERVER_REPLY, EIO, true, false },
	/* An answer without a status line counts as HTTP 0.9. */
	{ CURLE_UNSUPPORTED_PROTOCOL, EIO, true, false },
	{ CURLE_BAD_CONTENT_ENCODING, EIO, true, false },
	{ CURLE_HTTP2, EIO, true, false },
	{ CURLE_OUT_OF_MEMORY, ENOMEM, false, true },
	{ CURLE_PEER_FAILED_VERIFICATION, EACCES, false, true },
	{ CURLE_SSL_CERTPROBLEM, EACCES, false, true },
	{ CURLE_SSL_CACERT_BADFILE, EACCES, false, true },
	{ CURLE_SSL_ISSUER_ERROR, EACCES, false, true },
};

static void end_transfer(struct http *http, struct http_request *request,
			 CURLcode curl)
{
	const char *text =
		*request->message ? request->message : curl_easy_strerror(curl);
	struct hib_error error;
	int code = EIO;

	if (curl == CURLE_OK) {
		end_request(http, request, 0, NULL);
		return;
	}
	if (request->callback_error) {
		hib_fail(&error, -request->callback_error, "%s",
			 strerrordesc_np(-request->callback_error));
		end_request(http, request, request->callback_error, &error);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
		if (failures[i].curl != curl)
			continue;
		code = failures[i].code;
		request->transient = failures[i].transient;
		if (failures[i].unsent)
			request->maybe_received = false;
	}
	hib_fail(&error, code, "%s", text);
	end_request(http, request, -code, &error);
}

static void reap(struct http *http)
{
	struct http_request *request;
	CURLMsg *message;
	CURLcode result;
	int left;

	while ((message = curl_multi_info_read(http->multi, &left))) {
		char *private = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		result = message->data.result;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE,
				  &private);
		request = (struct http_request *)(void *)private;
		list_remove(&http->active, request);
		curl_multi_remove_handle(http->multi, request->easy);
		end_transfer(http, request, result);
	}
}

/* --- the loop ------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void take_inbox(struct http *http, bool *ret_stopping, bool *ret_ending)
{
	struct http_list inbox;

	pthread_mutex_lock(&http->lock);
	inbox = http->inbox;
	http->inbox = (struct http_list){ 0 };
	*ret_stopping = http->stopping;
	*ret_ending = http->ending;
	pthread_mutex_unlock(&http->lock);
	while (inbox.first) {
		struct http_request *request = inbox.first;

		list_remove(&inbox, request);
		list_append(&http->waiting[request->urgent], request);
		/* Its cancel may have fired before it was in the list. */
		if (cancel_requested(request->cancel))
			atomic_store(&http->cancel_fired, true);
	}
}

static void end_cancelled(struct http *http, bool all)
{
	struct http_request *request, *next;

	for (int i = 0; i < 2; i++) {
		for (request = http->waiting[i].first; request;
		     request = next) {
			next = request->next;
			if (!all && !cancel_requested(request->cancel))
				continue;
			list_remove(&http->waiting[i], request);
			end_failed(http, request, ECANCELED, "cancelled");
		}
	}
	for (request = http->active.first; request; request = next) {
		next = request->next;
		if (all || cancel_requested(request->cancel))
			end_active(http, request, ECANCELED, "cancelled");
	}
}

/*
 * Starts what is due and has a connection; returns when to look again. A
 * stopped transfer gives back its place, so this is called after every event.
 */
static uint64_t start_due(struct http *http, uint64_t now, uint64_t wake_ms)
{
	for (int i = 1; i >= 0; i--) {
		size_t limit =
			http->config.connections + (i ? URGENT_EXTRA : 0);
		struct http_request *request = http->waiting[i].first, *next;

		for (; request; request = next) {
			next = request->next;
			if (request->deadline_ms &&
			    request->deadline_ms <= now) {
				list_remove(&http->waiting[i], request);
				end_failed(http, request, ETIMEDOUT,
					   "the deadline has passed");
				continue;
			}
			if (request->deadline_ms)
				wake_ms =
					earlier(wake_ms, request->deadline_ms);
			if (request->not_before_ms > now) {
				wake_ms = earlier(wake_ms,
						  request->not_before_ms);
			} else if (http->active.count < limit) {
				list_remove(&http->waiting[i], request);
				start_request(http, request);
			}
		}
	}
	return wake_ms;
}

static bool has_moved(struct http_request *request)
{
	curl_off_t sent = 0, received = 0;

	curl_easy_getinfo(request->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
	curl_easy_getinfo(request->easy, CURLINFO_SIZE_DOWNLOAD_T, &received);
	if (sent + received == request->moved_bytes)
		return false;
	request->moved_bytes = sent + received;
	return true;
}

static uint64_t check_active(struct http *http, uint64_t now, uint64_t wake_ms)
{
	uint64_t stall = http->config.stall_timeout_ms;
	struct http_request *request, *next;

	for (request = http->active.first; request; request = next) {
		next = request->next;
		if (request->deadline_ms && request->deadline_ms <= now) {
			end_active(http, request, ETIMEDOUT,
				   "no answer within the deadline");
			continue;
		}
		if (has_moved(request))
			request->moved_ms = now;
		if (request->moved_ms + stall <= now) {
			request->transient = true;
			end_active(http, request, ETIMEDOUT,
				   "no byte moved within the stall timeout");
			continue;
		}
		if (request->deadline_ms)
			wake_ms = earlier(wake_ms, request->deadline_ms);
		/* In quarters, so that a stall is seen not much too late. */
		wake_ms = earlier(wake_ms, now + stall / 4 + 1);
		wake_ms = earlier(wake_ms, request->moved_ms + stall);
	}
	return wake_ms;
}

static bool is_empty(struct http *http)
{
	bool empty;

	if (http->active.count || http->waiting[0].count ||
	    http->waiting[1].count)
		return false;
	pthread_mutex_lock(&http->lock);
	empty = http->inbox.count == 0;
	pthread_mutex_unlock(&http->lock);
	return empty;
}

static void *run(void *arg)
{
	struct http *http = arg;
	bool stopping, ending;

	for (;;) {
		uint64_t now, wake_ms;
		int running;

		take_inbox(http, &stopping, &ending);
		if (atomic_exchange(&http->cancel_fired, false) || stopping)
			end_cancelled(http, stopping);
		if (ending && is_empty(http))
			return NULL;
		now = clock_monotonic_ms();
		wake_ms = start_due(http, now, now + LONGEST_WAIT_MS);
		curl_multi_perform(http->multi, &running);
		reap(http);
		now = clock_monotonic_ms();
		wake_ms = check_active(http, now, wake_ms);
		wake_ms = start_due(http, now, wake_ms);
		curl_multi_poll(http->multi, NULL, 0,
				wake_ms > now ? (int)(wake_ms - now) : 0, NULL);
	}
}

/* --- what others call ----------------------------------------------------- */

static void wake(void *arg)
{
	struct http *http = arg;

	atomic_store(&http->cancel_fired, true);
	curl_multi_wakeup(http->multi);
}

void http_submit(struct http *http, struct http_request *request)
{
	request->http = http;
	request->watch = (struct cancel_watch){ .wake = wake, .arg = http };
	cancel_watch_add(request->cancel, &request->watch);
	pthread_mutex_lock(&http->lock);
	list_append(&http->inbox, request);
	pthread_mutex_unlock(&http->lock);
	curl_multi_wakeup(http->multi);
}

static struct http *http_destroy(struct http *http)
{
	while (http->idle_count)
		curl_easy_cleanup(http->idle[--http->idle_count]);
	free(http->idle);
	if (http->multi)
		curl_multi_cleanup(http->multi);
	pthread_mutex_destroy(&http->lock);
	free(http->ca_file);
	free(http);
	return NULL;
}

int http_new(const struct http_config *config, struct http **ret,
	     struct hib_error *error)
{
	size_t handles = config->connections + URGENT_EXTRA;
	struct http *http;
	int r;

	/* Once more is harmless, and it is never undone: other users of curl
	 * and a detached name lookup may still need it. */
	if (curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK)
		return hib_fail(error, EIO, "cannot initialise libcurl");
	http = calloc(1, sizeof(*http));
	if (!http)
		return hib_fail_errno(error, ENOMEM, "HTTP client");
	pthread_mutex_init(&http->lock, NULL);
	http->config = *config;
	http->idle = calloc(handles, sizeof(*http->idle));
	http->idle_capacity = handles;
	http->multi = curl_multi_init();
	http->ca_file = config->ca_file ? strdup(config->ca_file) : NULL;
	if (!http->idle || !http->multi || (config->ca_file && !http->ca_file))
		r = -ENOMEM;
	else
		r = -pthread_create(&http->thread, NULL, run, http);
	if (r < 0) {
		http_destroy(http);
		return hib_fail_errno(error, -r, "HTTP client");
	}
	*ret = http;
	return 0;
}

void http_stop(struct http *http)
{
	pthread_mutex_lock(&http->lock);
	http->stopping = true;
	pthread_mutex_unlock(&http->lock);
	curl_multi_wakeup(http->multi);
}

struct http *http_free(struct http *http)
{
	if (!http)
		return NULL;
	pthread_mutex_lock(&http->lock);
	http->stopping = http->ending = true;
	pthread_mutex_unlock(&http->lock);
	curl_multi_wakeup(http->multi);
	pthread_join(http->thread, NULL);
	return http_destroy(http);
}
