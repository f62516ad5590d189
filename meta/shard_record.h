/*
 * The durable record of a shard,
 * SOURCE/.hibfs/shards/<bucket>/<shard>/state.json: the journal of its state
 * (state.h) and what the daemon has to know without asking the store. Written
 * by control/ at every step, read at every start.
 *
 * Directory names are the names' raw bytes. With shard_depth=1 bucket and shard
 * are the same name, and the path has it twice.
 *
 * Thread-safety: all functions from any thread; saves of one shard are
 * serialised by the caller, who holds the shard's operation.
 */
#ifndef HIBFS_META_SHARD_RECORD_H
#define HIBFS_META_SHARD_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/uuid.h"
#include "meta/state.h"

#define SHARD_RECORD_FORMAT "hibfs-shard"
#define SHARD_RECORD_VERSION 1
#define SHARD_NAME_BYTES 256

/* Plain values throughout: a copy is an assignment. */
struct shard_record {
	char bucket[SHARD_NAME_BYTES]; /* bytes */
	char shard[SHARD_NAME_BYTES]; /* bytes */
	enum shard_state state;
	uint64_t seq; /* the latest committed manifest; 0: none */
	uint64_t epoch; /* under which this node owns the lineage; 0: none */
	char task[UUID_TEXT_BYTES]; /* of the operation under way, or "" */
	char node[SHARD_NAME_BYTES]; /* the owner's name, or "" */
	uint64_t logical_bytes; /* as of the latest manifest */
	uint64_t files; /* likewise */
	bool stub; /* there is a stub (none after pause --purge) */
	int64_t changed_ms; /* wall clock, set by shard_record_save() */
	char error[HIB_ERROR_MESSAGE_BYTES]; /* of the last operation, or "" */
};

/* A live shard that was never paused; -EINVAL for a name that is not plain. */
int shard_record_init(struct shard_record *ret, const char *bucket,
		      const char *shard, struct hib_error *error);

/* hibfs_fd is SOURCE/.hibfs throughout. -ENOENT when there is no record. */
int shard_record_load(int hibfs_fd, const char *bucket, const char *shard,
		      struct shard_record *ret, struct hib_error *error);

/* Sets changed_ms; durable on return. Makes the directories that are missing. */
int shard_record_save(int hibfs_fd, struct shard_record *record,
		      struct hib_error *error);

/* Removes the record and directories that are empty then; none is fine. */
int shard_record_remove(int hibfs_fd, const char *bucket, const char *shard,
			struct hib_error *error);

/*
 * Calls `visit` for each record. A negative answer ends it and is returned;
 * so does a record that is broken, with an error that names its file.
 */
typedef int (*shard_record_visit_fn)(void *arg,
				     const struct shard_record *record);
int shard_record_each(int hibfs_fd, shard_record_visit_fn visit, void *arg,
		      struct hib_error *error);

/* The text of state.json and back; `label` names the file in messages. */
int shard_record_format(const struct shard_record *record, struct buffer *out,
			struct hib_error *error);
int shard_record_parse(const char *label, const void *data, size_t size,
		       struct shard_record *ret, struct hib_error *error);

#endif
