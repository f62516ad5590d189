#include "fs/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "fs/fs_internal.h"
#include "fs/invalidate.h"
#include "fs/mount.h"
#include "fs/ops.h"

/* Beyond this many open files there is something else wrong. */
#define DESCRIPTORS_WANTED (1U << 20)

/*
 * Open files and cached nodes cost descriptors. Root may go beyond the hard
 * limit as far as the kernel's own (fs.nr_open); others get what they may have.
 */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 ||
	    limit.rlim_cur >= DESCRIPTORS_WANTED)
		return;
	if (limit.rlim_max < DESCRIPTORS_WANTED) {
		struct rlimit more = { DESCRIPTORS_WANTED, DESCRIPTORS_WANTED };

		if (setrlimit(RLIMIT_NOFILE, &more) == 0)
			return;
	}
	limit.rlim_cur = limit.rlim_max < DESCRIPTORS_WANTED
				 ? limit.rlim_max
				 : DESCRIPTORS_WANTED;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int init_waiting(struct fs *fs, struct hib_error *error)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&fs->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&fs->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	fs->exit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fs->exit_fd < 0)
		return hib_fail_errno(error, errno, "eventfd");
	return 0;
}

static int copy_config(struct fs *fs, const struct fs_config *config,
		       struct hib_error *error)
{
	fs->source = strdup(config->source);
	fs->mountpoint = strdup(config->mountpoint);
	fs->kernel_options =
		strdup(config->kernel_options ? config->kernel_options : "");
	if (!fs->source || !fs->mountpoint || !fs->kernel_options)
		return hib_fail_errno(error, ENOMEM, "mount");
	if (config->shard_depth < 1 || config->shard_depth > 2)
		return hib_fail(error, EINVAL, "shard_depth is 1 or 2, not %u",
				config->shard_depth);
	fs->shard_depth = config->shard_depth;
	fs->no_passthrough = config->no_passthrough;
	fs->read_only = config->read_only;
	fs->log = config->log;
	fs->callbacks = config->callbacks;
	return 0;
}

static int fill(struct fs *fs, const struct fs_config *config,
		struct hib_error *error)
{
	int r;

	r = init_waiting(fs, error);
	if (r == 0)
		r = copy_config(fs, config, error);
	if (r == 0)
		r = caller_rights_read(&fs->rights, error);
	if (r < 0)
		return r;
	raise_descriptor_limit();
	/* Before anything is mounted: the mount point may be the source. */
	fs->source_fd = open(fs->source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fs->source_fd < 0)
		return hib_fail_errno(error, errno, "source %s", fs->source);
	r = inode_table_init(&fs->inodes, fs->source_fd, error);
	if (r == 0)
		r = shard_table_init(&fs->shards);
	if (r == 0)
		r = gate_fs_init(fs);
	return r;
}

int fs_new(const struct fs_config *config, struct fs **ret,
	   struct hib_error *error)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	int r;

	if (!fs)
		return hib_fail_errno(error, ENOMEM, "mount");
	fs->source_fd = fs->exit_fd = -EBADF;
	open_items_init(&fs->open_items);
	r = fill(fs, config, error);
	if (r < 0) {
		fs_free(fs);
		return r;
	}
	*ret = fs;
	return 0;
}

struct fs *fs_free(struct fs *fs)
{
	if (!fs)
		return NULL;
	if (fs->session)
		fs_unmount(fs);
	gate_fs_done(fs);
	if (fs->session)
		fuse_session_destroy(fs->session);
	open_items_done(fs, &fs->open_items);
	/* Inodes leave the lists of their shards. */
	inode_table_done(&fs->inodes);
	shard_table_done(&fs->shards);
	close_fd(fs->source_fd);
	close_fd(fs->exit_fd);
	pthread_cond_destroy(&fs->changed);
	pthread_mutex_destroy(&fs->lock);
	free(fs->source);
	free(fs->mountpoint);
	free(fs->kernel_options);
	free(fs);
	return NULL;
}

