#include "control/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "fs/tree.h"

/* One regular file of the last round: what was read of it, and when. */
struct captured_file {
	size_t entry; /* in the round's manifest */
	struct tree_identity identity; /* noted before it was read */
	bool noted; /* guarded by capture->lock while a round runs */
	bool read; /* in the last round, not carried over */
	struct source_file source; /* records and extents are owned */
};

struct capture {
	struct engine *engine;
	uint32_t chunk_bytes; /* the smallest of a new file */
	int dirfd;
	struct manifest *parent_manifest;
	struct chunk_table *parent_table;
	struct snapshot_writer *writer;
	struct manifest *manifest; /* of the last round */
	struct captured_file *files; /* sorted by (device, inode) */
	size_t file_count;
	/* the files that the running round reads: indices into `files` */
	size_t *reading;
	size_t reading_count;
	pthread_mutex_t lock;
};

static void files_free(struct captured_file *files, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(files[i].source.ret_records);
		free(files[i].source.ret_extents);
	}
	free(files);
}

int capture_new(struct engine *engine, const struct lineage *lineage,
		uint32_t chunk_bytes, int dirfd,
		struct manifest *parent_manifest,
		struct chunk_table *parent_table, struct capture **ret,
		struct hib_error *error)
{
	struct capture *capture = calloc(1, sizeof(*capture));
	int r;

	if (!capture) {
		close_fd(dirfd);
		manifest_free(parent_manifest);
		chunk_table_free(parent_table);
		return hib_fail(error, ENOMEM, "out of memory");
	}
	pthread_mutex_init(&capture->lock, NULL);
	capture->engine = engine;
	capture->chunk_bytes = chunk_bytes;
	capture->dirfd = dirfd;
	capture->parent_manifest = parent_manifest;
	capture->parent_table = parent_table;
	r = snapshot_writer_new(engine, lineage, parent_table, &capture->writer,
				error);
	if (r < 0) {
		capture_free(capture);
		return r;
	}
	*ret = capture;
	return 0;
}

struct capture *capture_free(struct capture *capture)
{
	if (!capture)
		return NULL;
	snapshot_writer_free(capture->writer);
	files_free(capture->files, capture->file_count);
	manifest_free(capture->manifest);
	manifest_free(capture->parent_manifest);
	chunk_table_free(capture->parent_table);
	close_fd(capture->dirfd);
	free(capture->reading);
	pthread_mutex_destroy(&capture->lock);
	free(capture);
	return NULL;
}

static int compare_identities(const struct tree_identity *a,
			      const struct tree_identity *b)
{
	if (a->device != b->device)
		return a->device < b->device ? -1 : 1;
	if (a->inode != b->inode)
		return a->inode < b->inode ? -1 : 1;
	return 0;
}

static int compare_files(const void *a, const void *b)
{
	const struct captured_file *left = a, *right = b;

	return compare_identities(&left->identity, &right->identity);
}

static struct captured_file *find_before(struct capture *capture,
					 const struct tree_identity *identity)
{
	struct captured_file wanted = { .identity = *identity };

	return capture->file_count
		       ? bsearch(&wanted, capture->files, capture->file_count,
				 sizeof(wanted), compare_files)
		       : NULL;
}

/* The first name of an inode carries its contents. */
static bool carries_contents(const struct manifest_entry *entries, size_t index,
			     const uint64_t *first_of_group, size_t groups)
{
	uint64_t group = entries[index].hard_link_group;

	if (entries[index].type != ENTRY_FILE)
		return false;
	return group == 0 || (group < groups && first_of_group[group] == index);
}

/* first_of_group[g] is the index of the first entry of hard-link group g. */
static int find_groups(const struct manifest *manifest, uint64_t **ret_first,
		       size_t *ret_groups)
{
	size_t groups = 1;
	uint64_t *first;

	for (size_t i = 0; i < manifest->entry_count; i++)
		if (manifest->entries[i].hard_link_group >= groups)
			groups = manifest->entries[i].hard_link_group + 1;
	first = malloc(groups * sizeof(*first));
	if (!first)
		return -ENOMEM;
	memset(first, 0xff, groups * sizeof(*first));
	for (size_t i = 0; i < manifest->entry_count; i++) {
		uint64_t group = manifest->entries[i].hard_link_group;

		if (group && first[group] == UINT64_MAX)
			first[group] = i;
	}
	*ret_first = first;
	*ret_groups = groups;
	return 0;
}

static uint32_t chunk_bytes_of(const struct capture *capture,
			       const struct manifest_entry *entry)
{
	const struct manifest_entry *before =
		capture->parent_manifest
			? manifest_find(capture->parent_manifest, entry->path)
			: NULL;

	uint32_t wanted;

	if (before && before->type == ENTRY_FILE && before->chunk_bytes)
		return before->chunk_bytes;
	wanted = chunk_bytes_for(entry->size);
	return wanted > capture->chunk_bytes ? wanted : capture->chunk_bytes;
}

/*
 * The files of a newly walked manifest, with what the round before read of
 * those that did not change carried over.
 */
