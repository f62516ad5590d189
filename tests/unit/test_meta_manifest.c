/* What is written is read; what is broken, hostile or newer is refused. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "meta/manifest.h"
#include "tests/unit/manifests.h"
#include "tests/unit/test.h"

#define HEADER                                                                \
	"{\"format\":\"hibfs-manifest\",\"version\":1,\"bucket\":\"b\","      \
	"\"shard\":\"s\",\"node\":\"n\",\"seq\":1,\"parent_seq\":0,"          \
	"\"epoch\":1,\"task\":\"t\",\"started_ms\":1,\"committed_ms\":2,"     \
	"\"tool\":\"x\",\"chunk_table_sha256\":\"0123456789abcdef0123456789a" \
	"bcdef0123456789abcdef0123456789abcdef\"}\n"
#define ATTRIBUTES \
	"\"mode\":420,\"uid\":0,\"gid\":0,\"mtime\":[1,2],\"atime\":[3,4]"
#define ROOT "{\"path\":\".\",\"type\":\"directory\"," ATTRIBUTES "}\n"
#define DIRECTORY(path) \
	"{\"path\":\"" path "\",\"type\":\"directory\"," ATTRIBUTES "}\n"
#define FILE_OF(path, size, chunks)                            \
	"{\"path\":\"" path "\",\"type\":\"file\"," ATTRIBUTES \
	",\"size\":" size ",\"chunk_bytes\":262144,\"chunks\":" chunks "}\n"
#define END(entries, files, directories, others, bytes, chunks)    \
	"{\"end\":true,\"entries\":" #entries ",\"files\":" #files \
	",\"directories\":" #directories ",\"others\":" #others    \
	",\"logical_bytes\":" #bytes ",\"chunks\":" #chunks "}\n"

static int parse(const char *text, struct hib_error *error)
{
	struct manifest *m = NULL;
	int r = manifest_parse("manifests/1", text, strlen(text), &m, error);

	CHECK(r < 0 ? m == NULL : m != NULL);
	manifest_free(m);
	return r;
}

/* Refused as broken, with a message that names the object and says `what`. */
static void refused(const char *text, const char *what)
{
	struct hib_error error = HIB_ERROR_INIT;

	CHECK_INT(parse(text, &error), -EBADMSG);
	CHECK(strncmp(error.message, "manifests/1 ", 12) == 0);
	if (!strstr(error.message, what))
		TEST_FAIL("\"%s\" does not say \"%s\"", error.message, what);
}

static struct manifest *write_and_parse(const struct manifest *m)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(64u << 20);
	struct hib_error error = HIB_ERROR_INIT;
	struct manifest *again;

	CHECK_INT(manifest_write(m, &text, &error), 0);
	if (manifest_parse("x", text.data, text.size, &again, &error) < 0)
		TEST_FAIL("%s", error.message);
	return again;
}

static void check_same_entry(const struct manifest_entry *a,
			     const struct manifest_entry *b)
{
	CHECK_STR(a->path, b->path);
	CHECK_INT(a->type, b->type);
	CHECK_INT(a->hard_link_group, b->hard_link_group);
	CHECK_INT(a->size, b->size);
	CHECK_INT(a->uid, b->uid);
	CHECK_INT(a->gid, b->gid);
	CHECK_INT(a->mtime.tv_sec, b->mtime.tv_sec);
	CHECK_INT(a->mtime.tv_nsec, b->mtime.tv_nsec);
	CHECK_INT(a->atime.tv_sec, b->atime.tv_sec);
	CHECK_STR(a->target, b->target);
	CHECK_INT(a->major, b->major);
	CHECK_INT(a->minor, b->minor);
	CHECK_INT(a->chunk_bytes, b->chunk_bytes);
	CHECK_INT(a->first_chunk, b->first_chunk);
	CHECK_INT(a->chunk_count, b->chunk_count);
	CHECK_INT(a->sparse, b->sparse);
	CHECK_INT(a->extent_count, b->extent_count);
	for (size_t i = 0; i < a->extent_count; i++) {
		CHECK_INT(a->extents[i].offset, b->extents[i].offset);
		CHECK_INT(a->extents[i].length, b->extents[i].length);
	}
	CHECK_INT(a->xattr_count, b->xattr_count);
	for (size_t i = 0; i < a->xattr_count; i++) {
		CHECK_STR(a->xattrs[i].name, b->xattrs[i].name);
		CHECK_INT(a->xattrs[i].size, b->xattrs[i].size);
		CHECK(memcmp(a->xattrs[i].value, b->xattrs[i].value,
			     a->xattrs[i].size) == 0);
	}
}

