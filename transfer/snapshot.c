#include "transfer/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "transfer/manifest_object.h"
#include "transfer/sealed_text.h"

#define MANIFEST_STORED_MAX ((size_t)1 << 30)
#define CHUNKS_STORED_MAX ((size_t)4 << 30)
#define EPOCH_MAX_BYTES 4096
#define HEAD_MAX_BYTES 4096
#define SEQ_TRIES 1000
/* Giving an epoch back is a courtesy; nobody waits longer for it. */
#define DROP_TIMEOUT_MS 3000

static int out_of_memory(struct hib_error *error)
{
	return hib_fail(error, ENOMEM, "out of memory");
}

static int fault(const char *name, struct hib_error *error)
{
	int r = fault_point(name);

	return r < 0 ? hib_fail(error, -r, "fault point %s", name) : 0;
}

/* ---- what there is ---- */

struct highest {
	const struct lineage *lineage;
	int (*parse)(const struct lineage *lineage, const char *key,
		     uint64_t *ret);
	uint64_t number;
};

static int note_highest(void *arg, const char *key,
			const struct store_object *object)
{
	struct highest *highest = arg;
	uint64_t number;

	(void)object;
	/* what has another name is not ours: leave it alone */
	if (highest->parse(highest->lineage, key, &number) == 0 &&
	    number > highest->number)
		highest->number = number;
	return 0;
}

/* The keys end in zero-padded numbers, so those at and above `from` follow it. */
static int find_highest(struct store *store, const struct lineage *lineage,
			const char *folder,
			int (*parse)(const struct lineage *lineage,
				     const char *key, uint64_t *ret),
			const struct store_call *call, uint64_t *ret,
			struct hib_error *error)
{
	struct highest highest = { .lineage = lineage, .parse = parse };
	char prefix[STORE_KEY_BYTES + 16];
	int r;

	snprintf(prefix, sizeof(prefix), "%s%s/", lineage->prefix, folder);
	r = store_list(store, prefix, NULL, note_highest, &highest, call,
		       error);
	if (r == 0)
		*ret = highest.number;
	return r;
}

int snapshot_lineage_state(struct store *store, const struct lineage *lineage,
			   const struct store_call *call,
			   struct lineage_state *ret, struct hib_error *error)
{
	struct lineage_state state = { 0 };
	int r = find_highest(store, lineage, "epochs", lineage_parse_epoch,
			     call, &state.latest_epoch, error);

	if (r == 0)
		r = find_highest(store, lineage, "manifests",
				 lineage_parse_manifest, call,
				 &state.latest_seq, error);
	if (r == 0)
		*ret = state;
	return r;
}

/* ---- epochs ---- */

/*
 * Creates an object only if it is absent. A store without conditional PUT is
 * asked first: two that ask at the same moment both get it.
 */
static int put_if_absent(struct store *store, const char *key, const void *data,
			 size_t size, const struct store_call *call,
			 bool *ret_unfenced, struct hib_error *error)
{
	struct store_object object;
	int r = store_put(store, key, data, size, STORE_IF_ABSENT, call, error);

	if (r != -EOPNOTSUPP)
		return r;
	*ret_unfenced = true;
	r = store_head(store, key, &object, call, error);
	if (r == 0)
		return hib_fail(error, EEXIST, "%s exists already", key);
	if (r != -ENOENT)
		return r;
	return store_put(store, key, data, size, 0, call, error);
}

int snapshot_take_epoch(struct store *store, const struct lineage *lineage,
			uint64_t epoch, const char *node, const char *task,
			const struct store_call *call, bool *ret_unfenced,
			struct hib_error *error)
{
	CLEANUP(buffer_done) struct buffer body = BUFFER_INIT(EPOCH_MAX_BYTES);
	struct epoch content = {
		.number = epoch,
		.taken_ms = clock_realtime_ms(),
	};
	char key[STORE_KEY_BYTES];
	bool unfenced = false;
	int r;

	snprintf(content.node, sizeof(content.node), "%s", node);
	snprintf(content.task, sizeof(content.task), "%s", task);
	lineage_epoch_key(lineage, epoch, key);
	r = epoch_format(&content, &body, error);
	if (r == 0)
		r = sealed_text_seal(&body, error);
	if (r == 0)
		r = fault("epoch.take.before", error);
	if (r == 0)
		r = put_if_absent(store, key, body.data, body.size, call,
				  &unfenced, error);
	if (r == 0)
		r = fault("epoch.take.after", error);
	if (r == 0)
		*ret_unfenced = unfenced;
	return r;
}

int snapshot_read_epoch(struct store *store, const struct lineage *lineage,
			uint64_t epoch, const struct store_call *call,
			struct epoch *ret, struct hib_error *error)
{
	CLEANUP(buffer_done) struct buffer body = BUFFER_INIT(EPOCH_MAX_BYTES);
	char key[STORE_KEY_BYTES];
	int r;

