#include "transfer/lineage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/encode.h"
#include "base/file.h"

#define BUCKET_INDEX "bucket.json"
/* What follows a prefix at most: "packs/3f/" and 64 digits, and the NUL. */
#define LONGEST_TAIL_BYTES (sizeof("packs/3f/") + 64)
#define NUMBER_DIGITS 16

/*
 * A shard of the name that a bucket's index has would be a directory where, in
 * a store of files, that object lies. Its encoding is one of the others that
 * decode to the same name.
 */
static int append_name(struct buffer *out, const char *name)
{
	if (strcmp(name, BUCKET_INDEX) == 0)
		return buffer_append_string(out, "bucket%2Ejson");
	return encode_percent(out, name, strlen(name));
}

static int make_prefix(char ret[STORE_KEY_BYTES], const char *parent,
		       const char *name, struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer text = BUFFER_INIT(STORE_KEY_BYTES - LONGEST_TAIL_BYTES);
	int r;

	if (!name_is_plain(name))
		return hib_fail(error, EINVAL,
				"\"%s\" is no name of a bucket or shard", name);
	r = buffer_append_string(&text, parent);
	if (r == 0)
		r = append_name(&text, name);
	if (r == 0)
		r = buffer_append_string(&text, "/");
	if (r == -EMSGSIZE)
		return hib_fail(error, ENAMETOOLONG,
				"%s: the name is too long for an object's key",
				name);
	if (r < 0)
		return hib_fail_errno(error, -r, "%s", name);
	memcpy(ret, text.data, text.size + 1);
	return 0;
}

int lineage_init(struct lineage *ret, const char *bucket, const char *shard,
		 struct hib_error *error)
{
	struct lineage lineage = { 0 };
	int r;

	r = make_prefix(lineage.bucket_prefix, LINEAGE_ROOT, bucket, error);
	if (r == 0)
		r = make_prefix(lineage.prefix, lineage.bucket_prefix, shard,
				error);
	if (r == 0)
		*ret = lineage;
	return r;
}

/* lineage_init() has left room for every tail. */
static void make_key(char *ret_key, const char *prefix, const char *tail)
{
	size_t length = strlen(prefix);

	memcpy(ret_key, prefix, length);
	memcpy(ret_key + length, tail, strlen(tail) + 1);
}

static void make_numbered(char *ret_key, const char *prefix,
			  const char *directory, uint64_t number,
			  const char *suffix)
{
	char tail[LONGEST_TAIL_BYTES];

	snprintf(tail, sizeof(tail), "%s%0*" PRIu64 "%s", directory,
		 NUMBER_DIGITS, number, suffix);
	make_key(ret_key, prefix, tail);
}

void lineage_bucket_key(const struct lineage *lineage, char *ret_key)
{
	make_key(ret_key, lineage->bucket_prefix, BUCKET_INDEX);
}

void lineage_head_key(const struct lineage *lineage, char *ret_key)
{
	make_key(ret_key, lineage->prefix, "HEAD");
}

void lineage_epoch_key(const struct lineage *lineage, uint64_t epoch,
		       char *ret_key)
{
	make_numbered(ret_key, lineage->prefix, "epochs/", epoch, "");
}

void lineage_manifest_key(const struct lineage *lineage, uint64_t seq,
			  char *ret_key)
{
	make_numbered(ret_key, lineage->prefix, "manifests/", seq, ".json.zst");
}

void lineage_chunks_key(const struct lineage *lineage, uint64_t seq,
			char *ret_key)
{
	make_numbered(ret_key, lineage->prefix, "chunks/", seq, ".bin");
}

void lineage_pack_key(const struct lineage *lineage, const uint8_t pack_id[32],
		      char *ret_key)
{
	char hex[65], tail[LONGEST_TAIL_BYTES];

	encode_hex(pack_id, 32, hex);
	snprintf(tail, sizeof(tail), "packs/%.2s/%s", hex, hex);
	make_key(ret_key, lineage->prefix, tail);
}

static int parse_numbered(const char *prefix, const char *directory,
			  const char *suffix, const char *key,
			  uint64_t *ret_number)
{
	size_t prefix_length = strlen(prefix);
	size_t directory_length = strlen(directory);
	uint64_t number = 0;

	if (strncmp(key, prefix, prefix_length) != 0)
		return -EBADMSG;
	key += prefix_length;
	if (strncmp(key, directory, directory_length) != 0)
		return -EBADMSG;
	key += directory_length;
	for (int i = 0; i < NUMBER_DIGITS; i++, key++) {
		if (*key < '0' || *key > '9')
			return -EBADMSG;
		number = number * 10 + (uint64_t)(*key - '0');
	}
	if (strcmp(key, suffix) != 0)
		return -EBADMSG;
	*ret_number = number;
	return 0;
}

int lineage_parse_epoch(const struct lineage *lineage, const char *key,
			uint64_t *ret_epoch)
{
	return parse_numbered(lineage->prefix, "epochs/", "", key, ret_epoch);
}

int lineage_parse_manifest(const struct lineage *lineage, const char *key,
			   uint64_t *ret_seq)
{
	return parse_numbered(lineage->prefix, "manifests/", ".json.zst", key,
			      ret_seq);
}

int lineage_init_bucket(struct lineage *ret, const char *bucket,
			struct hib_error *error)
{
	struct lineage lineage = { 0 };
	int r = make_prefix(lineage.bucket_prefix, LINEAGE_ROOT, bucket, error);

	if (r == 0)
		*ret = lineage;
	return r;
}
