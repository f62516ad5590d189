#include "control/rpc_message.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/encode.h"

#define NEAREST_WORD_BYTES 32

int rpc_fail(struct rpc_failure *failure, int code, const char *format, ...)
{
	va_list args;

	failure->code = code;
	failure->error.code = EINVAL;
	va_start(args, format);
	vsnprintf(failure->error.message, sizeof(failure->error.message),
		  format, args);
	va_end(args);
	return -EINVAL;
}

/*
 * Bounds what the parser will build, before it builds it: nesting is stack, and
 * an array of a million zeros is thirty times its text in memory. A text that
 * is no JSON at all is the parser's to refuse.
 */
static int check_bounds(const char *line, size_t size,
			struct rpc_failure *failure)
{
	bool in_string = false;
	unsigned int depth = 0;
	unsigned int values = 1;

	for (size_t i = 0; i < size; i++) {
		char c = line[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
			continue;
		}
		if (c == '"')
			in_string = true;
		else if (c == '[' || c == '{')
			depth++;
		else if ((c == ']' || c == '}') && depth > 0)
			depth--;
		if (c == '[' || c == '{' || c == ',')
			values++;
		if (depth > RPC_DEPTH)
			return rpc_fail(
				failure, RPC_INVALID_REQUEST,
				"The request nests deeper than %d levels.",
				RPC_DEPTH);
		if (values > RPC_VALUES)
			return rpc_fail(
				failure, RPC_INVALID_REQUEST,
				"The request holds more than %d values.",
				RPC_VALUES);
	}
	return 0;
}

/* Members beyond the four are refused: a misspelt "params" must not be lost. */
static int check_members(json_t *message, struct rpc_failure *failure)
{
	static const char *const known[] = { "jsonrpc", "id", "method",
					     "params" };
	const char *key;
	json_t *value;

	json_object_foreach(message, key, value)
	{
		size_t i = 0;

		while (i < ARRAY_SIZE(known) && strcmp(key, known[i]) != 0)
			i++;
		if (i == ARRAY_SIZE(known))
			return rpc_fail(
				failure, RPC_INVALID_REQUEST,
				"A request has no member \"%.100s\"; it has \"jsonrpc\", \"id\", \"method\" and \"params\".",
				key);
	}
	return 0;
}

static int read_id(json_t *message, json_t **ret_id,
		   struct rpc_failure *failure)
{
	json_t *id = json_object_get(message, "id");

	if (id && !json_is_string(id) && !json_is_number(id) &&
	    !json_is_null(id))
		return rpc_fail(failure, RPC_INVALID_REQUEST,
				"\"id\" must be a string, a number or null.");
	*ret_id = json_incref(id);
	return 0;
}

static int read_message(json_t *message, struct rpc_request *request,
			struct rpc_failure *failure)
{
	json_t *version = json_object_get(message, "jsonrpc");
	json_t *method = json_object_get(message, "method");
	json_t *params = json_object_get(message, "params");
	const char *text = json_string_value(version);

	if (!text || strcmp(text, "2.0") != 0)
		return rpc_fail(failure, RPC_INVALID_REQUEST,
				"\"jsonrpc\" must be \"2.0\".");
	if (!json_is_string(method))
		return rpc_fail(failure, RPC_INVALID_REQUEST,
				"\"method\" must be a string.");
	if (check_members(message, failure) < 0)
		return -EINVAL;
	if (json_is_array(params))
		return rpc_fail(
			failure, RPC_INVALID_PARAMS,
			"Parameters are given by name: \"params\" must be an object, not an array.");
	if (params && !json_is_object(params))
		return rpc_fail(failure, RPC_INVALID_REQUEST,
				"\"params\" must be an object.");
	request->method = json_string_value(method);
	request->params = params;
	return 0;
}

int rpc_request_parse(const char *line, size_t size,
		      struct rpc_request *ret_request,
		      struct rpc_failure *failure)
{
	struct rpc_request request = { 0 };
	json_error_t json_error;
	int r;

