/*
 * Freezing, closing and thawing a shard: fs_shard_*() of fs.h.
 *
 * The order of a freeze, and why nothing slips through:
 *
 * 1. Hold the inodes that are open for writing, while the gate is still open: a
 *    request that holds an inode's lock gets its answer, so that our hold gets
 *    its turn. Writes that the daemon serves are held as well as passthrough:
 *    parked, they would keep locked pages of the kernel's cache from readers.
 * 2. The gate's mode becomes frozen, and the changes in flight are awaited.
 * 3. Look again for writers, and hold those that have come since. From the mode
 *    on an open for writing does not join the list: shard_writer_add() reads
 *    the mode under shard->lock, shard_writers() reads the list under it; so
 *    whoever is not in the list saw the mode, and his writes come to the gate.
 *    The lock of such an inode may be held by a request that is parked by now;
 *    that is as good as a hold. If it is held by one whose inode is not known
 *    (unlink), all is released and done again: then step 1 finds it. And a
 *    file that has just been created may not be known to the kernel yet, which
 *    still reads our answer: then the hold is tried again a little later.
 * 4. Without passthrough: have the kernel write back what its cache holds.
 * 5. Watch what may be mapped (watch.h).
 *
 * Threads: the caller's. It waits on the gate's and the hold set's conditions,
 * and never on the mount.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "fs/flush.h"
#include "fs/fs_internal.h"
#include "fs/hold.h"
#include "fs/holder.h"
#include "fs/watch.h"

#define PATIENCE_NS UINT64_C(2000000000) /* for all of a freeze */
#define ATTEMPT_NS UINT64_C(400000000)
#define LATE_ROUNDS 12
#define FIRST_PAUSE_NS 100000
#define LAST_PAUSE_NS 20000000
/* For a RELEASE that the kernel has sent and nobody has read yet. */
#define RELEASE_PATIENCE_NS UINT64_C(50000000)

struct freeze {
	struct hold_set *sets[1 + LATE_ROUNDS]; /* of step 1, and of step 3 */
	size_t set_count;
	bool deny; /* constant */
	bool in_progress; /* some fs_shard_*() works on it; gate.lock */
	bool thawed; /* fs_shard_thaw() came meanwhile; gate.lock */
};

struct writers {
	struct fs *fs;
	struct inode **inodes; /* referenced */
	size_t count;
};
#define CLEANUP_WRITERS CLEANUP(writers_done)

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void writers_done(struct writers *writers)
{
	size_t i;

	for (i = 0; i < writers->count; i++)
		inode_unref(&writers->fs->inodes, writers->inodes[i]);
	free(writers->inodes);
}

/*
 * ---- Who works on it ----
 */

static int busy(struct fs_shard *shard, struct hib_error *error)
{
	return hib_fail(error, EBUSY, "%s/%s is locked already",
			fs_shard_bucket(shard), fs_shard_name(shard));
}

static int claim_new(struct fs_shard *shard, struct freeze *freeze,
		     struct hib_error *error)
{
	struct gate *gate = &shard->gate;
	bool taken;

	pthread_mutex_lock(&gate->lock);
	taken = gate->freeze;
	if (!taken)
		gate->freeze = freeze;
	pthread_mutex_unlock(&gate->lock);
	return taken ? busy(shard, error) : 0;
}

/* For the work that needs a frozen shard. */
static int claim(struct fs_shard *shard, struct hib_error *error)
{
	struct gate *gate = &shard->gate;
	int r = 0;

	pthread_mutex_lock(&gate->lock);
	if (!gate->freeze)
		r = -EINVAL;
	else if (gate->freeze->in_progress)
		r = -EBUSY;
	else
		gate->freeze->in_progress = true;
	pthread_mutex_unlock(&gate->lock);
	if (r == -EINVAL)
		return hib_fail(error, EINVAL, "%s/%s is not locked",
				fs_shard_bucket(shard), fs_shard_name(shard));
	return r < 0 ? busy(shard, error) : 0;
}

static void answer_hold(void *arg, uint64_t unique)
{
	fs_raw_reply(arg, unique, ECANCELED);
}

/* Only once freeze is no longer in progress, and not in the gate. */
static void undo(struct fs *fs, struct fs_shard *shard, struct freeze *freeze)
{
	watch_end(fs, shard);
	gate_drain(fs, shard);
	while (freeze->set_count > 0)
		hold_set_release(freeze->sets[--freeze->set_count], answer_hold,
				 fs);
}

/*
 * The end of the work: true, or false when a thaw came in between and has been
 * left to us.
 */
