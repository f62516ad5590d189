/*
 * The transfer engine: the one thing that moves file contents between local
 * files and the store, for every task kind. It knows chunks, packs and
 * descriptors; it knows no inodes, no shards and takes no locks on them (T1).
 *
 * An engine has worker threads (read, hash, compress; or fetch, check, write)
 * shared by all jobs, and one ceiling for the memory that all of them use:
 * whoever would pass it waits for buffers to come back.
 *
 * Upload: a struct snapshot_writer lives through the rounds of one pause or
 * snapshot. Each round hands it files; it reads them chunk by chunk, skips
 * holes and zero chunks, looks each id up among the parent's chunks and its
 * own, and puts what is new into packs that go up while the next ones fill.
 *
 * Download: engine_fetch() reads files back pack by pack, checks every chunk
 * against its id before a byte of it is written, and writes it.
 *
 * Thread-safety: an engine from any thread; a writer by one thread at a time.
 */
#ifndef HIBFS_TRANSFER_ENGINE_H
#define HIBFS_TRANSFER_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cancel.h"
#include "base/error.h"
#include "meta/manifest.h"
#include "meta/progress.h"
#include "transfer/chunk_table.h"
#include "transfer/lineage.h"
#include "transfer/store.h"

enum engine_compression {
	ENGINE_COMPRESSION_AUTO, /* while the CPU waits for the network */
	ENGINE_COMPRESSION_OFF,
	ENGINE_COMPRESSION_ON,
};

struct engine_config {
	struct store *store; /* borrowed, outlives the engine */
	unsigned workers; /* 0: one a CPU, at least 2 */
	uint64_t memory_bytes; /* ceiling for buffers; 0: 96 MiB */
	uint32_t pack_bytes; /* 0: 16 MiB */
	enum engine_compression compression;
};

struct engine;
int engine_new(const struct engine_config *config, struct engine **ret,
	       struct hib_error *error);
struct engine *engine_free(struct engine *engine);
struct store *engine_store(struct engine *engine);

/* What a job brings along; both may be NULL. */
struct engine_call {
	struct cancel *cancel;
	struct progress *progress;
};

/*
 * ---- Upload ----
 */
struct snapshot_writer;

/*
 * `parent` (may be NULL) is the chunk table of the lineage's latest snapshot:
 * its chunks are not uploaded again; borrowed until the writer is freed.
 */
int snapshot_writer_new(struct engine *engine, const struct lineage *lineage,
			const struct chunk_table *parent,
			struct snapshot_writer **ret, struct hib_error *error);
struct snapshot_writer *snapshot_writer_free(struct snapshot_writer *writer);

/* One file to read in a round. */
struct source_file {
	uint64_t size; /* bytes, as seen when the round began */
	uint32_t chunk_bytes;
	/*
	 * Filled in by the writer: (size + chunk_bytes - 1) / chunk_bytes
	 * records whose `pack` is an index into the writer's packs. Owned by
	 * the caller (free()); replaced, not freed, by a later round.
	 */
	struct chunk_record *ret_records;
	uint64_t ret_record_count;
	bool ret_sparse; /* it has holes; then the data runs: */
	struct entry_extent *ret_extents; /* owned by the caller (free()) */
	uint64_t ret_extent_count;
	/* bytes that could not be read because the file became shorter are
	 * zero; the caller's check of ctime notices and reads it again */
	bool ret_changed_size;
};

/*
 * Opens file `index` of the round for reading: a descriptor that the engine
 * closes, or a negative errno. Called from worker threads, several at once.
 * `path` stands in messages.
 */
typedef int (*engine_open_fn)(void *arg, size_t index, const char **ret_path,
			      struct hib_error *error);

/*
 * Reads all `count` files and queues what is new. Returns when each is read
 * and hashed; packs may still be under way. On failure or cancel nothing is
 * under way any more, and the writer can only be freed.
 */
int snapshot_writer_round(struct snapshot_writer *writer,
			  struct source_file *files, size_t count,
			  engine_open_fn open, void *arg,
			  const struct engine_call *call,
			  struct hib_error *error);

/* Sends the last, partly filled pack and waits until each is confirmed. */
int snapshot_writer_flush(struct snapshot_writer *writer,
			  const struct engine_call *call,
			  struct hib_error *error);

/*
 * Appends a file's records to the snapshot's table, with their packs; the
 * index of the first in *ret_first. After snapshot_writer_flush().
 */
int snapshot_writer_append(struct snapshot_writer *writer,
			   const struct source_file *file,
			   struct chunk_table *table, uint64_t *ret_first,
			   struct hib_error *error);

/*
 * ---- Download ----
 */
struct target_file {
	uint64_t size;
	uint32_t chunk_bytes;
	uint64_t first_chunk, chunk_count; /* in the table */
	bool sparse; /* write the extents only; else everything */
	const struct entry_extent *extents; /* borrowed */
	size_t extent_count;
};

/*
 * Fetches, checks and writes all the files, in pack order, each pack read once
 * in as few ranged GETs as its needed chunks allow. `open` gives a descriptor
 * for writing, of a file that is already `size` bytes long and all hole. With
 * `durable` each file is fdatasync'd. The first failure ends the job, when
 * nothing is under way any more. A chunk that does not have its id is -EBADMSG
 * naming the pack object, the chunk and the file.
 */
int engine_fetch(struct engine *engine, const struct lineage *lineage,
		 const struct chunk_table *table,
		 const struct target_file *files, size_t count,
		 engine_open_fn open, void *arg, bool durable,
		 const struct engine_call *call, struct hib_error *error);

#endif
