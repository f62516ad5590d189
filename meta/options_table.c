#include "meta/options_table.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#define AT(member) offsetof(struct options, member)
#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

const struct option option_table[] = {
	{ { "store", "URL",
	    "object store: file:///DIRECTORY or s3://BUCKET[/PREFIX]; required" },
	  OPTION_TEXT,
	  AT(store),
	  1,
	  0 },
	{ { "s3_endpoint", "URL",
	    "S3 server, https://HOST[:PORT]; default: AWS's of the region" },
	  OPTION_TEXT,
	  AT(s3_endpoint),
	  1,
	  0 },
	{ { "s3_region", "NAME",
	    "region; default: the environment's, the profile's, us-east-1" },
	  OPTION_TEXT,
	  AT(s3_region),
	  1,
	  0 },
	{ { "s3_path_style", NULL,
	    "bucket in the path of the URL instead of in its host name" },
	  OPTION_FLAG,
	  AT(s3_path_style),
	  0,
	  0 },
	{ { "s3_ca", "FILE",
	    "certificates to trust, PEM, instead of the system's" },
	  OPTION_TEXT,
	  AT(s3_ca),
	  0,
	  0 },
	{ { "s3_insecure_http", NULL,
	    "allow a plain http:// endpoint on another host" },
	  OPTION_FLAG,
	  AT(s3_insecure_http),
	  0,
	  0 },
	{ { "s3_credentials", "FILE",
	    "file of credentials, in the form of ~/.aws/credentials" },
	  OPTION_TEXT,
	  AT(s3_credentials),
	  0,
	  0 },
	{ { "s3_profile", "NAME", "section of the file of credentials" },
	  OPTION_TEXT,
	  AT(s3_profile),
	  1,
	  0 },
	{ { "socket", "PATH",
	    "control socket; default: /run/hibfs/MOUNTPOINT-escaped.sock" },
	  OPTION_TEXT,
	  AT(socket),
	  0,
	  0 },
	{ { "node", "NAME", "name of this node; default: the host's" },
	  OPTION_TEXT,
	  AT(node),
	  1,
	  0 },
	{ { "control_group", "GROUP",
	    "group whose members may use the control socket" },
	  OPTION_TEXT,
	  AT(control_group),
	  1,
	  0 },
	{ { "conf", "FILE", "read more options from FILE" },
	  OPTION_TEXT,
	  AT(conf),
	  0,
	  0 },
	{ { "shard_depth", "1|2",
	    "a shard is a directory of the root (1) or of a bucket (2, default)" },
	  OPTION_CHOICE,
	  AT(shard_depth),
	  1,
	  0 },
	{ { "on_access", "resume|fail|block",
	    "what an open below a hibernated shard does; default: resume" },
	  OPTION_CHOICE,
	  AT(on_access),
	  0,
	  0 },
	{ { "passthrough", "auto|off",
	    "kernel passthrough for resident files; default: auto" },
	  OPTION_CHOICE,
	  AT(passthrough),
	  0,
	  0 },
	{ { "compression", "auto|off|on",
	    "compress chunks: when the network is the slower, never, always" },
	  OPTION_CHOICE,
	  AT(compression),
	  0,
	  0 },
	{ { "chunk_bytes", "SIZE",
	    "smallest chunk, a power of two; default: 256K" },
	  OPTION_POWER_OF_TWO,
	  AT(chunk_bytes),
	  256 * KIB,
	  4 * MIB },
	{ { "pack_bytes", "SIZE", "size of pack objects; default: 16M" },
	  OPTION_BYTES,
	  AT(pack_bytes),
	  8 * MIB,
	  64 * MIB },
	{ { "rate", "SIZE",
	    "most bytes a second to or from the store (later version)" },
	  OPTION_LATER,
	  0,
	  0,
	  0 },
	{ { "log_level", "error|warning|info|debug",
	    "how much the daemon logs; default: info" },
	  OPTION_CHOICE,
	  AT(log_level),
	  0,
	  0 },
	{ { "key_file", "FILE", "key to seal objects with (later version)" },
	  OPTION_LATER,
	  0,
	  0,
	  0 },
	{ { "cluster", "URL", "etcd that joins nodes (later version)" },
	  OPTION_LATER,
	  0,
	  0,
	  0 },
	{ { NULL, NULL, NULL }, OPTION_TEXT, 0, 0, 0 },
};