/* req: P3 */
TEST(what_is_written_is_read_again_whole)
{
	struct manifest *m = manifest_of_everything();
	struct manifest *again = write_and_parse(m);

	CHECK_STR(again->bucket, m->bucket);
	CHECK_STR(again->shard, m->shard);
	CHECK_STR(again->node, m->node);
	CHECK_STR(again->task, m->task);
	CHECK_STR(again->tool_version, m->tool_version);
	CHECK_INT(again->seq, 7);
	CHECK_INT(again->parent_seq, 6);
	CHECK_INT(again->epoch, 3);
	CHECK_INT(again->started_ms, 1000);
	CHECK_INT(again->committed_ms, 2000);
	CHECK(memcmp(again->chunk_table_sha256, m->chunk_table_sha256, 32) ==
	      0);
	CHECK_INT(again->entry_count, m->entry_count);
	for (size_t i = 0; i < m->entry_count; i++)
		check_same_entry(&again->entries[i], &m->entries[i]);
	CHECK_INT(again->entries[0].mode, 02775);
	CHECK_INT(again->file_count, 3);
	CHECK_INT(again->directory_count, 2);
	CHECK_INT(again->other_count, 4);
	CHECK_INT(again->logical_bytes, 100000005);
	CHECK_INT(again->chunk_count, 383);
	manifest_free(again);
	manifest_free(m);
}

TEST(paths_sort_with_the_slash_lowest_and_are_found)
{
	static const char *const paths[] = { "d-/x", "e",  "d/z", "d",
					     ".",    "d-", "d/a", "d/a-" };
	static const char *const sorted[] = { ".",   "d",  "d/a",  "d/a-",
					      "d/z", "d-", "d-/x", "e" };
	struct manifest *m = manifest_header();

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		manifest_add_path(m, paths[i], ENTRY_DIRECTORY);
	manifest_sort(m);
	for (size_t i = 0; i < ARRAY_SIZE(sorted); i++) {
		CHECK_STR(m->entries[i].path, sorted[i]);
		CHECK(manifest_find(m, sorted[i]) == &m->entries[i]);
	}
	CHECK(manifest_find(m, "d/b") == NULL);
	CHECK(manifest_find(m, "") == NULL);
	manifest_free(m);
}

TEST(a_shard_that_is_empty_has_a_manifest)
{
	CHECK_INT(parse(HEADER ROOT END(1, 0, 1, 0, 0, 0), NULL), 0);
	refused(HEADER END(0, 0, 0, 0, 0, 0), "no entries");
	refused(HEADER FILE_OF("x", "0", "[0,0]") END(1, 1, 0, 0, 0, 0),
		"not the shard itself");
}

/* req: T10 */
TEST(a_newer_version_is_refused_by_name_and_number)
{
	struct hib_error error = HIB_ERROR_INIT;

	CHECK_INT(parse("{\"format\":\"hibfs-manifest\",\"version\":9}\n",
			&error),
		  -EPROTONOSUPPORT);
	CHECK(strstr(error.message, "manifests/1 has version 9"));
	CHECK(strstr(error.message, "hibfs-manifest"));
	refused("{\"format\":\"hibfs-manifest\",\"version\":0}", "version");
	refused("{\"format\":\"other\",\"version\":1}", "no hibfs manifest");
	refused("{\"version\":1}", "no hibfs manifest");
}

/* req: A2 */
TEST(paths_that_leave_the_shard_are_refused)
{
	static const char *const paths[] = { "/etc/passwd", "..",    "../x",
					     "a/../../x",   "a//b",  "a/",
					     "./a",	    "a/./b", "/",
					     "//",	    "a/.." };

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(65536);

		buffer_append_format(
			&text,
			HEADER ROOT DIRECTORY("a") "{\"path\":\"%s\",\"type\":"
						   "\"fifo\"," ATTRIBUTES
						   "}\n" END(3, 0, 2, 1, 0, 0),
			paths[i]);
		refused(buffer_string(&text), "leaves the shard");
	}
	refused(HEADER ROOT "{\"path\":\"\",\"type\":\"fifo\"," ATTRIBUTES
			    "}\n",
		"path");
	refused(HEADER ROOT
		"{\"path\":\"a\\u0000b\",\"type\":\"fifo\"," ATTRIBUTES "}\n",
		"no JSON");
	refused(HEADER ROOT
		"{\"path_base64\":\"YQBi\",\"type\":\"fifo\"," ATTRIBUTES "}\n",
		"path");
	refused(HEADER ROOT
		"{\"path_base64\":\"Li4=\",\"type\":\"fifo\"," ATTRIBUTES "}\n",
		"leaves the shard");
	refused(HEADER ROOT
		"{\"path\":\"a\",\"path_base64\":\"YQ==\",\"type\":\"fifo\"," ATTRIBUTES
		"}\n",
		"path");
}

