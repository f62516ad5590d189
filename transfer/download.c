/*
 * Fetching files.
 *
 * Every chunk that is wanted, of every file, goes into one list in the order of
 * packs and offsets; what lies close together becomes one ranged GET. The
 * caller of engine_fetch() keeps several of them under way, the store puts the
 * bytes into the engine's buffers, and the workers check each chunk once and
 * write it to all the places that want it. Zero bytes that are data and no hole
 * are written by items of their own.
 *
 * Threads: the caller submits; the store's thread calls fetched(); the workers
 * run work_item(). A fetch belongs to one of them at a time.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/encode.h"
#include "base/fault.h"
#include "base/file.h"
#include "transfer/engine_internal.h"

/* Bytes that nobody wants are read along when a second request costs more. */
#define GAP_BYTES (256u << 10)
/* Larger requests gain nothing, and fewer of them fit into memory. */
#define FETCH_BYTES_MAX (8u << 20)
_Static_assert(FETCH_BYTES_MAX >= 2 * CHUNK_BYTES_MAX, "a chunk fits");

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

/* ---- what is wanted ---- */

static uint64_t chunk_length(const struct target_file *file, uint64_t chunk)
{
	uint64_t left = file->size - chunk * file->chunk_bytes;

	return left < file->chunk_bytes ? left : file->chunk_bytes;
}

static int check_file(const struct download *d, const struct target_file *file,
		      struct hib_error *error)
{
	uint64_t chunks;

	if (file->size == 0 && file->chunk_count == 0)
		return 0;
	if (!file->chunk_bytes || file->chunk_bytes > CHUNK_BYTES_MAX)
		return hib_fail(error, EBADMSG,
				"the manifest has a chunk size of %u bytes",
				file->chunk_bytes);
	chunks = file->size / file->chunk_bytes +
		 (file->size % file->chunk_bytes != 0);
	if (chunks != file->chunk_count || chunks > UINT32_MAX ||
	    file->first_chunk > d->table->record_count ||
	    chunks > d->table->record_count - file->first_chunk)
		return hib_fail(
			error, EBADMSG,
			"the manifest and the chunk table do not agree");
	return 0;
}

