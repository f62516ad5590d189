#include <errno.h>

#include "base/cleanup.h"
#include "control/rpc_message.h"
#include "tests/unit/test.h"

/* req: A1 */
TEST(requests_that_are_wrong_are_refused_with_the_right_code)
{
	static const struct {
		const char *line;
		int code; /* 0: a request */
	} cases[] = {
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}", 0 },
		{ "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{}}", 0 },
		{ "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"a\"}", 0 },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"a\"}", 0 },
		{ "", RPC_PARSE_ERROR },
		{ "{", RPC_PARSE_ERROR },
		{ "nonsense", RPC_PARSE_ERROR },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"} x",
		  RPC_PARSE_ERROR },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}",
		  RPC_PARSE_ERROR },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\\u0000b\"}",
		  RPC_PARSE_ERROR },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"a\"}",
		  RPC_PARSE_ERROR },
		{ "1", RPC_PARSE_ERROR },
		{ "[]", RPC_INVALID_REQUEST },
		{ "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}]",
		  RPC_INVALID_REQUEST },
		{ "{}", RPC_INVALID_REQUEST },
		{ "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"a\"}",
		  RPC_INVALID_REQUEST },
		{ "{\"jsonrpc\":2,\"id\":1,\"method\":\"a\"}",
		  RPC_INVALID_REQUEST },
		{ "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"a\"}",
		  RPC_INVALID_REQUEST },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}",
		  RPC_INVALID_REQUEST },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"parms\":{}}",
		  RPC_INVALID_REQUEST },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"params\":1}",
		  RPC_INVALID_REQUEST },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"params\":[1]}",
		  RPC_INVALID_PARAMS },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rpc_failure failure = { 0 };
		struct rpc_request request;
		int r = rpc_request_parse(cases[i].line, strlen(cases[i].line),
					  &request, &failure);

		if (failure.code != cases[i].code)
			TEST_FAIL("%s: %d, not %d (%s)", cases[i].line,
				  failure.code, cases[i].code,
				  failure.error.message);
		CHECK_INT(r, cases[i].code ? -EINVAL : 0);
		rpc_request_done(&request);
	}
}

/* req: A1 */
TEST(nesting_and_number_of_values_are_bounded)
{
	size_t size = RPC_REQUEST_BYTES;
	char *line = malloc(size);
	struct rpc_failure failure = { 0 };
	struct rpc_request request;

	memset(line, '[', size);
	rpc_request_parse(line, size, &request, &failure);
	CHECK_INT(failure.code, RPC_INVALID_REQUEST);
	rpc_request_done(&request);
	memset(line, ',', size);
	line[0] = '[';
	for (size_t i = 1; i < size; i += 2)
		line[i] = '0';
	line[size - 1] = ']';
	rpc_request_parse(line, size, &request, &failure);
	CHECK_INT(failure.code, RPC_INVALID_REQUEST);
	rpc_request_done(&request);
	free(line);
}

TEST(text_that_is_not_utf8_can_be_sent)
{
	json_t *text = rpc_string("a\xc3\xb6\xff\xc3z");

	CHECK_STR(json_string_value(text), "a\xc3\xb6\\xff\\xc3z");
	json_decref(text);
}

static const char *nth_word(const void *arg, size_t index)
{
	return ((const char *const *)arg)[index];
}

TEST(the_nearest_word_is_found_and_another_word_is_none)
{
	static const char *const words[] = { "list", "unlock", "lock", NULL };

	CHECK_STR(rpc_nearest("lsit", nth_word, words), "list");
	CHECK_STR(rpc_nearest("lokc", nth_word, words), "lock");
	CHECK_STR(rpc_nearest("unlok", nth_word, words), "unlock");
	CHECK(rpc_nearest("xyzzy", nth_word, words) == NULL);
	CHECK(rpc_nearest("", nth_word, words) == NULL);
}

TEST_MAIN()