/* req: A2 */
TEST(an_entry_needs_a_directory_above_it)
{
	refused(HEADER ROOT
		"{\"path\":\"l\",\"type\":\"symlink\"," ATTRIBUTES
		",\"target\":\"/etc\"}\n" FILE_OF("l/x", "0", "[0,0]"),
		"directory is not there");
	refused(HEADER ROOT FILE_OF("f", "0", "[0,0]")
			FILE_OF("f/x", "0", "[0,0]"),
		"directory is not there");
	refused(HEADER ROOT FILE_OF("d/x", "0", "[0,0]"),
		"directory is not there");
}

/* req: T9 */
TEST(paths_come_once_and_in_order)
{
	refused(HEADER ROOT FILE_OF("a", "0", "[0,0]")
			FILE_OF("a", "0", "[0,0]"),
		"out of order");
	refused(HEADER ROOT FILE_OF("b", "0", "[0,0]")
			FILE_OF("a", "0", "[0,0]"),
		"out of order");
	refused(HEADER ROOT ROOT, "out of order");
}

/* req: T9 */
TEST(numbers_that_cannot_be_are_refused)
{
	refused(HEADER ROOT FILE_OF("a", "-1", "[0,0]"), "size");
	refused(HEADER ROOT FILE_OF("a", "1.5", "[0,1]"), "size");
	refused(HEADER ROOT FILE_OF("a", "\"1\"", "[0,1]"), "size");
	refused(HEADER ROOT FILE_OF("a", "9223372036854775808", "[0,1]"),
		"no JSON");
	refused(HEADER ROOT FILE_OF("a", "1", "[0,0]"), "chunks");
	refused(HEADER ROOT FILE_OF("a", "262145", "[0,1]"), "chunks");
	refused(HEADER ROOT FILE_OF("a", "0", "[0,1]"), "chunks");
	refused(HEADER ROOT FILE_OF("a", "1", "[-1,1]"), "chunks");
	refused(HEADER ROOT FILE_OF("a", "1", "[0,1,2]"), "chunks");
	refused(HEADER ROOT "{\"path\":\"a\",\"type\":\"file\"," ATTRIBUTES
			    ",\"size\":1,\"chunk_bytes\":262143,\"chunks\":[0,"
			    "1]}\n",
		"chunk_bytes");
	refused(HEADER ROOT "{\"path\":\"a\",\"type\":\"file\"," ATTRIBUTES
			    ",\"size\":1,\"chunk_bytes\":8388608,\"chunks\":[0,"
			    "1]}\n",
		"chunk_bytes");
	refused(HEADER "{\"path\":\".\",\"type\":\"directory\",\"mode\":4096,"
		       "\"uid\":0,\"gid\":0,\"mtime\":[1,2],\"atime\":[3,4]}\n",
		"mode");
	refused(HEADER
		"{\"path\":\".\",\"type\":\"directory\",\"mode\":0,"
		"\"uid\":4294967295,\"gid\":0,\"mtime\":[1,2],\"atime\":[3,4]}"
		"\n",
		"uid");
	refused(HEADER
		"{\"path\":\".\",\"type\":\"directory\",\"mode\":0,\"uid\":0,"
		"\"gid\":0,\"mtime\":[1,1000000000],\"atime\":[3,4]}\n",
		"mtime");
	refused(HEADER ROOT "{\"path\":\"a\",\"type\":\"door\"," ATTRIBUTES
			    "}\n",
		"unknown type");
}

/* req: T9 */
TEST(extents_lie_in_order_inside_the_file)
{
#define SPARSE(extents)                                                  \
	HEADER ROOT "{\"path\":\"a\",\"type\":\"file\"," ATTRIBUTES      \
		    ",\"size\":10,\"chunk_bytes\":262144,\"chunks\":[0," \
		    "1],\"extents\":" extents "}\n" END(2, 1, 1, 0, 10, 1)
	CHECK_INT(parse(SPARSE("[]"), NULL), 0);
	CHECK_INT(parse(SPARSE("[[0,2],[2,3],[9,1]]"), NULL), 0);
	refused(SPARSE("[[0,11]]"), "extents");
	refused(SPARSE("[[10,1]]"), "extents");
	refused(SPARSE("[[5,1],[0,1]]"), "extents");
	refused(SPARSE("[[0,6],[5,1]]"), "extents");
	refused(SPARSE("[[0,0]]"), "extents");
	refused(SPARSE("[[-1,1]]"), "extents");
	refused(SPARSE("[[9,9223372036854775807]]"), "extents");
	refused(SPARSE("[7]"), "extents");
	refused(SPARSE("{}"), "extents");
#undef SPARSE
}

