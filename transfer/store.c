/*
 * Threads: the functions of store.h run in the callers' threads and block only
 * in wait_for(), until the backend's thread calls done. A request is handed
 * over by submit() and belongs to the backend until store_request_finish().
 */
#include "transfer/store.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "transfer/store_backend.h"

struct store {
	const struct store_ops *ops;
	void *backend;
	char *url;

	_Atomic uint64_t requests, retries, errors, bytes_sent, bytes_received;
	_Atomic uint64_t under_way, queued;
	_Atomic int64_t last_success_ms, last_failure_ms;

	pthread_mutex_t lock;
	pthread_cond_t idle; /* calls has become 0 */
	unsigned calls; /* guarded by lock: threads inside a synchronous call */
	bool closing; /* guarded by lock */
	struct hib_error last_error; /* guarded by lock */
};

static const char *const op_names[] = {
	[STORE_OP_PUT] = "put",	      [STORE_OP_GET] = "get",
	[STORE_OP_HEAD] = "head",     [STORE_OP_LIST] = "list",
	[STORE_OP_DELETE] = "delete",
};

static const char *const fault_before[] = {
	[STORE_OP_PUT] = "store.put.before",
	[STORE_OP_GET] = "store.get.before",
	[STORE_OP_HEAD] = "store.head.before",
	[STORE_OP_LIST] = "store.list.before",
	[STORE_OP_DELETE] = "store.delete.before",
};

static const char *const fault_after[] = {
	[STORE_OP_PUT] = "store.put.after",
	[STORE_OP_GET] = "store.get.after",
	[STORE_OP_HEAD] = "store.head.after",
	[STORE_OP_LIST] = "store.list.after",
	[STORE_OP_DELETE] = "store.delete.after",
};

/* --- open and close ------------------------------------------------------- */

static const struct store_ops *find_ops(const char *url)
{
	static const struct store_ops *const all[] = { &file_store_ops,
						       &s3_store_ops };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (strncmp(url, all[i]->scheme, strlen(all[i]->scheme)) == 0)
			return all[i];
	return NULL;
}

static struct store *store_destroy(struct store *store)
{
	if (!store)
		return NULL;
	pthread_cond_destroy(&store->idle);
	pthread_mutex_destroy(&store->lock);
	free(store->url);
	free(store);
	return NULL;
}

int store_open(const struct store_config *config, struct store **ret,
	       struct hib_error *error)
{
	const struct store_ops *ops;
	struct store *store;
	int r;

	if (!config->url)
		return hib_fail(error, EINVAL,
				"no store: give file:///dir or s3://bucket");
	ops = find_ops(config->url);
	if (!ops)
		return hib_fail(
			error, EINVAL,
			"the store's URL must begin with file:// or s3://");
	store = calloc(1, sizeof(*store));
	if (!store)
		return hib_fail_errno(error, ENOMEM, "open store");
	store->ops = ops;
	pthread_mutex_init(&store->lock, NULL);
	pthread_cond_init(&store->idle, NULL);
	store->url = strdup(config->url);
	if (!store->url)
		r = hib_fail_errno(error, ENOMEM, "open store");
	else
		r = ops->open(config, store, &store->backend, error);
	if (r < 0) {
		store_destroy(store);
		return r;
	}
	*ret = store;
	return 0;
}

struct store *store_close(struct store *store)
{
	if (!store)
		return NULL;
	pthread_mutex_lock(&store->lock);
	store->closing = true;
	pthread_mutex_unlock(&store->lock);
	store->ops->stop(store->backend);
	pthread_mutex_lock(&store->lock);
	while (store->calls)
		pthread_cond_wait(&store->idle, &store->lock);
	pthread_mutex_unlock(&store->lock);
	store->ops->free(store->backend);
	return store_destroy(store);
}

const char *store_url(const struct store *store)
{
	return store->url;
}

int store_reload_credentials(struct store *store, struct hib_error *error)
{
	if (!store->ops->reload_credentials)
		return 0;
	return store->ops->reload_credentials(store->backend, error);
}

