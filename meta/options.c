#include "meta/options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/encode.h"
#include "base/file.h"
#include "base/log.h"
#include "meta/document.h"
#include "meta/options_table.h"

#define VALUE_BYTES 8192 /* the longest value */
#define LIST_BYTES (64u << 10)
#define CONF_BYTES (256u << 10)

static void *member(struct options *options, const struct option *option)
{
	return (char *)options + option->offset;
}

void options_init(struct options *options)
{
	*options = (struct options){
		.shard_depth = 2,
		.on_access = ON_ACCESS_RESUME,
		.passthrough = PASSTHROUGH_AUTO,
		.compression = COMPRESSION_AUTO,
		.log_level = LOG_LEVEL_INFO,
		.chunk_bytes = 256u << 10,
		.pack_bytes = 16u << 20,
	};
}

void options_done(struct options *options)
{
	for (const struct option *option = option_table; option->help.name;
	     option++) {
		char **text = member(options, option);

		if (option->type != OPTION_TEXT)
			continue;
		free(*text);
		*text = NULL;
	}
	free(options->mount_options);
	options->mount_options = NULL;
}

const struct option_help *options_help(size_t index)
{
	for (size_t i = 0; i < index; i++)
		if (!option_table[i].help.name)
			return NULL;
	return option_table[index].help.name ? &option_table[index].help : NULL;
}

/* A number with K, M, G or T (of 1024), and "iB" or "B" after it if need be. */
static int parse_bytes(const char *text, uint64_t *ret)
{
	static const char units[] = "KMGTkmgt";
	unsigned long long value;
	unsigned int shift = 0;
	const char *unit;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		shift = 10 * (unsigned int)((unit - units) % 4 + 1);
		end++;
		if (*end == 'i')
			end++;
	}
	if (*end == 'B')
		end++;
	if (*end)
		return -EINVAL;
	if (value > (UINT64_MAX >> 1) >> shift)
		return -ERANGE;
	*ret = (uint64_t)value << shift;
	return 0;
}

static int refuse(struct hib_error *error, const struct option *option,
		  const char *value, const char *why)
{
	return hib_fail(error, EINVAL, "option %s=%.200s: %s",
			option->help.name, value, why);
}

static int set_bytes(struct options *options, const struct option *option,
		     const char *value, struct hib_error *error)
{
	uint64_t number;

	if (parse_bytes(value, &number) < 0)
		return refuse(
			error, option, value,
			"not a number of bytes, such as 65536, 256K, 16M or 1G");
	if (number < option->least || number > option->most)
		return hib_fail(
			error, EINVAL,
			"option %s=%s: must be between %llu and %llu bytes",
			option->help.name, value,
			(unsigned long long)option->least,
			(unsigned long long)option->most);
	if (option->type == OPTION_POWER_OF_TWO && (number & (number - 1)))
		return refuse(error, option, value,
			      "must be a power of two, such as 256K or 1M");
	*(uint64_t *)member(options, option) = number;
	return 0;
}

/* The values of an OPTION_CHOICE stand in its help, with '|' between them. */
static int set_choice(struct options *options, const struct option *option,
		      const char *value, struct hib_error *error)
{
	const char *choice = option->help.value;
	unsigned int index = 0;

	while (*choice) {
		size_t length = strcspn(choice, "|");

		if (strlen(value) == length &&
		    strncmp(choice, value, length) == 0) {
			*(unsigned int *)member(options, option) =
				index + (unsigned int)option->least;
			return 0;
		}
		choice += length + (choice[length] == '|');
		index++;
	}
	return hib_fail(error, EINVAL, "option %s=%.200s: must be one of %s",
			option->help.name, value, option->help.value);
}

static int set_flag(struct options *options, const struct option *option,
		    const char *value, struct hib_error *error)
{
	static const char *const words[][2] = { { "no", "yes" },
						{ "off", "on" },
						{ "false", "true" },
						{ "0", "1" } };
	bool *flag = member(options, option);

	if (!value) {
		*flag = true;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		for (int on = 0; on < 2; on++) {
			if (strcmp(value, words[i][on]) == 0) {
				*flag = on;
				return 0;
			}
		}
	}
	return refuse(error, option, value,
		      "is a flag: write it alone, or with yes or no");
}

static int set_text(struct options *options, const struct option *option,
		    const char *value, struct hib_error *error)
{
	char **text = member(options, option);
	char *copy;

	if (!utf8_is_valid(value, strlen(value)) && option->least)
		return hib_fail(error, EINVAL, "option %s: not UTF-8",
				option->help.name);
	copy = strdup(value);
	if (!copy)
		return hib_fail_errno(error, ENOMEM, "option %s",
				      option->help.name);
	free(*text);
	*text = copy;
	return 0;
}

