/*
 * JSON documents of our own on the local disk (node.json, state.json, tasks/):
 * "format" and "version" first, replaced as a whole, checked as a whole. And
 * the pieces of JSON that all of meta/ shares: bytes that may not be UTF-8,
 * numbers with a range.
 *
 * Thread-safety: none of its own; a json_t belongs to one thread at a time.
 */
#ifndef HIBFS_META_DOCUMENT_H
#define HIBFS_META_DOCUMENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* No document of ours comes near; a larger file is refused unread. */
#define DOCUMENT_LIMIT_BYTES (16u << 20)

/* {"format": format, "version": version}; NULL: no memory. */
json_t *document_new(const char *format, unsigned int version);

/*
 * Parses and checks. `label` stands for the file in messages. -EBADMSG for what
 * is broken, -EPROTONOSUPPORT for a newer version, by name and number (T10).
 */
int document_parse(const char *label, const void *data, size_t size,
		   const char *format, unsigned int version, json_t **ret,
		   struct hib_error *error);

/* The same for the file dirfd/name; -ENOENT when there is none. */
int document_load(int dirfd, const char *name, const char *label,
		  const char *format, unsigned int version, json_t **ret,
		  struct hib_error *error);

/* Replaces dirfd/name durably, mode 0600. Does not take `document`. */
int document_save(int dirfd, const char *name, const json_t *document,
		  struct hib_error *error);

/*
 * Members of `object`, by key; -EBADMSG naming label and key when absent, of
 * another type, or out of range.
 */
int document_get_u64(const char *label, const json_t *object, const char *key,
		     uint64_t *ret, struct hib_error *error);
int document_get_i64(const char *label, const json_t *object, const char *key,
		     int64_t *ret, struct hib_error *error);
int document_get_bool(const char *label, const json_t *object, const char *key,
		      bool *ret, struct hib_error *error);
/* A string of less than `size` bytes; null and absent are the empty string. */
int document_get_text(const char *label, const json_t *object, const char *key,
		      char *ret, size_t size, struct hib_error *error);

/*
 * File names may be any bytes, JSON strings may not. In JSON a name is written
 * as in a target on the control socket: '/', '%', control characters and,
 * if it is not UTF-8 as a whole, all bytes from 0x80 are percent-encoded.
 * document_get_name() gives the bytes back: a plain name (base/file.h) or
 * empty (null, absent), else -EBADMSG.
 */
#define DOCUMENT_NAME_BYTES 256
json_t *document_name(const char *name); /* "" and NULL become null */
int document_get_name(const char *label, const json_t *object, const char *key,
		      char ret[DOCUMENT_NAME_BYTES], struct hib_error *error);

/* Any bytes as a JSON string to read: what is not UTF-8 becomes '?'. */
json_t *document_text(const char *text); /* NULL and "" become null */

#endif
