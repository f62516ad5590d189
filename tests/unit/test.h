/*
 * The harness of the unit tests. A test program is one file:
 *
 *	#include "tests/unit/test.h"
 *
 *	// req: T9 T10        (as a C comment above the test)
 *	TEST(a_flipped_byte_is_refused)
 *	{
 *		CHECK_INT(verify(...), -EBADMSG);
 *	}
 *
 *	TEST_MAIN()
 *
 * A failed CHECK ends its test (and only that test) with file and line; it may
 * therefore stand only in the TEST function itself or in a function it calls
 * on the same thread. From another thread use TEST_FAIL_THREAD, which marks
 * the test failed and lets the thread go on. What a failed test holds is not
 * freed: cleanup attributes do not run on a longjmp.
 *
 * `./test_x` runs all tests in the order they are written, `./test_x WORD...`
 * those whose name contains one of the words, `./test_x -l` lists them. The
 * last line is "N passed, N failed"; the exit status is 1 if one failed, and
 * a program without tests fails too.
 */
#ifndef HIBFS_TESTS_UNIT_TEST_H
#define HIBFS_TESTS_UNIT_TEST_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test_case {
	const char *name;
	void (*run)(void);
	struct test_case *next;
};

struct test_state {
	struct test_case *first;
	struct test_case **tail;
	jmp_buf on_failure;
	atomic_bool failed;
};

__attribute__((unused)) static struct test_state test_state;

/* Constructors of one object file run in the order they are written. */
#define TEST(test_name)                                                     \
	static void test_run_##test_name(void);                             \
	__attribute__((constructor)) static void test_add_##test_name(void) \
	{                                                                   \
		static struct test_case test_case = {                       \
			.name = #test_name,                                 \
			.run = test_run_##test_name,                        \
		};                                                          \
		if (test_state.tail == NULL)                                \
			test_state.tail = &test_state.first;                \
		*test_state.tail = &test_case;                              \
		test_state.tail = &test_case.next;                          \
	}                                                                   \
	static void test_run_##test_name(void)

#define TEST_FAIL(...)                                          \
	do {                                                    \
		fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
		fprintf(stderr, __VA_ARGS__);                   \
		fputc('\n', stderr);                            \
		test_state.failed = true;                       \
		longjmp(test_state.on_failure, 1);              \
	} while (0)

#define TEST_FAIL_THREAD(...)                                   \
	do {                                                    \
		fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
		fprintf(stderr, __VA_ARGS__);                   \
		fputc('\n', stderr);                            \
		test_state.failed = true;                       \
	} while (0)

#define CHECK(condition)                                      \
	do {                                                  \
		if (!(condition))                             \
			TEST_FAIL("%s is false", #condition); \
	} while (0)

/* Integers of any type and sign up to 64 bits: a is what was got, b wanted. */
#define CHECK_INT(a, b)                                                        \
	do {                                                                   \
		intmax_t test_a = (intmax_t)(a);                               \
		intmax_t test_b = (intmax_t)(b);                               \
		if (test_a != test_b)                                          \
			TEST_FAIL("%s is %" PRIdMAX ", not %" PRIdMAX " (%s)", \
				  #a, test_a, test_b, #b);                     \
	} while (0)

/* Strings, either of which may be NULL. */
#define CHECK_STR(a, b)                                                 \
	do {                                                            \
		const char *test_a = (a);                               \
		const char *test_b = (b);                               \
		bool test_same = test_a == NULL || test_b == NULL       \
					 ? test_a == test_b             \
					 : strcmp(test_a, test_b) == 0; \
		if (!test_same)                                         \
			TEST_FAIL("%s is \"%s\", not \"%s\" (%s)", #a,  \
				  test_a ? test_a : "(null)",           \
				  test_b ? test_b : "(null)", #b);      \
	} while (0)

/* Byte arrays of `size` bytes. */
#define CHECK_MEM(a, b, size)                                    \
	do {                                                     \
		if (memcmp((a), (b), (size)) != 0)               \
			TEST_FAIL("%s differs from %s", #a, #b); \
	} while (0)

static inline bool test_is_wanted(const char *name, int argc, char **argv)
{
	if (argc < 2)
		return true;
	for (int i = 1; i < argc; i++)
		if (strstr(name, argv[i]) != NULL)
			return true;
	return false;
}

/* Apart from test_main(), whose locals a longjmp would clobber. */
static inline bool test_passes(const struct test_case *test)
{
	test_state.failed = false;
	if (setjmp(test_state.on_failure) == 0)
		test->run();
	return !test_state.failed;
}

static inline int test_main(int argc, char **argv)
{
	unsigned int passed = 0;
	unsigned int failed = 0;
	const struct test_case *test;
	bool passes;

	/* A crash must not swallow the names printed before it. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && strcmp(argv[1], "-l") == 0) {
		for (test = test_state.first; test != NULL; test = test->next)
			puts(test->name);
		return 0;
	}
	for (test = test_state.first; test != NULL; test = test->next) {
		if (!test_is_wanted(test->name, argc, argv))
			continue;
		passes = test_passes(test);
		printf("%s %s\n", passes ? "ok  " : "FAIL", test->name);
		if (passes)
			passed++;
		else
			failed++;
	}
	printf("%u passed, %u failed\n", passed, failed);
	return failed > 0 || passed == 0 ? 1 : 0;
}

#define TEST_MAIN()                           \
	int main(int argc, char **argv)       \
	{                                     \
		return test_main(argc, argv); \
	}

#endif
