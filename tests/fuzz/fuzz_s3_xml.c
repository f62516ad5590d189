/*
 * Whatever a server may answer: the XML reader and the documents read with it.
 *
 *	clang -fsanitize=fuzzer,address,undefined ...	libFuzzer
 *	gcc -DFUZZ_MAIN -fsanitize=address,undefined ...	runs the files
 *named
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "transfer/s3_message.h"
#include "transfer/s3_xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int visit(void *arg, const char *path, const char *text)
{
	size_t *total = arg;

	*total += strlen(path) + (text ? strlen(text) : 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const keys[] = { "a", "b&c", "d" };
	struct store_page *page = store_page_new();
	char id[S3_UPLOAD_ID_BYTES];
	struct s3_error error;
	const char *key;
	size_t total = 0;

	if (!page)
		return 0;
	s3_xml_parse(data, size, visit, &total);
	if (s3_parse_list(data, size, "p/", page) == 0)
		for (size_t i = 0; i < page->count; i++)
			if (!*store_page_key(page, i))
				abort();
	s3_parse_error(data, size, &error);
	s3_parse_delete(data, size, "p/", keys, 3, &key, &error);
	s3_parse_upload_id(data, size, id);
	s3_parse_complete(data, size);
	store_page_free(page);
	return 0;
}

#ifdef FUZZ_MAIN
#include <fcntl.h>
#include <stdio.h>

#include "base/buffer.h"
#include "base/file.h"

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		struct buffer data = BUFFER_INIT(16 << 20);

		if (file_read_all(AT_FDCWD, argv[i], &data, NULL) < 0) {
			fprintf(stderr, "cannot read %s\n", argv[i]);
			return 1;
		}
		LLVMFuzzerTestOneInput(
			data.data ? data.data : (const uint8_t *)"", data.size);
		buffer_done(&data);
	}
	printf("%d inputs\n", argc - 1);
	return 0;
}
#endif
