#include "transfer/chunk_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_AT_FIRST 1024
_Static_assert(CHUNK_TABLE_MAX_RECORDS < UINT32_MAX / 4, "indices fit");

void chunk_set_done(struct chunk_set *set)
{
	free(set->records);
	free(set->slots);
	*set = (struct chunk_set){ 0 };
}

static const struct chunk_record *record_at(const struct chunk_set *set,
					    uint32_t slot_value)
{
	uint32_t index = slot_value - 1;

	return index < set->parent_count
		       ? &set->parent[index]
		       : &set->records[index - set->parent_count];
}

/* An id is a hash: four bytes of it are as good as any other. */
static uint32_t hash_of(const uint8_t *id)
{
	uint32_t hash;

	memcpy(&hash, id, sizeof(hash));
	return hash;
}

/* Where that id is, or the free slot where it belongs. */
static uint32_t slot_of(const struct chunk_set *set, const uint8_t *id)
{
	uint32_t mask = set->slot_count - 1, slot = hash_of(id) & mask;

	while (set->slots[slot] && memcmp(record_at(set, set->slots[slot])->id,
					  id, CHUNK_ID_BYTES) != 0)
		slot = (slot + 1) & mask;
	return slot;
}

const struct chunk_record *chunk_set_find(const struct chunk_set *set,
					  const uint8_t id[CHUNK_ID_BYTES])
{
	uint32_t value = set->slot_count ? set->slots[slot_of(set, id)] : 0;

	return value ? record_at(set, value) : NULL;
}

/* Room for one more, with half of the slots free. */
static int reserve_slot(struct chunk_set *set)
{
	uint32_t before = set->slot_count;
	uint32_t count = before ? before * 2 : SLOTS_AT_FIRST;
	uint32_t *old = set->slots, *slots;

	if (set->slots_used < before / 2)
		return 0;
	slots = calloc(count, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	set->slots = slots;
	set->slot_count = count;
	for (uint32_t i = 0; i < before; i++)
		if (old[i])
			slots[slot_of(set, record_at(set, old[i])->id)] =
				old[i];
	free(old);
	return 0;
}

int chunk_set_init(struct chunk_set *set, const struct chunk_table *parent)
{
	*set = (struct chunk_set){ 0 };
	if (!parent)
		return 0;
	set->parent = parent->records;
	set->parent_count = (uint32_t)parent->record_count;
	for (uint32_t i = 0; i < set->parent_count; i++) {
		uint32_t slot;

		if (set->parent[i].flags & CHUNK_ZERO)
			continue;
		if (reserve_slot(set) < 0) {
			chunk_set_done(set);
			return -ENOMEM;
		}
		slot = slot_of(set, set->parent[i].id);
		if (!set->slots[slot]) {
			set->slots[slot] = i + 1;
			set->slots_used++;
		}
	}
	return 0;
}

static int reserve_record(struct chunk_set *set)
{
	uint32_t capacity = set->capacity / 4 * 5 + 512;
	struct chunk_record *grown;

	if (set->count < set->capacity)
		return 0;
	grown = reallocarray(set->records, capacity, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	set->records = grown;
	set->capacity = capacity;
	return 0;
}

int chunk_set_add(struct chunk_set *set, const struct chunk_record *record)
{
	uint32_t slot;

	if (set->parent_count + set->count >= UINT32_MAX / 2 ||
	    reserve_slot(set) < 0)
		return -ENOMEM;
	slot = slot_of(set, record->id);
	if (set->slots[slot])
		return 0;
	if (reserve_record(set) < 0)
		return -ENOMEM;
	set->records[set->count++] = *record;
	set->slots[slot] = set->parent_count + set->count;
	set->slots_used++;
	return 0;
}
