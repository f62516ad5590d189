/* The table of nodes, on a directory of a real file system. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "fs/inode.h"
#include "fs/shard.h"
#include "tests/unit/test.h"

#define FILES 300

struct place {
	char path[64];
	int fd;
	struct inode_table table;
};

static void place_make(struct place *place)
{
	struct hib_error error = HIB_ERROR_INIT;

	/* tmpfs has handles too, but those of the sources are the point. */
	snprintf(place->path, sizeof(place->path),
		 "/var/tmp/hibfs-inode.XXXXXX");
	CHECK(mkdtemp(place->path));
	place->fd = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(place->fd >= 0);
	CHECK_INT(inode_table_init(&place->table, place->fd, &error), 0);
}

static void place_remove(struct place *place)
{
	inode_table_done(&place->table);
	close(place->fd);
	tree_remove(AT_FDCWD, place->path, NULL);
}

static void make_file(const struct place *place, const char *name)
{
	int fd = openat(place->fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	close(fd);
}

static struct inode *look_up(struct place *place, const char *name,
			     struct fs_shard *shard, struct stat *ret_attr)
{
	struct inode_seed seed = {
		.kind = INODE_IN_SHARD,
		.dirfd = place->fd,
		.name = name,
		.fd = -1,
	};
	struct inode_key key;
	struct inode *inode = NULL;

	CHECK_INT(inode_identify(&place->table, place->fd, name, ret_attr, &key,
				 &seed.fd),
		  0);
	key.shard = shard;
	seed.type = ret_attr->st_mode & S_IFMT;
	seed.shard_epoch = shard ? atomic_load(&shard->epoch) : 0;
	CHECK_INT(inode_intern(&place->table, &key, &seed, &inode), 0);
	return inode;
}

static ino_t number_of(struct place *place, struct inode *inode)
{
	struct stat attr = { 0 };
	int fd = inode_fd_get(&place->table, inode);

	CHECK(fd >= 0);
	CHECK_INT(fstat(fd, &attr), 0);
	inode_fd_put(&place->table, inode);
	return attr.st_ino;
}

/* req: F1 */
TEST(a_file_is_one_node_by_all_its_names)
{
	struct place place;
	struct inode *one, *two, *other;
	struct stat attr;

	place_make(&place);
	make_file(&place, "one");
	make_file(&place, "other");
	CHECK_INT(linkat(place.fd, "one", place.fd, "two", 0), 0);
	one = look_up(&place, "one", NULL, &attr);
	two = look_up(&place, "two", NULL, &attr);
	other = look_up(&place, "other", NULL, &attr);
	CHECK(one == two);
	CHECK(one != other);
	CHECK(one->generation != other->generation);
	CHECK_INT(atomic_load(&place.table.count), 3);
	place_remove(&place);
}

/* req: F1 */
TEST(a_node_lives_as_long_as_the_kernel_knows_it)
{
	struct place place;
	struct inode *inode;
	struct stat attr;

	place_make(&place);
	make_file(&place, "file");
	inode = look_up(&place, "file", NULL, &attr);
	CHECK(look_up(&place, "file", NULL, &attr) == inode);
	inode_forget(&place.table, inode, 1);
	CHECK_INT(atomic_load(&place.table.count), 2);
	CHECK(number_of(&place, inode) == attr.st_ino);
	inode_forget(&place.table, inode, 1);
	CHECK_INT(atomic_load(&place.table.count), 1);
	CHECK_INT(atomic_load(&place.table.open_fds), 1);
	place_remove(&place);
}

/* req: F4 */
TEST(descriptors_are_bounded_and_come_back)
{
	struct place place;
	struct inode *inodes[FILES];
	ino_t numbers[FILES];
	struct stat attr;
	char name[16];
	unsigned i;

	place_make(&place);
	place.table.fds_per_stripe = 1;
	for (i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		make_file(&place, name);
		inodes[i] = look_up(&place, name, NULL, &attr);
		numbers[i] = attr.st_ino;
	}
	for (i = 0; i < FILES; i++)
		CHECK(number_of(&place, inodes[i]) == numbers[i]);
	/* Without handles that can be opened each node keeps its own. */
	if (place.table.can_open_handles)
		CHECK(atomic_load(&place.table.open_fds) <=
		      2 * INODE_STRIPES + 1);
	for (i = 0; i < FILES; i++)
		CHECK(number_of(&place, inodes[i]) == numbers[i]);
	place_remove(&place);
}

/* req: F1 */
TEST(a_descriptor_in_use_is_not_taken_away)
{
	struct place place;
	struct inode *held, *inode;
	struct stat attr;
	char name[16];
	int fd, i;

	place_make(&place);
	place.table.fds_per_stripe = 0;
	make_file(&place, "held");
	held = look_up(&place, "held", NULL, &attr);
	fd = inode_fd_get(&place.table, held);
	CHECK(fd >= 0);
	for (i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		make_file(&place, name);
		inode = look_up(&place, name, NULL, &attr);
		number_of(&place, inode);
	}
	CHECK_INT(fstat(fd, &attr), 0);
	CHECK(attr.st_ino == held->key.ino);
	/* Forgotten while in use: it lives until it is put back. */
	inode_forget(&place.table, held, 1);
	CHECK_INT(fstat(fd, &attr), 0);
	inode_fd_put(&place.table, held);
	place_remove(&place);
}

/* req: F1 */
TEST(a_removed_file_is_stale_unless_it_is_pinned_or_open)
{
	struct place place;
	struct inode *gone, *pinned, *opened;
	struct stat attr;
	int fd;

	place_make(&place);
	make_file(&place, "gone");
	make_file(&place, "pinned");
	make_file(&place, "opened");
	gone = look_up(&place, "gone", NULL, &attr);
	pinned = look_up(&place, "pinned", NULL, &attr);
	opened = look_up(&place, "opened", NULL, &attr);
	inode_pin(&place.table, pinned);
	fd = openat(place.fd, "opened", O_RDONLY | O_CLOEXEC);
	unlinkat(place.fd, "gone", 0);
	unlinkat(place.fd, "pinned", 0);
	unlinkat(place.fd, "opened", 0);
	if (place.table.can_open_handles)
		CHECK_INT(inode_fd_get(&place.table, gone), -ESTALE);
	CHECK(number_of(&place, pinned) == pinned->key.ino);
	CHECK(number_of(&place, opened) == opened->key.ino);
	close(fd);
	place_remove(&place);
}

/* req: F2 */
TEST(nodes_of_a_replaced_shard_are_not_found_again)
{
	struct place place;
	struct fs_shard *shard = calloc(1, sizeof(*shard));
	struct inode *before, *after, *outside, **all;
	struct stat attr;
	size_t count;

	place_make(&place);
	make_file(&place, "file");
	before = look_up(&place, "file", shard, &attr);
	outside = look_up(&place, "file", NULL, &attr);
	CHECK(before != outside);
	CHECK(!inode_is_stale(before));
	atomic_fetch_add(&shard->epoch, 1);
	CHECK(inode_is_stale(before));
	CHECK(!inode_is_stale(outside));
	CHECK_INT(inode_fd_get(&place.table, before), -ESTALE);
	after = look_up(&place, "file", shard, &attr);
	CHECK(after != before);
	CHECK_INT(inode_collect(&place.table, shard, &all, &count), 0);
	CHECK_INT(count, 2);
	while (count > 0)
		inode_unref(&place.table, all[--count]);
	free(all);
	place_remove(&place);
	free(shard);
}

TEST_MAIN()
