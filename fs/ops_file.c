/*
 * Open files. In passthrough the kernel does reads and writes itself, and
 * op_read() and op_write_buf() serve the other opens (handle.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/ops.h"

/*
 * The gate stops opens below a stub; should one come through all the same, it
 * is told to look the path up again rather than shown zeros.
 */
static int check_resident(const struct inode *inode)
{
	const struct fs_shard *shard = inode->key.shard;

	return shard && fs_shard_place(shard) == FS_PLACE_STUB ? -ESTALE : 0;
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	struct inode *inode = ops_inode(req, ino);
	int r;

	r = inode_is_stale(inode) ? -ESTALE : check_resident(inode);
	if (r == 0)
		r = handle_open(fs, inode, -1, fi);
	if (r < 0)
		ops_error(req, r);
	else if (fuse_reply_open(req, fi) < 0)
		handle_close(fs, handle_of(fi));
}

static int create_file(fuse_req_t req, int dirfd, const char *name, mode_t mode,
		       int flags)
{
	CLEANUP_CALLER struct caller caller = caller_become(req, mode);
	int fd;

	/* O_NONBLOCK: should the name be a fifo by now. */
	flags &= ~(O_APPEND | O_DIRECT | O_TRUNC | O_NOCTTY);
	fd = openat(dirfd, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
		    mode);
	return fd < 0 ? -errno : fd;
}

/* Looks up and opens what was made as fd, which is taken. */
static void reply_created(fuse_req_t req, struct node_fd *dir, int fd,
			  struct fuse_file_info *fi)
{
	struct fs *fs = dir->fs;
	struct fuse_entry_param entry;
	struct inode *inode;
	int r;

	r = ops_lookup_fd(fs, dir->inode, fd, &entry);
	if (r < 0) {
		close_fd(fd);
		ops_error(req, r);
		return;
	}
	inode = fs_inode(fs, entry.ino);
	if (S_ISREG(inode->type)) {
		r = handle_open(fs, inode, fd, fi);
	} else {
		close_fd(fd);
		r = -EEXIST;
	}
	if (r < 0) {
		ops_forget_entry(fs, &entry);
		ops_error(req, r);
	} else if (fuse_reply_create(req, &entry, fi) < 0) {
		handle_close(fs, handle_of(fi));
		ops_forget_entry(fs, &entry);
	}
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi)
{
	CLEANUP_NODE_FD struct node_fd dir = ops_node_fd(req, parent);
	int fd = dir.fd;

	if (fd >= 0)
		fd = ops_check_name_is_free(dir.fs, dir.inode, name);
	if (fd >= 0)
		fd = create_file(req, dir.fd, name, mode, fi->flags | O_CREAT);
	if (fd < 0)
		ops_error(req, fd);
	else
		reply_created(req, &dir, fd, fi);
}

void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode,
		struct fuse_file_info *fi)
{
	CLEANUP_NODE_FD struct node_fd dir = ops_node_fd(req, parent);
	int fd = dir.fd;

	if (fd >= 0)
		fd = create_file(req, dir.fd, ".", mode,
				 (fi->flags & ~O_CREAT) | O_TMPFILE);
	if (fd < 0)
		ops_error(req, fd);
	else
		reply_created(req, &dir, fd, fi);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	handle_close(ops_fs(req), handle_of(fi));
	ops_error(req, 0);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
	     struct fuse_file_info *fi)
{
	int fd = handle_fd(ops_fs(req), handle_of(fi));
	CLEANUP_FREE char *data = NULL;
	ssize_t n;

	(void)ino;
	if (fd < 0) {
		ops_error(req, fd);
		return;
	}
	data = malloc(size ? size : 1);
	if (!data) {
		ops_error(req, -ENOMEM);
		return;
	}
	n = pread(fd, data, size, offset);
	if (n < 0)
		ops_error(req, -errno);
	else
		fuse_reply_buf(req, data, n);
}

void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data,
		  off_t offset, struct fuse_file_info *fi)
{
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(fuse_buf_size(data));
	int fd = handle_fd(ops_fs(req), handle_of(fi));
	ssize_t n;

	(void)ino;
	if (fd < 0) {
		ops_error(req, fd);
		return;
	}
	out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	out.buf[0].fd = fd;
	out.buf[0].pos = offset;
	n = fuse_buf_copy(&out, data, 0);
	if (n < 0)
		ops_error(req, n);
	else
		fuse_reply_write(req, n);
}

/* Only asked for by kernels that know no FOPEN_NOFLUSH. */
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	ops_error(req, 0);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only,
	      struct fuse_file_info *fi)
{
	int fd = handle_fd(ops_fs(req), handle_of(fi));
	int r = fd;

	(void)ino;
	if (fd >= 0)
		r = (data_only ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
	ops_error(req, r);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset,
		  off_t length, struct fuse_file_info *fi)
{
	int fd = handle_fd(ops_fs(req), handle_of(fi));
	int r = fd;

	(void)ino;
	if (fd >= 0)
		r = fallocate(fd, mode, offset, length) < 0 ? -errno : 0;
	ops_error(req, r);
}

/* Holes of a stub say nothing: without resident bytes all is data. */
static off_t seek_stub(struct inode *inode, int fd, off_t offset, int whence)
{
	struct stat attr;

	(void)inode;
	if (fstat(fd, &attr) < 0)
		return -errno;
	if (offset < 0 || offset >= attr.st_size)
		return -ENXIO;
	return whence == SEEK_DATA ? offset : attr.st_size;
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
	      struct fuse_file_info *fi)
{
	struct inode *inode = ops_inode(req, ino);
	int fd = handle_fd(ops_fs(req), handle_of(fi));
	off_t r = fd;

	if (fd >= 0 && check_resident(inode) < 0)
		r = seek_stub(inode, fd, offset, whence);
	else if (fd >= 0 && (r = lseek(fd, offset, whence)) < 0)
		r = -errno;
	if (r < 0)
		ops_error(req, r);
	else
		fuse_reply_lseek(req, r);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
			struct fuse_file_info *fi_in, fuse_ino_t ino_out,
			off_t offset_out, struct fuse_file_info *fi_out,
			size_t length, int flags)
{
	struct fs *fs = ops_fs(req);
	int in = handle_fd(fs, handle_of(fi_in));
	int out = handle_fd(fs, handle_of(fi_out));
	ssize_t n;

	(void)ino_in;
	(void)ino_out;
	if (in < 0 || out < 0) {
		ops_error(req, in < 0 ? in : out);
		return;
	}
	n = copy_file_range(in, &offset_in, out, &offset_out, length, flags);
	if (n < 0)
		ops_error(req, -errno);
	else
		fuse_reply_write(req, n);
}