static int collect_files(struct capture *capture,
			 const struct manifest *manifest,
			 const struct tree_identity *identities,
			 struct captured_file **ret, size_t *ret_count)
{
	CLEANUP_FREE uint64_t *first = NULL;
	struct captured_file *files;
	size_t groups, count = 0;
	int r = find_groups(manifest, &first, &groups);

	if (r < 0)
		return r;
	files = calloc(manifest->entry_count + 1, sizeof(*files));
	if (!files)
		return -ENOMEM;
	for (size_t i = 0; i < manifest->entry_count; i++) {
		struct captured_file *file = &files[count], *before;

		if (!carries_contents(manifest->entries, i, first, groups))
			continue;
		count++;
		before = find_before(capture, &identities[i]);
		if (before && before->noted &&
		    !before->source.ret_changed_size &&
		    tree_identity_same(&before->identity, &identities[i])) {
			*file = *before;
			before->source.ret_records = NULL;
			before->source.ret_extents = NULL;
			before->noted = false;
			file->read = false;
		} else {
			file->identity = identities[i];
			file->source.size = identities[i].size;
			file->source.chunk_bytes =
				before ? before->source.chunk_bytes
				       : chunk_bytes_of(capture,
							&manifest->entries[i]);
			file->read = true;
		}
		file->entry = i;
	}
	*ret = files;
	*ret_count = count;
	return 0;
}

/* Runs in the engine's threads. A file may be opened more than once. */
static int open_source(void *arg, size_t index, const char **ret_path,
		       struct hib_error *error)
{
	struct capture *capture = arg;
	struct captured_file *file = &capture->files[capture->reading[index]];
	const char *path = capture->manifest->entries[file->entry].path;
	struct tree_identity identity;
	bool noted;
	int fd, r;

	*ret_path = path;
	fd = tree_open(capture->dirfd, path, O_RDONLY, error);
	if (fd < 0)
		return fd;
	pthread_mutex_lock(&capture->lock);
	noted = file->noted;
	pthread_mutex_unlock(&capture->lock);
	if (noted)
		return fd;
	r = tree_identify(fd, &identity, error);
	if (r < 0) {
		close_fd(fd);
		return r;
	}
	/*
	 * A size other than the walk's stays as it was walked: the next round
	 * sees the difference and reads the file again.
	 */
	identity.size = file->source.size == identity.size ? identity.size
							   : file->source.size;
	pthread_mutex_lock(&capture->lock);
	if (!file->noted) {
		if (compare_identities(&identity, &file->identity) == 0)
			file->noted = true;
		file->identity = identity;
	}
	pthread_mutex_unlock(&capture->lock);
	return fd;
}

static int read_files(struct capture *capture, struct capture_round *round,
		      const struct engine_call *call, struct hib_error *error)
{
	CLEANUP_FREE struct source_file *sources = NULL;
	size_t count = 0;
	int r;

	free(capture->reading);
	capture->reading = calloc(capture->file_count + 1, sizeof(size_t));
	sources = calloc(capture->file_count + 1, sizeof(*sources));
	if (!capture->reading || !sources)
		return hib_fail(error, ENOMEM, "out of memory");
	for (size_t i = 0; i < capture->file_count; i++) {
		struct captured_file *file = &capture->files[i];

		round->files++;
		round->bytes += file->source.size;
		if (!file->read) {
			round->kept_bytes += file->source.size;
			continue;
		}
		round->changed_files++;
		round->changed_bytes += file->source.size;
		capture->reading[count] = i;
		sources[count++] = file->source;
	}
	if (call->progress) {
		progress_add_bytes_total(call->progress, round->changed_bytes);
		progress_add_files_total(call->progress, round->changed_files);
	}
	r = snapshot_writer_round(capture->writer, sources, count, open_source,
				  capture, call, error);
	for (size_t i = 0; i < count; i++)
		capture->files[capture->reading[i]].source = sources[i];
	return r;
}

static int compare_entries_of_files(const void *a, const void *b)
{
	const struct captured_file *left = a, *right = b;

	return left->entry < right->entry ? -1 : left->entry > right->entry;
}

/* One file as the parent snapshot has it. */
static int preload_file(const struct capture *capture,
			const struct file_identity *known,
			struct captured_file *file)
{
	const struct manifest_entry *entry =
		&capture->parent_manifest->entries[known->entry];
	size_t records = entry->chunk_count * sizeof(struct chunk_record);
	size_t extents = entry->extent_count * sizeof(struct entry_extent);

	file->identity = known->identity;
	file->noted = true;
	file->source = (struct source_file){
		.size = entry->size,
		.chunk_bytes = entry->chunk_bytes,
		.ret_record_count = entry->chunk_count,
		.ret_sparse = entry->sparse,
		.ret_extent_count = entry->extent_count,
	};
	file->source.ret_records = malloc(records + 1);
	file->source.ret_extents = malloc(extents + 1);
	if (!file->source.ret_records || !file->source.ret_extents)
		return -ENOMEM;
	memcpy(file->source.ret_records,
	       &capture->parent_table->records[entry->first_chunk], records);
	if (extents)
		memcpy(file->source.ret_extents, entry->extents, extents);
	return 0;
}

