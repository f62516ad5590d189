#include "transfer/s3_xml.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/encode.h"

struct xml_parser {
	const char *at, *end;
	s3_xml_fn visit;
	void *arg;
	char path[S3_XML_PATH_BYTES]; /* names of the open elements */
	size_t path_length;
	size_t name_starts[S3_XML_DEPTH]; /* of each open element, in path */
	bool has_children[S3_XML_DEPTH];
	unsigned depth;
	bool root_seen;
	struct buffer text; /* of the innermost open element */
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_name(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.' ||
	       c == ':';
}

static bool looking_at(const struct xml_parser *p, const char *word)
{
	size_t length = strlen(word);

	return (size_t)(p->end - p->at) >= length &&
	       memcmp(p->at, word, length) == 0;
}

static void skip_space(struct xml_parser *p)
{
	while (p->at < p->end && is_space(*p->at))
		p->at++;
}

/* Moves behind the next `word`; false when there is none. */
static bool skip_past(struct xml_parser *p, const char *word)
{
	const char *found =
		memmem(p->at, (size_t)(p->end - p->at), word, strlen(word));

	if (!found)
		return false;
	p->at = found + strlen(word);
	return true;
}

/* The local part of a name at p->at: "s3:Key" is "Key". */
static int read_name(struct xml_parser *p, const char **ret_name,
		     size_t *ret_length)
{
	const char *start = p->at, *colon;

	while (p->at < p->end && is_name(*p->at))
		p->at++;
	colon = memrchr(start, ':', (size_t)(p->at - start));
	if (colon)
		start = colon + 1;
	if (p->at == start)
		return -EBADMSG;
	*ret_name = start;
	*ret_length = (size_t)(p->at - start);
	return 0;
}

static int skip_attributes(struct xml_parser *p)
{
	for (;;) {
		const char *name, *close;
		size_t length;

		skip_space(p);
		if (p->at == p->end)
			return -EBADMSG;
		if (*p->at == '>' || *p->at == '/')
			return 0;
		if (read_name(p, &name, &length) < 0)
			return -EBADMSG;
		skip_space(p);
		if (p->end - p->at < 2 || *p->at++ != '=')
			return -EBADMSG;
		skip_space(p);
		if (p->at == p->end || (*p->at != '"' && *p->at != '\''))
			return -EBADMSG;
		close = memchr(p->at + 1, *p->at, (size_t)(p->end - p->at) - 1);
		if (!close || memchr(p->at, '<', (size_t)(close - p->at)))
			return -EBADMSG;
		p->at = close + 1;
	}
}

static int push(struct xml_parser *p, const char *name, size_t length)
{
	size_t separator = p->depth ? 1 : 0;

	if (p->depth == S3_XML_DEPTH || (p->depth == 0 && p->root_seen) ||
	    p->path_length + separator + length >= sizeof(p->path))
		return -EBADMSG;
	if (p->depth)
		p->has_children[p->depth - 1] = true;
	p->root_seen = true;
	p->has_children[p->depth] = false;
	if (separator)
		p->path[p->path_length++] = '/';
	p->name_starts[p->depth++] = p->path_length;
	memcpy(p->path + p->path_length, name, length);
	p->path_length += length;
	p->path[p->path_length] = 0;
	buffer_clear(&p->text);
	return 0;
}

/* Reports the innermost element and leaves it. */
static int pop(struct xml_parser *p)
{
	bool leaf = !p->has_children[p->depth - 1];
	int r;

	if (leaf && p->text.size && !utf8_is_valid(p->text.data, p->text.size))
		return -EBADMSG;
	r = p->visit(p->arg, p->path, leaf ? buffer_string(&p->text) : NULL);
	if (r < 0)
		return r;
	p->depth--;
	p->path_length = p->name_starts[p->depth];
	if (p->depth)
		p->path_length--;
	p->path[p->path_length] = 0;
	buffer_clear(&p->text);
	return 0;
}

static int open_tag(struct xml_parser *p)
{
	const char *name;
	size_t length;
	int r;

	p->at++;
	r = read_name(p, &name, &length);
	if (r == 0)
		r = push(p, name, length);
	if (r == 0)
		r = skip_attributes(p);
	if (r < 0)
		return r;
	if (*p->at++ == '>')
		return 0;
	if (p->at == p->end || *p->at++ != '>')
		return -EBADMSG;
	return pop(p);
}

static int close_tag(struct xml_parser *p)
{
	const char *name;
	size_t length, start;

	p->at += 2;
	if (read_name(p, &name, &length) < 0 || p->depth == 0)
		return -EBADMSG;
	start = p->name_starts[p->depth - 1];
	if (p->path_length - start != length ||
	    memcmp(p->path + start, name, length) != 0)
		return -EBADMSG;
	skip_space(p);
	if (p->at == p->end || *p->at++ != '>')
		return -EBADMSG;
	return pop(p);
}

static int append_text(struct xml_parser *p, const char *data, size_t size)
{
	int r;

	if (size == 0)
		return 0;
	for (size_t i = 0; i < size; i++) {
		unsigned char c = (unsigned char)data[i];

		if ((c < ' ' && !is_space((char)c)) || c == 0x7f)
			return -EBADMSG;
	}
	if (p->depth == 0) {
		for (size_t i = 0; i < size; i++)
			if (!is_space(data[i]))
				return -EBADMSG;
		return 0;
	}
	r = buffer_append(&p->text, data, size);
	return r == -EMSGSIZE ? -EBADMSG : r;
}

static int append_code_point(struct xml_parser *p, uint32_t c)
{
	char utf8[4];
	size_t size;

	if (c < 0x80) {
		utf8[0] = (char)c;
		size = 1;
	} else if (c < 0x800) {
		utf8[0] = (char)(0xc0 | c >> 6);
		utf8[1] = (char)(0x80 | (c & 63));
		size = 2;
	} else if (c < 0x10000) {
		utf8[0] = (char)(0xe0 | c >> 12);
		utf8[1] = (char)(0x80 | (c >> 6 & 63));
		utf8[2] = (char)(0x80 | (c & 63));
		size = 3;
	} else {
		utf8[0] = (char)(0xf0 | c >> 18);
		utf8[1] = (char)(0x80 | (c >> 12 & 63));
		utf8[2] = (char)(0x80 | (c >> 6 & 63));
		utf8[3] = (char)(0x80 | (c & 63));
		size = 4;
	}
	/* Surrogates come out as malformed UTF-8, which pop() refuses. */
	return append_text(p, utf8, size);
}

/* "&#65;", "&#x41;": p->at is behind the "&#", `end` at the ";". */
static int numeric_entity(struct xml_parser *p, const char *end)
{
	bool hex = p->at < end && *p->at == 'x';
	uint32_t value = 0;

	if (hex)
		p->at++;
	if (p->at == end)
		return -EBADMSG;
	for (; p->at < end; p->at++) {
		unsigned char c = (unsigned char)*p->at;
		uint32_t digit;

		if (isdigit(c))
			digit = c - '0';
		else if (hex && isxdigit(c))
			digit = (uint32_t)tolower(c) - 'a' + 10;
		else
			return -EBADMSG;
		value = value * (hex ? 16 : 10) + digit;
		if (value > 0x10ffff)
			return -EBADMSG;
	}
	p->at++;
	return append_code_point(p, value);
}

static int entity(struct xml_parser *p)
{
	static const struct {
		const char *name;
		char value;
	} known[] = { { "&lt;", '<' },
		      { "&gt;", '>' },
		      { "&amp;", '&' },
		      { "&quot;", '"' },
		      { "&apos;", '\'' } };
	const char *end;

	if (p->depth == 0)
		return -EBADMSG;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (looking_at(p, known[i].name)) {
			p->at += strlen(known[i].name);
			return append_text(p, &known[i].value, 1);
		}
	}
	end = memchr(p->at, ';', (size_t)(p->end - p->at));
	if (!end || !looking_at(p, "&#"))
		return -EBADMSG;
	p->at += 2;
	return numeric_entity(p, end);
}

