/* What holds for every backend; on the file store, and on S3 servers that are
 * a few lines of this file, where a failure must be exact. */
#include "transfer/store.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/unit/scratch.h"
#include "tests/unit/test.h"

#define PUT_OK "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 0\r\n\r\n"

/* A server that gives each connection the next of a list of answers. */
struct server {
	int listener;
	unsigned port;
	const char *const *answers; /* "": close without; NULL: the end */
	_Atomic unsigned requests;
	char first_request[4096];
	pthread_t thread;
};

/* One request whole, so that closing afterwards resets nothing. */
static bool read_request(int fd, char *text, size_t size)
{
	size_t used = 0, wanted = SIZE_MAX;

	while (used < wanted) {
		ssize_t n = read(fd, text + used, size - 1 - used);
		const char *end, *length;

		if (n <= 0)
			return false;
		used += (size_t)n;
		text[used] = 0;
		end = strstr(text, "\r\n\r\n");
		if (!end)
			continue;
		length = strcasestr(text, "\r\nContent-Length: ");
		wanted = (size_t)(end + 4 - text);
		if (length && length < end)
			wanted += strtoul(length + 18, NULL, 10);
	}
	return true;
}

static void *serve(void *arg)
{
	struct server *server = arg;
	char text[4096];

	for (size_t i = 0; server->answers[i]; i++) {
		int fd = accept(server->listener, NULL, NULL);
		ssize_t n;

		if (fd < 0)
			break;
		if (read_request(fd, text, sizeof(text))) {
			if (server->requests++ == 0)
				memcpy(server->first_request, text,
				       sizeof(text));
			n = send(fd, server->answers[i],
				 strlen(server->answers[i]), MSG_NOSIGNAL);
			if (n < 0)
				TEST_FAIL_THREAD("send");
		}
		close(fd);
	}
	return NULL;
}

static void server_start(struct server *server, const char *const *answers)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t size = sizeof(address);

	*server = (struct server){ .answers = answers };
	server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_INT(bind(server->listener, (struct sockaddr *)&address, size), 0);
	CHECK_INT(listen(server->listener, 64), 0);
	CHECK_INT(getsockname(server->listener, (struct sockaddr *)&address,
			      &size),
		  0);
	server->port = ntohs(address.sin_port);
	CHECK_INT(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void server_stop(struct server *server)
{
	shutdown(server->listener, SHUT_RDWR);
	pthread_join(server->thread, NULL);
	close(server->listener);
}

static struct store *open_s3(struct server *server, uint64_t request_timeout_ms,
			     uint64_t stall_timeout_ms)
{
	char endpoint[64];
	struct store_config config = {
		.url = "s3://bucket/pre",
		.endpoint = endpoint,
		.region = "us-east-1",
		.request_timeout_ms = request_timeout_ms,
		.stall_timeout_ms = stall_timeout_ms,
	};
	struct store *store;

	setenv("AWS_ACCESS_KEY_ID", "AKEY", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "HUSHHUSH", 1);
	unsetenv("AWS_SESSION_TOKEN");
	snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u",
		 server->port);
	CHECK_INT(store_open(&config, &store, NULL), 0);
	return store;
}

static int put(struct store *store, const char *key, const char *text,
	       unsigned flags, struct hib_error *error)
{
	return store_put(store, key, text, strlen(text), flags, NULL, error);
}

TEST(urls_of_no_store_are_refused)
{
	static const char *const urls[] = { NULL,   "",	       "http://x",
					    "/dir", "file:/x", "file://x" };
	struct store *store;

	for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
		struct store_config config = { .url = urls[i] };
		struct hib_error error = HIB_ERROR_INIT;

		CHECK_INT(store_open(&config, &store, &error), -EINVAL);
		CHECK(*error.message);
	}
	CHECK(!store_close(NULL));
}

