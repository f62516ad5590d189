/*
 * The file:///dir store: objects are files, '/' in a key is a directory. For
 * one machine, for tests, and for a directory that several machines share.
 *
 * An object is written to ROOT/.hibfs-tmp, synced, and given its name by
 * rename(2), for STORE_IF_ABSENT by renameat2(RENAME_NOREPLACE) or link(2):
 * a reader sees all of it or the old one, and after a crash likewise.
 *
 * No key leads out of ROOT, nor through a symlink below it.
 *
 * The table is file_store_ops (store_backend.h); this is what the workers do,
 * each from any thread, blocking.
 */
#ifndef HIBFS_TRANSFER_FILE_STORE_H
#define HIBFS_TRANSFER_FILE_STORE_H

#include "transfer/store_backend.h"

#define FILE_STORE_TEMPORARY ".hibfs-tmp"

/* Asked between the pieces of a long copy. */
typedef bool (*file_store_stop_fn)(void *arg);

struct file_store_io {
	int root_fd; /* ROOT */
	int temporary_fd; /* ROOT/.hibfs-tmp */
	file_store_stop_fn stop;
	void *arg;
};

int file_store_put(const struct file_store_io *io, const char *key,
		   const void *data, size_t size, unsigned flags,
		   struct hib_error *error);
int file_store_get(const struct file_store_io *io, const char *key,
		   uint64_t offset, uint64_t length, struct buffer *ret,
		   struct hib_error *error);
int file_store_head(const struct file_store_io *io, const char *key,
		    struct store_object *ret, struct hib_error *error);
int file_store_delete(const struct file_store_io *io, const char *key,
		      struct hib_error *error);
/* Fills the page with what comes next after `after` (may be NULL). */
int file_store_list(const struct file_store_io *io, const char *prefix,
		    const char *after, struct store_page *page,
		    struct hib_error *error);

/*
 * Removes what crashed writers left in ROOT/.hibfs-tmp. Failures do not matter.
 */
void file_store_clean(int temporary_fd);

#endif
