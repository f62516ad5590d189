#include "fs/flush.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs_internal.h"
#include "fs/hold.h"
#include "fs/mapping.h"
#include "fs/watch.h"

static void answer_nobody(void *arg, uint64_t unique)
{
	(void)arg;
	(void)unique;
}

static bool is_cached(struct inode *inode)
{
	bool cached;

	pthread_mutex_lock(&inode->open_lock);
	cached = inode->cached_opens > 0;
	pthread_mutex_unlock(&inode->open_lock);
	return cached;
}

/* Those that are mapped: it writes all else through. Each with a reference. */
static int find_cached(struct fs *fs, struct fs_shard *shard,
		       struct inode ***ret, size_t *ret_count)
{
	CLEANUP_FREE uint64_t *inos = NULL;
	struct inode *inode, **found;
	size_t ino_count = 0, count = 0, n = 0;
	bool known = mapping_scan(&inos, &ino_count) == 0;

	pthread_mutex_lock(&shard->gate.lock);
	for (inode = shard->gate.noted; inode; inode = inode->noted_next)
		n++;
	found = calloc(n ? n : 1, sizeof(*found));
	for (inode = shard->gate.noted; inode && found;
	     inode = inode->noted_next)
		if (is_cached(inode) &&
		    (!known || mapping_has(inos, ino_count, inode->key.ino)) &&
		    inode_try_ref(&fs->inodes, inode))
			found[count++] = inode;
	pthread_mutex_unlock(&shard->gate.lock);
	*ret = found;
	*ret_count = count;
	return found ? 0 : -ENOMEM;
}

/* Where handles cannot be opened, without root, it takes a path. */
static char *path_of(struct fs *fs, struct inode *inode)
{
	char path[PATH_MAX];

	if (fs->rights.privileged)
		return NULL;
	watch_name(fs, inode, path, sizeof(path));
	return strdup(path);
}

static int make_targets(struct fs *fs, struct fs_shard *shard,
			struct hold_target **ret, size_t *ret_count)
{
	CLEANUP_FREE struct inode **inodes = NULL;
	struct hold_target *targets;
	size_t count = 0, i;
	int r;

	r = find_cached(fs, shard, &inodes, &count);
	if (r < 0)
		return r;
	targets = calloc(count ? count : 1, sizeof(*targets));
	for (i = 0; i < count; i++) {
		if (targets) {
			targets[i].nodeid =
				inode_nodeid(&fs->inodes, inodes[i]);
			targets[i].generation = inodes[i]->generation;
			targets[i].flush = true;
			targets[i].path = path_of(fs, inodes[i]);
		}
		inode_unref(&fs->inodes, inodes[i]);
	}
	*ret = targets;
	*ret_count = count;
	return targets ? 0 : -ENOMEM;
}

/* Is any file open by way of that cache? */
static bool has_cached(struct fs_shard *shard)
{
	struct inode *inode;
	bool found = false;

	pthread_mutex_lock(&shard->gate.lock);
	for (inode = shard->gate.noted; inode && !found;
	     inode = inode->noted_next)
		found = is_cached(inode);
	pthread_mutex_unlock(&shard->gate.lock);
	return found;
}

int flush_cached(struct fs *fs, struct fs_shard *shard, uint64_t deadline_ns,
		 struct hib_error *error)
{
	CLEANUP_FREE struct hold_target *targets = NULL;
	struct hold_target target;
	struct hold_set *set = NULL;
	size_t count, index = 0, i;
	int r, drained;

	if (!has_cached(shard))
		return 0;
	r = make_targets(fs, shard, &targets, &count);
	if (r == 0 && count > 0) {
		gate_let_flush(shard, true, deadline_ns);
		r = hold_set_start(fs->gate.holds, targets, count, &set);
		if (r == 0)
			r = hold_set_wait(set, deadline_ns, NULL, NULL, &index);
		for (i = 0; r == 0 && i < count; i++) {
			target = hold_set_get(set, i);
			/* Closed, and forgotten, in the meantime. */
			if (target.result != -ESTALE)
				r = target.result;
		}
		hold_set_release(set, answer_nobody, NULL);
		drained = gate_let_flush(shard, false, deadline_ns);
		r = r < 0 ? r : drained;
	}
	if (r < 0)
		return hib_fail_errno(error, -r,
				      "write back what is mapped of %s/%s",
				      fs_shard_bucket(shard),
				      fs_shard_name(shard));
	return 0;
}
