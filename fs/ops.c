#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct fs *ops_fs(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

struct inode *ops_inode(fuse_req_t req, fuse_ino_t ino)
{
	return fs_inode(ops_fs(req), ino);
}

void ops_error(fuse_req_t req, int r)
{
	fuse_reply_err(req, r < 0 ? -r : 0);
}

struct node_fd ops_node_fd(fuse_req_t req, fuse_ino_t ino)
{
	struct node_fd node_fd = {
		.fs = ops_fs(req),
		.inode = ops_inode(req, ino),
	};

	node_fd.fd = inode_fd_get(&node_fd.fs->inodes, node_fd.inode);
	return node_fd;
}

void node_fd_put(struct node_fd *node_fd)
{
	if (node_fd->fd >= 0)
		inode_fd_put(&node_fd->fs->inodes, node_fd->inode);
}

bool ops_is_hidden(const struct inode *parent, const char *name)
{
	return parent->kind == INODE_ROOT && strcmp(name, HIBFS_DIR_NAME) == 0;
}

bool ops_holds_shards(const struct fs *fs, const struct inode *parent)
{
	return parent->kind ==
	       (fs->shard_depth == 1 ? INODE_ROOT : INODE_BUCKET);
}

const char *ops_bucket_name(const struct inode *parent, const char *name)
{
	if (parent->kind == INODE_ROOT)
		return name;
	return atomic_load(&parent->bucket->name)->text;
}

/*
 * A stub's file has its true size and no blocks of its own. One block (of 512
 * bytes) is claimed: tar and cp take a file without any for one hole, and
 * would write zeros; du shows next to nothing.
 */
void ops_present(const struct inode *inode, struct stat *attr)
{
	const struct fs_shard *shard = inode->key.shard;

	if (shard && S_ISREG(attr->st_mode) && attr->st_size > 0 &&
	    fs_shard_place(shard) == FS_PLACE_STUB)
		attr->st_blocks = 1;
}

static void fill_entry(struct fs *fs, struct inode *inode,
		       const struct stat *attr, struct fuse_entry_param *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->ino = inode_nodeid(&fs->inodes, inode);
	ret->generation = inode->generation;
	ret->attr = *attr;
	ret->attr_timeout = CACHE_SECONDS;
	ret->entry_timeout = CACHE_SECONDS;
	ops_present(inode, &ret->attr);
}

/* The node of a file that is no shard and no bucket itself. */
static int intern_plain(struct fs *fs, struct inode *parent,
			const struct inode_key *identity,
			struct inode_seed *seed, struct inode **ret)
{
	struct inode_key key = *identity;

	key.shard = parent->key.shard;
	seed->kind = key.shard ? INODE_IN_SHARD : INODE_LOOSE;
	seed->shard_epoch = parent->shard_epoch;
	return inode_intern(&fs->inodes, &key, seed, ret);
}

static int intern_bucket(struct fs *fs, const char *name,
			 const struct inode_key *key, struct inode_seed *seed,
			 struct inode **ret)
{
	struct inode *inode;
	int r;

	seed->kind = INODE_BUCKET;
	seed->bucket = shard_bucket_get(fs, name);
	if (!seed->bucket) {
		close_fd(seed->fd);
		return -ENOMEM;
	}
	r = inode_intern(&fs->inodes, key, seed, &inode);
	if (r < 0)
		return r;
	atomic_store(&seed->bucket->nodeid, inode_nodeid(&fs->inodes, inode));
	*ret = inode;
	return 0;
}

static int finish_lookup(struct fs *fs, struct inode *parent, const char *name,
			 const struct stat *attr, const struct inode_key *key,
			 struct inode_seed *seed, struct fuse_entry_param *ret)
{
	struct inode *inode;
	int r;

	seed->type = attr->st_mode & S_IFMT;
	if (S_ISDIR(attr->st_mode) && parent->kind == INODE_ROOT &&
	    fs->shard_depth > 1)
		r = intern_bucket(fs, name, key, seed, &inode);
	else
		r = intern_plain(fs, parent, key, seed, &inode);
	if (r < 0)
		return r;
	fill_entry(fs, inode, attr, ret);
	return 0;
}

/*
 * A shard's directory: the live one if there is one, for that is complete
 * always; else the stub's. Between the look at one and the other control/ may
 * rename it, so the live name is tried once more. seed->dirfd and seed->name
 * tell where it was found; `path` is room for the latter.
 */
static int identify_shard(struct fs *fs, const struct fs_shard *known,
			  const char *bucket_name, struct inode_seed *seed,
			  char path[PATH_MAX], struct stat *ret_attr,
			  struct inode_key *ret_key)
{
	const struct inode_seed live = *seed;
	int r, n;

	r = inode_identify(&fs->inodes, seed->dirfd, seed->name, ret_attr,
			   ret_key, &seed->fd);
	if (r != -ENOENT || !known || fs_shard_place(known) == FS_PLACE_NONE)
		return r;
	n = snprintf(path, PATH_MAX, HIBFS_DIR_NAME "/stubs/%s/%s/tree",
		     bucket_name, live.name);
	if (n < 0 || n >= PATH_MAX)
		return -ENAMETOOLONG;
	seed->dirfd = fs->source_fd;
	seed->name = path;
	r = inode_identify(&fs->inodes, seed->dirfd, seed->name, ret_attr,
			   ret_key, &seed->fd);
	if (r != -ENOENT)
		return r;
	*seed = live;
	return inode_identify(&fs->inodes, seed->dirfd, seed->name, ret_attr,
			      ret_key, &seed->fd);
}