static int set_option(struct options *options, const struct option *option,
		      const char *value, struct hib_error *error)
{
	if (option->type == OPTION_FLAG)
		return set_flag(options, option, value, error);
	if (!value || !*value)
		return hib_fail(error, EINVAL, "option %s needs a value: %s=%s",
				option->help.name, option->help.name,
				option->help.value);
	switch (option->type) {
	case OPTION_CHOICE:
		return set_choice(options, option, value, error);
	case OPTION_BYTES:
	case OPTION_POWER_OF_TWO:
		return set_bytes(options, option, value, error);
	case OPTION_LATER:
		return hib_fail(
			error, EOPNOTSUPP,
			"option %s is not supported by this version of hibfs",
			option->help.name);
	default:
		return set_text(options, option, value, error);
	}
}

/* Appends a word of mount(8) for the mount itself. */
static int add_mount_option(struct options *options, const char *word)
{
	char *joined;
	int n;

	if (!options->mount_options) {
		options->mount_options = strdup(word);
		return options->mount_options ? 0 : -ENOMEM;
	}
	n = asprintf(&joined, "%s,%s", options->mount_options, word);
	if (n < 0)
		return -ENOMEM;
	free(options->mount_options);
	options->mount_options = joined;
	return 0;
}

static int set_mount_word(struct options *options, const char *name,
			  const char *value, struct hib_error *error)
{
	CLEANUP_FREE char *word = NULL;
	int r;

	if (strcmp(name, "ro") == 0)
		options->read_only = true;
	else if (strcmp(name, "rw") == 0)
		options->read_only = false;
	if (asprintf(&word, "%s%s%s", name, value ? "=" : "",
		     value ? value : "") < 0) {
		word = NULL;
		return hib_fail_errno(error, ENOMEM, "option %s", name);
	}
	/* It goes into a list again: a comma in it would be two words. */
	if (strpbrk(word, ",\\"))
		return hib_fail(
			error, EINVAL,
			"option %s: a value with a comma cannot be handed to the mount",
			name);
	r = add_mount_option(options, word);
	return r < 0 ? hib_fail_errno(error, -r, "option %s", name) : 0;
}

/* One option from `origin`; `value` is NULL when there was no '='. */
static int apply(struct options *options, enum option_origin origin,
		 const char *name, const char *value, struct hib_error *error)
{
	const struct option *option = option_find(name);
	unsigned char *from;

	if (!option) {
		switch (option_classify(name)) {
		case OPTION_WORD_MOUNT:
			return set_mount_word(options, name, value, error);
		case OPTION_WORD_IGNORED:
			return 0;
		case OPTION_WORD_SECRET:
			return hib_fail(
				error, EINVAL,
				"option %.64s: credentials are never given as options, where every user of the machine can read them; put them into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), into ~/.aws/credentials, or into a file of mode 0600 named by s3_credentials=FILE",
				name);
		default:
			return hib_fail(
				error, EINVAL,
				"unknown option \"%.64s\"; did you mean \"%s\"?",
				name, option_nearest(name));
		}
	}
	from = &options->origins[option - option_table];
	if (*from > origin)
		return 0;
	if (strcmp(name, "conf") == 0 && origin == OPTION_FROM_CONF)
		return hib_fail(
			error, EINVAL,
			"option conf: a conf file cannot name another one");
	*from = (unsigned char)origin;
	return set_option(options, option, value, error);
}

/* Takes one item of a list, unescaped, to *ret; returns where the next begins. */
static const char *next_item(const char *list, struct buffer *item, int *ret_r)
{
	int r = 0;

	buffer_clear(item);
	while (*list && *list != ',' && r == 0) {
		if (*list == '\\' && (list[1] == ',' || list[1] == '\\'))
			list++;
		r = buffer_append(item, list++, 1);
	}
	*ret_r = r;
	return *list ? list + 1 : list;
}

static int apply_item(struct options *options, enum option_origin origin,
		      char *item, struct hib_error *error)
{
	char *value = strchr(item, '=');

	if (value)
		*value++ = 0;
	if (!*item)
		return hib_fail(error, EINVAL, "an option without a name");
	return apply(options, origin, item, value, error);
}

int options_parse_list(struct options *options, const char *list,
		       struct hib_error *error)
{
	CLEANUP(buffer_done) struct buffer item = BUFFER_INIT(VALUE_BYTES);
	int r = 0;

