/*
 * The manifest as an object: its text (meta/manifest.h) as one zstd frame, and
 * behind it a seal, the SHA-256 of that frame. The seal is a zstd skippable
 * frame, so that `zstdcat` knows nothing of it; with it not a single byte of
 * the object can change unnoticed. Used by snapshot.c; docs/FORMAT.md has the
 * bytes.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_TRANSFER_MANIFEST_OBJECT_H
#define HIBFS_TRANSFER_MANIFEST_OBJECT_H

#include <stddef.h>

#include "base/buffer.h"
#include "base/error.h"
#include "meta/manifest.h"

/*
 * Appends the object to *out. A manifest that manifest_object_parse() would
 * refuse is refused here (-EBADMSG with its reason), before anything relies on
 * it. `name` stands in messages.
 */
int manifest_object_build(const char *name, const struct manifest *manifest,
			  struct buffer *out, struct hib_error *error);

/*
 * Checks the seal, unpacks within limits and parses. An object without a seal
 * (repacked by hand) is taken if zstd finds nothing wrong with it. -EBADMSG,
 * -EPROTONOSUPPORT.
 */
int manifest_object_parse(const char *name, const void *data, size_t size,
			  struct manifest **ret, struct hib_error *error);

#endif