/* The first extent that ends behind `offset`. */
static size_t find_extent(const struct target_file *file, uint64_t offset)
{
	size_t low = 0, high = file->extent_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (file->extents[middle].offset +
			    file->extents[middle].length <=
		    offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

enum wanted { WANT_NOTHING, WANT_ZEROS, WANT_BYTES };

static enum wanted wanted_of(const struct download *d,
			     const struct target_file *file, uint64_t chunk)
{
	uint64_t offset = chunk * file->chunk_bytes;
	size_t extent;

	if (!(d->table->records[file->first_chunk + chunk].flags & CHUNK_ZERO))
		return WANT_BYTES;
	if (!file->sparse)
		return WANT_ZEROS;
	extent = find_extent(file, offset);
	return extent < file->extent_count &&
			       file->extents[extent].offset <
				       offset + chunk_length(file, chunk)
		       ? WANT_ZEROS
		       : WANT_NOTHING;
}

static int count_wants(struct download *d, struct hib_error *error)
{
	for (size_t i = 0; i < d->file_count; i++) {
		const struct target_file *file = &d->files[i];
		int r = check_file(d, file, error);

		if (r < 0)
			return r;
		for (uint64_t c = 0; c < file->chunk_count; c++) {
			enum wanted wanted = wanted_of(d, file, c);

			d->zero_count += wanted == WANT_ZEROS;
			d->want_count += wanted == WANT_BYTES;
		}
	}
	return 0;
}

/* The file's chunks that are to be written. */
static void list_file(struct download *d, size_t index, size_t *wants,
		      size_t *zeros)
{
	const struct target_file *file = &d->files[index];
	uint64_t skipped = 0;
	uint32_t left = 0;

	for (uint64_t c = 0; c < file->chunk_count; c++) {
		enum wanted wanted = wanted_of(d, file, c);
		struct want want = {
			.record = file->first_chunk + c,
			.file = (uint32_t)index,
			.chunk = (uint32_t)c,
		};

		if (wanted == WANT_BYTES)
			d->wants[(*wants)++] = want;
		else if (wanted == WANT_ZEROS)
			d->zeros[(*zeros)++] = want;
		else
			skipped += chunk_length(file, c);
		left += wanted != WANT_NOTHING;
	}
	atomic_init(&d->left[index], left);
	progress_add_bytes_done(d->call->progress, skipped);
	if (!left)
		progress_add_files_done(d->call->progress, 1);
}

static int list_wants(struct download *d)
{
	size_t wants = 0, zeros = 0;

	d->wants = malloc((d->want_count + 1) * sizeof(*d->wants));
	d->zeros = malloc((d->zero_count + 1) * sizeof(*d->zeros));
	d->left = calloc(d->file_count + 1, sizeof(*d->left));
	d->zero_bytes = calloc(1, CHUNK_BYTES_MAX);
	if (!d->wants || !d->zeros || !d->left || !d->zero_bytes)
		return -ENOMEM;
	for (size_t i = 0; i < d->file_count; i++)
		list_file(d, i, &wants, &zeros);
	return 0;
}

static int compare_wants(const void *a, const void *b, void *arg)
{
	const struct chunk_record *records = arg;
	const struct want *left = a, *right = b;
	const struct chunk_record *x = &records[left->record];
	const struct chunk_record *y = &records[right->record];

	if (x->pack != y->pack)
		return x->pack < y->pack ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	if (left->file != right->file)
		return left->file < right->file ? -1 : 1;
	return left->chunk < right->chunk ? -1 : left->chunk > right->chunk;
}

static int add_fetch(struct download *d, size_t *capacity, size_t first)
{
	const struct want *want = &d->wants[first];
	const struct chunk_record *record = &d->table->records[want->record];

	if (d->fetch_count == *capacity) {
		size_t more = *capacity * 2 + 16;
		struct fetch *grown =
			reallocarray(d->fetches, more, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		d->fetches = grown;
		*capacity = more;
	}
	d->fetches[d->fetch_count++] = (struct fetch){
		.download = d,
		.first = first,
		.count = 1,
		.pack = record->pack,
		.offset = record->offset,
		.length = record->stored_bytes,
	};
	return 0;
}

static bool joins(const struct fetch *fetch, const struct chunk_record *record)
{
	uint64_t end = (uint64_t)record->offset + record->stored_bytes;

	return record->pack == fetch->pack &&
	       record->offset <= fetch->offset + fetch->length + GAP_BYTES &&
	       end < fetch->offset + FETCH_BYTES_MAX;
}

static int list_fetches(struct download *d)
{
	size_t capacity = 0;

	if (d->want_count)
		qsort_r(d->wants, d->want_count, sizeof(*d->wants),
			compare_wants, d->table->records);
	for (size_t i = 0; i < d->want_count; i++) {
		const struct chunk_record *record =
			&d->table->records[d->wants[i].record];
		struct fetch *fetch =
			d->fetch_count ? &d->fetches[d->fetch_count - 1] : NULL;
		uint64_t end = (uint64_t)record->offset + record->stored_bytes;

		if (!fetch || !joins(fetch, record)) {
			if (add_fetch(d, &capacity, i) < 0)
				return -ENOMEM;
			continue;
		}
		fetch->count++;
		if (end > fetch->offset + fetch->length)
			fetch->length = end - fetch->offset;
	}
	d->ready = calloc(d->fetch_count + 1, sizeof(struct fetch *));
	return d->ready ? 0 : -ENOMEM;
}

/* ---- writing ---- */

/* The file that a worker has open while it works on one item. */
struct target {
	struct download *download;
	size_t index;
	int fd;
	const char *path;
};

static int target_open(struct target *target, size_t index,
		       struct hib_error *error)
{
	struct download *d = target->download;

	if (target->fd >= 0 && target->index == index)
		return 0;
	target->fd = close_fd(target->fd);
	target->path = "";
	target->fd = d->open(d->arg, index, &target->path, error);
	target->index = index;
	return target->fd < 0 ? target->fd : 0;
}

static int write_part(struct target *target, const uint8_t *plain,
		      uint64_t chunk_offset, uint64_t from, uint64_t to,
		      struct hib_error *error)
{
	int r = file_write_full(target->fd, plain + (from - chunk_offset),
				(size_t)(to - from), from);

	return r < 0 ? hib_fail_errno(error, -r, "write \"%s\"", target->path)
		     : 0;
}

/* The last of the file's chunks has been written, by whichever worker. */
static int end_file(struct target *target, size_t index,
		    struct hib_error *error)
{
	struct download *d = target->download;
	int r = d->durable ? target_open(target, index, error) : 0;

	if (r == 0 && d->durable && fdatasync(target->fd) < 0)
		r = hib_fail_errno(error, errno, "write \"%s\" to the disk",
				   target->path);
	if (r == 0)
		progress_add_files_done(d->call->progress, 1);
	return r;
}

/* Writes a chunk to one place: what of it is no hole there. */
static int write_chunk(struct target *target, const struct want *want,
		       const uint8_t *plain, struct hib_error *error)
{
	struct download *d = target->download;
	const struct target_file *file = &d->files[want->file];
	uint64_t offset = (uint64_t)want->chunk * file->chunk_bytes;
	uint64_t end = offset + chunk_length(file, want->chunk);
	int r = 0;

	if (!file->sparse) {
		r = target_open(target, want->file, error);
		if (r == 0)
			r = write_part(target, plain, offset, offset, end,
				       error);
	}
	for (size_t i = file->sparse ? find_extent(file, offset)
				     : file->extent_count;
	     r == 0 && i < file->extent_count && file->extents[i].offset < end;
	     i++) {
		uint64_t from = file->extents[i].offset;
		uint64_t to = from + file->extents[i].length;

		r = target_open(target, want->file, error);
		if (r == 0)
			r = write_part(target, plain, offset,
				       from > offset ? from : offset,
				       to < end ? to : end, error);
	}
	if (r < 0)
		return r;
	progress_add_bytes_done(d->call->progress, end - offset);
	return atomic_fetch_sub(&d->left[want->file], 1) == 1
		       ? end_file(target, want->file, error)
		       : 0;
}

static int broken_chunk(const struct fetch *fetch, const struct want *want,
			struct hib_error *error)
{
	const struct download *d = fetch->download;
	const struct chunk_record *record = &d->table->records[want->record];
	char id[2 * CHUNK_ID_BYTES + 1];
	struct target target = { (struct download *)(uintptr_t)d, 0, -EBADF,
				 "" };
	struct hib_error why = *error;

	/* only for the path; it may fail as it likes */
	target_open(&target, want->file, NULL);
	close_fd(target.fd);
	encode_hex(record->id, CHUNK_ID_BYTES, id);
	return hib_fail(error, why.code,
			"%s is damaged: chunk %s at byte %u, of \"%s\": %s",
			fetch->request->key, id, record->offset, target.path,
			why.message);
}

/* Checks each chunk of an arrived range once, and writes it everywhere. */
static int write_fetch(struct fetch *fetch, struct engine_worker *worker,
		       struct hib_error *error)
{
	struct download *d = fetch->download;
	struct target target = { d, 0, -EBADF, "" };
	const uint8_t *body = fetch->request->body.data;
	const struct chunk_record *before = NULL;
	const void *plain = NULL;
	uint64_t plain_bytes = 0;
	int r = 0;

	for (size_t i = 0; i < fetch->count && r == 0; i++) {
		const struct want *want = &d->wants[fetch->first + i];
		const struct chunk_record *record =
			&d->table->records[want->record];
		uint64_t length =
			chunk_length(&d->files[want->file], want->chunk);

		if (cancel_requested(d->call->cancel))
			r = hib_fail(error, ECANCELED, "cancelled");
		/* the same bytes again, for another place */
		else if (!before ||
			 memcmp(before, record, sizeof(*record)) != 0 ||
			 length != plain_bytes)
			r = codec_decode(
				worker->codec, record,
				body + (record->offset - fetch->offset),
				(size_t)length, &plain, error);
		if (r == -EBADMSG)
			r = broken_chunk(fetch, want, error);
		if (r == 0)
			r = write_chunk(&target, want, plain, error);
		before = record;
		plain_bytes = length;
	}
	close_fd(target.fd);
	return r;
}

static int write_zeros(struct download *d, const struct want *want,
		       struct hib_error *error)
{
	struct target target = { d, 0, -EBADF, "" };
	int r;

	r = write_chunk(&target, want, d->zero_bytes, error);
	close_fd(target.fd);
	return r;
}

/* A byte more than asked for, which every buffer keeps behind its end. */
static size_t body_bytes(const struct fetch *fetch)
{
	return (size_t)fetch->length + 1;
}

static void release(struct fetch *fetch)
{
	struct request *request = TAKE_PTR(fetch->request);

	if (request)
		engine_buffer_put(fetch->download->engine, ENGINE_DOWNLOAD,
				  body_bytes(fetch), request->body.data);
	free(request);
}

/* The zeros are the first items, since they are ready at once. */
static int work_item(struct engine_job *job, size_t item,
		     struct engine_worker *worker, struct hib_error *error)
{
	struct download *d = container_of(job, struct download, job);
	struct fetch *fetch;
	int r;

	if (item < d->zero_count) {
		if (cancel_requested(d->call->cancel))
			return hib_fail(error, ECANCELED, "cancelled");
		return write_zeros(d, &d->zeros[item], error);
	}
	pthread_mutex_lock(&d->engine->lock);
	fetch = d->ready[item - d->zero_count];
	pthread_mutex_unlock(&d->engine->lock);
	r = write_fetch(fetch, worker, error);
	release(fetch);
	return r;
}

/* ---- fetching ---- */

/* In one of the store's threads. */
static void fetched(void *arg, int result, const struct hib_error *error)
{
	struct fetch *fetch = arg;
	struct download *d = fetch->download;
	struct engine *engine = d->engine;

	if (result < 0) {
		engine_job_fail(engine, &d->job, result, error);
		release(fetch);
	}
	pthread_mutex_lock(&engine->lock);
	d->under_way--;
	if (result == 0) {
		d->ready[d->ready_count++] = fetch;
		d->job.ready_count = d->zero_count + d->ready_count;
		pthread_cond_signal(&engine->work);
	}
	pthread_cond_broadcast(&engine->progress);
	pthread_mutex_unlock(&engine->lock);
}

/* Waits for memory to put the answer in. */
static int begin_fetch(struct download *d, struct fetch *fetch,
		       struct hib_error *error)
{
	struct request *request = calloc(1, sizeof(*request));
	int r = -ENOMEM;

	fetch->request = request;
	if (request)
		r = engine_buffer_get(d->engine, ENGINE_DOWNLOAD,
				      body_bytes(fetch), d->call->cancel,
				      &d->job, &request->body.data);
	if (r == 0)
		r = fault_point("fetch.pack.before");
	if (r < 0)
		return hib_fail_errno(error, -r, "fetch");
	request->body.capacity = body_bytes(fetch);
	request->body.limit = (size_t)fetch->length;
	request->call = (struct store_call){
		.cancel = &d->cancel,
		.progress = d->call->progress,
	};
	lineage_pack_key(d->lineage, d->table->packs[fetch->pack],
			 request->key);
	return 0;
}

static int submit(struct download *d, struct fetch *fetch,
		  struct hib_error *error)
{
	struct engine *engine = d->engine;
	int r = begin_fetch(d, fetch, error);

	if (r < 0)
		return r;
	pthread_mutex_lock(&engine->lock);
	d->under_way++;
	pthread_mutex_unlock(&engine->lock);
	store_get_async(engine_store(engine), fetch->request->key,
			fetch->offset, fetch->length, &fetch->request->body,
			&fetch->request->call, fetched, fetch);
	return 0;
}

static void submit_all(struct download *d)
{
	for (size_t i = 0; i < d->fetch_count; i++) {
		struct hib_error error = HIB_ERROR_INIT;
		int r = submit(d, &d->fetches[i], &error);

		if (r < 0) {
			engine_job_fail(d->engine, &d->job, r, &error);
			return;
		}
	}
}

/* After a failure: requests end, and what had arrived is let go. */
static void settle(struct download *d, int result)
{
	if (result < 0)
		cancel_request(&d->cancel);
	pthread_mutex_lock(&d->engine->lock);
	while (d->under_way)
		pthread_cond_wait(&d->engine->progress, &d->engine->lock);
	pthread_mutex_unlock(&d->engine->lock);
	for (size_t i = 0; i < d->fetch_count; i++)
		release(&d->fetches[i]);
}

static int run(struct download *d, struct hib_error *error)
{
	int r;

	d->job = (struct engine_job){
		.work = work_item,
		.item_count = d->zero_count + d->fetch_count,
		.ready_count = d->zero_count,
	};
	engine_job_start(d->engine, &d->job);
	submit_all(d);
	r = engine_job_finish(d->engine, &d->job, d->call->cancel, error);
	settle(d, r);
	return r;
}

int engine_fetch(struct engine *engine, const struct lineage *lineage,
		 const struct chunk_table *table,
		 const struct target_file *files, size_t count,
		 engine_open_fn open, void *arg, bool durable,
		 const struct engine_call *call, struct hib_error *error)
{
	struct download d = {
		.engine = engine,
		.lineage = lineage,
		.table = table,
		.files = files,
		.file_count = count,
		.open = open,
		.arg = arg,
		.durable = durable,
		.call = call,
	};
	int r = count > UINT32_MAX ? hib_fail(error, EFBIG, "too many files")
				   : count_wants(&d, error);

	cancel_init(&d.cancel, call->cancel);
	if (r == 0 && (list_wants(&d) < 0 || list_fetches(&d) < 0))
		r = hib_fail(error, ENOMEM, "out of memory");
	if (r == 0)
		r = run(&d, error);
	cancel_done(&d.cancel);
	free(d.wants);
	free(d.zeros);
	free(d.zero_bytes);
	free(d.left);
	free(d.fetches);
	free(d.ready);
	return r;
}
