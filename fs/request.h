/*
 * What a raw request of the kernel is about, as far as the gate wants to know:
 * does it change a shard, which nodes tell the shard, does it open a file.
 * Follows <linux/fuse.h>; reads no further than the request's size.
 *
 * Used by gate.c. Thread-safety: pure.
 */
#ifndef HIBFS_FS_REQUEST_H
#define HIBFS_FS_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum request_class {
	REQUEST_PASS, /* changes nothing; a broken one, which libfuse refuses */
	REQUEST_CHANGE,
	REQUEST_OPEN, /* of a file; changes nothing by itself */
	REQUEST_RELEASE, /* of a file */
	REQUEST_INTERRUPT,
};

struct request {
	enum request_class class;
	uint32_t opcode;
	uint64_t unique; /* number of the request; 0 if it is broken */
	/* Nodes whose shards it opens or changes. */
	uint64_t nodes[2];
	unsigned node_count;
	/*
	 * Names that it takes away or replaces, names[i] below nodes[i]; NULL
	 * where it does not. They point into the request.
	 */
	const char *names[2];
	/* Pages that the kernel's cache writes back, on nobody's behalf. */
	bool writeback;
	/* The kernel holds the lock of nodes[0] until the answer. */
	bool locks_node;
	uint64_t interrupted; /* INTERRUPT: the unique number */
	/* SETATTR of just both times: what they are to be. */
	bool sets_times;
	uint64_t atime_s, mtime_s;
	uint32_t atime_ns, mtime_ns;
};

void request_parse(const void *data, size_t size, struct request *ret);

#endif
