#include "fs/inode.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/shard.h"

#define ROOT_NODEID 1 /* FUSE_ROOT_ID */
#define FIRST_SLOTS 64
#define CACHED_FDS 4096
/* Descriptors that are left to open files, the store and the control socket. */
#define CACHED_FDS_SHARE 4 /* one in so many */

static uint64_t key_hash(const struct inode_key *key)
{
	uint64_t h = key->ino * 0x9e3779b97f4a7c15ULL;

	h ^= (uintptr_t)key->shard >> 4;
	h *= 0xbf58476d1ce4e5b9ULL;
	return h ^ (h >> 29);
}

static struct inode_stripe *key_stripe(struct inode_table *table,
				       const struct inode_key *key)
{
	return &table->stripes[(key_hash(key) >> 40) % INODE_STRIPES];
}

bool inode_is_stale(const struct inode *inode)
{
	const struct fs_shard *shard = inode->key.shard;

	return shard &&
	       atomic_load_explicit(&shard->epoch, memory_order_acquire) !=
		       inode->shard_epoch;
}

/*
 * ---- Descriptor cache; all under the stripe's lock ----
 */

static void lru_remove(struct inode_stripe *stripe, struct inode *inode)
{
	if (inode->lru_previous)
		inode->lru_previous->lru_next = inode->lru_next;
	else
		stripe->lru_first = inode->lru_next;
	if (inode->lru_next)
		inode->lru_next->lru_previous = inode->lru_previous;
	else
		stripe->lru_last = inode->lru_previous;
	inode->lru_next = inode->lru_previous = NULL;
	stripe->cached_fds--;
}

static void lru_add(struct inode_stripe *stripe, struct inode *inode)
{
	inode->lru_previous = NULL;
	inode->lru_next = stripe->lru_first;
	if (stripe->lru_first)
		stripe->lru_first->lru_previous = inode;
	else
		stripe->lru_last = inode;
	stripe->lru_first = inode;
	stripe->cached_fds++;
}

static bool in_lru(const struct inode *inode)
{
	return inode->fd >= 0 && !inode->fd_pinned;
}

static void set_fd(struct inode_table *table, struct inode_stripe *stripe,
		   struct inode *inode, int fd)
{
	inode->fd = fd;
	atomic_fetch_add(&table->open_fds, 1);
	if (!inode->fd_pinned)
		lru_add(stripe, inode);
}

/* Takes the descriptor that was unused for longest out, if there are many. */
static int evict_fd(struct inode_table *table, struct inode_stripe *stripe)
{
	struct inode *inode;
	int fd;

	if (stripe->cached_fds <= table->fds_per_stripe)
		return -EBADF;
	for (inode = stripe->lru_last; inode; inode = inode->lru_previous) {
		if (inode->fd_users > 0)
			continue;
		lru_remove(stripe, inode);
		fd = inode->fd;
		inode->fd = -1;
		atomic_fetch_sub(&table->open_fds, 1);
		return fd;
	}
	return -EBADF;
}

/*
 * ---- The table ----
 */

/* Doubles the hash; on lack of memory the chains grow longer instead. */
static void grow_locked(struct inode_stripe *stripe)
{
	size_t slot_count = stripe->slot_count * 2, i;
	struct inode **slots, *inode, *next;

	slots = calloc(slot_count, sizeof(*slots));
	if (!slots)
		return;
	for (i = 0; i < stripe->slot_count; i++) {
		for (inode = stripe->slots[i]; inode; inode = next) {
			size_t slot = key_hash(&inode->key) & (slot_count - 1);

			next = inode->next_in_hash;
			inode->next_in_hash = slots[slot];
			slots[slot] = inode;
		}
	}
	free(stripe->slots);
	stripe->slots = slots;
	stripe->slot_count = slot_count;
}

static void hash_add(struct inode_table *table, struct inode_stripe *stripe,
		     struct inode *inode)
{
	size_t slot;