/* req: T13 */
TEST(a_put_is_tried_again_until_it_is_confirmed)
{
	static const char *const answers[] = {
		"",
		"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 503 no\r\nContent-Length: 44\r\n\r\n"
		"<Error><Code>SlowDown</Code></Error>        ",
		"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 41\r\n\r\n"
		"<Error><Code>InternalError</Code></Error>",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"nonsense\r\n\r\n",
		PUT_OK,
		NULL,
	};
	struct store_stats stats;
	struct progress progress;
	const struct store_call call = { .progress = &progress };
	struct server server;
	struct store *store;

	server_start(&server, answers);
	progress_init(&progress);
	store = open_s3(&server, 0, 0);
	CHECK_INT(store_put(store, "k", "body", 4, 0, &call, NULL), 0);
	CHECK_INT(server.requests, 7);
	store_get_stats(store, &stats);
	CHECK_INT(stats.requests, 7);
	CHECK_INT(stats.retries, 6);
	CHECK_INT(stats.errors, 0);
	CHECK_INT(stats.bytes_sent, 4);
	CHECK_INT(stats.under_way + stats.queued, 0);
	CHECK(stats.last_success_ms > 0);
	CHECK_INT(progress.retries, 6);
	CHECK_INT(progress.bytes_sent, 4);
	store_close(store);
	server_stop(&server);
}

/* req: T13 */
TEST(a_deadline_ends_with_the_last_failure)
{
	static const char *const answers[] = { NULL };
	struct hib_error error = HIB_ERROR_INIT;
	uint64_t before;
	struct server server;
	struct store *store;

	server_start(&server, answers);
	server_stop(&server);
	store = open_s3(&server, 300, 0);
	before = clock_monotonic_ms();
	CHECK_INT(put(store, "k", "body", 0, &error), -ETIMEDOUT);
	CHECK(clock_monotonic_ms() - before < 2000);
	CHECK(strstr(error.message, "put k: "));
	CHECK(strcasestr(error.message, "connect"));
	store_close(store);
}

/* Accepts and never answers. */
static void silent_start(struct server *server)
{
	static const char *const none[] = { NULL };

	server_start(server, none);
	pthread_join(server->thread, NULL);
}

/* req: T13 */
TEST(a_server_that_hangs_is_left_after_the_stall_timeout)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct store_stats stats;
	struct server server;
	struct store *store;
	uint64_t before;

	silent_start(&server);
	store = open_s3(&server, 1000, 100);
	before = clock_monotonic_ms();
	CHECK_INT(put(store, "k", "body", 0, &error), -ETIMEDOUT);
	CHECK(clock_monotonic_ms() - before < 3000);
	store_get_stats(store, &stats);
	CHECK(stats.retries >= 2);
	CHECK(strstr(error.message, "no byte moved") ||
	      strstr(error.message, "deadline"));
	store_close(store);
	close(server.listener);
}

/* req: T13 */
TEST(a_body_that_is_cut_off_is_read_again_from_its_start)
{
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\nhe",
		"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\nhello",
		NULL,
	};
	struct buffer data = BUFFER_INIT(100);
	struct server server;
	struct store *store;

	server_start(&server, answers);
	store = open_s3(&server, 0, 0);
	CHECK_INT(buffer_append_string(&data, "before:"), 0);
	CHECK_INT(store_get(store, "k", 0, 0, &data, NULL, NULL), 0);
	CHECK_STR(buffer_string(&data), "before:hello");
	buffer_done(&data);
	store_close(store);
	server_stop(&server);
}

/* req: T9 T13 */
TEST(an_answer_of_another_range_is_an_error)
{
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 206 OK\r\nETag: \"x\"\r\nContent-Length: 3\r\n"
		"Content-Range: bytes 0-2/5\r\n\r\nhel",
		"HTTP/1.1 206 OK\r\nETag: \"x\"\r\nContent-Length: 2\r\n"
		"Content-Range: bytes 1-2/3\r\n\r\nel",
		NULL,
	};
	struct buffer data = BUFFER_INIT(100);
	struct server server;
	struct store *store;

	server_start(&server, answers);
	store = open_s3(&server, 0, 0);
	for (int i = 0; i < 3; i++)
		CHECK_INT(store_get(store, "k", 1, 3, &data, NULL, NULL), -EIO);
	CHECK_INT(data.size, 0);
	buffer_done(&data);
	store_close(store);
	server_stop(&server);
}

