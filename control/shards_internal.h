/* What shards.c and shards_list.c share. */
#ifndef HIBFS_CONTROL_SHARDS_INTERNAL_H
#define HIBFS_CONTROL_SHARDS_INTERNAL_H

#include <pthread.h>

#include "control/shards.h"
#include "control/target.h"

#define SHARD_OWNER_BYTES 256
#define SHARD_SLOTS 4096

struct shard {
	struct shards *shards;
	char bucket[TARGET_NAME_BYTES], name[TARGET_NAME_BYTES];
	char text[TARGET_TEXT_BYTES];
	struct shard *next_in_slot; /* guarded by shards->lock */
	pthread_mutex_t lock;
	struct shard_record record; /* guarded by lock */
	bool has_record; /* guarded by lock */
	enum operation operation; /* guarded by lock */
	char owner[SHARD_OWNER_BYTES]; /* of the operation; guarded by lock */
	bool wanted; /* guarded by lock */
};

struct shards {
	struct shards_config config;
	pthread_mutex_t lock;
	struct shard *slots[SHARD_SLOTS]; /* guarded by lock */
};

/* A real directory, no symlink to one. */
bool shards_is_directory(int dirfd, const char *path);

#endif
