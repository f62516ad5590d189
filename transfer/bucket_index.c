#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/encode.h"
#include "base/fault.h"
#include "base/file.h"
#include "transfer/snapshot.h"

#define INDEX_MAX_BYTES (64u << 20)
#define INDEX_MAX_SHARDS 1000000

struct bucket_index *bucket_index_free(struct bucket_index *index)
{
	if (index) {
		for (size_t i = 0; i < index->shard_count; i++)
			free(index->shards[i].name);
		free(index->shards);
		free(index->bucket);
		free(index);
	}
	return NULL;
}

struct bucket_index *bucket_index_new(const char *bucket)
{
	struct bucket_index *index = calloc(1, sizeof(*index));

	if (!index)
		return NULL;
	uuid_new(index->uuid);
	index->bucket = strdup(bucket);
	return index->bucket ? index : bucket_index_free(index);
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
			       strcmp(index->shards[at].name, shard) == 0 ?
		       &index->shards[at] :
		       NULL;
}

int bucket_index_set(struct bucket_index *index,
		     const struct bucket_shard *shard, struct hib_error *error)
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
			return hib_fail(error, ENOMEM, "out of memory");
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

/* ---- JSON ---- */

/* Names are percent-encoded as in keys, so any bytes can be one. */
static json_t *name_json(const char *name)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(1024);

	if (encode_percent(&text, name, strlen(name)) < 0)
		return NULL;
	return json_string(buffer_string(&text));
}

static int parse_name(const json_t *value, char **ret)
{
	CLEANUP(buffer_done) struct buffer name = BUFFER_INIT(255);

	if (!json_is_string(value) ||
	    decode_percent(&name, json_string_value(value)) < 0 || !name.size ||
	    memchr(name.data, 0, name.size) ||
	    !name_is_plain(buffer_string(&name)))
		return -EBADMSG;
	*ret = strdup(buffer_string(&name));
	return *ret ? 0 : -ENOMEM;
}

static json_t *shard_json(const struct bucket_index *index,
			  const struct bucket_shard *shard)
{
	struct lineage lineage;
	char key[STORE_KEY_BYTES];

	if (lineage_init(&lineage, index->bucket, shard->name, NULL) < 0)
		return NULL;
	lineage_manifest_key(&lineage, shard->seq, key);
	/* relative to bucket.json, so that a store can be moved (T6) */
	return json_pack("{s:o, s:I, s:I, s:s, s:I, s:I}", "name",
			 name_json(shard->name), "seq", (json_int_t)shard->seq,
			 "epoch", (json_int_t)shard->epoch, "manifest",
			 key + strlen(lineage.bucket_prefix), "logical_bytes",
			 (json_int_t)shard->logical_bytes, "files",
			 (json_int_t)shard->files);
}

static char *index_text(const struct bucket_index *index)
{
	json_t *shards = json_array();
	json_t *object;
	char *text;

	for (size_t i = 0; i < index->shard_count; i++)
		if (json_array_append_new(
			    shards, shard_json(index, &index->shards[i])) < 0) {
			json_decref(shards);
			return NULL;
		}
	object = json_pack("{s:s, s:i, s:s, s:o, s:o, s:I, s:o}", "format",
			   BUCKET_INDEX_FORMAT, "version", BUCKET_INDEX_VERSION,
			   "uuid", index->uuid, "bucket",
			   name_json(index->bucket), "node",
			   name_json(index->node), "written_ms",
			   (json_int_t)index->written_ms, "shards", shards);
	if (!object)
		return NULL;
	text = json_dumps(object, JSON_INDENT(2));
	json_decref(object);
	return text;
}

static int get_number(const json_t *object, const char *name, uint64_t *ret)
{
	const json_t *value = json_object_get(object, name);

	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return -EBADMSG;
	*ret = (uint64_t)json_integer_value(value);
	return 0;
}

static int parse_shard(const json_t *object, struct bucket_index *index,
		       struct hib_error *error)
{
	struct bucket_shard shard = { 0 };
	int r = parse_name(json_object_get(object, "name"), &shard.name);

	if (r == 0)
		r = get_number(object, "seq", &shard.seq);
	if (r == 0)
		r = get_number(object, "epoch", &shard.epoch);
	if (r == 0)
		r = get_number(object, "logical_bytes", &shard.logical_bytes);
	if (r == 0)
		r = get_number(object, "files", &shard.files);
	if (r == 0 && (!shard.seq || bucket_index_find(index, shard.name)))
		r = -EBADMSG;
	if (r == 0)
		r = bucket_index_set(index, &shard, error);
	free(shard.name);
	return r;
}

