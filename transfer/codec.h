/*
 * What happens to one chunk between a file and a pack: its id, and the form in
 * which it is stored. Used by upload.c and download.c, one codec a worker.
 *
 * Thread-safety: a codec belongs to one thread.
 */
#ifndef HIBFS_TRANSFER_CODEC_H
#define HIBFS_TRANSFER_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "transfer/chunk_table.h"

struct codec;

/* NULL: no memory. */
struct codec *codec_new(void);
struct codec *codec_free(struct codec *codec);

/* SHA-256 of the plain bytes. -ENOMEM. */
int codec_id(struct codec *codec, const void *plain, size_t size,
	     uint8_t ret_id[CHUNK_ID_BYTES]);

/*
 * The stored form of `size` plain bytes, compressed when `compress` says so and
 * it shrinks by a sixteenth at least, else the plain bytes themselves: points
 * *ret_stored at them or into the codec, valid until the next call.
 */
int codec_encode(struct codec *codec, bool compress, const void *plain,
		 size_t size, const void **ret_stored, uint32_t *ret_size,
		 uint32_t *ret_flags);

/*
 * The plain bytes of a stored chunk: exactly plain_size of them, whose hash is
 * record->id; else -EBADMSG with the reason. Points *ret_plain at them: at
 * `stored` itself or into the codec, valid until the next call.
 */
int codec_decode(struct codec *codec, const struct chunk_record *record,
		 const void *stored, size_t plain_size, const void **ret_plain,
		 struct hib_error *error);

/* All bytes are zero. */
bool codec_is_zero(const void *data, size_t size);

#endif
