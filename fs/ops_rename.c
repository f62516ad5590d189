/*
 * Rename. Within a shard, or outside of all, it is the source's own. Across a
 * shard's border it is EXDEV, as between file systems, because a shard is moved
 * as a whole. What remains are the directories of shards and buckets
 * themselves: their structs follow the name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/ops.h"

/* One side of a rename. */
struct side {
	struct inode *parent;
	int dirfd;
	const char *name;
	bool is_directory; /* there is one of that name in the source */
	const char *bucket; /* of a shard's directory */
	struct fs_shard *shard; /* likewise */
};

static int rename_source(struct fs *fs, const struct side *from,
			 const struct side *to, unsigned flags)
{
	bool replaces = !(flags & (RENAME_EXCHANGE | RENAME_NOREPLACE));
	struct victim victim = { 0 };
	int r = 0;

	if (replaces)
		victim = victim_hold(fs, to->parent, to->dirfd, to->name);
	if (renameat2(from->dirfd, from->name, to->dirfd, to->name, flags) < 0)
		r = -errno;
	return victim_release(&victim, r);
}

/*
 * A plain directory may change its name; one that control/ keeps a record of
 * may not, since record, stub and stored snapshots go by the name. mv(1) copies
 * then.
 */
static int check_shard(struct fs *fs, const struct side *side)
{
	const struct fs_shard *shard = side->shard;

	if (shard && fs_shard_place(shard) == FS_PLACE_STUB)
		return -EBUSY;
	if (shard && gate_is_frozen(shard))
		return -EBUSY;
	if (side->bucket && shard_has_record(fs, side->bucket, side->name))
		return -EXDEV;
	return 0;
}

static int rename_shard(struct fs *fs, struct side *from, struct side *to,
			unsigned flags)
{
	int r;

	r = check_shard(fs, from);
	if (r == 0)
		r = check_shard(fs, to);
	if (r < 0)
		return r;
	from->shard = fs_shard_get(fs, from->bucket, from->name);
	to->shard = fs_shard_get(fs, to->bucket, to->name);
	if (!from->shard || !to->shard)
		return -ENOMEM;
	r = rename_source(fs, from, to, flags);
	if (r < 0 || from->shard == to->shard)
		return r;
	shard_seen_live(fs, from->shard);
	shard_swap(fs, from->shard, to->shard, !(flags & RENAME_EXCHANGE));
	return 0;
}

static int rename_bucket(struct fs *fs, const struct side *from,
			 const struct side *to, unsigned flags)
{
	struct fs_bucket *from_bucket, *to_bucket;
	int r;

	if (shard_bucket_is_held(fs, from->name) ||
	    shard_bucket_is_held(fs, to->name))
		return -EBUSY;
	from_bucket = shard_bucket_get(fs, from->name);
	to_bucket = shard_bucket_get(fs, to->name);
	if (!from_bucket || !to_bucket)
		return -ENOMEM;
	r = rename_source(fs, from, to, flags);
	if (r == 0 && from_bucket != to_bucket)
		shard_bucket_swap(fs, from_bucket, to_bucket);
	return r;
}

static void look_at(struct fs *fs, struct side *side)
{
	struct stat attr;

	side->is_directory = fstatat(side->dirfd, side->name, &attr,
				     AT_SYMLINK_NOFOLLOW) == 0 &&
			     S_ISDIR(attr.st_mode);
	if (!ops_holds_shards(fs, side->parent))
		return;
	side->bucket = ops_bucket_name(side->parent, side->name);
	side->shard = shard_find(fs, side->bucket, side->name);
}

static bool is_stub(const struct side *side)
{
	return side->shard && fs_shard_place(side->shard) == FS_PLACE_STUB;
}

/* At least one side lies above the shards. */
static int rename_above(struct fs *fs, struct side *from, struct side *to,
			unsigned flags)
{
	bool directories;

	look_at(fs, from);
	look_at(fs, to);
	if (is_stub(from))
		return -EBUSY;
	if (is_stub(to))
		return flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY;
	directories = from->is_directory ||
		      (flags & RENAME_EXCHANGE && to->is_directory);
	if (!directories)
		return rename_source(fs, from, to, flags);
	if (from->parent->kind != to->parent->kind)
		return -EXDEV;
	/* A directory for a file: the source says what is wrong with it. */
	if (flags & RENAME_EXCHANGE && from->is_directory != to->is_directory)
		return -EXDEV;
	if (ops_holds_shards(fs, from->parent))
		return rename_shard(fs, from, to, flags);
	return rename_bucket(fs, from, to, flags);
}

static int rename_checked(struct fs *fs, struct side *from, struct side *to,
			  unsigned flags)
{
	if (ops_is_hidden(from->parent, from->name))
		return -ENOENT;
	if (ops_is_hidden(to->parent, to->name))
		return -EPERM;
	if (from->parent->key.shard != to->parent->key.shard)
		return -EXDEV;
	if (from->parent->key.shard)
		return rename_source(fs, from, to, flags);
	return rename_above(fs, from, to, flags);
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
	       fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
	CLEANUP_NODE_FD struct node_fd dir = ops_node_fd(req, parent);
	CLEANUP_NODE_FD struct node_fd new_dir = ops_node_fd(req, new_parent);
	struct side from = { dir.inode, dir.fd, name, false, NULL, NULL };
	struct side to = { new_dir.inode, new_dir.fd, new_name,
			   false,	  NULL,	      NULL };
	int r;

	if (dir.fd < 0)
		r = dir.fd;
	else if (new_dir.fd < 0)
		r = new_dir.fd;
	else
		r = rename_checked(dir.fs, &from, &to, flags);
	ops_error(req, r);
}
