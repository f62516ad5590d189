/*
 * The nodes that the kernel knows. One per file of the source and shard, found
 * again by its file handle (name_to_handle_at(2)), so that a node costs no
 * descriptor: an O_PATH descriptor is opened when it is needed and kept in a
 * bounded cache. Where the handle cannot be opened (no privilege, a file
 * system without handles, another mount inside the source) the node keeps its
 * descriptor for life.
 *
 * Thread-safety: all functions, any thread. The table is cut into stripes, each
 * with its own lock.
 */
#ifndef HIBFS_FS_INODE_H
#define HIBFS_FS_INODE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/error.h"

struct fs;
struct fs_bucket;
struct fs_shard;

enum inode_kind {
	INODE_ROOT, /* of the mount */
	INODE_BUCKET, /* directory whose directories are shards (depth 2) */
	INODE_SHARD_ROOT, /* a shard's own directory */
	INODE_IN_SHARD, /* anything below it */
	INODE_LOOSE, /* a file above shard depth; belongs to no shard */
};

#define INODE_HANDLE_BYTES 40 /* the largest of ext4, xfs, btrfs, tmpfs */

struct inode_key {
	struct fs_shard *shard; /* a file linked into two shards is two nodes */
	uint64_t dev, ino;
	int32_t handle_type; /* -1: no handle, then dev and ino identify */
	uint32_t handle_bytes;
	uint8_t handle[INODE_HANDLE_BYTES];
};

bool inode_key_equal(const struct inode_key *a, const struct inode_key *b);

struct inode {
	/* Constant. */
	struct inode_key key;
	enum inode_kind kind;
	mode_t type; /* mode & S_IFMT */
	uint32_t shard_epoch; /* shard's when this node was made */
	uint32_t generation; /* what the kernel was told, never reused */
	struct fs_bucket *bucket; /* of kind INODE_BUCKET, else NULL */
	bool by_handle; /* key.handle can be opened */

	/* Guarded by the stripe's lock. */
	struct inode *next_in_hash;
	uint64_t refs; /* the kernel's look-ups and our own references */
	int fd; /* O_PATH, or -1 */
	unsigned fd_users; /* it stays open while there are any */
	bool fd_pinned; /* likewise, for life */
	struct inode *lru_next, *lru_previous; /* of the descriptor cache */

	/* Open files of it (handle.c). */
	pthread_mutex_t open_lock;
	int backing_id; /* 0: none; open_lock */
	unsigned passthrough_opens; /* handles that use it; open_lock */
	unsigned cached_opens; /* handles through the daemon; open_lock */
	unsigned writers; /* handles in shard->writers; shard->lock */
	atomic_uint direct_writers; /* writable ones with O_DIRECT */
	/* In shard->writers while `writers` > 0; guarded by shard->lock. */
	struct inode *writer_next, *writer_previous;

	/* In shard->gate.noted; gate.lock. Not a reference: inode_try_ref(). */
	struct inode *noted_next, *noted_previous;
	bool noted;
};

#define INODE_STRIPES 32

struct inode_stripe {
	pthread_mutex_t lock;
	struct inode **slots; /* hash; a power of two */
	size_t slot_count, count;
	/* Descriptors in the cache, the latest used first. */
	struct inode *lru_first, *lru_last;
	unsigned cached_fds;
};

struct inode_table {
	struct inode_stripe stripes[INODE_STRIPES];
	struct inode *root;
	int source_fd; /* borrowed */
	int mount_id; /* of the source */
	bool can_open_handles;
	bool handle_starts_with_ino; /* ext4, xfs, btrfs */
	unsigned fds_per_stripe; /* size of the descriptor cache */
	atomic_uint_fast32_t next_generation;
	atomic_uint_fast64_t count, open_fds;
};

int inode_table_init(struct inode_table *table, int source_fd,
		     struct hib_error *error);
void inode_table_done(struct inode_table *table);

/* The number that the kernel knows the node by. */
uint64_t inode_nodeid(const struct inode_table *table,
		      const struct inode *inode);

/*
 * What lies at dirfd/name (AT_EMPTY_PATH is understood: name ""), never
 * following a symlink: its attributes, and a key without the shard. *ret_fd is
 * an O_PATH descriptor if one had to be opened on the way, else -1; owned by
 * the caller. Two system calls where handles tell the inode number.
 */
int inode_identify(const struct inode_table *table, int dirfd, const char *name,
		   struct stat *ret_attr, struct inode_key *ret_key,
		   int *ret_fd);

/* Learns what handles on the source are good for; before all else. */
void inode_probe_handles(struct inode_table *table);
/* An O_PATH descriptor of the file with that handle; negative errno. */
int inode_key_open(const struct inode_table *table,
		   const struct inode_key *key);

/*
 * An O_PATH descriptor of the file behind fd: a duplicate of one that is open
 * for reading or writing would count as an opener for as long as it lives.
 */
int inode_path_fd(int fd);

/* What a new node is made of, besides its key. */
struct inode_seed {
	enum inode_kind kind;
	mode_t type;
	uint32_t shard_epoch;
	struct fs_bucket *bucket;
	/* Where an O_PATH descriptor can be had, as for inode_identify(). */
	int dirfd;
	const char *name;
	int fd; /* one that is there already, or -1; taken, even on failure */
};

/*
 * The node with that key, made if need be, with one look-up of the kernel's
 * counted. -ENOMEM, -EMFILE, -ENOENT when the name has vanished.
 */
int inode_intern(struct inode_table *table, const struct inode_key *key,
		 const struct inode_seed *seed, struct inode **ret);

/* References of our own, besides the kernel's look-up counts. */
struct inode *inode_ref(struct inode_table *table, struct inode *inode);
/*
 * For who finds an inode in a list that holds no reference and is left only
 * through gate_forget_writer(): false when it is just being freed.
 */
bool inode_try_ref(struct inode_table *table, struct inode *inode);
struct inode *inode_unref(struct inode_table *table, struct inode *inode);

/* FORGET: takes back n look-ups. */
void inode_forget(struct inode_table *table, struct inode *inode, uint64_t n);

/*
 * An O_PATH descriptor of the node on the *source*. It stays open, and the node
 * lives, until inode_fd_put(). Negative errno: -ESTALE when the file is gone or
 * belongs to a shard that has been replaced.
 */
int inode_fd_get(struct inode_table *table, struct inode *inode);
void inode_fd_put(struct inode_table *table, struct inode *inode);

/* Keeps its descriptor open until the node ends: the file loses its name. */
void inode_pin(struct inode_table *table, struct inode *inode);

/*
 * A copy of the nodes of a shard that the kernel knows, each with a reference
 * of ours. free() the array.
 */
int inode_collect(struct inode_table *table, const struct fs_shard *shard,
		  struct inode ***ret, size_t *ret_count);

/*
 * The shard it belongs to has moved since: answer ESTALE, the kernel then looks
 * the path up again.
 */
bool inode_is_stale(const struct inode *inode);

#endif
