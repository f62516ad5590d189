/*
 * The freeze gate on a real mount, with real processes: needs root and
 * /dev/fuse. Each test is made for passthrough and for the daemon serving the
 * I/O itself.
 */
#include "tests/unit/scratch.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>

#include "fs/fs.h"

#define DEADLINE_MS 10000
/* How long something that must not happen is given to happen. */
#define QUIET_MS 150

#ifdef __SANITIZE_THREAD__
/*
 * What one thread hands to another by way of the kernel (a node made by one
 * request is used by the next) is in order, though ThreadSanitizer cannot see
 * it: it is told that every write(2) comes before every later read(2).
 */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "io_sync=2";
}
#endif

static struct log quiet = { .level = LOG_LEVEL_ERROR };

struct world {
	int top; /* scratch */
	char source[300], mount[300];
	struct fs *fs;
	struct fs_shard *shard;
	pthread_t loop;
	int woken; /* calls of callbacks.wake */
	int wake_result;
};

static void *run_loop(void *arg)
{
	struct hib_error error = HIB_ERROR_INIT;

	if (fs_loop(arg, &error) < 0)
		TEST_FAIL_THREAD("fs_loop: %s", error.message);
	return NULL;
}

static int count_wake(void *arg, const char *bucket, const char *shard)
{
	struct world *world = arg;

	(void)bucket;
	(void)shard;
	__atomic_add_fetch(&world->woken, 1, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&world->wake_result, __ATOMIC_SEQ_CST);
}

static void start(struct world *world, bool passthrough)
{
	struct fs_config config = { .shard_depth = 2, .log = &quiet };
	struct hib_error error = HIB_ERROR_INIT;
	char top[256];

	memset(world, 0, sizeof(*world));
	world->top = scratch_new();
	scratch_path(world->top, top);
	snprintf(world->source, sizeof(world->source), "%s/source", top);
	snprintf(world->mount, sizeof(world->mount), "%s/mount", top);
	CHECK(mkdir(world->source, 0755) == 0 &&
	      mkdir(world->mount, 0755) == 0);
	CHECK_INT(mkdirat(world->top, "source/b", 0755), 0);
	CHECK_INT(mkdirat(world->top, "source/b/s", 0755), 0);
	CHECK_INT(mkdirat(world->top, "source/b/other", 0755), 0);
	config.source = world->source;
	config.mountpoint = world->mount;
	config.no_passthrough = !passthrough;
	config.callbacks.wake = count_wake;
	config.callbacks.arg = world;
	if (fs_new(&config, &world->fs, &error) < 0 ||
	    fs_mount(world->fs, &error) < 0)
		TEST_FAIL("%s", error.message);
	CHECK_INT(pthread_create(&world->loop, NULL, run_loop, world->fs), 0);
	CHECK_INT(fs_wait_ready(world->fs, DEADLINE_MS, &error), 0);
	world->shard = fs_shard_get(world->fs, "b", "s");
	CHECK(world->shard);
}

static void stop(struct world *world)
{
	fs_exit(world->fs);
	pthread_join(world->loop, NULL);
	fs_unmount(world->fs);
	fs_free(world->fs);
	scratch_done(world->top);
}

static void freeze(struct world *world, bool deny)
{
	struct fs_freeze_result result;
	struct hib_error error = HIB_ERROR_INIT;

	if (fs_shard_freeze(world->fs, world->shard, deny, &result, &error) < 0)
		TEST_FAIL("%s", error.message);
}

/*
 * ---- A process that does one thing when it is told ----
 */

struct actor {
	pid_t pid;
	int go, done; /* pipes */
};

struct scene {
	int dir; /* of the shard in the mount */
	int fd; /* a file of its own, open for writing */
	char name[32]; /* the file */
};
typedef int (*act_fn)(const struct scene *scene); /* 0 or -errno */

static void act(const struct world *world, act_fn function, int number, int go,
		int done)
{
	struct scene scene;
	char path[400], byte;
	int r;

	/* With /dev/fuse open it would keep the mount alive. */
	for (r = 3; r < 1024; r++)
		if (r != go && r != done)
			close(r);
	snprintf(path, sizeof(path), "%s/b/s", world->mount);
	scene.dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(scene.name, sizeof(scene.name), "f%d", number);
	scene.fd = openat(scene.dir, scene.name, O_RDWR | O_CREAT, 0644);
	r = scene.fd < 0 || pwrite(scene.fd, "0123456789", 10, 0) != 10;
	/* Ready; then wait for the word. */
	if (write(done, &r, sizeof(r)) < 0 || read(go, &byte, 1) != 1)
		_exit(1);
	r = function(&scene);
	if (write(done, &r, sizeof(r)) < 0)
		_exit(1);
	_exit(0);
}

