/*
 * Threads: one detached thread for each task, counted, so that runner_stop()
 * can wait for the last; and one that starts the resumes of shards which
 * somebody opens, since the mount's threads may not.
 */
#include "control/runner.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/daemon_internal.h"

struct wake {
	struct shard *shard;
	struct wake *next;
};

struct runner {
	struct daemon *daemon;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	size_t running; /* guarded by lock */
	bool stopping; /* guarded by lock */
	struct cancel cancel; /* parent of every task's */
	struct wake *wakes; /* guarded by lock */
	pthread_t wake_thread;
};

struct execution {
	struct runner *runner;
	struct task *task;
	struct job *job;
};

static void write_event(struct daemon *daemon, struct task *task,
			enum event_severity severity, const char *title,
			const char *what, const char *message)
{
	struct hib_error error = HIB_ERROR_INIT;
	json_t *extra = task_event_attributes(task);
	char description[128];

	snprintf(description, sizeof(description), "%s %s", title, what);
	if (extra && message)
		json_object_set_new(extra, "error", json_string(message));
	if (event_append(daemon->events, severity, description, extra, NULL,
			 &error) < 0)
		log_error(daemon->log, "cannot write the event \"%s\": %s",
			  description, error.message);
}

static void end_task(struct daemon *daemon, struct task *task,
		     const char *title, int r, const char *message)
{
	struct hib_error error = HIB_ERROR_INIT;
	enum task_status status = TASK_COMPLETED;
	char name[TARGET_TEXT_BYTES];

	target_text(task_bucket(task), task_shard(task),
		    daemon->options->shard_depth, name);
	if (r == 0) {
		write_event(daemon, task, EVENT_INFO, title, "completed", NULL);
		log_info(daemon->log, "%s of %s completed", title, name);
	} else if (r == -ECANCELED) {
		status = TASK_STOPPED;
		write_event(daemon, task, EVENT_WARNING, title, "stopped",
			    NULL);
		log_warning(daemon->log, "%s of %s stopped", title, name);
	} else {
		status = TASK_FAILED;
		write_event(daemon, task, EVENT_ERROR, title, "failed",
			    message);
		log_error(daemon->log, "%s of %s failed: %s", title, name,
			  message);
	}
	if (task_end(task, status, r < 0 ? message : NULL, &error) < 0)
		log_error(daemon->log, "cannot record the end of task %s: %s",
			  task_id(task), error.message);
}

static void *execute(void *arg)
{
	struct execution *execution = arg;
	struct runner *runner = execution->runner;
	struct daemon *daemon = runner->daemon;
	struct hib_error error = HIB_ERROR_INIT;
	struct task *task = execution->task;
	struct job *job = execution->job;
	const char *title = job->title;
	int r;

	task_start(task);
	write_event(daemon, task, EVENT_INFO, title, "started", NULL);
	r = job->run(job, daemon, task, &error);
	/* the shards are free again before anybody hears of the end */
	job->free(job);
	end_task(daemon, task, title, r, error.message);
	task_unref(task);
	free(execution);
	pthread_mutex_lock(&runner->lock);
	runner->running--;
	pthread_cond_broadcast(&runner->changed);
	pthread_mutex_unlock(&runner->lock);
	return NULL;
}

int runner_start(struct runner *runner, struct task *task, struct job *job,
		 struct hib_error *error)
{
	struct execution *execution = malloc(sizeof(*execution));
	const char *title = job->title;
	pthread_t thread;
	int r = 0;

	pthread_mutex_lock(&runner->lock);
	if (runner->stopping)
		r = hib_fail(error, ESHUTDOWN, "the daemon is stopping");
	else
		runner->running++;
	pthread_mutex_unlock(&runner->lock);
	if (r == 0 && execution) {
		*execution = (struct execution){ runner, task_ref(task), job };
		r = -pthread_create(&thread, NULL, execute, execution);
		if (r == 0) {
			pthread_detach(thread);
			return 0;
		}
		task_unref(task);
	}
	if (r != -ESHUTDOWN) {
		r = hib_fail(error, EAGAIN,
			     "cannot start a thread for the task");
		pthread_mutex_lock(&runner->lock);
		runner->running--;
		pthread_mutex_unlock(&runner->lock);
	}
	free(execution);
	job->free(job);
	end_task(runner->daemon, task, title, r,
		 error ? error->message : "not started");
	return r;
}

