/*
 * The table's lock guards who is called what and who is where. Readers of one
 * shard's name and place take no lock: these are atomic, and a name's string
 * lives as long as the table.
 */
#include "fs/shard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/fs_internal.h"
#include "fs/invalidate.h"

static uint32_t hash_text(uint32_t h, const char *text)
{
	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * 16777619U;
	return h;
}

static struct fs_shard **shard_slot(struct shard_table *table,
				    const struct fs_bucket *bucket,
				    const char *name)
{
	uint32_t h = hash_text(2166136261U ^ (uint32_t)((uintptr_t)bucket >> 4),
			       name);

	return &table->shards[h % SHARD_SLOTS];
}

static struct fs_bucket **bucket_slot(struct shard_table *table,
				      const char *name)
{
	return &table->buckets[hash_text(2166136261U, name) % BUCKET_SLOTS];
}

static const char *bucket_name(const struct fs_bucket *bucket)
{
	return atomic_load(&bucket->name)->text;
}

const char *fs_shard_bucket(const struct fs_shard *shard)
{
	return bucket_name(atomic_load(&shard->bucket));
}

const char *fs_shard_name(const struct fs_shard *shard)
{
	return atomic_load(&shard->name)->text;
}

enum fs_place fs_shard_place(const struct fs_shard *shard)
{
	return atomic_load_explicit(&shard->place, memory_order_acquire);
}

int shard_table_init(struct shard_table *table)
{
	memset(table, 0, sizeof(*table));
	return -pthread_rwlock_init(&table->lock, NULL);
}

static struct fs_shard *shard_free(struct fs_shard *shard)
{
	if (!shard)
		return NULL;
	gate_shard_done(shard);
	pthread_cond_destroy(&shard->closed);
	pthread_mutex_destroy(&shard->lock);
	free(shard);
	return NULL;
}

void shard_table_done(struct shard_table *table)
{
	struct fs_bucket *bucket, *next_bucket;
	struct fs_shard *shard, *next_shard;
	struct shard_name *name, *next_name;
	size_t i;

	for (i = 0; i < SHARD_SLOTS; i++) {
		for (shard = table->shards[i]; shard; shard = next_shard) {
			next_shard = shard->next_in_hash;
			shard_free(shard);
		}
	}
	for (i = 0; i < BUCKET_SLOTS; i++) {
		for (bucket = table->buckets[i]; bucket; bucket = next_bucket) {
			next_bucket = bucket->next_in_hash;
			free(bucket);
		}
	}
	for (name = table->names; name; name = next_name) {
		next_name = name->next;
		free(name);
	}
	pthread_rwlock_destroy(&table->lock);
}

/*
 * ---- Finding and making ----
 */

static struct fs_bucket *find_bucket_locked(struct shard_table *table,
					    const char *name)
{
	struct fs_bucket *bucket;

	for (bucket = *bucket_slot(table, name); bucket;
	     bucket = bucket->next_in_hash)
		if (strcmp(bucket_name(bucket), name) == 0)
			return bucket;
	return NULL;
}

static struct fs_shard *find_shard_locked(struct shard_table *table,
					  const char *bucket_text,
					  const char *name)
{
	struct fs_bucket *bucket = find_bucket_locked(table, bucket_text);
	struct fs_shard *shard;

	if (!bucket)
		return NULL;
	for (shard = *shard_slot(table, bucket, name); shard;
	     shard = shard->next_in_hash)
		if (atomic_load(&shard->bucket) == bucket &&
		    strcmp(fs_shard_name(shard), name) == 0)
			return shard;
	return NULL;
}

static struct shard_name *name_new_locked(struct shard_table *table,
					  const char *text)
{
	size_t bytes = strlen(text) + 1;
	struct shard_name *name = malloc(sizeof(*name) + bytes);

	if (!name)
		return NULL;
	memcpy(name->text, text, bytes);
	name->next = table->names;
	table->names = name;
	return name;
}

static struct fs_bucket *get_bucket_locked(struct shard_table *table,
					   const char *text)
{
	struct fs_bucket *bucket = find_bucket_locked(table, text), **slot;
	struct shard_name *name;

	if (bucket)
		return bucket;
	name = name_new_locked(table, text);
	bucket = calloc(1, sizeof(*bucket));
	if (!name || !bucket) {
		free(bucket);
		return NULL;
	}
	atomic_init(&bucket->name, name);
	slot = bucket_slot(table, text);
	bucket->next_in_hash = *slot;
	*slot = bucket;
	return bucket;
}