/* Its result, or -ETIME when there is none in time. */
static int result_of(const struct actor *actor, int timeout_ms)
{
	struct pollfd pollfd = { .fd = actor->done, .events = POLLIN };
	int r;

	if (poll(&pollfd, 1, timeout_ms) <= 0)
		return -ETIME;
	if (read(actor->done, &r, sizeof(r)) != sizeof(r))
		return -EPIPE;
	return r;
}

static void hire(const struct world *world, act_fn function, int number,
		 struct actor *ret)
{
	int go[2], done[2];

	CHECK(pipe2(go, O_CLOEXEC) == 0 && pipe2(done, O_CLOEXEC) == 0);
	ret->pid = fork();
	CHECK(ret->pid >= 0);
	if (ret->pid == 0)
		act(world, function, number, go[0], done[1]);
	close(go[0]);
	close(done[1]);
	ret->go = go[1];
	ret->done = done[0];
	CHECK_INT(result_of(ret, DEADLINE_MS), 0);
}

static void tell(const struct actor *actor)
{
	CHECK_INT(write(actor->go, "x", 1), 1);
}

static void dismiss(struct actor *actor)
{
	kill(actor->pid, SIGKILL);
	waitpid(actor->pid, NULL, 0);
	close(actor->go);
	close(actor->done);
}

/*
 * ---- What they do: everything of L1 ----
 */

static int sys(long r)
{
	return r < 0 ? -errno : 0;
}

static int act_write(const struct scene *s)
{
	return sys(pwrite(s->fd, "x", 1, 0));
}

static int act_append(const struct scene *s)
{
	int fd = openat(s->dir, s->name, O_WRONLY | O_APPEND);

	return fd < 0 ? -errno : sys(write(fd, "x", 1));
}

static int act_writev(const struct scene *s)
{
	struct iovec part = { (void *)(uintptr_t) "x", 1 };

	return sys(pwritev(s->fd, &part, 1, 3));
}

static int act_new_handle(const struct scene *s)
{
	int fd = openat(s->dir, s->name, O_RDWR);

	return fd < 0 ? -errno : sys(pwrite(fd, "x", 1, 1));
}

static int act_open_truncating(const struct scene *s)
{
	return sys(openat(s->dir, s->name, O_WRONLY | O_TRUNC));
}

static int act_direct(const struct scene *s)
{
	int fd = openat(s->dir, s->name, O_RDWR | O_DIRECT);
	void *page;

	if (fd < 0)
		return -errno;
	if (posix_memalign(&page, 4096, 4096))
		return -ENOMEM;
	memset(page, 'd', 4096);
	return sys(pwrite(fd, page, 4096, 0));
}

static int act_truncate(const struct scene *s)
{
	return sys(ftruncate(s->fd, 3));
}

static int act_fallocate(const struct scene *s)
{
	return sys(fallocate(s->fd, 0, 0, 8192));
}

static int act_copy(const struct scene *s)
{
	loff_t in = 0, out = 5;

	return sys(copy_file_range(s->fd, &in, s->fd, &out, 3, 0));
}

static int act_splice(const struct scene *s)
{
	int pipes[2];
	loff_t offset = 2;

	if (pipe(pipes) < 0 || write(pipes[1], "x", 1) != 1)
		return -errno;
	return sys(splice(pipes[0], NULL, s->fd, &offset, 1, 0));
}

static int act_create(const struct scene *s)
{
	return sys(openat(s->dir, "new", O_WRONLY | O_CREAT | O_EXCL, 0600));
}

static int act_unlink(const struct scene *s)
{
	return sys(unlinkat(s->dir, s->name, 0));
}

static int act_rename(const struct scene *s)
{
	return sys(renameat(s->dir, s->name, s->dir, "renamed"));
}

static int act_link(const struct scene *s)
{
	return sys(linkat(s->dir, s->name, s->dir, "linked", 0));
}

