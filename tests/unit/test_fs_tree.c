/*
 * A tree comes back as it was: capture, manifest, build, seal. Runs in /tmp, as
 * root for what only root can do.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "tests/unit/trees.h"

/* What the engine does: a byte of contents clears capabilities. */
static void write_contents(int dirfd, const struct manifest *m)
{
	for (size_t i = 0; i < m->entry_count; i++) {
		const struct manifest_entry *entry = &m->entries[i];
		CLEANUP_CLOSE int fd = -EBADF;

		if (entry->type != ENTRY_FILE)
			continue;
		fd = tree_open(dirfd, entry->path, O_WRONLY, NULL);
		CHECK(fd >= 0);
		if (entry->size)
			CHECK_INT(pwrite(fd, "x", 1, 0), 1);
	}
}

/* req: P3 */
TEST(everything_comes_back_as_it_was)
{
	int top = scratch_new();
	int source = make_directory(top, "source");
	int heir, built;
	struct manifest *before, *after;

	make_rich_tree(source);
	before = through_store(capture_all(source, NULL));
	/* a default ACL above it is nothing of the shard's */
	heir = make_directory(top, "heir");
	set_attribute(top, "heir", "system.posix_acl_default", acl,
		      sizeof(acl));
	built = make_directory(heir, "built");
	build_all(built, before);
	write_contents(built, before);
	seal_all(built, before);
	after = through_store(capture_all(built, NULL));
	check_same(before, after);
	CHECK_INT(after->logical_bytes, before->logical_bytes);
	manifest_free(after);
	/* once more is harmless, and sets right what reading has changed */
	seal_all(built, before);
	after = through_store(capture_all(built, NULL));
	check_same(before, after);
	manifest_free(before);
	manifest_free(after);
	close(source);
	close(heir);
	close(built);
	scratch_done(top);
}

static const struct manifest_entry *entry_of(const struct manifest *m,
					     const char *path)
{
	const struct manifest_entry *entry = manifest_find(m, path);

	if (!entry)
		TEST_FAIL("%s is not there", path);
	return entry;
}

/* req: P3 */
TEST(a_capture_tells_what_is_there)
{
	int top = scratch_new();
	int source = make_directory(top, "source");
	struct tree_identity *identities;
	struct manifest *m;

	make_rich_tree(source);
	m = capture_all(source, &identities);
	CHECK_STR(m->entries[0].path, ".");
	CHECK_INT(m->entries[0].mode, 01711);
	CHECK_INT(m->entries[0].atime.tv_sec, -1);
	CHECK_INT(entry_of(m, "d")->mode, 03775);
	CHECK_INT(entry_of(m, "d")->mtime.tv_sec, 8000000000);
	CHECK_INT(entry_of(m, "d/inner")->mtime.tv_sec, -1000000000);
	CHECK_INT(entry_of(m, "d/inner")->mtime.tv_nsec, 999999999);
	CHECK_INT(entry_of(m, "d/inner")->xattr_count, 3);
	CHECK_INT(entry_of(m, "sparse")->size, (uint64_t)1 << 40);
	CHECK_STR(entry_of(m, "to-d")->target, "d");
	CHECK_INT(entry_of(m, "new\nline")->hard_link_group, 0);
	/* groups are numbered in path order */
	CHECK_INT(entry_of(m, "a-link")->hard_link_group, 1);
	CHECK_INT(entry_of(m, "d/inner")->hard_link_group, 1);
	CHECK_INT(entry_of(m, "d/other")->hard_link_group, 1);
	CHECK_INT(entry_of(m, "d/fifo")->hard_link_group, 2);
	CHECK_INT(entry_of(m, "fifo")->hard_link_group, 2);
	CHECK_INT(entry_of(m, "dangling")->hard_link_group, 3);
	CHECK_INT(entry_of(m, "d/empty")->hard_link_group, 0);
	if (is_root()) {
		CHECK_INT(entry_of(m, "disk")->major, 259);
		CHECK_INT(entry_of(m, "disk")->minor, 70000);
		CHECK_INT(entry_of(m, "set-id")->gid, 4294967294u);
		CHECK_INT(entry_of(m, "capable")->xattr_count, 2);
	}
	for (size_t i = 0; i < m->entry_count; i++) {
		struct stat status;

		CHECK_INT(fstatat(source, m->entries[i].path, &status,
				  AT_SYMLINK_NOFOLLOW),
			  0);
		CHECK_INT(identities[i].inode, status.st_ino);
		CHECK_INT(identities[i].device, status.st_dev);
		CHECK_INT(identities[i].size, status.st_size);
	}
	free(identities);
	manifest_free(m);
	close(source);
	scratch_done(top);
}

