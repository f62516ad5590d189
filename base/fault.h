/*
 * Named fault points: the places where a test can make a step fail, wait or
 * kill the process. Before and after every durable or remote action there is
 * one:
 *
 *	r = fault_point("commit.manifest.before");
 *	if (r < 0)
 *		return hib_fail(error, -r, "fault point ...");
 *
 * A release build (no HIBFS_FAULT_POINTS) compiles them to a constant 0.
 *
 * They are armed by the environment variable HIBFS_FAULTS, a comma-separated
 * list of NAME=ACTION[@N]: at the N-th passing (default 1) ACTION happens, for
 * `always-` actions at every one from the N-th on.
 *
 *	kill		SIGKILL to the process itself
 *	fail:ERRNO	the point returns -ERRNO once (a number)
 *	always-fail:ERRNO
 *	delay:MS	sleeps, then goes on
 *	always-delay:MS
 *
 * Thread-safety: any thread. The table is read once at fault_init().
 */
#ifndef HIBFS_BASE_FAULT_H
#define HIBFS_BASE_FAULT_H

#include "base/error.h"

#ifdef HIBFS_FAULT_POINTS
/* Reads HIBFS_FAULTS; a form it does not know is -EINVAL with a message. */
int fault_init(struct hib_error *error);
int fault_point(const char *name);
#else
static inline int fault_init(struct hib_error *error)
{
	(void)error;
	return 0;
}
static inline int fault_point(const char *name)
{
	(void)name;
	return 0;
}
#endif

#endif