	lineage_epoch_key(lineage, epoch, key);
	r = store_get(store, key, 0, 0, &body, call, error);
	if (r == 0)
		r = sealed_text_open(key, &body, error);
	if (r == 0)
		r = epoch_parse(key, body.data, body.size, ret, error);
	return r;
}

int snapshot_drop_epoch(struct store *store, const struct lineage *lineage,
			uint64_t epoch, struct hib_error *error)
{
	const struct store_call call = { .timeout_ms = DROP_TIMEOUT_MS };
	char key[STORE_KEY_BYTES];
	const char *keys[] = { key };

	lineage_epoch_key(lineage, epoch, key);
	return store_delete(store, keys, 1, &call, error);
}

int snapshot_check_epoch(struct store *store, const struct lineage *lineage,
			 uint64_t epoch, const struct store_call *call,
			 struct hib_error *error)
{
	struct epoch owner = { .node = "of unknown name" };
	uint64_t latest = 0;
	int r = find_highest(store, lineage, "epochs", lineage_parse_epoch,
			     call, &latest, error);

	if (r < 0 || latest <= epoch)
		return r;
	snapshot_read_epoch(store, lineage, latest, call, &owner, NULL);
	return hib_fail(
		error, ESTALE,
		"the node \"%s\" has taken over this shard (epoch %" PRIu64
		", here %" PRIu64
		"): this copy is out of date and cannot be committed; it stays as it is",
		owner.node, latest, epoch);
}

/* ---- manifests and chunk tables ---- */

static int read_manifest(struct store *store, const char *key,
			 const struct store_call *call, struct manifest **ret,
			 struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer stored = BUFFER_INIT(MANIFEST_STORED_MAX);
	int r = store_get(store, key, 0, 0, &stored, call, error);

	return r < 0 ? r
		     : manifest_object_parse(key, stored.data, stored.size, ret,
					     error);
}

static int sha256(const struct buffer *data, uint8_t ret[32])
{
	return EVP_Digest(data->data, data->size, ret, NULL, EVP_sha256(),
			  NULL) == 1
		       ? 0
		       : -ENOMEM;
}

static int put_chunk_table(struct store *store, const struct lineage *lineage,
			   struct manifest *manifest,
			   const struct chunk_table *table,
			   const struct store_call *call,
			   struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer body = BUFFER_INIT(CHUNKS_STORED_MAX);
	char key[STORE_KEY_BYTES];
	bool unfenced;
	int r = chunk_table_write(table, &body, error);

	if (r == 0 && sha256(&body, manifest->chunk_table_sha256) < 0)
		r = out_of_memory(error);
	if (r == 0)
		r = fault("commit.chunks.before", error);
	if (r < 0)
		return r;
	/*
	 * One that is there was left by a commit that failed, or is being made
	 * by another owner: never written over, its number is passed by.
	 */
	for (int i = 0; i < SEQ_TRIES; i++) {
		lineage_chunks_key(lineage, manifest->seq, key);
		r = put_if_absent(store, key, body.data, body.size, call,
				  &unfenced, error);
		if (r != -EEXIST)
			break;
		manifest->seq++;
	}
	return r == 0 ? fault("commit.chunks.after", error) : r;
}

static int put_manifest(struct store *store, const struct lineage *lineage,
			const struct manifest *manifest,
			const struct store_call *call, struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer body = BUFFER_INIT(MANIFEST_STORED_MAX);
	char key[STORE_KEY_BYTES];
	bool unfenced;
	int r;

	lineage_manifest_key(lineage, manifest->seq, key);
	r = manifest_object_build(key, manifest, &body, error);
	if (r == 0)
		r = fault("commit.manifest.before", error);
	if (r == 0)
		r = put_if_absent(store, key, body.data, body.size, call,
				  &unfenced, error);
	return r == 0 ? fault("commit.manifest.after", error) : r;
}

/* For people; what decides is in manifests/ and bucket.json. */
static void put_head(struct store *store, const struct lineage *lineage,
		     const struct manifest *manifest,
		     const struct store_call *call)
{
	CLEANUP(buffer_done) struct buffer body = BUFFER_INIT(HEAD_MAX_BYTES);
	char key[STORE_KEY_BYTES];

	lineage_head_key(lineage, key);
	if (head_format(manifest, &body, NULL) == 0 &&
	    fault_point("commit.head.before") == 0 &&
	    store_put(store, key, body.data, body.size, 0, call, NULL) == 0)
		fault_point("commit.head.after");
}