static int act_symlink(const struct scene *s)
{
	return sys(symlinkat("x", s->dir, "symlink"));
}

static int act_mkdir(const struct scene *s)
{
	return sys(mkdirat(s->dir, "dir", 0700));
}

static int act_mknod(const struct scene *s)
{
	return sys(mknodat(s->dir, "fifo", S_IFIFO | 0600, 0));
}

static int act_chmod(const struct scene *s)
{
	return sys(fchmod(s->fd, 0600));
}

static int act_chown(const struct scene *s)
{
	return sys(fchown(s->fd, 1, 1));
}

static int act_utimens(const struct scene *s)
{
	return sys(futimens(s->fd, NULL));
}

static int act_setxattr(const struct scene *s)
{
	return sys(fsetxattr(s->fd, "user.x", "y", 1, 0));
}

static int act_pread(const struct scene *s)
{
	char byte;

	return sys(pread(s->fd, &byte, 1, 0));
}

static int act_stat(const struct scene *s)
{
	struct stat attr;

	return sys(fstatat(s->dir, s->name, &attr, 0));
}

static int act_open_reading(const struct scene *s)
{
	char byte;
	int fd = openat(s->dir, s->name, O_RDONLY);

	return fd < 0 ? -errno : sys(read(fd, &byte, 1));
}

static int act_open_writing(const struct scene *s)
{
	return sys(openat(s->dir, s->name, O_RDWR));
}

static int act_readdir(const struct scene *s)
{
	int fd = openat(s->dir, ".", O_RDONLY | O_DIRECTORY);
	DIR *dir = fdopendir(fd);

	return dir && readdir(dir) ? 0 : -errno;
}

static int act_statfs(const struct scene *s)
{
	struct statfs figures;

	return sys(fstatfs(s->fd, &figures));
}

static int act_lock(const struct scene *s)
{
	return sys(flock(s->fd, LOCK_EX));
}

static int act_close(const struct scene *s)
{
	return sys(close(s->fd));
}

/* Names last: waiting, they keep the directory from those who look it up. */
static const act_fn changes[] = {
	act_write,    act_writev,	   act_new_handle, act_append,
	act_direct,   act_truncate,	   act_fallocate,  act_copy,
	act_splice,   act_chmod,	   act_chown,	   act_utimens,
	act_setxattr, act_open_truncating,
};
static const act_fn names[] = {
	act_create,  act_unlink, act_rename, act_link,
	act_symlink, act_mkdir,	 act_mknod,
};
static const act_fn reads[] = {
	act_pread,   act_stat,	 act_open_reading, act_open_writing,
	act_readdir, act_statfs, act_lock,	   act_close,
};

static void check_waits(const act_fn *functions, size_t count, bool passthrough)
{
	struct actor actors[32];
	struct world world;
	size_t i;

	start(&world, passthrough);
	for (i = 0; i < count; i++)
		hire(&world, functions[i], (int)i, &actors[i]);
	freeze(&world, false);
	for (i = 0; i < count; i++)
		tell(&actors[i]);
	CHECK_INT(result_of(&actors[0], QUIET_MS), -ETIME);
	for (i = 0; i < count; i++)
		if (result_of(&actors[i], 0) != -ETIME)
			TEST_FAIL("change %zu did not wait", i);
	fs_shard_thaw(world.fs, world.shard);
	for (i = 0; i < count; i++) {
		int r = result_of(&actors[i], DEADLINE_MS);

		if (r < 0)
			TEST_FAIL("change %zu: %s", i, strerror(-r));
		dismiss(&actors[i]);
	}
	stop(&world);
}

/* req: L1 L2 */
TEST(changes_wait_in_passthrough)
{
	check_waits(changes, ARRAY_SIZE(changes), true);
}

/* req: L1 L2 */
TEST(changes_wait_without_passthrough)
{
	check_waits(changes, ARRAY_SIZE(changes), false);
}

/* req: L1 L2 */
TEST(changes_of_names_wait)
{
	check_waits(names, ARRAY_SIZE(names), true);
}