/* req: P14 */
TEST(a_conditional_put_whose_answer_was_lost_recognises_its_own_object)
{
	static const char *const answers[] = {
		"",
		"HTTP/1.1 412 no\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 4\r\n\r\nmine",
		"",
		"HTTP/1.1 412 no\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\nthine",
		"",
		"HTTP/1.1 412 no\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 3\r\n\r\nmin",
		"HTTP/1.1 412 no\r\nContent-Length: 0\r\n\r\n",
		NULL,
	};
	struct server server;
	struct store *store;

	server_start(&server, answers);
	store = open_s3(&server, 0, 0);
	CHECK_INT(put(store, "k", "mine", STORE_IF_ABSENT, NULL), 0);
	CHECK_INT(put(store, "k", "mine", STORE_IF_ABSENT, NULL), -EEXIST);
	CHECK_INT(put(store, "k", "mine", STORE_IF_ABSENT, NULL), -EEXIST);
	/* No answer was lost: it is another's, whatever it holds. */
	CHECK_INT(put(store, "k", "mine", STORE_IF_ABSENT, NULL), -EEXIST);
	CHECK_INT(server.requests, 10);
	store_close(store);
	server_stop(&server);
}

/* req: T13 */
TEST(a_clock_that_is_wrong_is_corrected)
{
	static const char *const answers[] = {
		"HTTP/1.1 403 no\r\nDate: Fri, 24 May 2013 00:00:00 GMT\r\n"
		"Content-Length: 48\r\n\r\n"
		"<Error><Code>RequestTimeTooSkewed</Code></Error>",
		PUT_OK,
		NULL,
	};
	struct server server;
	struct store *store;

	server_start(&server, answers);
	store = open_s3(&server, 0, 0);
	CHECK_INT(put(store, "k", "x", 0, NULL), 0);
	CHECK_INT(server.requests, 2);
	store_close(store);
	server_stop(&server);
}

/* req: A3 */
TEST(a_message_quotes_no_secret_of_a_servers_answer)
{
	static const char *const answers[] = {
		"HTTP/1.1 403 no\r\nConnection: close\r\n\r\n"
		"<Error><Code>AccessDenied</Code><Message>AKEY:HUSHHUSH</Message></Error>",
		NULL,
	};
	struct hib_error error = HIB_ERROR_INIT, last = HIB_ERROR_INIT;
	struct server server;
	struct store *store;

	server_start(&server, answers);
	store = open_s3(&server, 0, 0);
	CHECK_INT(put(store, "k", "x", 0, &error), -EACCES);
	CHECK(strstr(error.message, "AccessDenied"));
	CHECK(!strstr(error.message, "HUSH"));
	CHECK(!strstr(error.message, "AKEY"));
	CHECK(!strstr(server.first_request, "HUSH"));
	store_last_error(store, &last);
	CHECK_STR(last.message, error.message);
	store_close(store);
	server_stop(&server);
}

/* req: P8 */
TEST(a_delete_without_a_confirmation_is_a_failure)
{
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		NULL,
	};
	const char *keys[] = { "a", "b" };
	struct hib_error error = HIB_ERROR_INIT;
	struct server server;
	struct store *store;

	server_start(&server, answers);
	store = open_s3(&server, 0, 0);
	CHECK_INT(store_delete(store, keys, 2, NULL, &error), -EIO);
	CHECK(strstr(error.message, "a is deleted"));
	store_close(store);
	server_stop(&server);
}

struct outcome {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned done;
	unsigned cancelled;
};