int snapshot_commit(struct store *store, const struct lineage *lineage,
		    struct manifest *manifest, const struct chunk_table *table,
		    const struct store_call *call, struct hib_error *error)
{
	int r = put_chunk_table(store, lineage, manifest, table, call, error);

	if (r == 0)
		r = put_manifest(store, lineage, manifest, call, error);
	if (r == 0)
		r = snapshot_check_epoch(store, lineage, manifest->epoch, call,
					 error);
	if (r == 0)
		put_head(store, lineage, manifest, call);
	return r;
}

/*
 * Every file's chunks are in the table, and no more of them than it has: many
 * files that name the same records would be a small object that asks for any
 * amount of memory.
 */
static int check_ranges(const char *key, const struct manifest *manifest,
			const struct chunk_table *table,
			struct hib_error *error)
{
	if (manifest->chunk_count > table->record_count)
		return hib_fail(error, EBADMSG,
				"%s is broken: it tells of %" PRIu64
				" chunks, the chunk table of %" PRIu64,
				key, manifest->chunk_count,
				table->record_count);
	for (size_t i = 0; i < manifest->entry_count; i++) {
		const struct manifest_entry *entry = &manifest->entries[i];

		if (entry->first_chunk > table->record_count ||
		    entry->chunk_count >
			    table->record_count - entry->first_chunk)
			return hib_fail(
				error, EBADMSG,
				"%s is broken: \"%s\" has chunks beyond the chunk table",
				key, entry->path);
	}
	return 0;
}

static int read_table(struct store *store, const char *key,
		      const struct manifest *manifest,
		      const struct store_call *call, struct chunk_table **ret,
		      struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer body = BUFFER_INIT(CHUNKS_STORED_MAX);
	uint8_t digest[32];
	int r = store_get(store, key, 0, 0, &body, call, error);

	if (r < 0)
		return r;
	if (sha256(&body, digest) < 0)
		return out_of_memory(error);
	if (memcmp(digest, manifest->chunk_table_sha256, 32) != 0)
		return hib_fail(
			error, EBADMSG,
			"%s is damaged: its SHA-256 is not what the manifest says",
			key);
	return chunk_table_parse(key, body.data, body.size, ret, error);
}

int snapshot_read(struct store *store, const struct lineage *lineage,
		  uint64_t seq, const struct store_call *call,
		  struct manifest **ret_manifest,
		  struct chunk_table **ret_table, struct hib_error *error)
{
	char manifest_key[STORE_KEY_BYTES], chunks_key[STORE_KEY_BYTES];
	struct manifest *manifest = NULL;
	struct chunk_table *table = NULL;
	int r;

	lineage_manifest_key(lineage, seq, manifest_key);
	lineage_chunks_key(lineage, seq, chunks_key);
	r = read_manifest(store, manifest_key, call, &manifest, error);
	if (r == 0 && manifest->seq != seq)
		r = hib_fail(error, EBADMSG,
			     "%s is broken: it says it is number %" PRIu64,
			     manifest_key, manifest->seq);
	if (r == 0)
		r = read_table(store, chunks_key, manifest, call, &table,
			       error);
	if (r == 0)
		r = check_ranges(manifest_key, manifest, table, error);
	if (r < 0) {
		manifest_free(manifest);
		chunk_table_free(table);
		return r;
	}
	*ret_manifest = manifest;
	*ret_table = table;
	return 0;
}

/* ---- bucket.json ---- */

int snapshot_read_bucket(struct store *store, const struct lineage *lineage,
			 const struct store_call *call,
			 struct bucket_index **ret, struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer body = BUFFER_INIT(BUCKET_INDEX_MAX_BYTES);
	char key[STORE_KEY_BYTES];
	int r;

	lineage_bucket_key(lineage, key);
	r = store_get(store, key, 0, 0, &body, call, error);
	if (r == -ENOENT)
		return hib_fail(
			error, ENOENT,
			"%s has no %s: this bucket was never paused completely into this store",
			store_url(store), key);
	if (r == 0)
		r = sealed_text_open(key, &body, error);
	if (r == 0)
		r = bucket_index_parse(key, body.data, body.size, ret, error);
	return r;
}

int snapshot_write_bucket(struct store *store, const struct lineage *lineage,
			  const struct bucket_index *index,
			  const struct store_call *call,
			  struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer body = BUFFER_INIT(BUCKET_INDEX_MAX_BYTES);
	char key[STORE_KEY_BYTES];
	int r = bucket_index_format(index, &body, error);

	lineage_bucket_key(lineage, key);
	if (r == 0)
		r = sealed_text_seal(&body, error);
	if (r == 0)
		r = fault("commit.bucket.before", error);
	if (r == 0)
		r = store_put(store, key, body.data, body.size, 0, call, error);
	return r == 0 ? fault("commit.bucket.after", error) : r;
}