/* req: T9 */
TEST(hard_link_groups_agree)
{
#define LINK(path, type, group)                        \
	"{\"path\":\"" path "\",\"type\":\"" type      \
	"\",\"hard_link_group\":" group "," ATTRIBUTES \
	",\"size\":3,\"chunk_bytes\":262144,\"chunks\":[0,1]}\n"
	CHECK_INT(
		parse(HEADER ROOT LINK("a", "file",
				       "1") "{\"path\":\"b\",\"type\":\"file\","
					    "\"hard_link_group\":1}\n" END(
						    3, 2, 1, 0, 3, 1),
		      NULL),
		0);
	refused(HEADER ROOT LINK("a", "file", "1") LINK("b", "fifo", "1"),
		"types differ");
	refused(HEADER ROOT LINK("a", "directory", "1"), "directory");
	refused(HEADER ROOT LINK("a", "file", "16000000"), "hard_link_group");
	refused(HEADER ROOT LINK("a", "file", "-1"), "hard_link_group");
#undef LINK
}

/* req: T9 */
TEST(a_manifest_that_ends_early_or_late_is_refused)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(64u << 20);
	struct manifest *m = manifest_of_everything(), *again;
	struct hib_error error;

	refused("", "ends early");
	refused(HEADER ROOT, "ends early");
	refused(HEADER ROOT END(1, 0, 1, 0, 0, 0) ROOT, "follows its end");
	refused(HEADER ROOT END(2, 0, 1, 0, 0, 0), "totals");
	refused(HEADER ROOT END(1, 1, 1, 0, 0, 0), "totals");
	refused(HEADER ROOT END(1, 0, 1, 0, 5, 0), "totals");
	refused(HEADER ROOT "[1]\n", "no JSON object");
	refused(HEADER ROOT "{\"path\":\"a\",\"path\":\"b\"}", "no JSON");
	CHECK_INT(manifest_write(m, &text, &error), 0);
	for (size_t size = 0; size + 1 < text.size; size += 7)
		CHECK_INT(manifest_parse("x", text.data, size, &again, &error),
			  -EBADMSG);
	manifest_free(m);
}

/* req: T9 */
TEST(totals_do_not_wrap_around)
{
	refused(HEADER ROOT
		"{\"path\":\"a\",\"type\":\"file\"," ATTRIBUTES
		",\"size\":9223372036854775807,\"chunk_bytes\":4194304,"
		"\"chunks\":[0,2199023255552]}\n"
		"{\"path\":\"b\",\"type\":\"file\"," ATTRIBUTES
		",\"size\":9223372036854775807,\"chunk_bytes\":4194304,"
		"\"chunks\":[0,2199023255552]}\n"
		"{\"path\":\"c\",\"type\":\"file\"," ATTRIBUTES
		",\"size\":2,\"chunk_bytes\":4194304,\"chunks\":[0,1]}\n" END(
			4, 3, 1, 0, 0, 4398046511105),
		"totals");
}

TEST(a_line_without_end_is_refused)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(64u << 20);

	buffer_append_string(&text, HEADER "{\"path\":\"");
	CHECK_INT(buffer_reserve(&text, 17u << 20), 0);
	memset(text.data + text.size, 'a', 17u << 20);
	text.size += 17u << 20;
	buffer_append_string(&text, "\"}");
	refused(buffer_string(&text), "too long");
}

/* req: F4 */
TEST(a_hundred_thousand_entries_take_no_time)
{
	struct manifest *m = manifest_header(), *again;
	uint64_t chunk = 0, begin;

	manifest_add_path(m, ".", ENTRY_DIRECTORY);
	for (int i = 0; i < 100; i++) {
		char path[64];

		snprintf(path, sizeof(path), "d%03d", i);
		manifest_add_path(m, path, ENTRY_DIRECTORY);
		for (int j = 0; j < 1000; j++) {
			snprintf(path, sizeof(path), "d%03d/f%04d", i, j);
			manifest_add_file(m, path, 1000, &chunk);
		}
	}
	CHECK_INT(manifest_total(m), 0);
	begin = clock_monotonic_ms();
	again = write_and_parse(m);
	printf("     %zu entries written and read in %u ms\n", m->entry_count,
	       (unsigned)(clock_monotonic_ms() - begin));
	CHECK(clock_monotonic_ms() - begin < 20000); /* under sanitizers too */
	CHECK_INT(again->entry_count, 100101);
	manifest_free(again);
	manifest_free(m);
}

TEST_MAIN()