	r = check_bounds(line, size, failure);
	if (r == 0) {
		request.message = json_loadb(line, size, JSON_REJECT_DUPLICATES,
					     &json_error);
		if (!request.message)
			r = rpc_fail(failure, RPC_PARSE_ERROR,
				     "The line is not JSON: %s (at byte %d).",
				     json_error.text, json_error.position);
	}
	if (r == 0 && json_is_array(request.message))
		r = rpc_fail(
			failure, RPC_INVALID_REQUEST,
			"Batches are not supported: send one request a line, the next may follow at once.");
	else if (r == 0 && !json_is_object(request.message))
		r = rpc_fail(failure, RPC_INVALID_REQUEST,
			     "A request is a JSON object.");
	if (r == 0)
		r = read_id(request.message, &request.id, failure);
	if (r == 0)
		r = read_message(request.message, &request, failure);
	if (r < 0) {
		/* Whoever sent what cannot be read wants to know it. */
		if (!request.id)
			request.id = json_null();
		json_decref(request.message);
		request.message = NULL;
		request.method = NULL;
	}
	*ret_request = request;
	return r;
}

void rpc_request_done(struct rpc_request *request)
{
	json_decref(request->id);
	json_decref(request->message);
	*request = (struct rpc_request){ 0 };
}

json_t *rpc_string(const char *text)
{
	CLEANUP(buffer_done) struct buffer out = BUFFER_INIT(64u << 10);
	size_t size = strlen(text);
	int r = 0;

	if (utf8_is_valid(text, size))
		return json_string_nocheck(text);
	for (size_t i = 0; i < size && r == 0;) {
		size_t length = 1;

		/* The shortest valid run that begins here is one character. */
		while (length <= 4 && length <= size - i &&
		       !utf8_is_valid(text + i, length))
			length++;
		if (length > 4 || length > size - i) {
			r = buffer_append_format(&out, "\\x%02x",
						 (unsigned char)text[i]);
			length = 1;
		} else {
			r = buffer_append(&out, text + i, length);
		}
		i += length;
	}
	return r < 0 ? json_string_nocheck("(text too long)")
		     : json_string_nocheck(buffer_string(&out));
}

json_t *rpc_reply_result(json_t *id, json_t *result)
{
	return json_pack("{s:s, s:o, s:o}", "jsonrpc", "2.0", "id",
			 id ? json_incref(id) : json_null(), "result", result);
}

json_t *rpc_reply_failure(json_t *id, const struct rpc_failure *failure)
{
	const char *name = strerrorname_np(failure->error.code);
	json_t *error;

	error = json_pack("{s:i, s:o}", "code", failure->code, "message",
			  rpc_string(failure->error.message));
	if (error && failure->code == RPC_SERVER_ERROR)
		json_object_set_new(error, "data",
				    json_pack("{s:s}", "errno",
					      name ? name : "EIO"));
	return json_pack("{s:s, s:o, s:o}", "jsonrpc", "2.0", "id",
			 id ? json_incref(id) : json_null(), "error", error);
}

json_t *rpc_notification(const char *method, json_t *params)
{
	return json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", method,
			 "params", params);
}

/* Edits (insert, delete, replace) between two words of bounded length. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t row[NEAREST_WORD_BYTES + 1];
	size_t b_size = strnlen(b, NEAREST_WORD_BYTES);

	for (size_t j = 0; j <= b_size; j++)
		row[j] = j;
	for (size_t i = 0; a[i] && i < NEAREST_WORD_BYTES; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (size_t j = 0; j < b_size; j++) {
			size_t replace = diagonal + (a[i] != b[j]);
			size_t other =
				row[j] < row[j + 1] ? row[j] : row[j + 1];

			diagonal = row[j + 1];
			row[j + 1] = replace < other + 1 ? replace : other + 1;
		}
	}
	return row[b_size];
}

const char *rpc_nearest(const char *word,
			const char *(*candidate)(const void *arg, size_t index),
			const void *arg)
{
	const char *nearest = NULL;
	size_t best = SIZE_MAX;
	const char *name;

	for (size_t i = 0; (name = candidate(arg, i)); i++) {
		size_t distance = edit_distance(word, name);

		/* More edits than half the word: another word, not a typo. */
		if (distance < best && distance * 2 <= strlen(name)) {
			best = distance;
			nearest = name;
		}
	}
	return nearest;
}