_Static_assert(ARRAY_SIZE(option_table) <= OPTION_COUNT_LIMIT,
	       "struct options has no room for the origin of each option");

/* What libfuse passes to mount(2), or takes itself. */
static const char *const mount_words[] = {
	"ro",	       "rw",	     "suid",	   "nosuid",
	"dev",	       "nodev",	     "exec",	   "noexec",
	"async",       "sync",	     "dirsync",	   "atime",
	"noatime",     "nodiratime", "norelatime", "nostrictatime",
	"allow_other", "allow_root", "fsname",	   "subtype",
	"context",     "fscontext",  "defcontext", "rootcontext",
};

/* For mount(8) and systemd, or the default of every mount of hibfs. */
static const char *const ignored_words[] = {
	"defaults",    "auto",	      "noauto",	    "nofail",
	"fail",	       "user",	      "nouser",	    "users",
	"owner",       "group",	      "_netdev",    "default_permissions",
	"relatime",    "strictatime", "diratime",   "nolazytime",
	"lazytime",    "loud",	      "silent",	    "nomand",
	"mand",	       "iversion",    "noiversion", "comment",
	"nosymfollow", "symfollow",   "helper",	    "uhelper",
	"pamconsole",
};

/* Said to whoever tries; an approximate match is enough. */
static const char *const secret_parts[] = {
	"secret", "access_key", "passw", "token", "credential",
};

/* isalnum() in the C locale, whatever the process has set. */
static bool is_alphanumeric(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
	       (c >= 'a' && c <= 'z');
}

const struct option *option_find(const char *name)
{
	for (const struct option *option = option_table; option->help.name;
	     option++)
		if (strcmp(option->help.name, name) == 0)
			return option;
	return NULL;
}

static bool is_among(const char *name, const char *const *words, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(name, words[i]) == 0)
			return true;
	return false;
}

enum option_word option_classify(const char *name)
{
	if (is_among(name, mount_words, ARRAY_SIZE(mount_words)))
		return OPTION_WORD_MOUNT;
	if (is_among(name, ignored_words, ARRAY_SIZE(ignored_words)) ||
	    strncmp(name, "x-", 2) == 0 || strncmp(name, "X-", 2) == 0)
		return OPTION_WORD_IGNORED;
	for (size_t i = 0; i < ARRAY_SIZE(secret_parts); i++)
		if (strcasestr(name, secret_parts[i]))
			return OPTION_WORD_SECRET;
	return OPTION_WORD_UNKNOWN;
}

#define NAME_LIMIT 32

/* Edits (insert, delete, replace) from a to b, both below NAME_LIMIT bytes. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t row[NAME_LIMIT + 1];
	size_t width = strlen(b);

	for (size_t i = 0; i <= width; i++)
		row[i] = i;
	for (size_t i = 1; *a; a++, i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= width; j++) {
			size_t best = diagonal + (*a != b[j - 1]);

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[width];
}

const char *option_nearest(const char *name)
{
	const char *nearest = option_table[0].help.name;
	size_t least = SIZE_MAX;
	char cut[NAME_LIMIT];

	snprintf(cut, sizeof(cut), "%s", name);
	for (const struct option *option = option_table; option->help.name;
	     option++) {
		size_t distance;

		if (option->type == OPTION_LATER)
			continue;
		distance = edit_distance(cut, option->help.name);
		if (distance < least) {
			least = distance;
			nearest = option->help.name;
		}
	}
	return nearest;
}

/* "user:password@" before the first '/' of what follows "scheme://". */
static bool has_userinfo(const char *url)
{
	const char *rest = strstr(url, "://");
	size_t length;

	rest = rest ? rest + 3 : url;
	length = strcspn(rest, "/?#");
	return memchr(rest, '@', length);
}