int capture_preload(struct capture *capture,
		    const struct identities *identities,
		    struct hib_error *error)
{
	const struct manifest *parent = capture->parent_manifest;

	if (!parent || parent->seq != identities->seq)
		return 0;
	capture->files = calloc(identities->count + 1, sizeof(*capture->files));
	if (!capture->files)
		return hib_fail(error, ENOMEM, "out of memory");
	for (size_t i = 0; i < identities->count; i++) {
		const struct file_identity *known = &identities->files[i];

		if (known->entry >= parent->entry_count ||
		    parent->entries[known->entry].type != ENTRY_FILE ||
		    parent->entries[known->entry].size != known->identity.size)
			continue;
		if (preload_file(capture, known,
				 &capture->files[capture->file_count++]) < 0)
			return hib_fail(error, ENOMEM, "out of memory");
	}
	if (capture->file_count)
		qsort(capture->files, capture->file_count,
		      sizeof(*capture->files), compare_files);
	return 0;
}

int capture_run_round(struct capture *capture, const struct engine_call *call,
		      struct capture_round *ret, struct hib_error *error)
{
	CLEANUP_FREE struct tree_identity *identities = NULL;
	struct capture_round round = { 0 };
	struct captured_file *files = NULL;
	struct manifest *manifest;
	size_t count = 0;
	int r;

	manifest = manifest_new();
	if (!manifest)
		return hib_fail(error, ENOMEM, "out of memory");
	r = tree_capture(capture->dirfd, manifest, &identities, call->cancel,
			 error);
	if (r == 0) {
		r = collect_files(capture, manifest, identities, &files,
				  &count);
		if (r < 0)
			hib_fail(error, -r, "out of memory");
	}
	if (r < 0) {
		manifest_free(manifest);
		return r;
	}
	files_free(capture->files, capture->file_count);
	manifest_free(capture->manifest);
	capture->manifest = manifest;
	capture->files = files;
	capture->file_count = count;
	/* heads go into the first packs in path order */
	qsort(files, count, sizeof(*files), compare_entries_of_files);
	r = read_files(capture, &round, call, error);
	qsort(files, count, sizeof(*files), compare_files);
	if (r == 0)
		*ret = round;
	return r;
}

int capture_flush(struct capture *capture, const struct engine_call *call,
		  struct hib_error *error)
{
	return snapshot_writer_flush(capture->writer, call, error);
}

int capture_verify(struct capture *capture, struct cancel *cancel,
		   struct hib_error *error)
{
	for (size_t i = 0; i < capture->file_count; i++) {
		struct captured_file *file = &capture->files[i];
		const char *path = capture->manifest->entries[file->entry].path;
		const struct tree_identity *noted = &file->identity;
		struct tree_identity now;
		int r;

		if (cancel_requested(cancel))
			return hib_fail(error, ECANCELED, "cancelled");
		r = tree_identity_at(capture->dirfd, path, &now, error);
		if (r < 0)
			return r;
		if (!file->noted || file->source.ret_changed_size ||
		    compare_identities(noted, &now) != 0 ||
		    noted->size != now.size ||
		    noted->ctime.tv_sec != now.ctime.tv_sec ||
		    noted->ctime.tv_nsec != now.ctime.tv_nsec)
			return hib_fail(
				error, ESTALE,
				"\"%s\" changed while its shard was locked (a store through a shared mapping, or a change past the mount); nothing was committed, try again",
				path);
	}
	return 0;
}

int capture_finish(struct capture *capture, const struct engine_call *call,
		   struct manifest **ret_manifest,
		   struct chunk_table **ret_table, struct hib_error *error)
{
	struct chunk_table *table;
	int r = snapshot_writer_flush(capture->writer, call, error);

	if (r < 0)
		return r;
	table = chunk_table_new();
	if (!table)
		return hib_fail(error, ENOMEM, "out of memory");
	qsort(capture->files, capture->file_count, sizeof(*capture->files),
	      compare_entries_of_files);
	for (size_t i = 0; i < capture->file_count && r == 0; i++) {
		struct captured_file *file = &capture->files[i];
		struct manifest_entry *entry =
			&capture->manifest->entries[file->entry];

		r = snapshot_writer_append(capture->writer, &file->source,
					   table, &entry->first_chunk, error);
		entry->chunk_count = file->source.ret_record_count;
		entry->chunk_bytes = file->source.chunk_bytes;
		entry->size = file->source.size;
		entry->sparse = file->source.ret_sparse;
		entry->extents = TAKE_PTR(file->source.ret_extents);
		entry->extent_count = file->source.ret_extent_count;
	}
	if (r == 0 && manifest_total(capture->manifest) < 0)
		r = hib_fail(error, ENOMEM, "out of memory");
	if (r < 0) {
		chunk_table_free(table);
		return r;
	}
	*ret_manifest = TAKE_PTR(capture->manifest);
	*ret_table = table;
	return 0;
}
