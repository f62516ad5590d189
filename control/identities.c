#include "control/identities.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define MAGIC "HIBIDEN1"
#define FILE_NAME "identities"
#define MAX_BYTES ((size_t)4 << 30)
/* Longer than the tick that tree_identity_same() allows for. */
#define TICKS_NS 30000000L

/* As it lies on the disk: docs/FORMAT.md. Little-endian. */
struct disk_header {
	char magic[8];
	uint64_t seq, count;
};

struct disk_file {
	uint64_t entry, device, inode, size;
	int64_t mtime_s, ctime_s, noted_s;
	uint32_t mtime_ns, ctime_ns, noted_ns, zero;
};
_Static_assert(sizeof(struct disk_file) == 72, "layout");

void identities_done(struct identities *identities)
{
	free(identities->files);
	*identities = (struct identities){ 0 };
}

int identities_note(int dirfd, const struct manifest *manifest,
		    struct identities *ret, struct hib_error *error)
{
	const struct timespec ticks = { .tv_nsec = TICKS_NS };
	struct identities noted = { .seq = manifest->seq };
	int r = 0;

	noted.files = calloc(manifest->entry_count + 1, sizeof(*noted.files));
	if (!noted.files)
		return hib_fail(error, ENOMEM, "out of memory");
	clock_nanosleep(CLOCK_MONOTONIC, 0, &ticks, NULL);
	for (size_t i = 0; i < manifest->entry_count && r == 0; i++) {
		const struct manifest_entry *entry = &manifest->entries[i];
		struct file_identity *file = &noted.files[noted.count];

		/* a later name of an inode has no contents of its own */
		if (entry->type != ENTRY_FILE || !entry->chunk_count)
			continue;
		file->entry = i;
		r = tree_identity_at(dirfd, entry->path, &file->identity,
				     error);
		noted.count++;
	}
	if (r < 0) {
		identities_done(&noted);
		return r;
	}
	*ret = noted;
	return 0;
}

static int open_directory(int hibfs_fd, const struct shard *shard, bool make,
			  int *ret_fd, struct hib_error *error)
{
	char path[SHARD_PATH_BYTES];

	snprintf(path, sizeof(path), "shards/%s/%s", shard_bucket(shard),
		 shard_name(shard));
	return make ? dir_make(hibfs_fd, path, 0700, ret_fd, error)
		    : dir_open(hibfs_fd, path, ret_fd, error);
}

static struct disk_file to_disk(const struct file_identity *file)
{
	const struct tree_identity *id = &file->identity;

	return (struct disk_file){
		.entry = htole64(file->entry),
		.device = htole64(id->device),
		.inode = htole64(id->inode),
		.size = htole64(id->size),
		.mtime_s = (int64_t)htole64((uint64_t)id->mtime.tv_sec),
		.ctime_s = (int64_t)htole64((uint64_t)id->ctime.tv_sec),
		.noted_s = (int64_t)htole64((uint64_t)id->noted.tv_sec),
		.mtime_ns = htole32((uint32_t)id->mtime.tv_nsec),
		.ctime_ns = htole32((uint32_t)id->ctime.tv_nsec),
		.noted_ns = htole32((uint32_t)id->noted.tv_nsec),
	};
}

static struct file_identity from_disk(const struct disk_file *disk)
{
	return (struct file_identity){
		.entry = le64toh(disk->entry),
		.identity = {
			.device = le64toh(disk->device),
			.inode = le64toh(disk->inode),
			.size = le64toh(disk->size),
			.mtime = { (time_t)le64toh((uint64_t)disk->mtime_s),
				   le32toh(disk->mtime_ns) },
			.ctime = { (time_t)le64toh((uint64_t)disk->ctime_s),
				   le32toh(disk->ctime_ns) },
			.noted = { (time_t)le64toh((uint64_t)disk->noted_s),
				   le32toh(disk->noted_ns) },
		},
	};
}

int identities_save(int hibfs_fd, const struct shard *shard,
		    const struct identities *identities,
		    struct hib_error *error)
{
	CLEANUP(buffer_done) struct buffer out = BUFFER_INIT(MAX_BYTES);
	CLEANUP_CLOSE int fd = -EBADF;
	struct disk_header header = {
		.magic = MAGIC,
		.seq = htole64(identities->seq),
		.count = htole64(identities->count),
	};
	int r = open_directory(hibfs_fd, shard, true, &fd, error);

	if (r < 0)
		return r;
	r = buffer_append(&out, &header, sizeof(header));
	for (size_t i = 0; i < identities->count && r == 0; i++) {
		struct disk_file disk = to_disk(&identities->files[i]);

		r = buffer_append(&out, &disk, sizeof(disk));
	}
	if (r < 0)
		return hib_fail_errno(error, -r, "note the files' identities");
	return file_replace(fd, FILE_NAME, out.data, out.size, 0600, error);
}

int identities_load(int hibfs_fd, const struct shard *shard,
		    struct identities *ret, struct hib_error *error)
{
	CLEANUP(buffer_done) struct buffer in = BUFFER_INIT(MAX_BYTES);
	CLEANUP_CLOSE int fd = -EBADF;
	struct identities loaded = { 0 };
	struct disk_header header;
	int r = open_directory(hibfs_fd, shard, false, &fd, error);

	if (r == 0)
		r = file_read_all(fd, FILE_NAME, &in, error);
	if (r < 0)
		return r;
	if (in.size < sizeof(header) || memcmp(in.data, MAGIC, 8) != 0)
		return hib_fail(error, EBADMSG, FILE_NAME " is broken");
	memcpy(&header, in.data, sizeof(header));
	loaded.seq = le64toh(header.seq);
	loaded.count = le64toh(header.count);
	if (loaded.count !=
		    (in.size - sizeof(header)) / sizeof(struct disk_file) ||
	    (in.size - sizeof(header)) % sizeof(struct disk_file))
		return hib_fail(error, EBADMSG, FILE_NAME " is broken");
	loaded.files = calloc(loaded.count + 1, sizeof(*loaded.files));
	if (!loaded.files)
		return hib_fail(error, ENOMEM, "out of memory");
	for (size_t i = 0; i < loaded.count; i++) {
		struct disk_file disk;

		memcpy(&disk, in.data + sizeof(header) + i * sizeof(disk),
		       sizeof(disk));
		loaded.files[i] = from_disk(&disk);
	}
	*ret = loaded;
	return 0;
}
