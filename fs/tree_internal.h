/* What the tree_*.c files share. */
#ifndef HIBFS_FS_TREE_INTERNAL_H
#define HIBFS_FS_TREE_INTERNAL_H

#include <sys/stat.h>

#include "fs/tree.h"

/* One name, as the walk shows it. */
struct tree_item {
	const char *path; /* below the top */
	int dirfd; /* of its directory */
	const char *name; /* in it */
	struct timespec noted; /* CLOCK_REALTIME_COARSE, before the stat */
	struct stat status;
};

struct tree_walk {
	/* 0, or a negative errno that ends the walk; -ENOENT: it has vanished */
	int (*visit)(void *arg, const struct tree_item *item,
		     struct hib_error *error);
	void *arg;
	struct cancel *cancel;
};

/*
 * Visits everything below dirfd, the top itself not, a directory before what is
 * in it, in no other order. Uses no more descriptors for a deep tree.
 */
int tree_walk(int dirfd, const struct tree_walk *config,
	      struct hib_error *error);

/* The directory of path, opened, and the last component (in `path`). */
int tree_open_parent(int dirfd, const char *path, int *ret_fd,
		     const char **ret_name, struct hib_error *error);

/* What the walk saw of a file. */
void tree_identity_note(struct tree_identity *ret,
			const struct tree_item *item);

/*
 * "/proc/self/fd/<dirfd>/<name>": for calls that know paths only. Ask
 * tree_proc_check() first: without /proc every file would seem to be missing.
 */
#define TREE_PROC_PATH_BYTES 320
int tree_proc_check(int dirfd, struct hib_error *error);
void tree_proc_path(int dirfd, const char *name,
		    char ret[TREE_PROC_PATH_BYTES]);

#endif