static void check_reads(bool passthrough)
{
	struct actor actors[ARRAY_SIZE(reads)];
	struct world world;
	size_t i;

	start(&world, passthrough);
	for (i = 0; i < ARRAY_SIZE(reads); i++)
		hire(&world, reads[i], (int)i, &actors[i]);
	freeze(&world, false);
	for (i = 0; i < ARRAY_SIZE(reads); i++) {
		int r;

		tell(&actors[i]);
		r = result_of(&actors[i], DEADLINE_MS);
		if (r < 0)
			TEST_FAIL("read %zu: %s", i, strerror(-r));
		dismiss(&actors[i]);
	}
	fs_shard_thaw(world.fs, world.shard);
	stop(&world);
}

/* req: L1 */
TEST(reads_go_on_in_passthrough)
{
	check_reads(true);
}

/* req: L1 */
TEST(reads_go_on_without_passthrough)
{
	check_reads(false);
}

/* req: L1 */
TEST(denied_changes_get_erofs)
{
	static const act_fn denied[] = {
		act_new_handle, act_truncate, act_fallocate, act_chmod,
		act_setxattr,	act_create,   act_unlink,    act_mkdir,
	};
	struct actor actors[ARRAY_SIZE(denied)];
	struct world world;
	size_t i;

	/* In passthrough the kernel makes them wait for the lock before. */
	start(&world, false);
	for (i = 0; i < ARRAY_SIZE(denied); i++)
		hire(&world, denied[i], (int)i, &actors[i]);
	freeze(&world, true);
	for (i = 0; i < ARRAY_SIZE(denied); i++) {
		tell(&actors[i]);
		CHECK_INT(result_of(&actors[i], DEADLINE_MS), -EROFS);
		dismiss(&actors[i]);
	}
	fs_shard_thaw(world.fs, world.shard);
	stop(&world);
}

/*
 * ---- Interrupts ----
 */

static void on_signal(int number)
{
	(void)number;
}

static int act_interrupted_create(const struct scene *s)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &action, NULL);
	return sys(openat(s->dir, "new", O_WRONLY | O_CREAT, 0600));
}

/* req: L2 */
TEST(a_waiting_caller_can_be_interrupted)
{
	struct fs_status status;
	struct world world;
	struct actor actor;
	int r, i;

	start(&world, true);
	hire(&world, act_interrupted_create, 0, &actor);
	freeze(&world, false);
	tell(&actor);
	r = -ETIME;
	for (i = 0; i < 100 && r == -ETIME; i++) {
		fs_get_status(world.fs, &status);
		if (status.parked_requests > 0)
			kill(actor.pid, SIGUSR1);
		r = result_of(&actor, 100);
	}
	CHECK_INT(r, -EINTR);
	fs_get_status(world.fs, &status);
	CHECK_INT(status.parked_requests, 0);
	fs_shard_thaw(world.fs, world.shard);
	CHECK(!scratch_has(world.top, "source/b/s/new"));
	dismiss(&actor);
	stop(&world);
}

/*
 * ---- Mappings ----
 */

static char *map_of(const struct scene *s)
{
	char *map;

	if (ftruncate(s->fd, 8192) < 0)
		return NULL;
	map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	return map == MAP_FAILED ? NULL : map;
}

static int next_word(const struct scene *s)
{
	char byte;

	(void)s;
	/* The pipe that act() has read from first: the lowest but the ends. */
	return read(3, &byte, 1) == 1 ? 0 : -EIO;
}

/* Stores once before the lock and, told again, once in it. */
static int act_store_twice(const struct scene *s)
{
	char *map = map_of(s);

	if (!map)
		return -errno;
	map[0] = '1';
	close(s->fd);
	if (write(4, &(int){ 0 }, sizeof(int)) < 0 || next_word(s) < 0)
		return -EIO;
	map[0] = '2';
	return 0;
}

/* As hire(), with its pipes at 3 and 4 so that it can talk on. */
static void hire_talking(const struct world *world, act_fn function, int number,
			 struct actor *ret)
{
	int go[2], done[2];

	CHECK(pipe2(go, O_CLOEXEC) == 0 && pipe2(done, O_CLOEXEC) == 0);
	ret->pid = fork();
	CHECK(ret->pid >= 0);
	if (ret->pid == 0) {
		int in = fcntl(go[0], F_DUPFD, 100);
		int out = fcntl(done[1], F_DUPFD, 100);

		dup2(in, 3);
		dup2(out, 4);
		act(world, function, number, 3, 4);
	}
	close(go[0]);
	close(done[1]);
	ret->go = go[1];
	ret->done = done[0];
	CHECK_INT(result_of(ret, DEADLINE_MS), 0);
}

