#include "transfer/pack.h"

#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define MAGIC "HIBPACK1"
#define END_MAGIC "HIBPEND1"
#define VERSION 1

struct disk_header {
	char magic[8];
	uint32_t version, header_bytes, flags;
	uint8_t zero[12];
} __attribute__((packed));
_Static_assert(sizeof(struct disk_header) == PACK_HEADER_BYTES, "layout");

struct disk_entry {
	uint8_t id[CHUNK_ID_BYTES];
	uint32_t offset, stored_bytes, plain_bytes, flags;
} __attribute__((packed));
_Static_assert(sizeof(struct disk_entry) == PACK_INDEX_ENTRY_BYTES, "layout");

struct disk_trailer {
	uint32_t index_offset, chunk_count, version, zero;
	uint8_t check[8];
	char magic[8];
} __attribute__((packed));
_Static_assert(sizeof(struct disk_trailer) == PACK_TRAILER_BYTES, "layout");

void pack_init(struct pack *pack, uint8_t *data, size_t capacity)
{
	const struct disk_header header = {
		.magic = MAGIC,
		.version = htole32(VERSION),
		.header_bytes = htole32(PACK_HEADER_BYTES),
	};

	*pack = (struct pack){ .data = data, .capacity = capacity };
	memcpy(data, &header, sizeof(header));
	pack->size = sizeof(header);
}

void pack_done(struct pack *pack)
{
	free(pack->index);
	pack->index = NULL;
}

bool pack_has_room(const struct pack *pack, size_t stored_bytes)
{
	return pack->size + stored_bytes + pack->index_size +
		       PACK_INDEX_ENTRY_BYTES + PACK_TRAILER_BYTES <=
	       pack->capacity;
}

int pack_append(struct pack *pack, const void *stored, uint32_t stored_bytes,
		uint32_t plain_bytes, uint32_t flags,
		struct chunk_record *record)
{
	struct disk_entry entry = {
		.offset = htole32((uint32_t)pack->size),
		.stored_bytes = htole32(stored_bytes),
		.plain_bytes = htole32(plain_bytes),
		.flags = htole32(flags),
	};

	if (pack->index_size == pack->index_capacity) {
		size_t capacity = pack->index_capacity * 2 + 64 * sizeof(entry);
		uint8_t *grown = realloc(pack->index, capacity);

		if (!grown)
			return -ENOMEM;
		pack->index = grown;
		pack->index_capacity = capacity;
	}
	memcpy(entry.id, record->id, sizeof(entry.id));
	memcpy(pack->index + pack->index_size, &entry, sizeof(entry));
	pack->index_size += sizeof(entry);
	record->offset = (uint32_t)pack->size;
	record->stored_bytes = stored_bytes;
	record->flags = flags;
	memcpy(pack->data + pack->size, stored, stored_bytes);
	pack->size += stored_bytes;
	pack->chunk_count++;
	return 0;
}

static int check_of(const void *header, const void *index, size_t index_size,
		    const struct disk_trailer *trailer, uint8_t ret[8])
{
	EVP_MD_CTX *digest = EVP_MD_CTX_new();
	uint8_t hash[EVP_MAX_MD_SIZE];
	bool done;

	done = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
	       EVP_DigestUpdate(digest, header, PACK_HEADER_BYTES) == 1 &&
	       EVP_DigestUpdate(digest, index, index_size) == 1 &&
	       EVP_DigestUpdate(digest, trailer,
				offsetof(struct disk_trailer, check)) == 1 &&
	       EVP_DigestFinal_ex(digest, hash, NULL) == 1;
	EVP_MD_CTX_free(digest);
	if (!done)
		return -ENOMEM;
	memcpy(ret, hash, 8);
	return 0;
}

int pack_seal(struct pack *pack, uint8_t ret_id[PACK_ID_BYTES])
{
	struct disk_trailer trailer = {
		.index_offset = htole32((uint32_t)pack->size),
		.chunk_count = htole32(pack->chunk_count),
		.version = htole32(VERSION),
		.magic = END_MAGIC,
	};

	if (pack->index_size)
		memcpy(pack->data + pack->size, pack->index, pack->index_size);
	if (check_of(pack->data, pack->data + pack->size, pack->index_size,
		     &trailer, trailer.check) < 0)
		return -ENOMEM;
	pack->size += pack->index_size;
	memcpy(pack->data + pack->size, &trailer, sizeof(trailer));
	pack->size += sizeof(trailer);
	return EVP_Digest(pack->data, pack->size, ret_id, NULL, EVP_sha256(),
			  NULL) == 1
		       ? 0
		       : -ENOMEM;
}