void store_get_stats(struct store *store, struct store_stats *ret)
{
	*ret = (struct store_stats){
		.requests = store->requests,
		.retries = store->retries,
		.errors = store->errors,
		.bytes_sent = store->bytes_sent,
		.bytes_received = store->bytes_received,
		.under_way = store->under_way,
		.queued = store->queued,
		.last_success_ms = store->last_success_ms,
		.last_failure_ms = store->last_failure_ms,
	};
}

void store_last_error(struct store *store, struct hib_error *ret)
{
	pthread_mutex_lock(&store->lock);
	*ret = store->last_error;
	pthread_mutex_unlock(&store->lock);
}

/* --- what backends call --------------------------------------------------- */

void store_request_started(struct store_request *request)
{
	if (request->started)
		return;
	request->started = true;
	atomic_fetch_sub(&request->store->queued, 1);
	atomic_fetch_add(&request->store->under_way, 1);
}

void store_request_attempt(struct store_request *request, bool again)
{
	atomic_fetch_add(&request->store->requests, 1);
	progress_add_requests(request->call.progress, 1);
	if (again) {
		atomic_fetch_add(&request->store->retries, 1);
		progress_add_retries(request->call.progress, 1);
	}
}

static void count_success(struct store_request *request)
{
	struct store *store = request->store;

	store->last_success_ms = clock_realtime_ms();
	if (request->op == STORE_OP_PUT) {
		atomic_fetch_add(&store->bytes_sent, request->size);
		progress_add_bytes_sent(request->call.progress, request->size);
	} else if (request->op == STORE_OP_GET) {
		atomic_fetch_add(&store->bytes_received, request->length);
		progress_add_bytes_received(request->call.progress,
					    request->length);
	}
}

static void note_failure(struct store *store, const struct hib_error *error)
{
	store->last_failure_ms = clock_realtime_ms();
	pthread_mutex_lock(&store->lock);
	store->last_error = *error;
	pthread_mutex_unlock(&store->lock);
}

/* An answer that the caller may well expect is not the store's failure. */
static void count_failure(struct store *store, int result,
			  const struct hib_error *error)
{
	if (result == -ENOENT || result == -EEXIST || result == -ECANCELED)
		return;
	atomic_fetch_add(&store->errors, 1);
	note_failure(store, error);
}

void store_request_attempt_failed(struct store_request *request,
				  const struct hib_error *error)
{
	note_failure(request->store, error);
}

void store_request_finish(struct store_request *request, int result,
			  const struct hib_error *error)
{
	struct hib_error failure = HIB_ERROR_INIT;
	store_done_fn done = request->done;
	void *arg = request->arg;

	atomic_fetch_sub(request->started ? &request->store->under_way
					  : &request->store->queued,
			 1);
	if (result == 0) {
		result = fault_point(fault_after[request->op]);
		error = NULL;
	}
	if (result < 0) {
		if (error)
			failure = *error;
		hib_wrap(&failure, result, "%s %s", op_names[request->op],
			 request->key);
		count_failure(request->store, result, &failure);
	} else {
		count_success(request);
	}
	if (request->owned)
		free(request);
	done(arg, result, &failure);
}

/* --- requests ------------------------------------------------------------- */

static int key_failure(int r, struct hib_error *error)
{
	return hib_fail(error, -r,
			r == -ENAMETOOLONG ? "the key is too long"
					   : "not a key for an object");
}

/* Hands the request to the backend, with the failures that come before that. */
static void submit(struct store_request *request, const struct store_call *call)
{
	struct store *store = request->store;
	int r;

	if (call)
		request->call = *call;
	r = store_key_check(request->key, request->op == STORE_OP_LIST);
	if (r < 0) {
		key_failure(r, &request->early_error);
	} else {
		r = fault_point(fault_before[request->op]);
		if (r < 0)
			hib_fail_errno(&request->early_error, -r,
				       "fault point");
	}
	request->early_result = r;
	atomic_fetch_add(&store->queued, 1);
	store->ops->submit(store->backend, request);
}

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t woken;
	bool done; /* guarded by lock */
	int result;
	struct hib_error *error;
};

