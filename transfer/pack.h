/*
 * A pack: many chunks' stored bytes in one object, which describes itself
 * (docs/FORMAT.md). Built here in memory, sent by upload.c; read back by
 * ranges with the chunk table, or as a whole by those who check packs.
 *
 *	header	32 bytes: magic "HIBPACK1", version u32, header bytes u32,
 *		flags u32, zero to 32
 *	the chunks' stored bytes, one after the other
 *	index	48 bytes a chunk: id[32], offset u32, stored bytes u32, plain
 *		bytes u32, flags u32
 *	trailer	32 bytes: index offset u32, chunk count u32, version u32, zero
 *		u32, check[8], magic "HIBPEND1"
 *
 * The check is the beginning of the SHA-256 of the header, the index and the
 * trailer's first 16 bytes: whoever reads these by ranges knows them whole.
 *
 * All integers little-endian. The object's name is its SHA-256.
 *
 * Thread-safety: one owner at a time.
 */
#ifndef HIBFS_TRANSFER_PACK_H
#define HIBFS_TRANSFER_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "transfer/chunk_table.h"

#define PACK_BYTES_DEFAULT (16u << 20)
#define PACK_BYTES_MIN (1u << 20)
#define PACK_BYTES_MAX (256u << 20)
#define PACK_HEADER_BYTES 32
#define PACK_TRAILER_BYTES 32
#define PACK_INDEX_ENTRY_BYTES 48
#define PACK_ID_BYTES 32

struct pack {
	uint8_t *data; /* borrowed: `capacity` bytes */
	size_t capacity, size;
	uint8_t *index; /* owned; the index entries so far */
	size_t index_size, index_capacity;
	uint32_t chunk_count;
};

/* Begins a pack in memory that the caller lends. */
void pack_init(struct pack *pack, uint8_t *data, size_t capacity);
void pack_done(struct pack *pack);

/* There is room for a chunk of that size, and its index and the trailer. */
bool pack_has_room(const struct pack *pack, size_t stored_bytes);

/* Appends; fills in record->offset, ->stored_bytes and ->flags. -ENOMEM. */
int pack_append(struct pack *pack, const void *stored, uint32_t stored_bytes,
		uint32_t plain_bytes, uint32_t flags,
		struct chunk_record *record);

/* Writes index and trailer, and gives the object's name. -ENOMEM. */
int pack_seal(struct pack *pack, uint8_t ret_id[PACK_ID_BYTES]);

/*
 * Reads the index of a whole pack object: record->pack is not set; plain sizes
 * go to *ret_plain_bytes. Both arrays are for the caller to free. -EBADMSG,
 * -EPROTONOSUPPORT for a newer version. The chunks' bytes are not looked at.
 */
int pack_parse(const char *name, const void *data, size_t size,
	       struct chunk_record **ret_records, uint32_t **ret_plain_bytes,
	       uint32_t *ret_count, struct hib_error *error);

#endif
