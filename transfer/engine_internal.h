/*
 * What engine.c, upload.c and download.c share: workers that take turns at the
 * jobs, and buffers that never add up to more than the ceiling.
 */
#ifndef HIBFS_TRANSFER_ENGINE_INTERNAL_H
#define HIBFS_TRANSFER_ENGINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "transfer/codec.h"
#include "transfer/engine.h"

struct engine_worker {
	struct engine *engine;
	pthread_t thread;
	struct codec *codec;
	uint8_t *scratch; /* CHUNK_BYTES_MAX */
};

/*
 * A piece of work in items 0 .. item_count - 1, handed out in this order, at
 * most `ready_count` of them. The first negative answer ends it: no further
 * item is begun. All fields but the functions are guarded by the engine's lock.
 */
struct engine_job {
	int (*work)(struct engine_job *job, size_t item,
		    struct engine_worker *worker, struct hib_error *error);
	size_t item_count, ready_count, next, active;
	int result;
	struct hib_error error;
	struct engine_job *next_job;
};

struct engine {
	struct engine_config config;
	struct engine_worker *workers;
	unsigned worker_count;
	pthread_mutex_t lock;
	pthread_cond_t work; /* for workers: an item is ready, or stop */
	pthread_cond_t progress; /* for callers: a job or buffer moved on */
	struct engine_job *jobs; /* in turn: the first goes to the end */
	bool stop;
	/*
	 * Who may hold a buffer while he waits for a worker is limited, so that
	 * workers that wait for a buffer always find one on its way back from
	 * the store: memory_limit is at least downloads_limit and a pack for
	 * each round and one more. All in bytes; idle buffers, of pack_bytes
	 * each, are not counted as used.
	 */
	uint64_t memory_used, memory_limit;
	uint64_t downloads_used, downloads_limit;
	unsigned rounds_active, rounds_limit;
	unsigned large_rounds_active;
	uint8_t **idle_buffers;
	unsigned idle_count;
	_Atomic unsigned packs_sending; /* of all writers */
};

/*
 * Is a chunk to be compressed while so many packs are on their way to the store
 * and so many fit into memory? When half of them wait for the network, the CPU
 * has time. A pure function.
 */
bool engine_wants_compression(enum engine_compression mode,
			      unsigned packs_sending, unsigned packs_limit);

/* Adds a job to the turn; workers begin with what is ready. */
void engine_job_start(struct engine *engine, struct engine_job *job);
/* More items are ready. Any thread. */
void engine_job_ready(struct engine *engine, struct engine_job *job,
		      size_t ready_count);
/* The job failed outside of its items. Any thread. The first failure counts. */
void engine_job_fail(struct engine *engine, struct engine_job *job, int r,
		     const struct hib_error *error);
/*
 * Waits until all items are done or it failed and none is active; takes it out
 * of the turn. Cancel counts as a failure. The job's result.
 */
int engine_job_finish(struct engine *engine, struct engine_job *job,
		      struct cancel *cancel, struct hib_error *error);

/*
 * A buffer of at least `bytes`, which are at most config.pack_bytes: waits
 * until it fits below the ceiling. -ECANCELED when the cancel fires or `job`
 * (may be NULL) has failed, -ENOMEM. It is given back with the same use and
 * bytes; NULL is nothing to give back.
 */
enum engine_use { ENGINE_UPLOAD, ENGINE_DOWNLOAD };
int engine_buffer_get(struct engine *engine, enum engine_use use, size_t bytes,
		      struct cancel *cancel, const struct engine_job *job,
		      uint8_t **ret);
void engine_buffer_put(struct engine *engine, enum engine_use use, size_t bytes,
		       uint8_t *buffer);

/*
 * One round of an upload; it may hold one open pack. Large rounds leave one
 * place to the others: the last round of a pause, under the lock, is small and
 * does not wait for another shard's first. -ECANCELED.
 */
int engine_round_begin(struct engine *engine, bool large,
		       struct cancel *cancel);
void engine_round_end(struct engine *engine, bool large);

/* A cancel_watch's wake: arg is the engine. Waits look again. */
void engine_wake(void *arg);

#endif
