/*
 * meta/: durable truth and decisions, no bytes of files and no network. Uses
 * base/ and jansson. Include the module you need; this file is the map:
 *
 *	state.h		the states of a shard, a pure table (start here)
 *	shard_record.h	state.json: the durable record of one shard
 *	manifest.h	what one snapshot of one shard consists of
 *	node.h		node.json, and the lock on the source
 *	task.h		long operations: id, progress, result, waiting
 *	progress.h	the counters of one task
 *	event.h		the event log
 *	options.h	-o options and the conf file
 *	document.h	our JSON files: format and version, names, numbers
 *
 * Nothing here logs; everything durable goes through file_replace(), but for
 * the event log, which is appended to.
 */
#ifndef HIBFS_META_META_H
#define HIBFS_META_META_H

#include "meta/document.h"
#include "meta/event.h"
#include "meta/manifest.h"
#include "meta/node.h"
#include "meta/options.h"
#include "meta/progress.h"
#include "meta/shard_record.h"
#include "meta/state.h"
#include "meta/task.h"

#endif
