/*
 * Whatever may lie in chunks/. What is accepted refers only to packs that are
 * there, and is written again as it was.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "transfer/chunk_set.h"
#include "transfer/chunk_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buffer again = BUFFER_INIT(64u << 20);
	struct hib_error error = HIB_ERROR_INIT;
	struct chunk_table *table;
	struct chunk_set set;

	if (chunk_table_parse("t", data, size, &table, &error) < 0) {
		if (!error.code)
			abort();
		return 0;
	}
	for (uint64_t i = 0; i < table->record_count; i++)
		if (!(table->records[i].flags & CHUNK_ZERO) &&
		    table->records[i].pack >= table->pack_count)
			abort();
	if (chunk_set_init(&set, table) < 0 ||
	    chunk_table_write(table, &again, NULL) < 0 || again.size != size)
		abort();
	/* but for the header's reserved bytes */
	if (memcmp(again.data + 64, data + 64, size - 64) != 0)
		abort();
	chunk_set_done(&set);
	chunk_table_free(table);
	buffer_done(&again);
	return 0;
}

#ifdef FUZZ_MAIN
static void fuzz_seed(struct buffer *out)
{
	struct chunk_table *table = chunk_table_new();
	const uint8_t pack[32] = { 1 };
	uint32_t index;
	uint64_t first;

	if (!table || chunk_table_add_pack(table, pack, &index) < 0 ||
	    chunk_table_extend(table, 3, &first) < 0)
		abort();
	table->records[0].flags = CHUNK_ZERO;
	for (uint8_t i = 1; i < 3; i++) {
		table->records[i].id[0] = i;
		table->records[i].offset = 32 * i;
		table->records[i].stored_bytes = 32;
	}
	if (chunk_table_write(table, out, NULL) < 0)
		abort();
	chunk_table_free(table);
}
#endif
