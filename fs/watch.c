/*
 * Writing a file's dirty pages back write-protects them in the page tables of
 * those who map it: the next store faults, and the fault sets ctime. That costs
 * disk I/O for all that is dirty, so it is done only for files that some
 * process does map (mapping.h); for the others ctime is enough, because a
 * mapping made later faults at its first store anyway. Where the processes
 * cannot be seen, all are taken for mapped.
 *
 * Time stamps come from a clock that ticks some hundred times a second. Since
 * 6.13 the kernel gives a change a stamp of its own when somebody has looked at
 * the last one. Before that a store in the tick of the last write would leave
 * the same ctime, so the tick is waited for.
 */
#include "fs/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <linux/falloc.h>
#include <linux/magic.h>

#include "fs/fs_internal.h"
#include "fs/hold.h"
#include "fs/mapping.h"

/* Longer than any device keeps a write. */
#define DIRECT_WRITE_SECONDS 120

struct watched {
	struct watched *next;
	struct inode *inode; /* referenced */
	struct timespec ctime;
	bool vanished; /* it cannot be reached any more */
};

struct watch {
	struct watched *first; /* the gate's lock; they stay until the end */
	bool incomplete; /* there was no memory; the gate's lock */
};

static bool same(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/*
 * ---- Noting ----
 */

static int read_ctime(struct fs *fs, struct inode *inode, struct timespec *ret)
{
	struct stat attr;
	int fd = inode_fd_get(&fs->inodes, inode), r = 0;

	if (fd < 0)
		return fd;
	if (fstatat(fd, "", &attr, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		r = -errno;
	else
		*ret = attr.st_ctim;
	inode_fd_put(&fs->inodes, inode);
	return r;
}

static void add_locked(struct watch *watch, struct watched *watched)
{
	watched->next = watch->first;
	watch->first = watched;
}

static void note_locked(struct gate *gate, struct inode *inode)
{
	if (inode->noted)
		return;
	inode->noted = true;
	inode->noted_previous = NULL;
	inode->noted_next = gate->noted;
	if (gate->noted)
		gate->noted->noted_previous = inode;
	gate->noted = inode;
}

static void unnote_locked(struct gate *gate, struct inode *inode)
{
	if (!inode->noted)
		return;
	inode->noted = false;
	if (inode->noted_previous)
		inode->noted_previous->noted_next = inode->noted_next;
	else
		gate->noted = inode->noted_next;
	if (inode->noted_next)
		inode->noted_next->noted_previous = inode->noted_previous;
}

static size_t count_writers(struct fs_shard *shard)
{
	size_t count;

	pthread_mutex_lock(&shard->lock);
	count = shard->writer_count;
	pthread_mutex_unlock(&shard->lock);
	return count;
}

void gate_note_writer(struct fs *fs, struct inode *inode)
{
	struct fs_shard *shard = inode->key.shard;
	struct gate *gate = &shard->gate;
	struct watched *watched = NULL;
	bool added = false;

	pthread_mutex_lock(&gate->lock);
	note_locked(gate, inode);
	/* Its mapping, if it gets one, is younger than the watch. */
	while (gate->watch && !added) {
		if (watched) {
			add_locked(gate->watch, watched);
			added = true;
			continue;
		}
		pthread_mutex_unlock(&gate->lock);
		watched = calloc(1, sizeof(*watched));
		if (watched) {
			watched->inode = inode_ref(&fs->inodes, inode);
			watched->vanished =
				read_ctime(fs, inode, &watched->ctime) < 0;
		}
		pthread_mutex_lock(&gate->lock);
		if (watched)
			continue;
		if (gate->watch)
			gate->watch->incomplete = true;
		break;
	}
	pthread_mutex_unlock(&gate->lock);
	if (watched && !added) {
		inode_unref(&fs->inodes, inode);
		free(watched);
	}
	if (fs->rights.privileged)
		hold_pool_warm(fs->gate.holds, count_writers(shard));
}

void gate_forget_writer(struct inode *inode)
{
	struct gate *gate = &inode->key.shard->gate;

	pthread_mutex_lock(&gate->lock);
	unnote_locked(gate, inode);
	pthread_mutex_unlock(&gate->lock);
}

/*
 * ---- Beginning ----
 */

static struct watched *watched_free(struct fs *fs, struct watched *watched)
{
	inode_unref(&fs->inodes, watched->inode);
	free(watched);
	return NULL;
}

/* All that are noted; those that are opened from now on add themselves. */
static int collect(struct fs *fs, struct fs_shard *shard, struct watch *watch)
{
	struct gate *gate = &shard->gate;
	struct watched *watched;
	struct inode *inode;
	int r = 0;

	pthread_mutex_lock(&gate->lock);
	gate->watch = watch;
	for (inode = gate->noted; inode; inode = inode->noted_next) {
		watched = calloc(1, sizeof(*watched));
		if (!watched) {
			r = -ENOMEM;
			break;
		}
		if (!inode_try_ref(&fs->inodes, inode)) {
			free(watched);
			continue;
		}
		watched->inode = inode;
		add_locked(watch, watched);
	}
	pthread_mutex_unlock(&gate->lock);
	return r;
}

static struct watched *first_of(struct fs_shard *shard)
{
	struct watched *first;

	pthread_mutex_lock(&shard->gate.lock);
	first = shard->gate.watch->first;
	pthread_mutex_unlock(&shard->gate.lock);
	return first;
}

static int note_ctime(struct fs *fs, struct watched *watched)
{
	int r = read_ctime(fs, watched->inode, &watched->ctime);

	/* Deleted, or the shard's directory was replaced. */
	watched->vanished = r == -ESTALE || r == -ENOENT;
	return watched->vanished ? 0 : r;
}

/* The waiting kind: the other passes by pages that are being written already. */
static int protect(struct fs *fs, struct watched *watched)
{
	CLEANUP_CLOSE int fd = handle_reopen(fs, watched->inode,
					     O_RDONLY | O_NOATIME | O_NONBLOCK);

	if (fd < 0)
		return fd == -ESTALE || fd == -ENOENT ? 0 : fd;
	if (sync_file_range(fd, 0, 0,
			    SYNC_FILE_RANGE_WAIT_BEFORE |
				    SYNC_FILE_RANGE_WRITE |
				    SYNC_FILE_RANGE_WAIT_AFTER) < 0)
		return -errno;
	return note_ctime(fs, watched);
}

/*
 * An asynchronous direct write lets go of the inode's lock once it has been
 * submitted, which is when it sets ctime: whoever reads the file now may read
 * what was there before it, under its ctime, and would never look again. Of
 * these calls fallocate() waits for it on ext4 and xfs, and fdatasync() on
 * btrfs. The former sets ctime, so it is spared files that nobody has written
 * for longer than a write can take.
 */
static int finish_direct_writes(struct fs *fs, struct watched *watched,
				const struct timespec *now)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct timespec times[2];
	struct statfs figures;
	struct stat attr;
	off_t data;

	if (atomic_load(&watched->inode->direct_writers) == 0 ||
	    watched->ctime.tv_sec + DIRECT_WRITE_SECONDS < now->tv_sec)
		return 0;
	fd = handle_reopen(fs, watched->inode, O_RDWR | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &attr) < 0 || fstatfs(fd, &figures) < 0)
		return fd < 0 ? fd : -errno;
	if (figures.f_type == BTRFS_SUPER_MAGIC) {
		if (fdatasync(fd) < 0)
			return -errno;
		return note_ctime(fs, watched);
	}
	/* Where there are blocks, so that none is allocated. */
	data = lseek(fd, 0, SEEK_DATA);
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, data < 0 ? 0 : data, 1) < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	times[0].tv_nsec = UTIME_OMIT;
	times[0].tv_sec = 0;
	times[1] = attr.st_mtim;
	if (futimens(fd, times) < 0)
		return -errno;
	return note_ctime(fs, watched);
}