	if (stripe->count >= stripe->slot_count)
		grow_locked(stripe);
	slot = key_hash(&inode->key) & (stripe->slot_count - 1);
	inode->next_in_hash = stripe->slots[slot];
	stripe->slots[slot] = inode;
	stripe->count++;
	atomic_fetch_add(&table->count, 1);
}

static void hash_remove(struct inode_table *table, struct inode_stripe *stripe,
			struct inode *inode)
{
	size_t slot = key_hash(&inode->key) & (stripe->slot_count - 1);
	struct inode **link = &stripe->slots[slot];

	while (*link != inode)
		link = &(*link)->next_in_hash;
	*link = inode->next_in_hash;
	stripe->count--;
	atomic_fetch_sub(&table->count, 1);
}

/* Takes references back; true: none is left, and the caller frees it. */
static bool drop_locked(struct inode_table *table, struct inode_stripe *stripe,
			struct inode *inode, uint64_t n)
{
	inode->refs -= n < inode->refs ? n : inode->refs;
	if (inode->refs > 0)
		return false;
	hash_remove(table, stripe, inode);
	if (in_lru(inode))
		lru_remove(stripe, inode);
	if (inode->fd >= 0)
		atomic_fetch_sub(&table->open_fds, 1);
	return true;
}

static struct inode *find_locked(struct inode_stripe *stripe,
				 const struct inode_key *key)
{
	size_t slot = key_hash(key) & (stripe->slot_count - 1);
	struct inode *inode;

	for (inode = stripe->slots[slot]; inode; inode = inode->next_in_hash)
		if (inode_key_equal(&inode->key, key) && !inode_is_stale(inode))
			return inode;
	return NULL;
}

static struct inode *inode_new(struct inode_table *table,
			       const struct inode_key *key,
			       const struct inode_seed *seed)
{
	struct inode *inode = calloc(1, sizeof(*inode));

	if (!inode)
		return NULL;
	inode->key = *key;
	inode->kind = seed->kind;
	inode->type = seed->type;
	inode->shard_epoch = seed->shard_epoch;
	inode->bucket = seed->bucket;
	inode->by_handle = table->can_open_handles && key->handle_type >= 0;
	inode->generation =
		(uint32_t)atomic_fetch_add(&table->next_generation, 1);
	inode->refs = 1;
	inode->fd = -1;
	inode->fd_pinned = !inode->by_handle;
	pthread_mutex_init(&inode->open_lock, NULL);
	return inode;
}

static struct inode *inode_free(struct inode *inode)
{
	if (!inode)
		return NULL;
	if (inode->key.shard)
		gate_forget_writer(inode);
	close_fd(inode->fd);
	pthread_mutex_destroy(&inode->open_lock);
	free(inode);
	return NULL;
}

/* A node without handle keeps a descriptor, of the very file that was meant. */
static int open_for_life(const struct inode_key *key,
			 const struct inode_seed *seed)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct stat attr;

	if (*seed->name == '\0')
		fd = inode_path_fd(seed->dirfd);
	else
		fd = openat(seed->dirfd, seed->name,
			    O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &attr) < 0)
		return -errno;
	if (attr.st_ino != key->ino || attr.st_dev != key->dev)
		return -ESTALE;
	return TAKE_FD(fd);
}

int inode_intern(struct inode_table *table, const struct inode_key *key,
		 const struct inode_seed *seed, struct inode **ret)
{
	struct inode_stripe *stripe = key_stripe(table, key);
	CLEANUP_CLOSE int fd = seed->fd;
	struct inode *inode, *found;
	int evicted = -1;

	pthread_mutex_lock(&stripe->lock);
	found = find_locked(stripe, key);
	if (found)
		found->refs++;
	pthread_mutex_unlock(&stripe->lock);
	if (found) {
		*ret = found;
		return 0;
	}

	inode = inode_new(table, key, seed);
	if (!inode)
		return -ENOMEM;
	if (!inode->by_handle && fd < 0) {
		fd = open_for_life(key, seed);
		if (fd < 0) {
			inode_free(inode);
			return fd;
		}
	}

	pthread_mutex_lock(&stripe->lock);
	found = find_locked(stripe, key);
	if (found) {
		found->refs++;
	} else {
		hash_add(table, stripe, inode);
		if (fd >= 0) {
			set_fd(table, stripe, inode, TAKE_FD(fd));
			evicted = evict_fd(table, stripe);
		}
	}
	pthread_mutex_unlock(&stripe->lock);

	close_fd(evicted);
	if (found)
		inode_free(inode);
	*ret = found ? found : inode;
	return 0;
}

