/*
 * Extended attributes, ACLs among them. /proc/self/fd/N names the very file
 * behind the descriptor, a symlink included, so these work on every type.
 */
#include <errno.h>
#include <limits.h>
#include <linux/xattr.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/ops.h"

/*
 * Setting an access ACL clears set-gid unless the caller is in the file's group
 * or may keep it. The groups are not known here, so only root's is kept.
 */
static int set_value(fuse_req_t req, const char *path, const char *name,
		     const char *value, size_t size, int flags)
{
	bool keep = fuse_req_ctx(req)->uid == 0 &&
		    strcmp(name, "system.posix_acl_access") == 0;
	int r;

	if (keep)
		caller_raise_fsetid(ops_fs(req));
	r = setxattr(path, name, value, size, flags) < 0 ? -errno : 0;
	if (keep)
		caller_drop_fsetid(ops_fs(req));
	return r;
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
		 const char *value, size_t size, int flags)
{
	CLEANUP_NODE_FD struct node_fd node = ops_node_fd(req, ino);
	char path[PROC_PATH_BYTES];
	int r = node.fd;

	if (r >= 0) {
		proc_path(node.fd, path);
		r = set_value(req, path, name, value, size, flags);
	}
	ops_error(req, r);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	CLEANUP_NODE_FD struct node_fd node = ops_node_fd(req, ino);
	char path[PROC_PATH_BYTES];
	int r = node.fd;

	if (r >= 0) {
		proc_path(node.fd, path);
		r = removexattr(path, name) < 0 ? -errno : 0;
	}
	ops_error(req, r);
}

/* Size 0 asks how much room is needed. */
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	CLEANUP_NODE_FD struct node_fd node = ops_node_fd(req, ino);
	char path[PROC_PATH_BYTES];
	CLEANUP_FREE char *value = NULL;
	ssize_t n;

	if (node.fd < 0) {
		ops_error(req, node.fd);
		return;
	}
	if (size) {
		value = malloc(size);
		if (!value) {
			ops_error(req, -ENOMEM);
			return;
		}
	}
	proc_path(node.fd, path);
	n = getxattr(path, name, value, size);
	if (n < 0)
		ops_error(req, -errno);
	else if (size == 0)
		fuse_reply_xattr(req, n);
	else
		fuse_reply_buf(req, value, n);
}

/*
 * The source shows trusted names to the privileged alone, which the daemon is
 * and its caller need not be. Returns the size of what stays.
 */
static size_t hide_trusted(char *names, size_t size)
{
	size_t at = 0, kept = 0, bytes;

	for (; at < size; at += bytes) {
		bytes = strlen(names + at) + 1;
		if (strncmp(names + at, XATTR_TRUSTED_PREFIX,
			    strlen(XATTR_TRUSTED_PREFIX)) == 0)
			continue;
		memmove(names + kept, names + at, bytes);
		kept += bytes;
	}
	return kept;
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	CLEANUP_NODE_FD struct node_fd node = ops_node_fd(req, ino);
	CLEANUP_FREE char *names = malloc(XATTR_LIST_MAX);
	char path[PROC_PATH_BYTES];
	ssize_t n;

	if (node.fd < 0 || !names) {
		ops_error(req, node.fd < 0 ? node.fd : -ENOMEM);
		return;
	}
	proc_path(node.fd, path);
	n = listxattr(path, names, XATTR_LIST_MAX);
	if (n < 0) {
		ops_error(req, -errno);
		return;
	}
	if (fuse_req_ctx(req)->uid != 0)
		n = (ssize_t)hide_trusted(names, n);
	if (size == 0)
		fuse_reply_xattr(req, n);
	else if ((size_t)n > size)
		ops_error(req, -ERANGE);
	else
		fuse_reply_buf(req, names, n);
}
