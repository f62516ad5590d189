/* The manifest as an object: not a bit of it changes unnoticed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "tests/unit/manifests.h"
#include "tests/unit/test.h"
#include "transfer/manifest_object.h"

static void build(struct buffer *out)
{
	struct manifest *m = manifest_of_everything();
	struct hib_error error = HIB_ERROR_INIT;

	CHECK_INT(manifest_object_build("m", m, out, &error), 0);
	manifest_free(m);
}

static int parse(const void *data, size_t size, struct hib_error *error)
{
	struct manifest *m = NULL;
	int r = manifest_object_parse("manifests/7", data, size, &m, error);

	CHECK((r == 0) == (m != NULL));
	manifest_free(m);
	return r;
}

TEST(what_is_built_is_parsed)
{
	CLEANUP(buffer_done) struct buffer object = BUFFER_INIT(1u << 20);

	build(&object);
	CHECK_INT(parse(object.data, object.size, NULL), 0);
}

/* req: T9 */
TEST(every_flipped_bit_is_noticed)
{
	CLEANUP(buffer_done) struct buffer object = BUFFER_INIT(1u << 20);
	struct hib_error error;

	build(&object);
	for (size_t bit = 0; bit < object.size * 8; bit++) {
		object.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (parse(object.data, object.size, &error) != -EBADMSG)
			TEST_FAIL("bit %zu of byte %zu", bit % 8, bit / 8);
		CHECK(strstr(error.message, "manifests/7"));
		object.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	CHECK_INT(parse(object.data, object.size, NULL), 0);
}

/* req: T9 */
TEST(every_cut_is_noticed_but_that_of_the_seal)
{
	CLEANUP(buffer_done) struct buffer object = BUFFER_INIT(1u << 20);

	build(&object);
	for (size_t size = 0; size < object.size; size++)
		CHECK_INT(parse(object.data, size, NULL),
			  size == object.size - 40 ? 0 : -EBADMSG);
}

TEST(ordinary_tools_read_it_and_may_repack_it)
{
	CLEANUP(buffer_done) struct buffer object = BUFFER_INIT(1u << 20);
	CLEANUP_FREE char *text = malloc(1 << 20);
	CLEANUP_FREE char *packed = malloc(1 << 20);
	size_t size;

	build(&object);
	size = ZSTD_decompress(text, 1 << 20, object.data, object.size);
	CHECK(!ZSTD_isError(size));
	CHECK(strncmp(text, "{\"format\":\"hibfs-manifest\",", 27) == 0);
	size = ZSTD_compress(packed, 1 << 20, text, size, 19);
	CHECK_INT(parse(packed, size, NULL), 0);
}

TEST(an_object_that_unpacks_to_much_more_is_refused)
{
	size_t plain_bytes = (size_t)64 << 20, size;
	CLEANUP_FREE char *plain = malloc(plain_bytes);
	CLEANUP_FREE char *packed = malloc(ZSTD_compressBound(plain_bytes));
	struct hib_error error = HIB_ERROR_INIT;

	memset(plain, ' ', plain_bytes);
	size = ZSTD_compress(packed, ZSTD_compressBound(plain_bytes), plain,
			     plain_bytes, 3);
	CHECK(size < 16384);
	CHECK_INT(parse(packed, size, &error), -EBADMSG);
	CHECK(strstr(error.message, "unpacks to more"));
}

/* What resume would refuse must not be what a pause relies on. */
TEST(what_could_not_be_read_back_is_not_built)
{
	CLEANUP(buffer_done) struct buffer object = BUFFER_INIT(1u << 20);
	struct manifest *m = manifest_of_everything();
	struct hib_error error = HIB_ERROR_INIT;

	m->entries[1].chunk_count++;
	CHECK_INT(manifest_object_build("m", m, &object, &error), -EBADMSG);
	CHECK(strstr(error.message, "could not be read back"));
	CHECK_INT(object.size, 0);
	manifest_free(m);
}

TEST_MAIN()
