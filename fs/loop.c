/*
 * The workers: each reads one request at a time from /dev/fuse, lets the gate
 * look at it, and runs its handler to the end. A worker blocks in read(2) when
 * there is nothing to do, and in the handler's system calls on the source,
 * never on the mount.
 *
 * The caller of fs_loop() waits on an eventfd that fs_exit() writes, and so
 * does a worker that found the mount gone. It ends the others by
 * pthread_cancel(), which they allow only while they read: read(2) is a
 * cancellation point, so none of them can miss it.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/fuse.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include "fs/ops.h"

#define WORKERS_MIN 4
#define WORKERS_MAX 10

struct worker {
	struct fs *fs;
	pthread_t thread;
	struct fuse_buf buffer; /* libfuse allocates its memory */
};

static void worker_failed(struct fs *fs, int r)
{
	pthread_mutex_lock(&fs->lock);
	if (fs->worker_error == 0)
		fs->worker_error = r;
	pthread_mutex_unlock(&fs->lock);
}

static void became_ready(struct fs *fs)
{
	pthread_mutex_lock(&fs->lock);
	fs->ready = true;
	pthread_cond_broadcast(&fs->changed);
	pthread_mutex_unlock(&fs->lock);
}

static void serve(struct fs *fs, struct fuse_buf *buffer)
{
	struct gate_token token;
	uint64_t served;

	if (gate_filter(fs, buffer, &token) == GATE_TAKEN)
		return;
	fuse_session_process_buf(fs->session, buffer);
	gate_leave(fs, &token);
	served = atomic_fetch_add_explicit(&fs->requests, 1,
					   memory_order_relaxed);
	/* The first is INIT. */
	if (served == 0)
		became_ready(fs);
}

/* gcc's ASan takes the frames that a cancelled thread leaves for overflows. */
static void leave_frames(void *arg)
{
	(void)arg;
#ifdef __SANITIZE_ADDRESS__
	__asan_handle_no_return();
#endif
}

/* Reads a request; bytes, 0 when the mount is gone, or a negative errno. */
static int receive(struct worker *worker)
{
	int r;

	pthread_cleanup_push(leave_frames, NULL);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	r = fuse_session_receive_buf(worker->fs->session, &worker->buffer);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_cleanup_pop(0);
	return r;
}

static void *run_worker(void *arg)
{
	struct worker *worker = arg;
	struct fs *fs = worker->fs;
	struct hib_error error = HIB_ERROR_INIT;
	int r;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	r = worker_enter(fs, &error);
	if (r < 0)
		log_error(fs->log, "%s", error.message);
	while (r == 0 && !atomic_load(&fs->exiting)) {
		r = receive(worker);
		if (r == -EINTR || r == -EAGAIN) {
			r = 0;
		} else if (r > 0) {
			serve(fs, &worker->buffer);
			r = 0;
		} else {
			break;
		}
	}
	if (r < 0)
		worker_failed(fs, r);
	fs_exit(fs);
	return NULL;
}

static unsigned worker_count(void)
{
	long n = 2 * sysconf(_SC_NPROCESSORS_ONLN);

	if (n < WORKERS_MIN)
		return WORKERS_MIN;
	return n > WORKERS_MAX ? WORKERS_MAX : (unsigned)n;
}

static void wait_for_exit(struct fs *fs)
{
	struct pollfd event = { .fd = fs->exit_fd, .events = POLLIN };

	while (poll(&event, 1, -1) < 0 && errno == EINTR)
		;
}

int fs_loop(struct fs *fs, struct hib_error *error)
{
	struct worker workers[WORKERS_MAX];
	unsigned count = worker_count(), started, i;
	int r = 0;

	memset(workers, 0, sizeof(workers));
	for (started = 0; started < count; started++) {
		workers[started].fs = fs;
		r = pthread_create(&workers[started].thread, NULL, run_worker,
				   &workers[started]);
		if (r)
			break;
	}
	if (r && started == 0)
		return hib_fail_errno(error, r, "start threads");
	wait_for_exit(fs);
	for (i = 0; i < started; i++)
		pthread_cancel(workers[i].thread);
	for (i = 0; i < started; i++) {
		pthread_join(workers[i].thread, NULL);
		free(workers[i].buffer.mem);
	}
	pthread_mutex_lock(&fs->lock);
	r = fs->worker_error;
	pthread_mutex_unlock(&fs->lock);
	if (r < 0)
		return hib_fail_errno(error, -r, "read requests of the kernel");
	return 0;
}

void fs_exit(struct fs *fs)
{
	uint64_t one = 1;
	int saved = errno;

	atomic_store(&fs->exiting, true);
	/* Full only if it is readable already. */
	if (write(fs->exit_fd, &one, sizeof(one)) < 0)
		errno = saved;
}

int fs_raw_reply(struct fs *fs, uint64_t unique, int error)
{
	struct fuse_out_header header = {
		.len = sizeof(header),
		.error = -error,
		.unique = unique,
	};

	if (write(fuse_session_fd(fs->session), &header, sizeof(header)) < 0)
		return -errno;
	return 0;
}
