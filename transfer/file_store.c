/*
 * Threads: a few workers take requests from one queue, urgent ones first, and
 * block in file operations. They wait on `work`; submit() and stop() wake them.
 * A queued request whose cancel fires ends when a worker gets to it: if one is
 * free the queue is empty.
 */
#include "transfer/file_store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

#define WORKERS_MAX 8

struct file_queue {
	struct store_request *first, **tail;
};

struct file_store {
	int root_fd, temporary_fd;
	pthread_t workers[WORKERS_MAX];
	unsigned worker_count;
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct file_queue queues[2]; /* guarded by lock; [1]: urgent */
	bool stopping; /* guarded by lock: cancel everything */
	bool ending; /* guarded by lock: and nothing more will come */
};

/* What a worker is at. */
struct file_work {
	struct file_store *store;
	struct store_request *request;
};

static bool is_stopping(struct file_store *store)
{
	bool stopping;

	pthread_mutex_lock(&store->lock);
	stopping = store->stopping;
	pthread_mutex_unlock(&store->lock);
	return stopping;
}

static bool should_stop(void *arg)
{
	const struct file_work *work = arg;

	return cancel_requested(work->request->call.cancel) ||
	       is_stopping(work->store);
}

static int delete_all(const struct file_store_io *io,
		      const struct store_request *request,
		      struct hib_error *error)
{
	for (size_t i = 0; i < request->count; i++) {
		int r;

		if (io->stop(io->arg))
			return hib_fail(error, ECANCELED, "cancelled");
		r = file_store_delete(io, request->keys[i], error);
		if (r < 0)
			return hib_wrap(error, r, "%s", request->keys[i]);
	}
	return 0;
}

static int get(const struct file_store_io *io, struct store_request *request,
	       struct hib_error *error)
{
	size_t before = request->ret->size;
	int r = file_store_get(io, request->key, request->offset,
			       request->length, request->ret, error);

	if (r == 0)
		request->length = request->ret->size - before;
	return r;
}

static int work_on(struct file_store *store, struct store_request *request,
		   struct hib_error *error)
{
	struct file_work work = { store, request };
	struct file_store_io io = {
		.root_fd = store->root_fd,
		.temporary_fd = store->temporary_fd,
		.stop = should_stop,
		.arg = &work,
	};

	if (request->early_result < 0) {
		*error = request->early_error;
		return request->early_result;
	}
	if (should_stop(&work))
		return hib_fail(error, ECANCELED, "cancelled");
	store_request_attempt(request, false);
	switch (request->op) {
	case STORE_OP_PUT:
		return file_store_put(&io, request->key, request->data,
				      request->size, request->flags, error);
	case STORE_OP_GET:
		return get(&io, request, error);
	case STORE_OP_HEAD:
		return file_store_head(&io, request->key, &request->object,
				       error);
	case STORE_OP_LIST:
		return file_store_list(&io, request->key, request->after,
				       request->page, error);
	case STORE_OP_DELETE:
		return delete_all(&io, request, error);
	}
	return hib_fail(error, EINVAL, "unknown operation");
}

static struct store_request *take_locked(struct file_store *store)
{
	for (int i = 1; i >= 0; i--) {
		struct file_queue *queue = &store->queues[i];
		struct store_request *request = queue->first;

		if (!request)
			continue;
		queue->first = request->next;
		if (!queue->first)
			queue->tail = &queue->first;
		return request;
	}
	return NULL;
}

static void *run(void *arg)
{
	struct file_store *store = arg;

	for (;;) {
		struct hib_error error = HIB_ERROR_INIT;
		struct store_request *request;
		int r;

		pthread_mutex_lock(&store->lock);
		while (!(request = take_locked(store)) && !store->ending)
			pthread_cond_wait(&store->work, &store->lock);
		pthread_mutex_unlock(&store->lock);
		if (!request)
			return NULL;
		store_request_started(request);
		r = work_on(store, request, &error);
		store_request_finish(request, r, &error);
	}
}

static void file_submit(void *backend, struct store_request *request)
{
	struct file_store *store = backend;
	struct file_queue *queue = &store->queues[request->call.urgent];

	request->next = NULL;
	pthread_mutex_lock(&store->lock);
	*queue->tail = request;
	queue->tail = &request->next;
	pthread_cond_signal(&store->work);
	pthread_mutex_unlock(&store->lock);
}

static void file_stop(void *backend)
{
	struct file_store *store = backend;

	pthread_mutex_lock(&store->lock);
	store->stopping = true;
	pthread_mutex_unlock(&store->lock);
}

static void file_free(void *backend)
{
	struct file_store *store = backend;

	pthread_mutex_lock(&store->lock);
	store->stopping = store->ending = true;
	pthread_cond_broadcast(&store->work);
	pthread_mutex_unlock(&store->lock);
	for (unsigned i = 0; i < store->worker_count; i++)
		pthread_join(store->workers[i], NULL);
	close_fd(store->root_fd);
	close_fd(store->temporary_fd);
	pthread_cond_destroy(&store->work);
	pthread_mutex_destroy(&store->lock);
	free(store);
}

/* The root itself may lie behind symlinks: it is the operator's choice. */
static int open_root(struct file_store *store, const char *path,
		     struct hib_error *error)
{
	CLEANUP_CLOSE int slash_fd = -EBADF;
	int r;

	store->root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->root_fd < 0 && errno == ENOENT) {
		slash_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (slash_fd < 0)
			return hib_fail_errno(error, errno, "cannot open /");
		r = dir_make(slash_fd, path + strspn(path, "/"), 0755,
			     &store->root_fd, error);
		if (r < 0)
			return r;
	}
	if (store->root_fd < 0)
		return hib_fail_errno(error, errno, "cannot open %s", path);
	return dir_make(store->root_fd, FILE_STORE_TEMPORARY, 0755,
			&store->temporary_fd, error);
}

static int start_workers(struct file_store *store, unsigned count,
			 struct hib_error *error)
{
	if (count == 0 || count > WORKERS_MAX)
		count = WORKERS_MAX;
	while (store->worker_count < count) {
		int r = pthread_create(&store->workers[store->worker_count],
				       NULL, run, store);

		if (r > 0)
			return hib_fail_errno(error, r,
					      "cannot start a thread");
		store->worker_count++;
	}
	return 0;
}

static int file_open(const struct store_config *config, struct store *owner,
		     void **ret_backend, struct hib_error *error)
{
	const char *path = config->url + strlen(file_store_ops.scheme);
	struct file_store *store;
	int r;

	(void)owner;
	if (*path != '/')
		return hib_fail(error, EINVAL,
				"%s: the form is file:///absolute/directory",
				config->url);
	store = calloc(1, sizeof(*store));
	if (!store)
		return hib_fail_errno(error, ENOMEM, "open store");
	store->root_fd = store->temporary_fd = -EBADF;
	pthread_mutex_init(&store->lock, NULL);
	pthread_cond_init(&store->work, NULL);
	for (int i = 0; i < 2; i++)
		store->queues[i].tail = &store->queues[i].first;
	r = open_root(store, path, error);
	if (r == 0) {
		file_store_clean(store->temporary_fd);
		r = start_workers(store, config->connections, error);
	}
	if (r < 0) {
		file_free(store);
		return hib_wrap(error, r, "%s", config->url);
	}
	*ret_backend = store;
	return 0;
}

const struct store_ops file_store_ops = {
	.scheme = "file://",
	.open = file_open,
	.submit = file_submit,
	.stop = file_stop,
	.free = file_free,
};
