#include "base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "base/clock.h"

#define TEXT_BYTES 2048
/* Every byte of the text may become "\xNN", and there is a prefix. */
#define LINE_BYTES (4 * TEXT_BYTES + 128)

static const struct {
	const char *name;
	int priority; /* syslog(3)'s */
} levels[] = {
	[LOG_LEVEL_ERROR] = { "error", LOG_ERR },
	[LOG_LEVEL_WARNING] = { "warning", LOG_WARNING },
	[LOG_LEVEL_INFO] = { "info", LOG_INFO },
	[LOG_LEVEL_DEBUG] = { "debug", LOG_DEBUG },
};

/* Standard error leads to the journal: systemd.exec(5), $JOURNAL_STREAM. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev &&
	       st.st_ino == ino;
}

/* File names may hold anything; a line stays a line. Returns the length. */
static size_t append_escaped(char *line, size_t used, const char *text)
{
	static const char hex[] = "0123456789abcdef";

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c >= 0x20 && c != 0x7f) {
			line[used++] = (char)c;
			continue;
		}
		line[used++] = '\\';
		line[used++] = 'x';
		line[used++] = hex[c >> 4];
		line[used++] = hex[c & 15];
	}
	return used;
}

static void write_stderr(const char *line, size_t size)
{
	/* One write a line keeps lines whole; a lost line is not fatal. */
	ssize_t n = write(STDERR_FILENO, line, size);

	(void)n;
}

void log_write(const struct log *log, enum log_level level, const char *format,
	       ...)
{
	char text[TEXT_BYTES];
	char line[LINE_BYTES];
	char time[CLOCK_TEXT_BYTES];
	va_list args;
	size_t used;
	int n;

	if (level > log->level)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (log->to_syslog) {
		used = append_escaped(line, 0, text);
		line[used] = 0;
		syslog(LOG_DAEMON | levels[level].priority, "%s", line);
		return;
	}
	clock_format_ms(clock_realtime_ms(), time);
	if (stderr_is_journal())
		n = snprintf(line, sizeof(line), "<%d>",
			     levels[level].priority);
	else
		n = snprintf(line, sizeof(line), "%s hibfs %s: ", time,
			     levels[level].name);
	used = append_escaped(line, n > 0 ? (size_t)n : 0, text);
	line[used++] = '\n';
	write_stderr(line, used);
}
