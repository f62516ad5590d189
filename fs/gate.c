/*
 * Threads: gate_filter() and gate_leave() run on the workers, the modes are set
 * by whoever freezes. What is parked is kept by gate_park.c and run by
 * gate_replay.c.
 *
 * Order of locks: gate.lock -> gate_fs.lock; gate.lock -> hold pool's.
 */
#include "fs/gate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/fs_internal.h"
#include "fs/gate_internal.h"
#include "fs/hold.h"
#include "fs/request.h"

/*
 * ---- What may pass ----
 */

struct passage {
	const struct request *request;
	bool replayed; /* it was parked and its turn has come */
};

static atomic_uint *counter_of(struct gate *gate, enum request_class class)
{
	return class == REQUEST_OPEN ? &gate->opens : &gate->changes;
}

static bool is_stub(const struct fs_shard *shard)
{
	return fs_shard_place(shard) == FS_PLACE_STUB;
}

/* `by_name`: the directory of the shard itself is to go or to be renamed. */
static bool may_pass(const struct fs_shard *shard,
		     const struct passage *passage, bool by_name)
{
	const struct gate *gate = &shard->gate;

	/* The handler says that it is busy. */
	if (is_stub(shard) && !by_name)
		return false;
	switch ((enum gate_mode)atomic_load(&gate->mode)) {
	case GATE_OPEN:
		return true;
	case GATE_DRAINING:
		return passage->replayed;
	case GATE_FROZEN:
		if (passage->request->class == REQUEST_OPEN)
			return true;
		/* fallthrough */
	case GATE_CLOSED:
		break;
	}
	return passage->request->writeback && atomic_load(&gate->flushing);
}

static void notify(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->lock);
}

static void leave(struct gate *gate, atomic_uint *counter)
{
	atomic_fetch_sub(counter, 1);
	if (atomic_load(&gate->mode) != GATE_OPEN)
		notify(gate);
}

static bool enter(struct fs_shard *shard, const struct passage *passage,
		  bool by_name)
{
	atomic_uint *counter =
		counter_of(&shard->gate, passage->request->class);

	/* In this order: see gate.h. */
	atomic_fetch_add(counter, 1);
	if (may_pass(shard, passage, by_name))
		return true;
	leave(&shard->gate, counter);
	return false;
}

/*
 * ---- What may not ----
 */

static void wake(struct fs *fs, struct fs_shard *shard)
{
	const struct fs_callbacks *callbacks = &fs->callbacks;
	struct parked *waking;
	int r = -EIO;

	if (callbacks->wake)
		r = callbacks->wake(callbacks->arg, fs_shard_bucket(shard),
				    fs_shard_name(shard));
	if (r >= 0)
		return;
	pthread_mutex_lock(&shard->gate.lock);
	waking = park_take_all_locked(&shard->gate.waking);
	pthread_mutex_unlock(&shard->gate.lock);
	park_answer_all(fs, waking, -r);
}

/* What is to be done with a request that may not pass: 0 for parking. */
static int refusal_locked(const struct gate *gate,
			  const struct request *request, bool by_name)
{
	if (atomic_load(&gate->mode) == GATE_DRAINING ||
	    request->class != REQUEST_CHANGE || request->writeback)
		return 0;
	if (gate->deny)
		return EROFS;
	/* Parked it would hold the bucket's lock, before all its shards. */
	return by_name ? EBUSY : 0;
}

static void park_locked(struct fs *fs, struct parked *parked,
			const struct passage *passage)
{
	struct gate *gate = &parked->shard->gate;

	park_index_add(&fs->gate, parked);
	park_queue_add_locked(&gate->parked, parked, passage->replayed);
	if (parked->locks_node && gate->waiting)
		hold_set_look_again(gate->waiting);
}

/*
 * Parks or refuses the request, which enter() has not let pass. False: it may
 * pass by now, so try again.
 */
