/*
 * What options.c (parsing) and options_table.c (what there is, and what may be)
 * share. Private to the two.
 */
#ifndef HIBFS_META_OPTIONS_TABLE_H
#define HIBFS_META_OPTIONS_TABLE_H

#include "meta/options.h"

enum option_type {
	OPTION_TEXT, /* char *; least is 1 if it has to be UTF-8 */
	OPTION_FLAG, /* bool */
	OPTION_CHOICE, /* unsigned: least + the place of the word in help.value */
	OPTION_BYTES, /* uint64_t, least to most */
	OPTION_POWER_OF_TWO, /* uint64_t, least to most */
	OPTION_LATER, /* designed, refused by this version */
};

struct option {
	struct option_help help;
	enum option_type type;
	size_t offset; /* in struct options */
	uint64_t least, most;
};

/* Ends with an entry without a name. */
extern const struct option option_table[];

/* Ascending: a later one wins over an earlier one. */
enum option_origin {
	OPTION_FROM_DEFAULT,
	OPTION_FROM_CONF,
	OPTION_FROM_COMMAND_LINE,
};

enum option_word {
	OPTION_WORD_MOUNT, /* handed on to the mount */
	OPTION_WORD_IGNORED, /* of mount(8), fstab(5) or systemd, not for us */
	OPTION_WORD_SECRET, /* a credential */
	OPTION_WORD_UNKNOWN,
};

const struct option *option_find(const char *name); /* NULL: none */
enum option_word option_classify(const char *name);
/* The option whose name is the fewest edits away. */
const char *option_nearest(const char *name);

/* What depends on more than one option; the socket is not yet set. */
int options_check(struct options *options, struct hib_error *error);

#endif
