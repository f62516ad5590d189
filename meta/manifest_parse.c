/*
 * Reading a manifest. Everything in it is hostile until it is checked: it came
 * from a store.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/encode.h"
#include "meta/manifest_internal.h"

#define CHUNK_BYTES_LOWEST 4096
#define CHUNK_BYTES_HIGHEST (4u << 20)
#define XATTR_VALUE_MAX 65536
#define XATTRS_MAX 4096
#define SIZE_MAX_BYTES ((uint64_t)INT64_MAX)

struct parser {
	const char *name; /* of the object, for messages */
	const char *data;
	size_t size, offset;
	struct manifest *manifest;
	struct hib_error *error;
};

static int broken(struct parser *parser, const char *what)
{
	size_t count = parser->manifest->entry_count;
	const char *path =
		count ? parser->manifest->entries[count - 1].path : NULL;

	return path ? hib_fail(parser->error, EBADMSG,
			       "%s is broken: %s, at entry %zu (\"%.200s\")",
			       parser->name, what, count, path)
		    : hib_fail(parser->error, EBADMSG, "%s is broken: %s",
			       parser->name, what);
}

static int no_memory(struct parser *parser)
{
	return hib_fail(parser->error, ENOMEM, "out of memory");
}

/* The next JSON text, or NULL: r tells why. */
static int next_object(struct parser *parser, json_t **ret)
{
	json_error_t error;
	json_t *object;
	size_t left;

	while (parser->offset < parser->size &&
	       strchr(" \t\r\n", parser->data[parser->offset]) &&
	       parser->data[parser->offset])
		parser->offset++;
	if (parser->offset >= parser->size)
		return broken(parser, "it ends early");
	/* one that goes on beyond the limit is cut, and then no JSON */
	left = parser->size - parser->offset;
	object = json_loadb(
		parser->data + parser->offset,
		left < MANIFEST_MAX_LINE_BYTES ? left : MANIFEST_MAX_LINE_BYTES,
		JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &error);
	if (!object)
		return broken(parser, "a line is no JSON, or too long");
	if (!json_is_object(object)) {
		json_decref(object);
		return broken(parser, "a line is no JSON object");
	}
	parser->offset += (size_t)error.position;
	*ret = object;
	return 0;
}

static int get_number(struct parser *parser, const json_t *object,
		      const char *name, uint64_t limit, uint64_t *ret)
{
	const json_t *value = json_object_get(object, name);

	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    (uint64_t)json_integer_value(value) > limit)
		return broken(parser, name);
	*ret = (uint64_t)json_integer_value(value);
	return 0;
}

static int get_number32(struct parser *parser, const json_t *object,
			const char *name, uint32_t limit, uint32_t *ret)
{
	uint64_t value;
	int r = get_number(parser, object, name, limit, &value);

	if (r == 0)
		*ret = (uint32_t)value;
	return r;
}

/* A two-element array of integers. */
static int get_pair(const json_t *array, json_int_t *ret_a, json_int_t *ret_b)
{
	const json_t *a = json_array_get(array, 0);
	const json_t *b = json_array_get(array, 1);

	if (json_array_size(array) != 2 || !json_is_integer(a) ||
	    !json_is_integer(b))
		return -EBADMSG;
	*ret_a = json_integer_value(a);
	*ret_b = json_integer_value(b);
	return 0;
}

/* `name` or `name`_base64 as a string of 1 to `limit` bytes without NUL. */
static int get_bytes(struct parser *parser, const json_t *object,
		     const char *name, size_t limit, char **ret)
{
	CLEANUP(buffer_done) struct buffer bytes = BUFFER_INIT(limit);
	const json_t *value = json_object_get(object, name);
	char base64_name[64];
	int r;

	snprintf(base64_name, sizeof(base64_name), "%s_base64", name);
	if (value && json_object_get(object, base64_name))
		return broken(parser, name);
	if (value) {
		r = json_is_string(value)
			    ? buffer_append(&bytes, json_string_value(value),
					    json_string_length(value))
			    : -EBADMSG;
	} else {
		value = json_object_get(object, base64_name);
		r = json_is_string(value)
			    ? decode_base64(&bytes, json_string_value(value))
			    : -EBADMSG;
	}
	if (r == -ENOMEM)
		return no_memory(parser);
	if (r < 0 || !bytes.size || memchr(bytes.data, 0, bytes.size))
		return broken(parser, name);
	*ret = strdup(buffer_string(&bytes));
	return *ret ? 0 : no_memory(parser);
}

/* Into a fixed array; the text has to fit. */
static int get_text(struct parser *parser, const json_t *object,
		    const char *name, char *ret, size_t size)
{
	CLEANUP_FREE char *text = NULL;
	int r = get_bytes(parser, object, name, size - 1, &text);

	if (r == 0)
		strcpy(ret, text);
	return r;
}