static int check_frame(const char *name, const uint8_t *data, size_t size,
		       struct disk_trailer *ret, struct hib_error *error)
{
	struct disk_trailer trailer;
	struct disk_header header;
	uint8_t check[8];

	if (size < sizeof(header) + sizeof(*ret) || size > PACK_BYTES_MAX ||
	    memcmp(data, MAGIC, 8) != 0)
		return hib_fail(error, EBADMSG, "%s is no pack", name);
	memcpy(&header, data, sizeof(header));
	memcpy(&trailer, data + size - sizeof(trailer), sizeof(trailer));
	*ret = trailer;
	if (le32toh(header.version) > VERSION)
		return hib_fail(
			error, EPROTONOSUPPORT,
			"%s has version %u of the pack format; this hibfs knows version %u: a newer hibfs is needed",
			name, le32toh(header.version), VERSION);
	ret->index_offset = le32toh(ret->index_offset);
	ret->chunk_count = le32toh(ret->chunk_count);
	if (le32toh(header.version) != VERSION || header.flags ||
	    le32toh(ret->version) != VERSION ||
	    memcmp(ret->magic, END_MAGIC, 8) != 0 ||
	    ret->index_offset < sizeof(header) ||
	    (uint64_t)ret->index_offset +
			    (uint64_t)ret->chunk_count *
				    PACK_INDEX_ENTRY_BYTES +
			    sizeof(*ret) !=
		    size)
		return hib_fail(error, EBADMSG,
				"%s: the frame of the pack is broken", name);
	if (check_of(data, data + ret->index_offset,
		     (size_t)ret->chunk_count * PACK_INDEX_ENTRY_BYTES,
		     &trailer, check) < 0)
		return hib_fail(error, ENOMEM, "out of memory");
	if (memcmp(check, trailer.check, sizeof(check)) != 0)
		return hib_fail(error, EBADMSG,
				"%s: the index of the pack is damaged", name);
	return 0;
}

/* In order, without a gap, inside the pack, and sizes that can be. */
static bool entry_is_sound(const struct chunk_record *record, uint32_t plain,
			   uint64_t offset, uint32_t index_offset)
{
	return record->offset == offset && record->stored_bytes &&
	       record->stored_bytes <= index_offset - record->offset && plain &&
	       plain <= CHUNK_BYTES_MAX &&
	       (record->flags == CHUNK_ZSTD ||
		(!record->flags && record->stored_bytes == plain));
}

int pack_parse(const char *name, const void *data, size_t size,
	       struct chunk_record **ret_records, uint32_t **ret_plain_bytes,
	       uint32_t *ret_count, struct hib_error *error)
{
	CLEANUP_FREE struct chunk_record *records = NULL;
	CLEANUP_FREE uint32_t *plain = NULL;
	struct disk_trailer trailer;
	uint64_t end = PACK_HEADER_BYTES;
	int r = check_frame(name, data, size, &trailer, error);

	if (r < 0)
		return r;
	records = calloc((size_t)trailer.chunk_count + 1, sizeof(*records));
	plain = calloc((size_t)trailer.chunk_count + 1, sizeof(*plain));
	if (!records || !plain)
		return hib_fail(error, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < trailer.chunk_count; i++) {
		struct disk_entry entry;

		memcpy(&entry,
		       (const uint8_t *)data + trailer.index_offset +
			       (size_t)i * sizeof(entry),
		       sizeof(entry));
		memcpy(records[i].id, entry.id, sizeof(entry.id));
		records[i].offset = le32toh(entry.offset);
		records[i].stored_bytes = le32toh(entry.stored_bytes);
		records[i].flags = le32toh(entry.flags);
		plain[i] = le32toh(entry.plain_bytes);
		if (!entry_is_sound(&records[i], plain[i], end,
				    trailer.index_offset))
			return hib_fail(error, EBADMSG,
					"%s: chunk %u of the pack is broken",
					name, i);
		end += records[i].stored_bytes;
	}
	if (end != trailer.index_offset)
		return hib_fail(error, EBADMSG,
				"%s: the index of the pack is broken", name);
	*ret_records = TAKE_PTR(records);
	*ret_plain_bytes = TAKE_PTR(plain);
	*ret_count = trailer.chunk_count;
	return 0;
}