static bool keep(struct fs *fs, struct fs_shard *shard,
		 const struct fuse_buf *buf, const struct passage *passage,
		 bool by_name)
{
	struct gate *gate = &shard->gate;
	struct parked *parked = park_copy(shard, buf, passage->request);
	bool ask = false;
	int refusal, mode;

	pthread_mutex_lock(&gate->lock);
	if (may_pass(shard, passage, by_name)) {
		pthread_mutex_unlock(&gate->lock);
		free(parked);
		return false;
	}
	refusal = refusal_locked(gate, passage->request, by_name);
	if (refusal == 0 && !parked)
		refusal = ENOMEM;
	mode = atomic_load(&gate->mode);
	if (refusal == 0 && (mode == GATE_OPEN ||
			     (mode == GATE_DRAINING && passage->replayed))) {
		/* A stub. The first one asks for all. */
		ask = !gate->waking.first;
		park_index_add(&fs->gate, parked);
		park_queue_add_locked(&gate->waking, parked, false);
	} else if (refusal == 0) {
		park_locked(fs, parked, passage);
	}
	pthread_mutex_unlock(&gate->lock);
	if (refusal) {
		free(parked);
		fs_raw_reply(fs, passage->request->unique, refusal);
	}
	if (ask)
		wake(fs, shard);
	return true;
}

/* The shard whose directory is below `parent` by that name. */
static struct fs_shard *shard_named(struct fs *fs, const struct inode *parent,
				    const char *name)
{
	const char *bucket = name;

	if (parent->kind != (fs->shard_depth == 1 ? INODE_ROOT : INODE_BUCKET))
		return NULL;
	if (fs->shard_depth > 1)
		bucket = atomic_load(&parent->bucket->name)->text;
	return shard_find(fs, bucket, name);
}

static struct fs_shard *shard_of(struct fs *fs, const struct request *request,
				 unsigned i, bool *ret_by_name)
{
	struct inode *inode = fs_inode(fs, request->nodes[i]);

	*ret_by_name = false;
	if (!inode || inode->key.shard)
		return inode ? inode->key.shard : NULL;
	*ret_by_name = true;
	return request->names[i] ? shard_named(fs, inode, request->names[i])
				 : NULL;
}

static enum gate_verdict pass_gates(struct fs *fs, const struct fuse_buf *buf,
				    const struct passage *passage,
				    struct gate_token *token)
{
	const struct request *request = passage->request;
	struct fs_shard *shard;
	bool by_name;
	unsigned i;

	token->kind =
		request->class == REQUEST_OPEN ? TOKEN_OPEN : TOKEN_CHANGE;
	for (i = 0; i < request->node_count; i++) {
		shard = shard_of(fs, request, i, &by_name);
		if (!shard || shard == token->shards[0])
			continue;
		while (!enter(shard, passage, by_name)) {
			if (keep(fs, shard, buf, passage, by_name)) {
				gate_leave(fs, token);
				return GATE_TAKEN;
			}
		}
		token->shards[i] = shard;
	}
	return GATE_PASS;
}

enum gate_verdict gate_filter_as(struct fs *fs, const struct fuse_buf *buf,
				 bool replayed, struct gate_token *token)
{
	struct request request;
	struct passage passage = { &request, replayed };
	bool by_name, answer;

	memset(token, 0, sizeof(*token));
	request_parse(buf->mem, buf->size, &request);
	switch (request.class) {
	case REQUEST_PASS:
		return GATE_PASS;
	case REQUEST_INTERRUPT:
		return park_interrupt(fs, request.interrupted) ? GATE_TAKEN
							       : GATE_PASS;
	case REQUEST_RELEASE:
		token->kind = TOKEN_RELEASE;
		token->shards[0] = shard_of(fs, &request, 0, &by_name);
		return GATE_PASS;
	case REQUEST_CHANGE:
	case REQUEST_OPEN:
		break;
	}
	if (hold_take(fs->gate.holds, &request, &answer)) {
		if (answer)
			fs_raw_reply(fs, request.unique, ECANCELED);
		return GATE_TAKEN;
	}
	return pass_gates(fs, buf, &passage, token);
}

enum gate_verdict gate_filter(struct fs *fs, const struct fuse_buf *buf,
			      struct gate_token *ret_token)
{
	return gate_filter_as(fs, buf, false, ret_token);
}

void gate_leave(struct fs *fs, const struct gate_token *token)
{
	size_t i;

	(void)fs;
	for (i = 0; i < ARRAY_SIZE(token->shards); i++) {
		struct gate *gate;

		if (!token->shards[i])
			continue;
		gate = &token->shards[i]->gate;
		if (token->kind == TOKEN_CHANGE)
			leave(gate, &gate->changes);
		else if (token->kind == TOKEN_OPEN)
			leave(gate, &gate->opens);
		else if (atomic_load(&gate->mode) == GATE_CLOSED)
			notify(gate);
	}
}

bool gate_is_frozen(const struct fs_shard *shard)
{
	int mode = atomic_load(&shard->gate.mode);

	return mode == GATE_FROZEN || mode == GATE_CLOSED;
}

