#include "meta/manifest.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/encode.h"
#include "meta/manifest_internal.h"

static const char *const type_names[] = {
	[ENTRY_DIRECTORY] = "directory",
	[ENTRY_FILE] = "file",
	[ENTRY_SYMLINK] = "symlink",
	[ENTRY_FIFO] = "fifo",
	[ENTRY_SOCKET] = "socket",
	[ENTRY_CHARACTER_DEVICE] = "character-device",
	[ENTRY_BLOCK_DEVICE] = "block-device",
};

const char *manifest_type_name(enum entry_type type)
{
	return type_names[type];
}

int manifest_type_parse(const char *text, enum entry_type *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(type_names); i++) {
		if (strcmp(type_names[i], text) == 0) {
			*ret = (enum entry_type)i;
			return 0;
		}
	}
	return -EINVAL;
}

struct manifest *manifest_new(void)
{
	return calloc(1, sizeof(struct manifest));
}

void manifest_entry_done(struct manifest_entry *entry)
{
	for (size_t i = 0; i < entry->xattr_count; i++) {
		free(entry->xattrs[i].name);
		free(entry->xattrs[i].value);
	}
	free(entry->xattrs);
	free(entry->extents);
	free(entry->path);
	free(entry->target);
}

struct manifest *manifest_free(struct manifest *manifest)
{
	if (manifest) {
		for (size_t i = 0; i < manifest->entry_count; i++)
			manifest_entry_done(&manifest->entries[i]);
		free(manifest->entries);
		free(manifest->bucket);
		free(manifest->shard);
		free(manifest);
	}
	return NULL;
}

struct manifest_entry *manifest_add(struct manifest *manifest)
{
	struct manifest_entry *entry;

	if (manifest->entry_count >= MANIFEST_MAX_ENTRIES)
		return NULL;
	if (manifest->entry_count == manifest->entry_capacity) {
		size_t capacity = manifest->entry_capacity * 3 / 2 + 64;
		struct manifest_entry *grown = reallocarray(
			manifest->entries, capacity, sizeof(*grown));

		if (!grown)
			return NULL;
		manifest->entries = grown;
		manifest->entry_capacity = capacity;
	}
	entry = &manifest->entries[manifest->entry_count++];
	memset(entry, 0, sizeof(*entry));
	return entry;
}

void manifest_remove_last(struct manifest *manifest)
{
	manifest_entry_done(&manifest->entries[--manifest->entry_count]);
}

/* '/' sorts lowest, so that what is in a directory follows it at once. */
int manifest_compare_paths(const char *a, const char *b)
{
	const unsigned char *x = (const unsigned char *)a;
	const unsigned char *y = (const unsigned char *)b;

	if (strcmp(a, ".") == 0 || strcmp(b, ".") == 0)
		return strcmp(a, ".") == 0 ? -(strcmp(b, ".") != 0) : 1;
	while (*x && *x == *y) {
		x++;
		y++;
	}
	if (*x == *y)
		return 0;
	if (!*x || !*y)
		return *x ? 1 : -1;
	if (*x == '/' || *y == '/')
		return *x == '/' ? -1 : 1;
	return *x < *y ? -1 : 1;
}

static int compare_entries(const void *a, const void *b)
{
	const struct manifest_entry *left = a, *right = b;

	return manifest_compare_paths(left->path, right->path);
}

void manifest_sort(struct manifest *manifest)
{
	if (manifest->entry_count)
		qsort(manifest->entries, manifest->entry_count,
		      sizeof(*manifest->entries), compare_entries);
}

/* Does the entry repeat an inode that an earlier entry has described? */
bool manifest_is_first_name(const struct manifest_entry *entry, bool *seen)
{
	if (!entry->hard_link_group)
		return true;
	if (seen[entry->hard_link_group])
		return false;
	return seen[entry->hard_link_group] = true;
}

uint64_t manifest_group_count(const struct manifest *manifest)
{
	uint64_t groups = 0;

	for (size_t i = 0; i < manifest->entry_count; i++)
		if (manifest->entries[i].hard_link_group > groups)
			groups = manifest->entries[i].hard_link_group;
	return groups;
}

/* Stays at the highest number, which no manifest may tell. */
static void add_up(uint64_t *sum, uint64_t more)
{
	if (__builtin_add_overflow(*sum, more, sum))
		*sum = UINT64_MAX;
}

