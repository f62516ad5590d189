#include "control/target.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/encode.h"
#include "base/file.h"

/* What stands for itself: everything printable but the two that mean something.
 */
static bool is_literal(unsigned char c)
{
	return c >= 0x20 && c != 0x7f && c != '/' && c != '%';
}

static int parse_part(const char *text, size_t size, const char *what,
		      char *ret_name, struct hib_error *error)
{
	CLEANUP(buffer_done)
	struct buffer name = BUFFER_INIT(3 * TARGET_NAME_BYTES);
	CLEANUP(buffer_done)
	struct buffer part = BUFFER_INIT(3 * TARGET_NAME_BYTES);

	if (buffer_append(&part, text, size) < 0)
		return hib_fail(
			error, EINVAL,
			"the %s name in the target is longer than 255 bytes",
			what);
	if (decode_percent(&name, buffer_string(&part)) < 0)
		return hib_fail(
			error, EINVAL,
			"the %s name \"%s\" has a '%%' that two hexadecimal digits do not follow; write '%%25' for the character itself",
			what, buffer_string(&part));
	if (memchr(buffer_string(&name), 0, name.size) ||
	    !name_is_plain(buffer_string(&name)) ||
	    strcmp(buffer_string(&name), ".hibfs") == 0)
		return hib_fail(error, EINVAL,
				"\"%s\" cannot be the name of a %s",
				buffer_string(&part), what);
	memcpy(ret_name, buffer_string(&name), name.size + 1);
	return 0;
}

int target_parse(const char *text, unsigned shard_depth, struct target *ret,
		 struct hib_error *error)
{
	const char *slash = strchr(text, '/');
	struct target target = { 0 };
	int r;

	if (shard_depth == 1) {
		if (slash)
			return hib_fail(
				error, EINVAL,
				"the target \"%.300s\" has two parts, but with shard_depth=1 each directory of the mount is a shard: give its name alone",
				text);
		r = parse_part(text, strlen(text), "shard", target.bucket,
			       error);
		memcpy(target.shard, target.bucket, sizeof(target.shard));
	} else if (!slash) {
		r = parse_part(text, strlen(text), "bucket", target.bucket,
			       error);
	} else {
		r = parse_part(text, (size_t)(slash - text), "bucket",
			       target.bucket, error);
		if (r == 0)
			r = parse_part(slash + 1, strlen(slash + 1), "shard",
				       target.shard, error);
	}
	if (r == 0)
		*ret = target;
	return r;
}

static int append_part(struct buffer *out, const char *name)
{
	bool utf8 = utf8_is_valid(name, strlen(name));
	int r = 0;

	for (const char *p = name; *p && r == 0; p++) {
		unsigned char c = (unsigned char)*p;

		if (is_literal(c) && (utf8 || c < 0x80))
			r = buffer_append(out, p, 1);
		else
			r = buffer_append_format(out, "%%%02X", c);
	}
	return r;
}

int target_format(struct buffer *out, const char *bucket, const char *shard,
		  unsigned shard_depth)
{
	int r = append_part(out, bucket);

	if (r == 0 && shard_depth != 1 && shard && *shard) {
		r = buffer_append_string(out, "/");
		if (r == 0)
			r = append_part(out, shard);
	}
	return r;
}

void target_text(const char *bucket, const char *shard, unsigned shard_depth,
		 char ret_text[TARGET_TEXT_BYTES])
{
	CLEANUP(buffer_done)
	struct buffer text = BUFFER_INIT(TARGET_TEXT_BYTES - 1);

	target_format(&text, bucket, shard, shard_depth);
	memcpy(ret_text, buffer_string(&text), text.size + 1);
}
