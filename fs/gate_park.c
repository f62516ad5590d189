/*
 * Requests that wait: their queues, and an index of them all for INTERRUPT.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs_internal.h"
#include "fs/gate_internal.h"
#include "fs/request.h"

static struct parked **unique_slot(struct gate_fs *gate_fs, uint64_t unique)
{
	/* The kernel numbers requests in steps of two. */
	return &gate_fs->by_unique[unique / 2 % GATE_PARKED_SLOTS];
}

void park_index_add(struct gate_fs *gate_fs, struct parked *parked)
{
	struct parked **slot = unique_slot(gate_fs, parked->unique);

	pthread_mutex_lock(&gate_fs->lock);
	parked->next_by_unique = *slot;
	*slot = parked;
	pthread_mutex_unlock(&gate_fs->lock);
	atomic_fetch_add(&gate_fs->parked_requests, 1);
}

void park_index_remove(struct gate_fs *gate_fs, struct parked *parked)
{
	struct parked **link = unique_slot(gate_fs, parked->unique);

	pthread_mutex_lock(&gate_fs->lock);
	while (*link != parked)
		link = &(*link)->next_by_unique;
	*link = parked->next_by_unique;
	pthread_mutex_unlock(&gate_fs->lock);
	atomic_fetch_sub(&gate_fs->parked_requests, 1);
}

void park_queue_add_locked(struct parked_queue *queue, struct parked *parked,
			   bool at_front)
{
	parked->queue = queue;
	parked->next = at_front ? queue->first : NULL;
	parked->previous = at_front ? NULL : queue->last;
	if (parked->next)
		parked->next->previous = parked;
	else
		queue->last = parked;
	if (parked->previous)
		parked->previous->next = parked;
	else
		queue->first = parked;
}

void park_queue_remove_locked(struct parked *parked)
{
	struct parked_queue *queue = parked->queue;

	if (parked->previous)
		parked->previous->next = parked->next;
	else
		queue->first = parked->next;
	if (parked->next)
		parked->next->previous = parked->previous;
	else
		queue->last = parked->previous;
}

struct parked *park_copy(struct fs_shard *shard, const struct fuse_buf *buf,
			 const struct request *request)
{
	struct parked *parked = malloc(sizeof(*parked) + buf->size);

	if (!parked)
		return NULL;
	memset(parked, 0, sizeof(*parked));
	parked->shard = shard;
	parked->unique = request->unique;
	parked->nodeid = request->nodes[0];
	parked->locks_node = request->locks_node;
	parked->size = buf->size;
	memcpy(parked->data, buf->mem, buf->size);
	return parked;
}

/* Answers all of what was taken off a queue, and frees it. */
void park_answer_all(struct fs *fs, struct parked *first, int error)
{
	struct parked *parked;

	while ((parked = first)) {
		first = parked->next;
		park_index_remove(&fs->gate, parked);
		fs_raw_reply(fs, parked->unique, error);
		free(parked);
	}
}

struct parked *park_take_all_locked(struct parked_queue *queue)
{
	struct parked *first = queue->first;

	queue->first = queue->last = NULL;
	return first;
}

/* INTERRUPT of a parked request: true when it was one. */
bool park_interrupt(struct fs *fs, uint64_t unique)
{
	struct fs_shard *shard = NULL;
	struct parked *parked;
	bool found, ended = false;

	pthread_mutex_lock(&fs->gate.lock);
	for (parked = *unique_slot(&fs->gate, unique); parked;
	     parked = parked->next_by_unique)
		if (parked->unique == unique)
			shard = parked->shard;
	pthread_mutex_unlock(&fs->gate.lock);
	if (!shard)
		return false;

	pthread_mutex_lock(&shard->gate.lock);
	for (parked = shard->gate.parked.first;
	     parked && parked->unique != unique;)
		parked = parked->next;
	if (!parked)
		for (parked = shard->gate.waking.first;
		     parked && parked->unique != unique;)
			parked = parked->next;
	found = parked;
	if (found && !parked->stays) {
		park_queue_remove_locked(parked);
		ended = true;
	}
	pthread_mutex_unlock(&shard->gate.lock);
	if (ended) {
		parked->next = NULL;
		park_answer_all(fs, parked, EINTR);
	}
	return found;
}

/* A parked open differs from the changes only in what it is. */
static struct parked *take_opens_locked(struct gate *gate)
{
	struct parked *first = NULL, **link = &first, *parked, *next;
	struct request request;

	for (parked = gate->parked.first; parked; parked = next) {
		next = parked->next;
		request_parse(parked->data, parked->size, &request);
		if (request.class != REQUEST_OPEN)
			continue;
		park_queue_remove_locked(parked);
		parked->next = NULL;
		*link = parked;
		link = &parked->next;
	}
	return first;
}

void gate_reopen(struct fs *fs, struct fs_shard *shard)
{
	struct gate *gate = &shard->gate;
	struct parked *opens;

	pthread_mutex_lock(&gate->lock);
	atomic_store(&gate->mode, GATE_FROZEN);
	opens = take_opens_locked(gate);
	pthread_mutex_unlock(&gate->lock);
	/* The kernel looks the path up and opens again; nothing has changed. */
	park_answer_all(fs, opens, ESTALE);
}

bool gate_parks_lock_of(struct fs_shard *shard, uint64_t nodeid)
{
	struct gate *gate = &shard->gate;
	struct parked *parked;
	bool found = false;

	pthread_mutex_lock(&gate->lock);
	for (parked = gate->parked.first; parked && !found;
	     parked = parked->next) {
		if (!parked->locks_node || parked->nodeid != nodeid)
			continue;
		parked->stays = true;
		found = true;
	}
	pthread_mutex_unlock(&gate->lock);
	return found;
}

void fs_shard_woken(struct fs *fs, struct fs_shard *shard, int result)
{
	struct parked *waking;

	pthread_mutex_lock(&shard->gate.lock);
	waking = park_take_all_locked(&shard->gate.waking);
	pthread_mutex_unlock(&shard->gate.lock);
	park_answer_all(fs, waking, result < 0 ? -result : ESTALE);
}

void park_free_queue(struct parked_queue *queue)
{
	struct parked *parked;

	while ((parked = queue->first)) {
		queue->first = parked->next;
		free(parked);
	}
}
