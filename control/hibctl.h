/*
 * What the files of hibctl share. It is a thin client: it turns words into
 * calls (client.h) and answers into tables; what may be done, and what is
 * wrong, the daemon says.
 *
 *	hibctl.c	the command line as a whole, help, exit codes
 *	hibctl_show.c	how things look
 *	hibctl_list.c	list, status, config, tasks, task
 *	hibctl_task.c	pause, resume, verify, wait, cancel, shutdown
 *	hibctl_progress.c	the progress bar
 *	hibctl_lock.c	lock, unlock
 *	hibctl_events.c	events
 *
 * One thread.
 */
#ifndef HIBFS_CONTROL_HIBCTL_H
#define HIBFS_CONTROL_HIBCTL_H

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "control/client.h"

/* Stable: scripts rely on them. hibctl(1) lists them. */
enum exit_code {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_UNREACHABLE = 3,
	EXIT_BUSY = 4,
	EXIT_NOT_FOUND = 5,
	EXIT_PERMISSION = 6,
	EXIT_STOPPED = 7,
	EXIT_TIMEOUT = 8,
	EXIT_INTERRUPTED = 130,
};

struct hibctl {
	const char *socket; /* --socket or HIBFS_SOCKET; NULL: to be found */
	bool json;
	bool raw_bytes; /* --bytes */
	bool colour; /* of standard output */
	bool terminal; /* standard error is one: a progress bar */
	struct client *client; /* NULL until hibctl_connect() */
	const struct verb *verb;
};

struct verb {
	const char *name;
	const char *arguments; /* "TARGET [--purge]" */
	const char *summary; /* one line */
	const char *help; /* lines on the options, or NULL */
	int (*run)(struct hibctl *ctl, int argc, char **argv);
};

/* --- hibctl.c --- */

/* Prints a message and gives the exit code for it. */
int usage_error(const struct hibctl *ctl, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
int report(const struct hibctl *ctl, int r, const struct hib_error *error);

/* Prints "hibctl: ..." to standard error, made safe to show. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* 0, or an exit code after a message. */
int hibctl_connect(struct hibctl *ctl);
int hibctl_call(struct hibctl *ctl, const char *method, json_t *params,
		json_t **ret_result);

/* Calls, and with --json prints the result: then *ret_result is NULL. */
int hibctl_query(struct hibctl *ctl, const char *method, json_t *params,
		 json_t **ret_result);

/*
 * The next option of a verb as getopt_long(3), -1 at the end; '?' after a
 * message for one that does not exist.
 */
int next_option(const struct hibctl *ctl, int argc, char **argv,
		const struct option *options);

/* The verb's arguments after its options: EXIT_USAGE unless min to max. */
int check_arguments(const struct hibctl *ctl, int argc, int min, int max);

/* The arguments as an array of tasks' ids, or EXIT_USAGE after a message. */
int task_ids(const struct hibctl *ctl, int argc, char **argv, json_t **ret);

/* "500ms", "30s", "5m", "1h", "2d": false for anything else. */
bool parse_duration(const char *text, uint64_t *ret_ms);
bool parse_number(const char *text, uint64_t *ret);

/* A descriptor that is readable after Ctrl-C, SIGTERM or SIGHUP; or -errno. */
int open_interrupt(void);

/* --- hibctl_show.c --- */

#define SHOW_BYTES 64

void show_size(const struct hibctl *ctl, const json_t *bytes,
	       char ret_text[SHOW_BYTES]);
void show_size_value(const struct hibctl *ctl, uint64_t bytes,
		     char ret_text[SHOW_BYTES]);
void show_duration(uint64_t ms, char ret_text[SHOW_BYTES]);
void show_time(const json_t *realtime_ms, char ret_text[SHOW_BYTES]);

/* Text for people: control characters become \xNN. */
void put_text(FILE *file, const char *text);
void put_json(const json_t *value, size_t flags);

/* Members of an object; "" when missing or null. */
const char *get_text(const json_t *object, const char *name);
uint64_t get_number(const json_t *object, const char *name);

/* "BUCKET/SHARD", "BUCKET" or "" of a task or an event's attributes. */
#define TARGET_SHOW_BYTES 2048
void show_target(const json_t *object, char ret_text[TARGET_SHOW_BYTES]);

/* A table whose columns are as wide as they need; '>' before a title: right. */
struct table;
struct table *table_new(const char *const *titles, size_t columns);
void table_add(struct table *table, const char *const *cells);
void table_print(struct table *table, const struct hibctl *ctl);
struct table *table_free(struct table *table);

/* Any object as indented "name: value" lines. */
void show_object(const struct hibctl *ctl, const json_t *object, int indent);

/* --- verbs --- */

int verb_list(struct hibctl *ctl, int argc, char **argv);
int verb_status(struct hibctl *ctl, int argc, char **argv);
int verb_config(struct hibctl *ctl, int argc, char **argv);
int verb_tasks(struct hibctl *ctl, int argc, char **argv);
int verb_task(struct hibctl *ctl, int argc, char **argv);
int verb_pause(struct hibctl *ctl, int argc, char **argv);
int verb_resume(struct hibctl *ctl, int argc, char **argv);
int verb_verify(struct hibctl *ctl, int argc, char **argv);
int verb_wait(struct hibctl *ctl, int argc, char **argv);
int verb_cancel(struct hibctl *ctl, int argc, char **argv);
int verb_shutdown(struct hibctl *ctl, int argc, char **argv);
int verb_lock(struct hibctl *ctl, int argc, char **argv);
int verb_unlock(struct hibctl *ctl, int argc, char **argv);
int verb_events(struct hibctl *ctl, int argc, char **argv);
int verb_version(struct hibctl *ctl, int argc, char **argv);

/* --- hibctl_progress.c --- */

struct progress_bar {
	const struct hibctl *ctl;
	bool drawn; /* a line without its end is on the terminal */
	unsigned int last_tenth; /* of what was told in plain lines */
	char last_phase[SHOW_BYTES];
};

/* A client_notify_fn; arg is the bar. */
int progress_notify(void *arg, const char *method, json_t *params);
/* Clears the bar, before anything else is printed. */
void progress_end(struct progress_bar *bar);

#endif
