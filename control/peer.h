/*
 * Who may call (A1): root, the mount's owner, and members of the control group,
 * supplementary groups included. The kernel says who it is, as of the moment of
 * connecting (SO_PEERCRED, SO_PEERGROUPS): no name service is asked.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_CONTROL_PEER_H
#define HIBFS_CONTROL_PEER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct peer_access {
	uid_t owner_uid; /* the mount's owner */
	bool has_group;
	gid_t group; /* the control group, when has_group */
};

/*
 * 0 when the process at the other end of the Unix socket `fd` may call; -EPERM
 * with a message for it otherwise. ret_uid (may be NULL) is set in both cases
 * once the kernel has said it.
 */
int peer_check(int fd, const struct peer_access *access, uid_t *ret_uid,
	       struct hib_error *error);

#endif
