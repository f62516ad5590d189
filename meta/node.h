/*
 * Who this node is (SOURCE/.hibfs/node.json), and the lock that keeps a second
 * daemon off the same source. Used by control/main.c at the start.
 *
 * Thread-safety: called before threads start.
 */
#ifndef HIBFS_META_NODE_H
#define HIBFS_META_NODE_H

#include "base/error.h"
#include "base/uuid.h"

#define NODE_FORMAT "hibfs-node"
#define NODE_VERSION 1
#define NODE_NAME_BYTES 256

struct node {
	char id[UUID_TEXT_BYTES]; /* made once, stays with the source */
	char name[NODE_NAME_BYTES]; /* -o node=, or the host's */
};

/*
 * Opens SOURCE/.hibfs, making it (mode 0700) when it is missing. -EPERM when it
 * is there and belongs to another user or is open to others.
 */
int node_open_directory(int source_fd, int *ret_hibfs_fd,
			struct hib_error *error);

/*
 * Locks the source for this process and the children it forks, until the
 * descriptor is closed in all of them; a crash releases it. -EBUSY names the
 * pid of the daemon that holds it.
 */
int node_lock(int hibfs_fd, int *ret_lock_fd, struct hib_error *error);
/* Writes the pid of this process into the lock: after a fork. */
int node_lock_set_pid(int lock_fd, struct hib_error *error);

/*
 * Reads node.json, or makes it on the first start. A `name` (may be NULL) that
 * differs from the one in the file is written to it.
 */
int node_load(int hibfs_fd, const char *name, struct node *ret,
	      struct hib_error *error);

/* "<name>@<host>" of events */
#define NODE_OTP_BYTES (NODE_NAME_BYTES + 256)
void node_otp_name(const struct node *node, char ret_text[NODE_OTP_BYTES]);

#endif