/* req: P3 */
TEST(a_capture_and_an_open_leave_atimes_alone)
{
	int top = scratch_new();
	int d = make_directory(top, "d");
	char byte;
	struct stat status;
	int fd;

	make_file(d, "f", 10);
	set_times(top, "d/f", 1000, 2000);
	set_times(top, "d", 1000, 2000);
	set_times(top, ".", 1000, 2000);
	manifest_free(capture_all(top, NULL));
	fd = tree_open(top, "d/f", O_RDONLY, NULL);
	CHECK(fd >= 0);
	CHECK_INT(read(fd, &byte, 1), 1);
	close(fd);
	CHECK_INT(fstatat(top, "d/f", &status, 0), 0);
	CHECK_INT(status.st_atim.tv_sec, 1000);
	CHECK_INT(fstatat(top, "d", &status, 0), 0);
	CHECK_INT(status.st_atim.tv_sec, 1000);
	CHECK_INT(fstat(top, &status), 0);
	CHECK_INT(status.st_atim.tv_sec, 1000);
	close(d);
	scratch_done(top);
}

/* req: A2 */
TEST(what_is_built_is_shut_until_it_is_sealed)
{
	int top = scratch_new();
	int source = make_directory(top, "source");
	int built = make_directory(top, "built");
	struct manifest *m;
	struct stat status;

	make_rich_tree(source);
	m = capture_all(source, NULL);
	build_all(built, m);
	for (size_t i = 1; i < m->entry_count; i++) {
		CHECK_INT(fstatat(built, m->entries[i].path, &status,
				  AT_SYMLINK_NOFOLLOW),
			  0);
		if (!S_ISLNK(status.st_mode))
			CHECK_INT(status.st_mode & 07077, 0);
		if (S_ISREG(status.st_mode))
			CHECK_INT(status.st_blocks, 0);
	}
	CHECK_INT(tree_build(built, m, NULL, NULL), -EEXIST);
	manifest_free(m);
	close(source);
	close(built);
	scratch_done(top);
}

/* req: A2 */
TEST(no_path_leads_out_of_the_tree)
{
	int top = scratch_new();
	int inside = make_directory(top, "inside");
	int d = make_directory(inside, "d");
	struct hib_error error = HIB_ERROR_INIT;
	struct tree_identity identity;
	int fd;

	make_file(top, "secret", 1);
	make_file(d, "f", 1);
	CHECK_INT(symlinkat("../secret", inside, "link"), 0);
	CHECK_INT(symlinkat("d", inside, "to-d"), 0);
	CHECK_INT(symlinkat("/", inside, "root"), 0);
	CHECK_INT(mkfifoat(inside, "fifo", 0600), 0);
	CHECK_INT(tree_open(inside, "link", O_RDONLY, &error), -ELOOP);
	CHECK(strstr(error.message, "link"));
	CHECK_INT(tree_open(inside, "to-d/f", O_RDONLY, &error), -ELOOP);
	CHECK_INT(tree_open(inside, "root/etc/passwd", O_RDONLY, &error),
		  -ELOOP);
	CHECK_INT(tree_open(inside, "../secret", O_RDONLY, &error), -EXDEV);
	CHECK_INT(tree_open(inside, "/etc/passwd", O_RDONLY, &error), -EXDEV);
	CHECK_INT(tree_open(inside, "none", O_RDONLY, &error), -ENOENT);
	fd = tree_open(inside, "fifo", O_RDONLY, &error);
	CHECK(fd >= 0); /* and nobody waits for a writer */
	close(fd);
	fd = tree_open(inside, "d/f", O_RDONLY, &error);
	CHECK(fd >= 0);
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	CHECK_INT(tree_identity_at(inside, "none", &identity, &error), -ENOENT);
	close(d);
	close(inside);
	scratch_done(top);
}

