#include "meta/bucket_index.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "meta/document.h"

#define MAX_SHARDS 1000000

struct bucket_index *bucket_index_free(struct bucket_index *index)
{
	if (index) {
		for (size_t i = 0; i < index->shard_count; i++)
			free(index->shards[i].name);
		free(index->shards);
		free(index);
	}
	return NULL;
}

struct bucket_index *bucket_index_new(const char *bucket)
{
	struct bucket_index *index = calloc(1, sizeof(*index));

	if (index) {
		uuid_new(index->uuid);
		snprintf(index->bucket, sizeof(index->bucket), "%s", bucket);
		index->mode = 0755;
	}
	return index;
}

/* Where the name is, or where it belongs. */
static size_t position_of(const struct bucket_index *index, const char *name)
{
	size_t low = 0, high = index->shard_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(index->shards[middle].name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct bucket_shard *bucket_index_find(const struct bucket_index *index,
					     const char *shard)
{
	size_t at = position_of(index, shard);

	return at < index->shard_count &&
			       strcmp(index->shards[at].name, shard) == 0
		       ? &index->shards[at]
		       : NULL;
}

int bucket_index_set(struct bucket_index *index,
		     const struct bucket_shard *shard)
{
	size_t at = position_of(index, shard->name);
	struct bucket_shard *grown;
	char *name;

	if (at == index->shard_count ||
	    strcmp(index->shards[at].name, shard->name) != 0) {
		name = strdup(shard->name);
		grown = reallocarray(index->shards, index->shard_count + 1,
				     sizeof(*grown));
		if (grown)
			index->shards = grown;
		if (!name || !grown) {
			free(name);
			return -ENOMEM;
		}
		memmove(&grown[at + 1], &grown[at],
			(index->shard_count - at) * sizeof(*grown));
		index->shard_count++;
		grown[at].name = name;
	}
	name = index->shards[at].name;
	index->shards[at] = *shard;
	index->shards[at].name = name;
	return 0;
}

static json_t *shard_json(const struct bucket_shard *shard)
{
	return json_pack("{s:o, s:I, s:I, s:I, s:I}", "name",
			 document_name(shard->name), "seq",
			 (json_int_t)shard->seq, "epoch",
			 (json_int_t)shard->epoch, "logical_bytes",
			 (json_int_t)shard->logical_bytes, "files",
			 (json_int_t)shard->files);
}

static json_t *index_json(const struct bucket_index *index)
{
	json_t *object =
		document_new(BUCKET_INDEX_FORMAT, BUCKET_INDEX_VERSION);
	json_t *shards = json_array();

	for (size_t i = 0; i < index->shard_count; i++)
		json_array_append_new(shards, shard_json(&index->shards[i]));
	if (json_array_size(shards) != index->shard_count ||
	    json_object_set_new(object, "uuid", json_string(index->uuid)) ||
	    json_object_set_new(object, "bucket",
				document_name(index->bucket)) ||
	    json_object_set_new(object, "node", document_name(index->node)) ||
	    json_object_set_new(object, "written_ms",
				json_integer(index->written_ms)) ||
	    json_object_set_new(object, "mode", json_integer(index->mode)) ||
	    json_object_set_new(object, "uid", json_integer(index->uid)) ||
	    json_object_set_new(object, "gid", json_integer(index->gid)) ||
	    json_object_set(object, "shards", shards)) {
		json_decref(object);
		object = NULL;
	}
	json_decref(shards);
	return object;
}

int bucket_index_format(const struct bucket_index *index, struct buffer *out,
			struct hib_error *error)
{
	json_t *object = index_json(index);
	char *text = object ? json_dumps(object, JSON_INDENT(2)) : NULL;
	int r = text ? buffer_append_string(out, text) : -ENOMEM;

	json_decref(object);
	free(text);
	return r < 0 ? hib_fail_errno(error, -r, "build bucket.json") : 0;
}

static int parse_shard(const char *label, const json_t *object,
		       struct bucket_index *index, struct hib_error *error)
{
	char name[DOCUMENT_NAME_BYTES];
	struct bucket_shard shard = { .name = name };
	int r = document_get_name(label, object, "name", name, error);

	if (r == 0)
		r = document_get_u64(label, object, "seq", &shard.seq, error);
	if (r == 0)
		r = document_get_u64(label, object, "epoch", &shard.epoch,
				     error);
	if (r == 0)
		r = document_get_u64(label, object, "logical_bytes",
				     &shard.logical_bytes, error);
	if (r == 0)
		r = document_get_u64(label, object, "files", &shard.files,
				     error);
	if (r < 0)
		return r;
	if (!name[0] || !shard.seq || bucket_index_find(index, name))
		return hib_fail(
			error, EBADMSG,
			"%s is broken: a shard without name or number, or twice",
			label);
	return bucket_index_set(index, &shard) < 0
		       ? hib_fail(error, ENOMEM, "out of memory")
		       : 0;
}

static int parse_owner(const char *label, const json_t *object,
		       struct bucket_index *index, struct hib_error *error)
{
	uint64_t mode, uid, gid;
	int r = document_get_u64(label, object, "mode", &mode, error);

	if (r == 0)
		r = document_get_u64(label, object, "uid", &uid, error);
	if (r == 0)
		r = document_get_u64(label, object, "gid", &gid, error);
	if (r < 0)
		return r;
	if (mode > 07777 || uid >= UINT32_MAX || gid >= UINT32_MAX)
		return hib_fail(error, EBADMSG,
				"%s is broken: mode, uid or gid out of range",
				label);
	index->mode = (uint32_t)mode;
	index->uid = (uint32_t)uid;
	index->gid = (uint32_t)gid;
	return 0;
}

static int parse_object(const char *label, const json_t *object,
			struct bucket_index *index, struct hib_error *error)
{
	const json_t *shards = json_object_get(object, "shards");
	int r = document_get_text(label, object, "uuid", index->uuid,
				  sizeof(index->uuid), error);

	if (r == 0)
		r = document_get_name(label, object, "bucket", index->bucket,
				      error);
	if (r == 0)
		r = document_get_name(label, object, "node", index->node,
				      error);
	if (r == 0)
		r = document_get_i64(label, object, "written_ms",
				     &index->written_ms, error);
	if (r == 0)
		r = parse_owner(label, object, index, error);
	if (r < 0)
		return r;
	if (!uuid_is_valid(index->uuid) || !json_is_array(shards) ||
	    json_array_size(shards) > MAX_SHARDS)
		return hib_fail(error, EBADMSG, "%s is broken", label);
	for (size_t i = 0; r == 0 && i < json_array_size(shards); i++)
		r = parse_shard(label, json_array_get(shards, i), index, error);
	return r;
}

int bucket_index_parse(const char *label, const void *data, size_t size,
		       struct bucket_index **ret, struct hib_error *error)
{
	struct bucket_index *index;
	json_t *object;
	int r = document_parse(label, data, size, BUCKET_INDEX_FORMAT,
			       BUCKET_INDEX_VERSION, &object, error);

	if (r < 0)
		return r;
	index = calloc(1, sizeof(*index));
	r = index ? parse_object(label, object, index, error)
		  : hib_fail(error, ENOMEM, "out of memory");
	json_decref(object);
	if (r < 0) {
		bucket_index_free(index);
		return r;
	}
	*ret = index;
	return 0;
}