uint64_t inode_nodeid(const struct inode_table *table,
		      const struct inode *inode)
{
	return inode == table->root ? ROOT_NODEID : (uintptr_t)inode;
}

struct inode *inode_ref(struct inode_table *table, struct inode *inode)
{
	struct inode_stripe *stripe = key_stripe(table, &inode->key);

	pthread_mutex_lock(&stripe->lock);
	inode->refs++;
	pthread_mutex_unlock(&stripe->lock);
	return inode;
}

bool inode_try_ref(struct inode_table *table, struct inode *inode)
{
	struct inode_stripe *stripe = key_stripe(table, &inode->key);
	bool alive;

	pthread_mutex_lock(&stripe->lock);
	alive = inode->refs > 0;
	if (alive)
		inode->refs++;
	pthread_mutex_unlock(&stripe->lock);
	return alive;
}

void inode_forget(struct inode_table *table, struct inode *inode, uint64_t n)
{
	struct inode_stripe *stripe = key_stripe(table, &inode->key);
	bool last;

	pthread_mutex_lock(&stripe->lock);
	last = drop_locked(table, stripe, inode, n);
	pthread_mutex_unlock(&stripe->lock);
	if (last)
		inode_free(inode);
}

struct inode *inode_unref(struct inode_table *table, struct inode *inode)
{
	if (inode)
		inode_forget(table, inode, 1);
	return NULL;
}

int inode_fd_get(struct inode_table *table, struct inode *inode)
{
	struct inode_stripe *stripe = key_stripe(table, &inode->key);
	int fd = -1, surplus = -1, evicted = -1;

	if (inode_is_stale(inode))
		return -ESTALE;
	pthread_mutex_lock(&stripe->lock);
	/* From here on it cannot be evicted. */
	inode->fd_users++;
	/* Once the request is answered the kernel may forget the node. */
	inode->refs++;
	if (inode->fd < 0) {
		pthread_mutex_unlock(&stripe->lock);
		fd = inode_key_open(table, &inode->key);
		if (fd < 0) {
			inode_fd_put(table, inode);
			return fd;
		}
		pthread_mutex_lock(&stripe->lock);
		if (inode->fd < 0) {
			set_fd(table, stripe, inode, fd);
			evicted = evict_fd(table, stripe);
		} else {
			surplus = fd;
		}
	} else if (in_lru(inode) && stripe->lru_first != inode) {
		lru_remove(stripe, inode);
		lru_add(stripe, inode);
	}
	fd = inode->fd;
	pthread_mutex_unlock(&stripe->lock);

	close_fd(surplus);
	close_fd(evicted);
	return fd;
}

void inode_fd_put(struct inode_table *table, struct inode *inode)
{
	struct inode_stripe *stripe = key_stripe(table, &inode->key);
	bool last;

	pthread_mutex_lock(&stripe->lock);
	inode->fd_users--;
	last = drop_locked(table, stripe, inode, 1);
	pthread_mutex_unlock(&stripe->lock);
	if (last)
		inode_free(inode);
}

void inode_pin(struct inode_table *table, struct inode *inode)
{
	struct inode_stripe *stripe = key_stripe(table, &inode->key);

	if (inode_fd_get(table, inode) < 0)
		return;
	pthread_mutex_lock(&stripe->lock);
	if (!inode->fd_pinned) {
		lru_remove(stripe, inode);
		inode->fd_pinned = true;
	}
	pthread_mutex_unlock(&stripe->lock);
	inode_fd_put(table, inode);
}

