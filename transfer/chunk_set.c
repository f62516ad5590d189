#include "transfer/chunk_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_AT_FIRST 1024

void chunk_set_done(struct chunk_set *set)
{
	free(set->records);
	free(set->slots);
	*set = (struct chunk_set){ 0 };
}

/* An id is a hash: four bytes of it are as good as any other. */
static uint32_t hash_of(const uint8_t *id)
{
	uint32_t hash;

	memcpy(&hash, id, sizeof(hash));
	return hash;
}

static uint32_t slot_of(const struct chunk_set *set, const uint8_t *id)
{
	uint32_t mask = set->slot_count - 1, slot = hash_of(id) & mask;

	while (set->slots[slot] && memcmp(set->records[set->slots[slot] - 1].id,
					  id, CHUNK_ID_BYTES) != 0)
		slot = (slot + 1) & mask;
	return slot;
}

const struct chunk_record *chunk_set_find(const struct chunk_set *set,
					  const uint8_t id[CHUNK_ID_BYTES])
{
	uint32_t index = set->slot_count ? set->slots[slot_of(set, id)] : 0;

	return index ? &set->records[index - 1] : NULL;
}

static int grow_slots(struct chunk_set *set)
{
	uint32_t count = set->slot_count ? set->slot_count * 2 : SLOTS_AT_FIRST;
	uint32_t *slots = calloc(count, sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	free(set->slots);
	set->slots = slots;
	set->slot_count = count;
	for (uint32_t i = 0; i < set->count; i++)
		slots[slot_of(set, set->records[i].id)] = i + 1;
	return 0;
}

int chunk_set_add(struct chunk_set *set, const struct chunk_record *record)
{
	uint32_t slot;

	if (set->count >= set->slot_count / 2 && grow_slots(set) < 0)
		return -ENOMEM;
	slot = slot_of(set, record->id);
	if (set->slots[slot])
		return 0;
	if (set->count == set->capacity) {
		uint32_t capacity = set->capacity / 2 * 3 + 512;
		struct chunk_record *grown =
			reallocarray(set->records, capacity, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		set->records = grown;
		set->capacity = capacity;
	}
	set->records[set->count++] = *record;
	set->slots[slot] = set->count;
	return 0;
}