static int check_store(const struct options *options, struct hib_error *error)
{
	const char *store = options->store;

	if (!store)
		return hib_fail(
			error, EINVAL,
			"there is no store: give -o store=file:///DIRECTORY or -o store=s3://BUCKET/PREFIX, or write it into a conf file");
	if (has_userinfo(store))
		return hib_fail(
			error, EINVAL,
			"option store: credentials do not belong into the URL; see s3_credentials");
	if (strncmp(store, "file://", 7) == 0) {
		if (store[7] != '/')
			return hib_fail(
				error, EINVAL,
				"option store=%.300s: the directory must be absolute, file:///DIRECTORY",
				store);
		return 0;
	}
	if (strncmp(store, "s3://", 5) == 0) {
		if (!is_alphanumeric((unsigned char)store[5]))
			return hib_fail(
				error, EINVAL,
				"option store=%.300s: no bucket, s3://BUCKET[/PREFIX]",
				store);
		return 0;
	}
	return hib_fail(
		error, EINVAL,
		"option store=%.300s: must be file:///DIRECTORY or s3://BUCKET[/PREFIX]",
		store);
}

/* Plain HTTP itself is judged where the connection is made (A4). */
static int check_endpoint(const struct options *options,
			  struct hib_error *error)
{
	const char *endpoint = options->s3_endpoint;

	if (!endpoint)
		return 0;
	if (has_userinfo(endpoint))
		return hib_fail(
			error, EINVAL,
			"option s3_endpoint: credentials do not belong into the URL; see s3_credentials");
	if (strncmp(endpoint, "https://", 8) != 0 &&
	    strncmp(endpoint, "http://", 7) != 0)
		return hib_fail(
			error, EINVAL,
			"option s3_endpoint=%.300s: must be https://HOST[:PORT], or http:// for a server on this machine",
			endpoint);
	return 0;
}

int options_check(struct options *options, struct hib_error *error)
{
	int r = check_store(options, error);

	if (r == 0)
		r = check_endpoint(options, error);
	if (r < 0)
		return r;
	if (options->socket && strlen(options->socket) >= OPTION_SOCKET_BYTES)
		return hib_fail(
			error, ENAMETOOLONG,
			"option socket: a socket's path has at most %d bytes",
			OPTION_SOCKET_BYTES - 1);
	return 0;
}

/* systemd.unit(5), "String escaping for inclusion in unit names". */
static size_t escape_path(const char *path, char *ret, size_t size)
{
	static const char hex[] = "0123456789abcdef";
	size_t used = 0;
	bool begun = false;

	for (; *path && used + 5 < size; path++) {
		unsigned char c = (unsigned char)*path;

		if (c == '/') {
			/* Slashes at the ends are left out, runs are one. */
			const char *rest = path + strspn(path, "/");

			if (begun && *rest)
				ret[used++] = '-';
			path = rest - 1;
		} else if (is_alphanumeric(c) || c == ':' || c == '_' ||
			   (c == '.' && begun)) {
			ret[used++] = (char)c;
			begun = true;
		} else {
			ret[used++] = '\\';
			ret[used++] = 'x';
			ret[used++] = hex[c >> 4];
			ret[used++] = hex[c & 15];
			begun = true;
		}
	}
	if (*path)
		return 0;
	if (!begun)
		ret[used++] = '-';
	ret[used] = 0;
	return used;
}

int options_socket_path(const char *run_directory, const char *mount_point,
			char ret_path[OPTION_SOCKET_BYTES],
			struct hib_error *error)
{
	char path[OPTION_SOCKET_BYTES], escaped[OPTION_SOCKET_BYTES];
	int n;

	if (mount_point[0] != '/')
		return hib_fail(
			error, EINVAL,
			"%.300s: the mount point must be an absolute path",
			mount_point);
	if (!run_directory)
		run_directory = OPTION_RUN_DIRECTORY;
	if (escape_path(mount_point, escaped, sizeof(escaped)) == 0)
		escaped[0] = 0;
	n = snprintf(path, sizeof(path), "%s/%s.sock", run_directory, escaped);
	if (!escaped[0] || n < 0 || (size_t)n >= sizeof(path))
		return hib_fail(
			error, ENAMETOOLONG,
			"the mount point's name is too long for the name of a control socket: give one with -o socket=PATH");
	memcpy(ret_path, path, (size_t)n + 1);
	return 0;
}
