#include "fs/inode.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/shard.h"

#define ROOT_NODEID 1 /* FUSE_ROOT_ID */
#define FIRST_SLOTS 64
#define CACHED_FDS 4096
/* Descriptors that are left to open files, the store and the control socket. */
#define CACHED_FDS_SHARE 4 /* one in so many */
#define IDENTIFY_TRIES 5

struct handle_buffer {
	struct file_handle head;
	unsigned char bytes[INODE_HANDLE_BYTES];
};

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

static bool key_equal(const struct inode_key *a, const struct inode_key *b)
{
	return a->ino == b->ino && a->shard == b->shard && a->dev == b->dev &&
	       a->handle_type == b->handle_type &&
	       a->handle_bytes == b->handle_bytes &&
	       memcmp(a->handle, b->handle, a->handle_bytes) == 0;
}

bool inode_is_stale(const struct inode *inode)
{
	const struct fs_shard *shard = inode->key.shard;

	return shard && atomic_load_explicit(&shard->epoch,
					     memory_order_acquire) !=
				inode->shard_epoch;
}

/*
 * ---- Handles ----
 */

/* The key's handle fields; *ret_mount_id is -1 when there is no handle. */
static void read_handle(int dirfd, const char *name, struct inode_key *key,
			int *ret_mount_id)
{
	struct handle_buffer buffer = {
		.head.handle_bytes = INODE_HANDLE_BYTES,
	};
	int mount_id = -1;

	if (name_to_handle_at(dirfd, name, &buffer.head, &mount_id,
			      AT_EMPTY_PATH) < 0) {
		key->handle_type = -1;
		key->handle_bytes = 0;
		*ret_mount_id = -1;
		return;
	}
	key->handle_type = buffer.head.handle_type;
	key->handle_bytes = buffer.head.handle_bytes;
	memcpy(key->handle, buffer.head.f_handle, key->handle_bytes);
	*ret_mount_id = mount_id;
}

static int open_handle(const struct inode_table *table,
		       const struct inode_key *key)
{
	struct handle_buffer buffer = {
		.head.handle_bytes = key->handle_bytes,
		.head.handle_type = key->handle_type,
	};
	int fd;

	memcpy(buffer.head.f_handle, key->handle, key->handle_bytes);
	fd = open_by_handle_at(table->source_fd, &buffer.head,
			       O_PATH | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/*
 * Another mount inside the source has handles that mean nothing on the
 * source's own; such a node has to keep its descriptor.
 */
static void forget_foreign_handle(const struct inode_table *table,
				  struct inode_key *key, int mount_id)
{
	if (mount_id == table->mount_id)
		return;
	key->handle_type = -1;
	key->handle_bytes = 0;
}

static int identify_fd(const struct inode_table *table, int fd,
		       struct stat *ret_attr, struct inode_key *key)
{
	int mount_id;

	if (fstat(fd, ret_attr) < 0)
		return -errno;
	read_handle(fd, "", key, &mount_id);
	forget_foreign_handle(table, key, mount_id);
	key->dev = ret_attr->st_dev;
	key->ino = ret_attr->st_ino;
	return 0;
}

/*
 * Attributes and handle are read by name in two steps, so the name may mean
 * another file the second time. On the file systems hibfs is made for the handle
 * begins with the inode number, which shows it.
 */
static bool handle_matches(const struct inode_key *key, ino_t ino)
{
	uint32_t low;

	memcpy(&low, key->handle, sizeof(low));
	return key->handle_bytes >= sizeof(low) && low == (uint32_t)ino;
}

int inode_identify(const struct inode_table *table, int dirfd, const char *name,
		   struct stat *ret_attr, struct inode_key *ret_key,
		   int *ret_fd)
{
	struct inode_key key;
	struct stat attr;
	CLEANUP_CLOSE int fd = -EBADF;
	int mount_id, r, i;

	memset(&key, 0, sizeof(key));
	for (i = 0; table->handle_starts_with_ino && i < IDENTIFY_TRIES; i++) {
		if (fstatat(dirfd, name, &attr,
			    AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0)
			return -errno;
		read_handle(dirfd, name, &key, &mount_id);
		if (mount_id != table->mount_id)
			break;
		if (!handle_matches(&key, attr.st_ino))
			continue;
		key.dev = attr.st_dev;
		key.ino = attr.st_ino;
		*ret_attr = attr;
		*ret_key = key;
		*ret_fd = -1;
		return 0;
	}

	if (*name == '\0')
		fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
	else
		fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	memset(&key, 0, sizeof(key));
	r = identify_fd(table, fd, &attr, &key);
	if (r < 0)
		return r;
	*ret_attr = attr;
	*ret_key = key;
	*ret_fd = TAKE_FD(fd);
	return 0;
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
		if (key_equal(&inode->key, key) && !inode_is_stale(inode))
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
	inode->generation = (uint32_t)atomic_fetch_add(&table->next_generation,
						       1);
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
		fd = fcntl(seed->dirfd, F_DUPFD_CLOEXEC, 0);
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
	if (inode->fd < 0) {
		pthread_mutex_unlock(&stripe->lock);
		fd = open_handle(table, &inode->key);
		if (fd < 0)
			return fd;
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
	inode->fd_users++;
	/* Once the request is answered the kernel may forget the node. */
	inode->refs++;
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

/* ext4, xfs and btrfs: the first 32 bits of a handle are the inode's number. */
static bool handles_start_with_ino(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	switch ((unsigned long)fs.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
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
	int mount_id, fd, r;

	memset(&key, 0, sizeof(key));
	read_handle(table->source_fd, "", &key, &mount_id);
	table->mount_id = mount_id;
	if (mount_id >= 0) {
		fd = open_handle(table, &key);
		table->can_open_handles = fd >= 0;
		close_fd(fd);
	}
	table->handle_starts_with_ino = mount_id >= 0 &&
					handles_start_with_ino(table->source_fd);
	memset(&key, 0, sizeof(key));
	r = identify_fd(table, table->source_fd, &attr, &key);
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