	if (strnlen(list, LIST_BYTES) == LIST_BYTES)
		return hib_fail(error, EINVAL, "the options are too long");
	while (*list && r == 0) {
		list = next_item(list, &item, &r);
		if (r < 0)
			return hib_fail_errno(error, -r, "an option");
		/* ",," and a comma at the end: scripts make them. */
		if (item.size == 0)
			continue;
		r = apply_item(options, OPTION_FROM_COMMAND_LINE,
			       (char *)item.data, error);
	}
	return r;
}

/* Without blanks on both sides; cuts the end off in place. */
static char *trim(char *text)
{
	size_t length;

	text += strspn(text, " \t\r");
	length = strlen(text);
	while (length > 0 && strchr(" \t\r", text[length - 1]))
		length--;
	text[length] = 0;
	return text;
}

static int apply_conf_line(struct options *options, char *line,
			   struct hib_error *error)
{
	char *name = trim(line);
	char *value = strchr(name, '=');

	if (!*name || *name == '#')
		return 0;
	if (value) {
		*value = 0;
		value = trim(value + 1);
		name = trim(name);
	}
	if (!*name)
		return hib_fail(error, EINVAL, "an option without a name");
	return apply(options, OPTION_FROM_CONF, name, value, error);
}

int options_parse_conf(struct options *options, const char *label,
		       const char *text, struct hib_error *error)
{
	unsigned int number = 1;
	int r = 0;

	while (*text && r == 0) {
		size_t length = strcspn(text, "\n");
		CLEANUP_FREE char *line = strndup(text, length);

		if (!line)
			return hib_fail_errno(error, ENOMEM, "%s", label);
		r = apply_conf_line(options, line, error);
		if (r < 0)
			return hib_wrap(error, r, "%s, line %u", label, number);
		text += length + (text[length] == '\n');
		number++;
	}
	return r;
}

static int read_conf(struct options *options, struct hib_error *error)
{
	CLEANUP(buffer_done) struct buffer text = BUFFER_INIT(CONF_BYTES);
	int r;

	if (!options->conf)
		return 0;
	r = file_read_all(AT_FDCWD, options->conf, &text, error);
	if (r < 0)
		return hib_wrap(error, r, "option conf");
	if (memchr(buffer_string(&text), 0, text.size))
		return hib_fail(error, EINVAL, "option conf: %s is no text",
				options->conf);
	return options_parse_conf(options, options->conf, buffer_string(&text),
				  error);
}

int options_finish(struct options *options, const char *mount_point,
		   const char *run_directory, struct hib_error *error)
{
	char path[OPTION_SOCKET_BYTES];
	int r = read_conf(options, error);

	if (r == 0)
		r = options_check(options, error);
	if (r < 0 || options->socket)
		return r;
	r = options_socket_path(run_directory, mount_point, path, error);
	if (r < 0)
		return r;
	options->socket = strdup(path);
	if (!options->socket)
		return hib_fail_errno(error, ENOMEM, "option socket");
	return 0;
}

static json_t *value_to_json(const struct options *options,
			     const struct option *option)
{
	const void *at = (const char *)options + option->offset;
	const char *text, *choice;
	unsigned int index;

	switch (option->type) {
	case OPTION_TEXT:
		text = *(char *const *)at;
		return document_text(text);
	case OPTION_FLAG:
		return json_boolean(*(const bool *)at);
	case OPTION_CHOICE:
		choice = option->help.value;
		index = *(const unsigned int *)at - (unsigned int)option->least;
		for (; index > 0; index--)
			choice += strcspn(choice, "|") + 1;
		return json_stringn(choice, strcspn(choice, "|"));
	case OPTION_LATER:
		return json_null();
	default:
		return json_integer((json_int_t) * (const uint64_t *)at);
	}
}

json_t *options_to_json(const struct options *options)
{
	static const char *const origins[] = {
		[OPTION_FROM_DEFAULT] = "default",
		[OPTION_FROM_CONF] = "conf",
		[OPTION_FROM_COMMAND_LINE] = "command line",
	};
	json_t *object = json_object();

	for (size_t i = 0; object && option_table[i].help.name; i++) {
		json_t *item;

		if (option_table[i].type == OPTION_LATER)
			continue;
		item = json_pack("{s:o, s:s}", "value",
				 value_to_json(options, &option_table[i]),
				 "origin", origins[options->origins[i]]);
		if (!item ||
		    json_object_set_new(object, option_table[i].help.name,
					item) < 0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}
