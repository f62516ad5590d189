/*
 * Between store.c and its backends: a request, and the table of functions that
 * a backend is. Internal to transfer/.
 *
 * Every operation of store.h becomes one or more struct store_request. A
 * backend takes it by submit(), works on it in threads of its own and ends it
 * with store_request_finish(), exactly once and never inside submit().
 */
#ifndef HIBFS_TRANSFER_STORE_BACKEND_H
#define HIBFS_TRANSFER_STORE_BACKEND_H

#include "transfer/store.h"

#define STORE_CONNECTIONS_DEFAULT 16
#define STORE_REQUEST_TIMEOUT_MS 120000
#define STORE_STALL_TIMEOUT_MS 15000
#define STORE_PAGE_KEYS 1000 /* S3's limit for one listing or one delete */

/*
 * A request with many bytes may take longer than the deadline: the default
 * deadline grows by the time its bytes take at this rate. An explicit
 * call->timeout_ms does not.
 */
#define STORE_SLOWEST_BYTES_PER_MS 64

enum store_op {
	STORE_OP_PUT,
	STORE_OP_GET,
	STORE_OP_HEAD,
	STORE_OP_LIST,
	STORE_OP_DELETE,
};

/* Up to STORE_PAGE_KEYS objects of a listing. */
struct store_page {
	struct buffer text; /* the keys, each with its NUL */
	struct store_page_entry {
		size_t key_at; /* in text */
		struct store_object object;
	} entries[STORE_PAGE_KEYS];
	size_t count;
	bool truncated; /* there is more */
	char *token; /* the backend's own place to go on from; NULL: none */
};

/* NULL: out of memory */
struct store_page *store_page_new(void);
struct store_page *store_page_free(struct store_page *page);
const char *store_page_key(const struct store_page *page, size_t index);
/* -EMSGSIZE when the page is full. */
int store_page_add(struct store_page *page, const char *key,
		   const struct store_object *object);
/* Forgets the entries; the token stays. */
void store_page_clear(struct store_page *page);

/*
 * 0, -EINVAL or -ENAMETOOLONG: printable ASCII, no component empty, "." or
 * "..". `partial`: but for the last component, which may be anything.
 */
int store_key_check(const char *key, bool partial);

struct store_request {
	enum store_op op;
	struct store *store;
	struct store_call call; /* a copy; all zero when there was none */
	const char *key; /* LIST: the prefix; DELETE: the first key */
	const void *data; /* PUT */
	size_t size;
	unsigned flags;
	uint64_t offset, length; /* GET */
	struct buffer *ret;
	struct store_object object; /* HEAD: the answer */
	const char *after; /* LIST; NULL: from the start */
	struct store_page *page; /* LIST: the answer; its token is a question */
	const char *const *keys; /* DELETE: at most STORE_PAGE_KEYS */
	size_t count;

	store_done_fn done;
	void *arg;
	bool owned; /* allocated by store.c: freed at the end */
	/*
	 * Set before submit() when the request has failed already, so that
	 * `done` still runs in a thread of the backend.
	 */
	int early_result;
	struct hib_error early_error;
	bool started;
	struct store_request *next; /* the backend's queue */
};

struct store_ops {
	const char *scheme; /* "file://" */
	int (*open)(const struct store_config *config, struct store *store,
		    void **ret_backend, struct hib_error *error);
	void (*submit)(void *backend, struct store_request *request);
	/* Everything under way, and submitted from now on, is cancelled. */
	void (*stop)(void *backend);
	/* After stop(): waits for the last request and the threads. */
	void (*free)(void *backend);
	/* NULL: there are none */
	int (*reload_credentials)(void *backend, struct hib_error *error);
};

extern const struct store_ops file_store_ops;
extern const struct store_ops s3_store_ops;

/* The request has left the queue. Counts; repeated calls do nothing. */
void store_request_started(struct store_request *request);
/* An attempt failed and another will be made: for status. */
void store_request_attempt_failed(struct store_request *request,
				  const struct hib_error *error);
/* One try of it goes to the store. `again`: it is not the first. */
void store_request_attempt(struct store_request *request, bool again);
/* Ends it: counts, names operation and key in the message, calls done. */
void store_request_finish(struct store_request *request, int result,
			  const struct hib_error *error);

#endif
