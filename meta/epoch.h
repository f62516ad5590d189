/*
 * The two small objects of a lineage: epochs/<epoch>, who became its owner
 * when; and HEAD, the latest snapshot, for people. Their content;
 * transfer/snapshot.h moves them.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_META_EPOCH_H
#define HIBFS_META_EPOCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/uuid.h"
#include "meta/manifest.h"

#define EPOCH_FORMAT "hibfs-epoch"
#define EPOCH_VERSION 1
#define HEAD_FORMAT "hibfs-head"
#define HEAD_VERSION 1

struct epoch {
	uint64_t number;
	char node[256]; /* the owner's name */
	char task[UUID_TEXT_BYTES]; /* that took it */
	int64_t taken_ms; /* wall clock */
};

int epoch_format(const struct epoch *epoch, struct buffer *out,
		 struct hib_error *error);
int epoch_parse(const char *label, const void *data, size_t size,
		struct epoch *ret, struct hib_error *error);

/* The HEAD that tells of this manifest. */
int head_format(const struct manifest *manifest, struct buffer *out,
		struct hib_error *error);

#endif
