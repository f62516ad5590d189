/*
 * The manifest: everything one snapshot of one shard consists of, but for the
 * file contents, which the chunk table (transfer/chunk_table.h) names. Written
 * last, it commits the snapshot.
 *
 * The object is a sequence of JSON texts, compressed as a whole by the caller
 * (transfer/): a header object, one object for each entry in path order, and an
 * end object with the totals, so that a shard of any size is written and read
 * in bounded memory, `zstdcat | jq` works, and a cut-off manifest is
 * noticed. docs/FORMAT.md gives every field.
 *
 * Thread-safety: one owner at a time; a finished manifest may be read by many.
 */
#ifndef HIBFS_META_MANIFEST_H
#define HIBFS_META_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/uuid.h"

#define MANIFEST_FORMAT "hibfs-manifest"
#define MANIFEST_VERSION 1

/* Limits for what comes from a store: beyond them it is refused. */
#define MANIFEST_MAX_ENTRIES (16u << 20)
#define MANIFEST_MAX_PATH_BYTES 65536
#define MANIFEST_MAX_BYTES ((size_t)4 << 30) /* plain text */

enum entry_type {
	ENTRY_DIRECTORY,
	ENTRY_FILE,
	ENTRY_SYMLINK,
	ENTRY_FIFO,
	ENTRY_SOCKET,
	ENTRY_CHARACTER_DEVICE,
	ENTRY_BLOCK_DEVICE,
};

struct entry_xattr {
	char *name; /* "user.x", "system.posix_acl_access", ... */
	uint8_t *value;
	size_t size;
};

/* A run of bytes of a file that is not a hole. */
struct entry_extent {
	uint64_t offset, length;
};

struct manifest_entry {
	char *path; /* bytes, relative to the shard, "." for the shard itself */
	enum entry_type type;
	uint32_t mode; /* permission bits with set-id and sticky: 07777 */
	uint32_t uid, gid;
	struct timespec mtime, atime;
	uint64_t size; /* files: bytes; symlinks: of the target */
	char *target; /* symlinks, else NULL */
	uint32_t major, minor; /* devices */
	/*
	 * Names of one inode share a group, > 0; 0 when there is one name. The
	 * first in path order carries the contents and attributes, the others
	 * carry path, type and group only.
	 */
	uint64_t hard_link_group;
	struct entry_xattr *xattrs;
	size_t xattr_count;
	/* files: */
	uint32_t chunk_bytes; /* power of two */
	uint64_t first_chunk, chunk_count; /* in the chunk table */
	/* the parts that are data; NULL and 0 when all of it is */
	bool sparse;
	struct entry_extent *extents;
	size_t extent_count;
};

struct manifest {
	/* header */
	char *bucket, *shard; /* bytes */
	uint64_t seq, parent_seq; /* 0: no parent */
	uint64_t epoch;
	char node[256];
	char task[UUID_TEXT_BYTES];
	int64_t started_ms, committed_ms; /* wall clock */
	char tool_version[64];
	uint8_t chunk_table_sha256[32]; /* of the chunk table's bytes */
	/* entries, in path order; directories before what is in them */
	struct manifest_entry *entries;
	size_t entry_count, entry_capacity;
	/* totals, set by manifest_total() and checked at parse */
	uint64_t file_count, directory_count, other_count;
	uint64_t logical_bytes; /* sum of the sizes of files, each inode once */
	uint64_t chunk_count;
};

struct manifest *manifest_new(void);
struct manifest *manifest_free(struct manifest *manifest);

/* A new zeroed entry at the end, valid until the next call; NULL: no memory. */
struct manifest_entry *manifest_add(struct manifest *manifest);

/* Takes the newest entry back. */
void manifest_remove_last(struct manifest *manifest);

/* Sorts by path bytes with '/' lowest. */
void manifest_sort(struct manifest *manifest);
/* Computes the totals. -ENOMEM. */
int manifest_total(struct manifest *manifest);

/* The entry of that path, or NULL. Needs the sorted order. */
const struct manifest_entry *manifest_find(const struct manifest *manifest,
					   const char *path);

/* Appends the JSON texts. -EMSGSIZE beyond MANIFEST_MAX_BYTES or out's limit. */
int manifest_write(const struct manifest *manifest, struct buffer *out,
		   struct hib_error *error);

/*
 * Reads and checks: format and version (a newer one is -EPROTONOSUPPORT, by
 * name and number), every path relative and without "", "." and ".." inside,
 * each parent directory present and a directory, no path twice, sizes and
 * chunk counts agreeing, extents ordered and inside the file, hard-link groups
 * consistent, totals equal, nothing after the end. `name` stands in messages.
 * -EBADMSG for what is broken.
 */
int manifest_parse(const char *name, const void *data, size_t size,
		   struct manifest **ret, struct hib_error *error);

#endif
