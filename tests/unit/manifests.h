/* Manifests to test with: one that has something of everything. */
#ifndef HIBFS_TESTS_UNIT_MANIFESTS_H
#define HIBFS_TESTS_UNIT_MANIFESTS_H

#include <stdio.h>
#include <string.h>

#include "meta/manifest.h"
#include "tests/unit/test.h"

__attribute__((unused)) static struct manifest *manifest_header(void)
{
	struct manifest *m = manifest_new();

	CHECK(m);
	m->bucket = strdup("b\xff"
			   "cket");
	m->shard = strdup("sh\xc3\xa4rd");
	m->seq = 7;
	m->parent_seq = 6;
	m->epoch = 3;
	strcpy(m->node, "node-1");
	strcpy(m->task, "5e3a6f0a-0c6f-4f4e-9d6b-1a2b3c4d5e6f");
	m->started_ms = 1000;
	m->committed_ms = 2000;
	strcpy(m->tool_version, "hibfs 0.1.0");
	memset(m->chunk_table_sha256, 0xab, 32);
	return m;
}

__attribute__((unused)) static struct manifest_entry *
manifest_add_path(struct manifest *m, const char *path, enum entry_type type)
{
	struct manifest_entry *entry = manifest_add(m);

	CHECK(entry);
	entry->path = strdup(path);
	entry->type = type;
	entry->mode = type == ENTRY_DIRECTORY ? 0755 : 0644;
	return entry;
}

__attribute__((unused)) static struct manifest_entry *
manifest_add_file(struct manifest *m, const char *path, uint64_t size,
		  uint64_t *chunk)
{
	struct manifest_entry *entry = manifest_add_path(m, path, ENTRY_FILE);

	entry->size = size;
	entry->chunk_bytes = 262144;
	entry->first_chunk = *chunk;
	entry->chunk_count = (size + 262143) / 262144;
	*chunk += entry->chunk_count;
	return entry;
}

__attribute__((unused)) static void add_xattr(struct manifest_entry *entry,
					      const char *name,
					      const void *value, size_t size)
{
	entry->xattrs = reallocarray(entry->xattrs, entry->xattr_count + 1,
				     sizeof(*entry->xattrs));
	entry->xattrs[entry->xattr_count++] = (struct entry_xattr){
		.name = strdup(name),
		.value = memcpy(malloc(size + 1), value, size),
		.size = size,
	};
}

__attribute__((unused)) static struct manifest *manifest_of_everything(void)
{
	static const uint64_t runs[][2] = { { 4096, 4096 },
					    { 1048576, 5 },
					    { 99999744, 256 } };
	struct manifest *m = manifest_header();
	struct manifest_entry *entry;
	uint64_t chunk = 0;

	manifest_add_path(m, ".", ENTRY_DIRECTORY)->mode = 02775;
	manifest_add_file(m, "a", 5, &chunk)->hard_link_group = 1;
	entry = manifest_add_file(m, "b", 100000000, &chunk);
	entry->sparse = true;
	entry->extent_count = 3;
	entry->extents = calloc(3, sizeof(*entry->extents));
	for (int i = 0; i < 3; i++)
		entry->extents[i] =
			(struct entry_extent){ runs[i][0], runs[i][1] };
	entry->mtime = (struct timespec){ -5000000000, 999999999 };
	entry->atime = (struct timespec){ 99999999999, 1 };
	add_xattr(entry, "user.a", "\0\xff", 2);
	add_xattr(entry, "user.\xfe", "", 0);
	manifest_add_path(m, "d", ENTRY_DIRECTORY);
	manifest_add_path(m, "d/a", ENTRY_FILE)->hard_link_group = 1;
	entry = manifest_add_path(m, "d/link", ENTRY_SYMLINK);
	entry->target = strdup("../\xff/x");
	entry->size = strlen(entry->target);
	manifest_add_path(m, "d-", ENTRY_FIFO)->uid = 4294967294u;
	entry = manifest_add_path(m, "null", ENTRY_CHARACTER_DEVICE);
	entry->major = 1;
	entry->minor = 3;
	manifest_add_path(m, "s\nck\xe2\x28", ENTRY_SOCKET);
	manifest_sort(m);
	CHECK_INT(manifest_total(m), 0);
	return m;
}

#endif
