/*
 * The handlers of the low-level libfuse interface, one for each kind of
 * request. Each answers its request exactly once before it returns, through
 * ops_error() or one fuse_reply_*() call.
 *
 * Used by loop.c through ops_table() only; the rest is shared by ops_*.c.
 * Handlers run on threads that have called worker_enter().
 */
#ifndef HIBFS_FS_OPS_H
#define HIBFS_FS_OPS_H

#include "fs/caller.h"
#include "fs/fs_internal.h"

struct fuse_lowlevel_ops ops_table(void);

/*
 * How long the kernel may remember names and attributes without asking: hibfs
 * owns the source while it is mounted, and says so when it changes something.
 */
#define CACHE_SECONDS 86400.0

struct fs *ops_fs(fuse_req_t req);
struct inode *ops_inode(fuse_req_t req, fuse_ino_t ino);

/* Answers 0 (success, no data) or a negative errno. */
void ops_error(fuse_req_t req, int r);

/* A node's descriptor for the length of a handler; OPS_FD puts it back. */
struct node_fd {
	struct fs *fs;
	struct inode *inode;
	int fd; /* or a negative errno */
};
struct node_fd ops_node_fd(fuse_req_t req, fuse_ino_t ino);
void node_fd_put(struct node_fd *node_fd);
#define CLEANUP_NODE_FD CLEANUP(node_fd_put)

/* What the mount says of a file where it differs from the source. */
void ops_present(const struct inode *inode, struct stat *attr);

/* Is it the name in the mount's root that is not shown? (virtual, later) */
bool ops_is_hidden(const struct inode *parent, const char *name);
/* Are the directories directly below `parent` shards? */
bool ops_holds_shards(const struct fs *fs, const struct inode *parent);
/* A bucket's name, or with shard depth 1 the shard's own. */
const char *ops_bucket_name(const struct inode *parent, const char *name);

/*
 * May `name` be made below `parent`? It may show nothing in the source and
 * still be taken: by a stub, or by a shard that is hibernated without one.
 */
int ops_check_name_is_free(struct fs *fs, struct inode *parent,
			   const char *name);

/*
 * Looks `name` up below `parent` (whose descriptor is parent_fd) and fills in
 * *ret with one look-up counted. -ENOENT and so on.
 */
int ops_lookup(struct fs *fs, struct inode *parent, int parent_fd,
	       const char *name, struct fuse_entry_param *ret);
/* The same for what has just been made or opened there as fd (borrowed). */
int ops_lookup_fd(struct fs *fs, struct inode *parent, int fd,
		  struct fuse_entry_param *ret);
/* Takes the look-up back, when the answer did not arrive. */
void ops_forget_entry(struct fs *fs, const struct fuse_entry_param *entry);

/*
 * What is about to lose its last name. Whoever has it open without the daemon
 * knowing (a fifo, a working directory) may still ask about it, and its file
 * handle may not find it then: so it keeps a descriptor as long as the kernel
 * knows it. Regular files go without: an open one lives through its backing id
 * or the daemon's descriptor, and it would cost a third of the unlinks a second.
 */
struct victim {
	struct fs *fs;
	struct inode *inode; /* NULL: nothing to be kept */
	int fd;
};
struct victim victim_hold(struct fs *fs, struct inode *parent, int parent_fd,
			  const char *name);
/* r: what came of the removal. Returns r. */
int victim_release(struct victim *victim, int r);

/* Answers with an entry or the error, and forgets it when nobody listens. */
void ops_reply_entry(fuse_req_t req, int r,
		     const struct fuse_entry_param *entry);

/* ops_name.c */
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void op_forget_multi(fuse_req_t req, size_t count,
		     struct fuse_forget_data *forgets);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	      dev_t device);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
		const char *name);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent,
	     const char *name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_readlink(fuse_req_t req, fuse_ino_t ino);
/* ops_rename.c */
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
	       fuse_ino_t new_parent, const char *new_name, unsigned flags);
/* ops_attr.c */
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		struct fuse_file_info *fi);
void op_statfs(fuse_req_t req, fuse_ino_t ino);
void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *arg,
	      struct fuse_file_info *fi, unsigned flags, const void *in,
	      size_t in_bytes, size_t out_bytes);
/* ops_xattr.c */
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
		 const char *value, size_t size, int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
/* ops_file.c */
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi);
void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode,
		struct fuse_file_info *fi);
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
	     struct fuse_file_info *fi);
void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data,
		  off_t offset, struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only,
	      struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset,
		  off_t length, struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
	      struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
			struct fuse_file_info *fi_in, fuse_ino_t ino_out,
			off_t offset_out, struct fuse_file_info *fi_out,
			size_t length, int flags);
/* ops_dir.c */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only,
		 struct fuse_file_info *fi);

#endif