int inode_collect(struct inode_table *table, const struct fs_shard *shard,
		  struct inode ***ret, size_t *ret_count)
{
	size_t capacity = 0, count = 0, i, s;
	struct inode **all = NULL, **more, *inode;

	for (i = 0; i < INODE_STRIPES; i++) {
		struct inode_stripe *stripe = &table->stripes[i];

		pthread_mutex_lock(&stripe->lock);
		if (capacity - count < stripe->count) {
			capacity = count + stripe->count;
			more = reallocarray(all, capacity, sizeof(*all));
			if (!more) {
				pthread_mutex_unlock(&stripe->lock);
				goto nomem;
			}
			all = more;
		}
		for (s = 0; s < stripe->slot_count; s++) {
			for (inode = stripe->slots[s]; inode;
			     inode = inode->next_in_hash) {
				if (inode->key.shard != shard)
					continue;
				inode->refs++;
				all[count++] = inode;
			}
		}
		pthread_mutex_unlock(&stripe->lock);
	}
	*ret = all;
	*ret_count = count;
	return 0;

nomem:
	for (i = 0; i < count; i++)
		inode_unref(table, all[i]);
	free(all);
	return -ENOMEM;
}

static unsigned descriptor_cache_size(void)
{
	struct rlimit limit;
	rlim_t size = CACHED_FDS;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
	    limit.rlim_cur / CACHED_FDS_SHARE < size)
		size = limit.rlim_cur / CACHED_FDS_SHARE;
	return size / INODE_STRIPES + 1;
}

static int make_root(struct inode_table *table, struct hib_error *error)
{
	struct inode_seed seed = {
		.kind = INODE_ROOT,
		.type = S_IFDIR,
		.dirfd = table->source_fd,
		.name = "",
		.fd = -1,
	};
	struct inode_key key;
	struct stat attr;
	int r;

	inode_probe_handles(table);
	r = inode_identify(table, table->source_fd, "", &attr, &key, &seed.fd);
	if (r < 0)
		return hib_fail_errno(error, -r, "source directory");
	r = inode_intern(table, &key, &seed, &table->root);
	if (r < 0)
		return hib_fail_errno(error, -r, "source directory");
	inode_pin(table, table->root);
	return 0;
}

int inode_table_init(struct inode_table *table, int source_fd,
		     struct hib_error *error)
{
	unsigned i;

	memset(table, 0, sizeof(*table));
	table->source_fd = source_fd;
	table->fds_per_stripe = descriptor_cache_size();
	atomic_init(&table->next_generation, 1);
	for (i = 0; i < INODE_STRIPES; i++) {
		struct inode_stripe *stripe = &table->stripes[i];

		pthread_mutex_init(&stripe->lock, NULL);
		stripe->slot_count = FIRST_SLOTS;
		stripe->slots = calloc(FIRST_SLOTS, sizeof(*stripe->slots));
		if (!stripe->slots)
			return hib_fail_errno(error, ENOMEM, "inode table");
	}
	return make_root(table, error);
}

void inode_table_done(struct inode_table *table)
{
	struct inode *inode, *next;
	size_t i, s;

	for (i = 0; i < INODE_STRIPES; i++) {
		struct inode_stripe *stripe = &table->stripes[i];

		for (s = 0; s < stripe->slot_count; s++) {
			if (!stripe->slots)
				break;
			for (inode = stripe->slots[s]; inode; inode = next) {
				next = inode->next_in_hash;
				inode_free(inode);
			}
		}
		free(stripe->slots);
		stripe->slots = NULL;
		if (stripe->slot_count)
			pthread_mutex_destroy(&stripe->lock);
		stripe->slot_count = 0;
	}
	table->root = NULL;
}
