#include "transfer/lineage.h"

#include <errno.h>

#include "tests/unit/test.h"

#define ROOT "hibfs_storage/PauseResume/"

/* req: T6 */
TEST(objects_lie_where_the_format_says)
{
	struct lineage lineage;
	char key[STORE_KEY_BYTES];
	uint8_t pack[32] = { 0x3f, 0xab };

	CHECK_INT(lineage_init(&lineage, "b", "s", NULL), 0);
	CHECK_STR(lineage.bucket_prefix, ROOT "b/");
	CHECK_STR(lineage.prefix, ROOT "b/s/");
	lineage_bucket_key(&lineage, key);
	CHECK_STR(key, ROOT "b/bucket.json");
	lineage_head_key(&lineage, key);
	CHECK_STR(key, ROOT "b/s/HEAD");
	lineage_epoch_key(&lineage, 7, key);
	CHECK_STR(key, ROOT "b/s/epochs/0000000000000007");
	lineage_manifest_key(&lineage, 12, key);
	CHECK_STR(key, ROOT "b/s/manifests/0000000000000012.json.zst");
	lineage_chunks_key(&lineage, 12, key);
	CHECK_STR(key, ROOT "b/s/chunks/0000000000000012.bin");
	lineage_pack_key(&lineage, pack, key);
	CHECK_STR(
		key, ROOT
		"b/s/packs/3f/3fab000000000000000000000000000000000000000000000000000000000000");
}

/* req: A2 T6 */
TEST(names_cannot_leave_their_place)
{
	static const char *const bad[] = { "", ".", "..", "a/b", "/" };
	struct lineage lineage;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		CHECK_INT(lineage_init(&lineage, bad[i], "s", NULL), -EINVAL);
		CHECK_INT(lineage_init(&lineage, "b", bad[i], NULL), -EINVAL);
	}
	CHECK_INT(lineage_init(&lineage, "a b\n\xff", "%2F", NULL), 0);
	CHECK_STR(lineage.prefix, ROOT "a%20b%0A%FF/%252F/");
}

/* On a store of files the shard's directory would be in the object's place. */
TEST(a_shard_with_the_name_of_the_bucket_index_has_a_place_of_its_own)
{
	struct lineage lineage;

	CHECK_INT(lineage_init(&lineage, "b", "bucket.json", NULL), 0);
	CHECK_STR(lineage.prefix, ROOT "b/bucket%2Ejson/");
}

TEST(names_that_are_too_long_for_a_key_are_refused)
{
	char name[256];
	struct lineage lineage;

	memset(name, 'x', 255);
	name[255] = 0;
	CHECK_INT(lineage_init(&lineage, name, name, NULL), 0);
	memset(name, ' ', 255);
	CHECK_INT(lineage_init(&lineage, name, name, NULL), -ENAMETOOLONG);
}

TEST(numbers_are_read_back_from_keys)
{
	struct lineage lineage;
	char key[STORE_KEY_BYTES];
	uint64_t number;

	CHECK_INT(lineage_init(&lineage, "b", "s", NULL), 0);
	lineage_epoch_key(&lineage, 123456, key);
	CHECK_INT(lineage_parse_epoch(&lineage, key, &number), 0);
	CHECK_INT(number, 123456);
	CHECK_INT(lineage_parse_manifest(&lineage, key, &number), -EBADMSG);
	lineage_manifest_key(&lineage, 9, key);
	CHECK_INT(lineage_parse_manifest(&lineage, key, &number), 0);
	CHECK_INT(number, 9);
	CHECK_INT(lineage_parse_epoch(&lineage, key, &number), -EBADMSG);
	CHECK_INT(lineage_parse_epoch(&lineage, ROOT "b/s/epochs/1", &number),
		  -EBADMSG);
	CHECK_INT(lineage_parse_epoch(&lineage,
				      ROOT "b/s/epochs/0000000000000001x",
				      &number),
		  -EBADMSG);
	CHECK_INT(lineage_parse_epoch(&lineage,
				      ROOT "b/t/epochs/0000000000000001",
				      &number),
		  -EBADMSG);
	CHECK_INT(number, 9);
}

TEST_MAIN()
