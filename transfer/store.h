/*
 * The object store: what everything above sees of file:///dir and s3://bucket.
 *
 * A store is opened from its URL and then used from any thread. Requests are
 * carried out by the store's own threads (S3: one thread that owns the curl
 * multi handle; file: a few workers); the calls without `_async` wait for the
 * answer. Every request is retried as its failure deserves (store_retry.h),
 * with jitter, until its deadline; a request whose cancel fires ends with
 * -ECANCELED at once.
 *
 * Keys are '/'-separated, relative to the store's URL, ASCII: names of people
 * come percent-encoded (lineage.h). A backend refuses a key with an empty, "."
 * or ".." component.
 *
 * Errors, the same for every backend (one table maps HTTP and S3 codes):
 *	-ENOENT		no such object (a missing store bucket is -ENXIO)
 *	-EEXIST		STORE_IF_ABSENT and the object is there
 *	-EACCES		credentials refused, expired or missing
 *	-ETIMEDOUT	the deadline passed; the message holds the last failure
 *	-EIO		the store answered nonsense or a lasting 5xx
 *	-ENOSPC, -EDQUOT  the store is full
 *	-EOPNOTSUPP	the store has no such operation (conditional PUT on
 *Swift) -ECANCELED	the call's cancel fired Messages name operation and key:
 *"put hibfs_storage/...: ...".
 */
#ifndef HIBFS_TRANSFER_STORE_H
#define HIBFS_TRANSFER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/cancel.h"
#include "base/error.h"
#include "meta/progress.h"

struct store;

#define STORE_KEY_BYTES 1024 /* S3's limit; a longer key is -ENAMETOOLONG */

struct store_config {
	const char *url; /* file:///dir or s3://bucket[/prefix] */
	/* s3 only; NULL or 0 for the default */
	const char *
		endpoint; /* https://host[:port]; default AWS's of the region */
	const char *region; /* default: environment, profile, then us-east-1 */
	bool path_style; /* forced by an endpoint that is an address */
	const char *ca_file; /* PEM, replaces the system's */
	bool allow_plain_http; /* http:// to other than loopback */
	const char *credentials_file; /* INI as ~/.aws/credentials */
	const char *profile;
	unsigned connections; /* parallel requests, default 16 */
	uint64_t request_timeout_ms; /* deadline with all retries, default 120 s
				      */
	uint64_t stall_timeout_ms; /* no byte moved: try again, default 15 s */
};

/*
 * Opens without a request to the store: a store that cannot be reached is no
 * reason not to start. Refuses what can never work: an unknown scheme, no
 * credentials to be found (-EACCES), plain HTTP to a foreign host (-EPERM),
 * a file:// directory that cannot be made.
 */
int store_open(const struct store_config *config, struct store **ret,
	       struct hib_error *error);
/* Waits for what is under way, after cancelling it. Returns NULL. */
struct store *store_close(struct store *store);

/* The URL without credentials, for status and messages. */
const char *store_url(const struct store *store);

/* Reads credentials again (SIGHUP, expiry); keeps the old ones on failure. */
int store_reload_credentials(struct store *store, struct hib_error *error);

/* What a call brings along; NULL anywhere means none. Zero deadline: config's. */
struct store_call {
	struct cancel *cancel;
	struct progress *progress; /* requests, retries, bytes_sent, _received */
	uint64_t timeout_ms;
	bool urgent; /* jumps the queue: somebody waits for these bytes */
	const uint8_t *body_sha256; /* of the data to put, or NULL */
};

enum {
	STORE_IF_ABSENT = 1 << 0, /* S3: If-None-Match: * */
};

/*
 * Makes or replaces an object, atomically: a reader sees all of it or the old
 * one. Returns when the store has confirmed it as durable. Objects beyond
 * `store_part_bytes` go up in parts (S3 multipart; aborted on failure).
 *
 * A PUT with STORE_IF_ABSENT whose answer got lost may find its own object at
 * the retry: it is then compared, and an equal one is success, not -EEXIST.
 */
int store_put(struct store *store, const char *key, const void *data,
	      size_t size, unsigned flags, const struct store_call *call,
	      struct hib_error *error);

/*
 * Appends bytes [offset, offset + length) of the object to *ret. length 0
 * means to the end. Fewer bytes than asked is -EIO, never a short success;
 * more than ret->limit is -EMSGSIZE.
 */
int store_get(struct store *store, const char *key, uint64_t offset,
	      uint64_t length, struct buffer *ret,
	      const struct store_call *call, struct hib_error *error);

struct store_object {
	uint64_t size;
	int64_t modified_ms; /* store's clock, 0 unknown */
};

int store_head(struct store *store, const char *key, struct store_object *ret,
	       const struct store_call *call, struct hib_error *error);

/*
 * Visits all objects whose key starts with `prefix` (not necessarily ending in
 * a slash) in the order of their keys' bytes, beginning after `after` (NULL:
 * from the start), page by page. A negative answer of visit ends it and is
 * returned. visit runs in the calling thread and may use the store.
 */
typedef int (*store_visit_fn)(void *arg, const char *key,
			      const struct store_object *object);
int store_list(struct store *store, const char *prefix, const char *after,
	       store_visit_fn visit, void *arg, const struct store_call *call,
	       struct hib_error *error);

/*
 * Deletes; an object that is not there counts as deleted. Success only when
 * the store has confirmed each key: an empty or partial answer is -EIO naming
 * the first key that is not confirmed.
 */
int store_delete(struct store *store, const char *const *keys, size_t count,
		 const struct store_call *call, struct hib_error *error);

/*
 * Asynchronous put and get. `done` runs exactly once, in one of the store's
 * threads: it may take a lock and signal, and must not block or call the store
 * but for another _async call. `data`, `key`, `call` and what they point at
 * stay valid until then; `ret` too.
 */
typedef void (*store_done_fn)(void *arg, int result,
			      const struct hib_error *error);
void store_put_async(struct store *store, const char *key, const void *data,
		     size_t size, unsigned flags, const struct store_call *call,
		     store_done_fn done, void *arg);
void store_get_async(struct store *store, const char *key, uint64_t offset,
		     uint64_t length, struct buffer *ret,
		     const struct store_call *call, store_done_fn done,
		     void *arg);

/* Counters since open, for status: atomics, read without a lock. */
struct store_stats {
	uint64_t requests, retries, errors, bytes_sent, bytes_received;
	uint64_t under_way, queued;
	int64_t last_success_ms, last_failure_ms; /* wall clock, 0 never */
};
void store_get_stats(struct store *store, struct store_stats *ret);
/* Copies the last failure's message ("" when none). */
void store_last_error(struct store *store, struct hib_error *ret);

#endif
