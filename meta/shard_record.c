#include "meta/shard_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "meta/document.h"

#define STATE_FILE "state.json"
/* "shards/<bucket>/<shard>" with names of 255 bytes each. */
#define PATH_BYTES (8 + 2 * SHARD_NAME_BYTES)
#define LABEL_BYTES (PATH_BYTES + 32)

static void cleanup_json(json_t **json)
{
	json_decref(*json);
}

static int check_names(const char *bucket, const char *shard,
		       struct hib_error *error)
{
	const char *bad = !name_is_plain(bucket)  ? bucket
			  : !name_is_plain(shard) ? shard
						  : NULL;

	if (bad)
		return hib_fail(error, EINVAL,
				"\"%.300s\" cannot be the name of a directory",
				bad);
	return 0;
}

int shard_record_init(struct shard_record *ret, const char *bucket,
		      const char *shard, struct hib_error *error)
{
	int r = check_names(bucket, shard, error);

	if (r < 0)
		return r;
	*ret = (struct shard_record){ .state = SHARD_LIVE };
	strcpy(ret->bucket, bucket);
	strcpy(ret->shard, shard);
	return 0;
}

/* 0, or -1 with nothing leaked: json_object_set_new() takes NULL as failure. */
static int set_members(json_t *object, const struct shard_record *record)
{
	int r = 0;

	r |= json_object_set_new(object, "bucket",
				 document_name(record->bucket));
	r |= json_object_set_new(object, "shard", document_name(record->shard));
	r |= json_object_set_new(object, "state",
				 json_string(shard_state_name(record->state)));
	r |= json_object_set_new(object, "seq",
				 json_integer((json_int_t)record->seq));
	r |= json_object_set_new(object, "epoch",
				 json_integer((json_int_t)record->epoch));
	r |= json_object_set_new(object, "task", document_text(record->task));
	r |= json_object_set_new(object, "node", document_text(record->node));
	r |= json_object_set_new(
		object, "logical_bytes",
		json_integer((json_int_t)record->logical_bytes));
	r |= json_object_set_new(object, "files",
				 json_integer((json_int_t)record->files));
	r |= json_object_set_new(object, "stub", json_boolean(record->stub));
	r |= json_object_set_new(object, "changed_ms",
				 json_integer(record->changed_ms));
	r |= json_object_set_new(object, "error", document_text(record->error));
	return r;
}

static int to_json(const struct shard_record *record, json_t **ret,
		   struct hib_error *error)
{
	CLEANUP(cleanup_json) json_t *object = NULL;
	int r = check_names(record->bucket, record->shard, error);

	if (r < 0)
		return r;
	if (record->seq > INT64_MAX || record->epoch > INT64_MAX ||
	    record->logical_bytes > INT64_MAX || record->files > INT64_MAX)
		return hib_fail(error, EOVERFLOW,
				"a number of the record is out of range");
	object = document_new(SHARD_RECORD_FORMAT, SHARD_RECORD_VERSION);
	if (!object || set_members(object, record) < 0)
		return hib_fail_errno(error, ENOMEM, "record");
	*ret = TAKE_PTR(object);
	return 0;
}

static int from_json(const char *label, const json_t *object,
		     struct shard_record *ret, struct hib_error *error)
{
	struct shard_record record = { 0 };
	char state[16];
	int r;

	if ((r = document_get_name(label, object, "bucket", record.bucket,
				   error)) < 0 ||
	    (r = document_get_name(label, object, "shard", record.shard,
				   error)) < 0 ||
	    (r = document_get_text(label, object, "state", state, sizeof(state),
				   error)) < 0 ||
	    (r = document_get_u64(label, object, "seq", &record.seq, error)) <
		    0 ||
	    (r = document_get_u64(label, object, "epoch", &record.epoch,
				  error)) < 0 ||
	    (r = document_get_text(label, object, "task", record.task,
				   sizeof(record.task), error)) < 0 ||
	    (r = document_get_text(label, object, "node", record.node,
				   sizeof(record.node), error)) < 0 ||
	    (r = document_get_u64(label, object, "logical_bytes",
				  &record.logical_bytes, error)) < 0 ||
	    (r = document_get_u64(label, object, "files", &record.files,
				  error)) < 0 ||
	    (r = document_get_bool(label, object, "stub", &record.stub,
				   error)) < 0 ||
	    (r = document_get_i64(label, object, "changed_ms",
				  &record.changed_ms, error)) < 0 ||
	    (r = document_get_text(label, object, "error", record.error,
				   sizeof(record.error), error)) < 0)
		return r;
	if (shard_state_parse(state, &record.state) < 0)
		return hib_fail(error, EBADMSG,
				"%s: \"%s\" is not a state of a shard", label,
				state);
	if (!record.bucket[0] || !record.shard[0])
		return hib_fail(error, EBADMSG,
				"%s: bucket or shard is missing", label);
	if (record.task[0] && !uuid_is_valid(record.task))
		return hib_fail(error, EBADMSG, "%s: \"task\" is not a UUID",
				label);
	*ret = record;
	return 0;
}

int shard_record_format(const struct shard_record *record, struct buffer *out,
			struct hib_error *error)
{
	CLEANUP(cleanup_json) json_t *object = NULL;
	CLEANUP_FREE char *text = NULL;
	int r = to_json(record, &object, error);

	if (r < 0)
		return r;
	text = json_dumps(object, JSON_INDENT(2));
	r = text ? buffer_append_string(out, text) : -ENOMEM;
	if (r < 0)
		return hib_fail_errno(error, -r, "record");
	return 0;
}

