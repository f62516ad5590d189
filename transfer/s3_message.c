#include "transfer/s3_message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/encode.h"
#include "transfer/s3_xml.h"

/* Copies printable ASCII, cut at the end if too long. */
static void copy_text(char *ret, size_t size, const char *text)
{
	size_t n = 0;

	for (; *text && n + 1 < size; text++)
		ret[n++] = *text >= ' ' && *text <= '~' ? *text : '?';
	ret[n] = 0;
}

static bool copy_whole(char *ret, size_t size, const char *text)
{
	size_t length = strlen(text);

	if (length == 0 || length >= size)
		return false;
	memcpy(ret, text, length + 1);
	return true;
}

/* --- requests ------------------------------------------------------------- */

int s3_append_path(struct buffer *out, const char *path)
{
	int r = 0;

	while (r == 0 && *path) {
		size_t length = strcspn(path, "/");

		r = encode_percent(out, path, length);
		path += length;
		if (r == 0 && *path == '/') {
			r = buffer_append_string(out, "/");
			path++;
		}
	}
	return r;
}

static int append_parameter(struct buffer *out, const char *name,
			    const char *value)
{
	int r = buffer_append_format(out, "%s%s=", out->size ? "&" : "", name);

	return r < 0 ? r : encode_percent(out, value, strlen(value));
}

int s3_append_list_query(struct buffer *out, const char *prefix,
			 const char *after, const char *token)
{
	int r = 0;

	if (token)
		r = append_parameter(out, "continuation-token", token);
	if (r == 0)
		r = append_parameter(out, "encoding-type", "url");
	if (r == 0)
		r = append_parameter(out, "list-type", "2");
	if (r == 0)
		r = append_parameter(out, "max-keys", "1000");
	if (r == 0)
		r = append_parameter(out, "prefix", prefix);
	if (r == 0 && after && !token)
		r = append_parameter(out, "start-after", after);
	return r;
}

static int append_xml_text(struct buffer *out, const char *text)
{
	int r = 0;

	for (; *text && r == 0; text++) {
		switch (*text) {
		case '&':
			r = buffer_append_string(out, "&amp;");
			break;
		case '<':
			r = buffer_append_string(out, "&lt;");
			break;
		case '>':
			r = buffer_append_string(out, "&gt;");
			break;
		default:
			r = buffer_append(out, text, 1);
		}
	}
	return r;
}

int s3_append_delete_body(struct buffer *out, const char *prefix,
			  const char *const *keys, size_t count)
{
	int r = buffer_append_string(
		out,
		"<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");

	for (size_t i = 0; i < count && r == 0; i++) {
		r = buffer_append_string(out, "<Object><Key>");
		if (r == 0)
			r = append_xml_text(out, prefix);
		if (r == 0)
			r = append_xml_text(out, keys[i]);
		if (r == 0)
			r = buffer_append_string(out, "</Key></Object>");
	}
	return r < 0 ? r : buffer_append_string(out, "</Delete>");
}

int s3_append_complete_body(struct buffer *out,
			    const char (*etags)[S3_ETAG_BYTES], size_t count)
{
	int r = buffer_append_string(
		out,
		"<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");

	for (size_t i = 0; i < count && r == 0; i++) {
		r = buffer_append_format(
			out, "<Part><PartNumber>%zu</PartNumber><ETag>", i + 1);
		if (r == 0)
			r = append_xml_text(out, etags[i]);
		if (r == 0)
			r = buffer_append_string(out, "</ETag></Part>");
	}
	return r < 0 ? r
		     : buffer_append_string(out, "</CompleteMultipartUpload>");
}

/* --- error documents ------------------------------------------------------ */

static int visit_error(void *arg, const char *path, const char *text)
{
	struct s3_error *error = arg;

	if (strncmp(path, "Error", 5) != 0 || (path[5] && path[5] != '/'))
		return -EBADMSG;
	if (!text)
		return 0;
	if (strcmp(path, "Error/Code") == 0)
		copy_text(error->code, sizeof(error->code), text);
	else if (strcmp(path, "Error/Message") == 0)
		copy_text(error->message, sizeof(error->message), text);
	else if (strcmp(path, "Error/Region") == 0)
		copy_text(error->region, sizeof(error->region), text);
	return 0;
}

int s3_parse_error(const void *data, size_t size, struct s3_error *ret)
{
	struct s3_error error = { 0 };
	int r = s3_xml_parse(data, size, visit_error, &error);

	if (r == 0 && !*error.code)
		r = -EBADMSG;
	if (r == 0)
		*ret = error;
	return r;
}

