/*
 * Whatever may lie in manifests/: as an object, and as the text in it. What is
 * accepted is written again, and that is accepted again.
 */
#include <stdlib.h>

#include "meta/manifest.h"
#include "tests/fuzz/fuzz.h"
#include "transfer/manifest_object.h"

static void check(struct manifest *m)
{
	struct buffer text = BUFFER_INIT(64u << 20);
	struct manifest *again;

	for (size_t i = 0; i < m->entry_count; i++)
		if (manifest_find(m, m->entries[i].path) != &m->entries[i])
			abort();
	if (manifest_write(m, &text, NULL) < 0 ||
	    manifest_parse("m", text.data, text.size, &again, NULL) < 0 ||
	    again->entry_count != m->entry_count)
		abort();
	manifest_free(again);
	manifest_free(m);
	buffer_done(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct manifest *m;

	if (manifest_object_parse("m", data, size, &m, &error) == 0)
		check(m);
	else if (!error.code)
		abort();
	if (manifest_parse("m", data, size, &m, &error) == 0)
		check(m);
	return 0;
}

#ifdef FUZZ_MAIN
#define ATTRIBUTES \
	"\"mode\":420,\"uid\":0,\"gid\":0,\"mtime\":[1,2],\"atime\":[3,4]"

static void fuzz_seed(struct buffer *out)
{
	buffer_append_string(
		out,
		"{\"format\":\"hibfs-manifest\",\"version\":1,\"bucket\":\"b\","
		"\"shard_base64\":\"/w==\",\"node\":\"n\",\"seq\":1,"
		"\"parent_seq\":0,\"epoch\":1,\"task\":\"t\",\"started_ms\":1,"
		"\"committed_ms\":2,\"tool\":\"x\",\"chunk_table_sha256\":"
		"\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789a"
		"bcdef\"}\n"
		"{\"path\":\".\",\"type\":\"directory\"," ATTRIBUTES "}\n"
		"{\"path\":\"a\",\"type\":\"file\",\"hard_link_group\":1," ATTRIBUTES
		",\"size\":300000,\"chunk_bytes\":262144,"
		"\"chunks\":[0,2],\"extents\":[[0,4096],[8192,1]]}\n"
		"{\"path\":\"b\",\"type\":\"file\",\"hard_link_group\":1}\n"
		"{\"path\":\"c\",\"type\":\"symlink\"," ATTRIBUTES
		",\"target_base64\":\"/w==\",\"xattrs\":[{\"name\":\"user.a\","
		"\"value\":\"AAE=\"}]}\n"
		"{\"path\":\"d\",\"type\":\"block-device\"," ATTRIBUTES
		",\"device\":[8,1]}\n"
		"{\"end\":true,\"entries\":5,\"files\":2,\"directories\":1,"
		"\"others\":2,\"logical_bytes\":300000,\"chunks\":2}\n");
}
#endif