/* Nobody has it open: it can only be mapped if that shows. */
static void unnote_if_closed(struct fs_shard *shard, struct inode *inode)
{
	bool closed;

	/* Who opens it counts itself first and notes it then. */
	pthread_mutex_lock(&shard->gate.lock);
	pthread_mutex_lock(&inode->open_lock);
	closed = inode->passthrough_opens == 0 && inode->cached_opens == 0;
	pthread_mutex_unlock(&inode->open_lock);
	if (closed)
		unnote_locked(&shard->gate, inode);
	pthread_mutex_unlock(&shard->gate.lock);
}

static int protect_mapped(struct fs *fs, struct fs_shard *shard,
			  struct watched *first)
{
	CLEANUP_FREE uint64_t *inos = NULL;
	struct watched *watched;
	size_t count = 0;
	bool known;
	int r = 0;

	known = mapping_scan(&inos, &count) == 0;
	for (watched = first; watched && r == 0; watched = watched->next) {
		if (watched->vanished)
			continue;
		if (!known || mapping_has(inos, count, watched->inode->key.ino))
			r = protect(fs, watched);
		else
			unnote_if_closed(shard, watched->inode);
	}
	return r;
}

/* Does a change always get a ctime that nobody has seen yet? */
static bool has_fine_times(struct fs *fs)
{
	unsigned major = 0, minor = 0;
	struct utsname kernel;
	struct statfs figures;

	if (uname(&kernel) < 0 || fstatfs(fs->source_fd, &figures) < 0 ||
	    sscanf(kernel.release, "%u.%u", &major, &minor) != 2 || major < 6 ||
	    (major == 6 && minor < 13))
		return false;
	return figures.f_type == EXT4_SUPER_MAGIC ||
	       figures.f_type == XFS_SUPER_MAGIC ||
	       figures.f_type == BTRFS_SUPER_MAGIC ||
	       figures.f_type == TMPFS_MAGIC;
}

