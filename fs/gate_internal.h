/*
 * What the gate*.c files share.
 */
#ifndef HIBFS_FS_GATE_INTERNAL_H
#define HIBFS_FS_GATE_INTERNAL_H

#include "fs/gate.h"

struct request;

/* A request that waits. In one queue, and in gate_fs.by_unique. */
struct parked {
	struct parked *next, *previous; /* gate.lock */
	struct parked *next_by_unique; /* gate_fs.lock */
	struct fs_shard *shard; /* constant, like what follows */
	struct parked_queue *queue;
	uint64_t unique, nodeid;
	bool locks_node;
	bool stays; /* whatever interrupts it; gate.lock */
	size_t size;
	char data[];
};

/* A copy of the request; NULL: no memory. */
struct parked *park_copy(struct fs_shard *shard, const struct fuse_buf *buf,
			 const struct request *request);

/* The index, which INTERRUPT finds it by: before it is in a queue until after. */
void park_index_add(struct gate_fs *gate_fs, struct parked *parked);
void park_index_remove(struct gate_fs *gate_fs, struct parked *parked);

void park_queue_add_locked(struct parked_queue *queue, struct parked *parked,
			   bool at_front);
void park_queue_remove_locked(struct parked *parked);
/* Empties the queue: its first, the others by `next`. */
struct parked *park_take_all_locked(struct parked_queue *queue);

/* Answers all of what was taken off a queue with an errno, and frees it. */
void park_answer_all(struct fs *fs, struct parked *first, int error);
/* Frees what is in a queue when there is nobody to answer any more. */
void park_free_queue(struct parked_queue *queue);

/* INTERRUPT of a parked request: true when it was one. */
bool park_interrupt(struct fs *fs, uint64_t unique);

/* gate_filter() for a request that was parked and whose turn has come, or not. */
enum gate_verdict gate_filter_as(struct fs *fs, const struct fuse_buf *buf,
				 bool replayed, struct gate_token *token);

/* Has the shard drained. False: no thread, and nothing will be replayed. */
bool gate_ask_for_replay(struct fs *fs, struct fs_shard *shard);

#endif