static bool unclaim(struct fs *fs, struct fs_shard *shard)
{
	struct gate *gate = &shard->gate;
	struct freeze *freeze;
	bool thawed;

	pthread_mutex_lock(&gate->lock);
	freeze = gate->freeze;
	freeze->in_progress = false;
	thawed = freeze->thawed;
	if (thawed)
		gate->freeze = NULL;
	pthread_mutex_unlock(&gate->lock);
	if (thawed) {
		undo(fs, shard, freeze);
		free(freeze);
	}
	return !thawed;
}

void fs_shard_thaw(struct fs *fs, struct fs_shard *shard)
{
	struct gate *gate = &shard->gate;
	struct freeze *freeze;

	pthread_mutex_lock(&gate->lock);
	freeze = gate->freeze;
	if (freeze && freeze->in_progress) {
		freeze->thawed = true;
		freeze = NULL;
	} else {
		gate->freeze = NULL;
	}
	pthread_mutex_unlock(&gate->lock);
	if (!freeze)
		return;
	undo(fs, shard, freeze);
	free(freeze);
}

/*
 * ---- Holds ----
 */

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* The nodes that are held, sorted; free() the array. */
static int held_nodes(const struct freeze *freeze, uint64_t **ret,
		      size_t *ret_count)
{
	uint64_t *nodes = NULL;
	size_t count = 0, i;
	int r = 0;

	for (i = 0; i < freeze->set_count && r == 0; i++)
		r = hold_set_held_nodes(freeze->sets[i], &nodes, &count);
	if (r < 0) {
		free(nodes);
		return r;
	}
	if (count)
		qsort(nodes, count, sizeof(*nodes), compare);
	*ret = nodes;
	*ret_count = count;
	return 0;
}

/* Holds the writers that are not held yet. *ret_set is NULL if all are. */
static int start_holds(struct fs *fs, struct freeze *freeze,
		       const struct writers *writers, struct hold_set **ret_set)
{
	CLEANUP_FREE struct hold_target *targets = NULL;
	CLEANUP_FREE uint64_t *nodes = NULL;
	size_t node_count = 0, count = 0, i;
	int r;

	*ret_set = NULL;
	targets = calloc(writers->count ? writers->count : 1, sizeof(*targets));
	if (!targets || held_nodes(freeze, &nodes, &node_count) < 0)
		return -ENOMEM;
	for (i = 0; i < writers->count; i++) {
		const struct inode *inode = writers->inodes[i];
		uint64_t nodeid = inode_nodeid(&fs->inodes, inode);

		if (node_count && bsearch(&nodeid, nodes, node_count,
					  sizeof(*nodes), compare))
			continue;
		targets[count].nodeid = nodeid;
		targets[count].generation = inode->generation;
		count++;
	}
	if (count == 0)
		return 0;
	r = hold_set_start(fs->gate.holds, targets, count, ret_set);
	if (r == 0)
		freeze->sets[freeze->set_count++] = *ret_set;
	return r;
}

static bool excused(void *arg, uint64_t nodeid)
{
	return gate_parks_lock_of(arg, nodeid);
}

static void set_waiting(struct fs_shard *shard, struct hold_set *set)
{
	pthread_mutex_lock(&shard->gate.lock);
	shard->gate.waiting = set;
	pthread_mutex_unlock(&shard->gate.lock);
}

static int wait_for_holds(struct fs_shard *shard, struct hold_set *set,
			  uint64_t deadline_ns, size_t *ret_index)
{
	int r;

	if (!set)
		return 0;
	set_waiting(shard, set);
	hold_set_look_again(set);
	r = hold_set_wait(set, deadline_ns, excused, shard, ret_index);
	set_waiting(shard, NULL);
	return r;
}

static bool still_written(struct fs_shard *shard, struct inode *inode)
{
	bool written;

	pthread_mutex_lock(&shard->lock);
	written = inode->writers > 0;
	pthread_mutex_unlock(&shard->lock);
	return written;
}

static int cannot_hold(struct fs *fs, const struct writers *writers,
		       const struct hold_target *target, int r,
		       struct hib_error *error)
{
	char name[512] = "a file";
	size_t i;

	for (i = 0; i < writers->count; i++)
		if (inode_nodeid(&fs->inodes, writers->inodes[i]) ==
		    target->nodeid)
			watch_name(fs, writers->inodes[i], name, sizeof(name));
	return hib_fail_errno(error, -r, "stop the writers of \"%s\"", name);
}

