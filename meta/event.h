/*
 * The event log, SOURCE/.hibfs/events.jsonl: one JSON object a line, for people,
 * for monitoring, for followers on the control socket. control/ and fs/ append.
 *
 * The last 10,000 are kept, in memory and across restarts; the file is rewritten
 * when it holds twice as many. An event is durable when event_append()
 * returns. event_id grows by one with each event, over restarts too.
 *
 * Thread-safety: all functions from any thread.
 */
#ifndef HIBFS_META_EVENT_H
#define HIBFS_META_EVENT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/cancel.h"
#include "base/error.h"

#define EVENT_KEEP 10000
#define EVENT_LINE_BYTES (16u << 10) /* a longer event is refused */

enum event_severity { EVENT_INFO, EVENT_WARNING, EVENT_ERROR };

struct event_log;

struct event_log_config {
	int hibfs_fd; /* SOURCE/.hibfs; duplicated */
	const char *node; /* "node"; copied */
	const char *otp_node; /* "otp_node", node_otp_name(); copied */
	size_t keep; /* 0: EVENT_KEEP */
};

/* Reads the file; drops a torn last line, nothing else (E7). */
int event_log_open(const struct event_log_config *config,
		   struct event_log **ret, struct hib_error *error);
struct event_log *event_log_close(struct event_log *log); /* NULL */

/*
 * Appends an event with timestamp, id, component, node, otp_node and a uuid of
 * its own. `extra` becomes extra_attributes: an object or NULL (empty object);
 * the reference is taken, even on failure. ret_id may be NULL.
 */
int event_append(struct event_log *log, enum event_severity severity,
		 const char *description, json_t *extra, uint64_t *ret_id,
		 struct hib_error *error);

/* What to read; members that are NULL or 0 select everything. */
struct event_filter {
	uint64_t since_id; /* only events after this one */
	enum event_severity severity; /* and above */
	/* Equal to the extra attribute, as it is written: document_name(). */
	const char *bucket, *shard, *task_id;
	size_t limit; /* at most so many, the first ones; 0: all */
};

/* A new array of events in order, oldest first. */
int event_read(struct event_log *log, const struct event_filter *filter,
	       json_t **ret, struct hib_error *error);

/* Appends the kept lines as they are (the virtual events.jsonl). -EMSGSIZE. */
int event_text(struct event_log *log, struct buffer *out);

/* The last id given, 0 when there was never an event. */
uint64_t event_last_id(struct event_log *log);

/*
 * Waits for an event after since_id: 0 when there is one, -ETIMEDOUT at the
 * deadline (of clock_monotonic_ms(); UINT64_MAX: none), -ECANCELED.
 */
int event_wait(struct event_log *log, uint64_t since_id, uint64_t deadline_ms,
	       struct cancel *cancel);

const char *event_severity_name(enum event_severity severity);
int event_severity_parse(const char *text, enum event_severity *ret);

#endif
