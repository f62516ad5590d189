/*
 * What to ask the store for. Every chunk that is wanted, of every file, goes
 * into one list in the order of packs and offsets; what lies close together
 * becomes one ranged GET.
 */
#include <errno.h>
#include <stdlib.h>

#include "transfer/download_internal.h"

/* Bytes that nobody wants are read along when a second request costs more. */
#define GAP_BYTES (256u << 10)
/* Larger requests gain nothing, and fewer of them fit into memory. */
#define FETCH_BYTES_MAX (8u << 20)
_Static_assert(FETCH_BYTES_MAX >= 2 * CHUNK_BYTES_MAX, "a chunk fits");

size_t target_find_extent(const struct target_file *file, uint64_t offset)
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
	extent = target_find_extent(file, offset);
	return extent < file->extent_count &&
			       file->extents[extent].offset <
				       offset + target_chunk_length(file, chunk)
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
			skipped += target_chunk_length(file, c);
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
	if (!d->wants || !d->zeros || !d->left)
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
	return 0;
}

int download_plan(struct download *d, struct hib_error *error)
{
	int r = d->file_count > UINT32_MAX
			? hib_fail(error, EFBIG, "too many files")
			: count_wants(d, error);

	if (r == 0 && (list_wants(d) < 0 || list_fetches(d) < 0))
		r = hib_fail(error, ENOMEM, "out of memory");
	return r;
}

void download_free_plan(struct download *d)
{
	free(d->wants);
	free(d->zeros);
	free(d->left);
	free(d->fetches);
}
