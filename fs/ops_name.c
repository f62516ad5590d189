/* Requests about names: look up, make, link, remove. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/ops.h"

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	CLEANUP_NODE_FD struct node_fd dir = ops_node_fd(req, parent);
	struct fs *fs = dir.fs;
	struct fuse_entry_param entry;
	int r;

	if (dir.fd < 0) {
		ops_error(req, dir.fd);
		return;
	}
	r = ops_lookup(fs, dir.inode, dir.fd, name, &entry);
	/*
	 * That there is no such name may be remembered too, but not where
	 * control/ makes shards appear by renaming directories.
	 */
	if (r == -ENOENT && dir.inode->kind != INODE_ROOT &&
	    !ops_holds_shards(fs, dir.inode)) {
		memset(&entry, 0, sizeof(entry));
		entry.entry_timeout = CACHE_SECONDS;
		fuse_reply_entry(req, &entry);
		return;
	}
	ops_reply_entry(req, r, &entry);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	if (ino != FUSE_ROOT_ID)
		inode_forget(&ops_fs(req)->inodes, ops_inode(req, ino), count);
	fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count,
		     struct fuse_forget_data *forgets)
{
	struct fs *fs = ops_fs(req);
	size_t i;

	for (i = 0; i < count; i++)
		if (forgets[i].ino != FUSE_ROOT_ID)
			inode_forget(&fs->inodes, fs_inode(fs, forgets[i].ino),
				     forgets[i].nlookup);
	fuse_reply_none(req);
}

/* A directory made there would shadow the shard, and be lost when it wakes. */
int ops_check_name_is_free(struct fs *fs, struct inode *parent,
			   const char *name)
{
	const char *bucket;
	struct fs_shard *shard;

	if (ops_is_hidden(parent, name))
		return -EPERM;
	if (!ops_holds_shards(fs, parent))
		return 0;
	bucket = ops_bucket_name(parent, name);
	shard = shard_find(fs, bucket, name);
	if (!shard)
		return 0;
	if (fs_shard_place(shard) == FS_PLACE_STUB)
		return -EEXIST;
	if (atomic_load(&shard->withheld) && shard_has_record(fs, bucket, name))
		return -EBUSY;
	return 0;
}

/* What is to be made, of whichever kind. */
struct new_node {
	mode_t mode; /* with the type */
	dev_t device;
	const char *target; /* of a symlink */
};

static int make(fuse_req_t req, int dirfd, const char *name,
		const struct new_node *node)
{
	CLEANUP_CALLER struct caller caller =
		caller_become(req, S_ISDIR(node->mode) ? 0 : node->mode);
	int r;

	if (S_ISLNK(node->mode))
		r = symlinkat(node->target, dirfd, name);
	else if (S_ISDIR(node->mode))
		r = mkdirat(dirfd, name, node->mode & 07777);
	else
		r = mknodat(dirfd, name, node->mode, node->device);
	return r < 0 ? -errno : 0;
}

static void make_node(fuse_req_t req, fuse_ino_t parent, const char *name,
		      const struct new_node *node)
{
	CLEANUP_NODE_FD struct node_fd dir = ops_node_fd(req, parent);
	struct fuse_entry_param entry;
	int r = dir.fd;

	if (r >= 0)
		r = ops_check_name_is_free(dir.fs, dir.inode, name);
	if (r >= 0)
		r = make(req, dir.fd, name, node);
	if (r >= 0)
		r = ops_lookup(dir.fs, dir.inode, dir.fd, name, &entry);
	ops_reply_entry(req, r, &entry);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	      dev_t device)
{
	make_node(req, parent, name,
		  &(struct new_node){ .mode = mode, .device = device });
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make_node(req, parent, name,
		  &(struct new_node){ .mode = S_IFDIR | (mode & 07777) });
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
		const char *name)
{
	make_node(req, parent, name,
		  &(struct new_node){ .mode = S_IFLNK, .target = target });
}