struct cancel *runner_cancel(struct runner *runner)
{
	return &runner->cancel;
}

static void resume_now(struct runner *runner, struct shard *shard)
{
	struct daemon *daemon = runner->daemon;
	struct hib_error error = HIB_ERROR_INIT;
	char task[UUID_TEXT_BYTES];
	int r = daemon_resume_shard(daemon, shard, task, &error);

	/* with another operation under way, its end asks again */
	if (r == -EBUSY && !shard_want(shard))
		return;
	if (r == -EBUSY) {
		runner_wake(runner, shard);
	} else if (r < 0) {
		log_error(daemon->log, "cannot wake %s: %s", shard_text(shard),
			  error.message);
		fs_shard_woken(daemon->fs, shard_fs(shard),
			       r == -EALREADY ? 0 : -EIO);
	}
}

static void *wake_shards(void *arg)
{
	struct runner *runner = arg;

	pthread_mutex_lock(&runner->lock);
	while (!runner->stopping) {
		struct wake *wake = runner->wakes;

		if (!wake) {
			pthread_cond_wait(&runner->changed, &runner->lock);
			continue;
		}
		runner->wakes = wake->next;
		pthread_mutex_unlock(&runner->lock);
		resume_now(runner, wake->shard);
		free(wake);
		pthread_mutex_lock(&runner->lock);
	}
	pthread_mutex_unlock(&runner->lock);
	return NULL;
}

struct runner *runner_new(struct daemon *daemon)
{
	struct runner *runner = calloc(1, sizeof(*runner));

	if (!runner)
		return NULL;
	runner->daemon = daemon;
	pthread_mutex_init(&runner->lock, NULL);
	pthread_cond_init(&runner->changed, NULL);
	cancel_init(&runner->cancel, NULL);
	if (pthread_create(&runner->wake_thread, NULL, wake_shards, runner)) {
		cancel_done(&runner->cancel);
		free(runner);
		return NULL;
	}
	return runner;
}

void runner_stop(struct runner *runner)
{
	pthread_mutex_lock(&runner->lock);
	runner->stopping = true;
	pthread_cond_broadcast(&runner->changed);
	pthread_mutex_unlock(&runner->lock);
	cancel_request(&runner->cancel);
	pthread_mutex_lock(&runner->lock);
	while (runner->running)
		pthread_cond_wait(&runner->changed, &runner->lock);
	pthread_mutex_unlock(&runner->lock);
}

struct runner *runner_free(struct runner *runner)
{
	if (!runner)
		return NULL;
	runner_stop(runner);
	pthread_join(runner->wake_thread, NULL);
	while (runner->wakes) {
		struct wake *wake = runner->wakes;

		runner->wakes = wake->next;
		free(wake);
	}
	cancel_done(&runner->cancel);
	pthread_cond_destroy(&runner->changed);
	pthread_mutex_destroy(&runner->lock);
	free(runner);
	return NULL;
}

void runner_wake(struct runner *runner, struct shard *shard)
{
	struct wake *wake = malloc(sizeof(*wake));

	if (!wake) {
		fs_shard_woken(runner->daemon->fs, shard_fs(shard), -ENOMEM);
		return;
	}
	pthread_mutex_lock(&runner->lock);
	for (struct wake *other = runner->wakes; other; other = other->next) {
		if (other->shard == shard) {
			pthread_mutex_unlock(&runner->lock);
			free(wake);
			return;
		}
	}
	*wake = (struct wake){ shard, runner->wakes };
	runner->wakes = wake;
	pthread_cond_broadcast(&runner->changed);
	pthread_mutex_unlock(&runner->lock);
}
