/*
 * An engine over a file:// store in a scratch directory, and files that go up
 * and come back: "in0000" becomes "out0000".
 */
#ifndef HIBFS_TESTS_UNIT_ENGINE_FIXTURE_H
#define HIBFS_TESTS_UNIT_ENGINE_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/scratch.h"
#include "tests/unit/test.h"
#include "transfer/engine.h"
#include "transfer/snapshot.h"

#define FILES 40

struct fixture {
	char root[256];
	int dirfd;
	struct store *store;
	struct engine *engine;
	struct lineage lineage;
	struct progress progress;
	struct engine_call call;
	uint64_t sizes[FILES];
	size_t count;
	char prefix[16]; /* of the names that open_file() opens */
	int flags;
};

__attribute__((unused)) static void name_of(const struct fixture *f,
					    size_t index, char ret[64])
{
	snprintf(ret, 64, "%s%04zu", f->prefix, index);
}

__attribute__((unused)) static int open_file(void *arg, size_t index,
					     const char **ret_path,
					     struct hib_error *error)
{
	struct fixture *f = arg;
	char name[64];
	int fd;

	name_of(f, index, name);
	*ret_path = "a file";
	fd = openat(f->dirfd, name, f->flags | O_CLOEXEC, 0600);
	return fd < 0 ? hib_fail_errno(error, errno, "open %s", name) : fd;
}

__attribute__((unused)) static void set_up(struct fixture *f)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct store_config store = { 0 };
	struct engine_config engine = { .workers = 2 };
	char url[512];

	memset(f, 0, sizeof(*f));
	f->dirfd = scratch_new();
	scratch_path(f->dirfd, f->root);
	snprintf(url, sizeof(url), "file://%s/store", f->root);
	store.url = url;
	CHECK_INT(store_open(&store, &f->store, &error), 0);
	engine.store = f->store;
	CHECK_INT(engine_new(&engine, &f->engine, &error), 0);
	CHECK_INT(lineage_init(&f->lineage, "b", "s", &error), 0);
	progress_init(&f->progress);
	f->call.progress = &f->progress;
}

__attribute__((unused)) static void tear_down(struct fixture *f)
{
	engine_free(f->engine);
	store_close(f->store);
	scratch_done(f->dirfd);
}

