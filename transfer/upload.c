/*
 * Rounds of the snapshot writer: reading files into packs.
 *
 * A round has two jobs for the engine's workers. The heads: each file's holes
 * are mapped and its first chunk is read; what is new of it enters the packs in
 * path order, whichever worker is quicker, so that a database can open from the
 * first packs. The bodies: the rest, in segments of a few chunks, in any order.
 * A round ends with the open pack sent, so that a writer between rounds holds
 * no buffer.
 *
 * Threads: the caller of each function, and the engine's workers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "transfer/upload_internal.h"

#define SEGMENT_BYTES (16u << 20)
#define LARGE_ROUND_BYTES ((uint64_t)256 << 20)
#define EXTENTS_MAX 65536
/* Beyond so many runs of data, holes up to this size are taken as data first. */
#define EXTENT_GAP_BYTES 65536

/* A few consecutive chunks of one file. */
struct segment {
	size_t file;
	uint64_t first, count;
};

struct round {
	struct engine_job job;
	struct snapshot_writer *writer;
	struct source_file *files;
	size_t count;
	engine_open_fn open;
	void *arg;
	const struct engine_call *call;
	struct segment *segments;
	size_t segment_count, segment_capacity;
};

/* ---- chunks ---- */

static uint64_t chunk_length(const struct source_file *file, uint64_t chunk)
{
	uint64_t offset = chunk * file->chunk_bytes;
	uint64_t left = file->size - offset;

	return left < file->chunk_bytes ? left : file->chunk_bytes;
}

static bool wants_compression(struct snapshot_writer *writer)
{
	struct engine *engine = writer->engine;

	return engine_wants_compression(
		engine->config.compression, atomic_load(&engine->packs_sending),
		(unsigned)(engine->memory_limit / engine->config.pack_bytes));
}

/* Heads enter the packs in the order of their files. */
static void wait_for_turn(struct snapshot_writer *writer, size_t turn)
{
	pthread_mutex_lock(&writer->lock);
	while (writer->head_turn != turn && !writer->result &&
	       !cancel_requested(&writer->cancel))
		pthread_cond_wait(&writer->changed, &writer->lock);
	pthread_mutex_unlock(&writer->lock);
}

static void end_turn(struct snapshot_writer *writer, size_t turn)
{
	pthread_mutex_lock(&writer->lock);
	if (writer->head_turn == turn)
		writer->head_turn = turn + 1;
	pthread_cond_broadcast(&writer->changed);
	pthread_mutex_unlock(&writer->lock);
}

#define NO_TURN SIZE_MAX

/* Reads one chunk, and stores it when it is new. */
static int take_chunk(struct round *round, struct source_file *file,
		      uint64_t chunk, int fd, size_t turn,
		      struct engine_worker *worker, struct hib_error *error)
{
	struct chunk_record *record = &file->ret_records[chunk];
	struct progress *progress = round->call->progress;
	size_t size = (size_t)chunk_length(file, chunk);
	const void *stored;
	uint32_t stored_bytes, flags;
	int r = file_read_full(fd, worker->scratch, size,
			       chunk * file->chunk_bytes);

	if (r == -ENODATA) {
		/* shorter than it was: zero, and read again next round */
		file->ret_changed_size = true;
		progress_add_bytes_done(progress, size);
		return 0;
	}
	if (r < 0)
		return hib_fail_errno(error, -r, "read");
	progress_add_bytes_read(progress, size);
	progress_add_bytes_done(progress, size);
	if (codec_is_zero(worker->scratch, size))
		return 0;
	r = codec_id(worker->codec, worker->scratch, size, record->id);
	if (r < 0)
		return hib_fail(error, ENOMEM, "out of memory");
	progress_add_bytes_hashed(progress, size);
	record->flags = 0;
	if (writer_find(round->writer, record)) {
		progress_add_bytes_skipped(progress, size);
		return 0;
	}
	r = codec_encode(worker->codec, wants_compression(round->writer),
			 worker->scratch, size, &stored, &stored_bytes, &flags);
	if (r < 0)
		return hib_fail(error, ENOMEM, "out of memory");
	if (turn != NO_TURN)
		wait_for_turn(round->writer, turn);
	return writer_store(round->writer, stored, stored_bytes, (uint32_t)size,
			    flags, record, error);
}

