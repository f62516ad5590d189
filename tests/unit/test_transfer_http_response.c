#include "transfer/http_response.h"

#include "tests/unit/test.h"

static void take(struct http_response *response, const char *line)
{
	http_response_take(response, line, strlen(line));
}

TEST(a_head_is_read)
{
	struct http_response response;

	http_response_clear(&response);
	take(&response, "HTTP/1.1 206 Partial Content\r\n");
	take(&response, "content-length:  10 \r\n");
	take(&response, "Content-Range: bytes 5-14/100\r\n");
	take(&response, "ETag: \"abc\"\r\n");
	take(&response, "Date: Fri, 24 May 2013 00:00:00 GMT\r\n");
	take(&response, "Last-Modified: Fri, 24 May 2013 00:00:01 GMT\r\n");
	take(&response, "Retry-After: 2\r\n");
	CHECK_INT(response.status, 206);
	CHECK_INT(response.content_length, 10);
	CHECK_INT(response.range_first, 5);
	CHECK_INT(response.range_last, 14);
	CHECK_INT(response.range_total, 100);
	CHECK_STR(response.etag, "\"abc\"");
	CHECK_INT(response.date_ms, INT64_C(1369353600000));
	CHECK_INT(response.last_modified_ms, INT64_C(1369353601000));
	CHECK_INT(response.retry_after_ms, 2000);
}

TEST(a_status_line_begins_anew)
{
	struct http_response response;

	http_response_clear(&response);
	take(&response, "HTTP/1.1 100 Continue\r\n");
	take(&response, "ETag: x\r\n");
	take(&response, "HTTP/1.1 200 OK\r\n");
	CHECK_INT(response.status, 200);
	CHECK_STR(response.etag, "");
	CHECK_INT(response.content_length, -1);
}

TEST(what_is_malformed_is_absent)
{
	static const char *const lines[] = {
		"Content-Length: x\r\n",
		"Content-Length: 99999999999999999999999\r\n",
		"Content-Length: -5\r\n",
		"Content-Range: bytes 1\r\n",
		"Content-Range: pages 1-2/3\r\n",
		"Content-Range:\r\n",
		"Date: never\r\n",
		"ETag",
		":",
		"",
	};
	struct http_response response;

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		http_response_clear(&response);
		take(&response, lines[i]);
		CHECK_INT(response.content_length, -1);
		CHECK_INT(response.range_first, -1);
		CHECK_INT(response.date_ms, 0);
		CHECK_STR(response.etag, "");
	}
	take(&response, "Content-Range: bytes */42\r\n");
	CHECK_INT(response.range_total, 42);
	CHECK_INT(response.range_first, -1);
	take(&response, "HTTP/1.1 xyz what\r\n");
	CHECK_INT(response.status, 0);
}

TEST_MAIN()
