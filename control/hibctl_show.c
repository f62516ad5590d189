#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/encode.h"
#include "control/hibctl.h"

#define INDENT 2
#define LABEL_WIDTH 20
#define GAP "  "

/* --- values --- */

void show_size_value(const struct hibctl *ctl, uint64_t bytes,
		     char ret_text[SHOW_BYTES])
{
	static const char *const units[] = { "B",   "KiB", "MiB", "GiB",
					     "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	size_t unit = 0;

	if (ctl->raw_bytes) {
		snprintf(ret_text, SHOW_BYTES, "%" PRIu64, bytes);
		return;
	}
	while (value >= 1023.95 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	snprintf(ret_text, SHOW_BYTES, unit ? "%.1f %s" : "%.0f %s", value,
		 units[unit]);
}

void show_size(const struct hibctl *ctl, const json_t *bytes,
	       char ret_text[SHOW_BYTES])
{
	if (json_is_integer(bytes))
		show_size_value(ctl, (uint64_t)json_integer_value(bytes),
				ret_text);
	else
		snprintf(ret_text, SHOW_BYTES, "-");
}

void show_duration(uint64_t ms, char ret_text[SHOW_BYTES])
{
	uint64_t seconds = ms / 1000;

	if (ms < 10000)
		snprintf(ret_text, SHOW_BYTES, "%.1f s", (double)ms / 1000);
	else if (seconds < 60)
		snprintf(ret_text, SHOW_BYTES, "%" PRIu64 " s", seconds);
	else if (seconds < 3600)
		snprintf(ret_text, SHOW_BYTES, "%" PRIu64 " min %" PRIu64 " s",
			 seconds / 60, seconds % 60);
	else if (seconds < 24 * 3600)
		snprintf(ret_text, SHOW_BYTES, "%" PRIu64 " h %" PRIu64 " min",
			 seconds / 3600, seconds / 60 % 60);
	else
		snprintf(ret_text, SHOW_BYTES, "%" PRIu64 " d %" PRIu64 " h",
			 seconds / 86400, seconds / 3600 % 24);
}

void show_time(const json_t *realtime_ms, char ret_text[SHOW_BYTES])
{
	char text[CLOCK_TEXT_BYTES];

	if (!json_is_integer(realtime_ms)) {
		snprintf(ret_text, SHOW_BYTES, "-");
		return;
	}
	clock_format_ms(json_integer_value(realtime_ms), text);
	snprintf(ret_text, SHOW_BYTES, "%s", text);
}

void put_text(FILE *file, const char *text)
{
	/* What is not UTF-8 could hold the terminal's 8-bit control codes. */
	bool utf8 = utf8_is_valid(text, strlen(text));

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		/* U+0080 to U+009F are control characters, too. */
		bool c1 = utf8 && c == 0xc2 && (unsigned char)text[1] < 0xa0;

		if ((c < 0x20 && c != '\n') || c == 0x7f || c1 ||
		    (c >= 0x80 && !utf8))
			fprintf(file, "\\x%02x", c);
		else
			fputc(c, file);
		if (c1)
			fprintf(file, "\\x%02x", (unsigned char)*++text);
	}
}

void put_json(const json_t *value, size_t flags)
{
	json_dumpf(value, stdout, flags | JSON_ENCODE_ANY);
	fputc('\n', stdout);
}

const char *get_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

uint64_t get_number(const json_t *object, const char *name)
{
	json_int_t value = json_integer_value(json_object_get(object, name));

	return value < 0 ? 0 : (uint64_t)value;
}

void show_target(const json_t *object, char ret_text[TARGET_SHOW_BYTES])
{
	const char *shard = get_text(object, "shard");

	snprintf(ret_text, TARGET_SHOW_BYTES, "%s%s%s",
		 get_text(object, "bucket"), *shard ? "/" : "", shard);
}

/* --- tables --- */

struct table {
	size_t columns;
	size_t count; /* cells, the titles included */
	size_t capacity;
	char **cells; /* owned strings */
	bool failed; /* no memory: nothing is printed */
};

static void add_row(struct table *table, const char *const *cells)
{
	for (size_t i = 0; i < table->columns && !table->failed; i++) {
		if (table->count == table->capacity) {
			size_t capacity = 2 * table->capacity + 64;
			char **grown = reallocarray(table->cells, capacity,
						    sizeof(*grown));

			if (!grown) {
				table->failed = true;
				return;
			}
			table->cells = grown;
			table->capacity = capacity;
		}
		table->cells[table->count] = strdup(cells[i]);
		if (table->cells[table->count])
			table->count++;
		else
			table->failed = true;
	}
}

struct table *table_new(const char *const *titles, size_t columns)
{
	struct table *table = calloc(1, sizeof(*table));

	if (!table)
		abort(); /* a few bytes: nothing works any more */
	table->columns = columns;
	add_row(table, titles);
	return table;
}

void table_add(struct table *table, const char *const *cells)
{
	add_row(table, cells);
}

struct table *table_free(struct table *table)
{
	for (size_t i = 0; i < table->count; i++)
		free(table->cells[i]);
	free(table->cells);
	free(table);
	return NULL;
}

/* Characters, not bytes; the wide ones of some scripts count as one. */
static size_t width_of(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

static void pad(size_t count)
{
	printf("%*s", (int)count, "");
}

static void print_cell(const char *text, size_t width, bool right, bool last)
{
	size_t own = width_of(text);
	size_t space = own < width ? width - own : 0;

	if (right)
		pad(space);
	put_text(stdout, text);
	if (!right && !last)
		pad(space);
}

void table_print(struct table *table, const struct hibctl *ctl)
{
	size_t columns = table->columns;
	CLEANUP_FREE size_t *widths = calloc(columns, sizeof(*widths));
	CLEANUP_FREE bool *right = calloc(columns, sizeof(*right));

	if (table->failed || !widths || !right) {
		complain("The table cannot be made: out of memory");
		return;
	}
	for (size_t i = 0; i < columns; i++)
		right[i] = table->cells[i][0] == '>';
	for (size_t i = 0; i < table->count; i++) {
		const char *text = table->cells[i];
		size_t width =
			width_of(text) - (i < columns && right[i % columns]);

		if (width > widths[i % columns])
			widths[i % columns] = width;
	}
	for (size_t i = 0; i < table->count; i++) {
		size_t column = i % columns;
		bool title = i < columns;
		bool last = column + 1 == columns;

		if (title && ctl->colour)
			fputs("\033[1m", stdout);
		print_cell(table->cells[i] + (title && right[column]),
			   widths[column], right[column], last);
		if (title && ctl->colour)
			fputs("\033[0m", stdout);
		fputs(last ? "\n" : GAP, stdout);
	}
}

/* --- objects --- */

static bool ends_with(const char *text, const char *suffix)
{
	size_t size = strlen(text), suffix_size = strlen(suffix);

	return size >= suffix_size &&
	       strcmp(text + size - suffix_size, suffix) == 0;
}

static void show_integer(const struct hibctl *ctl, const char *name,
			 const json_t *value)
{
	char text[SHOW_BYTES];

	if (strncmp(name, "bytes", 5) == 0 || ends_with(name, "_bytes"))
		show_size(ctl, value, text);
	/* A point in time, unless it is too small for one: a duration. */
	else if (ends_with(name, "_ms") &&
		 json_integer_value(value) > 100000000000)
		show_time(value, text);
	else if (ends_with(name, "_ms"))
		show_duration((uint64_t)json_integer_value(value), text);
	else
		snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT,
			 json_integer_value(value));
	puts(text);
}

static void show_value(const struct hibctl *ctl, const char *name,
		       const json_t *value)
{
	CLEANUP_FREE char *text = NULL;

	if (json_is_integer(value)) {
		show_integer(ctl, name, value);
	} else if (json_is_null(value)) {
		puts("-");
	} else if (json_is_boolean(value)) {
		puts(json_is_true(value) ? "yes" : "no");
	} else if (json_is_string(value)) {
		put_text(stdout, json_string_value(value));
		putchar('\n');
	} else {
		text = json_dumps(value, JSON_ENCODE_ANY);
		put_text(stdout, text ? text : "");
		putchar('\n');
	}
}

/* "last_success_ms" as "last success". */
static void show_name(const struct hibctl *ctl, const char *name, int indent,
		      bool heading)
{
	size_t size = strlen(name);
	int width = LABEL_WIDTH - indent;

	if (ends_with(name, "_ms") || ends_with(name, "_id"))
		size -= 3;
	pad((size_t)indent);
	if (heading && ctl->colour)
		fputs("\033[1m", stdout);
	for (size_t i = 0; i < size; i++)
		putchar(name[i] == '_' ? ' ' : name[i]);
	if (heading && ctl->colour)
		fputs("\033[0m", stdout);
	if (heading) {
		putchar('\n');
		return;
	}
	pad((int)size < width ? (size_t)width - size : 0);
	fputs(GAP, stdout);
}

void show_object(const struct hibctl *ctl, const json_t *object, int indent)
{
	const char *name;
	json_t *value;

	/* json_object_foreach() wants what it does not change to be mutable. */
	for (void *i = json_object_iter((json_t *)(uintptr_t)object); i;
	     i = json_object_iter_next((json_t *)(uintptr_t)object, i)) {
		name = json_object_iter_key(i);
		value = json_object_iter_value(i);
		if (!json_is_object(value)) {
			show_name(ctl, name, indent, false);
			show_value(ctl, name, value);
			continue;
		}
		if (indent == 0)
			putchar('\n');
		show_name(ctl, name, indent, true);
		show_object(ctl, value, indent + INDENT);
	}
}