/*
 * What could not be held must not be open for writing any more. -EAGAIN: the
 * kernel does not know it yet.
 */
static int check_holds(struct fs *fs, struct fs_shard *shard,
		       const struct writers *writers, struct hold_set *set,
		       struct hib_error *error)
{
	struct hold_target target;
	size_t i, k;
	int r = 0;

	for (i = 0; i < hold_set_count(set); i++) {
		target = hold_set_get(set, i);
		if (target.state != HOLD_ENDED)
			continue;
		for (k = 0; k < writers->count; k++)
			if (inode_nodeid(&fs->inodes, writers->inodes[k]) ==
			    target.nodeid)
				break;
		if (k == writers->count ||
		    !still_written(shard, writers->inodes[k]))
			continue;
		if (target.result == 0)
			target.result = -EIO;
		cannot_hold(fs, writers, &target, target.result, error);
		if (target.result != -ESTALE)
			return target.result;
		r = -EAGAIN;
	}
	return r;
}

/*
 * Holds the writers there are now that are not held yet. `check`: all of them
 * have to be.
 */
static int hold_once(struct fs *fs, struct fs_shard *shard,
		     struct freeze *freeze, uint64_t deadline_ns, bool check,
		     struct hib_error *error)
{
	CLEANUP_WRITERS struct writers writers = { .fs = fs };
	struct hold_set *set = NULL;
	struct hold_target target;
	size_t index = 0;
	int r;

	/*
	 * Without root there is no passthrough, and all comes to the gate. So
	 * it should without passthrough when it is to be denied.
	 */
	if (!fs->rights.privileged || (freeze->deny && !fs->passthrough))
		return 0;
	r = shard_writers(fs, shard, &writers.inodes, &writers.count);
	if (r == 0)
		r = start_holds(fs, freeze, &writers, &set);
	if (r < 0)
		return hib_fail_errno(error, -r, "freeze");
	r = wait_for_holds(shard, set, deadline_ns, &index);
	if (r < 0) {
		target = hold_set_get(set, index);
		return cannot_hold(fs, &writers, &target, r, error);
	}
	return check && set ? check_holds(fs, shard, &writers, set, error) : 0;
}

/* -EAGAIN: in vain, and it should be done again from the start. */
static int hold_late(struct fs *fs, struct fs_shard *shard,
		     struct freeze *freeze, uint64_t deadline_ns,
		     struct hib_error *error)
{
	struct timespec pause = { .tv_nsec = FIRST_PAUSE_NS };
	int round, r = -EAGAIN;

	for (round = 0; r == -EAGAIN && round < LATE_ROUNDS; round++) {
		if (round > 0) {
			nanosleep(&pause, NULL);
			if (pause.tv_nsec < LAST_PAUSE_NS)
				pause.tv_nsec *= 2;
		}
		r = hold_once(fs, shard, freeze, deadline_ns, true, error);
	}
	return r == -ETIMEDOUT ? -EAGAIN : r;
}

/*
 * ---- Freezing ----
 */

static int attempt(struct fs *fs, struct fs_shard *shard, struct freeze *freeze,
		   uint64_t deadline_ns, struct hib_error *error)
{
	uint64_t soon;
	int r;

	r = hold_once(fs, shard, freeze, deadline_ns, false, error);
	if (r < 0)
		return r;
	soon = now_ns() + ATTEMPT_NS;
	if (soon > deadline_ns)
		soon = deadline_ns;
	r = gate_shut(shard, GATE_FROZEN, deadline_ns);
	if (r < 0)
		return hib_fail_errno(error, -r,
				      "wait for the changes in %s/%s to end",
				      fs_shard_bucket(shard),
				      fs_shard_name(shard));
	r = hold_late(fs, shard, freeze, soon, error);
	if (r == 0)
		r = flush_cached(fs, shard, deadline_ns, error);
	if (r == 0)
		r = watch_begin(fs, shard, error);
	return r;
}

static int freeze_shard(struct fs *fs, struct fs_shard *shard,
			struct freeze *freeze, struct hib_error *error)
{
	uint64_t deadline_ns = now_ns() + PATIENCE_NS;
	int r;

	do {
		pthread_mutex_lock(&shard->gate.lock);
		shard->gate.deny = freeze->deny;
		pthread_mutex_unlock(&shard->gate.lock);
		r = attempt(fs, shard, freeze, deadline_ns, error);
		if (r < 0)
			undo(fs, shard, freeze);
	} while (r == -EAGAIN && now_ns() < deadline_ns);
	return r == -EAGAIN ? -ETIMEDOUT : r;
}

