#include "control/evict.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/file.h"
#include "control/daemon_internal.h"
#include "control/trash.h"
#include "fs/tree.h"

static void set_stub(void *arg, struct shard_record *record)
{
	record->stub = *(const bool *)arg;
	record->task[0] = 0;
}

/* From SOURCE/<bucket>/<shard> to the stub's place, in one rename. */
static int move_to_stub(struct daemon *daemon, struct shard *shard,
			struct hib_error *error)
{
	CLEANUP_CLOSE int bucket_fd = -EBADF;
	CLEANUP_CLOSE int stub_fd = -EBADF;
	char live[SHARD_PATH_BYTES], stub[SHARD_PATH_BYTES];
	int source = fs_source_fd(daemon->fs);
	int r;

	shard_live_path(shard, live);
	shard_stub_path(shard, stub);
	*strrchr(stub, '/') = 0; /* .../tree */
	r = dir_make(source, stub, 0700, &stub_fd, error);
	if (r < 0)
		return r;
	if (strrchr(live, '/'))
		*strrchr(live, '/') = 0;
	else
		strcpy(live, ".");
	r = dir_open(source, live, &bucket_fd, error);
	if (r < 0)
		return r;
	if (faccessat(bucket_fd, shard_name(shard), F_OK, AT_SYMLINK_NOFOLLOW) <
	    0)
		return errno == ENOENT
			       ? 0
			       : hib_fail_errno(
					 error, errno,
					 "look for the live directory of %s",
					 shard_text(shard));
	/* a stub from before a crash is not there: resume has moved it away */
	r = trash_path(daemon, stub_fd, "tree", error);
	if (r < 0)
		return r;
	if (renameat(bucket_fd, shard_name(shard), stub_fd, "tree") < 0)
		return hib_fail_errno(error, errno,
				      "move %s to its stub's place",
				      shard_text(shard));
	r = dir_sync(stub_fd, error);
	return r < 0 ? r : dir_sync(bucket_fd, error);
}

int evict_shard(struct daemon *daemon, struct shard *shard, bool purge,
		uint64_t *ret_freed_bytes, struct hib_error *error)
{
	CLEANUP_CLOSE int tree = -EBADF;
	char stub[SHARD_PATH_BYTES];
	bool keep = !purge;
	int r;

	r = fault_point("pause.stub_rename.before");
	if (r == 0)
		r = move_to_stub(daemon, shard, error);
	if (r == 0)
		r = fault_point("pause.stub_rename.after");
	if (r == 0)
		r = fs_shard_set_place(daemon->fs, shard_fs(shard),
				       purge ? FS_PLACE_NONE : FS_PLACE_STUB,
				       error);
	if (r < 0)
		return hib_wrap(error, r, "evict %s", shard_text(shard));
	shard_stub_path(shard, stub);
	r = dir_open(fs_source_fd(daemon->fs), stub, &tree, error);
	if (r == -ENOENT) {
		/* purged, and then cut off by a crash */
		keep = false;
		r = 0;
	} else if (r == 0) {
		r = tree_evict(tree, NULL, ret_freed_bytes, error);
		if (r == 0 && purge)
			r = trash_stub(daemon, shard, error);
	}
	if (r == 0)
		r = fault_point("pause.hibernated.before");
	if (r == 0)
		r = shard_step(shard, SHARD_EVICTED, set_stub, &keep, NULL,
			       error);
	return r < 0 ? hib_wrap(error, r, "evict %s", shard_text(shard)) : 0;
}
