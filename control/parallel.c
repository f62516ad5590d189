/*
 * Threads: the caller is one of the workers, so that a machine that cannot give
 * another thread still gets through.
 */
#include "control/parallel.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define MAX_THREADS 64

struct parallel {
	parallel_fn run;
	void *arg;
	size_t count;
	struct cancel cancel;
	pthread_mutex_t lock;
	size_t next; /* guarded by lock */
	int result; /* guarded by lock; the first failure */
	struct hib_error error; /* guarded by lock; its message */
};

static void note_failure(struct parallel *parallel, int r,
			 const struct hib_error *error)
{
	pthread_mutex_lock(&parallel->lock);
	if (!parallel->result) {
		parallel->result = r;
		parallel->error = *error;
	}
	pthread_mutex_unlock(&parallel->lock);
	cancel_request(&parallel->cancel);
}

static void *work(void *arg)
{
	struct parallel *parallel = arg;

	for (;;) {
		struct hib_error error = HIB_ERROR_INIT;
		size_t index;
		int r;

		pthread_mutex_lock(&parallel->lock);
		index = parallel->next;
		if (parallel->result || cancel_requested(&parallel->cancel))
			index = parallel->count;
		if (index < parallel->count)
			parallel->next++;
		pthread_mutex_unlock(&parallel->lock);
		if (index >= parallel->count)
			return NULL;
		r = parallel->run(parallel->arg, index, &parallel->cancel,
				  &error);
		if (r < 0)
			note_failure(parallel, r, &error);
	}
}

int parallel_run(size_t count, unsigned threads, parallel_fn run, void *arg,
		 struct cancel *cancel, struct hib_error *error)
{
	struct parallel parallel = {
		.run = run,
		.arg = arg,
		.count = count,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	pthread_t workers[MAX_THREADS];
	unsigned started = 0;
	int r;

	if (threads > count)
		threads = (unsigned)count;
	if (threads > MAX_THREADS)
		threads = MAX_THREADS;
	cancel_init(&parallel.cancel, cancel);
	while (started + 1 < threads &&
	       pthread_create(&workers[started], NULL, work, &parallel) == 0)
		started++;
	work(&parallel);
	while (started > 0)
		pthread_join(workers[--started], NULL);
	r = parallel.result;
	if (r < 0) {
		if (error)
			*error = parallel.error;
	} else if (parallel.next < count || cancel_requested(cancel)) {
		r = hib_fail(error, ECANCELED, "cancelled");
	}
	cancel_done(&parallel.cancel);
	pthread_mutex_destroy(&parallel.lock);
	return r;
}
