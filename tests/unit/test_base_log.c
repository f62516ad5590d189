#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/unit/test.h"

/* What `run` writes to standard error. */
static void capture(void (*run)(const struct log *), const struct log *log,
		    char *ret_text, size_t size)
{
	int saved = dup(STDERR_FILENO);
	int pipes[2];
	ssize_t n;

	CHECK(pipe2(pipes, O_CLOEXEC) == 0);
	dup2(pipes[1], STDERR_FILENO);
	run(log);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(pipes[1]);
	n = read(pipes[0], ret_text, size - 1);
	close(pipes[0]);
	ret_text[n > 0 ? n : 0] = 0;
}

static void write_levels(const struct log *log)
{
	log_error(log, "one %d", 1);
	log_warning(log, "two");
	log_info(log, "three");
	log_debug(log, "four");
}

TEST(lines_above_the_level_are_dropped)
{
	struct log log = { .level = LOG_LEVEL_WARNING };
	char text[1000];

	unsetenv("JOURNAL_STREAM");
	capture(write_levels, &log, text, sizeof(text));
	CHECK(strstr(text, "Z hibfs error: one 1\n"));
	CHECK(strstr(text, "Z hibfs warning: two\n"));
	CHECK(!strstr(text, "three"));
	CHECK(!strstr(text, "four"));
}

static void write_odd(const struct log *log)
{
	log_error(log, "file \"a\nfake\x1b[0m\"");
}

TEST(a_name_with_a_newline_cannot_fake_a_line)
{
	struct log log = { .level = LOG_LEVEL_ERROR };
	char text[1000];

	capture(write_odd, &log, text, sizeof(text));
	CHECK(strstr(text, "a\\x0afake\\x1b[0m"));
	CHECK_INT(strchr(text, '\n') - text, strlen(text) - 1);
}

static void write_long(const struct log *log)
{
	char long_text[10000];

	memset(long_text, '\n', sizeof(long_text));
	long_text[sizeof(long_text) - 1] = 0;
	log_error(log, "%s", long_text);
}

TEST(a_long_line_is_cut)
{
	struct log log = { .level = LOG_LEVEL_ERROR };
	char text[30000];

	capture(write_long, &log, text, sizeof(text));
	CHECK(strlen(text) < 9000);
	CHECK_INT(text[strlen(text) - 1], '\n');
}

static void write_journal(const struct log *log)
{
	char stream[64];
	struct stat st;

	fstat(STDERR_FILENO, &st);
	snprintf(stream, sizeof(stream), "%llu:%llu",
		 (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_error(log, "boom");
	unsetenv("JOURNAL_STREAM");
}

TEST(the_journal_gets_priorities_and_no_times)
{
	struct log log = { .level = LOG_LEVEL_ERROR };
	char text[1000];

	capture(write_journal, &log, text, sizeof(text));
	CHECK_STR(text, "<3>boom\n");
}

TEST_MAIN()
