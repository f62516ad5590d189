/*
 * Fetching files, as download_plan.c has planned it. The caller of
 * engine_fetch() keeps several ranged GETs under way, the store puts the bytes
 * into the engine's buffers, and the workers check each chunk once and write it
 * to all the places that want it. Zero bytes that are data and no hole are
 * written by items of their own.
 *
 * Threads: the caller submits; the store's thread calls fetched(); the workers
 * run work_item(). A fetch belongs to one of them at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/encode.h"
#include "base/fault.h"
#include "base/file.h"
#include "transfer/download_internal.h"

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
	uint64_t end = offset + target_chunk_length(file, want->chunk);
	int r = 0;

	if (!file->sparse) {
		r = target_open(target, want->file, error);
		if (r == 0)
			r = write_part(target, plain, offset, offset, end,
				       error);
	}
	for (size_t i = file->sparse ? target_find_extent(file, offset)
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
			target_chunk_length(&d->files[want->file], want->chunk);

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
	int r = download_plan(&d, error);

	cancel_init(&d.cancel, call->cancel);
	d.zero_bytes = calloc(1, CHUNK_BYTES_MAX);
	d.ready = calloc(d.fetch_count + 1, sizeof(struct fetch *));
	if (r == 0 && (!d.zero_bytes || !d.ready))
		r = hib_fail(error, ENOMEM, "out of memory");
	if (r == 0)
		r = run(&d, error);
	cancel_done(&d.cancel);
	download_free_plan(&d);
	free(d.zero_bytes);
	free(d.ready);
	return r;
}
