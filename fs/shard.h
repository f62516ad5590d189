/*
 * The shards of the mount, and where each one is. Made when first looked at or
 * named by control/, and kept until the mount ends, so that a pointer to one
 * never dangles.
 *
 * A shard is its directory, not its name: when somebody renames the directory
 * of a live shard, the struct goes with it (shard_rename()), so that nodes and
 * open files need not change. Hold a name, not a pointer, to mean a name.
 *
 * Thread-safety: all functions, any thread.
 */
#ifndef HIBFS_FS_SHARD_H
#define HIBFS_FS_SHARD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "fs/fs.h"
#include "fs/gate.h"
#include "fs/inode.h"

/* A string that stays until the mount ends, whoever still reads it. */
struct shard_name {
	struct shard_name *next; /* of all there ever were; table lock */
	char text[];
};

struct fs_bucket {
	struct fs_bucket *next_in_hash; /* table lock */
	struct fs_shard *shards; /* by next_in_bucket; table lock */
	_Atomic(struct shard_name *) name; /* written under the table lock */
	/* What the kernel last knew its directory by; 0: never. */
	atomic_uint_fast64_t nodeid;
};

struct fs_shard {
	/* Down to `place`: written under the table lock. */
	struct fs_shard *next_in_bucket, *next_in_hash;
	_Atomic(struct fs_bucket *) bucket;
	_Atomic(struct shard_name *) name;
	_Atomic(enum fs_place) place;
	/* control/ said FS_PLACE_NONE: it may be hibernated without a stub. */
	atomic_bool withheld;
	/* Counts the replacements of its directory; see inode_is_stale(). */
	atomic_uint epoch;

	pthread_mutex_t lock;
	struct inode *writers; /* open for writing; lock */
	size_t writer_count; /* lock */
	/* Its directory as last seen, to know when it is another; lock */
	struct inode_key directory;
	bool directory_known; /* lock */
	atomic_uint_fast64_t open_files; /* handles of regular files */
	pthread_cond_t closed; /* with lock: open_files may have become 0 */

	struct gate gate; /* gate.c's own */
};

#define SHARD_SLOTS 8192
#define BUCKET_SLOTS 1024

struct shard_table {
	pthread_rwlock_t lock;
	struct fs_bucket *buckets[BUCKET_SLOTS]; /* hash; lock */
	struct fs_shard *shards[SHARD_SLOTS]; /* hash; lock */
	struct shard_name *names; /* lock */
};

int shard_table_init(struct shard_table *table);
/* The gates of all shards end with it. */
void shard_table_done(struct shard_table *table);

/* The shard of that name if there is one, never made. */
struct fs_shard *shard_find(struct fs *fs, const char *bucket,
			    const char *shard);
struct fs_bucket *shard_bucket_find(struct fs *fs, const char *bucket);
/* Made if need be; NULL: no memory. */
struct fs_bucket *shard_bucket_get(struct fs *fs, const char *bucket);

/*
 * What handlers saw or did: a directory is there, so a place of NONE becomes
 * LIVE; it was removed, so LIVE becomes NONE.
 */
void shard_seen_live(struct fs *fs, struct fs_shard *shard);
/*
 * Its directory was looked up, beginning at `epoch`, and is `key`. -EAGAIN: it
 * has been replaced meanwhile, so look again.
 */
int shard_directory_is(struct fs_shard *shard, const struct inode_key *key,
		       unsigned epoch);
void shard_removed(struct fs *fs, struct fs_shard *shard);

/*
 * A directory has been renamed: `from` goes by the name of `to` and the other
 * way round, places included. `to_replaced`: an empty directory was in the way
 * and is gone.
 */
void shard_swap(struct fs *fs, struct fs_shard *from, struct fs_shard *to,
		bool to_replaced);
void shard_bucket_swap(struct fs *fs, struct fs_bucket *from,
		       struct fs_bucket *to);

/* Has it a durable record (SOURCE/.hibfs/shards/...)? Unsure is yes. */
bool shard_has_record(struct fs *fs, const char *bucket, const char *shard);
/*
 * Is a shard of the bucket more than a plain directory: recorded, a stub, or
 * frozen? Then the bucket cannot be renamed.
 */
bool shard_bucket_is_held(struct fs *fs, const char *bucket);
bool shard_bucket_has_stubs(struct fs *fs, const char *bucket);

/*
 * Appends name and NUL of each stub of the bucket, or of all buckets (NULL);
 * -ENOMEM, -EMSGSIZE.
 */
int shard_stub_names(struct fs *fs, const char *bucket, struct buffer *names);

/* Calls `visit` for every shard there is; it must not call into the table. */
void shard_each(struct fs *fs, void (*visit)(void *arg, struct fs_shard *shard),
		void *arg);

/*
 * Opening for writing: the inode joins shard->writers, unless
 * the shard is frozen, which is false. The gate first says frozen and then
 * reads the list, so a writer is either in the list or knows.
 * Called with inode->open_lock held.
 */
bool shard_writer_add(struct fs_shard *shard, struct inode *inode);
void shard_writer_remove(struct fs_shard *shard, struct inode *inode);

/* A handle of a regular file is gone. */
void shard_file_closed(struct fs_shard *shard);

/*
 * The inodes that are open for writing, each with a reference
 * of ours (inode_unref() them, free() the array). For the gate: a descriptor of
 * such a file *through the mount* is had without any path, even when it is
 * unlinked: open_by_handle_at(2) on a descriptor of the mount's root with
 * handle_type 0x81 and the 32-bit words {nodeid >> 32, nodeid, generation};
 * the kernel finds the inode in its cache and asks nobody.
 */
int shard_writers(struct fs *fs, struct fs_shard *shard, struct inode ***ret,
		  size_t *ret_count);

#endif
