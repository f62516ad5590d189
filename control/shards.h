/*
 * The shards that this daemon knows: for each its durable record, its place in
 * the mount, and the one operation that may be under way on it (P9). All
 * control/ code that changes a shard goes through here.
 *
 * Thread-safety: all functions from any thread. What a shard's operation owns
 * (steps of its state, its record) is touched by the holder of the operation
 * only; readers get copies.
 */
#ifndef HIBFS_CONTROL_SHARDS_H
#define HIBFS_CONTROL_SHARDS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/uuid.h"
#include "fs/fs.h"
#include "meta/shard_record.h"
#include "meta/state.h"

struct shards;
struct shard;

enum operation {
	OPERATION_NONE,
	OPERATION_LOCK,
	OPERATION_PAUSE,
	OPERATION_RESUME,
	OPERATION_VERIFY,
	OPERATION_RECOVER,
};

struct shards_config {
	int hibfs_fd; /* SOURCE/.hibfs; borrowed */
	unsigned shard_depth;
	struct fs *fs; /* borrowed */
	/*
	 * The operation on a hibernated shard ended while somebody waits in the
	 * mount to open it. May not block.
	 */
	void (*wanted)(void *arg, struct shard *shard);
	void *arg;
};

/* Reads every record; one that is broken is an error naming the file. */
int shards_open(const struct shards_config *config, struct shards **ret,
		struct hib_error *error);
struct shards *shards_close(struct shards *shards);

/*
 * The shard of that name: one with a record, or with a directory in the source,
 * or with `make` a new one without either. -ENOENT otherwise. Valid until
 * shards_close().
 */
int shards_find(struct shards *shards, const char *bucket, const char *shard,
		bool make, struct shard **ret, struct hib_error *error);

/*
 * The shards of a bucket (NULL: of all buckets), sorted by bucket and name:
 * a malloc'ed array. 0 shards is fine as long as the bucket's directory or a
 * record is there, else -ENOENT.
 */
int shards_of(struct shards *shards, const char *bucket, struct shard ***ret,
	      size_t *ret_count, struct hib_error *error);

/* All shards that have a record; a malloc'ed array in no order. */
int shards_recorded(struct shards *shards, struct shard ***ret,
		    size_t *ret_count, struct hib_error *error);

/* The buckets' names, sorted: an array to free with its strings. */
int shards_buckets(struct shards *shards, char ***ret, size_t *ret_count,
		   struct hib_error *error);

const char *shard_bucket(const struct shard *shard);
const char *shard_name(const struct shard *shard);
/* Encoded "bucket/shard", for messages. Valid as long as the shard. */
const char *shard_text(const struct shard *shard);
struct fs_shard *shard_fs(const struct shard *shard);

/* Its live directory, or its stub, is there. */
bool shard_has_tree(struct shard *shard);
bool shard_has_stub(struct shard *shard);
/* A record was written for it: it was paused, or a pause was tried. */
bool shard_is_recorded(struct shard *shard);

/* A copy of the record as it is now. */
void shard_get_record(struct shard *shard, struct shard_record *ret);
enum shard_state shard_state(struct shard *shard);

/*
 * Begins an operation: -EBUSY with a message that names the operation under
 * way, the shard and its task or owner. `owner` is a task's uuid or a lock's
 * owner; copied.
 */
int shard_begin(struct shard *shard, enum operation operation,
		const char *owner, struct hib_error *error);
void shard_end(struct shard *shard);
/* What is under way, with its owner in ret_owner (256 bytes; may be NULL). */
enum operation shard_operation(struct shard *shard, char *ret_owner);
const char *operation_name(enum operation operation);

/*
 * A step of the state table, made durable before it counts: `change` (may be
 * NULL) edits the record that is written with it. By the operation's holder.
 */
typedef void (*shard_change_fn)(void *arg, struct shard_record *record);
int shard_step(struct shard *shard, enum shard_event event,
	       shard_change_fn change, void *arg, unsigned *ret_actions,
	       struct hib_error *error);
/*
 * For the holder of the operation on a shard without record and tree: it is
 * taken for hibernated, as it is when the store has it and this node has not.
 */
void shard_assume_hibernated(struct shard *shard);
/* Removes the record again: as if the shard had never been heard of. */
int shard_forget(struct shard *shard, struct hib_error *error);
/* Edits the record without a step. */
int shard_update(struct shard *shard, shard_change_fn change, void *arg,
		 struct hib_error *error);

/*
 * Somebody waits in the mount for this shard: true when it has to be resumed
 * now; false when an operation is under way, at whose end config.wanted is
 * called if the shard is hibernated then.
 */
bool shard_want(struct shard *shard);
/* What was wanted so far is answered: a later wish counts anew. */
void shard_clear_want(struct shard *shard);

/* Directories of a shard below the source; relative to its descriptor. */
#define SHARD_PATH_BYTES 1024
void shard_live_path(const struct shard *shard, char ret[SHARD_PATH_BYTES]);
void shard_stub_path(const struct shard *shard, char ret[SHARD_PATH_BYTES]);

#endif
