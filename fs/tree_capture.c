#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/tree_internal.h"

#define XATTR_LIST_MAX_BYTES 65536
#define XATTR_VALUE_MAX_BYTES 65536

/* What the walk knows of an entry, found again by the entry's path pointer. */
struct seen {
	const char *path;
	struct tree_identity identity;
	nlink_t links;
};

struct capture {
	struct manifest *manifest;
	struct seen *seen;
	size_t count, capacity;
	char *list; /* XATTR_LIST_MAX_BYTES */
	char *value; /* XATTR_VALUE_MAX_BYTES */
};

void tree_proc_path(int dirfd, const char *name, char ret[TREE_PROC_PATH_BYTES])
{
	snprintf(ret, TREE_PROC_PATH_BYTES, "/proc/self/fd/%d/%s", dirfd, name);
}

static int no_memory(struct hib_error *error)
{
	return hib_fail(error, ENOMEM, "out of memory");
}

static enum entry_type type_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return ENTRY_DIRECTORY;
	case S_IFLNK:
		return ENTRY_SYMLINK;
	case S_IFIFO:
		return ENTRY_FIFO;
	case S_IFSOCK:
		return ENTRY_SOCKET;
	case S_IFCHR:
		return ENTRY_CHARACTER_DEVICE;
	case S_IFBLK:
		return ENTRY_BLOCK_DEVICE;
	default:
		return ENTRY_FILE;
	}
}

/* ---- extended attributes ---- */

/* XFS shows ACLs a second time in a form of its own. */
static bool is_kept(const char *name)
{
	return strncmp(name, "trusted.SGI_ACL_", 16) != 0 &&
	       strncmp(name, "trusted.overlay.", 16) != 0;
}

static int add_xattr(struct capture *capture, struct manifest_entry *entry,
		     const char *path, const char *name,
		     struct hib_error *error)
{
	struct entry_xattr *grown, *xattr;
	ssize_t size =
		lgetxattr(path, name, capture->value, XATTR_VALUE_MAX_BYTES);

	if (size < 0 && (errno == ENODATA || errno == ENOENT))
		return 0;
	if (size < 0)
		return hib_fail_errno(error, errno,
				      "read the attribute %s of \"%s\"", name,
				      entry->path);
	grown = reallocarray(entry->xattrs, entry->xattr_count + 1,
			     sizeof(*grown));
	if (!grown)
		return no_memory(error);
	entry->xattrs = grown;
	xattr = &grown[entry->xattr_count];
	*xattr = (struct entry_xattr){
		.name = strdup(name),
		.value = malloc((size_t)size + 1),
		.size = (size_t)size,
	};
	entry->xattr_count++;
	if (!xattr->name || !xattr->value)
		return no_memory(error);
	if (size)
		memcpy(xattr->value, capture->value, (size_t)size);
	return 0;
}

static int compare_xattrs(const void *a, const void *b)
{
	const struct entry_xattr *left = a, *right = b;

	return strcmp(left->name, right->name);
}

static int add_xattrs(struct capture *capture, struct manifest_entry *entry,
		      const char *path, struct hib_error *error)
{
	ssize_t size = llistxattr(path, capture->list, XATTR_LIST_MAX_BYTES);
	int r = 0;

	if (size < 0 && errno == EOPNOTSUPP)
		return 0;
	if (size < 0)
		return errno == ENOENT
			       ? -ENOENT
			       : hib_fail_errno(error, errno,
						"list the attributes of \"%s\"",
						entry->path);
	for (char *name = capture->list; r == 0 && name < capture->list + size;
	     name += strlen(name) + 1)
		if (is_kept(name))
			r = add_xattr(capture, entry, path, name, error);
	if (entry->xattr_count > 1)
		qsort(entry->xattrs, entry->xattr_count, sizeof(*entry->xattrs),
		      compare_xattrs);
	return r;
}

/* ---- entries ---- */

static int add_target(struct manifest_entry *entry,
		      const struct tree_item *item, struct hib_error *error)
{
	char target[4097];
	ssize_t size =
		readlinkat(item->dirfd, item->name, target, sizeof(target) - 1);

	/* EINVAL: it is no symlink any more */
	if (size < 0)
		return errno == ENOENT || errno == EINVAL
			       ? -ENOENT
			       : hib_fail_errno(error, errno,
						"read the symlink \"%s\"",
						item->path);
	target[size] = 0;
	entry->size = (uint64_t)size;
	entry->target = strdup(target);
	return entry->target ? 0 : no_memory(error);
}

static void set_attributes(struct manifest_entry *entry,
			   const struct stat *status)
{
	entry->type = type_of(status->st_mode);
	entry->mode = status->st_mode & 07777;
	entry->uid = status->st_uid;
	entry->gid = status->st_gid;
	entry->mtime = status->st_mtim;
	entry->atime = status->st_atim;
	if (entry->type == ENTRY_FILE)
		entry->size = (uint64_t)status->st_size;
	if (entry->type == ENTRY_CHARACTER_DEVICE ||
	    entry->type == ENTRY_BLOCK_DEVICE) {
		entry->major = major(status->st_rdev);
		entry->minor = minor(status->st_rdev);
	}
}

static int remember(struct capture *capture, const char *path,
		    const struct tree_item *item, struct hib_error *error)
{
	struct seen *seen;

	if (capture->count == capture->capacity) {
		size_t more = capture->capacity * 2 + 64;
		struct seen *grown =
			reallocarray(capture->seen, more, sizeof(*grown));

		if (!grown)
			return no_memory(error);
		capture->seen = grown;
		capture->capacity = more;
	}
	seen = &capture->seen[capture->count++];
	seen->path = path;
	seen->links = S_ISDIR(item->status.st_mode) ? 1 : item->status.st_nlink;
	tree_identity_note(&seen->identity, item);
	return 0;
}

