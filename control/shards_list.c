/*
 * Which shards and buckets there are: the directories of the source, and the
 * records of those that are not live.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "control/shards_internal.h"

struct names {
	int dirfd;
	char **names;
	size_t count, capacity;
	int result;
};

static void names_done(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->names[i]);
	free(names->names);
}

static int names_add(struct names *names, const char *name)
{
	if (names->count == names->capacity) {
		size_t capacity = names->capacity ? 2 * names->capacity : 64;
		char **grown =
			reallocarray(names->names, capacity, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		names->names = grown;
		names->capacity = capacity;
	}
	names->names[names->count] = strdup(name);
	return names->names[names->count] ? (int)(names->count++, 0) : -ENOMEM;
}

static int add_directory(void *arg, const char *name, unsigned char d_type)
{
	struct names *names = arg;

	if (strcmp(name, ".hibfs") == 0 ||
	    (d_type != DT_DIR && d_type != DT_UNKNOWN) ||
	    (d_type == DT_UNKNOWN && !shards_is_directory(names->dirfd, name)))
		return 0;
	return names_add(names, name);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_sort_unique(struct names *names)
{
	size_t kept = 0;

	if (names->count)
		qsort(names->names, names->count, sizeof(*names->names),
		      compare_names);
	for (size_t i = 0; i < names->count; i++) {
		if (kept &&
		    strcmp(names->names[kept - 1], names->names[i]) == 0)
			free(names->names[i]);
		else
			names->names[kept++] = names->names[i];
	}
	names->count = kept;
}

static int list_directories(struct shards *shards, const char *path,
			    struct names *names, struct hib_error *error)
{
	int r = dir_open(fs_source_fd(shards->config.fs), path, &names->dirfd,
			 error);

	if (r < 0)
		return r;
	r = dir_each(names->dirfd, add_directory, names, error);
	names->dirfd = close_fd(names->dirfd);
	return r;
}

/* The bucket (or, with `bucket`, shard) names of hibernated shards. */
static int add_recorded(struct shards *shards, const char *bucket,
			struct names *names)
{
	int r = 0;

	pthread_mutex_lock(&shards->lock);
	for (size_t i = 0; i < SHARD_SLOTS && r == 0; i++) {
		for (struct shard *shard = shards->slots[i]; shard && r == 0;
		     shard = shard->next_in_slot) {
			if (bucket && strcmp(shard->bucket, bucket) != 0)
				continue;
			if (shard_state(shard) != SHARD_LIVE)
				r = names_add(names, bucket ? shard->name
							    : shard->bucket);
		}
	}
	pthread_mutex_unlock(&shards->lock);
	return r;
}

int shards_buckets(struct shards *shards, char ***ret, size_t *ret_count,
		   struct hib_error *error)
{
	struct names names = { .dirfd = -EBADF };
	int r = list_directories(shards, ".", &names, error);

	if (r == 0 && add_recorded(shards, NULL, &names) < 0)
		r = hib_fail(error, ENOMEM, "out of memory");
	if (r < 0) {
		names_done(&names);
		return r;
	}
	names_sort_unique(&names);
	*ret = names.names;
	*ret_count = names.count;
	return 0;
}

static int shards_of_bucket(struct shards *shards, const char *bucket,
			    struct shard ***list, size_t *count,
			    struct hib_error *error)
{
	CLEANUP(names_done) struct names names = { .dirfd = -EBADF };
	bool there = true;
	int r;

	if (shards->config.shard_depth == 1) {
		r = names_add(&names, bucket);
	} else {
		r = list_directories(shards, bucket, &names, error);
		there = r == 0;
		if (r == -ENOENT)
			r = 0;
		if (r == 0)
			r = add_recorded(shards, bucket, &names);
	}
	if (r < 0)
		return r;
	if (!there && !names.count)
		return hib_fail(
			error, ENOENT,
			"there is no bucket \"%s\" here; `hibctl list` shows those that are",
			bucket);
	names_sort_unique(&names);
	for (size_t i = 0; i < names.count; i++) {
		struct shard **grown =
			reallocarray(*list, *count + 1, sizeof(*grown));

		if (!grown)
			return hib_fail(error, ENOMEM, "out of memory");
		*list = grown;
		r = shards_find(shards, bucket, names.names[i], false,
				&(*list)[*count], error);
		if (r == -ENOENT && shards->config.shard_depth == 2)
			continue; /* removed since we looked */
		if (r < 0)
			return r;
		(*count)++;
	}
	return 0;
}

int shards_of(struct shards *shards, const char *bucket, struct shard ***ret,
	      size_t *ret_count, struct hib_error *error)
{
	struct shard **list = NULL;
	size_t count = 0;
	int r = 0;

	if (bucket) {
		r = shards_of_bucket(shards, bucket, &list, &count, error);
	} else {
		struct names buckets = { .dirfd = -EBADF };

		r = shards_buckets(shards, &buckets.names, &buckets.count,
				   error);
		for (size_t i = 0; i < buckets.count && r == 0; i++) {
			r = shards_of_bucket(shards, buckets.names[i], &list,
					     &count, error);
			if (r == -ENOENT)
				r = 0;
		}
		names_done(&buckets);
	}
	if (r < 0) {
		free(list);
		return r;
	}
	*ret = list;
	*ret_count = count;
	return 0;
}

int shards_recorded(struct shards *shards, struct shard ***ret,
		    size_t *ret_count, struct hib_error *error)
{
	size_t count = 0, capacity = 0;
	struct shard **list = NULL;

	pthread_mutex_lock(&shards->lock);
	for (size_t i = 0; i < SHARD_SLOTS; i++)
		for (struct shard *shard = shards->slots[i]; shard;
		     shard = shard->next_in_slot)
			capacity++;
	list = calloc(capacity + 1, sizeof(*list));
	for (size_t i = 0; i < SHARD_SLOTS && list; i++)
		for (struct shard *shard = shards->slots[i]; shard;
		     shard = shard->next_in_slot)
			if (shard_is_recorded(shard))
				list[count++] = shard;
	pthread_mutex_unlock(&shards->lock);
	if (!list)
		return hib_fail(error, ENOMEM, "out of memory");
	*ret = list;
	*ret_count = count;
	return 0;
}
