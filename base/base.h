/*
 * base/: what libc leaves out, and nothing that knows of shards, stores or
 * FUSE. Includes nothing of the other folders. Include the module you need;
 *this file is the map for people:
 *
 *	error.h		how a failure travels: -errno and a message
 *	cleanup.h	cleanup attributes for locals, hand-off of ownership
 *	buffer.h	a growing run of bytes with a ceiling
 *	file.h		durable replace, whole reads, directories, removal
 *	clock.h		wall clock for people, monotonic clock for durations
 *	encode.h	percent, base64 and hex forms; the UTF-8 test
 *	uuid.h		random UUIDs
 *	cancel.h	a request to stop that wakes long waits
 *	log.h		the daemon's own lines to its operator
 *	fault.h		named fault points, in test builds only
 *
 * Everything above base/ reports failure through error.h and persists through
 * file_replace().
 */
#ifndef HIBFS_BASE_BASE_H
#define HIBFS_BASE_BASE_H

#include "base/buffer.h"
#include "base/cancel.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/uuid.h"

#endif
