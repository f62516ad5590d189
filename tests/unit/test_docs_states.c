/*
 * docs/STATES.md says what meta/state.c does: every cell of its table, and the
 * texts of all refusals.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "meta/state.h"
#include "tests/unit/test.h"

#define DOCUMENT "docs/STATES.md"
#define CELL_BYTES 128

static const char *const action_names[] = {
	"capture", "thaw",	     "collect packs", "evict",
	"stage",   "remove staging", "trash stub",    "hydrate",
};

static const char *error_name(int r)
{
	switch (r) {
	case -EBUSY:
		return "EBUSY";
	case -EALREADY:
		return "EALREADY";
	case -EIO:
		return "EIO";
	default:
		return "EINVAL";
	}
}

/* The text of a cell as the table has to have it. */
static void wanted_cell(enum shard_state state, enum shard_event event,
			char ret[CELL_BYTES])
{
	struct shard_step step;
	int r = shard_state_step(state, event, &step);
	size_t used;

	if (r < 0) {
		snprintf(ret, CELL_BYTES, "%s", error_name(r));
		return;
	}
	used = (size_t)snprintf(ret, CELL_BYTES, "%s",
				shard_state_name(step.state));
	for (size_t i = 0, count = 0; i < ARRAY_SIZE(action_names); i++)
		if (step.actions & (1u << i))
			used += (size_t)snprintf(ret + used, CELL_BYTES - used,
						 "%s%s", count++ ? ", " : ": ",
						 action_names[i]);
}

static char *read_document(struct buffer *text)
{
	CLEANUP_CLOSE int root = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (root < 0 || file_read_all(root, DOCUMENT, text, NULL) < 0)
		return NULL;
	return (char *)(uintptr_t)buffer_string(text);
}

/* The next cell of a row: trimmed, `*row` behind it. NULL: no more. */
static char *next_cell(char **row)
{
	char *cell, *end;

	if (**row != '|')
		return NULL;
	cell = *row + 1 + strspn(*row + 1, " `");
	end = strchr(cell, '|');
	if (!end)
		return NULL;
	*row = end;
	while (end > cell && (end[-1] == ' ' || end[-1] == '`'))
		end--;
	if (end < *row)
		*end = 0;
	return cell;
}

/* A copy of the next row that begins with this cell; *text moves to it. */
static char *table_row(char **text, const char *first_cell)
{
	char begin[64];
	char *row;

	snprintf(begin, sizeof(begin), "\n| %s |", first_cell);
	row = strstr(*text, begin);
	if (!row)
		return NULL;
	*text = row + 1;
	return strndup(row + 1, strcspn(row + 1, "\n"));
}

/* req: P6 */
TEST(every_cell_of_the_documented_table_is_the_code_s)
{
	CLEANUP(buffer_done) struct buffer buffer = BUFFER_INIT(1 << 20);
	char *text = read_document(&buffer);
	CLEANUP_FREE char *head = NULL;
	char *rest, *cell;

	CHECK(text);
	head = table_row(&text, "event");
	CHECK(head);
	rest = head;
	CHECK_STR(next_cell(&rest), "event");
	for (int state = 0; state < SHARD_STATE_COUNT; state++) {
		cell = next_cell(&rest);
		CHECK(cell);
		CHECK_STR(cell, shard_state_name((enum shard_state)state));
	}
	for (int event = 0; event < SHARD_EVENT_COUNT; event++) {
		const char *name = shard_event_name((enum shard_event)event);
		CLEANUP_FREE char *row = NULL;
		char quoted[48], wanted[CELL_BYTES];

		snprintf(quoted, sizeof(quoted), "`%s`", name);
		row = table_row(&text, quoted);
		CHECK(row);
		rest = row;
		CHECK_STR(next_cell(&rest), name);
		for (int state = 0; state < SHARD_STATE_COUNT; state++) {
			cell = next_cell(&rest);
			CHECK(cell);
			wanted_cell((enum shard_state)state,
				    (enum shard_event)event, wanted);
			CHECK_STR(cell, wanted);
		}
		CHECK_STR(rest, "|");
	}
}

/* req: P9 */
TEST(every_refusal_is_documented)
{
	CLEANUP(buffer_done) struct buffer buffer = BUFFER_INIT(1 << 20);
	const char *text = read_document(&buffer);

	CHECK(text);
	for (int state = 0; state < SHARD_STATE_COUNT; state++) {
		for (int event = 0; event < SHARD_EVENT_COUNT; event++) {
			const char *refusal =
				shard_state_refusal((enum shard_state)state,
						    (enum shard_event)event);
			char cell[256];

			if (!refusal)
				continue;
			snprintf(cell, sizeof(cell), "| %s |", refusal);
			if (!strstr(text, cell))
				printf("missing: %s\n", cell);
			CHECK(strstr(text, cell));
		}
	}
}

TEST_MAIN()
