/*
 * A JSON object that ends with its own check: the SHA-256 of the text as it was
 * before the member "sha256" was put in front of its closing brace. It stays
 * plain JSON for people, and no flipped digit of a number passes for another
 * (T9). For bucket.json and epochs/.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_TRANSFER_SEALED_TEXT_H
#define HIBFS_TRANSFER_SEALED_TEXT_H

#include "base/buffer.h"
#include "base/error.h"

/* `text` ends in "\n}", as an indented JSON object does. -ENOMEM. */
int sealed_text_seal(struct buffer *text, struct hib_error *error);

/*
 * Checks it and takes it off, so that *text is as before sealed_text_seal().
 * -EBADMSG naming the object `key`.
 */
int sealed_text_open(const char *key, struct buffer *text,
		     struct hib_error *error);

#endif
