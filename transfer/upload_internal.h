/*
 * What upload.c (rounds: files and chunks) and upload_packs.c (the writer:
 * known chunks and packs) share.
 */
#ifndef HIBFS_TRANSFER_UPLOAD_INTERNAL_H
#define HIBFS_TRANSFER_UPLOAD_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>

#include "transfer/chunk_set.h"
#include "transfer/engine_internal.h"
#include "transfer/pack.h"

struct pack_upload {
	struct snapshot_writer *writer;
	struct pack pack;
	uint8_t *buffer; /* the engine's */
	uint8_t id[PACK_ID_BYTES];
	uint32_t index; /* in the writer's packs */
	char key[STORE_KEY_BYTES];
	struct store_call call;
};

struct snapshot_writer {
	struct engine *engine;
	struct lineage lineage;
	/* fires when a round or a flush is cancelled, or the writer freed */
	struct cancel cancel;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* in_flight, head_turn, opening */
	struct chunk_set known; /* guarded by lock */
	uint8_t (*packs)[PACK_ID_BYTES]; /* guarded by lock */
	uint32_t pack_count, pack_capacity; /* guarded by lock */
	struct pack_upload *open; /* guarded by lock */
	bool opening; /* a worker waits for a buffer; guarded by lock */
	size_t head_turn; /* the next head to enter a pack; guarded by lock */
	size_t in_flight; /* packs; guarded by lock */
	int result; /* the first failure; guarded by lock */
	struct hib_error error; /* guarded by lock */
	struct progress *progress; /* of the last call */
	/*
	 * Where the packs stand in the table that is being filled: index + 1
	 * there, 0 not yet. Of the caller's thread alone.
	 */
	const struct chunk_table *table;
	uint32_t *table_packs;
	uint32_t table_pack_count;
};

/* It is known already: completes *record, whose id is set. */
bool writer_find(struct snapshot_writer *writer, struct chunk_record *record);

/*
 * A chunk that the lineage did not have a moment ago: into the open pack, or a
 * new one. Completes *record, whose id is set.
 */
int writer_store(struct snapshot_writer *writer, const void *stored,
		 uint32_t stored_bytes, uint32_t plain_bytes, uint32_t flags,
		 struct chunk_record *record, struct hib_error *error);

/* Sends the open pack if there is one, and does not wait for it. */
int writer_send_open(struct snapshot_writer *writer, struct hib_error *error);
void writer_wait_for_packs(struct snapshot_writer *writer);

/* The first failure counts; everything under way ends. */
void writer_fail(struct snapshot_writer *writer, int r,
		 const struct hib_error *error);
/* That first failure, for a caller that was only told to stop. */
int writer_failure(struct snapshot_writer *writer, int r,
		   struct hib_error *error);

#endif
