#include "fs/holder.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/file.h"
#include "fs/fs_internal.h"
#include "fs/tree_internal.h"

#define NAMED_MAX 5
#define LIST_LIMIT 512

struct search {
	const char *directory; /* of the shard in the mount */
	uint64_t ino; /* or a file that may be mapped; 0: none */
	struct buffer list; /* "name (pid 7), ..." */
	unsigned found;
};

static bool is_below(const char *path, const char *directory)
{
	size_t n = strlen(directory);

	return strncmp(path, directory, n) == 0 &&
	       (path[n] == '/' || path[n] == '\0');
}

static bool has_open(int pidfd, const struct search *search)
{
	CLEANUP_CLOSEDIR DIR *dir = NULL;
	char target[PATH_MAX + 1];
	struct dirent *entry;
	bool found = false;
	ssize_t n;
	int fd = openat(pidfd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return false;
	dir = fdopendir(fd);
	if (!dir) {
		close_fd(fd);
		return false;
	}
	while (!found && (entry = readdir(dir))) {
		n = readlinkat(fd, entry->d_name, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = '\0';
		found = is_below(target, search->directory);
	}
	return found;
}

static bool has_mapped(int pidfd, const struct search *search)
{
	CLEANUP_FCLOSE FILE *file = NULL;
	CLEANUP_FREE char *line = NULL;
	bool found = false;
	size_t room = 0;
	int fd;

	fd = openat(pidfd, "maps", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	file = fdopen(fd, "r");
	if (!file) {
		close_fd(fd);
		return false;
	}
	/* start-end perms offset dev inode path */
	while (!found && getline(&line, &room, file) > 0) {
		uint64_t ino;
		int path = 0;

		if (sscanf(line, "%*s %*s %*s %*s %" SCNu64 " %n", &ino,
			   &path) != 1 ||
		    ino == 0)
			continue;
		found = ino == search->ino ||
			(path && is_below(line + path, search->directory));
	}
	return found;
}

static void add_process(struct search *search, int pidfd, const char *pid)
{
	CLEANUP(buffer_done) struct buffer name = BUFFER_INIT(64);

	if (search->found++ >= NAMED_MAX)
		return;
	/* Ends with a newline. */
	if (file_read_all(pidfd, "comm", &name, NULL) == 0 && name.size > 0)
		name.data[name.size - 1] = '\0';
	buffer_append_format(&search->list, "%s%s (pid %.20s)",
			     search->found > 1 ? ", " : "",
			     buffer_string(&name), pid);
}

static void search_processes(struct search *search)
{
	CLEANUP_CLOSEDIR DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		CLEANUP_CLOSE int pidfd = -EBADF;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		pidfd = openat(dirfd(proc), entry->d_name,
			       O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (pidfd >= 0 &&
		    (has_open(pidfd, search) || has_mapped(pidfd, search)))
			add_process(search, pidfd, entry->d_name);
	}
	if (search->found > NAMED_MAX)
		buffer_append_format(&search->list, " and %u more",
				     search->found - NAMED_MAX);
}

/* "bucket/shard" below the mount or the source. */
static char *path_of(const struct fs *fs, const char *top,
		     const struct fs_shard *shard)
{
	char *path;
	int n;

	if (fs->shard_depth == 1)
		n = asprintf(&path, "%s/%s", top, fs_shard_name(shard));
	else
		n = asprintf(&path, "%s/%s/%s", top, fs_shard_bucket(shard),
			     fs_shard_name(shard));
	return n < 0 ? NULL : path;
}

/* `what` is in use. */
static int in_use(struct fs *fs, struct fs_shard *shard, const char *what,
		  uint64_t ino, struct hib_error *error)
{
	CLEANUP_FREE char *directory = path_of(fs, fs->mountpoint, shard);
	struct search search = { .directory = directory ? directory : "/",
				 .ino = ino,
				 .list = BUFFER_INIT(LIST_LIMIT) };

	if (directory)
		search_processes(&search);
	hib_fail(error, EBUSY, "%s is in use by %s", what,
		 search.found ? buffer_string(&search.list)
			      : "a process that cannot be seen from here");
	buffer_done(&search.list);
	return -EBUSY;
}

int holder_busy(struct fs *fs, struct fs_shard *shard, struct hib_error *error)
{
	char what[600];

	snprintf(what, sizeof(what), "%s/%s", fs_shard_bucket(shard),
		 fs_shard_name(shard));
	return in_use(fs, shard, what, 0, error);
}

/* A lease for writing is had only by who is alone with the file. */
static int probe(void *arg, const struct tree_item *item,
		 struct hib_error *error)
{
	uint64_t *ret_ino = arg;
	CLEANUP_CLOSE int fd = -EBADF;

	if (!S_ISREG(item->status.st_mode))
		return 0;
	fd = openat(item->dirfd, item->name,
		    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME | O_CLOEXEC);
	if (fd < 0 && errno == EPERM)
		fd = openat(item->dirfd, item->name,
			    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return hib_fail_errno(error, errno, "open \"%s\"", item->path);
	/* Without leases here, or for this user, the count of opens decides. */
	if (fcntl(fd, F_SETLEASE, F_WRLCK) == 0 ||
	    (errno != EAGAIN && errno != EBUSY))
		return 0;
	*ret_ino = item->status.st_ino;
	return hib_fail(error, EBUSY, "%s", item->path);
}

int holder_check_unmapped(struct fs *fs, struct fs_shard *shard,
			  struct hib_error *error)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_CLOSE int fd = -EBADF;
	struct hib_error found = HIB_ERROR_INIT;
	uint64_t ino = 0;
	struct tree_walk walk = { .visit = probe, .arg = &ino };
	char what[1400];
	int r;

	if (fs_shard_place(shard) != FS_PLACE_LIVE)
		return 0;
	path = path_of(fs, ".", shard);
	if (!path)
		return hib_fail_errno(error, ENOMEM, "close");
	fd = openat(fs->source_fd, path,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return hib_fail_errno(error, errno, "open %s", path);
	r = tree_walk(fd, &walk, &found);
	if (r < 0 && ino == 0)
		return hib_fail(error, -r, "%s", found.message);
	if (r == 0)
		return 0;
	snprintf(what, sizeof(what), "\"%s/%s/%s\"", fs_shard_bucket(shard),
		 fs_shard_name(shard), found.message);
	return in_use(fs, shard, what, ino, error);
}
