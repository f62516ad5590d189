#include <errno.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/peer.h"
#include "tests/unit/test.h"

/* What peer_check() says to a process of that user and groups. */
static int peer_result(uid_t uid, gid_t gid, gid_t supplementary,
		       const struct peer_access *access)
{
	struct hib_error error = HIB_ERROR_INIT;
	int fds[2], status;
	pid_t child = fork();

	if (child == 0) {
		if (setgroups(1, &supplementary) < 0 || setgid(gid) < 0 ||
		    setuid(uid) < 0 ||
		    socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
			_exit(100);
		_exit(-peer_check(fds[0], access, NULL, &error));
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* req: A1 */
TEST(only_root_owner_and_group_may_call)
{
	struct peer_access nobody = { .owner_uid = 1001 };
	struct peer_access group = { .owner_uid = 1001,
				     .has_group = true,
				     .group = 2002 };

	if (geteuid() != 0)
		return; /* only root may become somebody else */
	CHECK_INT(peer_result(0, 0, 0, &nobody), 0);
	CHECK_INT(peer_result(1001, 5, 5, &nobody), 0);
	CHECK_INT(peer_result(1002, 5, 5, &nobody), EPERM);
	/* Without a control group the group 0 is nothing special. */
	CHECK_INT(peer_result(1002, 0, 0, &nobody), EPERM);
	CHECK_INT(peer_result(1002, 5, 5, &group), EPERM);
	CHECK_INT(peer_result(1002, 2002, 5, &group), 0);
	CHECK_INT(peer_result(1002, 5, 2002, &group), 0);
}

TEST_MAIN()