static int add_entry(void *arg, const struct tree_item *item,
		     struct hib_error *error)
{
	struct capture *capture = arg;
	struct manifest_entry *entry = manifest_add(capture->manifest);
	char proc[TREE_PROC_PATH_BYTES];
	int r;

	if (!entry)
		return capture->count >= MANIFEST_MAX_ENTRIES
			       ? hib_fail(error, EFBIG,
					  "more than %u names in one shard",
					  MANIFEST_MAX_ENTRIES)
			       : no_memory(error);
	entry->path = strdup(item->path);
	if (!entry->path)
		return no_memory(error);
	set_attributes(entry, &item->status);
	tree_proc_path(item->dirfd, item->name, proc);
	r = add_xattrs(capture, entry, proc, error);
	if (r == 0 && entry->type == ENTRY_SYMLINK)
		r = add_target(entry, item, error);
	if (r == -ENOENT) {
		/* vanished: the entry is the last one, take it back */
		manifest_remove_last(capture->manifest);
		return r;
	}
	return r == 0 ? remember(capture, entry->path, item, error) : r;
}

/* ---- after the walk ---- */

static int compare_pointers(const void *a, const void *b)
{
	const struct seen *left = a, *right = b;
	uintptr_t x = (uintptr_t)left->path, y = (uintptr_t)right->path;

	return x < y ? -1 : x > y;
}

static const struct seen *find_seen(const struct capture *capture,
				    const char *path)
{
	struct seen wanted = { .path = path };

	return bsearch(&wanted, capture->seen, capture->count,
		       sizeof(*capture->seen), compare_pointers);
}

/* An inode that has several names, with one of them. */
struct name {
	dev_t device;
	ino_t inode;
	size_t entry;
	size_t first; /* entry of the first name of the inode */
};

static int compare_inodes(const void *a, const void *b)
{
	const struct name *left = a, *right = b;

	if (left->device != right->device)
		return left->device < right->device ? -1 : 1;
	if (left->inode != right->inode)
		return left->inode < right->inode ? -1 : 1;
	return left->entry < right->entry ? -1 : left->entry > right->entry;
}

static int compare_firsts(const void *a, const void *b)
{
	const struct name *left = a, *right = b;

	if (left->first != right->first)
		return left->first < right->first ? -1 : 1;
	return left->entry < right->entry ? -1 : left->entry > right->entry;
}

static bool same_inode(const struct name *a, const struct name *b)
{
	return a->device == b->device && a->inode == b->inode;
}

/* Numbers the hard-link groups in the order of their first names. */
static void number_groups(struct manifest *manifest, struct name *names,
			  size_t count)
{
	uint64_t group = 0;

	qsort(names, count, sizeof(*names), compare_inodes);
	for (size_t i = 0; i < count; i++)
		names[i].first = i && same_inode(&names[i - 1], &names[i])
					 ? names[i - 1].first
					 : names[i].entry;
	qsort(names, count, sizeof(*names), compare_firsts);
	for (size_t i = 0; i < count; i++) {
		bool joins = i && names[i].first == names[i - 1].first;
		bool joined =
			i + 1 < count && names[i].first == names[i + 1].first;

		if (!joins && joined)
			group++;
		if (joins || joined)
			manifest->entries[names[i].entry].hard_link_group =
				group;
	}
}

static int finish(struct capture *capture,
		  struct tree_identity **ret_identities,
		  struct hib_error *error)
{
	struct manifest *manifest = capture->manifest;
	CLEANUP_FREE struct tree_identity *identities = NULL;
	CLEANUP_FREE struct name *names = NULL;
	size_t count = 0;

	manifest_sort(manifest);
	qsort(capture->seen, capture->count, sizeof(*capture->seen),
	      compare_pointers);
	identities = calloc(manifest->entry_count, sizeof(*identities));
	names = calloc(manifest->entry_count, sizeof(*names));
	if (!identities || !names)
		return no_memory(error);
	for (size_t i = 0; i < manifest->entry_count; i++) {
		const struct seen *seen =
			find_seen(capture, manifest->entries[i].path);

		identities[i] = seen->identity;
		if (seen->links > 1)
			names[count++] = (struct name){
				.device = seen->identity.device,
				.inode = seen->identity.inode,
				.entry = i,
			};
	}
	if (count)
		number_groups(manifest, names, count);
	*ret_identities = TAKE_PTR(identities);
	return 0;
}

int tree_capture(int dirfd, struct manifest *manifest,
		 struct tree_identity **ret_identities, struct cancel *cancel,
		 struct hib_error *error)
{
	struct capture capture = { .manifest = manifest };
	struct tree_walk walk = { add_entry, &capture, cancel };
	struct tree_item top = { .path = ".", .dirfd = dirfd, .name = "." };
	int r;

	capture.list = malloc(XATTR_LIST_MAX_BYTES);
	capture.value = malloc(XATTR_VALUE_MAX_BYTES);
	clock_gettime(CLOCK_REALTIME_COARSE, &top.noted);
	if (!capture.list || !capture.value)
		r = no_memory(error);
	else if (fstat(dirfd, &top.status) < 0)
		r = hib_fail_errno(error, errno, "stat the shard");
	else
		r = tree_proc_check(dirfd, error);
	if (r == 0)
		r = add_entry(&capture, &top, error);
	if (r == 0)
		r = tree_walk(dirfd, &walk, error);
	if (r == 0)
		r = finish(&capture, ret_identities, error);
	free(capture.list);
	free(capture.value);
	free(capture.seen);
	return r;
}