static void link_shard_locked(struct shard_table *table, struct fs_shard *shard)
{
	struct fs_bucket *bucket = atomic_load(&shard->bucket);
	struct fs_shard **slot =
		shard_slot(table, bucket, fs_shard_name(shard));

	shard->next_in_hash = *slot;
	*slot = shard;
	shard->next_in_bucket = bucket->shards;
	bucket->shards = shard;
}

static void unlink_shard_locked(struct shard_table *table,
				struct fs_shard *shard)
{
	struct fs_bucket *bucket = atomic_load(&shard->bucket);
	struct fs_shard **link =
		shard_slot(table, bucket, fs_shard_name(shard));

	while (*link != shard)
		link = &(*link)->next_in_hash;
	*link = shard->next_in_hash;
	for (link = &bucket->shards; *link != shard;)
		link = &(*link)->next_in_bucket;
	*link = shard->next_in_bucket;
}

static struct fs_shard *get_shard_locked(struct shard_table *table,
					 const char *bucket_text,
					 const char *text)
{
	struct fs_shard *shard = find_shard_locked(table, bucket_text, text);
	struct fs_bucket *bucket;
	struct shard_name *name;

	if (shard)
		return shard;
	bucket = get_bucket_locked(table, bucket_text);
	name = name_new_locked(table, text);
	shard = calloc(1, sizeof(*shard));
	if (!bucket || !name || !shard || gate_shard_init(shard) < 0) {
		free(shard);
		return NULL;
	}
	atomic_init(&shard->bucket, bucket);
	atomic_init(&shard->name, name);
	atomic_init(&shard->place, FS_PLACE_NONE);
	pthread_mutex_init(&shard->lock, NULL);
	pthread_cond_init(&shard->closed, NULL);
	link_shard_locked(table, shard);
	return shard;
}

struct fs_shard *shard_find(struct fs *fs, const char *bucket,
			    const char *shard)
{
	struct fs_shard *found;

	pthread_rwlock_rdlock(&fs->shards.lock);
	found = find_shard_locked(&fs->shards, bucket, shard);
	pthread_rwlock_unlock(&fs->shards.lock);
	return found;
}

struct fs_shard *fs_shard_get(struct fs *fs, const char *bucket,
			      const char *shard)
{
	struct fs_shard *found = shard_find(fs, bucket, shard);

	if (found)
		return found;
	pthread_rwlock_wrlock(&fs->shards.lock);
	found = get_shard_locked(&fs->shards, bucket, shard);
	pthread_rwlock_unlock(&fs->shards.lock);
	return found;
}

struct fs_bucket *shard_bucket_find(struct fs *fs, const char *bucket)
{
	struct fs_bucket *found;

	pthread_rwlock_rdlock(&fs->shards.lock);
	found = find_bucket_locked(&fs->shards, bucket);
	pthread_rwlock_unlock(&fs->shards.lock);
	return found;
}

struct fs_bucket *shard_bucket_get(struct fs *fs, const char *bucket)
{
	struct fs_bucket *found = shard_bucket_find(fs, bucket);

	if (found)
		return found;
	pthread_rwlock_wrlock(&fs->shards.lock);
	found = get_bucket_locked(&fs->shards, bucket);
	pthread_rwlock_unlock(&fs->shards.lock);
	return found;
}

void shard_each(struct fs *fs, void (*visit)(void *arg, struct fs_shard *shard),
		void *arg)
{
	struct fs_shard *shard;
	size_t i;

	pthread_rwlock_rdlock(&fs->shards.lock);
	for (i = 0; i < SHARD_SLOTS; i++)
		for (shard = fs->shards.shards[i]; shard;
		     shard = shard->next_in_hash)
			visit(arg, shard);
	pthread_rwlock_unlock(&fs->shards.lock);
}

static int add_stub_names_locked(const struct fs_bucket *bucket,
				 struct buffer *names)
{
	const struct fs_shard *shard;
	const char *name;
	int r = 0;

	for (shard = bucket->shards; shard && r == 0;
	     shard = shard->next_in_bucket) {
		if (fs_shard_place(shard) != FS_PLACE_STUB)
			continue;
		name = fs_shard_name(shard);
		r = buffer_append(names, name, strlen(name) + 1);
	}
	return r;
}