static void count_done(void *arg, int result, const struct hib_error *error)
{
	struct outcome *outcome = arg;

	(void)error;
	pthread_mutex_lock(&outcome->lock);
	outcome->done++;
	outcome->cancelled += result == -ECANCELED;
	pthread_cond_broadcast(&outcome->changed);
	pthread_mutex_unlock(&outcome->lock);
}

static void outcome_wait(struct outcome *outcome, unsigned done)
{
	pthread_mutex_lock(&outcome->lock);
	while (outcome->done < done)
		pthread_cond_wait(&outcome->changed, &outcome->lock);
	pthread_mutex_unlock(&outcome->lock);
}

#define OUTCOME_INIT                                 \
	{                                            \
		.lock = PTHREAD_MUTEX_INITIALIZER,   \
		.changed = PTHREAD_COND_INITIALIZER, \
	}

/* req: T5 */
TEST(a_cancel_ends_running_and_queued_requests_at_once)
{
	struct outcome outcome = OUTCOME_INIT;
	struct server server;
	struct store *store;
	struct cancel cancel;
	const struct store_call call = { .cancel = &cancel };
	uint64_t before;

	silent_start(&server);
	store = open_s3(&server, 0, 0);
	cancel_init(&cancel, NULL);
	for (int i = 0; i < 40; i++)
		store_put_async(store, "k", "x", 1, 0, &call, count_done,
				&outcome);
	before = clock_monotonic_ms();
	cancel_request(&cancel);
	outcome_wait(&outcome, 40);
	CHECK(clock_monotonic_ms() - before < 500);
	CHECK_INT(outcome.cancelled, 40);
	/* And one that comes afterwards. */
	store_put_async(store, "k", "x", 1, 0, &call, count_done, &outcome);
	outcome_wait(&outcome, 41);
	CHECK_INT(outcome.cancelled, 41);
	store_close(store);
	cancel_done(&cancel);
	close(server.listener);
}

static void *put_in_thread(void *arg)
{
	return (void *)(intptr_t)put(arg, "k", "x", 0, NULL);
}

TEST(closing_ends_what_is_under_way)
{
	struct outcome outcome = OUTCOME_INIT;
	struct store_stats stats;
	struct server server;
	struct store *store;
	pthread_t thread;
	void *result;

	silent_start(&server);
	store = open_s3(&server, 0, 0);
	for (int i = 0; i < 40; i++)
		store_put_async(store, "k", "x", 1, 0, NULL, count_done,
				&outcome);
	CHECK_INT(pthread_create(&thread, NULL, put_in_thread, store), 0);
	do {
		store_get_stats(store, &stats);
	} while (stats.under_way + stats.queued < 41);
	store_close(store);
	CHECK_INT(outcome.cancelled, 40);
	pthread_join(thread, &result);
	CHECK_INT((intptr_t)result, -ECANCELED);
	close(server.listener);
}

/* The header's promise: never in the caller's thread. */
TEST(a_request_that_fails_early_ends_in_the_stores_thread)
{
	struct outcome outcome = OUTCOME_INIT;
	char long_key[STORE_KEY_BYTES + 8];
	struct server server;
	struct store *store;

	memset(long_key, 'k', sizeof(long_key) - 1);
	long_key[sizeof(long_key) - 1] = 0;
	silent_start(&server);
	store = open_s3(&server, 0, 0);
	pthread_mutex_lock(&outcome.lock);
	store_put_async(store, "../k", "x", 1, 0, NULL, count_done, &outcome);
	store_put_async(store, long_key, "x", 1, 0, NULL, count_done, &outcome);
	pthread_mutex_unlock(&outcome.lock);
	outcome_wait(&outcome, 2);
	CHECK_INT(put(store, long_key, "x", 0, NULL), -ENAMETOOLONG);
	CHECK_INT(put(store, "a//b", "x", 0, NULL), -EINVAL);
	store_close(store);
	close(server.listener);
}

TEST_MAIN()