/* ---- header ---- */

static int check_format(struct parser *parser, const json_t *header)
{
	const char *format =
		json_string_value(json_object_get(header, "format"));
	const json_t *version = json_object_get(header, "version");

	if (!format || strcmp(format, MANIFEST_FORMAT) != 0 ||
	    !json_is_integer(version))
		return hib_fail(parser->error, EBADMSG,
				"%s is no hibfs manifest", parser->name);
	if (json_integer_value(version) > MANIFEST_VERSION)
		return hib_fail(
			parser->error, EPROTONOSUPPORT,
			"%s has version %" JSON_INTEGER_FORMAT
			" of the format %s; this hibfs knows version %d: a newer hibfs is needed",
			parser->name, json_integer_value(version),
			MANIFEST_FORMAT, MANIFEST_VERSION);
	if (json_integer_value(version) != MANIFEST_VERSION)
		return broken(parser, "version");
	return 0;
}

static int parse_header(struct parser *parser, const json_t *header)
{
	struct manifest *m = parser->manifest;
	const char *sha256;
	uint64_t started, committed;
	int r = check_format(parser, header);

	if (r == 0)
		r = get_bytes(parser, header, "bucket", 255, &m->bucket);
	if (r == 0)
		r = get_bytes(parser, header, "shard", 255, &m->shard);
	if (r == 0)
		r = get_text(parser, header, "node", m->node, sizeof(m->node));
	if (r == 0)
		r = get_number(parser, header, "seq", SIZE_MAX_BYTES, &m->seq);
	if (r == 0)
		r = get_number(parser, header, "parent_seq", SIZE_MAX_BYTES,
			       &m->parent_seq);
	if (r == 0)
		r = get_number(parser, header, "epoch", SIZE_MAX_BYTES,
			       &m->epoch);
	if (r == 0)
		r = get_text(parser, header, "task", m->task, sizeof(m->task));
	if (r == 0)
		r = get_number(parser, header, "started_ms", SIZE_MAX_BYTES,
			       &started);
	if (r == 0)
		r = get_number(parser, header, "committed_ms", SIZE_MAX_BYTES,
			       &committed);
	if (r == 0)
		r = get_text(parser, header, "tool", m->tool_version,
			     sizeof(m->tool_version));
	if (r < 0)
		return r;
	m->started_ms = (int64_t)started;
	m->committed_ms = (int64_t)committed;
	sha256 = json_string_value(
		json_object_get(header, "chunk_table_sha256"));
	if (!sha256 || decode_hex(sha256, m->chunk_table_sha256, 32) < 0)
		return broken(parser, "chunk_table_sha256");
	return 0;
}

/* ---- entries ---- */

/* Relative, and no component that is empty, "." or "..". */
static bool path_is_sound(const char *path)
{
	if (strcmp(path, ".") == 0)
		return true;
	for (const char *part = path;;) {
		size_t size = strcspn(part, "/");

		if (size == 0 || size > 255 || (size == 1 && part[0] == '.') ||
		    (size == 2 && part[0] == '.' && part[1] == '.'))
			return false;
		if (!part[size])
			return true;
		part += size + 1;
	}
}

static int parse_time(struct parser *parser, const json_t *object,
		      const char *name, struct timespec *ret)
{
	json_int_t seconds, nanoseconds;

	if (get_pair(json_object_get(object, name), &seconds, &nanoseconds) <
		    0 ||
	    nanoseconds < 0 || nanoseconds > 999999999)
		return broken(parser, name);
	ret->tv_sec = seconds;
	ret->tv_nsec = nanoseconds;
	return 0;
}

static int parse_xattr(struct parser *parser, const json_t *object,
		       struct entry_xattr *ret)
{
	CLEANUP(buffer_done) struct buffer value = BUFFER_INIT(XATTR_VALUE_MAX);
	const char *text = json_string_value(json_object_get(object, "value"));
	int r = get_bytes(parser, object, "name", 255, &ret->name);

	if (r < 0)
		return r;
	if (!text)
		return broken(parser, "xattrs");
	r = decode_base64(&value, text);
	if (r < 0)
		return r == -ENOMEM ? no_memory(parser)
				    : broken(parser, "xattrs");
	ret->size = value.size;
	ret->value = malloc(value.size + 1);
	if (!ret->value)
		return no_memory(parser);
	if (value.size)
		memcpy(ret->value, value.data, value.size);
	return 0;
}

static int parse_xattrs(struct parser *parser, const json_t *object,
			struct manifest_entry *entry)
{
	const json_t *array = json_object_get(object, "xattrs");
	size_t count = json_array_size(array);