/* A file of pseudo-random or repeating bytes, with holes when asked for. */
__attribute__((unused)) static void make_file(struct fixture *f,
					      const char *prefix, uint64_t size,
					      unsigned seed, bool sparse)
{
	CLEANUP_FREE uint8_t *data = malloc(size + 1);
	CLEANUP_CLOSE int fd = -EBADF;
	char name[64];

	snprintf(name, sizeof(name), "%s%04zu", prefix, f->count);
	for (uint64_t i = 0; i < size; i++)
		data[i] = (uint8_t)(rand_r(&seed) >> 7);
	fd = openat(f->dirfd, name, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_INT(ftruncate(fd, (off_t)size), 0);
	for (uint64_t at = 0; at < size; at += 65536)
		if (!sparse || (at / 65536) % 7 == 3)
			CHECK_INT(file_write_full(fd, data + at,
						  size - at < 65536 ? size - at
								    : 65536,
						  at),
				  0);
	f->sizes[f->count++] = size;
}

__attribute__((unused)) static void make_files(struct fixture *f)
{
	static const uint64_t sizes[] = { 0,	  1,	   4095,   4096,
					  262144, 262145,  300000, 5000000,
					  8192,	  9000000, 100,	   33000000 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		make_file(f, "in", sizes[i], (unsigned)i + 1, i % 3 == 2);
	/* the same bytes as another */
	make_file(f, "in", 5000000, 8, false);
}

__attribute__((unused)) static void
upload(struct fixture *f, const struct chunk_table *parent,
       struct source_file *files, struct chunk_table **ret, uint64_t *first)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct snapshot_writer *writer;

	strcpy(f->prefix, "in");
	f->flags = O_RDONLY;
	CHECK_INT(snapshot_writer_new(f->engine, &f->lineage, parent, &writer,
				      &error),
		  0);
	for (size_t i = 0; i < f->count; i++)
		files[i] = (struct source_file){
			.size = f->sizes[i],
			.chunk_bytes = chunk_bytes_for(f->sizes[i]),
		};
	CHECK_INT(snapshot_writer_round(writer, files, f->count, open_file, f,
					&f->call, &error),
		  0);
	CHECK_INT(snapshot_writer_flush(writer, &f->call, &error), 0);
	*ret = chunk_table_new();
	for (size_t i = 0; i < f->count; i++)
		CHECK_INT(snapshot_writer_append(writer, &files[i], *ret,
						 &first[i], &error),
			  0);
	snapshot_writer_free(writer);
}

__attribute__((unused)) static void free_sources(struct fixture *f,
						 struct source_file *files)
{
	for (size_t i = 0; i < f->count; i++) {
		free(files[i].ret_records);
		free(files[i].ret_extents);
	}
}

__attribute__((unused)) static int fetch(struct fixture *f,
					 const struct source_file *files,
					 const struct chunk_table *table,
					 const uint64_t *first,
					 struct hib_error *error)
{
	struct target_file targets[FILES];
	char name[64];

	strcpy(f->prefix, "out");
	f->flags = O_WRONLY | O_CREAT;
	for (size_t i = 0; i < f->count; i++) {
		CLEANUP_CLOSE int fd = -EBADF;

		targets[i] = (struct target_file){
			.size = files[i].size,
			.chunk_bytes = files[i].chunk_bytes,
			.first_chunk = first[i],
			.chunk_count = files[i].ret_record_count,
			.sparse = files[i].ret_sparse,
			.extents = files[i].ret_extents,
			.extent_count = files[i].ret_extent_count,
		};
		name_of(f, i, name);
		fd = openat(f->dirfd, name, O_CREAT | O_WRONLY | O_TRUNC, 0600);
		CHECK_INT(ftruncate(fd, (off_t)files[i].size), 0);
	}
	return engine_fetch(f->engine, &f->lineage, table, targets, f->count,
			    open_file, f, true, &f->call, error);
}

__attribute__((unused)) static void check_same_holes(struct fixture *f,
						     size_t index, size_t size)
{
	CLEANUP_CLOSE int in = -EBADF, out = -EBADF;
	char name[64];

	snprintf(name, sizeof(name), "in%04zu", index);
	in = openat(f->dirfd, name, O_RDONLY);
	snprintf(name, sizeof(name), "out%04zu", index);
	out = openat(f->dirfd, name, O_RDONLY);
	for (off_t at = 0; at < (off_t)size; at += 4096) {
		CHECK_INT(lseek(in, at, SEEK_DATA), lseek(out, at, SEEK_DATA));
		CHECK_INT(lseek(in, at, SEEK_HOLE), lseek(out, at, SEEK_HOLE));
	}
}

/* Same bytes, and the same holes. */
__attribute__((unused)) static void check_same(struct fixture *f, size_t index)
{
	CLEANUP(buffer_done) struct buffer in = BUFFER_INIT(64u << 20);
	CLEANUP(buffer_done) struct buffer out = BUFFER_INIT(64u << 20);
	char name[64];

	snprintf(name, sizeof(name), "in%04zu", index);
	CHECK_INT(file_read_all(f->dirfd, name, &in, NULL), 0);
	snprintf(name, sizeof(name), "out%04zu", index);
	CHECK_INT(file_read_all(f->dirfd, name, &out, NULL), 0);
	CHECK_INT(in.size, out.size);
	CHECK(in.size == 0 || memcmp(in.data, out.data, in.size) == 0);
	check_same_holes(f, index, in.size);
}

#endif