/*
 * ---- Modes ----
 */

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000),
				  .tv_nsec = (long)(ns % 1000000000) };
}

static int drain_locked(struct gate *gate, bool opens, uint64_t deadline_ns)
{
	struct timespec deadline = timespec_of(deadline_ns);
	int r = 0;

	while (r == 0 && (atomic_load(&gate->changes) > 0 ||
			  (opens && atomic_load(&gate->opens) > 0)))
		r = pthread_cond_timedwait(&gate->changed, &gate->lock,
					   &deadline);
	return r ? -ETIMEDOUT : 0;
}

int gate_shut(struct fs_shard *shard, enum gate_mode mode, uint64_t deadline_ns)
{
	struct gate *gate = &shard->gate;
	int r;

	pthread_mutex_lock(&gate->lock);
	atomic_store(&gate->mode, mode);
	r = drain_locked(gate, mode == GATE_CLOSED, deadline_ns);
	pthread_mutex_unlock(&gate->lock);
	return r;
}

int gate_let_flush(struct fs_shard *shard, bool flushing, uint64_t deadline_ns)
{
	struct gate *gate = &shard->gate;
	int r = 0;

	pthread_mutex_lock(&gate->lock);
	atomic_store(&gate->flushing, flushing);
	if (!flushing)
		r = drain_locked(gate, false, deadline_ns);
	pthread_mutex_unlock(&gate->lock);
	return r;
}

bool gate_wait(struct fs_shard *shard, bool (*condition)(void *arg), void *arg,
	       uint64_t deadline_ns)
{
	struct timespec deadline = timespec_of(deadline_ns);
	struct gate *gate = &shard->gate;
	bool met;
	int r = 0;

	pthread_mutex_lock(&gate->lock);
	while (!(met = condition(arg)) && r == 0)
		r = pthread_cond_timedwait(&gate->changed, &gate->lock,
					   &deadline);
	pthread_mutex_unlock(&gate->lock);
	return met;
}

void gate_drain(struct fs *fs, struct fs_shard *shard)
{
	struct gate *gate = &shard->gate;
	struct parked *lost = NULL;
	bool replay;

	pthread_mutex_lock(&gate->lock);
	gate->deny = false;
	atomic_store(&gate->flushing, false);
	replay = gate->parked.first;
	atomic_store(&gate->mode, replay ? GATE_DRAINING : GATE_OPEN);
	if (replay && !gate_ask_for_replay(fs, shard)) {
		lost = park_take_all_locked(&gate->parked);
		atomic_store(&gate->mode, GATE_OPEN);
	}
	pthread_mutex_unlock(&gate->lock);
	park_answer_all(fs, lost, ENOMEM);
}

/*
 * ---- Beginning and end ----
 */

int gate_fs_init(struct fs *fs)
{
	struct gate_fs *gate_fs = &fs->gate;
	int r;

	pthread_mutex_init(&gate_fs->lock, NULL);
	pthread_cond_init(&gate_fs->changed, NULL);
	r = hold_pool_new(fs->mountpoint, &gate_fs->holds, NULL);
	if (r < 0) {
		pthread_cond_destroy(&gate_fs->changed);
		pthread_mutex_destroy(&gate_fs->lock);
	}
	return r;
}

void gate_fs_done(struct fs *fs)
{
	struct gate_fs *gate_fs = &fs->gate;

	if (!gate_fs->holds)
		return;
	pthread_mutex_lock(&gate_fs->lock);
	gate_fs->ending = true;
	pthread_cond_broadcast(&gate_fs->changed);
	pthread_mutex_unlock(&gate_fs->lock);
	if (gate_fs->thread_started)
		pthread_join(gate_fs->thread, NULL);
	gate_fs->holds = hold_pool_free(gate_fs->holds);
	pthread_cond_destroy(&gate_fs->changed);
	pthread_mutex_destroy(&gate_fs->lock);
}

uint64_t gate_parked_requests(const struct fs *fs)
{
	return atomic_load(&fs->gate.parked_requests);
}

int gate_shard_init(struct fs_shard *shard)
{
	pthread_condattr_t monotonic;
	int r;

	r = pthread_mutex_init(&shard->gate.lock, NULL);
	if (r)
		return -r;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&shard->gate.changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	return 0;
}

void gate_shard_done(struct fs_shard *shard)
{
	park_free_queue(&shard->gate.parked);
	park_free_queue(&shard->gate.waking);
	pthread_cond_destroy(&shard->gate.changed);
	pthread_mutex_destroy(&shard->gate.lock);
}