int shard_stub_names(struct fs *fs, const char *bucket_text,
		     struct buffer *names)
{
	struct fs_bucket *bucket;
	size_t i;
	int r = 0;

	pthread_rwlock_rdlock(&fs->shards.lock);
	if (bucket_text) {
		bucket = find_bucket_locked(&fs->shards, bucket_text);
		if (bucket)
			r = add_stub_names_locked(bucket, names);
	}
	for (i = 0; !bucket_text && i < BUCKET_SLOTS; i++)
		for (bucket = fs->shards.buckets[i]; bucket && r == 0;
		     bucket = bucket->next_in_hash)
			r = add_stub_names_locked(bucket, names);
	pthread_rwlock_unlock(&fs->shards.lock);
	return r;
}

bool shard_bucket_has_stubs(struct fs *fs, const char *bucket_text)
{
	struct fs_bucket *bucket;
	struct fs_shard *shard;

	pthread_rwlock_rdlock(&fs->shards.lock);
	bucket = find_bucket_locked(&fs->shards, bucket_text);
	shard = bucket ? bucket->shards : NULL;
	while (shard && fs_shard_place(shard) != FS_PLACE_STUB)
		shard = shard->next_in_bucket;
	pthread_rwlock_unlock(&fs->shards.lock);
	return shard;
}

/*
 * That the directory is another is mostly learned from control/, by
 * fs_shard_set_place(); but a look-up may come between its rename(2) and that
 * call. Nodes of the old directory are stale from then on either way.
 */
int shard_directory_is(struct fs_shard *shard, const struct inode_key *key,
		       unsigned epoch)
{
	int r = 0;

	pthread_mutex_lock(&shard->lock);
	if (atomic_load(&shard->epoch) != epoch) {
		r = -EAGAIN;
	} else if (!shard->directory_known) {
		shard->directory = *key;
		shard->directory_known = true;
	} else if (!inode_key_equal(key, &shard->directory)) {
		shard->directory = *key;
		atomic_fetch_add(&shard->epoch, 1);
		r = -EAGAIN;
	}
	pthread_mutex_unlock(&shard->lock);
	return r;
}

static void forget_directory(struct fs_shard *shard)
{
	pthread_mutex_lock(&shard->lock);
	shard->directory_known = false;
	pthread_mutex_unlock(&shard->lock);
}

/*
 * ---- What names do ----
 */

void shard_seen_live(struct fs *fs, struct fs_shard *shard)
{
	if (fs_shard_place(shard) != FS_PLACE_NONE)
		return;
	pthread_rwlock_wrlock(&fs->shards.lock);
	if (fs_shard_place(shard) == FS_PLACE_NONE)
		atomic_store(&shard->place, FS_PLACE_LIVE);
	pthread_rwlock_unlock(&fs->shards.lock);
}

void shard_removed(struct fs *fs, struct fs_shard *shard)
{
	pthread_rwlock_wrlock(&fs->shards.lock);
	if (fs_shard_place(shard) == FS_PLACE_LIVE)
		atomic_store(&shard->place, FS_PLACE_NONE);
	forget_directory(shard);
	pthread_rwlock_unlock(&fs->shards.lock);
}

void shard_swap(struct fs *fs, struct fs_shard *from, struct fs_shard *to,
		bool to_replaced)
{
	struct shard_table *table = &fs->shards;
	struct fs_bucket *bucket;
	struct shard_name *name;

	pthread_rwlock_wrlock(&table->lock);
	unlink_shard_locked(table, from);
	unlink_shard_locked(table, to);
	bucket = atomic_load(&from->bucket);
	name = atomic_load(&from->name);
	atomic_store(&from->bucket, atomic_load(&to->bucket));
	atomic_store(&from->name, atomic_load(&to->name));
	atomic_store(&to->bucket, bucket);
	atomic_store(&to->name, name);
	link_shard_locked(table, from);
	link_shard_locked(table, to);
	if (to_replaced) {
		atomic_store(&to->place, FS_PLACE_NONE);
		forget_directory(to);
	}
	pthread_rwlock_unlock(&table->lock);
}

static void rename_bucket_locked(struct shard_table *table,
				 struct fs_bucket *bucket,
				 struct shard_name *name)
{
	struct fs_bucket **link = bucket_slot(table, bucket_name(bucket));

