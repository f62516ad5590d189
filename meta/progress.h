/*
 * The counters of one running task, shared between whoever does the work
 * (fs/, control/, the transfer engine: they add) and whoever shows it (the task
 * registry: it reads).
 *
 * Counters only ever grow (E5). Totals may grow while a task runs (a pre-copy
 * round finds more): a reader takes done before total, see progress_read().
 *
 * Thread-safety: all functions may be called from any thread, none blocks.
 */
#ifndef HIBFS_META_PROGRESS_H
#define HIBFS_META_PROGRESS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
	_Atomic uint64_t bytes_total; /* plain bytes the task has to handle */
	_Atomic uint64_t bytes_done; /* of bytes_total, skipped ones included */
	_Atomic uint64_t files_total;
	_Atomic uint64_t files_done;
	_Atomic uint64_t bytes_read; /* from local files */
	_Atomic uint64_t bytes_hashed;
	_Atomic uint64_t bytes_skipped; /* unchanged, or known to the lineage */
	_Atomic uint64_t bytes_sent; /* to the store, as stored */
	_Atomic uint64_t bytes_received; /* from the store, as stored */
	_Atomic uint64_t requests; /* to the store, retries included */
	_Atomic uint64_t retries;
	/* A string literal: "reading"; NULL: none. */
	_Atomic(const char *) phase;
};

/* A moment's values of a struct progress. */
struct progress_values {
	uint64_t bytes_total, bytes_done;
	uint64_t files_total, files_done;
	uint64_t bytes_read, bytes_hashed, bytes_skipped;
	uint64_t bytes_sent, bytes_received;
	uint64_t requests, retries;
	const char *phase; /* NULL: none */
};

static inline void progress_init(struct progress *progress)
{
	atomic_init(&progress->bytes_total, 0);
	atomic_init(&progress->bytes_done, 0);
	atomic_init(&progress->files_total, 0);
	atomic_init(&progress->files_done, 0);
	atomic_init(&progress->bytes_read, 0);
	atomic_init(&progress->bytes_hashed, 0);
	atomic_init(&progress->bytes_skipped, 0);
	atomic_init(&progress->bytes_sent, 0);
	atomic_init(&progress->bytes_received, 0);
	atomic_init(&progress->requests, 0);
	atomic_init(&progress->retries, 0);
	atomic_init(&progress->phase, NULL);
}

/*
 * One helper for each counter; `progress` may be NULL: nobody is counting.
 *
 *	progress_add_bytes_sent(job->progress, size);
 */
#define PROGRESS_DEFINE_ADD(counter)                                          \
	static inline void progress_add_##counter(struct progress *progress,  \
						  uint64_t amount)            \
	{                                                                     \
		if (progress)                                                 \
			atomic_fetch_add_explicit(&progress->counter, amount, \
						  memory_order_relaxed);      \
	}

PROGRESS_DEFINE_ADD(bytes_total)
PROGRESS_DEFINE_ADD(bytes_done)
PROGRESS_DEFINE_ADD(files_total)
PROGRESS_DEFINE_ADD(files_done)
PROGRESS_DEFINE_ADD(bytes_read)
PROGRESS_DEFINE_ADD(bytes_hashed)
PROGRESS_DEFINE_ADD(bytes_skipped)
PROGRESS_DEFINE_ADD(bytes_sent)
PROGRESS_DEFINE_ADD(bytes_received)
PROGRESS_DEFINE_ADD(requests)
PROGRESS_DEFINE_ADD(retries)
#undef PROGRESS_DEFINE_ADD

/* `phase` is a string literal (it is kept); `progress` may be NULL. */
static inline void progress_set_phase(struct progress *progress,
				      const char *phase)
{
	if (progress)
		atomic_store(&progress->phase, phase);
}

/*
 * The values of this moment. Done is read before total and capped by it, so
 * that no reader ever sees more than all done.
 */
static inline void progress_read(struct progress *progress,
				 struct progress_values *ret_values)
{
	struct progress_values values = {
		.bytes_done = atomic_load(&progress->bytes_done),
		.files_done = atomic_load(&progress->files_done),
		.bytes_read = atomic_load(&progress->bytes_read),
		.bytes_hashed = atomic_load(&progress->bytes_hashed),
		.bytes_skipped = atomic_load(&progress->bytes_skipped),
		.bytes_sent = atomic_load(&progress->bytes_sent),
		.bytes_received = atomic_load(&progress->bytes_received),
		.requests = atomic_load(&progress->requests),
		.retries = atomic_load(&progress->retries),
		.phase = atomic_load(&progress->phase),
	};

	values.bytes_total = atomic_load(&progress->bytes_total);
	values.files_total = atomic_load(&progress->files_total);
	if (values.bytes_done > values.bytes_total)
		values.bytes_done = values.bytes_total;
	if (values.files_done > values.files_total)
		values.files_done = values.files_total;
	*ret_values = values;
}

#endif