int shard_record_parse(const char *label, const void *data, size_t size,
		       struct shard_record *ret, struct hib_error *error)
{
	CLEANUP(cleanup_json) json_t *object = NULL;
	int r = document_parse(label, data, size, SHARD_RECORD_FORMAT,
			       SHARD_RECORD_VERSION, &object, error);

	if (r < 0)
		return r;
	return from_json(label, object, ret, error);
}

static void make_path(const char *bucket, const char *shard,
		      char ret_path[PATH_BYTES])
{
	snprintf(ret_path, PATH_BYTES, "shards/%s/%s", bucket, shard);
}

int shard_record_load(int hibfs_fd, const char *bucket, const char *shard,
		      struct shard_record *ret, struct hib_error *error)
{
	CLEANUP(cleanup_json) json_t *object = NULL;
	CLEANUP_CLOSE int fd = -EBADF;
	char path[PATH_BYTES], label[LABEL_BYTES];
	struct shard_record record;
	int r = check_names(bucket, shard, error);

	if (r < 0)
		return r;
	make_path(bucket, shard, path);
	snprintf(label, sizeof(label), ".hibfs/%s/" STATE_FILE, path);
	r = dir_open(hibfs_fd, path, &fd, error);
	if (r < 0)
		return r;
	r = document_load(fd, STATE_FILE, label, SHARD_RECORD_FORMAT,
			  SHARD_RECORD_VERSION, &object, error);
	if (r == 0)
		r = from_json(label, object, &record, error);
	if (r < 0)
		return r;
	if (strcmp(record.bucket, bucket) != 0 ||
	    strcmp(record.shard, shard) != 0)
		return hib_fail(error, EBADMSG,
				"%s: the record is of another shard", label);
	*ret = record;
	return 0;
}

int shard_record_save(int hibfs_fd, struct shard_record *record,
		      struct hib_error *error)
{
	CLEANUP(cleanup_json) json_t *object = NULL;
	CLEANUP_CLOSE int fd = -EBADF;
	char path[PATH_BYTES];
	int r;

	record->changed_ms = clock_realtime_ms();
	r = to_json(record, &object, error);
	if (r < 0)
		return r;
	make_path(record->bucket, record->shard, path);
	r = fault_point("record.save.before");
	if (r < 0)
		return hib_fail_errno(error, -r, "fault point");
	r = dir_make(hibfs_fd, path, 0700, &fd, error);
	if (r == 0)
		r = document_save(fd, STATE_FILE, object, error);
	if (r < 0)
		return hib_wrap(error, r, "record of the shard .hibfs/%s",
				path);
	r = fault_point("record.save.after");
	if (r < 0)
		return hib_fail_errno(error, -r, "fault point");
	return 0;
}

/* Removes an empty directory; that it is not, or not there, is fine. */
static int remove_empty(int dirfd, const char *name, struct hib_error *error)
{
	if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0)
		return dir_sync(dirfd, error);
	if (errno == ENOENT || errno == ENOTEMPTY || errno == EEXIST)
		return 0;
	return hib_fail_errno(error, errno, "cannot remove %s", name);
}

int shard_record_remove(int hibfs_fd, const char *bucket, const char *shard,
			struct hib_error *error)
{
	CLEANUP_CLOSE int shards = -EBADF;
	CLEANUP_CLOSE int parent = -EBADF;
	int r = check_names(bucket, shard, error);

	if (r == 0)
		r = fault_point("record.remove.before");
	if (r == 0)
		r = dir_open(hibfs_fd, "shards", &shards, error);
	if (r == 0)
		r = dir_open(shards, bucket, &parent, error);
	/* The whole directory: a crash may have left a temporary there. */
	if (r == 0)
		r = tree_remove(parent, shard, error);
	if (r == 0)
		r = dir_sync(parent, error);
	if (r == 0)
		r = remove_empty(shards, bucket, error);
	if (r == 0)
		r = fault_point("record.remove.after");
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return hib_wrap(error, r, "remove the record of a shard");
	return 0;
}

struct each {
	int fd; /* shards/, or shards/<bucket> */
	int hibfs_fd;
	const char *bucket;
	shard_record_visit_fn visit;
	void *arg;
	struct hib_error *error;
};

static int visit_shard(void *arg, const char *name, unsigned char d_type)
{
	struct each *each = arg;
	struct shard_record record;
	int r;

	if (d_type != DT_DIR)
		return 0;
	r = shard_record_load(each->hibfs_fd, each->bucket, name, &record,
			      each->error);
	/* A crash came between the directory and its first record. */
	if (r == -ENOENT) {
		if (each->error)
			*each->error = HIB_ERROR_INIT;
		return 0;
	}
	return r < 0 ? r : each->visit(each->arg, &record);
}

static int visit_bucket(void *arg, const char *name, unsigned char d_type)
{
	struct each *each = arg;
	struct each inner = *each;
	CLEANUP_CLOSE int fd = -EBADF;
	int r;

	if (d_type != DT_DIR)
		return 0;
	r = dir_open(each->fd, name, &fd, each->error);
	if (r < 0)
		return r;
	inner.fd = fd;
	inner.bucket = name;
	return dir_each(fd, visit_shard, &inner, each->error);
}

int shard_record_each(int hibfs_fd, shard_record_visit_fn visit, void *arg,
		      struct hib_error *error)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct each each = {
		.hibfs_fd = hibfs_fd,
		.visit = visit,
		.arg = arg,
		.error = error,
	};
	int r = dir_open(hibfs_fd, "shards", &fd, NULL);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return hib_fail_errno(error, -r, "cannot open .hibfs/shards");
	each.fd = fd;
	return dir_each(fd, visit_bucket, &each, error);
}
