/*
 * One thread of the mount's runs what was parked, a few requests of each shard
 * in turn. It blocks in handlers' system calls on the source, never on the
 * mount, and waits on gate_fs.changed. It is made when it is first needed.
 */
#include <stdlib.h>

#include "fs/fs_internal.h"
#include "fs/gate_internal.h"

#define REPLAYS_IN_TURN 16

/* The oldest parked request whose turn it is; else the shard is open. */
static struct parked *next_turn(struct fs_shard *shard)
{
	struct gate *gate = &shard->gate;
	struct parked *parked = NULL;

	pthread_mutex_lock(&gate->lock);
	if (atomic_load(&gate->mode) == GATE_DRAINING) {
		parked = gate->parked.first;
		if (parked)
			park_queue_remove_locked(parked);
		else
			atomic_store(&gate->mode, GATE_OPEN);
	}
	pthread_mutex_unlock(&gate->lock);
	return parked;
}

static void replay_one(struct fs *fs, struct parked *parked)
{
	struct fuse_buf buf = { .size = parked->size, .mem = parked->data };
	struct gate_token token;

	park_index_remove(&fs->gate, parked);
	if (gate_filter_as(fs, &buf, true, &token) == GATE_PASS) {
		fuse_session_process_buf(fs->session, &buf);
		gate_leave(fs, &token);
	}
	free(parked);
}

/* Returns whether there is more. */
static bool replay_some(struct fs *fs, struct fs_shard *shard)
{
	struct parked *parked;
	unsigned i;

	for (i = 0; i < REPLAYS_IN_TURN; i++) {
		parked = next_turn(shard);
		if (!parked)
			return false;
		replay_one(fs, parked);
	}
	return true;
}

static void add_replay_locked(struct gate_fs *gate_fs, struct fs_shard *shard)
{
	shard->gate.replaying = true;
	shard->gate.next_replay = NULL;
	if (gate_fs->replay_last)
		gate_fs->replay_last->gate.next_replay = shard;
	else
		gate_fs->replay_first = shard;
	gate_fs->replay_last = shard;
}

static void *run_replay(void *arg)
{
	struct fs *fs = arg;
	struct gate_fs *gate_fs = &fs->gate;
	struct hib_error error = HIB_ERROR_INIT;
	struct fs_shard *shard;
	bool more;

	if (worker_enter(fs, &error) < 0)
		log_error(fs->log, "%s", error.message);
	pthread_mutex_lock(&gate_fs->lock);
	while (!gate_fs->ending) {
		shard = gate_fs->replay_first;
		if (!shard) {
			pthread_cond_wait(&gate_fs->changed, &gate_fs->lock);
			continue;
		}
		gate_fs->replay_first = shard->gate.next_replay;
		if (!gate_fs->replay_first)
			gate_fs->replay_last = NULL;
		/* From now on a thaw has to ask for it again. */
		shard->gate.replaying = false;
		pthread_mutex_unlock(&gate_fs->lock);
		more = replay_some(fs, shard);
		pthread_mutex_lock(&gate_fs->lock);
		if (more && !shard->gate.replaying)
			add_replay_locked(gate_fs, shard);
	}
	pthread_mutex_unlock(&gate_fs->lock);
	return NULL;
}

/* False: no thread, and nothing will be replayed. */
bool gate_ask_for_replay(struct fs *fs, struct fs_shard *shard)
{
	struct gate_fs *gate_fs = &fs->gate;
	bool asked;

	pthread_mutex_lock(&gate_fs->lock);
	if (!gate_fs->thread_started)
		gate_fs->thread_started = pthread_create(&gate_fs->thread, NULL,
							 run_replay, fs) == 0;
	asked = gate_fs->thread_started;
	if (asked && !shard->gate.replaying) {
		add_replay_locked(gate_fs, shard);
		pthread_cond_broadcast(&gate_fs->changed);
	}
	pthread_mutex_unlock(&gate_fs->lock);
	return asked;
}