/* --- listings ------------------------------------------------------------- */

struct list_parser {
	const char *strip;
	struct store_page *page;
	bool is_list, encoded;
	char key[STORE_KEY_BYTES * 3 + 1]; /* as in the document */
	struct store_object object;
	bool has_key, has_size;
};

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* encoding-type=url is a form's encoding: '+' is a blank. In place. */
static bool decode_url(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (*text == '+') {
			*to++ = ' ';
		} else if (*text == '%') {
			int high = hex_digit(text[1]);
			int low = high < 0 ? -1 : hex_digit(text[2]);

			if (low < 0 || (high == 0 && low == 0))
				return false;
			*to++ = (char)(high << 4 | low);
			text += 2;
		} else {
			*to++ = *text;
		}
	}
	*to = 0;
	return true;
}

static bool parse_size(const char *text, uint64_t *ret)
{
	uint64_t value = 0;

	if (!*text || strlen(text) > 18)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (uint64_t)(*text - '0');
	}
	*ret = value;
	return true;
}

/* "2009-10-12T17:50:30.000Z"; 0 when it is something else. */
static int64_t parse_time(const char *text)
{
	struct tm tm = { 0 };
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	int64_t ms = 0, scale = 100;

	if (!end)
		return 0;
	if (*end == '.')
		for (end++; *end >= '0' && *end <= '9'; end++, scale /= 10)
			ms += (*end - '0') * scale;
	return (int64_t)timegm(&tm) * 1000 + ms;
}

/* The encoding may be named after the keys, so keys are decoded at the end. */
static int add_entry(struct list_parser *list)
{
	size_t strip = strlen(list->strip);
	int r;

	if (!list->has_key || !list->has_size)
		return -EBADMSG;
	if (list->encoded && !decode_url(list->key))
		return -EBADMSG;
	if (strncmp(list->key, list->strip, strip) != 0)
		return -EBADMSG;
	if (strlen(list->key + strip) >= STORE_KEY_BYTES)
		return -EBADMSG;
	/* What lies at the prefix itself is some tool's directory marker. */
	r = list->key[strip] ? store_page_add(list->page, list->key + strip,
					      &list->object)
			     : 0;
	list->object = (struct store_object){ 0 };
	list->has_key = list->has_size = false;
	return r == -EMSGSIZE ? -EBADMSG : r;
}

static int visit_content(struct list_parser *list, const char *name,
			 const char *text)
{
	if (!text)
		return 0;
	if (strcmp(name, "Key") == 0) {
		list->has_key = copy_whole(list->key, sizeof(list->key), text);
		return list->has_key ? 0 : -EBADMSG;
	}
	if (strcmp(name, "Size") == 0) {
		list->has_size = parse_size(text, &list->object.size);
		return list->has_size ? 0 : -EBADMSG;
	}
	if (strcmp(name, "LastModified") == 0)
		list->object.modified_ms = parse_time(text);
	return 0;
}

static int visit_list(void *arg, const char *path, const char *text)
{
	static const char root[] = "ListBucketResult";
	struct list_parser *list = arg;

	if (strncmp(path, root, sizeof(root) - 1) != 0)
		return -EBADMSG;
	path += sizeof(root) - 1;
	if (!*path) {
		list->is_list = true;
		return 0;
	}
	if (strncmp(path, "/Contents/", 10) == 0)
		return visit_content(list, path + 10, text);
	if (strcmp(path, "/Contents") == 0)
		return add_entry(list);
	if (!text)
		return 0;
	if (strcmp(path, "/IsTruncated") == 0)
		list->page->truncated = strcmp(text, "true") == 0;
	if (strcmp(path, "/NextContinuationToken") == 0 && *text) {
		free(list->page->token);
		list->page->token = strdup(text);
		return list->page->token ? 0 : -ENOMEM;
	}
	return 0;
}

static int visit_encoding(void *arg, const char *path, const char *text)
{
	if (text && strcmp(path, "ListBucketResult/EncodingType") == 0)
		*(bool *)arg = strcmp(text, "url") == 0;
	return 0;
}

int s3_parse_list(const void *data, size_t size, const char *strip,
		  struct store_page *page)
{
	struct list_parser list = { .strip = strip, .page = page };
	int r;

	store_page_clear(page);
	free(TAKE_PTR(page->token));
	/* Some servers name the encoding after the keys it applies to. */
	r = s3_xml_parse(data, size, visit_encoding, &list.encoded);
	if (r == 0)
		r = s3_xml_parse(data, size, visit_list, &list);
	if (r == 0 && !list.is_list)
		r = -EBADMSG;
	if (r < 0)
		store_page_clear(page);
	return r;
}

