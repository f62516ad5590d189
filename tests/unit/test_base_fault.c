#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "tests/unit/test.h"

#ifdef HIBFS_FAULT_POINTS

static int arm(const char *faults)
{
	setenv("HIBFS_FAULTS", faults, 1);
	return fault_init(NULL);
}

TEST(nothing_happens_unless_armed)
{
	unsetenv("HIBFS_FAULTS");
	CHECK_INT(fault_init(NULL), 0);
	CHECK_INT(fault_point("a"), 0);
	CHECK_INT(arm(""), 0);
	CHECK_INT(fault_point("a"), 0);
}

TEST(a_point_fails_once_at_its_nth_passing)
{
	CHECK_INT(arm("a=fail:28@2,b=fail:5"), 0);
	CHECK_INT(fault_point("a"), 0);
	CHECK_INT(fault_point("a"), -ENOSPC);
	CHECK_INT(fault_point("a"), 0);
	CHECK_INT(fault_point("b"), -EIO);
	CHECK_INT(fault_point("c"), 0);
}

TEST(always_means_from_the_nth_passing_on)
{
	CHECK_INT(arm("a=always-fail:5@2"), 0);
	CHECK_INT(fault_point("a"), 0);
	CHECK_INT(fault_point("a"), -EIO);
	CHECK_INT(fault_point("a"), -EIO);
}

TEST(a_delay_waits_and_goes_on)
{
	uint64_t before = clock_monotonic_ms();

	CHECK_INT(arm("a=delay:30"), 0);
	CHECK_INT(fault_point("a"), 0);
	CHECK(clock_monotonic_ms() - before >= 30);
}

TEST(kill_ends_the_process)
{
	pid_t pid;
	int status;

	CHECK_INT(arm("a=kill"), 0);
	pid = fork();
	if (pid == 0) {
		fault_point("a");
		_exit(0);
	}
	CHECK_INT(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(a_form_it_does_not_know_is_refused)
{
	static const char *const bad[] = {
		"a",	   "=kill",    "a=",	   "a=nap",	"a=kill:3",
		"a=fail",  "a=fail:",  "a=fail:x", "a=fail:0",	"a=fail:-1",
		"a=kill@", "a=kill@0", "a=kill,",  "a=kill@1x", ",a=kill",
	};
	struct hib_error error = HIB_ERROR_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK_INT(arm(bad[i]), -EINVAL);
		CHECK_INT(fault_point("a"), 0);
	}
	fault_init(&error);
	CHECK(strstr(error.message, ",a=kill"));
}

#else

TEST(a_release_build_has_no_fault_points)
{
	setenv("HIBFS_FAULTS", "a=fail:5", 1);
	CHECK_INT(fault_init(NULL), 0);
	CHECK_INT(fault_point("a"), 0);
}

#endif

TEST_MAIN()
