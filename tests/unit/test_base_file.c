#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/scratch.h"
#include "tests/unit/test.h"

static void check_content(int fd, const char *name, const char *wanted)
{
	CLEANUP(buffer_done) struct buffer buffer = BUFFER_INIT(4096);

	CHECK_INT(file_read_all(fd, name, &buffer, NULL), 0);
	CHECK_STR(buffer_string(&buffer), wanted);
}

TEST(replace_writes_whole_files_with_their_mode)
{
	int fd = scratch_new();
	struct stat st;

	CHECK_INT(file_replace(fd, "x", "one", 3, 0640, NULL), 0);
	check_content(fd, "x", "one");
	CHECK_INT(file_replace(fd, "x", "", 0, 0600, NULL), 0);
	check_content(fd, "x", "");
	CHECK_INT(fstatat(fd, "x", &st, 0), 0);
	CHECK_INT(st.st_mode & 07777, 0600);
	CHECK(!scratch_has(fd, ".x.tmp"));
	scratch_done(fd);
}

TEST(replace_overwrites_a_temporary_left_by_a_crash)
{
	int fd = scratch_new();

	CHECK_INT(symlinkat("/etc/passwd", fd, ".x.tmp"), 0);
	CHECK_INT(file_replace(fd, "x", "one", 3, 0600, NULL), 0);
	check_content(fd, "x", "one");
	CHECK(!scratch_has(fd, ".x.tmp"));
	scratch_done(fd);
}

TEST(replace_that_fails_leaves_the_old_content)
{
	struct hib_error error = HIB_ERROR_INIT;
	int fd = scratch_new();

	CHECK_INT(mkdirat(fd, "x", 0700), 0);
	CHECK(file_replace(fd, "x", "one", 3, 0600, &error) < 0);
	CHECK(strstr(error.message, "cannot write x"));
	CHECK(!scratch_has(fd, ".x.tmp"));
	CHECK_INT(file_replace(fd, "a/b", "", 0, 0600, NULL), -EINVAL);
	CHECK_INT(file_replace(fd, "..", "", 0, 0600, NULL), -EINVAL);
	scratch_done(fd);
}

TEST(reading_stops_at_the_limit)
{
	CLEANUP(buffer_done) struct buffer exact = BUFFER_INIT(100000);
	CLEANUP(buffer_done) struct buffer small = BUFFER_INIT(99999);
	struct hib_error error = HIB_ERROR_INIT;
	char *data = calloc(1, 100000);
	int fd = scratch_new();

	CHECK_INT(file_replace(fd, "x", data, 100000, 0600, NULL), 0);
	free(data);
	CHECK_INT(file_read_all(fd, "x", &exact, NULL), 0);
	CHECK_INT(exact.size, 100000);
	CHECK_INT(file_read_all(fd, "x", &small, &error), -EMSGSIZE);
	CHECK_INT(small.size, 0);
	CHECK(strstr(error.message, "99999"));
	CHECK_INT(file_read_all(fd, "none", &small, &error), -ENOENT);
	CHECK_INT(file_read_all(fd, ".", &small, &error), -EISDIR);
	scratch_done(fd);
}

TEST(full_reads_and_writes_know_the_end)
{
	int fd = scratch_new();
	int file = openat(fd, "x", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	char data[5];

	CHECK_INT(file_write_full(file, "hello", 5, 10), 0);
	CHECK_INT(file_read_full(file, data, 5, 10), 0);
	CHECK_MEM(data, "hello", 5);
	CHECK_INT(file_read_full(file, data, 5, 11), -ENODATA);
	CHECK_INT(file_read_full(-1, data, 5, 11), -EBADF);
	close(file);
	scratch_done(fd);
}

/* req: A2 */
TEST(directories_are_made_and_opened_only_beneath)
{
	int fd = scratch_new(), deep = -1;
	static const char *const bad[] = { "",	"/",  "/tmp", "..",  "a/../b",
					   ".", "a/", "./a",  "a/.." };

	CHECK_INT(dir_make(fd, "a/b/c", 0700, &deep, NULL), 0);
	CHECK_INT(file_replace(deep, "f", "x", 1, 0600, NULL), 0);
	close(deep);
	CHECK_INT(dir_make(fd, "a/b/c", 0700, &deep, NULL), 0);
	close(deep);
	CHECK_INT(dir_open(fd, "a/b", &deep, NULL), 0);
	check_content(deep, "c/f", "x");
	close(deep);
	deep = -7;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (strcmp(bad[i], "a/") == 0)
			continue;
		if (strcmp(bad[i], ".") != 0) /* dirfd's own: may be opened */
			CHECK_INT(dir_open(fd, bad[i], &deep, NULL), -EINVAL);
		CHECK_INT(dir_make(fd, bad[i], 0700, &deep, NULL), -EINVAL);
	}
	CHECK_INT(dir_open(fd, "a/none", &deep, NULL), -ENOENT);
	CHECK_INT(dir_open(fd, "a/b/c/f", &deep, NULL), -ENOTDIR);
	CHECK_INT(dir_make(fd, "a/b/c/f/g", 0700, &deep, NULL), -ENOTDIR);
	CHECK_INT(deep, -7);
	scratch_done(fd);
}

