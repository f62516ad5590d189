/*
 * Runs tasks, each in a thread of its own: writes its events, gives it its
 * final status, and at shutdown cancels all and waits for them. Also wakes
 * hibernated shards that somebody opens.
 *
 * Thread-safety: all functions from any thread.
 */
#ifndef HIBFS_CONTROL_RUNNER_H
#define HIBFS_CONTROL_RUNNER_H

#include "base/error.h"
#include "control/shards.h"
#include "meta/task.h"

struct daemon;
struct runner;

struct runner *runner_new(struct daemon *daemon);
struct runner *runner_free(struct runner *runner);

/*
 * A job: what a task does and what it brings along. `run` works and `free`
 * releases the job, both in the task's thread; `free` also when the thread
 * could not be started.
 */
struct job {
	const char *title; /* "Pause": makes "Pause started", "Pause failed" */
	int (*run)(struct job *job, struct daemon *daemon, struct task *task,
		   struct hib_error *error);
	void (*free)(struct job *job);
};

/*
 * Starts it; takes over the job, even on failure, when the task is ended as
 * failed; takes a reference of its own on the task.
 */
int runner_start(struct runner *runner, struct task *task, struct job *job,
		 struct hib_error *error);

/* Every task's cancel is made with this as its parent. */
struct cancel *runner_cancel(struct runner *runner);

/* Refuses new jobs, cancels those that run and waits for them. */
void runner_stop(struct runner *runner);

/* Resumes the shard soon, in a task; may be called from the mount's threads. */
void runner_wake(struct runner *runner, struct shard *shard);

#endif