	if (!array)
		return 0;
	if (!json_is_array(array) || count > XATTRS_MAX)
		return broken(parser, "xattrs");
	entry->xattrs = calloc(count + 1, sizeof(*entry->xattrs));
	if (!entry->xattrs)
		return no_memory(parser);
	while (entry->xattr_count < count) {
		size_t i = entry->xattr_count++;
		int r = parse_xattr(parser, json_array_get(array, i),
				    &entry->xattrs[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_extents(struct parser *parser, const json_t *object,
			 struct manifest_entry *entry)
{
	const json_t *array = json_object_get(object, "extents");
	size_t count = json_array_size(array);
	uint64_t end = 0;

	if (!array)
		return 0;
	if (!json_is_array(array))
		return broken(parser, "extents");
	entry->sparse = true;
	entry->extents = calloc(count + 1, sizeof(*entry->extents));
	if (!entry->extents)
		return no_memory(parser);
	for (size_t i = 0; i < count; i++) {
		json_int_t offset, length;

		if (get_pair(json_array_get(array, i), &offset, &length) < 0 ||
		    offset < 0 || length <= 0 || (uint64_t)offset < end ||
		    (uint64_t)offset > entry->size ||
		    (uint64_t)length > entry->size - (uint64_t)offset)
			return broken(parser, "extents");
		end = (uint64_t)offset + (uint64_t)length;
		entry->extents[i] = (struct entry_extent){ (uint64_t)offset,
							   (uint64_t)length };
		entry->extent_count++;
	}
	return 0;
}

static int parse_file(struct parser *parser, const json_t *object,
		      struct manifest_entry *entry)
{
	json_int_t first, count;
	int r = get_number(parser, object, "size", SIZE_MAX_BYTES,
			   &entry->size);

	if (r == 0)
		r = get_number32(parser, object, "chunk_bytes",
				 CHUNK_BYTES_HIGHEST, &entry->chunk_bytes);
	if (r < 0)
		return r;
	if (entry->chunk_bytes < CHUNK_BYTES_LOWEST ||
	    (entry->chunk_bytes & (entry->chunk_bytes - 1)))
		return broken(parser, "chunk_bytes");
	if (get_pair(json_object_get(object, "chunks"), &first, &count) < 0 ||
	    first < 0 || count < 0 ||
	    (uint64_t)count != entry->size / entry->chunk_bytes +
				       (entry->size % entry->chunk_bytes != 0))
		return broken(parser, "chunks do not agree with the size");
	entry->first_chunk = (uint64_t)first;
	entry->chunk_count = (uint64_t)count;
	return parse_extents(parser, object, entry);
}

static int parse_attributes(struct parser *parser, const json_t *object,
			    struct manifest_entry *entry)
{
	json_int_t major, minor;
	int r = get_number32(parser, object, "mode", 07777, &entry->mode);

	if (r == 0)
		r = get_number32(parser, object, "uid", UINT32_MAX - 1,
				 &entry->uid);
	if (r == 0)
		r = get_number32(parser, object, "gid", UINT32_MAX - 1,
				 &entry->gid);
	if (r == 0)
		r = parse_time(parser, object, "mtime", &entry->mtime);
	if (r == 0)
		r = parse_time(parser, object, "atime", &entry->atime);
	if (r == 0)
		r = parse_xattrs(parser, object, entry);
	if (r < 0)
		return r;
	switch (entry->type) {
	case ENTRY_FILE:
		return parse_file(parser, object, entry);
	case ENTRY_SYMLINK:
		r = get_bytes(parser, object, "target", 4096, &entry->target);
		if (r == 0)
			entry->size = strlen(entry->target);
		return r;
	case ENTRY_CHARACTER_DEVICE:
	case ENTRY_BLOCK_DEVICE:
		if (get_pair(json_object_get(object, "device"), &major,
			     &minor) < 0 ||
		    major < 0 || major > UINT32_MAX || minor < 0 ||
		    minor > UINT32_MAX)
			return broken(parser, "device");
		entry->major = (uint32_t)major;
		entry->minor = (uint32_t)minor;
		return 0;
	default:
		return 0;
	}
}

/* What is known of the hard-link groups so far: type of each; -1: unseen. */
struct groups {
	signed char *types;
	size_t capacity;
};

static int note_group(struct parser *parser, struct groups *groups,
		      const struct manifest_entry *entry, bool *ret_first)
{
	uint64_t group = entry->hard_link_group;

	*ret_first = true;
	if (!group)
		return 0;
	if (group > parser->manifest->entry_count)
		return broken(parser, "hard_link_group");
	if (group >= groups->capacity) {
		size_t capacity = groups->capacity * 2 + 64;
		signed char *grown = realloc(groups->types, capacity);

		if (!grown)
			return no_memory(parser);
		memset(grown + groups->capacity, -1,
		       capacity - groups->capacity);
		groups->types = grown;
		groups->capacity = capacity;
	}
	if (entry->type == ENTRY_DIRECTORY)
		return broken(parser, "a directory in a hard_link_group");
	*ret_first = groups->types[group] < 0;
	if (!*ret_first && groups->types[group] != (signed char)entry->type)
		return broken(parser, "types differ in a hard_link_group");
	groups->types[group] = (signed char)entry->type;
	return 0;
}

/*
 * The parent has to be a directory entry before this one. Paths come in order,
 * so it is among the ancestors of the entry before: `depths` holds them.
 */
static int check_place(struct parser *parser,
		       const struct manifest_entry *entry)
{
	const struct manifest *m = parser->manifest;
	CLEANUP_FREE char *parent = NULL;
	const struct manifest_entry *found;
	char *slash;

	if (m->entry_count == 1)
		return strcmp(entry->path, ".") == 0 &&
				       entry->type == ENTRY_DIRECTORY
			       ? 0
			       : broken(parser,
					"the first entry is not the shard itself");
	if (manifest_compare_paths(m->entries[m->entry_count - 2].path,
				   entry->path) >= 0)
		return broken(parser, "entries out of order, or twice");
	parent = strdup(entry->path);
	if (!parent)
		return no_memory(parser);
	slash = strrchr(parent, '/');
	if (slash)
		*slash = 0;
	found = manifest_find(m, slash ? parent : ".");
	if (!found || found->type != ENTRY_DIRECTORY)
		return broken(parser, "its directory is not there");
	return 0;
}

static int parse_entry(struct parser *parser, const json_t *object,
		       struct groups *groups)
{
	struct manifest_entry *entry = manifest_add(parser->manifest);
	const char *type = json_string_value(json_object_get(object, "type"));
	bool first;
	int r;

	if (!entry)
		return parser->manifest->entry_count >= MANIFEST_MAX_ENTRIES
			       ? broken(parser, "too many entries")
			       : no_memory(parser);
	r = get_bytes(parser, object, "path", MANIFEST_MAX_PATH_BYTES,
		      &entry->path);
	if (r < 0)
		return r;
	if (!path_is_sound(entry->path))
		return broken(parser, "a path that leaves the shard");
	if (!type || manifest_type_parse(type, &entry->type) < 0)
		return broken(parser, "unknown type");
	r = check_place(parser, entry);
	if (r == 0 && json_object_get(object, "hard_link_group"))
		r = get_number(parser, object, "hard_link_group",
			       MANIFEST_MAX_ENTRIES, &entry->hard_link_group);
	if (r == 0)
		r = note_group(parser, groups, entry, &first);
	if (r == 0 && first)
		r = parse_attributes(parser, object, entry);
	return r;
}

/* ---- end ---- */

static int parse_end(struct parser *parser, const json_t *end)
{
	static const char *const names[] = { "entries",	      "files",
					     "directories",   "others",
					     "logical_bytes", "chunks" };
	struct manifest *m = parser->manifest;
	uint64_t told[ARRAY_SIZE(names)];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		int r = get_number(parser, end, names[i], SIZE_MAX_BYTES,
				   &told[i]);

		if (r < 0)
			return r;
	}
	if (!m->entry_count)
		return broken(parser, "it has no entries");
	if (manifest_total(m) < 0)
		return no_memory(parser);
	if (told[0] != m->entry_count || told[1] != m->file_count ||
	    told[2] != m->directory_count || told[3] != m->other_count ||
	    told[4] != m->logical_bytes || told[5] != m->chunk_count)
		return broken(parser, "the totals at its end do not agree");
	for (; parser->offset < parser->size; parser->offset++)
		if (parser->data[parser->offset] != '\n')
			return broken(parser, "something follows its end");
	return 0;
}

static int parse_all(struct parser *parser)
{
	struct groups groups = { 0 };
	json_t *object;
	int r = next_object(parser, &object);

	if (r < 0)
		return r;
	r = parse_header(parser, object);
	json_decref(object);
	while (r == 0) {
		bool end;

		r = next_object(parser, &object);
		if (r < 0)
			break;
		end = json_is_true(json_object_get(object, "end"));
		r = end ? parse_end(parser, object)
			: parse_entry(parser, object, &groups);
		json_decref(object);
		if (end)
			break;
	}
	free(groups.types);
	return r;
}

int manifest_parse(const char *name, const void *data, size_t size,
		   struct manifest **ret, struct hib_error *error)
{
	struct parser parser = {
		.name = name,
		.data = data,
		.size = size,
		.manifest = manifest_new(),
		.error = error,
	};
	int r;

	if (!parser.manifest)
		return hib_fail(error, ENOMEM, "out of memory");
	r = size > MANIFEST_MAX_BYTES ? broken(&parser, "it is too large")
				      : parse_all(&parser);
	if (r < 0) {
		manifest_free(parser.manifest);
		return r;
	}
	*ret = parser.manifest;
	return 0;
}
