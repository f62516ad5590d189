/*
 * Listing in the order of keys' bytes. A directory stands for all the keys
 * below it, so it sorts as its name with a slash ("a-b" before "a/b"). Memory
 * is bounded whatever a directory holds: it is read as often as needed, each
 * time for the next BATCH names.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "transfer/file_store.h"

#define BATCH 256
#define NAME_BYTES 257 /* with the slash and the NUL */

struct batch {
	char names[BATCH][NAME_BYTES]; /* sorted; the smallest above `floor` */
	size_t count;
	bool more; /* there were names that did not fit */
	const char *floor; /* "" none; names must be greater */
	/* Names must fit the rest of the prefix, or be on the way to it. */
	const char *prefix;
};

struct lister {
	const struct file_store_io *io;
	const char *prefix, *after;
	struct store_page *page;
	char key[STORE_KEY_BYTES]; /* of the directory: "" or ends in '/' */
	size_t key_length;
	struct hib_error *error;
};

static bool is_key_name(const char *name)
{
	for (; *name; name++)
		if (*name < ' ' || *name > '~')
			return false;
	return true;
}

static bool on_prefix(const char *name, const char *prefix)
{
	size_t name_length = strlen(name), prefix_length = strlen(prefix);
	size_t n = name_length < prefix_length ? name_length : prefix_length;

	if (memcmp(name, prefix, n) != 0)
		return false;
	return n == prefix_length || name[name_length - 1] == '/';
}

/* Inserts in order, pushing out the greatest when full. */
static int collect(void *arg, const char *name, unsigned char type)
{
	struct batch *batch = arg;
	char entry[NAME_BYTES];
	size_t length = strlen(name), at;

	if ((type != DT_REG && type != DT_DIR) || !is_key_name(name))
		return 0;
	memcpy(entry, name, length + 1);
	if (type == DT_DIR)
		strcpy(entry + length, "/");
	if (strcmp(entry, batch->floor) <= 0 ||
	    !on_prefix(entry, batch->prefix))
		return 0;
	if (batch->count == BATCH) {
		batch->more = true;
		if (strcmp(entry, batch->names[BATCH - 1]) >= 0)
			return 0;
		batch->count--;
	}
	for (at = batch->count; at > 0; at--) {
		if (strcmp(batch->names[at - 1], entry) < 0)
			break;
		memcpy(batch->names[at], batch->names[at - 1], NAME_BYTES);
	}
	memcpy(batch->names[at], entry, NAME_BYTES);
	batch->count++;
	return 0;
}

static int list_directory(struct lister *lister, int fd);

/* A directory that vanishes meanwhile had no objects any more. */
static int list_below(struct lister *lister, int parent_fd, const char *name)
{
	CLEANUP_CLOSE int fd = -EBADF;
	size_t length = lister->key_length;
	char plain[NAME_BYTES];
	int r;

	strcpy(plain, name);
	plain[strlen(plain) - 1] = 0;
	fd = openat(parent_fd, plain,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR
			       ? 0
			       : hib_fail_errno(lister->error, errno,
						"cannot open %s%s", lister->key,
						name);
	strcpy(lister->key + length, name);
	lister->key_length += strlen(name);
	r = list_directory(lister, fd);
	lister->key_length = length;
	lister->key[length] = 0;
	return r;
}

static int add_object(struct lister *lister, int fd, const char *name)
{
	struct store_object object;
	struct stat st;
	int r;

	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0
				       : hib_fail_errno(lister->error, errno,
							"cannot look at %s%s",
							lister->key, name);
	object = (struct store_object){
		.size = (uint64_t)st.st_size,
		.modified_ms = (int64_t)st.st_mtim.tv_sec * 1000 +
			       st.st_mtim.tv_nsec / 1000000,
	};
	strcpy(lister->key + lister->key_length, name);
	r = store_page_add(lister->page, lister->key, &object);
	lister->key[lister->key_length] = 0;
	if (r == -EMSGSIZE) {
		lister->page->truncated = true;
		return 0;
	}
	return r;
}

/* Where `after` leads into this directory or its children, else NULL. */
static const char *rest_of(const char *text, const struct lister *lister)
{
	if (!text || strncmp(text, lister->key, lister->key_length) != 0)
		return NULL;
	return text + lister->key_length;
}

static int visit_entry(struct lister *lister, int fd, const char *name)
{
	size_t length = strlen(name);
	const char *rest;

	if (lister->key_length + length >= sizeof(lister->key))
		return 0;
	if (!lister->key_length && strcmp(name, FILE_STORE_TEMPORARY "/") == 0)
		return 0;
	rest = rest_of(lister->after, lister);
	if (name[length - 1] == '/') {
		if (rest && strncmp(rest, name, length) > 0)
			return 0;
		return list_below(lister, fd, name);
	}
	if (rest && strcmp(name, rest) <= 0)
		return 0;
	return add_object(lister, fd, name);
}

static int list_directory(struct lister *lister, int fd)
{
	CLEANUP_FREE struct batch *batch = malloc(sizeof(*batch));
	const char *after = rest_of(lister->after, lister);
	const char *prefix = rest_of(lister->prefix, lister);
	char floor[NAME_BYTES] = "";
	int r;

	if (!batch)
		return hib_fail_errno(lister->error, ENOMEM, "list");
	/* Just below the entry that `after` is in: it is to be looked into. */
	if (after && strchr(after, '/')) {
		size_t length = strcspn(after, "/");

		if (length < sizeof(floor)) {
			memcpy(floor, after, length);
			floor[length] = 0;
		}
	} else if (after && strlen(after) < sizeof(floor)) {
		strcpy(floor, after);
	}
	do {
		batch->count = 0;
		batch->more = false;
		batch->floor = floor;
		batch->prefix = prefix ? prefix : "";
		r = dir_each(fd, collect, batch, lister->error);
		for (size_t i = 0;
		     i < batch->count && r == 0 && !lister->page->truncated;
		     i++)
			r = visit_entry(lister, fd, batch->names[i]);
		if (batch->count)
			strcpy(floor, batch->names[batch->count - 1]);
	} while (r == 0 && batch->more && !lister->page->truncated);
	return r;
}

int file_store_list(const struct file_store_io *io, const char *prefix,
		    const char *after, struct store_page *page,
		    struct hib_error *error)
{
	struct lister lister = {
		.io = io,
		.prefix = prefix,
		.after = after,
		.page = page,
		.error = error,
	};
	struct hib_error failure = HIB_ERROR_INIT;
	CLEANUP_CLOSE int fd = -EBADF;
	const char *slash = strrchr(prefix, '/');
	int r;

	/* Straight to the directory that all of it is in. */
	if (slash && strlen(prefix) < STORE_KEY_BYTES) {
		lister.key_length = (size_t)(slash - prefix);
		memcpy(lister.key, prefix, lister.key_length);
		r = dir_open(io->root_fd, lister.key, &fd, &failure);
		lister.key[lister.key_length++] = '/';
		if (r == -ENOENT || r == -ENOTDIR)
			return 0;
		if (r < 0)
			return hib_fail(error, -r, "%s", failure.message);
		/* Wholly before or behind this directory. */
		if (after && strncmp(after, lister.key, lister.key_length) > 0)
			return 0;
		return list_directory(&lister, fd);
	}
	return list_directory(&lister, io->root_fd);
}
