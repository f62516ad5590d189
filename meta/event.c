/*
 * Threads: appenders are serialised by append_lock, which is held while the
 * file is written; readers and followers take only `lock`, which never is.
 * event_append() wakes followers; so does a follower's own cancel.
 */
#include "meta/event.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/uuid.h"
#include "meta/document.h"

#define EVENT_FILE "events.jsonl"
#define LABEL ".hibfs/" EVENT_FILE

struct line {
	uint64_t id;
	char *text; /* without the newline */
};

struct event_log {
	char *node, *otp_node;
	size_t keep;

	pthread_mutex_t append_lock;
	/* guarded by append_lock */
	int hibfs_fd;
	int fd; /* the file */
	uint64_t size; /* of the file, in bytes */
	size_t file_lines;
	size_t compact_at; /* that many lines */

	pthread_mutex_t lock;
	pthread_cond_t changed; /* a new event, or a follower's cancel fired */
	/* guarded by lock; written with append_lock held as well */
	struct line *ring; /* `keep` places */
	size_t first, count;
	uint64_t last_id;
};

static const char *const severity_names[] = {
	[EVENT_INFO] = "info",
	[EVENT_WARNING] = "warning",
	[EVENT_ERROR] = "error",
};

static void cleanup_json(json_t **json)
{
	json_decref(*json);
}

const char *event_severity_name(enum event_severity severity)
{
	return severity_names[severity];
}

