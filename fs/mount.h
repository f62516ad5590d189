/*
 * Mounting and unmounting, and what libfuse and the kernel are asked for.
 * Used by fs.c and, for op_init, by the table of handlers.
 */
#ifndef HIBFS_FS_MOUNT_H
#define HIBFS_FS_MOUNT_H

#include "fs/fs_internal.h"

/* Makes fs->session and mounts it. */
int mount_start(struct fs *fs, struct hib_error *error);
/* Unmounts; the session stays, for threads that still hold it. */
void mount_stop(struct fs *fs);

/* The kernel's INIT: decides on passthrough and the rest. */
void op_init(void *userdata, struct fuse_conn_info *conn);

#endif
