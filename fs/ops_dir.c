/*
 * Reading directories. Mostly the source's own entries in the source's own
 * order, with its offsets. Where stubs are shown among live shards there is no
 * common order, so such a directory is listed as a whole when reading starts,
 * and an offset is a place in that list.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/file.h"
#include "fs/ops.h"

#define READ_BYTES (32 * 1024)
#define LISTING_LIMIT (64U << 20)

/* As getdents64(2) gives them. */
struct entry {
	uint64_t ino;
	int64_t next_offset;
	uint16_t bytes;
	uint8_t type;
	char name[];
};

struct dir_handle {
	struct open_item item;
	int fd;
	bool holds_shards;
	pthread_mutex_t lock; /* guards all below */
	/* Read ahead of the kernel: entries from position to filled. */
	size_t position, filled;
	off_t offset; /* of the entry at `position` */
	struct buffer listing; /* of a directory that holds shards */
	_Alignas(8) char entries[READ_BYTES];
};

static struct dir_handle *dir_of(const struct fuse_file_info *fi)
{
	return (struct dir_handle *)(uintptr_t)fi->fh;
}

static void dir_handle_free(struct dir_handle *dir)
{
	close_fd(dir->fd);
	buffer_done(&dir->listing);
	pthread_mutex_destroy(&dir->lock);
	free(dir);
}

static void dir_handle_abandon(struct fs *fs, struct open_item *item)
{
	(void)fs;
	dir_handle_free(container_of(item, struct dir_handle, item));
}

static void dir_handle_close(struct fs *fs, struct dir_handle *dir)
{
	open_item_remove(&fs->open_items, &dir->item);
	dir_handle_free(dir);
}

static int dir_handle_new(struct fs *fs, struct inode *inode,
			  struct dir_handle **ret)
{
	struct dir_handle *dir;
	int fd = handle_reopen(fs, inode, O_RDONLY | O_DIRECTORY | O_NOATIME);

	/* O_NOATIME is for the owner and the privileged. */
	if (fd == -EPERM)
		fd = handle_reopen(fs, inode, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd;
	dir = malloc(sizeof(*dir));
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	memset(dir, 0, offsetof(struct dir_handle, entries));
	dir->fd = fd;
	dir->holds_shards = ops_holds_shards(fs, inode);
	dir->listing = BUFFER_INIT(LISTING_LIMIT);
	pthread_mutex_init(&dir->lock, NULL);
	dir->item.abandon = dir_handle_abandon;
	open_item_add(&fs->open_items, &dir->item);
	*ret = dir;
	return 0;
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	struct dir_handle *dir;
	int r;

	r = dir_handle_new(fs, ops_inode(req, ino), &dir);
	if (r < 0) {
		ops_error(req, r);
		return;
	}
	fi->fh = (uintptr_t)dir;
	/* Control/ changes what holds shards; all else changes through here. */
	if (!dir->holds_shards) {
		fi->cache_readdir = 1;
		fi->keep_cache = 1;
	}
	if (fuse_reply_open(req, fi) < 0)
		dir_handle_close(fs, dir);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	dir_handle_close(ops_fs(req), dir_of(fi));
	ops_error(req, 0);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only,
		 struct fuse_file_info *fi)
{
	int fd = dir_of(fi)->fd;

