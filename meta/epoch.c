#include "meta/epoch.h"

#include <errno.h>
#include <stdlib.h>

#include "meta/document.h"

/* Takes over both; either may be NULL for want of memory. */
static int format(json_t *object, json_t *members, struct buffer *out,
		  struct hib_error *error)
{
	char *text = NULL;
	int r;

	if (object && members && json_object_update(object, members) == 0)
		text = json_dumps(object, JSON_INDENT(2));
	r = text ? buffer_append_string(out, text) : -ENOMEM;
	free(text);
	json_decref(object);
	json_decref(members);
	return r < 0 ? hib_fail_errno(error, -r, "build an object") : 0;
}

int epoch_format(const struct epoch *epoch, struct buffer *out,
		 struct hib_error *error)
{
	return format(document_new(EPOCH_FORMAT, EPOCH_VERSION),
		      json_pack("{s:I, s:o, s:s, s:I}", "epoch",
				(json_int_t)epoch->number, "node",
				document_name(epoch->node), "task", epoch->task,
				"taken_ms", (json_int_t)epoch->taken_ms),
		      out, error);
}

int epoch_parse(const char *label, const void *data, size_t size,
		struct epoch *ret, struct hib_error *error)
{
	struct epoch epoch = { 0 };
	json_t *object;
	int r = document_parse(label, data, size, EPOCH_FORMAT, EPOCH_VERSION,
			       &object, error);

	if (r < 0)
		return r;
	r = document_get_u64(label, object, "epoch", &epoch.number, error);
	if (r == 0)
		r = document_get_name(label, object, "node", epoch.node, error);
	if (r == 0)
		r = document_get_text(label, object, "task", epoch.task,
				      sizeof(epoch.task), error);
	if (r == 0)
		r = document_get_i64(label, object, "taken_ms", &epoch.taken_ms,
				     error);
	json_decref(object);
	if (r == 0)
		*ret = epoch;
	return r;
}

int head_format(const struct manifest *manifest, struct buffer *out,
		struct hib_error *error)
{
	return format(document_new(HEAD_FORMAT, HEAD_VERSION),
		      json_pack("{s:I, s:I, s:o, s:I, s:I, s:I}", "seq",
				(json_int_t)manifest->seq, "epoch",
				(json_int_t)manifest->epoch, "node",
				document_name(manifest->node), "logical_bytes",
				(json_int_t)manifest->logical_bytes, "files",
				(json_int_t)manifest->file_count,
				"committed_ms",
				(json_int_t)manifest->committed_ms),
		      out, error);
}