static int lookup_shard_once(struct fs *fs, struct inode *parent, int parent_fd,
			     const char *name, struct fuse_entry_param *ret)
{
	const char *bucket_name = ops_bucket_name(parent, name);
	struct fs_shard *shard = shard_find(fs, bucket_name, name);
	struct inode_seed seed = {
		.kind = INODE_SHARD_ROOT,
		.dirfd = parent_fd,
		.name = name,
		.fd = -1,
	};
	char path[PATH_MAX];
	struct inode_key key;
	struct inode *inode;
	struct stat attr;
	int r;

	/* Before the look: if it is replaced meanwhile the node is stale. */
	seed.shard_epoch = shard ? atomic_load(&shard->epoch) : 0;
	r = identify_shard(fs, shard, bucket_name, &seed, path, &attr, &key);
	if (r < 0)
		return r;
	if (!S_ISDIR(attr.st_mode))
		return finish_lookup(fs, parent, name, &attr, &key, &seed, ret);
	if (!shard) {
		shard = fs_shard_get(fs, bucket_name, name);
		if (!shard) {
			close_fd(seed.fd);
			return -ENOMEM;
		}
		seed.shard_epoch = atomic_load(&shard->epoch);
	}
	shard_seen_live(fs, shard);
	r = shard_directory_is(shard, &key, seed.shard_epoch);
	if (r < 0) {
		close_fd(seed.fd);
		return r;
	}
	key.shard = shard;
	seed.type = S_IFDIR;
	r = inode_intern(&fs->inodes, &key, &seed, &inode);
	if (r < 0)
		return r;
	fill_entry(fs, inode, &attr, ret);
	/* Renamed meanwhile: the node would belong to the wrong shard. */
	if (shard_find(fs, bucket_name, name) != shard) {
		ops_forget_entry(fs, ret);
		return -EAGAIN;
	}
	return 0;
}

static int lookup_shard(struct fs *fs, struct inode *parent, int parent_fd,
			const char *name, struct fuse_entry_param *ret)
{
	int r;

	do {
		r = lookup_shard_once(fs, parent, parent_fd, name, ret);
	} while (r == -EAGAIN);
	return r;
}

int ops_lookup(struct fs *fs, struct inode *parent, int parent_fd,
	       const char *name, struct fuse_entry_param *ret)
{
	struct inode_seed seed = {
		.dirfd = parent_fd,
		.name = name,
		.fd = -1,
	};
	struct inode_key key;
	struct stat attr;
	int r;

	if (ops_is_hidden(parent, name))
		return -ENOENT;
	if (ops_holds_shards(fs, parent))
		return lookup_shard(fs, parent, parent_fd, name, ret);
	r = inode_identify(&fs->inodes, parent_fd, name, &attr, &key, &seed.fd);
	if (r < 0)
		return r;
	return finish_lookup(fs, parent, name, &attr, &key, &seed, ret);
}

int ops_lookup_fd(struct fs *fs, struct inode *parent, int fd,
		  struct fuse_entry_param *ret)
{
	struct inode_seed seed = { .dirfd = fd, .name = "", .fd = -1 };
	struct inode_key key;
	struct stat attr;
	int r;

	r = inode_identify(&fs->inodes, fd, "", &attr, &key, &seed.fd);
	if (r < 0)
		return r;
	return finish_lookup(fs, parent, "", &attr, &key, &seed, ret);
}

void ops_forget_entry(struct fs *fs, const struct fuse_entry_param *entry)
{
	inode_forget(&fs->inodes, fs_inode(fs, entry->ino), 1);
}

struct victim victim_hold(struct fs *fs, struct inode *parent, int parent_fd,
			  const char *name)
{
	struct victim victim = { .fs = fs, .fd = -1 };
	struct fuse_entry_param entry;
	struct stat attr;
	struct inode *inode;

	if (fstatat(parent_fd, name, &attr, AT_SYMLINK_NOFOLLOW) < 0 ||
	    S_ISREG(attr.st_mode))
		return victim;
	if (attr.st_nlink > 1 && !S_ISDIR(attr.st_mode))
		return victim;
	if (ops_lookup(fs, parent, parent_fd, name, &entry) < 0)
		return victim;
	inode = fs_inode(fs, entry.ino);
	victim.fd = inode_fd_get(&fs->inodes, inode);
	if (victim.fd >= 0)
		victim.inode = inode;
	ops_forget_entry(fs, &entry);
	return victim;
}

int victim_release(struct victim *victim, int r)
{
	if (!victim->inode)
		return r;
	if (r == 0)
		inode_pin(&victim->fs->inodes, victim->inode);
	inode_fd_put(&victim->fs->inodes, victim->inode);
	return r;
}

void ops_reply_entry(fuse_req_t req, int r,
		     const struct fuse_entry_param *entry)
{
	struct fs *fs = ops_fs(req);

	if (r < 0)
		ops_error(req, r);
	else if (fuse_reply_entry(req, entry) < 0)
		ops_forget_entry(fs, entry);
}