int manifest_count(const struct manifest *manifest, struct manifest *ret)
{
	CLEANUP_FREE bool *seen =
		calloc(manifest_group_count(manifest) + 1, sizeof(*seen));

	if (!seen)
		return -ENOMEM;
	for (size_t i = 0; i < manifest->entry_count; i++) {
		const struct manifest_entry *entry = &manifest->entries[i];
		bool first = manifest_is_first_name(entry, seen);

		if (entry->type == ENTRY_DIRECTORY)
			ret->directory_count++;
		else if (entry->type != ENTRY_FILE)
			ret->other_count++;
		else
			ret->file_count++;
		if (entry->type == ENTRY_FILE && first) {
			add_up(&ret->logical_bytes, entry->size);
			add_up(&ret->chunk_count, entry->chunk_count);
		}
	}
	return 0;
}

int manifest_total(struct manifest *manifest)
{
	struct manifest totals = { 0 };

	if (manifest_count(manifest, &totals) < 0)
		return -ENOMEM;
	manifest->file_count = totals.file_count;
	manifest->directory_count = totals.directory_count;
	manifest->other_count = totals.other_count;
	manifest->logical_bytes = totals.logical_bytes;
	manifest->chunk_count = totals.chunk_count;
	return 0;
}

const struct manifest_entry *manifest_find(const struct manifest *manifest,
					   const char *path)
{
	size_t low = 0, high = manifest->entry_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct manifest_entry *entry = &manifest->entries[middle];
		int order = manifest_compare_paths(path, entry->path);

		if (order == 0)
			return entry;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

/* ---- writing ---- */

/* `name` when the bytes are UTF-8, else `name`_base64. NULL: no memory. */
int manifest_set_bytes(json_t *object, const char *name, const char *bytes)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(1 << 20);
	char base64_name[64];

	if (utf8_is_valid(bytes, strlen(bytes)))
		return json_object_set_new(object, name, json_string(bytes));
	snprintf(base64_name, sizeof(base64_name), "%s_base64", name);
	if (encode_base64(&text, bytes, strlen(bytes)) < 0)
		return -1;
	return json_object_set_new(object, base64_name,
				   json_string(buffer_string(&text)));
}

static json_t *time_json(const struct timespec *time)
{
	return json_pack("[I, I]", (json_int_t)time->tv_sec,
			 (json_int_t)time->tv_nsec);
}

