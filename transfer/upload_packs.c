/*
 * The snapshot writer's packs. There is one open pack. Workers hash and
 * compress beside one another and copy into it under the writer's lock; the one
 * that finds it full sends it off and goes on with a new one.
 *
 * Threads: the engine's workers, the writer's caller, and the store's thread in
 * pack_confirmed(). writer->lock is never held over I/O, and never while
 * waiting for a buffer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "transfer/upload_internal.h"

static int adopt_parent(struct snapshot_writer *writer,
			const struct chunk_table *parent)
{
	writer->packs = malloc(((size_t)parent->pack_count + 1) *
			       sizeof(*writer->packs));
	if (!writer->packs)
		return -ENOMEM;
	if (parent->pack_count)
		memcpy(writer->packs, parent->packs,
		       (size_t)parent->pack_count * sizeof(*writer->packs));
	writer->pack_count = writer->pack_capacity = parent->pack_count;
	return chunk_set_init(&writer->known, parent);
}

int snapshot_writer_new(struct engine *engine, const struct lineage *lineage,
			const struct chunk_table *parent,
			struct snapshot_writer **ret, struct hib_error *error)
{
	struct snapshot_writer *writer = calloc(1, sizeof(*writer));

	if (!writer)
		return hib_fail(error, ENOMEM, "out of memory");
	writer->engine = engine;
	writer->lineage = *lineage;
	pthread_mutex_init(&writer->lock, NULL);
	pthread_cond_init(&writer->changed, NULL);
	cancel_init(&writer->cancel, NULL);
	if (parent && adopt_parent(writer, parent) < 0) {
		snapshot_writer_free(writer);
		return hib_fail(error, ENOMEM, "out of memory");
	}
	*ret = writer;
	return 0;
}

static struct pack_upload *upload_free(struct pack_upload *upload)
{
	if (upload) {
		pack_done(&upload->pack);
		engine_buffer_put(upload->writer->engine, ENGINE_UPLOAD,
				  upload->pack.capacity, upload->buffer);
		free(upload);
	}
	return NULL;
}

void writer_wait_for_packs(struct snapshot_writer *writer)
{
	pthread_mutex_lock(&writer->lock);
	while (writer->in_flight)
		pthread_cond_wait(&writer->changed, &writer->lock);
	pthread_mutex_unlock(&writer->lock);
}

struct snapshot_writer *snapshot_writer_free(struct snapshot_writer *writer)
{
	if (!writer)
		return NULL;
	cancel_request(&writer->cancel);
	writer_wait_for_packs(writer);
	upload_free(writer->open);
	cancel_done(&writer->cancel);
	chunk_set_done(&writer->known);
	pthread_cond_destroy(&writer->changed);
	pthread_mutex_destroy(&writer->lock);
	free(writer->packs);
	free(writer->table_packs);
	free(writer);
	return NULL;
}

/* ---- packs ---- */

void writer_fail(struct snapshot_writer *writer, int r,
		 const struct hib_error *error)
{
	pthread_mutex_lock(&writer->lock);
	if (!writer->result) {
		writer->result = r;
		writer->error = *error;
	}
	pthread_cond_broadcast(&writer->changed);
	pthread_mutex_unlock(&writer->lock);
	cancel_request(&writer->cancel);
}

/* In one of the store's threads. */
static void pack_confirmed(void *arg, int result, const struct hib_error *error)
{
	struct pack_upload *upload = arg;
	struct snapshot_writer *writer = upload->writer;
	struct hib_error fault = HIB_ERROR_INIT;

	if (result == 0) {
		result = fault_point("upload.pack.after");
		if (result < 0) {
			hib_fail(&fault, -result,
				 "fault point upload.pack.after");
			error = &fault;
		}
	}
	if (result < 0)
		writer_fail(writer, result, error);
	atomic_fetch_sub(&writer->engine->packs_sending, 1);
	upload_free(upload);
	pthread_mutex_lock(&writer->lock);
	writer->in_flight--;
	pthread_cond_broadcast(&writer->changed);
	pthread_mutex_unlock(&writer->lock);
}

/* Seals a pack that nobody adds to any more, and sends it. Takes it over. */
static int send_pack(struct snapshot_writer *writer, struct pack_upload *upload,
		     struct hib_error *error)
{
	int r = pack_seal(&upload->pack, upload->id);

	if (r < 0)
		r = hib_fail(error, ENOMEM, "out of memory");
	if (r == 0) {
		r = fault_point("upload.pack.before");
		if (r < 0)
			hib_fail(error, -r, "fault point upload.pack.before");
	}
	if (r < 0) {
		upload_free(upload);
		return r;
	}
	lineage_pack_key(&writer->lineage, upload->id, upload->key);
	upload->call = (struct store_call){
		.cancel = &writer->cancel,
		.progress = writer->progress,
		.body_sha256 = upload->id,
	};
	pthread_mutex_lock(&writer->lock);
	memcpy(writer->packs[upload->index], upload->id, PACK_ID_BYTES);
	writer->in_flight++;
	pthread_mutex_unlock(&writer->lock);
	atomic_fetch_add(&writer->engine->packs_sending, 1);
	store_put_async(engine_store(writer->engine), upload->key,
			upload->pack.data, upload->pack.size, 0, &upload->call,
			pack_confirmed, upload);
	return 0;
}