/* req: A2 (manifest_parse() refuses these already) */
TEST(a_build_does_not_go_through_a_symlink_or_up)
{
	int top = scratch_new();
	int built = make_directory(top, "built");
	struct manifest *m = manifest_new();

	add(m, ".", ENTRY_DIRECTORY);
	add(m, "l", ENTRY_SYMLINK)->target = strdup("..");
	add(m, "l/x", ENTRY_FILE);
	CHECK_INT(tree_build(built, m, NULL, NULL), -ELOOP);
	CHECK(!scratch_has(top, "x"));
	manifest_free(m);
	m = manifest_new();
	add(m, ".", ENTRY_DIRECTORY);
	add(m, "../x", ENTRY_FILE);
	CHECK(tree_build(built, m, NULL, NULL) < 0);
	CHECK(!scratch_has(top, "x"));
	manifest_free(m);
	close(built);
	scratch_done(top);
}

/* A chain of directories, deeper than any path is long. */
static void make_chain(int top, int depth)
{
	int fd = dup(top);

	for (int i = 0; i < depth; i++) {
		int next = make_directory(fd, "a-directory-name");

		make_file(fd, "x", 5000);
		close(fd);
		fd = next;
	}
	make_file(fd, "bottom", 10);
	close(fd);
}

/* req: P3 F4 */
TEST(a_deep_tree_needs_few_descriptors)
{
	int top = scratch_new();
	int source = make_directory(top, "source");
	int built = make_directory(top, "built");
	struct rlimit old, few = { 24, 24 };
	struct manifest *m, *again;
	struct tree_identity at, opened;
	struct hib_error error;
	const char *bottom;
	uint64_t freed;
	int fd;

	make_chain(source, 600);
	CHECK_INT(getrlimit(RLIMIT_NOFILE, &old), 0);
	few.rlim_max = old.rlim_max;
	CHECK_INT(setrlimit(RLIMIT_NOFILE, &few), 0);
	m = capture_all(source, NULL);
	CHECK_INT(m->entry_count, 1 + 600 * 2 + 1);
	build_all(built, m);
	seal_all(built, m);
	again = capture_all(built, NULL);
	check_same(m, again);
	bottom = m->entries[600].path;
	for (size_t i = 0; i < m->entry_count; i++)
		if (strlen(m->entries[i].path) > strlen(bottom))
			bottom = m->entries[i].path;
	CHECK(strlen(bottom) > 10000);
	fd = tree_open(source, bottom, O_RDONLY, &error);
	CHECK(fd >= 0);
	CHECK_INT(tree_identify(fd, &opened, &error), 0);
	CHECK_INT(tree_identity_at(source, bottom, &at, &error), 0);
	CHECK_INT(at.inode, opened.inode);
	close(fd);
	CHECK_INT(tree_evict(source, NULL, &freed, &error), 0);
	CHECK(freed >= 600 * 4096);
	CHECK_INT(setrlimit(RLIMIT_NOFILE, &old), 0);
	manifest_free(m);
	manifest_free(again);
	close(source);
	close(built);
	scratch_done(top);
}

struct turmoil {
	int dirfd;
	atomic_bool stop;
};

static void *run_turmoil(void *arg)
{
	struct turmoil *turmoil = arg;

	while (!turmoil->stop) {
		for (int i = 0; i < 20; i++) {
			char name[32];
			int fd;

			snprintf(name, sizeof(name), "n%d", i);
			fd = openat(turmoil->dirfd, name, O_CREAT | O_WRONLY,
				    0600);
			close_fd(fd);
			unlinkat(turmoil->dirfd, name, 0);
			if (symlinkat("x", turmoil->dirfd, name) < 0)
				continue;
			unlinkat(turmoil->dirfd, name, 0);
			mkdirat(turmoil->dirfd, name, 0700);
			unlinkat(turmoil->dirfd, name, AT_REMOVEDIR);
		}
	}
	return NULL;
}

