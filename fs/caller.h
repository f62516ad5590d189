/*
 * On whose behalf a thread acts on the source. The kernel has checked access
 * (default_permissions) before a request comes, so capabilities stay; what
 * remains is that a new file gets its caller's owner, group and umask, and that
 * writes clear set-id bits as they would for the caller.
 *
 * A daemon without root cannot act for others, and needs not: only its own user
 * may use its mount.
 */
#ifndef HIBFS_FS_CALLER_H
#define HIBFS_FS_CALLER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/error.h"

struct fs;
typedef struct fuse_req *fuse_req_t;

/* What the daemon may; constant after fs_new(). */
struct caller_rights {
	bool privileged; /* root: can act for other users */
	uid_t uid;
	gid_t gid;
	uint32_t effective[2], permitted[2], inheritable[2]; /* capset(2) */
};
int caller_rights_read(struct caller_rights *ret, struct hib_error *error);

/*
 * Prepares the calling thread for running handlers; once a thread. It gets a
 * umask of its own, keeps its capabilities through setfsuid(), and goes without
 *	CAP_FSETID, so that its writes and truncations, and those the kernel
 *	makes through backing ids it registers, clear set-id bits;
 *	CAP_SYS_RESOURCE, so that quotas and reserved blocks hold for callers.
 */
int worker_enter(struct fs *fs, struct hib_error *error);

/*
 * Makes the thread create for the caller of the request, until caller_done().
 * umask: as DONT_MASK is negotiated, the source applies its default ACL or else
 * the umask. A new file with set-gid keeps the bit: whether the caller may set
 * it has been decided, with groups that the daemon does not see.
 */
struct caller {
	struct fs *fs;
	bool changed_ids, raised;
};
struct caller caller_become(fuse_req_t req, mode_t mode);
void caller_done(struct caller *caller);
#define CLEANUP_CALLER CLEANUP(caller_done)

/* Around a chmod or truncation that may keep set-id bits. */
void caller_raise_fsetid(struct fs *fs);
void caller_drop_fsetid(struct fs *fs);

#endif