static int add_pack_locked(struct snapshot_writer *writer,
			   struct pack_upload *upload)
{
	if (writer->pack_count == writer->pack_capacity) {
		uint32_t capacity = writer->pack_capacity * 2 + 16;
		uint8_t(*grown)[PACK_ID_BYTES] =
			reallocarray(writer->packs, capacity, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		writer->packs = grown;
		writer->pack_capacity = capacity;
	}
	upload->index = writer->pack_count++;
	writer->open = upload;
	return 0;
}

/*
 * Opens a pack; the lock is given up while waiting for a buffer, during which
 * other workers wait for this one.
 */
static int open_pack_locked(struct snapshot_writer *writer)
{
	struct pack_upload *upload = calloc(1, sizeof(*upload));
	uint8_t *buffer = NULL;
	int r = -ENOMEM;

	if (!upload)
		return r;
	upload->writer = writer;
	writer->opening = true;
	pthread_mutex_unlock(&writer->lock);
	r = engine_buffer_get(writer->engine, ENGINE_UPLOAD,
			      writer->engine->config.pack_bytes,
			      &writer->cancel, NULL, &buffer);
	pthread_mutex_lock(&writer->lock);
	writer->opening = false;
	pthread_cond_broadcast(&writer->changed);
	if (r == 0) {
		upload->buffer = buffer;
		pack_init(&upload->pack, buffer,
			  writer->engine->config.pack_bytes);
		r = add_pack_locked(writer, upload);
	}
	if (r < 0) {
		/* the engine's lock is taken under no other */
		pthread_mutex_unlock(&writer->lock);
		upload_free(upload);
		pthread_mutex_lock(&writer->lock);
	}
	return r;
}

/* What was the first failure, for a caller that was only told to stop. */
int writer_failure(struct snapshot_writer *writer, int r,
		   struct hib_error *error)
{
	pthread_mutex_lock(&writer->lock);
	if (writer->result < 0) {
		r = writer->result;
		if (error)
			*error = writer->error;
	} else if (error && !error->code) {
		hib_fail(error, -r,
			 r == -ENOMEM ? "out of memory" : "cancelled");
	}
	pthread_mutex_unlock(&writer->lock);
	return r;
}

/* A chunk that the lineage does not have: into the open pack, or a new one. */
int writer_store(struct snapshot_writer *writer, const void *stored,
		 uint32_t stored_bytes, uint32_t plain_bytes, uint32_t flags,
		 struct chunk_record *record, struct hib_error *error)
{
	struct pack_upload *full = NULL;
	const struct chunk_record *known;
	int r = 0;

	pthread_mutex_lock(&writer->lock);
	for (;;) {
		while (writer->opening && !writer->result)
			pthread_cond_wait(&writer->changed, &writer->lock);
		/* the other worker may have had the same bytes */
		known = chunk_set_find(&writer->known, record->id);
		if (known || writer->result)
			break;
		if (writer->open &&
		    pack_has_room(&writer->open->pack, stored_bytes)) {
			record->pack = writer->open->index;
			r = pack_append(&writer->open->pack, stored,
					stored_bytes, plain_bytes, flags,
					record);
			if (r == 0)
				r = chunk_set_add(&writer->known, record);
			break;
		}
		full = TAKE_PTR(writer->open);
		if (full) {
			pthread_mutex_unlock(&writer->lock);
			r = send_pack(writer, full, error);
			pthread_mutex_lock(&writer->lock);
		} else {
			r = open_pack_locked(writer);
		}
		if (r < 0)
			break;
	}
	if (known)
		*record = *known;
	if (r == 0)
		r = writer->result;
	pthread_mutex_unlock(&writer->lock);
	return r < 0 ? writer_failure(writer, r, error) : 0;
}

bool writer_find(struct snapshot_writer *writer, struct chunk_record *record)
{
	const struct chunk_record *known;

	pthread_mutex_lock(&writer->lock);
	known = chunk_set_find(&writer->known, record->id);
	if (known)
		*record = *known;
	pthread_mutex_unlock(&writer->lock);
	return known != NULL;
}

int writer_send_open(struct snapshot_writer *writer, struct hib_error *error)
{
	struct pack_upload *upload;

	pthread_mutex_lock(&writer->lock);
	upload = TAKE_PTR(writer->open);
	pthread_mutex_unlock(&writer->lock);
	return upload ? send_pack(writer, upload, error) : 0;
}

/* Forgets where the packs stood in another table. */
static int begin_table(struct snapshot_writer *writer,
		       const struct chunk_table *table)
{
	if (writer->table == table && table->pack_count &&
	    writer->table_pack_count == writer->pack_count)
		return 0;
	free(writer->table_packs);
	writer->table = table;
	writer->table_pack_count = writer->pack_count;
	writer->table_packs = calloc((size_t)writer->pack_count + 1,
				     sizeof(*writer->table_packs));
	return writer->table_packs ? 0 : -ENOMEM;
}

static int translate_pack(struct snapshot_writer *writer,
			  struct chunk_table *table,
			  struct chunk_record *record)
{
	uint32_t *known = &writer->table_packs[record->pack], index;

	if (!*known) {
		int r = chunk_table_add_pack(table, writer->packs[record->pack],
					     &index);

		if (r < 0)
			return r;
		*known = index + 1;
	}
	record->pack = *known - 1;
	return 0;
}

int snapshot_writer_append(struct snapshot_writer *writer,
			   const struct source_file *file,
			   struct chunk_table *table, uint64_t *ret_first,
			   struct hib_error *error)
{
	uint64_t first;
	int r = begin_table(writer, table);

	if (r == 0)
		r = chunk_table_extend(table, file->ret_record_count, &first);
	for (uint64_t i = 0; i < file->ret_record_count && r == 0; i++) {
		struct chunk_record *record = &table->records[first + i];

		*record = file->ret_records[i];
		if (!(record->flags & CHUNK_ZERO))
			r = translate_pack(writer, table, record);
	}
	if (r < 0)
		return hib_fail_errno(error, -r, "build the chunk table");
	*ret_first = first;
	return 0;
}