	while (*link != bucket)
		link = &(*link)->next_in_hash;
	*link = bucket->next_in_hash;
	atomic_store(&bucket->name, name);
	link = bucket_slot(table, name->text);
	bucket->next_in_hash = *link;
	*link = bucket;
}

void shard_bucket_swap(struct fs *fs, struct fs_bucket *from,
		       struct fs_bucket *to)
{
	struct shard_name *from_name, *to_name;

	pthread_rwlock_wrlock(&fs->shards.lock);
	from_name = atomic_load(&from->name);
	to_name = atomic_load(&to->name);
	rename_bucket_locked(&fs->shards, from, to_name);
	rename_bucket_locked(&fs->shards, to, from_name);
	pthread_rwlock_unlock(&fs->shards.lock);
}

bool shard_has_record(struct fs *fs, const char *bucket, const char *shard)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path),
			 HIBFS_DIR_NAME "/shards/%s/%s/state.json", bucket,
			 shard);

	if (n < 0 || (size_t)n >= sizeof(path))
		return true;
	return faccessat(fs->source_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
	       (errno != ENOENT && errno != ENOTDIR);
}

bool shard_bucket_is_held(struct fs *fs, const char *bucket_text)
{
	struct fs_bucket *bucket;
	struct fs_shard *shard;
	bool held = false;

	pthread_rwlock_rdlock(&fs->shards.lock);
	bucket = find_bucket_locked(&fs->shards, bucket_text);
	shard = bucket ? bucket->shards : NULL;
	for (; shard && !held; shard = shard->next_in_bucket)
		held = fs_shard_place(shard) == FS_PLACE_STUB ||
		       gate_is_frozen(shard) ||
		       shard_has_record(fs, bucket_text, fs_shard_name(shard));
	pthread_rwlock_unlock(&fs->shards.lock);
	return held;
}

/*
 * ---- Writers ----
 */

bool shard_writer_add(struct fs_shard *shard, struct inode *inode)
{
	bool added = false;

	pthread_mutex_lock(&shard->lock);
	if (gate_is_frozen(shard))
		goto out;
	added = true;
	if (inode->writers++ > 0)
		goto out;
	inode->writer_previous = NULL;
	inode->writer_next = shard->writers;
	if (shard->writers)
		shard->writers->writer_previous = inode;
	shard->writers = inode;
	shard->writer_count++;
out:
	pthread_mutex_unlock(&shard->lock);
	return added;
}

void shard_writer_remove(struct fs_shard *shard, struct inode *inode)
{
	pthread_mutex_lock(&shard->lock);
	if (--inode->writers == 0) {
		if (inode->writer_previous)
			inode->writer_previous->writer_next =
				inode->writer_next;
		else
			shard->writers = inode->writer_next;
		if (inode->writer_next)
			inode->writer_next->writer_previous =
				inode->writer_previous;
		inode->writer_next = inode->writer_previous = NULL;
		shard->writer_count--;
	}
	pthread_mutex_unlock(&shard->lock);
}

int shard_writers(struct fs *fs, struct fs_shard *shard, struct inode ***ret,
		  size_t *ret_count)
{
	struct inode **all = NULL, *inode;
	size_t count = 0;

	pthread_mutex_lock(&shard->lock);
	if (shard->writer_count) {
		all = calloc(shard->writer_count, sizeof(*all));
		if (!all) {
			pthread_mutex_unlock(&shard->lock);
			return -ENOMEM;
		}
	}
	for (inode = shard->writers; inode; inode = inode->writer_next)
		all[count++] = inode_ref(&fs->inodes, inode);
	pthread_mutex_unlock(&shard->lock);
	*ret = all;
	*ret_count = count;
	return 0;
}

/*
 * ---- Open files ----
 */

static void wake_waiters(void *arg)
{
	struct fs_shard *shard = arg;

	pthread_mutex_lock(&shard->lock);
	pthread_cond_broadcast(&shard->closed);
	pthread_mutex_unlock(&shard->lock);
}

void shard_file_closed(struct fs_shard *shard)
{
	if (atomic_fetch_sub(&shard->open_files, 1) == 1)
		wake_waiters(shard);
}