int event_severity_parse(const char *text, enum event_severity *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(severity_names); i++) {
		if (strcmp(text, severity_names[i]) == 0) {
			*ret = (enum event_severity)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* Takes `text`; the oldest line makes room. */
static void push_locked(struct event_log *log, uint64_t id, char *text)
{
	size_t at = (log->first + log->count) % log->keep;

	if (log->count == log->keep) {
		free(log->ring[at].text);
		log->first = (log->first + 1) % log->keep;
	} else {
		log->count++;
	}
	log->ring[at] = (struct line){ .id = id, .text = text };
	log->last_id = id;
}

/* The id of a line that is an event, 0 for anything else. */
static uint64_t line_id(const char *text, size_t size)
{
	CLEANUP(cleanup_json)
	json_t *event = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	json_int_t id = json_integer_value(json_object_get(event, "event_id"));

	return id > 0 ? (uint64_t)id : 0;
}

/*
 * One whole line of the file, at the start. One that is not an event (a disk's
 * fault, an editor's) is passed over, as is an id that goes back: it would
 * confuse followers.
 */
static int load_line(struct event_log *log, const char *text, size_t size)
{
	uint64_t id = line_id(text, size);
	char *copy;

	log->file_lines++;
	if (id <= log->last_id)
		return 0;
	copy = strndup(text, size);
	if (!copy)
		return -ENOMEM;
	push_locked(log, id, copy);
	return 0;
}

static int load(struct event_log *log, struct hib_error *error)
{
	CLEANUP_FCLOSE FILE *file = NULL;
	CLEANUP_FREE char *text = NULL;
	size_t capacity = 0;
	bool torn = false;
	ssize_t n;
	int fd, r = 0;

	fd = fcntl(log->fd, F_DUPFD_CLOEXEC, 3);
	file = fd < 0 ? NULL : fdopen(fd, "r");
	if (!file) {
		close_fd(fd);
		return hib_fail_errno(error, errno, "cannot read " LABEL);
	}
	while (r == 0 && (n = getline(&text, &capacity, file)) > 0) {
		/* Never acknowledged: a crash came in its writing. */
		torn = text[n - 1] != '\n';
		if (torn)
			break;
		r = load_line(log, text, (size_t)n - 1);
		log->size += (uint64_t)n;
	}
	if (r == 0 && ferror(file))
		r = -EIO;
	if (r < 0)
		return hib_fail_errno(error, -r, "cannot read " LABEL);
	if (torn &&
	    (ftruncate(log->fd, (off_t)log->size) < 0 || fsync(log->fd) < 0))
		return hib_fail_errno(error, errno, "cannot truncate " LABEL);
	return 0;
}

static int open_file(struct event_log *log)
{
	int fd = openat(log->hibfs_fd, EVENT_FILE,
			O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	if (fsync(log->hibfs_fd) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	log->fd = fd;
	return 0;
}

static struct event_log *log_new(const struct event_log_config *config)
{
	struct event_log *log = calloc(1, sizeof(*log));
	pthread_condattr_t attributes;

	if (!log)
		return NULL;
	log->fd = -EBADF;
	log->keep = config->keep ? config->keep : EVENT_KEEP;
	log->compact_at = 2 * log->keep;
	pthread_mutex_init(&log->append_lock, NULL);
	pthread_mutex_init(&log->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&log->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	log->ring = calloc(log->keep, sizeof(struct line));
	log->node = strdup(config->node);
	log->otp_node = strdup(config->otp_node);
	log->hibfs_fd = fcntl(config->hibfs_fd, F_DUPFD_CLOEXEC, 3);
	if (!log->ring || !log->node || !log->otp_node || log->hibfs_fd < 0)
		return event_log_close(log);
	return log;
}

int event_log_open(const struct event_log_config *config,
		   struct event_log **ret, struct hib_error *error)
{
	struct event_log *log = log_new(config);
	int r;

	if (!log)
		return hib_fail_errno(error, ENOMEM, "event log");
	r = open_file(log);
	if (r < 0)
		hib_fail_errno(error, -r, "cannot open " LABEL);
	else
		r = load(log, error);
	if (r < 0) {
		event_log_close(log);
		return r;
	}
	*ret = log;
	return 0;
}

struct event_log *event_log_close(struct event_log *log)
{
	if (!log)
		return NULL;
	for (size_t i = 0; log->ring && i < log->keep; i++)
		free(log->ring[i].text);
	free(log->ring);
	free(log->node);
	free(log->otp_node);
	close_fd(log->fd);
	close_fd(log->hibfs_fd);
	pthread_mutex_destroy(&log->append_lock);
	pthread_mutex_destroy(&log->lock);
	pthread_cond_destroy(&log->changed);
	free(log);
	return NULL;
}

/* The line of an event; takes nothing. NULL: no memory. */
static char *make_line(const struct event_log *log, uint64_t id,
		       enum event_severity severity, const char *description,
		       json_t *extra)
{
	CLEANUP(cleanup_json) json_t *event = NULL;
	char timestamp[CLOCK_TEXT_BYTES], uuid[UUID_TEXT_BYTES];

	clock_format_ms(clock_realtime_ms(), timestamp);
	uuid_new(uuid);
	event = json_pack("{s:s,s:I,s:s,s:o,s:s,s:o,s:o,s:s,s:O}", "timestamp",
			  timestamp, "event_id", (json_int_t)id, "component",
			  "hibfs", "description", document_text(description),
			  "severity", severity_names[severity], "node",
			  document_text(log->node), "otp_node",
			  document_text(log->otp_node), "uuid", uuid,
			  "extra_attributes", extra);
	return event ? json_dumps(event, JSON_COMPACT) : NULL;
}

/*
 * The name stands for the old file or for the new one, whatever a replace
 * answered: what counts is what is there.
 */
static int reopen(struct event_log *log, uint64_t new_size)
{
	struct stat st;
	int r;

	log->fd = close_fd(log->fd);
	r = open_file(log);
	if (r == 0 && fstat(log->fd, &st) < 0) {
		r = -errno;
		log->fd = close_fd(log->fd);
	}
	if (r < 0)
		return r;
	if ((uint64_t)st.st_size == new_size)
		log->file_lines = log->count;
	log->size = (uint64_t)st.st_size;
	return 0;
}

/* Writes the kept lines anew, in place of a file that has grown too long. */
static int compact(struct event_log *log)
{
	CLEANUP(buffer_done)
	struct buffer text =
		BUFFER_INIT(log->keep * ((size_t)EVENT_LINE_BYTES + 1));
	int r = event_text(log, &text);

	if (r == 0)
		r = fault_point("event.compact.before");
	if (r < 0)
		return r;
	file_replace(log->hibfs_fd, EVENT_FILE, text.data, text.size, 0600,
		     NULL);
	r = reopen(log, text.size);
	return r < 0 ? r : fault_point("event.compact.after");
}

/* Makes the file ready for one more line. */
static int prepare_file(struct event_log *log)
{
	int r = 0;

	if (log->fd < 0)
		r = reopen(log, UINT64_MAX);
	if (r == 0 && log->file_lines >= log->compact_at) {
		/* A disk too full to compact may have room for a line. */
		compact(log);
		log->compact_at = log->file_lines < 2 * log->keep
					  ? 2 * log->keep
					  : log->file_lines + log->keep;
	}
	return log->fd < 0 ? -EIO : r;
}

/* Durable on success; on failure the file is as before. */
static int write_line(struct event_log *log, const char *line, size_t size)
{
	int r = fault_point("event.append.before");

	if (r == 0)
		r = file_write_full(log->fd, line, size, log->size);
	if (r == 0 && fdatasync(log->fd) < 0)
		r = -errno;
	if (r == 0)
		r = fault_point("event.append.after");
	if (r < 0) {
		/* If this fails too: a torn line is dropped at the start. */
		int ignored = ftruncate(log->fd, (off_t)log->size);

		(void)ignored;
		return r;
	}
	log->size += size;
	log->file_lines++;
	return 0;
}

static int append_serialised(struct event_log *log,
			     enum event_severity severity,
			     const char *description, json_t *extra,
			     uint64_t *ret_id, struct hib_error *error)
{
	uint64_t id = log->last_id + 1;
	CLEANUP_FREE char *line = NULL;
	size_t size;
	int r;

	line = make_line(log, id, severity, description, extra);
	if (!line)
		return hib_fail_errno(error, ENOMEM, "event");
	size = strlen(line);
	if (size >= EVENT_LINE_BYTES)
		return hib_fail(error, EMSGSIZE,
				"an event of %zu bytes is too long", size);
	r = prepare_file(log);
	if (r < 0)
		return hib_fail_errno(error, -r, "cannot open " LABEL);
	line[size] = '\n';
	r = write_line(log, line, size + 1);
	line[size] = 0;
	if (r < 0)
		return hib_fail_errno(error, -r, "cannot append to " LABEL);
	pthread_mutex_lock(&log->lock);
	push_locked(log, id, TAKE_PTR(line));
	pthread_cond_broadcast(&log->changed);
	pthread_mutex_unlock(&log->lock);
	if (ret_id)
		*ret_id = id;
	return 0;
}

int event_append(struct event_log *log, enum event_severity severity,
		 const char *description, json_t *extra, uint64_t *ret_id,
		 struct hib_error *error)
{
	CLEANUP(cleanup_json) json_t *attributes = extra;
	int r;

	if (!attributes)
		attributes = json_object();
	if (!attributes)
		return hib_fail_errno(error, ENOMEM, "event");
	pthread_mutex_lock(&log->append_lock);
	r = append_serialised(log, severity, description, attributes, ret_id,
			      error);
	pthread_mutex_unlock(&log->append_lock);
	return r;
}

static bool extra_is(const json_t *event, const char *key, const char *wanted)
{
	const json_t *extra = json_object_get(event, "extra_attributes");
	const char *found = json_string_value(json_object_get(extra, key));

	return !wanted || (found && strcmp(found, wanted) == 0);
}

static bool matches(const struct event_filter *filter, const json_t *event)
{
	const char *text =
		json_string_value(json_object_get(event, "severity"));
	enum event_severity severity;

	if (filter->severity != EVENT_INFO &&
	    (!text || event_severity_parse(text, &severity) < 0 ||
	     severity < filter->severity))
		return false;
	return extra_is(event, "bucket", filter->bucket) &&
	       extra_is(event, "shard", filter->shard) &&
	       extra_is(event, "task_id", filter->task_id);
}

/* How many of the oldest lines have an id of at most `id`: ids ascend. */
static size_t lines_up_to_locked(const struct event_log *log, uint64_t id)
{
	size_t low = 0, high = log->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (log->ring[(log->first + middle) % log->keep].id <= id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * The line after `id`, as a copy: readers parse without holding up appenders.
 * 1, 0 at the end, -ENOMEM.
 */
static int next_line(struct event_log *log, uint64_t *id, char **ret)
{
	size_t index;
	int r = 0;

	pthread_mutex_lock(&log->lock);
	index = lines_up_to_locked(log, *id);
	if (index < log->count) {
		const struct line *line =
			&log->ring[(log->first + index) % log->keep];
		char *copy = strdup(line->text);

		if (copy) {
			*id = line->id;
			*ret = copy;
			r = 1;
		} else {
			r = -ENOMEM;
		}
	}
	pthread_mutex_unlock(&log->lock);
	return r;
}

int event_read(struct event_log *log, const struct event_filter *filter,
	       json_t **ret, struct hib_error *error)
{
	CLEANUP(cleanup_json) json_t *events = json_array();
	uint64_t last = event_last_id(log), id = filter->since_id;
	int r = events ? 1 : -ENOMEM;

	/* No further than what was there at the call: appends never stop. */
	while (r > 0 && id < last &&
	       (!filter->limit || json_array_size(events) < filter->limit)) {
		CLEANUP_FREE char *text = NULL;
		CLEANUP(cleanup_json) json_t *event = NULL;

		r = next_line(log, &id, &text);
		if (r <= 0)
			break;
		event = json_loads(text, 0, NULL);
		if (event && matches(filter, event) &&
		    json_array_append(events, event) < 0)
			r = -ENOMEM;
	}
	if (r < 0)
		return hib_fail_errno(error, -r, "events");
	*ret = TAKE_PTR(events);
	return 0;
}

int event_text(struct event_log *log, struct buffer *out)
{
	size_t before = out->size;
	int r = 0;

	pthread_mutex_lock(&log->lock);
	for (size_t i = 0; i < log->count && r == 0; i++) {
		const struct line *line =
			&log->ring[(log->first + i) % log->keep];

		r = buffer_append_string(out, line->text);
		if (r == 0)
			r = buffer_append(out, "\n", 1);
	}
	pthread_mutex_unlock(&log->lock);
	if (r < 0 && out->data) {
		out->size = before;
		out->data[before] = 0;
	}
	return r;
}

uint64_t event_last_id(struct event_log *log)
{
	uint64_t id;

	pthread_mutex_lock(&log->lock);
	id = log->last_id;
	pthread_mutex_unlock(&log->lock);
	return id;
}

static void wake_followers(void *arg)
{
	struct event_log *log = arg;

	pthread_mutex_lock(&log->lock);
	pthread_cond_broadcast(&log->changed);
	pthread_mutex_unlock(&log->lock);
}

static int wait_locked(struct event_log *log, uint64_t deadline_ms)
{
	struct timespec deadline = {
		.tv_sec = (time_t)(deadline_ms / 1000),
		.tv_nsec = (long)(deadline_ms % 1000) * 1000000,
	};

	if (deadline_ms == UINT64_MAX)
		return -pthread_cond_wait(&log->changed, &log->lock);
	return -pthread_cond_timedwait(&log->changed, &log->lock, &deadline);
}

int event_wait(struct event_log *log, uint64_t since_id, uint64_t deadline_ms,
	       struct cancel *cancel)
{
	struct cancel_watch watch = { .wake = wake_followers, .arg = log };
	int r = 0;

	cancel_watch_add(cancel, &watch);
	pthread_mutex_lock(&log->lock);
	while (log->last_id <= since_id) {
		if (cancel_requested(cancel))
			r = -ECANCELED;
		if (r < 0)
			break;
		r = wait_locked(log, deadline_ms);
	}
	if (log->last_id > since_id)
		r = 0;
	pthread_mutex_unlock(&log->lock);
	cancel_watch_remove(cancel, &watch);
	return r;
}