static bool is_young(const struct watched *first, const struct timespec *now)
{
	for (; first; first = first->next)
		if (!first->vanished &&
		    (first->ctime.tv_sec > now->tv_sec ||
		     (first->ctime.tv_sec == now->tv_sec &&
		      first->ctime.tv_nsec >= now->tv_nsec)))
			return true;
	return false;
}

static void wait_for_tick(struct timespec *now)
{
	struct timespec before = *now, pause = { .tv_nsec = 500000 };

	while (same(&before, now)) {
		nanosleep(&pause, NULL);
		clock_gettime(CLOCK_REALTIME_COARSE, now);
	}
}

static int note_all(struct fs *fs, struct fs_shard *shard,
		    struct watched *first)
{
	struct watched *watched;
	struct timespec now;
	int r = 0;

	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	/* Before the processes are looked at: see mapping_scan(). */
	for (watched = first; watched && r == 0; watched = watched->next) {
		r = note_ctime(fs, watched);
		if (r == 0 && !watched->vanished)
			r = finish_direct_writes(fs, watched, &now);
	}
	return r < 0 ? r : protect_mapped(fs, shard, first);
}

int watch_begin(struct fs *fs, struct fs_shard *shard, struct hib_error *error)
{
	struct watch *watch;
	struct watched *first;
	struct timespec now;
	int r;

	/* Without passthrough, mappings are of the kernel's own cache. */
	if (!fs->passthrough)
		return 0;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return hib_fail_errno(error, ENOMEM, "freeze");
	r = collect(fs, shard, watch);
	first = first_of(shard);
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	if (r == 0)
		r = note_all(fs, shard, first);
	if (r == 0 && is_young(first, &now) && !has_fine_times(fs)) {
		wait_for_tick(&now);
		r = note_all(fs, shard, first);
	}
	if (r < 0)
		return hib_fail_errno(error, -r,
				      "note the files of %s/%s that may be "
				      "mapped",
				      fs_shard_bucket(shard),
				      fs_shard_name(shard));
	return 0;
}

/*
 * ---- The rest ----
 */

void watch_name(struct fs *fs, struct inode *inode, char *ret, size_t size)
{
	char link[PROC_PATH_BYTES], path[PATH_MAX + 1];
	size_t prefix = strlen(fs->source);
	int fd = inode_fd_get(&fs->inodes, inode);
	ssize_t n = -1;

	if (fd >= 0) {
		proc_path(fd, link);
		n = readlink(link, path, sizeof(path) - 1);
		inode_fd_put(&fs->inodes, inode);
	}
	path[n < 0 ? 0 : n] = '\0';
	if (strncmp(path, fs->source, prefix) == 0 && path[prefix] == '/')
		snprintf(ret, size, "%s", path + prefix + 1);
	else
		snprintf(ret, size, "%s/%s, inode %llu",
			 fs_shard_bucket(inode->key.shard),
			 fs_shard_name(inode->key.shard),
			 (unsigned long long)inode->key.ino);
}

int watch_check(struct fs *fs, struct fs_shard *shard, struct hib_error *error)
{
	struct watched *watched;
	struct timespec now;
	char name[512];
	bool incomplete;

	pthread_mutex_lock(&shard->gate.lock);
	watched = shard->gate.watch ? shard->gate.watch->first : NULL;
	incomplete = shard->gate.watch && shard->gate.watch->incomplete;
	pthread_mutex_unlock(&shard->gate.lock);
	if (incomplete)
		return hib_fail_errno(error, ENOMEM, "watch the files of %s/%s",
				      fs_shard_bucket(shard),
				      fs_shard_name(shard));
	for (; watched; watched = watched->next) {
		if (watched->vanished ||
		    read_ctime(fs, watched->inode, &now) < 0 ||
		    same(&now, &watched->ctime))
			continue;
		watch_name(fs, watched->inode, name, sizeof(name));
		return hib_fail(error, ESTALE,
				"\"%s\" was changed while its shard was "
				"locked: a program stores into it through a "
				"shared mapping (mmap), which no lock stops; "
				"stop that program or make it pause, and try "
				"again",
				name);
	}
	return 0;
}

void watch_end(struct fs *fs, struct fs_shard *shard)
{
	struct watched *watched;
	struct watch *watch;

	pthread_mutex_lock(&shard->gate.lock);
	watch = shard->gate.watch;
	shard->gate.watch = NULL;
	pthread_mutex_unlock(&shard->gate.lock);
	if (!watch)
		return;
	while ((watched = watch->first)) {
		watch->first = watched->next;
		watched_free(fs, watched);
	}
	free(watch);
}