static json_t *xattr_json(const struct entry_xattr *xattr)
{
	CLEANUP(buffer_done) struct buffer value = BUFFER_INIT(1 << 20);
	json_t *object = json_object();

	if (!object || manifest_set_bytes(object, "name", xattr->name) < 0 ||
	    encode_base64(&value, xattr->value, xattr->size) < 0 ||
	    json_object_set_new(object, "value",
				json_string(buffer_string(&value))) < 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

static int add_xattrs(json_t *object, const struct manifest_entry *entry)
{
	json_t *array;

	if (!entry->xattr_count)
		return 0;
	array = json_array();
	if (!array || json_object_set_new(object, "xattrs", array) < 0)
		return -1;
	for (size_t i = 0; i < entry->xattr_count; i++)
		if (json_array_append_new(array,
					  xattr_json(&entry->xattrs[i])) < 0)
			return -1;
	return 0;
}

static int add_file(json_t *object, const struct manifest_entry *entry)
{
	json_t *array;

	if (json_object_set_new(object, "size",
				json_integer((json_int_t)entry->size)) < 0 ||
	    json_object_set_new(object, "chunk_bytes",
				json_integer(entry->chunk_bytes)) < 0 ||
	    json_object_set_new(object, "chunks",
				json_pack("[I, I]",
					  (json_int_t)entry->first_chunk,
					  (json_int_t)entry->chunk_count)) < 0)
		return -1;
	if (!entry->sparse)
		return 0;
	array = json_array();
	if (!array || json_object_set_new(object, "extents", array) < 0)
		return -1;
	for (size_t i = 0; i < entry->extent_count; i++)
		if (json_array_append_new(
			    array,
			    json_pack("[I, I]",
				      (json_int_t)entry->extents[i].offset,
				      (json_int_t)entry->extents[i].length)) <
		    0)
			return -1;
	return 0;
}

static int add_attributes(json_t *object, const struct manifest_entry *entry)
{
	if (json_object_set_new(object, "mode", json_integer(entry->mode)) ||
	    json_object_set_new(object, "uid", json_integer(entry->uid)) ||
	    json_object_set_new(object, "gid", json_integer(entry->gid)) ||
	    json_object_set_new(object, "mtime", time_json(&entry->mtime)) ||
	    json_object_set_new(object, "atime", time_json(&entry->atime)) ||
	    add_xattrs(object, entry) < 0)
		return -1;
	if (entry->type == ENTRY_SYMLINK)
		return manifest_set_bytes(object, "target", entry->target);
	if (entry->type == ENTRY_FILE)
		return add_file(object, entry);
	if (entry->type == ENTRY_CHARACTER_DEVICE ||
	    entry->type == ENTRY_BLOCK_DEVICE)
		return json_object_set_new(object, "device",
					   json_pack("[I, I]",
						     (json_int_t)entry->major,
						     (json_int_t)entry->minor));
	return 0;
}

static json_t *entry_json(const struct manifest_entry *entry, bool first)
{
	json_t *object = json_object();

	if (!object || manifest_set_bytes(object, "path", entry->path) < 0 ||
	    json_object_set_new(object, "type",
				json_string(type_names[entry->type])) < 0 ||
	    (entry->hard_link_group &&
	     json_object_set_new(
		     object, "hard_link_group",
		     json_integer((json_int_t)entry->hard_link_group)) < 0) ||
	    (first && add_attributes(object, entry) < 0)) {
		json_decref(object);
		return NULL;
	}
	return object;
}

static json_t *header_json(const struct manifest *m)
{
	char sha256[65];
	json_t *object;

	encode_hex(m->chunk_table_sha256, 32, sha256);
	object = json_pack("{s:s, s:i}", "format", MANIFEST_FORMAT, "version",
			   MANIFEST_VERSION);
	if (!object || manifest_set_bytes(object, "bucket", m->bucket) < 0 ||
	    manifest_set_bytes(object, "shard", m->shard) < 0 ||
	    manifest_set_bytes(object, "node", m->node) < 0) {
		json_decref(object);
		return NULL;
	}
	if (json_object_update_new(
		    object,
		    json_pack("{s:I, s:I, s:I, s:s, s:I, s:I, s:s, s:s}", "seq",
			      (json_int_t)m->seq, "parent_seq",
			      (json_int_t)m->parent_seq, "epoch",
			      (json_int_t)m->epoch, "task", m->task,
			      "started_ms", (json_int_t)m->started_ms,
			      "committed_ms", (json_int_t)m->committed_ms,
			      "tool", m->tool_version, "chunk_table_sha256",
			      sha256)) < 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

static json_t *end_json(const struct manifest *m)
{
	return json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "end", 1,
			 "entries", (json_int_t)m->entry_count, "files",
			 (json_int_t)m->file_count, "directories",
			 (json_int_t)m->directory_count, "others",
			 (json_int_t)m->other_count, "logical_bytes",
			 (json_int_t)m->logical_bytes, "chunks",
			 (json_int_t)m->chunk_count);
}

/* One line; takes over the object. */
static int write_object(struct buffer *out, json_t *object)
{
	char *text;
	int r;

	if (!object)
		return -ENOMEM;
	text = json_dumps(object, JSON_COMPACT);
	json_decref(object);
	if (!text)
		return -ENOMEM;
	r = strlen(text) > MANIFEST_MAX_LINE_BYTES
		    ? -EMSGSIZE
		    : buffer_append_string(out, text);
	free(text);
	if (r == 0)
		r = buffer_append(out, "\n", 1);
	if (r == 0 && out->size > MANIFEST_MAX_BYTES)
		r = -EMSGSIZE;
	return r;
}

int manifest_write(const struct manifest *manifest, struct buffer *out,
		   struct hib_error *error)
{
	CLEANUP_FREE bool *seen =
		calloc(manifest_group_count(manifest) + 1, sizeof(*seen));
	int r;

	if (!seen)
		return hib_fail(error, ENOMEM, "out of memory");
	r = write_object(out, header_json(manifest));
	for (size_t i = 0; i < manifest->entry_count && r == 0; i++) {
		const struct manifest_entry *entry = &manifest->entries[i];

		r = write_object(out, entry_json(entry, manifest_is_first_name(
								entry, seen)));
		if (r < 0)
			return hib_fail_errno(error, -r,
					      "build the manifest: \"%.200s\"",
					      entry->path);
	}
	if (r == 0)
		r = write_object(out, end_json(manifest));
	return r < 0 ? hib_fail_errno(error, -r, "build the manifest") : 0;
}
