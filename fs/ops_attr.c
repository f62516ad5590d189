/* Attributes, file system figures, and the ioctls that are attributes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/ops.h"

#ifndef FS_IOC_FSGETXATTR
struct fsxattr {
	uint32_t fsx_xflags, fsx_extsize, fsx_nextents, fsx_projid,
		fsx_cowextsize;
	unsigned char fsx_pad[8];
};
#define FS_IOC_FSGETXATTR _IOR('X', 31, struct fsxattr)
#define FS_IOC_FSSETXATTR _IOW('X', 32, struct fsxattr)
#endif

/* A writer's stores through a mapping change times the kernel here never sees. */
#define WRITER_CACHE_SECONDS 1.0

static double attr_seconds(struct inode *inode)
{
	bool writers;

	if (!S_ISREG(inode->type))
		return CACHE_SECONDS;
	pthread_mutex_lock(&inode->open_lock);
	writers = inode->passthrough_opens > 0;
	pthread_mutex_unlock(&inode->open_lock);
	return writers ? WRITER_CACHE_SECONDS : CACHE_SECONDS;
}

static void reply_attr(fuse_req_t req, struct inode *inode, int fd)
{
	struct stat attr;

	if (fstatat(fd, "", &attr, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0) {
		ops_error(req, -errno);
		return;
	}
	ops_present(inode, &attr);
	fuse_reply_attr(req, &attr, attr_seconds(inode));
}

/*
 * The node is enough, with or without fi: while a file is open its inode lives
 * in the source and is found by its handle, also when it has no name any more.
 */
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	CLEANUP_NODE_FD struct node_fd node = ops_node_fd(req, ino);

	(void)fi;
	if (node.fd < 0)
		ops_error(req, node.fd);
	else
		reply_attr(req, node.inode, node.fd);
}

static int set_mode(struct fs *fs, int fd, mode_t mode)
{
	char path[PROC_PATH_BYTES];
	bool keep = mode & S_ISGID;
	int r;

	proc_path(fd, path);
	if (keep)
		caller_raise_fsetid(fs);
	r = chmod(path, mode & 07777) < 0 ? -errno : 0;
	if (keep)
		caller_drop_fsetid(fs);
	return r;
}

static int set_owner(int fd, const struct stat *attr, int to_set)
{
	uid_t uid = to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
	gid_t gid = to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;

	if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

/*
 * The kernel says KILL_SUID when the caller has no right to keep set-id bits
 * over a truncation; if it cannot say (before KILLPRIV_V2) they go.
 */
static int set_size(struct fs *fs, int fd, const struct stat *attr, int to_set)
{
	bool keep = fs->killpriv_v2 && !(to_set & FUSE_SET_ATTR_KILL_SUID);
	char path[PROC_PATH_BYTES];
	int r;

	proc_path(fd, path);
	if (keep)
		caller_raise_fsetid(fs);
	r = truncate(path, attr->st_size) < 0 ? -errno : 0;
	if (keep)
		caller_drop_fsetid(fs);
	return r;
}

static struct timespec time_to_set(const struct timespec *time, int to_set,
				   int flag, int flag_now)
{
	struct timespec result = { .tv_nsec = UTIME_OMIT };

	if (to_set & flag_now)
		result.tv_nsec = UTIME_NOW;
	else if (to_set & flag)
		result = *time;
	return result;
}

static int set_times(int fd, const struct stat *attr, int to_set)
{
	struct timespec times[2];
	char path[PROC_PATH_BYTES];

	times[0] = time_to_set(&attr->st_atim, to_set, FUSE_SET_ATTR_ATIME,
			       FUSE_SET_ATTR_ATIME_NOW);
	times[1] = time_to_set(&attr->st_mtim, to_set, FUSE_SET_ATTR_MTIME,
			       FUSE_SET_ATTR_MTIME_NOW);
	if (utimensat(fd, "", times, AT_EMPTY_PATH) == 0)
		return 0;
	if (errno != EINVAL)
		return -errno;
	/* Before 5.8. */
	proc_path(fd, path);
	return utimensat(AT_FDCWD, path, times, 0) < 0 ? -errno : 0;
}

static int set_attributes(struct node_fd *node, const struct stat *attr,
			  int to_set)
{
	int r = 0;

	if (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		r = set_owner(node->fd, attr, to_set);
	if (r == 0 && to_set & FUSE_SET_ATTR_MODE)
		r = set_mode(node->fs, node->fd, attr->st_mode);
	if (r == 0 && to_set & FUSE_SET_ATTR_SIZE)
		r = set_size(node->fs, node->fd, attr, to_set);
	if (r == 0 &&
	    to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME |
		      FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW))
		r = set_times(node->fd, attr, to_set);
	return r;
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		struct fuse_file_info *fi)
{
	CLEANUP_NODE_FD struct node_fd node = ops_node_fd(req, ino);
	int r = node.fd;

	(void)fi;
	if (r >= 0)
		r = set_attributes(&node, attr, to_set);
	if (r < 0)
		ops_error(req, r);
	else
		reply_attr(req, node.inode, node.fd);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	CLEANUP_NODE_FD struct node_fd node = ops_node_fd(req, ino);
	struct statvfs figures;

	if (node.fd < 0)
		ops_error(req, node.fd);
	else if (fstatvfs(node.fd, &figures) < 0)
		ops_error(req, -errno);
	else
		fuse_reply_statfs(req, &figures);
}

/* How many bytes an ioctl takes in and gives out; -ENOTTY: not passed on. */
static int ioctl_sizes(unsigned command, size_t *ret_in, size_t *ret_out)
{
	size_t in = 0, out = 0;

	switch (command) {
	case FS_IOC_GETFLAGS:
	case FS_IOC_GETVERSION:
		out = sizeof(int);
		break;
	case FS_IOC_SETFLAGS:
		in = sizeof(int);
		break;
	case FS_IOC_FSGETXATTR:
		out = sizeof(struct fsxattr);
		break;
	case FS_IOC_FSSETXATTR:
		in = sizeof(struct fsxattr);
		break;
	default:
		return -ENOTTY;
	}
	*ret_in = in;
	*ret_out = out;
	return 0;
}

void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *arg,
	      struct fuse_file_info *fi, unsigned flags, const void *in,
	      size_t in_bytes, size_t out_bytes)
{
	struct fs *fs = ops_fs(req);
	size_t in_needed, out_needed;
	union {
		struct fsxattr extended;
		long value;
	} data;
	CLEANUP_CLOSE int fd = -EBADF;
	int r;

	(void)arg;
	(void)fi;
	(void)flags;
	r = ioctl_sizes(command, &in_needed, &out_needed);
	if (r == 0 && (in_bytes < in_needed || out_bytes < out_needed))
		r = -EINVAL;
	if (r == 0) {
		fd = handle_reopen(fs, ops_inode(req, ino),
				   O_RDONLY | O_NONBLOCK);
		r = fd < 0 ? fd : 0;
	}
	if (r < 0) {
		ops_error(req, r);
		return;
	}
	memset(&data, 0, sizeof(data));
	if (in_needed)
		memcpy(&data, in, in_needed);
	r = ioctl(fd, command, &data);
	if (r < 0)
		ops_error(req, -errno);
	else
		fuse_reply_ioctl(req, r, &data, out_needed);
}