static int check_place(struct fs *fs, struct fs_shard *shard,
		       struct hib_error *error)
{
	CLEANUP_FREE char *path = NULL;
	int n;

	if (fs_shard_place(shard) != FS_PLACE_NONE)
		return 0;
	n = fs->shard_depth == 1
		    ? asprintf(&path, "%s", fs_shard_name(shard))
		    : asprintf(&path, "%s/%s", fs_shard_bucket(shard),
			       fs_shard_name(shard));
	if (n < 0) {
		path = NULL;
		return hib_fail_errno(error, ENOMEM, "freeze");
	}
	/* Nobody has looked at it yet. */
	if (!atomic_load(&shard->withheld) &&
	    faccessat(fs->source_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		shard_seen_live(fs, shard);
		return 0;
	}
	return hib_fail(error, ENOENT, "%s/%s has no directory",
			fs_shard_bucket(shard), fs_shard_name(shard));
}

static size_t count_holds(const struct freeze *freeze)
{
	uint64_t *nodes = NULL;
	size_t count = 0;

	if (held_nodes(freeze, &nodes, &count) < 0)
		return 0;
	free(nodes);
	return count;
}

static int give_up(struct fs_shard *shard, struct freeze *freeze, int r)
{
	pthread_mutex_lock(&shard->gate.lock);
	shard->gate.freeze = NULL;
	pthread_mutex_unlock(&shard->gate.lock);
	free(freeze);
	return r;
}

int fs_shard_freeze(struct fs *fs, struct fs_shard *shard, bool deny,
		    struct fs_freeze_result *ret, struct hib_error *error)
{
	struct fs_freeze_result result = { 0 };
	struct freeze *freeze;
	uint64_t start = now_ns();
	int r;

	r = check_place(fs, shard, error);
	if (r < 0)
		return r;
	freeze = calloc(1, sizeof(*freeze));
	if (!freeze)
		return hib_fail_errno(error, ENOMEM, "freeze");
	freeze->in_progress = true;
	freeze->deny = deny;
	r = claim_new(shard, freeze, error);
	if (r < 0) {
		free(freeze);
		return r;
	}
	r = fault_point("freeze.before");
	if (r < 0)
		hib_fail(error, -r, "fault point freeze.before");
	else
		r = freeze_shard(fs, shard, freeze, error);
	if (r < 0)
		return give_up(shard, freeze, r);
	result.held_inodes = count_holds(freeze);
	if (!unclaim(fs, shard))
		return hib_fail(error, ECANCELED,
				"%s/%s was unlocked before the lock was "
				"complete",
				fs_shard_bucket(shard), fs_shard_name(shard));
	result.freeze_ns = now_ns() - start;
	*ret = result;
	return 0;
}

static int interrupted_by_thaw(struct fs_shard *shard, struct hib_error *error)
{
	return hib_fail(error, ECANCELED, "%s/%s has been unlocked",
			fs_shard_bucket(shard), fs_shard_name(shard));
}

int fs_shard_check(struct fs *fs, struct fs_shard *shard,
		   struct hib_error *error)
{
	int r;

	r = claim(shard, error);
	if (r < 0)
		return r;
	r = watch_check(fs, shard, error);
	if (!unclaim(fs, shard))
		return interrupted_by_thaw(shard, error);
	return r;
}

static bool has_no_open_files(void *arg)
{
	struct fs_shard *shard = arg;

	return atomic_load(&shard->open_files) == 0;
}

static int close_shard(struct fs *fs, struct fs_shard *shard,
		       struct hib_error *error)
{
	int r;

	r = gate_shut(shard, GATE_CLOSED, now_ns() + PATIENCE_NS);
	if (r < 0)
		return hib_fail_errno(error, -r,
				      "wait for the opens in %s/%s to end",
				      fs_shard_bucket(shard),
				      fs_shard_name(shard));
	if (!gate_wait(shard, has_no_open_files, shard,
		       now_ns() + RELEASE_PATIENCE_NS))
		return holder_busy(fs, shard, error);
	return holder_check_unmapped(fs, shard, error);
}

int fs_shard_close(struct fs *fs, struct fs_shard *shard,
		   struct hib_error *error)
{
	int r;

	r = claim(shard, error);
	if (r < 0)
		return r;
	r = close_shard(fs, shard, error);
	if (r < 0)
		gate_reopen(fs, shard);
	if (!unclaim(fs, shard))
		return interrupted_by_thaw(shard, error);
	return r;
}
