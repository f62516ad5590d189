/*
 * One thread (run_jobs) sends notifications from a queue of jobs. It blocks in
 * write(2) on /dev/fuse, and on `changed` for the next job; whoever waits for a
 * job waits on `changed` too, with a deadline, because the thread may have to
 * wait for a lock that a parked request holds. A job belongs to the queue and
 * to the one who waits, and the last of them frees it.
 */
#include "fs/invalidate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/fs_internal.h"

#define PATIENCE_S 5

struct job {
	struct job *next;
	uint64_t parent;
	char *name;
	uint64_t *nodeids;
	size_t count;
	bool done, abandoned; /* invalidator's lock */
};

struct invalidator {
	struct fs *fs;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct job *first, *last; /* lock */
	bool ending; /* lock */
};

static struct job *job_free(struct job *job)
{
	if (!job)
		return NULL;
	free(job->name);
	free(job->nodeids);
	free(job);
	return NULL;
}

static struct job *job_new(uint64_t parent, const char *name,
			   const uint64_t *nodeids, size_t count)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->parent = parent;
	job->count = count;
	if (name) {
		job->name = strdup(name);
		if (!job->name)
			return job_free(job);
	}
	if (count) {
		job->nodeids = reallocarray(NULL, count, sizeof(*nodeids));
		if (!job->nodeids)
			return job_free(job);
		memcpy(job->nodeids, nodeids, count * sizeof(*nodeids));
	}
	return job;
}

/* That the kernel does not know a node is as good as having forgotten it. */
static void notify(struct fs *fs, const struct job *job)
{
	size_t i;

	if (job->name)
		fuse_lowlevel_notify_inval_entry(fs->session, job->parent,
						 job->name, strlen(job->name));
	/* Offset -1: attributes alone; that takes no lock of the inode. */
	for (i = 0; i < job->count; i++)
		fuse_lowlevel_notify_inval_inode(fs->session, job->nodeids[i],
						 -1, 0);
}

static void *run_jobs(void *arg)
{
	struct invalidator *invalidator = arg;
	struct job *job;

	pthread_mutex_lock(&invalidator->lock);
	for (;;) {
		while (!invalidator->first && !invalidator->ending)
			pthread_cond_wait(&invalidator->changed,
					  &invalidator->lock);
		job = invalidator->first;
		if (!job)
			break;
		invalidator->first = job->next;
		pthread_mutex_unlock(&invalidator->lock);
		notify(invalidator->fs, job);
		pthread_mutex_lock(&invalidator->lock);
		job->done = true;
		if (job->abandoned)
			job_free(job);
		pthread_cond_broadcast(&invalidator->changed);
	}
	pthread_mutex_unlock(&invalidator->lock);
	return NULL;
}

int invalidator_new(struct fs *fs, struct invalidator **ret,
		    struct hib_error *error)
{
	struct invalidator *invalidator = calloc(1, sizeof(*invalidator));
	pthread_condattr_t monotonic;
	int r;

	if (!invalidator)
		return hib_fail_errno(error, ENOMEM, "invalidation");
	invalidator->fs = fs;
	pthread_mutex_init(&invalidator->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&invalidator->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	r = pthread_create(&invalidator->thread, NULL, run_jobs, invalidator);
	if (r) {
		pthread_cond_destroy(&invalidator->changed);
		pthread_mutex_destroy(&invalidator->lock);
		free(invalidator);
		return hib_fail_errno(error, r,
				      "start the invalidation thread");
	}
	*ret = invalidator;
	return 0;
}

struct invalidator *invalidator_free(struct invalidator *invalidator)
{
	if (!invalidator)
		return NULL;
	pthread_mutex_lock(&invalidator->lock);
	invalidator->ending = true;
	pthread_cond_broadcast(&invalidator->changed);
	pthread_mutex_unlock(&invalidator->lock);
	pthread_join(invalidator->thread, NULL);
	pthread_cond_destroy(&invalidator->changed);
	pthread_mutex_destroy(&invalidator->lock);
	free(invalidator);
	return NULL;
}

int invalidator_run(struct invalidator *invalidator, uint64_t parent,
		    const char *name, const uint64_t *nodeids, size_t count,
		    struct hib_error *error)
{
	struct job *job = job_new(parent, name, nodeids, count);
	struct timespec deadline;
	bool done;
	int r = 0;

	if (!job)
		return hib_fail_errno(error, ENOMEM, "invalidation");
	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&invalidator->lock);
	if (invalidator->first)
		invalidator->last->next = job;
	else
		invalidator->first = job;
	invalidator->last = job;
	pthread_cond_broadcast(&invalidator->changed);
	while (!job->done && r == 0)
		r = pthread_cond_timedwait(&invalidator->changed,
					   &invalidator->lock, &deadline);
	done = job->done;
	job->abandoned = !done;
	pthread_mutex_unlock(&invalidator->lock);
	if (!done)
		return hib_fail(error, ETIMEDOUT,
				"the kernel has not yet forgotten %s",
				name ? name : "a shard's attributes");
	job_free(job);
	return 0;
}