/* req: L3 */
TEST(a_store_through_a_mapping_during_the_lock_is_detected)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct world world;
	struct actor actor;

	start(&world, true);
	hire_talking(&world, act_store_twice, 7, &actor);
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	/* Mapped with a dirty page, and its descriptor closed. */
	freeze(&world, false);
	CHECK_INT(fs_shard_check(world.fs, world.shard, &error), 0);
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	CHECK_INT(fs_shard_check(world.fs, world.shard, &error), -ESTALE);
	CHECK(strstr(error.message, "b/s/f7"));
	fs_shard_thaw(world.fs, world.shard);
	/* And a lock in which nothing happens is clean again. */
	freeze(&world, false);
	CHECK_INT(fs_shard_check(world.fs, world.shard, &error), 0);
	fs_shard_thaw(world.fs, world.shard);
	dismiss(&actor);
	stop(&world);
}

static int act_map_and_store(const struct scene *s)
{
	int fd = openat(s->dir, s->name, O_RDWR);
	char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return -errno;
	map[0] = '2';
	return 0;
}

/* req: L3 */
TEST(a_store_through_a_mapping_made_during_the_lock_is_detected)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct world world;
	struct actor actor;

	start(&world, true);
	hire(&world, act_map_and_store, 7, &actor);
	freeze(&world, false);
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	CHECK_INT(fs_shard_check(world.fs, world.shard, &error), -ESTALE);
	CHECK(strstr(error.message, "b/s/f7"));
	fs_shard_thaw(world.fs, world.shard);
	dismiss(&actor);
	stop(&world);
}

/* req: L3 */
TEST(stores_before_the_lock_are_on_the_source_without_passthrough)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct world world;
	struct actor actor;
	char byte = 0;
	int fd;

	start(&world, false);
	hire_talking(&world, act_store_twice, 7, &actor);
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	freeze(&world, false);
	fd = openat(world.top, "source/b/s/f7", O_RDONLY);
	CHECK_INT(pread(fd, &byte, 1, 0), 1);
	CHECK_INT(byte, '1');
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	CHECK_INT(fs_shard_check(world.fs, world.shard, &error), 0);
	CHECK_INT(pread(fd, &byte, 1, 0), 1);
	CHECK_INT(byte, '1');
	close(fd);
	fs_shard_thaw(world.fs, world.shard);
	dismiss(&actor);
	stop(&world);
}

/*
 * ---- Closing ----
 */

static int act_keep_map(const struct scene *s)
{
	char *map = map_of(s);

	close(s->fd);
	if (!map || write(4, &(int){ 0 }, sizeof(int)) < 0)
		return -EIO;
	return next_word(s);
}

/* req: P1 P9 */
TEST(a_shard_in_use_is_not_closed_and_the_user_is_named)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct world world;
	struct actor actor;
	char pid[40];

	start(&world, true);
	hire(&world, act_close, 1, &actor);
	snprintf(pid, sizeof(pid), "(pid %d)", (int)actor.pid);
	freeze(&world, false);
	CHECK_INT(fs_shard_close(world.fs, world.shard, &error), -EBUSY);
	CHECK(strstr(error.message, pid));
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	CHECK_INT(fs_shard_close(world.fs, world.shard, &error), 0);
	fs_shard_thaw(world.fs, world.shard);
	dismiss(&actor);
	stop(&world);
}

/* req: P1 */
TEST(a_shard_with_a_mapped_file_is_not_closed)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct world world;
	struct actor actor;
	char pid[40];

	start(&world, true);
	hire_talking(&world, act_keep_map, 1, &actor);
	snprintf(pid, sizeof(pid), "(pid %d)", (int)actor.pid);
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	freeze(&world, false);
	CHECK_INT(fs_shard_close(world.fs, world.shard, &error), -EBUSY);
	CHECK(strstr(error.message, "b/s/f1"));
	CHECK(strstr(error.message, pid));
	dismiss(&actor);
	CHECK_INT(fs_shard_close(world.fs, world.shard, &error), 0);
	fs_shard_thaw(world.fs, world.shard);
	stop(&world);
}

static int act_close_and_open(const struct scene *s)
{
	close(s->fd);
	if (write(4, &(int){ 0 }, sizeof(int)) < 0 || next_word(s) < 0)
		return -EIO;
	return act_open_reading(s);
}

