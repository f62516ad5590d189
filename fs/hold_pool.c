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
#include "fs/hold_internal.h"

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

#define STACK_BYTES (128 * 1024) /* of which a page or two are ever touched */
#define READY_MAX 1024
#define READY_STEP 16
#define FUSE_MAGIC 0x65735546L
/* Far beyond any date, and positive; 56 random bits each. */
#define SECRET_MASK ((UINT64_C(1) << 56) - 1)

/*
 * ---- Tokens ----
 */

void hold_post_tokens(struct hold_pool *pool, int count)
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

static int open_path(const struct hold_set *set, const char *path)
{
	long fd = syscall(SYS_openat, set->mount_fd, path,
			  O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	return fd < 0 ? -errno : (int)fd;
}

static int run_flush(const struct hold_set *set, size_t index)
{
	const char *path = set->targets[index].path;
	CLEANUP_CLOSE_OWN int fd = -EBADF;

	if (!path)
		fd = open_target(set, &set->targets[index],
				 O_RDONLY | O_NOATIME);
	else
		fd = open_path(set, path);
	/* Removed while it is open: then it is not in the shard. */
	if (path && fd == -ENOENT)
		return 0;
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
	hold_post_tokens(pool, (int)set->count);
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

struct hold_set *hold_set_free(struct hold_set *set)
{
	size_t i;

	if (!set)
		return NULL;
	for (i = 0; set->targets && i < set->count; i++)
		free(set->targets[i].path);
	pthread_cond_destroy(&set->changed);
	free(set->targets);
	free(set);
	return NULL;
}

void hold_drop_if_over_locked(struct hold_set *set)
{
	struct hold_set **link = &set->pool->sets;

	if (set->jobs_left > 0 || !set->released || set->releasing)
		return;
	while (*link != set)
		link = &(*link)->next;
	*link = set->next;
	hold_set_free(set);
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
		hold_drop_if_over_locked(set);
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
int hold_start_master_locked(struct hold_pool *pool)
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
	hold_post_tokens(pool, (int)pool->threads + 1);
	pthread_mutex_unlock(&pool->lock);
	if (pool->has_master)
		pthread_join(pool->master, NULL);
	pthread_mutex_lock(&pool->lock);
	while (pool->threads > 0)
		pthread_cond_wait(&pool->changed, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	while ((set = pool->sets)) {
		pool->sets = set->next;
		hold_set_free(set);
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
	if (threads > pool->ready && hold_start_master_locked(pool) == 0) {
		pool->ready = threads;
		pthread_cond_broadcast(&pool->changed);
	}
	pthread_mutex_unlock(&pool->lock);
}
