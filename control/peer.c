#include "control/peer.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/cleanup.h"

#define GROUPS_LIMIT 65536 /* NGROUPS_MAX of the kernel */

static bool has_supplementary_group(int fd, gid_t group)
{
	CLEANUP_FREE gid_t *groups = NULL;
	gid_t few[32];
	gid_t *list = few;
	socklen_t size = sizeof(few);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, few, &size) < 0) {
		/* The kernel has said how much it needs. */
		if (errno != ERANGE || size > GROUPS_LIMIT * sizeof(*groups))
			return false;
		groups = malloc(size);
		if (!groups || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups,
					  &size) < 0)
			return false;
		list = groups;
	}
	for (size_t i = 0; i < size / sizeof(*list); i++)
		if (list[i] == group)
			return true;
	return false;
}

int peer_check(int fd, const struct peer_access *access, uid_t *ret_uid,
	       struct hib_error *error)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return hib_fail_errno(error, EPERM,
				      "The kernel does not say who is calling");
	if (ret_uid)
		*ret_uid = peer.uid;
	if (peer.uid == 0 || peer.uid == access->owner_uid)
		return 0;
	if (access->has_group && (peer.gid == access->group ||
				  has_supplementary_group(fd, access->group)))
		return 0;
	return hib_fail(
		error, EPERM,
		"User %u may not call hibfs: only root, the mount's owner (user %u)%s may.",
		(unsigned int)peer.uid, (unsigned int)access->owner_uid,
		access->has_group
			? " and members of the control group"
			: " and, with -o control_group=, members of that group");
}