TEST(names_that_come_and_go_do_not_fail_a_capture)
{
	int top = scratch_new();
	struct turmoil turmoil = { .dirfd = make_directory(top, "d") };
	uint64_t end = clock_monotonic_ms() + 1000;
	pthread_t thread;

	make_file(top, "stays", 1);
	CHECK_INT(pthread_create(&thread, NULL, run_turmoil, &turmoil), 0);
	while (clock_monotonic_ms() < end) {
		struct manifest *m = manifest_new();
		struct tree_identity *identities = NULL;
		struct hib_error error = HIB_ERROR_INIT;

		if (tree_capture(top, m, &identities, NULL, &error) < 0) {
			TEST_FAIL_THREAD("%s", error.message);
			end = 0;
		} else if (!manifest_find(m, "stays")) {
			TEST_FAIL_THREAD("a file that stays is missing");
		}
		free(identities);
		manifest_free(m);
	}
	turmoil.stop = true;
	pthread_join(thread, NULL);
	close(turmoil.dirfd);
	scratch_done(top);
}

/* In a mount namespace of its own: 0, 77 if there is none to be had. */
static int capture_with_mount(int top, bool bind)
{
	struct hib_error error = HIB_ERROR_INIT;
	struct tree_identity *identities;
	char from[512], to[512];
	uint64_t freed;
	int copy;

	proc_path(top, "d", from);
	proc_path(top, "inside", to);
	if (unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 77;
	/* a directory that was opened before is in the old namespace */
	scratch_path(top, from);
	copy = open(from, O_RDONLY | O_DIRECTORY);
	strcat(from, "/d");
	scratch_path(top, to);
	strcat(to, "/inside");
	if (mount(bind ? from : "none", to, bind ? NULL : "tmpfs",
		  bind ? MS_BIND : 0, NULL) < 0)
		return 77;
	if (tree_capture(copy, manifest_new(), &identities, NULL, &error) !=
		    -EXDEV ||
	    !strstr(error.message, "\"inside\""))
		return 1;
	return tree_evict(copy, NULL, &freed, &error) == -EXDEV ? 0 : 2;
}

/* req: A2 */
TEST(a_mount_inside_is_refused_by_name)
{
	int top = scratch_new();
	int d = make_directory(top, "d");

	close(make_directory(top, "inside"));
	make_file(d, "f", 1);
	for (int bind = 0; bind < 2; bind++) {
		int status;
		pid_t child = fork();

		if (child == 0)
			_exit(capture_with_mount(top, bind));
		CHECK_INT(waitpid(child, &status, 0), child);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
			printf("     no mount namespace: not shown\n");
		else
			CHECK_INT(status, 0);
	}
	close(d);
	scratch_done(top);
}

/* req: T5 */
TEST(a_cancel_ends_each_of_them)
{
	int top = scratch_new();
	int built = make_directory(top, "built");
	struct manifest *m = capture_all(top, NULL), *other = manifest_new();
	struct tree_identity *identities;
	struct hib_error error;
	struct cancel cancel;
	uint64_t freed = 7;

	cancel_init(&cancel, NULL);
	cancel_request(&cancel);
	CHECK_INT(tree_capture(top, other, &identities, &cancel, &error),
		  -ECANCELED);
	CHECK_INT(tree_build(built, m, &cancel, &error), -ECANCELED);
	CHECK_INT(tree_seal(built, m, &cancel, &error), -ECANCELED);
	CHECK_INT(tree_evict(top, &cancel, &freed, &error), -ECANCELED);
	CHECK_INT(freed, 7);
	cancel_done(&cancel);
	manifest_free(other);
	manifest_free(m);
	close(built);
	scratch_done(top);
}

TEST_MAIN()
