/*
 * The chunk table of a snapshot: for each chunk of each file, its id and where
 * its stored bytes lie. docs/FORMAT.md gives every byte of the object:
 *
 *	header	64 bytes: magic "HIBCHNK1", version u32, header bytes u32,
 *		record count u64, pack count u64, record bytes u32, flags u32,
 *		zero to 64
 *	records	48 bytes each: id[32], pack u32, offset u32, stored bytes u32,
 *		flags u32
 *	packs	32 bytes each: the SHA-256 that names the pack object
 *
 * All integers little-endian. The records of one file are consecutive, so that
 * they are one ranged read.
 *
 * Thread-safety: one owner at a time; a finished table may be read by many.
 */
#ifndef HIBFS_TRANSFER_CHUNK_TABLE_H
#define HIBFS_TRANSFER_CHUNK_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

#define CHUNK_ID_BYTES 32
#define CHUNK_BYTES_MIN (256u << 10)
#define CHUNK_BYTES_MAX (4u << 20)
#define CHUNK_TABLE_MAX_RECORDS ((uint64_t)64 << 20)

enum chunk_flags {
	CHUNK_ZERO = 1 << 0, /* all zero bytes: stored nowhere, id is zero */
	CHUNK_ZSTD = 1 << 1, /* stored compressed, else raw */
	CHUNK_SEALED = 1 << 2, /* stored encrypted (version 1 refuses it) */
};

struct chunk_record {
	uint8_t id[CHUNK_ID_BYTES]; /* SHA-256 of the plain bytes */
	uint32_t pack; /* index into packs */
	uint32_t offset; /* in the pack */
	uint32_t stored_bytes;
	uint32_t flags;
};

struct chunk_table {
	struct chunk_record *records;
	uint64_t record_count, record_capacity;
	uint8_t (*packs)[32];
	uint32_t pack_count, pack_capacity;
};

struct chunk_table *chunk_table_new(void);
struct chunk_table *chunk_table_free(struct chunk_table *table);

/* Room for `count` more records, zeroed: the index of the first, or -ENOMEM. */
int chunk_table_extend(struct chunk_table *table, uint64_t count,
		       uint64_t *ret_first);
/* The index of that pack, added when it is new. */
int chunk_table_add_pack(struct chunk_table *table, const uint8_t id[32],
			 uint32_t *ret_index);

int chunk_table_write(const struct chunk_table *table, struct buffer *out,
		      struct hib_error *error);
/*
 * Reads and checks: magic, version (newer: -EPROTONOSUPPORT), the exact size,
 * unknown flags, pack indices in range, stored sizes within chunk_bytes_max
 * plus what zstd may add. -EBADMSG. `name` stands in messages.
 */
int chunk_table_parse(const char *name, const void *data, size_t size,
		      struct chunk_table **ret, struct hib_error *error);

/*
 * The chunk size for a new file: the smallest power of two from
 * CHUNK_BYTES_MIN to CHUNK_BYTES_MAX with which it has at most 2,048 chunks.
 */
uint32_t chunk_bytes_for(uint64_t file_bytes);

#endif
