#include "meta/document.h"

#include <errno.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/encode.h"
#include "base/file.h"

/* Percent-encoding triples a name. */
#define NAME_TEXT_BYTES (3 * DOCUMENT_NAME_BYTES)

json_t *document_new(const char *format, unsigned int version)
{
	return json_pack("{s:s, s:I}", "format", format, "version",
			 (json_int_t)version);
}

static int broken(struct hib_error *error, const char *label, const char *key,
		  const char *what)
{
	return hib_fail(error, EBADMSG, "%s: \"%s\" is %s", label, key, what);
}

static int check_header(const char *label, const json_t *document,
			const char *format, unsigned int version,
			struct hib_error *error)
{
	const char *found =
		json_string_value(json_object_get(document, "format"));
	const json_t *number = json_object_get(document, "version");
	json_int_t found_version = json_integer_value(number);

	if (!found || strcmp(found, format) != 0)
		return hib_fail(error, EBADMSG,
				"%s: not a file of the format \"%s\"", label,
				format);
	if (!json_is_integer(number) || found_version < 1)
		return broken(error, label, "version", "no version number");
	if (found_version > (json_int_t)version)
		return hib_fail(
			error, EPROTONOSUPPORT,
			"%s: version %lld of the format \"%s\" is newer than the %u that this hibfs knows; use a newer hibfs",
			label, (long long)found_version, format, version);
	return 0;
}

int document_parse(const char *label, const void *data, size_t size,
		   const char *format, unsigned int version, json_t **ret,
		   struct hib_error *error)
{
	json_error_t where;
	json_t *document;
	int r;

	document = json_loadb(data ? data : "", size, JSON_REJECT_DUPLICATES,
			      &where);
	if (!document)
		return hib_fail(error, EBADMSG,
				"%s: broken JSON in line %d, column %d: %s",
				label, where.line, where.column, where.text);
	r = check_header(label, document, format, version, error);
	if (r < 0) {
		json_decref(document);
		return r;
	}
	*ret = document;
	return 0;
}

int document_load(int dirfd, const char *name, const char *label,
		  const char *format, unsigned int version, json_t **ret,
		  struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer text = BUFFER_INIT(DOCUMENT_LIMIT_BYTES);
	int r;

	r = file_read_all(dirfd, name, &text, error);
	if (r < 0)
		return hib_wrap(error, r, "%s", label);
	return document_parse(label, text.data, text.size, format, version, ret,
			      error);
}

int document_save(int dirfd, const char *name, const json_t *document,
		  struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer text = BUFFER_INIT(DOCUMENT_LIMIT_BYTES);
	char *json = json_dumps(document, JSON_INDENT(2));
	int r;

	if (!json)
		return hib_fail_errno(error, ENOMEM, "cannot write %s", name);
	r = buffer_append_string(&text, json);
	if (r == 0)
		r = buffer_append(&text, "\n", 1);
	free(json);
	if (r < 0)
		return hib_fail_errno(error, -r, "cannot write %s", name);
	return file_replace(dirfd, name, text.data, text.size, 0600, error);
}

int document_get_i64(const char *label, const json_t *object, const char *key,
		     int64_t *ret, struct hib_error *error)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value))
		return broken(error, label, key, "not a number");
	*ret = json_integer_value(value);
	return 0;
}

int document_get_u64(const char *label, const json_t *object, const char *key,
		     uint64_t *ret, struct hib_error *error)
{
	int64_t value = 0;
	int r = document_get_i64(label, object, key, &value, error);

	if (r < 0)
		return r;
	if (value < 0)
		return broken(error, label, key, "negative");
	*ret = (uint64_t)value;
	return 0;
}

int document_get_bool(const char *label, const json_t *object, const char *key,
		      bool *ret, struct hib_error *error)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_boolean(value))
		return broken(error, label, key, "neither true nor false");
	*ret = json_is_true(value);
	return 0;
}

int document_get_text(const char *label, const json_t *object, const char *key,
		      char *ret, size_t size, struct hib_error *error)
{
	const json_t *value = json_object_get(object, key);
	const char *text = json_string_value(value);
	size_t length;

	if (!value || json_is_null(value)) {
		ret[0] = 0;
		return 0;
	}
	if (!text)
		return broken(error, label, key, "not a string");
	length = strlen(text);
	if (length >= size)
		return broken(error, label, key, "too long");
	memcpy(ret, text, length + 1);
	return 0;
}

json_t *document_name(const char *name)
{
	CLEANUP(buffer_done)
	struct buffer text = BUFFER_INIT(NAME_TEXT_BYTES);
	bool utf8;
	int r = 0;

	if (!name || !*name)
		return json_null();
	utf8 = utf8_is_valid(name, strlen(name));
	for (const char *at = name; *at && r == 0; at++) {
		unsigned char c = (unsigned char)*at;

		if (c >= 0x20 && c != 0x7f && c != '/' && c != '%' &&
		    (utf8 || c < 0x80))
			r = buffer_append(&text, at, 1);
		else
			r = buffer_append_format(&text, "%%%02X", c);
	}
	return r < 0 ? NULL : json_string(buffer_string(&text));
}

int document_get_name(const char *label, const json_t *object, const char *key,
		      char ret[DOCUMENT_NAME_BYTES], struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer name = BUFFER_INIT(DOCUMENT_NAME_BYTES - 1);
	char text[NAME_TEXT_BYTES];
	int r;

	r = document_get_text(label, object, key, text, sizeof(text), error);
	if (r < 0)
		return r;
	if (text[0] == 0) {
		ret[0] = 0;
		return 0;
	}
	r = decode_percent(&name, text);
	if (r == -ENOMEM)
		return hib_fail_errno(error, ENOMEM, "%s", label);
	if (r < 0 || strlen(buffer_string(&name)) != name.size ||
	    !name_is_plain(buffer_string(&name)))
		return broken(error, label, key, "not a name");
	memcpy(ret, name.data, name.size + 1);
	return 0;
}

/* The length of the longest well-formed start of `text`. */
static size_t utf8_prefix(const char *text, size_t size)
{
	size_t good = 0;

	while (good < size) {
		size_t length = 1;

		while (length <= 4 && good + length <= size &&
		       !utf8_is_valid(text + good, length))
			length++;
		if (length > 4 || good + length > size)
			break;
		good += length;
	}
	return good;
}

json_t *document_text(const char *text)
{
	CLEANUP_FREE char *copy = NULL;
	size_t size, at = 0;

	if (!text || !*text)
		return json_null();
	size = strlen(text);
	if (utf8_is_valid(text, size))
		return json_stringn(text, size);
	copy = strdup(text);
	if (!copy)
		return NULL;
	for (;;) {
		at += utf8_prefix(copy + at, size - at);
		if (at == size)
			return json_stringn(copy, size);
		copy[at++] = '?';
	}
}