static int check_format(const char *key, const json_t *object,
			struct hib_error *error)
{
	const char *format =
		json_string_value(json_object_get(object, "format"));
	const json_t *version = json_object_get(object, "version");

	if (!format || strcmp(format, BUCKET_INDEX_FORMAT) != 0 ||
	    !json_is_integer(version))
		return hib_fail(error, EBADMSG, "%s is no bucket index", key);
	if (json_integer_value(version) > BUCKET_INDEX_VERSION)
		return hib_fail(
			error, EPROTONOSUPPORT,
			"%s has version %" JSON_INTEGER_FORMAT
			" of the format %s; this hibfs knows version %d: a newer hibfs is needed",
			key, json_integer_value(version), BUCKET_INDEX_FORMAT,
			BUCKET_INDEX_VERSION);
	return json_integer_value(version) == BUCKET_INDEX_VERSION ?
		       0 :
		       hib_fail(error, EBADMSG, "%s: its version is broken",
				key);
}

static int parse_object(const char *key, const json_t *object,
			struct bucket_index *index, struct hib_error *error)
{
	const char *uuid = json_string_value(json_object_get(object, "uuid"));
	const json_t *shards = json_object_get(object, "shards");
	CLEANUP_FREE char *node = NULL;
	uint64_t written = 0;
	int r = check_format(key, object, error);

	if (r < 0)
		return r;
	if (!uuid || !uuid_is_valid(uuid) || !json_is_array(shards) ||
	    json_array_size(shards) > INDEX_MAX_SHARDS ||
	    parse_name(json_object_get(object, "bucket"), &index->bucket) < 0 ||
	    parse_name(json_object_get(object, "node"), &node) < 0 ||
	    get_number(object, "written_ms", &written) < 0)
		return hib_fail(error, EBADMSG, "%s is broken", key);
	snprintf(index->uuid, sizeof(index->uuid), "%s", uuid);
	snprintf(index->node, sizeof(index->node), "%s", node);
	index->written_ms = (int64_t)written;
	for (size_t i = 0; i < json_array_size(shards); i++) {
		r = parse_shard(json_array_get(shards, i), index, error);
		if (r == -EBADMSG)
			return hib_fail(error, EBADMSG,
					"%s is broken: shard number %zu", key,
					i);
		if (r < 0)
			return r;
	}
	return 0;
}

int bucket_index_read(struct store *store, const struct lineage *lineage,
		      const struct store_call *call, struct bucket_index **ret,
		      struct hib_error *error)
{
	CLEANUP(buffer_done) struct buffer body = BUFFER_INIT(INDEX_MAX_BYTES);
	struct bucket_index *index;
	char key[STORE_KEY_BYTES];
	json_t *object;
	int r;

	lineage_bucket_key(lineage, key);
	r = store_get(store, key, 0, 0, &body, call, error);
	if (r == -ENOENT)
		return hib_fail(
			error, ENOENT,
			"%s has no %s: this bucket was never paused completely into this store",
			store_url(store), key);
	if (r < 0)
		return r;
	object = json_loadb(buffer_string(&body), body.size,
			    JSON_REJECT_DUPLICATES, NULL);
	if (!object)
		return hib_fail(error, EBADMSG, "%s is no JSON", key);
	index = calloc(1, sizeof(*index));
	r = index ? parse_object(key, object, index, error) :
		    hib_fail(error, ENOMEM, "out of memory");
	json_decref(object);
	if (r < 0) {
		bucket_index_free(index);
		return r;
	}
	*ret = index;
	return 0;
}

int bucket_index_write(struct store *store, const struct lineage *lineage,
		       const struct bucket_index *index,
		       const struct store_call *call, struct hib_error *error)
{
	CLEANUP_FREE char *text = index_text(index);
	char key[STORE_KEY_BYTES];
	int r;

	if (!text)
		return hib_fail(error, ENOMEM, "out of memory");
	lineage_bucket_key(lineage, key);
	r = fault_point("commit.bucket.before");
	if (r < 0)
		return hib_fail(error, -r, "fault point commit.bucket.before");
	r = store_put(store, key, text, strlen(text), 0, call, error);
	if (r < 0)
		return r;
	r = fault_point("commit.bucket.after");
	return r < 0 ? hib_fail(error, -r, "fault point commit.bucket.after") :
		       0;
}