	(void)ino;
	ops_error(req,
		  (data_only ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0);
}

/*
 * ---- Where entries come from ----
 */

static int fill_locked(struct dir_handle *dir)
{
	long n = syscall(SYS_getdents64, dir->fd, dir->entries,
			 sizeof(dir->entries));

	if (n < 0)
		return -errno;
	dir->position = 0;
	dir->filled = n;
	return 0;
}

static int seek_locked(struct dir_handle *dir, off_t offset)
{
	if (offset == dir->offset && offset != 0)
		return 0;
	if (lseek(dir->fd, offset, SEEK_SET) < 0)
		return -errno;
	dir->position = dir->filled = 0;
	dir->offset = offset;
	return 0;
}

/* The entry at the place reached; NULL at the end. */
static int peek_locked(struct dir_handle *dir, const struct entry **ret)
{
	int r = 0;

	if (dir->position == dir->filled)
		r = fill_locked(dir);
	if (r < 0)
		return r;
	*ret = dir->position == dir->filled
		       ? NULL
		       : (const struct entry *)(dir->entries + dir->position);
	return 0;
}

static void advance_locked(struct dir_handle *dir, const struct entry *entry)
{
	dir->position += entry->bytes;
	dir->offset = entry->next_offset;
}

/* Appends what names of stubs stand for: '\0'-separated names. */
static int add_name(void *arg, const char *name, unsigned char d_type)
{
	(void)d_type;
	return buffer_append(arg, name, strlen(name) + 1);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorts the '\0'-separated names and drops what stands there twice. */
static int sort_names(struct buffer *names)
{
	CLEANUP(buffer_done) struct buffer sorted = BUFFER_INIT(names->limit);
	CLEANUP_FREE const char **all = NULL;
	size_t count = 0, i, at;
	int r = 0;

	for (at = 0; at < names->size; at++)
		count += names->data[at] == '\0';
	all = calloc(count ? count : 1, sizeof(*all));
	if (!all)
		return -ENOMEM;
	for (i = 0, at = 0; i < count; i++) {
		all[i] = (const char *)names->data + at;
		at += strlen(all[i]) + 1;
	}
	qsort(all, count, sizeof(*all), compare_names);
	for (i = 0; i < count && r == 0; i++)
		if (i == 0 || strcmp(all[i], all[i - 1]) != 0)
			r = buffer_append(&sorted, all[i], strlen(all[i]) + 1);
	if (r < 0)
		return r;
	buffer_done(names);
	*names = sorted;
	sorted = BUFFER_INIT(0);
	return 0;
}

/* "." and "..", then live names and stubs, each once. */
static int list_shards_locked(struct fs *fs, struct dir_handle *dir,
			      struct inode *inode)
{
	struct buffer *names = &dir->listing;
	int r;

	buffer_clear(names);
	r = dir_each(dir->fd, add_name, names, NULL);
	if (r < 0)
		return r;
	r = shard_stub_names(
		fs,
		inode->kind == INODE_ROOT ? NULL : ops_bucket_name(inode, ""),
		names);
	if (r == 0)
		r = sort_names(names);
	return r;
}

/*
 * ---- Answers ----
 */

struct answer {
	fuse_req_t req;
	struct fs *fs;
	struct inode *inode; /* of the directory */
	int inode_fd;
	bool plus;
	char *data;
	size_t size, used;
};

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/*
 * With readdirplus each entry is a look-up. One that fails still has its name
 * told, without a node; one that has vanished (-ENOENT) is left out.
 */
static int look_up(struct answer *answer, const char *name, uint64_t ino,
		   unsigned char type, struct fuse_entry_param *ret)
{
	int r = -EAGAIN;

	if (answer->plus && !is_dot(name))
		r = ops_lookup(answer->fs, answer->inode, answer->inode_fd,
			       name, ret);
	if (r < 0) {
		memset(ret, 0, sizeof(*ret));
		ret->attr.st_ino = ino;
		ret->attr.st_mode = (mode_t)type << 12;
	}
	return r == -ENOENT ? r : 0;
}

/* False: no room, and nothing was done. */
static bool add_entry(struct answer *answer, const char *name, uint64_t ino,
		      unsigned char type, off_t next_offset)
{
	size_t room = answer->size - answer->used, need;
	struct fuse_entry_param entry;
	char *at = answer->data + answer->used;

	if (ops_is_hidden(answer->inode, name))
		return true;
	if (look_up(answer, name, ino, type, &entry) < 0)
		return true;
	if (answer->plus)
		need = fuse_add_direntry_plus(answer->req, at, room, name,
					      &entry, next_offset);
	else
		need = fuse_add_direntry(answer->req, at, room, name,
					 &entry.attr, next_offset);
	if (need > room) {
		if (entry.ino)
			ops_forget_entry(answer->fs, &entry);
		return false;
	}
	answer->used += need;
	return true;
}

static int add_from_source(struct answer *answer, struct dir_handle *dir,
			   off_t offset)
{
	const struct entry *entry;
	int r;

	r = seek_locked(dir, offset);
	while (r == 0) {
		r = peek_locked(dir, &entry);
		if (r < 0 || !entry)
			break;
		if (!add_entry(answer, entry->name, entry->ino, entry->type,
			       entry->next_offset))
			break;
		advance_locked(dir, entry);
	}
	/* What is there already goes out; the error comes again. */
	return answer->used ? 0 : r;
}

static int add_from_listing(struct answer *answer, struct dir_handle *dir,
			    off_t offset)
{
	const char *name;
	struct stat attr;
	size_t at = offset > 0 ? offset : 0;
	int r;

	if (at == 0) {
		r = list_shards_locked(answer->fs, dir, answer->inode);
		if (r < 0)
			return r;
	}
	while (at < dir->listing.size) {
		name = (const char *)dir->listing.data + at;
		at += strlen(name) + 1;
		/* A number is needed, and only a look tells the type. */
		if (fstatat(dir->fd, name, &attr, AT_SYMLINK_NOFOLLOW) < 0) {
			attr.st_mode = S_IFDIR;
			attr.st_ino = (ino_t)-1;
		}
		if (!add_entry(answer, name, attr.st_ino,
			       (attr.st_mode & S_IFMT) >> 12, at))
			break;
	}
	return 0;
}

static void read_directory(fuse_req_t req, fuse_ino_t ino, size_t size,
			   off_t offset, struct fuse_file_info *fi, bool plus)
{
	CLEANUP_NODE_FD struct node_fd node = ops_node_fd(req, ino);
	struct dir_handle *dir = dir_of(fi);
	struct answer answer = {
		.req = req,
		.fs = node.fs,
		.inode = node.inode,
		.inode_fd = dir->fd,
		.plus = plus,
		.size = size,
	};
	int r;

	answer.data = malloc(size);
	if (!answer.data) {
		ops_error(req, -ENOMEM);
		return;
	}
	pthread_mutex_lock(&dir->lock);
	if (dir->holds_shards)
		r = add_from_listing(&answer, dir, offset);
	else
		r = add_from_source(&answer, dir, offset);
	pthread_mutex_unlock(&dir->lock);
	if (r < 0)
		ops_error(req, r);
	else
		fuse_reply_buf(req, answer.data, answer.used);
	free(answer.data);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		struct fuse_file_info *fi)
{
	read_directory(req, ino, size, offset, fi, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	read_directory(req, ino, size, offset, fi, true);
}