int fs_shard_wait_closed(struct fs *fs, struct fs_shard *shard,
			 struct cancel *cancel)
{
	struct cancel_watch watch = { .wake = wake_waiters, .arg = shard };
	int r = 0;

	(void)fs;
	cancel_watch_add(cancel, &watch);
	pthread_mutex_lock(&shard->lock);
	while (atomic_load(&shard->open_files) && r >= 0) {
		r = cancel_requested(cancel) ? -ECANCELED : 1;
		if (r > 0)
			pthread_cond_wait(&shard->closed, &shard->lock);
	}
	pthread_mutex_unlock(&shard->lock);
	cancel_watch_remove(cancel, &watch);
	return r;
}

/*
 * ---- Place ----
 */

static int identify_place(struct fs *fs, const struct fs_shard *shard,
			  enum fs_place place, struct inode_key *ret)
{
	const char *bucket = fs_shard_bucket(shard);
	const char *name = fs_shard_name(shard);
	char path[PATH_MAX];
	struct stat attr;
	int n, r, fd;

	if (place == FS_PLACE_NONE)
		return -ENOENT;
	if (place == FS_PLACE_STUB)
		n = snprintf(path, sizeof(path),
			     HIBFS_DIR_NAME "/stubs/%s/%s/tree", bucket, name);
	else if (fs->shard_depth == 1)
		n = snprintf(path, sizeof(path), "%s", name);
	else
		n = snprintf(path, sizeof(path), "%s/%s", bucket, name);
	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENAMETOOLONG;
	r = inode_identify(&fs->inodes, fs->source_fd, path, &attr, ret, &fd);
	if (r == 0)
		close_fd(fd);
	return r;
}

/*
 * A directory that was only renamed (live to stub, and back after hydration)
 * keeps its nodes. Anything else makes those of before stale.
 */
static bool replace_directory(struct fs *fs, struct fs_shard *shard,
			      enum fs_place place)
{
	struct inode_key key;
	bool another;
	int r = identify_place(fs, shard, place, &key);

	pthread_mutex_lock(&shard->lock);
	another = shard->directory_known &&
		  (r < 0 || !inode_key_equal(&key, &shard->directory));
	shard->directory_known = r == 0;
	if (r == 0)
		shard->directory = key;
	if (another)
		atomic_fetch_add(&shard->epoch, 1);
	pthread_mutex_unlock(&shard->lock);
	return another;
}

static int invalidate_shard(struct fs *fs, struct fs_shard *shard, bool entry,
			    struct hib_error *error)
{
	CLEANUP_FREE struct inode **inodes = NULL;
	CLEANUP_FREE uint64_t *nodeids = NULL;
	uint64_t parent = FUSE_ROOT_ID;
	size_t count = 0, i;
	int r;

	if (!fs->invalidator)
		return 0;
	if (fs->shard_depth > 1)
		parent = atomic_load(&atomic_load(&shard->bucket)->nodeid);
	r = inode_collect(&fs->inodes, shard, &inodes, &count);
	if (r < 0)
		return hib_fail_errno(error, -r, "invalidate %s/%s",
				      fs_shard_bucket(shard),
				      fs_shard_name(shard));
	nodeids = reallocarray(NULL, count ? count : 1, sizeof(*nodeids));
	for (i = 0; i < count && nodeids; i++)
		nodeids[i] = inode_nodeid(&fs->inodes, inodes[i]);
	if (nodeids)
		r = invalidator_run(fs->invalidator, parent,
				    entry && parent ? fs_shard_name(shard)
						    : NULL,
				    nodeids, count, error);
	else
		r = hib_fail_errno(error, ENOMEM, "invalidate a shard");
	for (i = 0; i < count; i++)
		inode_unref(&fs->inodes, inodes[i]);
	return r;
}

int fs_shard_set_place(struct fs *fs, struct fs_shard *shard,
		       enum fs_place place, struct hib_error *error)
{
	bool another = replace_directory(fs, shard, place);
	enum fs_place old;

	pthread_rwlock_wrlock(&fs->shards.lock);
	old = fs_shard_place(shard);
	atomic_store(&shard->place, place);
	atomic_store(&shard->withheld, place == FS_PLACE_NONE);
	pthread_rwlock_unlock(&fs->shards.lock);
	if (old == place && !another)
		return 0;
	return invalidate_shard(fs, shard, another || old == FS_PLACE_NONE,
				error);
}