/* req: P9 */
TEST(opens_of_a_closed_shard_wait)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct world world;
	struct actor actor;

	start(&world, true);
	hire_talking(&world, act_close_and_open, 1, &actor);
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	freeze(&world, false);
	if (fs_shard_close(world.fs, world.shard, &error) < 0)
		TEST_FAIL("%s", error.message);
	tell(&actor);
	CHECK_INT(result_of(&actor, QUIET_MS), -ETIME);
	fs_shard_thaw(world.fs, world.shard);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	dismiss(&actor);
	stop(&world);
}

/*
 * ---- Stubs ----
 */

/* Makes a stub of the shard, as the pauser does. */
static void hibernate(struct world *world)
{
	struct hib_error error = HIB_ERROR_INIT;
	int r;

	freeze(world, false);
	if (fs_shard_close(world->fs, world->shard, &error) < 0)
		TEST_FAIL("%s", error.message);
	mkdirat(world->top, "source/.hibfs", 0700);
	mkdirat(world->top, "source/.hibfs/stubs", 0700);
	mkdirat(world->top, "source/.hibfs/stubs/b", 0700);
	mkdirat(world->top, "source/.hibfs/stubs/b/s", 0700);
	CHECK_INT(renameat(world->top, "source/b/s", world->top,
			   "source/.hibfs/stubs/b/s/tree"),
		  0);
	r = fs_shard_set_place(world->fs, world->shard, FS_PLACE_STUB, &error);
	if (r < 0)
		TEST_FAIL("%s", error.message);
	fs_shard_thaw(world->fs, world->shard);
}

static void wait_for_wake(struct world *world)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	int i;

	for (i = 0; i < DEADLINE_MS; i++) {
		if (__atomic_load_n(&world->woken, __ATOMIC_SEQ_CST) > 0)
			return;
		nanosleep(&pause, NULL);
	}
	TEST_FAIL("nobody was asked to wake the shard");
}

/* req: P10 */
TEST(an_open_of_a_stub_waits_until_it_is_woken)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct world world;
	struct actor actor;

	start(&world, true);
	hire_talking(&world, act_close_and_open, 1, &actor);
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	hibernate(&world);
	tell(&actor);
	wait_for_wake(&world);
	CHECK_INT(result_of(&actor, QUIET_MS), -ETIME);
	CHECK_INT(renameat(world.top, "source/.hibfs/stubs/b/s/tree", world.top,
			   "source/b/s"),
		  0);
	CHECK_INT(fs_shard_set_place(world.fs, world.shard, FS_PLACE_LIVE,
				     &error),
		  0);
	fs_shard_woken(world.fs, world.shard, 0);
	/* Its directory descriptor is of the stub: it may be told so. */
	{
		int r = result_of(&actor, DEADLINE_MS);

		CHECK(r == 0 || r == -ESTALE);
	}
	dismiss(&actor);
	stop(&world);
}

/* req: P10 */
TEST(a_wake_that_fails_gives_its_error_to_the_caller)
{
	struct world world;
	struct actor actor;

	start(&world, true);
	hire_talking(&world, act_close_and_open, 1, &actor);
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	hibernate(&world);
	__atomic_store_n(&world.wake_result, -ENODEV, __ATOMIC_SEQ_CST);
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), -ENODEV);
	dismiss(&actor);
	stop(&world);
}

/*
 * ---- Several, and the rest ----
 */

static int act_other_shard(const struct scene *s)
{
	int fd = openat(s->dir, "../other/new", O_RDWR | O_CREAT, 0600);

	return fd < 0 ? -errno : sys(pwrite(fd, "x", 1, 0));
}

/* req: L7 */
TEST(another_shard_goes_on)
{
	struct actor actor, waiting;
	struct world world;

	start(&world, true);
	hire(&world, act_other_shard, 0, &actor);
	hire(&world, act_write, 1, &waiting);
	freeze(&world, false);
	tell(&waiting);
	tell(&actor);
	CHECK_INT(result_of(&actor, DEADLINE_MS), 0);
	CHECK_INT(result_of(&waiting, 0), -ETIME);
	fs_shard_thaw(world.fs, world.shard);
	CHECK_INT(result_of(&waiting, DEADLINE_MS), 0);
	dismiss(&actor);
	dismiss(&waiting);
	stop(&world);
}