static int cdata(struct xml_parser *p)
{
	const char *start = p->at + strlen("<![CDATA[");

	p->at = start;
	if (p->depth == 0 || !skip_past(p, "]]>"))
		return -EBADMSG;
	return append_text(p, start, (size_t)(p->at - start) - strlen("]]>"));
}

static int step(struct xml_parser *p)
{
	const char *start = p->at;

	if (looking_at(p, "<!--")) {
		p->at += strlen("<!--");
		return skip_past(p, "-->") ? 0 : -EBADMSG;
	}
	if (looking_at(p, "<![CDATA["))
		return cdata(p);
	if (looking_at(p, "</"))
		return close_tag(p);
	if (*p->at == '<')
		return open_tag(p);
	if (*p->at == '&')
		return entity(p);
	while (p->at < p->end && *p->at != '<' && *p->at != '&')
		p->at++;
	return append_text(p, start, (size_t)(p->at - start));
}

int s3_xml_parse(const void *data, size_t size, s3_xml_fn visit, void *arg)
{
	struct xml_parser p = {
		.at = data,
		.end = (const char *)data + size,
		.visit = visit,
		.arg = arg,
		.text = BUFFER_INIT(S3_XML_TEXT_BYTES),
	};
	int r = 0;

	if (size == 0)
		return -EBADMSG;
	if (looking_at(&p, "\xef\xbb\xbf"))
		p.at += 3;
	skip_space(&p);
	if (looking_at(&p, "<?xml") && !skip_past(&p, "?>"))
		r = -EBADMSG;
	while (r == 0 && p.at < p.end)
		r = step(&p);
	if (r == 0 && (p.depth || !p.root_seen))
		r = -EBADMSG;
	buffer_done(&p.text);
	return r;
}
