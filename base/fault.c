#include "base/fault.h"

#ifdef HIBFS_FAULT_POINTS

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define FAULT_LIMIT 64
#define FAULT_NAME_BYTES 96

enum fault_action { FAULT_KILL, FAULT_FAIL, FAULT_DELAY };

struct fault {
	char name[FAULT_NAME_BYTES];
	enum fault_action action;
	bool always;
	uint64_t value; /* errno or milliseconds */
	uint64_t first; /* the passing at which it happens, from 1 */
	atomic_uint_fast64_t passed;
};

/*
 * The one mutable global of the project: fault points stand in every layer,
 * in functions that have no business with a context for them, and exist in
 * test builds alone. Written once by fault_init(), before threads start.
 */
static struct fault faults[FAULT_LIMIT];
static atomic_size_t fault_count;

static const struct {
	const char *text;
	enum fault_action action;
	bool always;
	bool has_value;
} fault_actions[] = {
	{ "kill", FAULT_KILL, false, false },
	{ "fail", FAULT_FAIL, false, true },
	{ "always-fail", FAULT_FAIL, true, true },
	{ "delay", FAULT_DELAY, false, true },
	{ "always-delay", FAULT_DELAY, true, true },
};

/* All of `text` is a decimal number of at least `least`. */
static bool parse_number(const char *text, uint64_t least, uint64_t *ret_value)
{
	unsigned long long value;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end || value < least || value > UINT32_MAX)
		return false;
	*ret_value = value;
	return true;
}

static bool parse_action(char *text, struct fault *fault)
{
	char *value = strchr(text, ':');

	if (value)
		*value++ = 0;
	for (size_t i = 0; i < ARRAY_SIZE(fault_actions); i++) {
		if (strcmp(text, fault_actions[i].text) != 0)
			continue;
		fault->action = fault_actions[i].action;
		fault->always = fault_actions[i].always;
		if (!fault_actions[i].has_value)
			return !value;
		return value && parse_number(value, fault->action == FAULT_FAIL,
					     &fault->value);
	}
	return false;
}

/* NAME=ACTION[:VALUE][@N]; cuts `text` into pieces. */
static bool parse_fault(char *text, struct fault *fault)
{
	char *action = strchr(text, '=');
	char *at;

	if (!action || action == text || action - text >= FAULT_NAME_BYTES)
		return false;
	*action++ = 0;
	strcpy(fault->name, text);
	fault->first = 1;
	at = strchr(action, '@');
	if (at) {
		*at++ = 0;
		if (!parse_number(at, 1, &fault->first))
			return false;
	}
	return parse_action(action, fault);
}

int fault_init(struct hib_error *error)
{
	const char *environment = getenv("HIBFS_FAULTS");
	CLEANUP_FREE char *copy = NULL;
	char *item, *rest;
	size_t count = 0;

	atomic_store(&fault_count, 0);
	if (!environment || !*environment)
		return 0;
	copy = strdup(environment);
	if (!copy)
		return hib_fail_errno(error, ENOMEM, "HIBFS_FAULTS");
	rest = copy;
	while ((item = strsep(&rest, ",")) != NULL) {
		if (count == FAULT_LIMIT)
			return hib_fail(error, EINVAL,
					"HIBFS_FAULTS: more than %d points",
					FAULT_LIMIT);
		memset(&faults[count], 0, sizeof(faults[count]));
		if (!parse_fault(item, &faults[count]))
			return hib_fail(error, EINVAL,
					"HIBFS_FAULTS: not of the form "
					"NAME=ACTION[:VALUE][@N]: %s",
					environment);
		count++;
	}
	atomic_store(&fault_count, count);
	return 0;
}

static void wait_ms(uint64_t duration_ms)
{
	struct timespec left = {
		.tv_sec = (time_t)(duration_ms / 1000),
		.tv_nsec = (long)(duration_ms % 1000) * 1000000,
	};

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

int fault_point(const char *name)
{
	size_t count = atomic_load(&fault_count);
	int r = 0;

	for (size_t i = 0; i < count; i++) {
		struct fault *fault = &faults[i];
		uint64_t passing;

		if (strcmp(name, fault->name) != 0)
			continue;
		passing = atomic_fetch_add(&fault->passed, 1) + 1;
		if (passing < fault->first ||
		    (passing > fault->first && !fault->always))
			continue;
		if (fault->action == FAULT_KILL)
			kill(getpid(), SIGKILL);
		else if (fault->action == FAULT_DELAY)
			wait_ms(fault->value);
		else
			r = -(int)fault->value;
	}
	return r;
}

#else

/* A translation unit needs a declaration; without fault points none is made. */
typedef int fault_points_are_compiled_out;

#endif
