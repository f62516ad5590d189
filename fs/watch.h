/*
 * Stores through shared writable mappings, which nothing can stop. Files that
 * may be mapped are noted when they are opened for writing. When their shard is
 * frozen their pages are made to fault at the next store, and ctime is
 * remembered: a store sets it, and so it can be told afterwards.
 *
 * Used by freeze.c; gate_note_writer() and gate_forget_writer() by the
 * handlers. Thread-safety: watch_*() of one shard, one thread at a time.
 */
#ifndef HIBFS_FS_WATCH_H
#define HIBFS_FS_WATCH_H

#include <stddef.h>

#include "base/error.h"

struct fs;
struct fs_shard;
struct inode;

/*
 * Begins to watch the shard, in which no write is possible but through
 * mappings. To be ended by watch_end() also after a failure.
 */
int watch_begin(struct fs *fs, struct fs_shard *shard, struct hib_error *error);

/* -ESTALE naming the file when one was stored into since watch_begin(). */
int watch_check(struct fs *fs, struct fs_shard *shard, struct hib_error *error);

void watch_end(struct fs *fs, struct fs_shard *shard);

/*
 * A name of the file for messages, below the source; a few system calls. With
 * the size of ret, which is always ended by a NUL.
 */
void watch_name(struct fs *fs, struct inode *inode, char *ret, size_t size);

#endif
