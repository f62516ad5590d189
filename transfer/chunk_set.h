/*
 * The chunks a lineage has: from an id to where it is stored. Refers to the
 * parent's chunks, and holds those of the running upload.
 *
 * Thread-safety: none; the snapshot writer guards it.
 */
#ifndef HIBFS_TRANSFER_CHUNK_SET_H
#define HIBFS_TRANSFER_CHUNK_SET_H

#include <stdint.h>

#include "transfer/chunk_table.h"

struct chunk_set {
	const struct chunk_record *parent; /* borrowed */
	uint32_t parent_count;
	struct chunk_record *records;
	uint32_t count, capacity;
	/* index + 1, the parent's first; 0: free. Open addressing */
	uint32_t *slots;
	uint32_t slot_count; /* a power of two, or 0 */
	uint32_t slots_used;
};

/*
 * With the chunks of `parent` (may be NULL), which outlives the set; zero
 * chunks are left out. -ENOMEM.
 */
int chunk_set_init(struct chunk_set *set, const struct chunk_table *parent);
void chunk_set_done(struct chunk_set *set);

/* The record of that id, or NULL. Valid until the next add. */
const struct chunk_record *chunk_set_find(const struct chunk_set *set,
					  const uint8_t id[CHUNK_ID_BYTES]);
/* An id that is there already keeps its record. -ENOMEM. */
int chunk_set_add(struct chunk_set *set, const struct chunk_record *record);

#endif
