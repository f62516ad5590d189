/*
 * BUCKET or BUCKET/SHARD as people and programs write it on the socket. A part
 * is percent-encoded where the name holds '/', '%', bytes that are not UTF-8 or
 * control characters; anything else stands for itself.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_CONTROL_TARGET_H
#define HIBFS_CONTROL_TARGET_H

#include <stdbool.h>

#include "base/buffer.h"
#include "base/error.h"

#define TARGET_NAME_BYTES 256

struct target {
	char bucket[TARGET_NAME_BYTES];
	char shard[TARGET_NAME_BYTES]; /* "" for the whole bucket */
};

/*
 * With shard_depth 1 a target is a single part, and bucket and shard are it.
 * -EINVAL with a message for what cannot be a name: empty, ".", "..", ".hibfs",
 * a NUL, longer than 255 bytes, more parts than there may be.
 */
int target_parse(const char *text, unsigned shard_depth, struct target *ret,
		 struct hib_error *error);

/* Appends the text that target_parse() reads back; shard NULL or "": bucket. */
int target_format(struct buffer *out, const char *bucket, const char *shard,
		  unsigned shard_depth);

/* A name for messages and JSON: encoded as in a target, always UTF-8. */
#define TARGET_TEXT_BYTES (6 * TARGET_NAME_BYTES + 2)
void target_text(const char *bucket, const char *shard, unsigned shard_depth,
		 char ret_text[TARGET_TEXT_BYTES]);

#endif
