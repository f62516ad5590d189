/*
 * Which files are mapped shared, by any process of the machine. The kernel
 * tells nobody that a file of a passthrough file system is mapped, and a
 * mapping outlives the handle that it was made from.
 *
 * Used by watch.c. Thread-safety: no shared state.
 */
#ifndef HIBFS_FS_MAPPING_H
#define HIBFS_FS_MAPPING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Inode numbers of all files that are mapped shared, in order, without regard
 * to their file systems. It is complete for mappings that stay in place while
 * it looks; a page of one that is made meanwhile is not writable until its
 * first store, which sets ctime. free() the array.
 *
 * -EPERM when not all processes can be seen: not root, or in a pid namespace
 * other than the machine's.
 */
int mapping_scan(uint64_t **ret, size_t *ret_count);

bool mapping_has(const uint64_t *inos, size_t count, uint64_t ino);

#endif