/* --- deletions ------------------------------------------------------------ */

struct delete_parser {
	const char *prefix;
	const char *const *keys;
	size_t count, next; /* where the next key is expected */
	bool *confirmed;
	bool is_result;
	char key[STORE_KEY_BYTES * 2];
	struct s3_error error;
	struct s3_error first_error;
	char first_error_key[STORE_KEY_BYTES * 2];
};

/* Servers answer in the order of the question, mostly. */
static void confirm(struct delete_parser *parser, const char *key)
{
	size_t prefix = strlen(parser->prefix);

	if (strncmp(key, parser->prefix, prefix) != 0)
		return;
	for (size_t i = 0; i < parser->count; i++) {
		size_t at = (parser->next + i) % parser->count;

		if (strcmp(parser->keys[at], key + prefix) == 0) {
			parser->confirmed[at] = true;
			parser->next = at + 1;
			return;
		}
	}
}

static void end_delete_error(struct delete_parser *parser)
{
	if (strcmp(parser->error.code, "NoSuchKey") == 0) {
		confirm(parser, parser->key);
	} else if (!*parser->first_error.code) {
		parser->first_error = parser->error;
		memcpy(parser->first_error_key, parser->key,
		       sizeof(parser->key));
	}
	parser->error = (struct s3_error){ 0 };
	*parser->key = 0;
}

static int visit_delete(void *arg, const char *path, const char *text)
{
	static const char root[] = "DeleteResult";
	struct delete_parser *parser = arg;

	if (strncmp(path, root, sizeof(root) - 1) != 0)
		return -EBADMSG;
	path += sizeof(root) - 1;
	if (!*path) {
		parser->is_result = true;
	} else if (strcmp(path, "/Deleted") == 0) {
		confirm(parser, parser->key);
		*parser->key = 0;
	} else if (strcmp(path, "/Error") == 0) {
		end_delete_error(parser);
	} else if (!text) {
		return 0;
	} else if (strcmp(path, "/Deleted/Key") == 0 ||
		   strcmp(path, "/Error/Key") == 0) {
		if (!copy_whole(parser->key, sizeof(parser->key), text))
			return -EBADMSG;
	} else if (strcmp(path, "/Error/Code") == 0) {
		copy_text(parser->error.code, S3_CODE_BYTES, text);
	} else if (strcmp(path, "/Error/Message") == 0) {
		copy_text(parser->error.message, sizeof(parser->error.message),
			  text);
	}
	return 0;
}

int s3_parse_delete(const void *data, size_t size, const char *prefix,
		    const char *const *keys, size_t count, const char **ret_key,
		    struct s3_error *ret_error)
{
	CLEANUP_FREE bool *confirmed = calloc(count ? count : 1, sizeof(bool));
	struct delete_parser parser = {
		.prefix = prefix,
		.keys = keys,
		.count = count,
		.confirmed = confirmed,
	};
	size_t first = 0;
	int r;

	if (!confirmed)
		return -ENOMEM;
	r = s3_xml_parse(data, size, visit_delete, &parser);
	if (r < 0)
		return r;
	if (!parser.is_result)
		return -EBADMSG;
	while (first < count && confirmed[first])
		first++;
	if (first == count)
		return 0;
	*ret_key = keys[first];
	*ret_error = parser.first_error;
	return -EIO;
}

/* --- multipart ------------------------------------------------------------ */

static int visit_upload_id(void *arg, const char *path, const char *text)
{
	char *id = arg;

	if (!text || strcmp(path, "InitiateMultipartUploadResult/UploadId"))
		return 0;
	return copy_whole(id, S3_UPLOAD_ID_BYTES, text) ? 0 : -EBADMSG;
}

int s3_parse_upload_id(const void *data, size_t size,
		       char ret_id[S3_UPLOAD_ID_BYTES])
{
	char id[S3_UPLOAD_ID_BYTES] = "";
	int r = s3_xml_parse(data, size, visit_upload_id, id);

	if (r == 0 && !*id)
		r = -EBADMSG;
	if (r == 0)
		memcpy(ret_id, id, sizeof(id));
	return r;
}

static int visit_complete(void *arg, const char *path, const char *text)
{
	(void)text;
	if (strcmp(path, "CompleteMultipartUploadResult") == 0)
		*(bool *)arg = true;
	return 0;
}

int s3_parse_complete(const void *data, size_t size)
{
	bool complete = false;
	int r = s3_xml_parse(data, size, visit_complete, &complete);

	return r == 0 && !complete ? -EBADMSG : r;
}
