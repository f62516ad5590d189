#include <errno.h>
#include <sys/wait.h>

#include "meta/node.h"
#include "tests/unit/scratch.h"
#include "tests/unit/test.h"

TEST(a_node_keeps_its_id_and_takes_a_new_name)
{
	struct node first, second;
	int fd = scratch_new();

	CHECK_INT(node_load(fd, NULL, &first, NULL), 0);
	CHECK(uuid_is_valid(first.id));
	CHECK(first.name[0]);
	CHECK_INT(node_load(fd, "left", &second, NULL), 0);
	CHECK_STR(second.id, first.id);
	CHECK_STR(second.name, "left");
	CHECK_INT(node_load(fd, NULL, &second, NULL), 0);
	CHECK_STR(second.id, first.id);
	CHECK_STR(second.name, "left");
	scratch_done(fd);
}

TEST(a_name_that_is_none_is_refused)
{
	static const char *const bad[] = { "", "a@b", "a/b", "\xff" };
	struct node node;
	int fd = scratch_new();

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_INT(node_load(fd, bad[i], &node, NULL), -EINVAL);
	CHECK(!scratch_has(fd, "node.json"));
	scratch_done(fd);
}

/* req: T10 */
TEST(a_broken_or_newer_node_file_is_refused_and_kept)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct node node;
	int fd = scratch_new();
	static const char newer[] =
		"{\"format\": \"hibfs-node\", \"version\": 9}";

	scratch_write(fd, "node.json", "{", 1);
	CHECK_INT(node_load(fd, NULL, &node, &error), -EBADMSG);
	CHECK(strstr(error.message, ".hibfs/node.json"));
	scratch_write(fd, "node.json", newer, strlen(newer));
	CHECK_INT(node_load(fd, NULL, &node, &error), -EPROTONOSUPPORT);
	CHECK(strstr(error.message, "version 9"));
	scratch_done(fd);
}

TEST(a_second_daemon_is_refused_naming_the_first)
{
	struct hib_error error = HIB_ERROR_INIT;
	int fd = scratch_new(), lock, second = -7;
	char pid[32];

	CHECK_INT(node_lock(fd, &lock, NULL), 0);
	CHECK_INT(node_lock(fd, &second, &error), -EBUSY);
	CHECK_INT(second, -7);
	snprintf(pid, sizeof(pid), "pid %ld:", (long)getpid());
	CHECK(strstr(error.message, pid));
	close(lock);
	CHECK_INT(node_lock(fd, &lock, NULL), 0);
	close(lock);
	scratch_done(fd);
}

TEST(the_lock_goes_to_a_forked_child_and_ends_with_it)
{
	struct hib_error error = HIB_ERROR_INIT;
	int fd = scratch_new(), lock, ready[2], done[2], second;
	char byte = 0, text[32];
	pid_t child;

	CHECK(pipe(ready) == 0 && pipe(done) == 0);
	CHECK_INT(node_lock(fd, &lock, NULL), 0);
	child = fork();
	if (child == 0) {
		node_lock_set_pid(lock, NULL);
		close(done[1]);
		if (write(ready[1], "x", 1) != 1 || read(done[0], &byte, 1) < 0)
			_exit(1);
		_exit(0);
	}
	close(lock);
	CHECK_INT(read(ready[0], &byte, 1), 1);
	CHECK_INT(node_lock(fd, &second, &error), -EBUSY);
	snprintf(text, sizeof(text), "pid %ld:", (long)child);
	CHECK(strstr(error.message, text));
	close(done[1]);
	CHECK_INT(waitpid(child, NULL, 0), child);
	CHECK_INT(node_lock(fd, &lock, NULL), 0);
	close(lock);
	close(ready[0]);
	close(ready[1]);
	close(done[0]);
	scratch_done(fd);
}

/* req: A6 */
TEST(the_directory_is_private)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct stat st;
	int fd = scratch_new(), hibfs;

	CHECK_INT(node_open_directory(fd, &hibfs, NULL), 0);
	CHECK_INT(fstat(hibfs, &st), 0);
	CHECK_INT(st.st_mode & 07777, 0700);
	close(hibfs);
	CHECK_INT(fchmodat(fd, ".hibfs", 0755, 0), 0);
	CHECK_INT(node_open_directory(fd, &hibfs, &error), -EPERM);
	CHECK(strstr(error.message, "0755"));
	CHECK_INT(unlinkat(fd, ".hibfs", AT_REMOVEDIR), 0);
	CHECK_INT(symlinkat("/tmp", fd, ".hibfs"), 0);
	CHECK_INT(node_open_directory(fd, &hibfs, &error), -ELOOP);
	scratch_done(fd);
}

TEST(the_otp_name_joins_node_and_host)
{
	struct node node = { .name = "left" };
	char text[NODE_OTP_BYTES];

	node_otp_name(&node, text);
	CHECK(strncmp(text, "left@", 5) == 0);
	CHECK(text[5]);
}

TEST_MAIN()
