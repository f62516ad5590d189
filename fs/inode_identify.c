/* How a file is recognised: by its file handle, name_to_handle_at(2). */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/handle.h"
#include "fs/inode.h"

#define IDENTIFY_TRIES 5

struct handle_buffer {
	struct file_handle head;
	unsigned char bytes[INODE_HANDLE_BYTES];
};

bool inode_key_equal(const struct inode_key *a, const struct inode_key *b)
{
	return a->ino == b->ino && a->shard == b->shard && a->dev == b->dev &&
	       a->handle_type == b->handle_type &&
	       a->handle_bytes == b->handle_bytes &&
	       memcmp(a->handle, b->handle, a->handle_bytes) == 0;
}

/* The key's handle fields; *ret_mount_id is -1 when there is no handle. */
static void read_handle(int dirfd, const char *name, struct inode_key *key,
			int *ret_mount_id)
{
	struct handle_buffer buffer = {
		.head.handle_bytes = INODE_HANDLE_BYTES,
	};
	int mount_id = -1;

	if (name_to_handle_at(dirfd, name, &buffer.head, &mount_id,
			      AT_EMPTY_PATH) < 0) {
		key->handle_type = -1;
		key->handle_bytes = 0;
		*ret_mount_id = -1;
		return;
	}
	key->handle_type = buffer.head.handle_type;
	key->handle_bytes = buffer.head.handle_bytes;
	memcpy(key->handle, buffer.head.f_handle, key->handle_bytes);
	*ret_mount_id = mount_id;
}

int inode_key_open(const struct inode_table *table, const struct inode_key *key)
{
	struct handle_buffer buffer = {
		.head.handle_bytes = key->handle_bytes,
		.head.handle_type = key->handle_type,
	};
	int fd;

	memcpy(buffer.head.f_handle, key->handle, key->handle_bytes);
	fd = open_by_handle_at(table->source_fd, &buffer.head,
			       O_PATH | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/*
 * Another mount inside the source has handles that mean nothing on the
 * source's own; such a node has to keep its descriptor.
 */
static void forget_foreign_handle(const struct inode_table *table,
				  struct inode_key *key, int mount_id)
{
	if (mount_id == table->mount_id)
		return;
	key->handle_type = -1;
	key->handle_bytes = 0;
}

static int identify_fd(const struct inode_table *table, int fd,
		       struct stat *ret_attr, struct inode_key *key)
{
	int mount_id;

	if (fstat(fd, ret_attr) < 0)
		return -errno;
	read_handle(fd, "", key, &mount_id);
	forget_foreign_handle(table, key, mount_id);
	key->dev = ret_attr->st_dev;
	key->ino = ret_attr->st_ino;
	return 0;
}

/*
 * Attributes and handle are read by name in two steps, so the name may mean
 * another file the second time. On the file systems hibfs is made for the
 * handle begins with the inode number, which shows it.
 */
static bool handle_matches(const struct inode_key *key, ino_t ino)
{
	uint32_t low;

	memcpy(&low, key->handle, sizeof(low));
	return key->handle_bytes >= sizeof(low) && low == (uint32_t)ino;
}

int inode_path_fd(int fd)
{
	char path[PROC_PATH_BYTES];

	proc_path(fd, path);
	return open(path, O_PATH | O_CLOEXEC);
}

int inode_identify(const struct inode_table *table, int dirfd, const char *name,
		   struct stat *ret_attr, struct inode_key *ret_key,
		   int *ret_fd)
{
	struct inode_key key;
	struct stat attr;
	CLEANUP_CLOSE int fd = -EBADF;
	int mount_id, r, i;

	memset(&key, 0, sizeof(key));
	for (i = 0; table->handle_starts_with_ino && i < IDENTIFY_TRIES; i++) {
		if (fstatat(dirfd, name, &attr,
			    AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0)
			return -errno;
		read_handle(dirfd, name, &key, &mount_id);
		if (mount_id != table->mount_id)
			break;
		if (!handle_matches(&key, attr.st_ino))
			continue;
		key.dev = attr.st_dev;
		key.ino = attr.st_ino;
		*ret_attr = attr;
		*ret_key = key;
		*ret_fd = -1;
		return 0;
	}

	if (*name == '\0')
		fd = inode_path_fd(dirfd);
	else
		fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	memset(&key, 0, sizeof(key));
	r = identify_fd(table, fd, &attr, &key);
	if (r < 0)
		return r;
	*ret_attr = attr;
	*ret_key = key;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* ext4, xfs and btrfs: the first 32 bits of a handle are the inode's number. */
static bool handles_start_with_ino(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	switch ((unsigned long)fs.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
}

void inode_probe_handles(struct inode_table *table)
{
	struct inode_key key;
	int fd;

	memset(&key, 0, sizeof(key));
	read_handle(table->source_fd, "", &key, &table->mount_id);
	if (table->mount_id < 0)
		return;
	fd = inode_key_open(table, &key);
	table->can_open_handles = fd >= 0;
	close_fd(fd);
	table->handle_starts_with_ino =
		handles_start_with_ino(table->source_fd);
}