int fs_source_fd(const struct fs *fs)
{
	return fs->source_fd;
}

struct inode *fs_inode(struct fs *fs, uint64_t nodeid)
{
	if (nodeid == FUSE_ROOT_ID)
		return fs->inodes.root;
	return (struct inode *)(uintptr_t)nodeid;
}

int fs_mount(struct fs *fs, struct hib_error *error)
{
	int r;

	r = mount_start(fs, error);
	if (r < 0)
		return r;
	r = invalidator_new(fs, &fs->invalidator, error);
	if (r < 0)
		mount_stop(fs);
	return r;
}

int fs_wait_ready(struct fs *fs, uint64_t timeout_ms, struct hib_error *error)
{
	struct timespec deadline;
	bool ready;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += (time_t)(timeout_ms / 1000);
	deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (deadline.tv_nsec >= 1000000000) {
		deadline.tv_nsec -= 1000000000;
		deadline.tv_sec++;
	}
	pthread_mutex_lock(&fs->lock);
	while (!fs->ready && r == 0)
		r = pthread_cond_timedwait(&fs->changed, &fs->lock, &deadline);
	ready = fs->ready;
	pthread_mutex_unlock(&fs->lock);
	if (!ready)
		return hib_fail(error, ETIMEDOUT,
				"the kernel has not opened the mount on %s",
				fs->mountpoint);
	return 0;
}

static void thaw(void *arg, struct fs_shard *shard)
{
	fs_shard_thaw(arg, shard);
}

void fs_unmount(struct fs *fs)
{
	if (!fs->session || fs->unmounted)
		return;
	fs->unmounted = true;
	shard_each(fs, thaw, fs);
	mount_stop(fs);
	fs->invalidator = invalidator_free(fs->invalidator);
}

void fs_get_status(struct fs *fs, struct fs_status *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->passthrough = fs->passthrough;
	snprintf(ret->passthrough_reason, sizeof(ret->passthrough_reason), "%s",
		 fs->passthrough_reason);
	snprintf(ret->libfuse_version, sizeof(ret->libfuse_version), "%s",
		 fuse_pkgversion());
	ret->kernel_protocol_major = fs->protocol_major;
	ret->kernel_protocol_minor = fs->protocol_minor;
	ret->inodes = atomic_load(&fs->inodes.count);
	ret->open_descriptors = atomic_load(&fs->inodes.open_fds);
	ret->open_handles = atomic_load(&fs->open_handles);
	ret->parked_requests = gate_parked_requests(fs);
	ret->requests = atomic_load(&fs->requests);
}

struct fuse_lowlevel_ops ops_table(void)
{
	return (struct fuse_lowlevel_ops){
		.init = op_init,
		.lookup = op_lookup,
		.forget = op_forget,
		.forget_multi = op_forget_multi,
		.getattr = op_getattr,
		.setattr = op_setattr,
		.readlink = op_readlink,
		.mknod = op_mknod,
		.mkdir = op_mkdir,
		.unlink = op_unlink,
		.rmdir = op_rmdir,
		.symlink = op_symlink,
		.rename = op_rename,
		.link = op_link,
		.open = op_open,
		.read = op_read,
		.write_buf = op_write_buf,
		.flush = op_flush,
		.release = op_release,
		.fsync = op_fsync,
		.opendir = op_opendir,
		.readdir = op_readdir,
		.readdirplus = op_readdirplus,
		.releasedir = op_releasedir,
		.fsyncdir = op_fsyncdir,
		.statfs = op_statfs,
		.setxattr = op_setxattr,
		.getxattr = op_getxattr,
		.listxattr = op_listxattr,
		.removexattr = op_removexattr,
		.create = op_create,
		.ioctl = op_ioctl,
		.fallocate = op_fallocate,
		.copy_file_range = op_copy_file_range,
		.lseek = op_lseek,
#ifdef HIBFS_HAVE_PASSTHROUGH
		.tmpfile = op_tmpfile,
#endif
	};
}
