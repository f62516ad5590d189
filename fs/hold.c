/*
 * Threads. The first, the master, is made with the first set and makes the
 * others; they take jobs from the sets and block in utimensat(2), or when there
 * is nothing to do, on the futex `tokens`, of which there is one for each job
 * that may be taken. Nobody else waits for them: a thread whose hold has been
 * released late is of no concern.
 *
 * They have a table of descriptors of their own. Else, when the daemon is
 * killed, a thread that waits for the mount would keep /dev/fuse open, and the
 * mount would wait for the daemon for ever.
 *
 * Why one thread for each hold: a blocked system call needs one. Measured on
 * two cores, kernel 6.18, 1,000 files, from the start until all are held, idle
 * and with 8 processes writing at full speed:
 *
 *	threads made when needed		29-34 ms	27-44 ms
 *	io_uring's setxattr, its own threads	37-80 ms	28-99 ms
 *	ready threads, a semaphore each		14-18 ms	16-27 ms
 *	ready threads, one futex for all	12-30 ms	11-18 ms
 *	the same, SCHED_RR			6-9 ms		7-9 ms
 *
 * utimensat(2) rather than setxattr(2), because it takes an O_PATH descriptor,
 * where setxattr needs a walk through /proc: 7.2 instead of 8.9 ms.
 */
#include "fs/hold.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/request.h"

#define STACK_BYTES (128 * 1024) /* of which a page or two are ever touched */
#define READY_MAX 1024
#define READY_STEP 16
#define FUSE_MAGIC 0x65735546L
/* Far beyond any date, and positive; 56 random bits each. */
#define SECRET_MASK ((UINT64_C(1) << 56) - 1)

struct hold_set {
	struct hold_pool *pool;
	struct hold_set *next;
	uint32_t id;
	/* Guarded by pool->lock: */
	pthread_cond_t changed;
	struct hold_target *targets;
	size_t count, pending;
	size_t next_job; /* index of the next to be taken */
	size_t jobs_left; /* not ended; the opening of mount_fd is one */
	bool opening, opened; /* mount_fd */
	int mount_fd; /* in the threads' table; or a negative errno */
	bool look_again, released;
	bool releasing; /* its owner still answers */
};

struct hold_pool {
	char *mountpoint;
	uint64_t secret[2];
	pthread_attr_t small;
	atomic_int tokens; /* futex */
	atomic_size_t warmed; /* what was last asked for */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed; /* a thread is wanted, or has ended */
	pthread_t master;
	bool has_master, ending;
	size_t threads, ready, demand;
	uint32_t next_id;
	struct hold_set *sets; /* all that have jobs left or an owner */
};

/*
 * ---- Tokens ----
 */

static void post_tokens(struct hold_pool *pool, int count)
{
	atomic_fetch_add(&pool->tokens, count);
	syscall(SYS_futex, &pool->tokens, FUTEX_WAKE_PRIVATE, count, NULL, NULL,
		0);
}

static void take_token(struct hold_pool *pool)
{
	int n = atomic_load(&pool->tokens);

	for (;;) {
		if (n > 0) {
			if (atomic_compare_exchange_weak(&pool->tokens, &n,
							 n - 1))
				return;
			continue;
		}
		syscall(SYS_futex, &pool->tokens, FUTEX_WAIT_PRIVATE, n, NULL,
			NULL, 0);
		n = atomic_load(&pool->tokens);
	}
}

/*
 * ---- Jobs ----
 */

/* Sanitizers take the descriptors of these threads for those of the others. */
static void close_own(const int *fd)
{
	if (*fd >= 0)
		syscall(SYS_close, *fd);
}
#define CLEANUP_CLOSE_OWN CLEANUP(close_own)