/* req: L6 */
TEST(freezing_twice_is_busy_and_thawing_twice_harmless)
{
	struct fs_freeze_result result;
	struct hib_error error = HIB_ERROR_INIT;
	struct world world;

	start(&world, true);
	fs_shard_thaw(world.fs, world.shard);
	freeze(&world, false);
	CHECK_INT(fs_shard_freeze(world.fs, world.shard, false, &result,
				  &error),
		  -EBUSY);
	fs_shard_thaw(world.fs, world.shard);
	fs_shard_thaw(world.fs, world.shard);
	freeze(&world, false);
	/* Unmounting thaws. */
	stop(&world);
}

TEST(a_shard_without_directory_is_not_frozen)
{
	struct fs_freeze_result result;
	struct hib_error error = HIB_ERROR_INIT;
	struct world world;

	start(&world, true);
	CHECK_INT(fs_shard_freeze(world.fs, fs_shard_get(world.fs, "b", "none"),
				  false, &result, &error),
		  -ENOENT);
	stop(&world);
}

/* One byte after the other; a gap, a doubled or a lost one would show. */
static int act_stream(const struct scene *s)
{
	uint32_t i;

	for (i = 0; i < 200000; i++)
		if (pwrite(s->fd, &i, sizeof(i), i * sizeof(i)) != sizeof(i))
			return -errno;
	return 0;
}

static void check_stream(bool passthrough)
{
	struct world world;
	struct actor actor;
	uint32_t *data, i;
	int fd, r = -ETIME;
	struct stat before, after;

	start(&world, passthrough);
	hire(&world, act_stream, 3, &actor);
	tell(&actor);
	while (r == -ETIME) {
		freeze(&world, false);
		CHECK_INT(fstatat(world.top, "source/b/s/f3", &before, 0), 0);
		r = result_of(&actor, 5);
		CHECK_INT(fstatat(world.top, "source/b/s/f3", &after, 0), 0);
		CHECK_INT(before.st_size, after.st_size);
		fs_shard_thaw(world.fs, world.shard);
		if (r == -ETIME)
			r = result_of(&actor, 5);
	}
	CHECK_INT(r, 0);
	fd = openat(world.top, "source/b/s/f3", O_RDONLY);
	data = malloc(200000 * sizeof(*data));
	CHECK_INT(pread(fd, data, 200000 * sizeof(*data), 0),
		  200000 * sizeof(*data));
	for (i = 0; i < 200000; i++)
		CHECK_INT(data[i], i);
	free(data);
	close(fd);
	dismiss(&actor);
	stop(&world);
}

/* req: L2 L3 */
TEST(a_writer_loses_nothing_over_many_locks_in_passthrough)
{
	check_stream(true);
}

/* req: L2 L3 */
TEST(a_writer_loses_nothing_over_many_locks_without_passthrough)
{
	check_stream(false);
}

/* Opens, truncates and removes at full speed: what a freeze has to race with. */
static int act_churn(const struct scene *s)
{
	int fd, i;

	for (i = 0;; i++) {
		fd = openat(s->dir, s->name, O_RDWR | O_CREAT | O_TRUNC, 0600);
		if (fd < 0)
			return -errno;
		if (write(fd, "x", 1) != 1)
			return -errno;
		close(fd);
		if (i % 3 == 0 && unlinkat(s->dir, s->name, 0) < 0)
			return -errno;
	}
}

/* req: L1 L8 */
TEST(files_that_are_opened_truncated_and_removed_all_the_time_are_frozen)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct actor actors[4];
	struct world world;
	size_t i;

	start(&world, true);
	for (i = 0; i < ARRAY_SIZE(actors); i++) {
		hire(&world, act_churn, (int)i, &actors[i]);
		tell(&actors[i]);
	}
	for (i = 0; i < 100; i++) {
		freeze(&world, false);
		if (fs_shard_check(world.fs, world.shard, &error) < 0)
			TEST_FAIL("%s", error.message);
		fs_shard_thaw(world.fs, world.shard);
	}
	for (i = 0; i < ARRAY_SIZE(actors); i++) {
		CHECK_INT(result_of(&actors[i], 0), -ETIME);
		dismiss(&actors[i]);
	}
	stop(&world);
}

TEST_MAIN()
