#include "control/shards.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "control/shards_internal.h"

const char *operation_name(enum operation operation)
{
	static const char *const names[] = {
		[OPERATION_NONE] = "none",     [OPERATION_LOCK] = "lock",
		[OPERATION_PAUSE] = "pause",   [OPERATION_RESUME] = "resume",
		[OPERATION_VERIFY] = "verify", [OPERATION_RECOVER] = "recover",
	};

	return names[operation];
}

/* FNV-1a over both names. */
static unsigned slot_of(const char *bucket, const char *name)
{
	uint32_t hash = 2166136261u;

	for (const char *p = bucket; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 16777619u;
	hash = (hash ^ '/') * 16777619u;
	for (const char *p = name; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 16777619u;
	return hash % SHARD_SLOTS;
}

static struct shard *find_locked(struct shards *shards, const char *bucket,
				 const char *name)
{
	struct shard *shard = shards->slots[slot_of(bucket, name)];

	while (shard && (strcmp(shard->bucket, bucket) != 0 ||
			 strcmp(shard->name, name) != 0))
		shard = shard->next_in_slot;
	return shard;
}

static struct shard *shard_free(struct shard *shard)
{
	if (shard) {
		pthread_mutex_destroy(&shard->lock);
		free(shard);
	}
	return NULL;
}

static int shard_new(struct shards *shards, const char *bucket,
		     const char *name, struct shard **ret,
		     struct hib_error *error)
{
	struct shard *shard = calloc(1, sizeof(*shard));
	int r;

	if (!shard)
		return hib_fail(error, ENOMEM, "out of memory");
	pthread_mutex_init(&shard->lock, NULL);
	r = shard_record_init(&shard->record, bucket, name, error);
	if (r < 0) {
		shard_free(shard);
		return r;
	}
	shard->shards = shards;
	strcpy(shard->bucket, shard->record.bucket);
	strcpy(shard->name, shard->record.shard);
	target_text(bucket, name, shards->config.shard_depth, shard->text);
	if (!shard_fs(shard)) {
		shard_free(shard);
		return hib_fail(error, ENOMEM, "out of memory");
	}
	*ret = shard;
	return 0;
}

/* The shard, made if need be. */
static int obtain(struct shards *shards, const char *bucket, const char *name,
		  struct shard **ret, struct hib_error *error)
{
	struct shard *shard, *made = NULL;
	int r = 0;

	pthread_mutex_lock(&shards->lock);
	shard = find_locked(shards, bucket, name);
	pthread_mutex_unlock(&shards->lock);
	if (!shard) {
		r = shard_new(shards, bucket, name, &made, error);
		if (r < 0)
			return r;
		pthread_mutex_lock(&shards->lock);
		shard = find_locked(shards, bucket, name);
		if (!shard) {
			struct shard **slot =
				&shards->slots[slot_of(bucket, name)];

			shard = TAKE_PTR(made);
			shard->next_in_slot = *slot;
			*slot = shard;
		}
		pthread_mutex_unlock(&shards->lock);
		shard_free(made);
	}
	*ret = shard;
	return 0;
}

static int load_record(void *arg, const struct shard_record *record)
{
	struct shards *shards = arg;
	struct shard *shard;
	int r = obtain(shards, record->bucket, record->shard, &shard, NULL);

	if (r < 0)
		return r;
	shard->record = *record;
	shard->has_record = true;
	return 0;
}

int shards_open(const struct shards_config *config, struct shards **ret,
		struct hib_error *error)
{
	struct shards *shards = calloc(1, sizeof(*shards));
	int r;

	if (!shards)
		return hib_fail(error, ENOMEM, "out of memory");
	shards->config = *config;
	pthread_mutex_init(&shards->lock, NULL);
	r = shard_record_each(config->hibfs_fd, load_record, shards, error);
	if (r < 0) {
		shards_close(shards);
		return hib_wrap(error, r, "read the shards' records");
	}
	*ret = shards;
	return 0;
}

struct shards *shards_close(struct shards *shards)
{
	if (!shards)
		return NULL;
	for (size_t i = 0; i < SHARD_SLOTS; i++) {
		while (shards->slots[i]) {
			struct shard *shard = shards->slots[i];

			shards->slots[i] = shard->next_in_slot;
			shard_free(shard);
		}
	}
	pthread_mutex_destroy(&shards->lock);
	free(shards);
	return NULL;
}

bool shards_is_directory(int dirfd, const char *path)
{
	struct stat status;

	return fstatat(dirfd, path, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISDIR(status.st_mode);
}

bool shard_has_tree(struct shard *shard)
{
	char path[SHARD_PATH_BYTES];

	shard_live_path(shard, path);
	return shards_is_directory(fs_source_fd(shard->shards->config.fs),
				   path);
}

bool shard_has_stub(struct shard *shard)
{
	char path[SHARD_PATH_BYTES];

	shard_stub_path(shard, path);
	return shards_is_directory(fs_source_fd(shard->shards->config.fs),
				   path);
}

bool shard_is_recorded(struct shard *shard)
{
	bool has;

	pthread_mutex_lock(&shard->lock);
	has = shard->has_record;
	pthread_mutex_unlock(&shard->lock);
	return has;
}

/* Something that people see: a directory, or hibernated. */
static bool exists(struct shard *shard)
{
	return (shard_is_recorded(shard) && shard_state(shard) != SHARD_LIVE) ||
	       shard_has_tree(shard);
}

int shards_find(struct shards *shards, const char *bucket, const char *name,
		bool make, struct shard **ret, struct hib_error *error)
{
	char path[2 * TARGET_NAME_BYTES];
	struct shard *shard;
	int r;

	pthread_mutex_lock(&shards->lock);
	shard = find_locked(shards, bucket, name);
	pthread_mutex_unlock(&shards->lock);
	if (!shard) {
		if (shards->config.shard_depth == 1)
			snprintf(path, sizeof(path), "%s", name);
		else
			snprintf(path, sizeof(path), "%s/%s", bucket, name);
		if (make || shards_is_directory(fs_source_fd(shards->config.fs),
						path)) {
			r = obtain(shards, bucket, name, &shard, error);
			if (r < 0)
				return r;
		}
	}
	if (!shard || (!make && !exists(shard))) {
		char text[TARGET_TEXT_BYTES];

		target_text(bucket, name, shards->config.shard_depth, text);
		return hib_fail(
			error, ENOENT,
			"there is no shard %s here; `hibctl list` shows those that are",
			text);
	}
	if (fs_shard_place(shard_fs(shard)) == FS_PLACE_NONE &&
	    shard_state(shard) == SHARD_LIVE && shard_has_tree(shard)) {
		r = fs_shard_set_place(shards->config.fs, shard_fs(shard),
				       FS_PLACE_LIVE, error);
		if (r < 0)
			return r;
	}
	*ret = shard;
	return 0;
}

/* ---- one shard ---- */

const char *shard_bucket(const struct shard *shard)
{
	return shard->bucket;
}

const char *shard_name(const struct shard *shard)
{
	return shard->name;
}

const char *shard_text(const struct shard *shard)
{
	return shard->text;
}

/* By name each time: in the mount a shard without a record may be renamed. */
struct fs_shard *shard_fs(const struct shard *shard)
{
	return fs_shard_get(shard->shards->config.fs, shard->bucket,
			    shard->name);
}

void shard_get_record(struct shard *shard, struct shard_record *ret)
{
	pthread_mutex_lock(&shard->lock);
	*ret = shard->record;
	pthread_mutex_unlock(&shard->lock);
}

enum shard_state shard_state(struct shard *shard)
{
	enum shard_state state;

	pthread_mutex_lock(&shard->lock);
	state = shard->record.state;
	pthread_mutex_unlock(&shard->lock);
	return state;
}

int shard_begin(struct shard *shard, enum operation operation,
		const char *owner, struct hib_error *error)
{
	int r = 0;

	pthread_mutex_lock(&shard->lock);
	if (shard->operation == OPERATION_LOCK)
		r = hib_fail(error, EBUSY, "%s is busy: locked by \"%s\"",
			     shard->text, shard->owner);
	else if (shard->operation != OPERATION_NONE)
		r = hib_fail(error, EBUSY,
			     "%s is busy: %s under way as task %s", shard->text,
			     operation_name(shard->operation), shard->owner);
	if (r == 0) {
		shard->operation = operation;
		snprintf(shard->owner, sizeof(shard->owner), "%s", owner);
	}
	pthread_mutex_unlock(&shard->lock);
	return r;
}

void shard_end(struct shard *shard)
{
	bool wanted;

	pthread_mutex_lock(&shard->lock);
	shard->operation = OPERATION_NONE;
	shard->owner[0] = 0;
	wanted = shard->wanted && shard->record.state == SHARD_HIBERNATED;
	shard->wanted = false;
	pthread_mutex_unlock(&shard->lock);
	if (wanted)
		shard->shards->config.wanted(shard->shards->config.arg, shard);
}

enum operation shard_operation(struct shard *shard, char *ret_owner)
{
	enum operation operation;

	pthread_mutex_lock(&shard->lock);
	operation = shard->operation;
	if (ret_owner)
		memcpy(ret_owner, shard->owner, sizeof(shard->owner));
	pthread_mutex_unlock(&shard->lock);
	return operation;
}

bool shard_want(struct shard *shard)
{
	bool now;

	pthread_mutex_lock(&shard->lock);
	now = shard->operation == OPERATION_NONE;
	shard->wanted = !now;
	pthread_mutex_unlock(&shard->lock);
	return now;
}

void shard_clear_want(struct shard *shard)
{
	pthread_mutex_lock(&shard->lock);
	shard->wanted = false;
	pthread_mutex_unlock(&shard->lock);
}

/* By the operation's holder: nobody else writes the record. */
static int save(struct shard *shard, struct shard_record *record,
		struct hib_error *error)
{
	int r = shard_record_save(shard->shards->config.hibfs_fd, record,
				  error);

	if (r < 0)
		return hib_wrap(error, r, "write the record of %s",
				shard->text);
	pthread_mutex_lock(&shard->lock);
	shard->record = *record;
	shard->has_record = true;
	pthread_mutex_unlock(&shard->lock);
	return 0;
}

int shard_step(struct shard *shard, enum shard_event event,
	       shard_change_fn change, void *arg, unsigned *ret_actions,
	       struct hib_error *error)
{
	struct shard_record record;
	struct shard_step step;
	int r;

	shard_get_record(shard, &record);
	r = shard_state_step(record.state, event, &step);
	if (r < 0)
		return hib_fail(error, -r, "%s: %s", shard->text,
				shard_state_refusal(record.state, event));
	if (change)
		change(arg, &record);
	record.state = step.state;
	r = save(shard, &record, error);
	if (r == 0 && ret_actions)
		*ret_actions = step.actions;
	return r;
}

void shard_assume_hibernated(struct shard *shard)
{
	pthread_mutex_lock(&shard->lock);
	if (!shard->has_record)
		shard->record.state = SHARD_HIBERNATED;
	pthread_mutex_unlock(&shard->lock);
}

int shard_forget(struct shard *shard, struct hib_error *error)
{
	struct shard_record record;
	int r = shard_record_remove(shard->shards->config.hibfs_fd,
				    shard->bucket, shard->name, error);

	if (r == 0)
		r = shard_record_init(&record, shard->bucket, shard->name,
				      error);
	if (r < 0)
		return r;
	pthread_mutex_lock(&shard->lock);
	shard->record = record;
	shard->has_record = false;
	pthread_mutex_unlock(&shard->lock);
	return 0;
}

int shard_update(struct shard *shard, shard_change_fn change, void *arg,
		 struct hib_error *error)
{
	struct shard_record record;

	shard_get_record(shard, &record);
	change(arg, &record);
	return save(shard, &record, error);
}

void shard_live_path(const struct shard *shard, char ret[SHARD_PATH_BYTES])
{
	if (shard->shards->config.shard_depth == 1)
		snprintf(ret, SHARD_PATH_BYTES, "%s", shard->name);
	else
		snprintf(ret, SHARD_PATH_BYTES, "%s/%s", shard->bucket,
			 shard->name);
}

void shard_stub_path(const struct shard *shard, char ret[SHARD_PATH_BYTES])
{
	snprintf(ret, SHARD_PATH_BYTES, ".hibfs/stubs/%s/%s/tree",
		 shard->bucket, shard->name);
}