/* A descriptor of the file through the mount, without asking the daemon. */
static int open_target(const struct hold_set *set,
		       const struct hold_target *target, int flags)
{
	/* What fuse_encode_fh() of the kernel writes. */
	struct {
		struct file_handle handle;
		uint32_t words[3];
	} id = {
		.handle = { .handle_bytes = 12, .handle_type = 0x81 },
	};
	uint32_t words[3] = { (uint32_t)(target->nodeid >> 32),
			      (uint32_t)target->nodeid, target->generation };
	int fd;

	memcpy(id.handle.f_handle, words, sizeof(words));
	fd = open_by_handle_at(set->mount_fd, &id.handle, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int run_hold(const struct hold_set *set, size_t index)
{
	const struct hold_pool *pool = set->pool;
	struct timespec times[2] = {
		{ .tv_sec = (time_t)pool->secret[0], .tv_nsec = (long)set->id },
		{ .tv_sec = (time_t)pool->secret[1], .tv_nsec = (long)index },
	};
	CLEANUP_CLOSE_OWN int fd =
		open_target(set, &set->targets[index], O_PATH);

	if (fd < 0)
		return fd;
	return utimensat(fd, "", times, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int run_flush(const struct hold_set *set, size_t index)
{
	CLEANUP_CLOSE_OWN int fd =
		open_target(set, &set->targets[index], O_RDONLY | O_NOATIME);

	if (fd < 0)
		return fd;
	/* Unlike fsync(2) it does not take the inode's lock. */
	if (sync_file_range(fd, 0, 0,
			    SYNC_FILE_RANGE_WAIT_BEFORE |
				    SYNC_FILE_RANGE_WRITE |
				    SYNC_FILE_RANGE_WAIT_AFTER) < 0)
		return -errno;
	return 0;
}

static void end_target_locked(struct hold_set *set, size_t index, int r)
{
	struct hold_target *target = &set->targets[index];

	if (target->state == HOLD_PENDING && --set->pending == 0)
		pthread_cond_broadcast(&set->changed);
	target->state = HOLD_ENDED;
	target->result = r;
}

/* The directory of the mount, held open only while there are jobs. */
static int open_mount(const struct hold_pool *pool)
{
	struct statfs figures;
	long fd = syscall(SYS_openat, AT_FDCWD, pool->mountpoint,
			  O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (fstatfs((int)fd, &figures) == 0 && figures.f_type == FUSE_MAGIC)
		return (int)fd;
	syscall(SYS_close, fd);
	return -ENOTCONN;
}

static void run_open_unlocked(struct hold_set *set)
{
	struct hold_pool *pool = set->pool;
	int fd;

	pthread_mutex_unlock(&pool->lock);
	fd = open_mount(pool);
	pthread_mutex_lock(&pool->lock);
	set->mount_fd = fd;
	set->opened = true;
	post_tokens(pool, (int)set->count);
}

static void run_job_unlocked(struct hold_set *set)
{
	struct hold_pool *pool = set->pool;
	size_t index = set->next_job++;
	bool flush = set->targets[index].flush;
	int r = set->mount_fd;

	if (r >= 0 && set->released)
		r = -ECANCELED;
	if (r >= 0) {
		pthread_mutex_unlock(&pool->lock);
		r = flush ? run_flush(set, index) : run_hold(set, index);
		pthread_mutex_lock(&pool->lock);
	}
	end_target_locked(set, index, r);
}

static struct hold_set *set_free(struct hold_set *set)
{
	if (!set)
		return NULL;
	pthread_cond_destroy(&set->changed);
	free(set->targets);
	free(set);
	return NULL;
}

static void drop_if_over_locked(struct hold_set *set)
{
	struct hold_set **link = &set->pool->sets;

	if (set->jobs_left > 0 || !set->released || set->releasing)
		return;
	while (*link != set)
		link = &(*link)->next;
	*link = set->next;
	set_free(set);
}

/* There is one for each token. */
static void do_a_job_locked(struct hold_pool *pool)
{
	struct hold_set *set = pool->sets;

	while (set && set->opening &&
	       (!set->opened || set->next_job == set->count))
		set = set->next;
	if (!set)
		return;
	if (!set->opening) {
		set->opening = true;
		run_open_unlocked(set);
	} else {
		run_job_unlocked(set);
	}
	if (--set->jobs_left == 0) {
		pool->demand -= set->count;
		close_own(&set->mount_fd);
		drop_if_over_locked(set);
	}
}

/*
 * ---- Threads ----
 */

/* Ahead of the writers that are to be stopped; done in a few microseconds. */
static void raise_priority(void)
{
	struct sched_param param = { .sched_priority = 1 };

	if (sched_setscheduler(0, SCHED_RR, &param) < 0)
		setpriority(PRIO_PROCESS, (id_t)gettid(), -20);
}

static void *run_thread(void *arg)
{
	struct hold_pool *pool = arg;

	raise_priority();
	pthread_mutex_lock(&pool->lock);
	while (!pool->ending && pool->threads <= pool->ready + pool->demand) {
		pthread_mutex_unlock(&pool->lock);
		take_token(pool);
		pthread_mutex_lock(&pool->lock);
		if (!pool->ending)
			do_a_job_locked(pool);
	}
	pool->threads--;
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static void own_descriptors(void)
{
	unsigned first = 0;
	int i;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	first = 3; /* they report to standard error */
#endif
	close_range(first, UINT_MAX, 0);
	for (i = (int)first; i < 3; i++)
		if (open("/dev/null", O_RDWR) < 0)
			break;
}

static bool make_thread(struct hold_pool *pool)
{
	pthread_t thread;

	return pthread_create(&thread, &pool->small, run_thread, pool) == 0;
}

static void *run_master(void *arg)
{
	struct hold_pool *pool = arg;
	bool usable = unshare(CLONE_FILES) == 0;

	if (usable)
		own_descriptors();
	pthread_mutex_lock(&pool->lock);
	while (!pool->ending) {
		if (!usable || pool->threads >= pool->ready + pool->demand) {
			pthread_cond_wait(&pool->changed, &pool->lock);
			continue;
		}
		pool->threads++;
		pthread_mutex_unlock(&pool->lock);
		usable = make_thread(pool);
		pthread_mutex_lock(&pool->lock);
		if (usable)
			continue;
		/* A limit; perhaps the next set finds it raised. */
		pool->threads--;
		pthread_cond_wait(&pool->changed, &pool->lock);
		usable = true;
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Not before it is needed: the daemon may fork before that. */
static int start_master_locked(struct hold_pool *pool)
{
	sigset_t all, old;
	int r;

	if (pool->has_master)
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&pool->master, NULL, run_master, pool);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pool->has_master = r == 0;
	return -r;
}

/*
 * ---- Pool ----
 */

int hold_pool_new(const char *mountpoint, struct hold_pool **ret,
		  struct hib_error *error)
{
	struct hold_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return hib_fail_errno(error, ENOMEM, "hold pool");
	pool->mountpoint = strdup(mountpoint);
	if (!pool->mountpoint || getrandom(pool->secret, sizeof(pool->secret),
					   0) != sizeof(pool->secret)) {
		free(pool->mountpoint);
		free(pool);
		return hib_fail_errno(error, ENOMEM, "hold pool");
	}
	pool->secret[0] = (pool->secret[0] & SECRET_MASK) | SECRET_MASK / 2;
	pool->secret[1] &= SECRET_MASK;
	pthread_attr_init(&pool->small);
	pthread_attr_setstacksize(&pool->small, STACK_BYTES);
	pthread_attr_setdetachstate(&pool->small, PTHREAD_CREATE_DETACHED);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->changed, NULL);
	*ret = pool;
	return 0;
}

struct hold_pool *hold_pool_free(struct hold_pool *pool)
{
	struct hold_set *set;

	if (!pool)
		return NULL;
	pthread_mutex_lock(&pool->lock);
	pool->ending = true;
	pthread_cond_broadcast(&pool->changed);
	post_tokens(pool, (int)pool->threads + 1);
	pthread_mutex_unlock(&pool->lock);
	if (pool->has_master)
		pthread_join(pool->master, NULL);
	pthread_mutex_lock(&pool->lock);
	while (pool->threads > 0)
		pthread_cond_wait(&pool->changed, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	while ((set = pool->sets)) {
		pool->sets = set->next;
		set_free(set);
	}
	pthread_cond_destroy(&pool->changed);
	pthread_mutex_destroy(&pool->lock);
	pthread_attr_destroy(&pool->small);
	free(pool->mountpoint);
	free(pool);
	return NULL;
}

void hold_pool_warm(struct hold_pool *pool, size_t threads)
{
	if (threads > READY_MAX)
		threads = READY_MAX;
	if (threads <= atomic_load(&pool->warmed))
		return;
	/* Not for each single one. */
	threads += READY_STEP;
	atomic_store(&pool->warmed, threads);
	pthread_mutex_lock(&pool->lock);
	if (threads > pool->ready && start_master_locked(pool) == 0) {
		pool->ready = threads;
		pthread_cond_broadcast(&pool->changed);
	}
	pthread_mutex_unlock(&pool->lock);
}

/*
 * ---- Sets ----
 */

static struct hold_set *set_new(struct hold_pool *pool,
				const struct hold_target *targets, size_t count)
{
	struct hold_set *set = calloc(1, sizeof(*set));
	pthread_condattr_t monotonic;
	size_t i;

	if (!set)
		return NULL;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&set->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	set->pool = pool;
	set->count = set->pending = count;
	set->mount_fd = -EBADF;
	set->targets = calloc(count ? count : 1, sizeof(*targets));
	if (!set->targets)
		return set_free(set);
	for (i = 0; i < count; i++) {
		set->targets[i] = targets[i];
		set->targets[i].state = HOLD_PENDING;
	}
	return set;
}

int hold_set_start(struct hold_pool *pool, const struct hold_target *targets,
		   size_t count, struct hold_set **ret)
{
	struct hold_set *set = set_new(pool, targets, count);
	int r;

	if (!set)
		return -ENOMEM;
	pthread_mutex_lock(&pool->lock);
	r = start_master_locked(pool);
	if (r < 0) {
		pthread_mutex_unlock(&pool->lock);
		set_free(set);
		return r;
	}
	/* A part of a second, in nanoseconds, carries it. */
	pool->next_id = (pool->next_id + 1) % 1000000000U;
	set->id = pool->next_id;
	set->jobs_left = count + 1;
	set->next = pool->sets;
	pool->sets = set;
	pool->demand += count;
	if (pool->ready == 0)
		pool->ready = 1;
	if (pool->threads < pool->ready + pool->demand)
		pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	post_tokens(pool, 1);
	*ret = set;
	return 0;
}

/* Is all that is pending excused? Called with the lock held, and without. */
static bool all_excused_unlocked(struct hold_set *set,
				 bool (*excused)(void *arg, uint64_t nodeid),
				 void *arg)
{
	pthread_mutex_t *lock = &set->pool->lock;
	bool all = true, pending;
	uint64_t nodeid;
	size_t i;

	for (i = 0; i < set->count && all; i++) {
		pending = set->targets[i].state == HOLD_PENDING;
		nodeid = set->targets[i].nodeid;
		if (!pending)
			continue;
		pthread_mutex_unlock(lock);
		all = excused(arg, nodeid);
		pthread_mutex_lock(lock);
	}
	return all;
}

static int wait_locked(struct hold_set *set, const struct timespec *deadline,
		       bool (*excused)(void *arg, uint64_t nodeid), void *arg)
{
	while (set->pending > 0) {
		if (set->look_again && excused) {
			set->look_again = false;
			if (all_excused_unlocked(set, excused, arg))
				return 0;
			continue;
		}
		if (pthread_cond_timedwait(&set->changed, &set->pool->lock,
					   deadline) == ETIMEDOUT &&
		    set->pending > 0)
			return -ETIMEDOUT;
	}
	return 0;
}

int hold_set_wait(struct hold_set *set, uint64_t deadline_ns,
		  bool (*excused)(void *arg, uint64_t nodeid), void *arg,
		  size_t *ret_index)
{
	struct timespec deadline = {
		.tv_sec = (time_t)(deadline_ns / 1000000000),
		.tv_nsec = (long)(deadline_ns % 1000000000),
	};
	size_t i;
	int r;

	pthread_mutex_lock(&set->pool->lock);
	r = wait_locked(set, &deadline, excused, arg);
	for (i = 0; r < 0 && i < set->count; i++) {
		if (set->targets[i].state == HOLD_PENDING) {
			*ret_index = i;
			break;
		}
	}
	pthread_mutex_unlock(&set->pool->lock);
	return r;
}

void hold_set_look_again(struct hold_set *set)
{
	pthread_mutex_lock(&set->pool->lock);
	set->look_again = true;
	pthread_cond_broadcast(&set->changed);
	pthread_mutex_unlock(&set->pool->lock);
}

struct hold_target hold_set_get(struct hold_set *set, size_t index)
{
	struct hold_target target;

	pthread_mutex_lock(&set->pool->lock);
	target = set->targets[index];
	pthread_mutex_unlock(&set->pool->lock);
	return target;
}

size_t hold_set_count(const struct hold_set *set)
{
	return set->count;
}

int hold_set_held_nodes(struct hold_set *set, uint64_t **nodes, size_t *count)
{
	uint64_t *more =
		reallocarray(*nodes, *count + set->count + 1, sizeof(*more));
	size_t i;

	if (!more)
		return -ENOMEM;
	*nodes = more;
	pthread_mutex_lock(&set->pool->lock);
	for (i = 0; i < set->count; i++)
		if (set->targets[i].state == HOLD_HELD)
			more[(*count)++] = set->targets[i].nodeid;
	pthread_mutex_unlock(&set->pool->lock);
	return 0;
}

struct hold_set *hold_set_release(struct hold_set *set,
				  void (*answer)(void *arg, uint64_t unique),
				  void *arg)
{
	struct hold_pool *pool;
	size_t i;

	if (!set)
		return NULL;
	pool = set->pool;
	pthread_mutex_lock(&pool->lock);
	set->released = set->releasing = true;
	for (i = 0; i < set->count; i++) {
		uint64_t unique = set->targets[i].unique;

		if (set->targets[i].state != HOLD_HELD)
			continue;
		pthread_mutex_unlock(&pool->lock);
		answer(arg, unique);
		pthread_mutex_lock(&pool->lock);
	}
	set->releasing = false;
	drop_if_over_locked(set);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static bool keep_locked(struct hold_set *set, size_t index, uint64_t unique)
{
	struct hold_target *target = &set->targets[index];

	if (set->released || target->state != HOLD_PENDING)
		return false;
	target->unique = unique;
	target->state = HOLD_HELD;
	if (--set->pending == 0)
		pthread_cond_broadcast(&set->changed);
	return true;
}

bool hold_take(struct hold_pool *pool, const struct request *request,
	       bool *ret_answer)
{
	struct hold_set *set;
	bool kept = false;

	if (!pool || !request->sets_times ||
	    request->atime_s != pool->secret[0] ||
	    request->mtime_s != pool->secret[1])
		return false;
	pthread_mutex_lock(&pool->lock);
	set = pool->sets;
	while (set && set->id != request->atime_ns)
		set = set->next;
	if (set && request->mtime_ns < set->count)
		kept = keep_locked(set, request->mtime_ns, request->unique);
	pthread_mutex_unlock(&pool->lock);
	*ret_answer = !kept;
	return true;
}