static void wake_waiter(void *arg, int result, const struct hib_error *error)
{
	struct waiter *waiter = arg;

	pthread_mutex_lock(&waiter->lock);
	waiter->result = result;
	if (result < 0 && waiter->error)
		*waiter->error = *error;
	waiter->done = true;
	pthread_cond_signal(&waiter->woken);
	pthread_mutex_unlock(&waiter->lock);
}

/* Submits and waits; the request is on the caller's stack. */
static int wait_for(struct store_request *request,
		    const struct store_call *call, struct hib_error *error)
{
	struct waiter waiter = {
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.woken = PTHREAD_COND_INITIALIZER,
		.error = error,
	};

	request->done = wake_waiter;
	request->arg = &waiter;
	submit(request, call);
	pthread_mutex_lock(&waiter.lock);
	while (!waiter.done)
		pthread_cond_wait(&waiter.woken, &waiter.lock);
	pthread_mutex_unlock(&waiter.lock);
	pthread_cond_destroy(&waiter.woken);
	pthread_mutex_destroy(&waiter.lock);
	return waiter.result;
}

/* Between the two, store_close() waits. */
static int begin_call(struct store *store, struct hib_error *error)
{
	int r = 0;

	pthread_mutex_lock(&store->lock);
	if (store->closing)
		r = hib_fail(error, ECANCELED, "the store is being closed");
	else
		store->calls++;
	pthread_mutex_unlock(&store->lock);
	return r;
}

static void end_call(struct store *store)
{
	pthread_mutex_lock(&store->lock);
	if (--store->calls == 0)
		pthread_cond_broadcast(&store->idle);
	pthread_mutex_unlock(&store->lock);
}

static int run(struct store_request *request, const struct store_call *call,
	       struct hib_error *error)
{
	struct store *store = request->store;
	int r = begin_call(store, error);

	if (r < 0)
		return r;
	r = wait_for(request, call, error);
	end_call(store);
	return r;
}

int store_put(struct store *store, const char *key, const void *data,
	      size_t size, unsigned flags, const struct store_call *call,
	      struct hib_error *error)
{
	struct store_request request = {
		.op = STORE_OP_PUT,
		.store = store,
		.key = key,
		.data = data,
		.size = size,
		.flags = flags,
	};

	return run(&request, call, error);
}

int store_get(struct store *store, const char *key, uint64_t offset,
	      uint64_t length, struct buffer *ret,
	      const struct store_call *call, struct hib_error *error)
{
	struct store_request request = {
		.op = STORE_OP_GET,
		.store = store,
		.key = key,
		.offset = offset,
		.length = length,
		.ret = ret,
	};

	return run(&request, call, error);
}

int store_head(struct store *store, const char *key, struct store_object *ret,
	       const struct store_call *call, struct hib_error *error)
{
	struct store_request request = {
		.op = STORE_OP_HEAD,
		.store = store,
		.key = key,
	};
	int r = run(&request, call, error);

	if (r == 0)
		*ret = request.object;
	return r;
}

/*
 * One page, checked: in order, after what was seen, below the prefix. This is
 * also what ends a listing that would go on for ever.
 */
static int read_page(struct store *store, const char *prefix, const char *after,
		     struct store_page *page, const struct store_call *call,
		     struct hib_error *error)
{
	struct store_request request = {
		.op = STORE_OP_LIST,
		.store = store,
		.key = prefix,
		.after = after,
		.page = page,
	};
	size_t prefix_length = strlen(prefix);
	const char *last = after;
	int r;

	store_page_clear(page);
	r = wait_for(&request, call, error);
	if (r < 0)
		return r;
	for (size_t i = 0; i < page->count; i++) {
		const char *key = store_page_key(page, i);

		if (strncmp(key, prefix, prefix_length) != 0 ||
		    (last && strcmp(key, last) <= 0))
			return hib_fail(
				error, EIO,
				"list %s: the store's answer is out of order at %s",
				prefix, key);
		last = key;
	}
	if (page->truncated && page->count == 0)
		return hib_fail(
			error, EIO,
			"list %s: the store's answer is empty and says there is more",
			prefix);
	return 0;
}

