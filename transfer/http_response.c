#include "transfer/http_response.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* The value when `line` is that header, trimmed into ret; else false. */
static bool header_is(const char *line, size_t size, const char *name,
		      char ret[HTTP_TEXT_BYTES])
{
	size_t length = strlen(name);

	if (size <= length || strncasecmp(line, name, length) != 0 ||
	    line[length] != ':')
		return false;
	line += length + 1;
	size -= length + 1;
	while (size && isspace((unsigned char)*line)) {
		line++;
		size--;
	}
	while (size && isspace((unsigned char)line[size - 1]))
		size--;
	if (size >= HTTP_TEXT_BYTES)
		return false;
	memcpy(ret, line, size);
	ret[size] = 0;
	return true;
}

/* Digits only; moves *at behind them; -1 when there are none or too many. */
static int64_t parse_number(const char **at)
{
	int64_t value = 0;
	int digits = 0;

	for (; isdigit((unsigned char)**at); (*at)++) {
		if (++digits > 18)
			return -1;
		value = value * 10 + (**at - '0');
	}
	return digits ? value : -1;
}

/* "bytes 0-9/100" and "bytes *" "/100" (RFC 9110, section 14.4). */
static void parse_range(struct http_response *response, const char *at)
{
	int64_t first = -1, last = -1;

	if (strncasecmp(at, "bytes ", 6) != 0)
		return;
	at += 6;
	if (*at == '*') {
		at++;
	} else {
		first = parse_number(&at);
		if (*at++ != '-')
			return;
		last = parse_number(&at);
	}
	if (*at++ != '/')
		return;
	response->range_total = parse_number(&at);
	response->range_first = first;
	response->range_last = last;
}

static int64_t parse_date(const char *text)
{
	time_t seconds = curl_getdate(text, NULL);

	return seconds > 0 ? (int64_t)seconds * 1000 : 0;
}

void http_response_clear(struct http_response *response)
{
	*response = (struct http_response){
		.content_length = -1,
		.range_first = -1,
		.range_last = -1,
		.range_total = -1,
	};
}

/* "HTTP/1.1 206 Partial Content"; 0 when there is no status. */
static long parse_status(const char *line, size_t size)
{
	const char *space = memchr(line, ' ', size);
	long status = 0;

	if (!space || size - (size_t)(space - line) < 4)
		return 0;
	for (int i = 1; i <= 3; i++) {
		if (!isdigit((unsigned char)space[i]))
			return 0;
		status = status * 10 + (space[i] - '0');
	}
	return status;
}

void http_response_take(struct http_response *response, const char *line,
			size_t size)
{
	char value[HTTP_TEXT_BYTES];
	const char *at = value;

	if (size >= 12 && strncmp(line, "HTTP/", 5) == 0) {
		http_response_clear(response);
		response->status = parse_status(line, size);
		return;
	}
	if (header_is(line, size, "Content-Length", value))
		response->content_length = parse_number(&at);
	else if (header_is(line, size, "Content-Range", value))
		parse_range(response, value);
	else if (header_is(line, size, "ETag", value))
		memcpy(response->etag, value, sizeof(value));
	else if (header_is(line, size, "x-amz-bucket-region", value))
		memcpy(response->region, value, sizeof(value));
	else if (header_is(line, size, "Date", value))
		response->date_ms = parse_date(value);
	else if (header_is(line, size, "Last-Modified", value))
		response->last_modified_ms = parse_date(value);
	else if (header_is(line, size, "Retry-After", value))
		response->retry_after_ms = parse_number(&at) * 1000;
}