/* req: A2 */
TEST(a_symlink_in_the_way_is_refused)
{
	struct hib_error error = HIB_ERROR_INIT;
	int fd = scratch_new(), outside = scratch_new(), deep;
	char path[256];

	scratch_path(outside, path);
	CHECK_INT(dir_make(fd, "a/b", 0700, &deep, NULL), 0);
	CHECK_INT(symlinkat("b", deep, "in"), 0);
	close(deep);
	CHECK_INT(symlinkat(path, fd, "out"), 0);
	CHECK_INT(symlinkat("a", fd, "link"), 0);
	CHECK_INT(dir_open(fd, "link/b", &deep, &error), -ELOOP);
	CHECK_INT(dir_open(fd, "link", &deep, &error), -ELOOP);
	CHECK_INT(dir_make(fd, "out", 0700, &deep, &error), -ELOOP);
	CHECK_INT(dir_make(fd, "out/x", 0700, &deep, &error), -ELOOP);
	CHECK_INT(dir_make(fd, "a/b/in/x", 0700, &deep, &error), -ELOOP);
	CHECK(!scratch_has(outside, "x"));
	scratch_done(outside);
	scratch_done(fd);
}

static int collect(void *arg, const char *name, unsigned char d_type)
{
	int *seen = arg;

	if (strcmp(name, "stop") == 0)
		return -ECANCELED;
	*seen += d_type == DT_DIR ? 100 : 1;
	return 0;
}

TEST(each_visits_all_names_and_ends_on_a_negative_answer)
{
	int fd = scratch_new(), sub, seen = 0;

	CHECK_INT(dir_make(fd, "d", 0700, &sub, NULL), 0);
	close(sub);
	CHECK_INT(file_replace(fd, "f", "", 0, 0600, NULL), 0);
	CHECK_INT(symlinkat("d", fd, "l"), 0);
	CHECK_INT(dir_each(fd, collect, &seen, NULL), 0);
	CHECK_INT(seen, 102);
	seen = 0;
	CHECK_INT(dir_each(fd, collect, &seen, NULL), 0);
	CHECK_INT(seen, 102);
	CHECK_INT(file_replace(fd, "stop", "", 0, 0600, NULL), 0);
	CHECK_INT(dir_each(fd, collect, &seen, NULL), -ECANCELED);
	scratch_done(fd);
}

TEST(removal_takes_odd_trees_and_follows_no_symlink)
{
	int fd = scratch_new(), deep;

	CHECK_INT(file_replace(fd, "keep", "k", 1, 0600, NULL), 0);
	CHECK_INT(dir_make(fd, "t/a/b", 0700, &deep, NULL), 0);
	CHECK_INT(symlinkat("../../../keep", deep, "link"), 0);
	CHECK_INT(symlinkat("../../..", deep, "up"), 0);
	CHECK_INT(mkfifoat(deep, "fifo\n\xff", 0000), 0);
	close(deep);
	CHECK_INT(fchmodat(fd, "t/a/b", 0000, 0), 0);
	CHECK_INT(fchmodat(fd, "t/a", 0000, 0), 0);
	CHECK_INT(tree_remove(fd, "t", NULL), 0);
	CHECK(!scratch_has(fd, "t"));
	check_content(fd, "keep", "k");
	CHECK_INT(tree_remove(fd, "t", NULL), 0);
	CHECK_INT(symlinkat(".", fd, "self"), 0);
	CHECK_INT(tree_remove(fd, "self", NULL), 0);
	check_content(fd, "keep", "k");
	CHECK_INT(tree_remove(fd, "keep", NULL), 0);
	CHECK_INT(tree_remove(fd, "..", NULL), -EINVAL);
	CHECK_INT(tree_remove(fd, "", NULL), -EINVAL);
	scratch_done(fd);
}

TEST(removal_of_a_very_deep_tree_needs_few_descriptors)
{
	struct rlimit old, few = { .rlim_cur = 100, .rlim_max = 100 };
	int fd = scratch_new(), at;

	at = dup(fd);
	for (int i = 0; i < 2000; i++) {
		int next;

		CHECK_INT(mkdirat(at, "d", 0700), 0);
		CHECK_INT(file_replace(at, "f", "", 0, 0400, NULL), 0);
		next = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		CHECK(next >= 0);
		close(at);
		at = next;
	}
	close(at);
	CHECK_INT(getrlimit(RLIMIT_NOFILE, &old), 0);
	few.rlim_max = old.rlim_max;
	CHECK_INT(setrlimit(RLIMIT_NOFILE, &few), 0);
	CHECK_INT(tree_remove(fd, "d", NULL), 0);
	CHECK_INT(setrlimit(RLIMIT_NOFILE, &old), 0);
	CHECK(!scratch_has(fd, "d"));
	scratch_done(fd);
}

TEST(plain_names)
{
	char name[300];

	memset(name, 'x', sizeof(name));
	name[255] = 0;
	CHECK(name_is_plain(name));
	CHECK(name_is_plain("a b\n\xff"));
	CHECK(name_is_plain("..."));
	name[255] = 'x';
	name[256] = 0;
	CHECK(!name_is_plain(name));
	CHECK(!name_is_plain(""));
	CHECK(!name_is_plain("."));
	CHECK(!name_is_plain(".."));
	CHECK(!name_is_plain("a/b"));
	CHECK(!name_is_plain("/"));
}

TEST_MAIN()
