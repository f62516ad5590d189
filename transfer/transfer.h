/*
 * transfer/: moves bytes between local files and the object store, and knows no
 * inodes and no shards. Uses base/, meta/, libcurl, OpenSSL and zstd. Include
 * the module you need; this file is the map for people, from the top down:
 *
 *	snapshot.h	commits and reads a snapshot's small objects, epochs,
 *			bucket.json (start here)
 *	engine.h	files up into packs, and back: threads, memory, cancel
 *	lineage.h	where each object of a bucket and shard lies
 *	store.h		the object store: put, get, list, delete, with retries
 *
 * Behind the engine: codec.h (one chunk: id, compression), pack.h and
 * chunk_table.h (the binary formats), chunk_set.h (which chunks the lineage
 * has), manifest_object.h (the manifest, packed and sealed). upload.c reads
 * files, upload_packs.c fills and sends packs, download_plan.c decides what to
 * ask for, download.c fetches, checks and writes it.
 *
 * Behind the store: store_backend.h (what a backend is), store_retry.h (what a
 * failure means), file_store.h, and for S3 s3.h with s3_*.h over http.h.
 *
 * Nothing here logs; failures travel as base/error.h says. docs/FORMAT.md has
 * every byte of what is stored.
 */
#ifndef HIBFS_TRANSFER_TRANSFER_H
#define HIBFS_TRANSFER_TRANSFER_H

#include "transfer/engine.h"
#include "transfer/lineage.h"
#include "transfer/snapshot.h"
#include "transfer/store.h"

#endif
