/*
 * A growing run of bytes with a ceiling: whatever comes from a socket, a disk
 * or a store has a limit before it is read. Used wherever a size is not known
 * beforehand.
 *
 * Thread-safety: one owner at a time.
 */
#ifndef HIBFS_BASE_BUFFER_H
#define HIBFS_BASE_BUFFER_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
	uint8_t *data; /* owned; NULL while empty; one spare zero byte follows */
	size_t size; /* bytes in use */
	size_t capacity;
	size_t limit; /* bytes; size never goes beyond it */
};

#define BUFFER_INIT(limit_bytes) ((struct buffer){ .limit = (limit_bytes) })

/* Frees the bytes; the buffer is empty then and may be used again. */
void buffer_done(struct buffer *buffer);

/* Forgets the bytes and keeps the memory. */
void buffer_clear(struct buffer *buffer);

/* Room for `extra` more bytes. -EMSGSIZE beyond the limit, -ENOMEM. */
int buffer_reserve(struct buffer *buffer, size_t extra);

/* Appends; -EMSGSIZE beyond the limit, -ENOMEM; nothing is appended then. */
int buffer_append(struct buffer *buffer, const void *data, size_t size);
int buffer_append_string(struct buffer *buffer, const char *string);
int buffer_append_format(struct buffer *buffer, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The bytes as a C string (they may hold NULs of their own); never NULL. */
const char *buffer_string(const struct buffer *buffer);

#endif
