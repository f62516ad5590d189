#include "control/trash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/uuid.h"
#include "control/daemon_internal.h"

int trash_path(struct daemon *daemon, int dirfd, const char *name,
	       struct hib_error *error)
{
	struct hib_error remove_error = HIB_ERROR_INIT;
	CLEANUP_CLOSE int trash = -EBADF;
	char uuid[UUID_TEXT_BYTES];
	int r;

	r = dir_make(daemon->hibfs_fd, "trash", 0700, &trash, error);
	if (r < 0)
		return r;
	uuid_new(uuid);
	r = fault_point("trash.rename.before");
	if (r < 0)
		return hib_fail(error, -r, "fault point trash.rename.before");
	if (renameat(dirfd, name, trash, uuid) < 0)
		return errno == ENOENT
			       ? 0
			       : hib_fail_errno(error, errno,
						"move %s to the trash", name);
	r = dir_sync(dirfd, error);
	if (r < 0)
		return r;
	if (fault_point("trash.remove.before") < 0)
		return 0;
	if (tree_remove(trash, uuid, &remove_error) < 0)
		log_warning(
			daemon->log,
			"cannot empty the trash now, the next start will: %s",
			remove_error.message);
	return 0;
}

int trash_stub(struct daemon *daemon, const struct shard *shard,
	       struct hib_error *error)
{
	CLEANUP_CLOSE int parent = -EBADF;
	char stub[SHARD_PATH_BYTES];
	int r;

	shard_stub_path(shard, stub);
	*strrchr(stub, '/') = 0;
	r = dir_open(fs_source_fd(daemon->fs), stub, &parent, error);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : trash_path(daemon, parent, "tree", error);
}

struct sweep {
	int dirfd;
};

static int remove_one(void *arg, const char *name, unsigned char d_type)
{
	const struct sweep *sweep = arg;

	(void)d_type;
	return tree_remove(sweep->dirfd, name, NULL);
}

static int sweep_directory(struct daemon *daemon, const char *name,
			   struct hib_error *error)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct sweep sweep;
	int r = dir_make(daemon->hibfs_fd, name, 0700, &fd, error);

	if (r < 0)
		return r;
	sweep.dirfd = fd;
	r = dir_each(fd, remove_one, &sweep, error);
	return r < 0 ? hib_wrap(error, r, "empty .hibfs/%s", name) : 0;
}

int trash_sweep(struct daemon *daemon, struct hib_error *error)
{
	int r = sweep_directory(daemon, "staging", error);

	return r < 0 ? r : sweep_directory(daemon, "trash", error);
}
