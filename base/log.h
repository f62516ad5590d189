/*
 * The daemon's own words to its operator: one line each, to standard error
 * (with a time when it is not the journal's) or to syslog after it has gone to
 * the background. fs/ and control/ only; credentials are never passed in.
 *
 * Thread-safety: log_write() from any thread; a line is never mixed with
 * another.
 */
#ifndef HIBFS_BASE_LOG_H
#define HIBFS_BASE_LOG_H

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG
};

struct log {
	enum log_level level; /* lines above it are dropped; set before threads
				 start */
	int to_syslog; /* set before threads start */
};

void log_write(const struct log *log, enum log_level level, const char *format,
	       ...) __attribute__((format(printf, 3, 4)));

#define log_error(log, ...) log_write((log), LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(log, ...) log_write((log), LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(log, ...) log_write((log), LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(log, ...) log_write((log), LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
