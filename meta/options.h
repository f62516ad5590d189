/*
 * The options of the command line (-o), of fstab and of a conf file: one table
 * says what there is, of which type, with what default and help; --help and the
 * manual are printed from it. Used by control/main.c, and by hibctl for the
 * socket's default path.
 *
 *	options_init(&options);
 *	for each -o LIST: options_parse_list(&options, LIST, error);
 *	options_finish(&options, mount_point, NULL, error);
 *
 * The command line wins over the conf file, a later word over an earlier one.
 * Credentials are refused wherever an option may stand (A3), and no message
 * repeats the value of an option that is not known.
 *
 * Thread-safety: one owner; read-only for all after options_finish().
 */
#ifndef HIBFS_META_OPTIONS_H
#define HIBFS_META_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum option_on_access { ON_ACCESS_RESUME, ON_ACCESS_FAIL, ON_ACCESS_BLOCK };
enum option_passthrough { PASSTHROUGH_AUTO, PASSTHROUGH_OFF };
enum option_compression { COMPRESSION_AUTO, COMPRESSION_OFF, COMPRESSION_ON };

#define OPTION_COUNT_LIMIT 32
#define OPTION_RUN_DIRECTORY "/run/hibfs"
#define OPTION_SOCKET_BYTES 108 /* sockaddr_un.sun_path */

struct options {
	/* Strings are owned; NULL when not given. */
	char *store;
	char *s3_endpoint, *s3_region, *s3_ca, *s3_credentials, *s3_profile;
	bool s3_path_style, s3_insecure_http;
	char *socket; /* never NULL after options_finish() */
	char *node; /* NULL: the host's name */
	char *control_group; /* a name or a number */
	char *conf; /* the conf file that was read */
	unsigned int shard_depth; /* 1 or 2 */
	unsigned int on_access; /* enum option_on_access */
	unsigned int passthrough; /* enum option_passthrough */
	unsigned int compression; /* enum option_compression */
	unsigned int log_level; /* enum log_level of base/log.h */
	uint64_t chunk_bytes; /* the smallest chunk; a power of two */
	uint64_t pack_bytes;

	/* Words of mount(8) that the mount itself takes: "ro,nosuid", or NULL. */
	char *mount_options;
	bool read_only;

	/* private: where each option of the table came from */
	unsigned char origins[OPTION_COUNT_LIMIT];
};

/* Sets the defaults. */
void options_init(struct options *options);
void options_done(struct options *options);

/*
 * Parses "name=value,flag,...": "\," is a comma and "\\" a backslash inside a
 * value. Knows the words that mount(8) and fstab put there. -EINVAL with a
 * message that names the option, and the nearest one for one that is unknown.
 */
int options_parse_list(struct options *options, const char *list,
		       struct hib_error *error);

/*
 * Parses the text of a conf file: `name = value` or `flag` a line, '#' begins a
 * comment line. `label` stands for the file in messages, with the line.
 */
int options_parse_conf(struct options *options, const char *label,
		       const char *text, struct hib_error *error);

/*
 * Reads conf= if one was given, checks what depends on several options, and
 * makes the defaults that depend on the mount point (absolute). `run_directory`
 * NULL: OPTION_RUN_DIRECTORY.
 */
int options_finish(struct options *options, const char *mount_point,
		   const char *run_directory, struct hib_error *error);

/*
 * run_directory/<mount point, escaped as by systemd-escape --path>.sock;
 * -ENAMETOOLONG when a socket cannot have that name.
 */
int options_socket_path(const char *run_directory, const char *mount_point,
			char ret_path[OPTION_SOCKET_BYTES],
			struct hib_error *error);

/* {"store": {"value": "...", "origin": "command line"}, ...}; NULL: no memory. */
json_t *options_to_json(const struct options *options);

/* The table, for --help and the manual: index from 0, NULL at the end. */
struct option_help {
	const char *name; /* "store" */
	const char *value; /* "URL", "resume|fail|block"; NULL: a flag */
	const char *help; /* one line */
};
const struct option_help *options_help(size_t index);

#endif