static int link_node(struct node_fd *node, struct node_fd *dir,
		     const char *name)
{
	char path[PROC_PATH_BYTES];
	int r;

	if (node->fd < 0)
		return node->fd;
	if (dir->fd < 0)
		return dir->fd;
	/*
	 * A shard is moved as a whole, so a file cannot be in two: shards are
	 * to each other like separate file systems.
	 */
	if (node->inode->key.shard != dir->inode->key.shard)
		return -EXDEV;
	r = ops_check_name_is_free(dir->fs, dir->inode, name);
	if (r < 0)
		return r;
	proc_path(node->fd, path);
	r = linkat(AT_FDCWD, path, dir->fd, name, AT_SYMLINK_FOLLOW);
	return r < 0 ? -errno : 0;
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent,
	     const char *name)
{
	CLEANUP_NODE_FD struct node_fd node = ops_node_fd(req, ino);
	CLEANUP_NODE_FD struct node_fd dir = ops_node_fd(req, parent);
	struct fuse_entry_param entry;
	int r;

	r = link_node(&node, &dir, name);
	if (r >= 0)
		r = ops_lookup(dir.fs, dir.inode, dir.fd, name, &entry);
	ops_reply_entry(req, r, &entry);
}

static int remove_name(struct node_fd *dir, const char *name, int flags)
{
	struct victim victim = victim_hold(dir->fs, dir->inode, dir->fd, name);
	int r = unlinkat(dir->fd, name, flags) < 0 ? -errno : 0;

	return victim_release(&victim, r);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	CLEANUP_NODE_FD struct node_fd dir = ops_node_fd(req, parent);
	int r = dir.fd;

	if (r >= 0 && ops_is_hidden(dir.inode, name))
		r = -ENOENT;
	if (r >= 0)
		r = remove_name(&dir, name, 0);
	ops_error(req, r);
}

/* Only a live shard that nobody works on can be removed by name. */
static int check_shard_removable(struct fs *fs, const char *bucket,
				 const char *name)
{
	struct fs_shard *shard = shard_find(fs, bucket, name);

	if (!shard)
		return 0;
	if (fs_shard_place(shard) == FS_PLACE_STUB || gate_is_frozen(shard))
		return -EBUSY;
	return 0;
}

static int remove_directory(struct node_fd *dir, const char *name)
{
	struct fs *fs = dir->fs;
	bool is_shard = ops_holds_shards(fs, dir->inode);
	const char *bucket = NULL;
	struct fs_shard *shard;
	int r;

	if (dir->fd < 0)
		return dir->fd;
	if (ops_is_hidden(dir->inode, name))
		return -ENOENT;
	if (is_shard) {
		bucket = ops_bucket_name(dir->inode, name);
		r = check_shard_removable(fs, bucket, name);
		if (r < 0)
			return r;
	} else if (dir->inode->kind == INODE_ROOT &&
		   shard_bucket_has_stubs(fs, name)) {
		return -ENOTEMPTY;
	}
	r = remove_name(dir, name, AT_REMOVEDIR);
	if (r < 0)
		return r;
	shard = is_shard ? shard_find(fs, bucket, name) : NULL;
	if (shard)
		shard_removed(fs, shard);
	return 0;
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	CLEANUP_NODE_FD struct node_fd dir = ops_node_fd(req, parent);

	ops_error(req, remove_directory(&dir, name));
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	CLEANUP_NODE_FD struct node_fd node = ops_node_fd(req, ino);
	char target[PATH_MAX + 1];
	ssize_t n;

	if (node.fd < 0) {
		ops_error(req, node.fd);
		return;
	}
	n = readlinkat(node.fd, "", target, sizeof(target));
	if (n < 0) {
		ops_error(req, -errno);
	} else if ((size_t)n == sizeof(target)) {
		ops_error(req, -ENAMETOOLONG);
	} else {
		target[n] = '\0';
		fuse_reply_readlink(req, target);
	}
}
