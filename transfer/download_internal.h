/*
 * What download_plan.c (what to ask the store for) and download.c (asking,
 * checking, writing) share.
 */
#ifndef HIBFS_TRANSFER_DOWNLOAD_INTERNAL_H
#define HIBFS_TRANSFER_DOWNLOAD_INTERNAL_H

#include <stdatomic.h>

#include "transfer/engine_internal.h"

/* One place that wants one chunk. */
struct want {
	uint64_t record; /* in the table */
	uint32_t file;
	uint32_t chunk; /* in the file */
};

/* What a fetch needs only while it is under way. */
struct request {
	struct buffer body; /* lends an engine's buffer */
	struct store_call call;
	char key[STORE_KEY_BYTES];
};

/* One ranged GET; then one item for the workers. */
struct fetch {
	struct download *download;
	struct request *request; /* NULL: not under way */
	size_t first, count; /* wants */
	uint64_t offset, length; /* in the pack */
	uint32_t pack;
};

/* One call of engine_fetch(). */
struct download {
	struct engine_job job;
	struct engine *engine;
	const struct lineage *lineage;
	const struct chunk_table *table;
	const struct target_file *files;
	size_t file_count;
	engine_open_fn open;
	void *arg;
	bool durable;
	const struct engine_call *call;
	struct cancel cancel; /* of the requests */
	struct want *wants; /* sorted by pack and offset */
	size_t want_count;
	struct want *zeros; /* chunks of zero bytes, not all of them a hole */
	size_t zero_count;
	uint8_t *zero_bytes; /* CHUNK_BYTES_MAX of them; never written to */
	struct fetch *fetches;
	size_t fetch_count;
	_Atomic uint32_t *left; /* for each file: chunks to be written */
	/* guarded by the engine's lock */
	struct fetch **ready; /* in the order of their arrival */
	size_t ready_count, under_way;
};

static inline uint64_t target_chunk_length(const struct target_file *file,
					   uint64_t chunk)
{
	uint64_t left = file->size - chunk * file->chunk_bytes;

	return left < file->chunk_bytes ? left : file->chunk_bytes;
}

/* The first extent of the file that ends behind `offset`. */
size_t target_find_extent(const struct target_file *file, uint64_t offset);

/*
 * Lists in *download what each file wants, and the fetches that bring it:
 * `wants`, `zeros`, `left`, `fetches`. -EBADMSG when a file and the table do
 * not agree, -ENOMEM; download_free_plan() in any case.
 */
int download_plan(struct download *download, struct hib_error *error);
void download_free_plan(struct download *download);

#endif