static int list_pages(struct store *store, const char *prefix,
		      const char *after, store_visit_fn visit, void *arg,
		      struct store_page *page, const struct store_call *call,
		      struct hib_error *error)
{
	char last[STORE_KEY_BYTES];
	int r;

	do {
		r = read_page(store, prefix, after, page, call, error);
		for (size_t i = 0; r == 0 && i < page->count; i++) {
			r = visit(arg, store_page_key(page, i),
				  &page->entries[i].object);
			if (r > 0)
				r = 0;
		}
		if (r == 0 && page->truncated) {
			strncpy(last, store_page_key(page, page->count - 1),
				sizeof(last) - 1);
			last[sizeof(last) - 1] = 0;
			after = last;
		}
	} while (r == 0 && page->truncated);
	return r;
}

int store_list(struct store *store, const char *prefix, const char *after,
	       store_visit_fn visit, void *arg, const struct store_call *call,
	       struct hib_error *error)
{
	struct store_page *page;
	int r = begin_call(store, error);

	if (r < 0)
		return r;
	page = store_page_new();
	if (page) {
		r = list_pages(store, prefix, after, visit, arg, page, call,
			       error);
	} else {
		r = hib_fail_errno(error, ENOMEM, "list %s", prefix);
	}
	store_page_free(page);
	end_call(store);
	return r;
}

static int delete_keys(struct store *store, const char *const *keys,
		       size_t count, const struct store_call *call,
		       struct hib_error *error)
{
	int r;

	for (size_t i = 0; i < count; i++) {
		r = store_key_check(keys[i], false);
		if (r < 0) {
			key_failure(r, error);
			return hib_wrap(error, r, "delete %s", keys[i]);
		}
	}
	while (count > 0) {
		size_t part = count < STORE_PAGE_KEYS ? count : STORE_PAGE_KEYS;
		struct store_request request = {
			.op = STORE_OP_DELETE,
			.store = store,
			.key = keys[0],
			.keys = keys,
			.count = part,
		};

		r = wait_for(&request, call, error);
		if (r < 0)
			return r;
		keys += part;
		count -= part;
	}
	return 0;
}

int store_delete(struct store *store, const char *const *keys, size_t count,
		 const struct store_call *call, struct hib_error *error)
{
	int r = begin_call(store, error);

	if (r < 0)
		return r;
	r = delete_keys(store, keys, count, call, error);
	end_call(store);
	return r;
}

static void submit_copy(const struct store_request *request,
			const struct store_call *call)
{
	struct store_request *copy = malloc(sizeof(*copy));
	struct hib_error error;

	if (!copy) {
		/* The one case in which done runs in the caller's thread. */
		hib_fail_errno(&error, ENOMEM, "%s %s", op_names[request->op],
			       request->key);
		request->done(request->arg, -ENOMEM, &error);
		return;
	}
	*copy = *request;
	copy->owned = true;
	submit(copy, call);
}

void store_put_async(struct store *store, const char *key, const void *data,
		     size_t size, unsigned flags, const struct store_call *call,
		     store_done_fn done, void *arg)
{
	const struct store_request request = {
		.op = STORE_OP_PUT,
		.store = store,
		.key = key,
		.data = data,
		.size = size,
		.flags = flags,
		.done = done,
		.arg = arg,
	};

	submit_copy(&request, call);
}

void store_get_async(struct store *store, const char *key, uint64_t offset,
		     uint64_t length, struct buffer *ret,
		     const struct store_call *call, store_done_fn done,
		     void *arg)
{
	const struct store_request request = {
		.op = STORE_OP_GET,
		.store = store,
		.key = key,
		.offset = offset,
		.length = length,
		.ret = ret,
		.done = done,
		.arg = arg,
	};

	submit_copy(&request, call);
}