/* ---- holes ---- */

/* The runs of data found so far; a hole up to `gap` does not part two. */
struct extent_list {
	struct entry_extent *extents; /* owned */
	size_t count, capacity;
	uint64_t gap;
};

static uint64_t extent_end(const struct entry_extent *extent)
{
	return extent->offset + extent->length;
}

static bool extend(struct entry_extent *last, uint64_t gap, uint64_t offset,
		   uint64_t end)
{
	if (offset - extent_end(last) > gap)
		return false;
	last->length = end - last->offset;
	return true;
}

/* Joins what is nearest, until half of the list is free again. */
static void coarsen(struct extent_list *list)
{
	while (list->count > EXTENTS_MAX / 2) {
		size_t kept = 0;

		list->gap = list->gap ? list->gap * 2 : EXTENT_GAP_BYTES;
		for (size_t i = 1; i < list->count; i++) {
			const struct entry_extent *next = &list->extents[i];

			if (!extend(&list->extents[kept], list->gap,
				    next->offset, extent_end(next)))
				list->extents[++kept] = *next;
		}
		list->count = kept + 1;
	}
}

static int add_extent(struct extent_list *list, uint64_t offset, uint64_t end)
{
	if (list->count == EXTENTS_MAX)
		coarsen(list);
	if (list->count &&
	    extend(&list->extents[list->count - 1], list->gap, offset, end))
		return 0;
	if (list->count == list->capacity) {
		size_t more = list->capacity * 2 + 16;
		struct entry_extent *grown =
			reallocarray(list->extents, more, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		list->extents = grown;
		list->capacity = more;
	}
	list->extents[list->count++] =
		(struct entry_extent){ offset, end - offset };
	return 0;
}

/* Where a file system cannot tell, or no more, all is data. -ENOMEM. */
static int list_extents(const struct source_file *file, int fd,
			struct extent_list *list)
{
	uint64_t position = 0;

	while (position < file->size) {
		off_t data = lseek(fd, (off_t)position, SEEK_DATA), hole;
		int r;

		if (data < 0 && errno == ENXIO)
			break;
		if (data < 0)
			data = (off_t)position;
		if ((uint64_t)data >= file->size)
			break;
		hole = lseek(fd, data, SEEK_HOLE);
		position = hole > data && (uint64_t)hole < file->size
				   ? (uint64_t)hole
				   : file->size;
		r = add_extent(list, (uint64_t)data, position);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The runs of data; none at all when the whole file is one. */
static int map_holes(struct source_file *file, int fd, struct hib_error *error)
{
	struct extent_list list = { 0 };
	bool whole;

	if (list_extents(file, fd, &list) < 0) {
		free(list.extents);
		return hib_fail(error, ENOMEM, "out of memory");
	}
	whole = list.count == 1 && list.extents[0].offset == 0 &&
		list.extents[0].length == file->size;
	file->ret_sparse = file->size && !whole;
	if (!file->ret_sparse) {
		free(TAKE_PTR(list.extents));
		list.count = 0;
	}
	file->ret_extents = list.extents;
	file->ret_extent_count = list.count;
	return 0;
}

/* The chunks that hold data, as runs [first, end): calls `visit` for each. */
static int each_data_run(const struct source_file *file,
			 int (*visit)(void *arg, uint64_t first, uint64_t end),
			 void *arg)
{
	uint64_t next = 0;

	if (!file->ret_sparse)
		return file->ret_record_count
			       ? visit(arg, 0, file->ret_record_count)
			       : 0;
	for (uint64_t i = 0; i < file->ret_extent_count; i++) {
		const struct entry_extent *extent = &file->ret_extents[i];
		uint64_t first = extent->offset / file->chunk_bytes;
		uint64_t end = (extent->offset + extent->length - 1) /
				       file->chunk_bytes +
			       1;
		int r;

		if (first < next)
			first = next;
		if (first >= end)
			continue;
		r = visit(arg, first, end);
		if (r < 0)
			return r;
		next = end;
	}
	return 0;
}

struct coverage {
	const struct source_file *file;
	uint64_t bytes;
	bool head; /* the first chunk holds data */
};

static int cover(void *arg, uint64_t first, uint64_t end)
{
	struct coverage *coverage = arg;
	const struct source_file *file = coverage->file;
	uint64_t from = first * file->chunk_bytes;
	uint64_t to = end * file->chunk_bytes;

	coverage->bytes += (to < file->size ? to : file->size) - from;
	if (first == 0)
		coverage->head = true;
	return 0;
}

/* ---- the jobs ---- */

static int begin_file(struct source_file *file, int fd,
		      struct progress *progress, bool *ret_head,
		      struct hib_error *error)
{
	struct coverage coverage = { .file = file };
	int r;

	file->ret_record_count = file->size / file->chunk_bytes +
				 (file->size % file->chunk_bytes != 0);
	if (file->ret_record_count > CHUNK_TABLE_MAX_RECORDS)
		return hib_fail(error, EFBIG, "it has too many chunks");
	file->ret_records =
		calloc(file->ret_record_count + 1, sizeof(struct chunk_record));
	if (!file->ret_records)
		return hib_fail(error, ENOMEM, "out of memory");
	for (uint64_t i = 0; i < file->ret_record_count; i++)
		file->ret_records[i].flags = CHUNK_ZERO;
	r = map_holes(file, fd, error);
	if (r < 0)
		return r;
	each_data_run(file, cover, &coverage);
	progress_add_bytes_done(progress, file->size - coverage.bytes);
	progress_add_files_done(progress, 1);
	posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	*ret_head = coverage.head;
	return 0;
}

static int stop_reason(struct round *round, struct hib_error *error)
{
	if (cancel_requested(&round->writer->cancel) ||
	    cancel_requested(round->call->cancel))
		return writer_failure(round->writer, -ECANCELED, error);
	return 0;
}

/* -ENOENT: it was removed since the walk; that is for the next round to see. */
static int open_file(struct round *round, size_t index, const char **ret_path,
		     int *ret_fd, struct hib_error *error)
{
	int fd = round->open(round->arg, index, ret_path, error);

	if (fd == -ENOENT) {
		round->files[index].ret_changed_size = true;
		*ret_fd = -EBADF;
		return 0;
	}
	*ret_fd = fd;
	return fd < 0 ? fd : 0;
}

static int take_head(struct engine_job *job, size_t item,
		     struct engine_worker *worker, struct hib_error *error)
{
	struct round *round = container_of(job, struct round, job);
	struct source_file *file = &round->files[item];
	CLEANUP_CLOSE int fd = -EBADF;
	const char *path = "";
	bool head = false;
	int r = stop_reason(round, error);

	if (r == 0)
		r = open_file(round, item, &path, &fd, error);
	if (r == 0 && fd >= 0) {
		r = begin_file(file, fd, round->call->progress, &head, error);
		if (r == 0 && head)
			r = take_chunk(round, file, 0, fd, item, worker, error);
		if (r < 0)
			hib_wrap(error, r, "\"%s\"", path);
	}
	wait_for_turn(round->writer, item);
	end_turn(round->writer, item);
	if (r < 0)
		writer_fail(round->writer, r, error);
	return r;
}

static int take_segment(struct engine_job *job, size_t item,
			struct engine_worker *worker, struct hib_error *error)
{
	struct round *round = container_of(job, struct round, job);
	const struct segment *segment = &round->segments[item];
	struct source_file *file = &round->files[segment->file];
	CLEANUP_CLOSE int fd = -EBADF;
	const char *path = "";
	int r = open_file(round, segment->file, &path, &fd, error);

	if (r == 0 && fd < 0)
		return 0;
	for (uint64_t i = 0; i < segment->count && r == 0; i++) {
		r = stop_reason(round, error);
		if (r == 0)
			r = take_chunk(round, file, segment->first + i, fd,
				       NO_TURN, worker, error);
	}
	return r < 0 ? hib_wrap(error, r, "\"%s\"", path) : 0;
}

struct segmenting {
	struct round *round;
	size_t file;
};

static int add_segments(void *arg, uint64_t first, uint64_t end)
{
	struct segmenting *segmenting = arg;
	struct round *round = segmenting->round;
	uint64_t step =
		SEGMENT_BYTES / round->files[segmenting->file].chunk_bytes;

	if (first == 0)
		first = 1; /* the head has been read */
	if (step == 0)
		step = 1;
	for (; first < end; first += step) {
		if (round->segment_count == round->segment_capacity) {
			size_t more = round->segment_capacity * 2 + 64;
			struct segment *grown = reallocarray(
				round->segments, more, sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			round->segments = grown;
			round->segment_capacity = more;
		}
		round->segments[round->segment_count++] = (struct segment){
			.file = segmenting->file,
			.first = first,
			.count = end - first < step ? end - first : step,
		};
	}
	return 0;
}

static int list_segments(struct round *round, struct hib_error *error)
{
	for (size_t i = 0; i < round->count; i++) {
		struct segmenting segmenting = { round, i };

		if (round->files[i].ret_records &&
		    each_data_run(&round->files[i], add_segments, &segmenting) <
			    0)
			return hib_fail(error, ENOMEM, "out of memory");
	}
	return 0;
}

static int run_job(struct round *round, size_t count,
		   int (*work)(struct engine_job *job, size_t item,
			       struct engine_worker *worker,
			       struct hib_error *error),
		   struct hib_error *error)
{
	struct engine *engine = round->writer->engine;

	round->job = (struct engine_job){
		.work = work,
		.item_count = count,
		.ready_count = count,
	};
	engine_job_start(engine, &round->job);
	return engine_job_finish(engine, &round->job, round->call->cancel,
				 error);
}

static void wake_writer(void *arg)
{
	struct snapshot_writer *writer = arg;

	cancel_request(&writer->cancel);
	pthread_mutex_lock(&writer->lock);
	pthread_cond_broadcast(&writer->changed);
	pthread_mutex_unlock(&writer->lock);
}

/* After a failure: nothing is under way, and the first error is told. */
static int end_failed(struct snapshot_writer *writer, int r,
		      struct hib_error *error)
{
	cancel_request(&writer->cancel);
	writer_wait_for_packs(writer);
	return writer_failure(writer, r, error);
}

static bool is_large(const struct source_file *files, size_t count)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < count && bytes <= LARGE_ROUND_BYTES; i++)
		bytes += files[i].size;
	return bytes > LARGE_ROUND_BYTES;
}

int snapshot_writer_round(struct snapshot_writer *writer,
			  struct source_file *files, size_t count,
			  engine_open_fn open, void *arg,
			  const struct engine_call *call,
			  struct hib_error *error)
{
	struct cancel_watch watch = { .wake = wake_writer, .arg = writer };
	struct round round = {
		.writer = writer,
		.files = files,
		.count = count,
		.open = open,
		.arg = arg,
		.call = call,
	};
	bool large = is_large(files, count);
	int r;

	writer->progress = call->progress;
	writer->head_turn = 0;
	cancel_watch_add(call->cancel, &watch);
	r = engine_round_begin(writer->engine, large, call->cancel);
	if (r == 0) {
		r = run_job(&round, count, take_head, error);
		if (r == 0)
			r = list_segments(&round, error);
		if (r == 0)
			r = run_job(&round, round.segment_count, take_segment,
				    error);
		if (r == 0)
			r = writer_send_open(writer, error);
		engine_round_end(writer->engine, large);
	}
	cancel_watch_remove(call->cancel, &watch);
	free(round.segments);
	return r < 0 ? end_failed(writer, r, error) : 0;
}

int snapshot_writer_flush(struct snapshot_writer *writer,
			  const struct engine_call *call,
			  struct hib_error *error)
{
	struct cancel_watch watch = { .wake = wake_writer, .arg = writer };
	int r;

	writer->progress = call->progress;
	cancel_watch_add(call->cancel, &watch);
	r = writer_send_open(writer, error);
	writer_wait_for_packs(writer);
	cancel_watch_remove(call->cancel, &watch);
	if (r == 0 && (writer->result || cancel_requested(&writer->cancel)))
		r = -ECANCELED;
	return r < 0 ? end_failed(writer, r, error) : 0;
}
