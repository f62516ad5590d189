/*
 * What the fuzz targets of formats share.
 *
 *	clang -fsanitize=fuzzer,address,undefined ...	libFuzzer
 *	gcc -DFUZZ_MAIN -fsanitize=address,undefined ...	runs the files
 * named, or without any FUZZ_ROUNDS (100,000) mutations of built-in seeds.
 */
#ifndef HIBFS_TESTS_FUZZ_FUZZ_H
#define HIBFS_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef FUZZ_MAIN
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* A good input to mutate: supplied by the target. */
static void fuzz_seed(struct buffer *out);

static void fuzz_mutate(struct buffer *input, unsigned *random)
{
	int changes = 1 + rand_r(random) % 4;

	while (changes-- && input->size) {
		size_t at = (size_t)rand_r(random) % input->size;
		size_t run = 1 + (size_t)rand_r(random) % 16;

		if (run > input->size - at)
			run = input->size - at;
		switch (rand_r(random) % 5) {
		case 0:
			input->data[at] ^= (uint8_t)(1 << rand_r(random) % 8);
			break;
		case 1:
			input->data[at] = (uint8_t)rand_r(random);
			break;
		case 2:
			memset(input->data + at, 0xff, run);
			break;
		case 3:
			memmove(input->data + at, input->data + at + run,
				input->size - at - run);
			input->size -= run;
			break;
		default:
			if (buffer_append(input, "0123456789abcdef", run) == 0)
				memmove(input->data + at + run,
					input->data + at,
					input->size - at - run);
			break;
		}
	}
}

/* From memory of exactly its size, so that a byte read too far is seen. */
static void fuzz_run(const struct buffer *input)
{
	uint8_t *copy = malloc(input->size + !input->size);

	if (!copy)
		abort();
	if (input->size)
		memcpy(copy, input->data, input->size);
	LLVMFuzzerTestOneInput(copy, input->size);
	free(copy);
}

int main(int argc, char **argv)
{
	const char *rounds = getenv("FUZZ_ROUNDS");
	long count = argc > 1 ? argc - 1 : rounds ? atol(rounds) : 100000;
	struct buffer seed = BUFFER_INIT(16 << 20);
	unsigned random = 1;

	fuzz_seed(&seed);
	for (long i = 0; i < count; i++) {
		struct buffer input = BUFFER_INIT(16 << 20);
		int r = argc > 1 ? file_read_all(AT_FDCWD, argv[i + 1], &input,
						 NULL)
				 : buffer_append(&input, seed.data, seed.size);

		if (r < 0) {
			fprintf(stderr, "cannot read an input\n");
			return 1;
		}
		if (argc == 1)
			fuzz_mutate(&input, &random);
		fuzz_run(&input);
		buffer_done(&input);
	}
	buffer_done(&seed);
	printf("%ld inputs\n", count);
	return 0;
}
#endif

#endif
