/*
 * The socket file of the control socket. Used by rpc.c.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_CONTROL_RPC_LISTEN_H
#define HIBFS_CONTROL_RPC_LISTEN_H

#include <sys/stat.h>

#include "base/error.h"
#include "control/peer.h"

/*
 * Listens at `path`, non-blocking: 0660 to owner and group, 0600 without a
 * group. The socket of a dead server is replaced; a live one is -EADDRINUSE,
 * and so is what is no socket. A missing last directory is made, 0755.
 * ret_identity tells the file from one that another server put there later.
 */
int rpc_listen(const char *path, const struct peer_access *access, int *ret_fd,
	       struct stat *ret_identity, struct hib_error *error);

/* Removes the socket file if it still is the one of `identity`. */
void rpc_unlisten(const char *path, const struct stat *identity);

#endif
