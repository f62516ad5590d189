#include "transfer/store.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/scratch.h"
#include "tests/unit/test.h"

/* A store in a fresh directory. */
struct fixture {
	int fd; /* the directory of the store's root */
	struct store *store;
};

static void setup(struct fixture *fixture)
{
	char path[256], url[300];
	struct store_config config = { .url = url };

	fixture->fd = scratch_new();
	scratch_path(fixture->fd, path);
	snprintf(url, sizeof(url), "file://%s/root", path);
	CHECK_INT(store_open(&config, &fixture->store, NULL), 0);
}

static void teardown(struct fixture *fixture)
{
	CHECK(!store_close(fixture->store));
	scratch_done(fixture->fd);
}

static int put(struct fixture *fixture, const char *key, const char *text,
	       unsigned flags)
{
	return store_put(fixture->store, key, text, strlen(text), flags, NULL,
			 NULL);
}

static void check_get(struct fixture *fixture, const char *key, uint64_t offset,
		      uint64_t length, const char *wanted)
{
	struct buffer data = BUFFER_INIT(1 << 20);

	CHECK_INT(buffer_append_string(&data, "before:"), 0);
	CHECK_INT(store_get(fixture->store, key, offset, length, &data, NULL,
			    NULL),
		  0);
	CHECK_STR(buffer_string(&data) + 7, wanted);
	buffer_done(&data);
}

TEST(an_object_is_put_read_and_replaced)
{
	struct fixture fixture;
	struct store_object object;

	setup(&fixture);
	CHECK_INT(put(&fixture, "a/b/c", "hello", 0), 0);
	check_get(&fixture, "a/b/c", 0, 0, "hello");
	check_get(&fixture, "a/b/c", 1, 3, "ell");
	check_get(&fixture, "a/b/c", 2, 0, "llo");
	CHECK_INT(put(&fixture, "a/b/c", "", 0), 0);
	check_get(&fixture, "a/b/c", 0, 0, "");
	CHECK_INT(store_head(fixture.store, "a/b/c", &object, NULL, NULL), 0);
	CHECK_INT(object.size, 0);
	CHECK(object.modified_ms > 0);
	CHECK_INT(store_head(fixture.store, "a/b", &object, NULL, NULL),
		  -ENOENT);
	CHECK_INT(store_head(fixture.store, "x", &object, NULL, NULL), -ENOENT);
	teardown(&fixture);
}

/* req: T9 */
TEST(fewer_bytes_than_asked_for_is_an_error)
{
	struct buffer data = BUFFER_INIT(1 << 20), small = BUFFER_INIT(3);
	struct fixture fixture;

	setup(&fixture);
	CHECK_INT(put(&fixture, "k", "hello", 0), 0);
	CHECK_INT(store_get(fixture.store, "k", 0, 6, &data, NULL, NULL), -EIO);
	CHECK_INT(store_get(fixture.store, "k", 5, 1, &data, NULL, NULL), -EIO);
	CHECK_INT(store_get(fixture.store, "k", 5, 0, &data, NULL, NULL), -EIO);
	CHECK_INT(data.size, 0);
	CHECK_INT(store_get(fixture.store, "k", 0, 0, &small, NULL, NULL),
		  -EMSGSIZE);
	buffer_done(&small);
	buffer_done(&data);
	teardown(&fixture);
}

TEST(if_absent_keeps_what_is_there)
{
	struct fixture fixture;

	setup(&fixture);
	CHECK_INT(put(&fixture, "a/k", "first", STORE_IF_ABSENT), 0);
	CHECK_INT(put(&fixture, "a/k", "second", STORE_IF_ABSENT), -EEXIST);
	check_get(&fixture, "a/k", 0, 0, "first");
	teardown(&fixture);
}

/* req: A2 */
TEST(keys_cannot_leave_the_directory)
{
	static const char *const bad[] = {
		"",	".",	  "..",	   "/etc/x",	   "a//b",
		"../x", "a/../x", "a/./b", "a/",	   "a\nb",
		"\x7f", "a/..",	  "\xc3",  ".hibfs-tmp/x", ".hibfs-tmp",
	};
	struct buffer data = BUFFER_INIT(1 << 20);
	struct fixture fixture;

	setup(&fixture);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK_INT(put(&fixture, bad[i], "x", 0), -EINVAL);
		CHECK_INT(store_get(fixture.store, bad[i], 0, 0, &data, NULL,
				    NULL),
			  -EINVAL);
		CHECK_INT(store_delete(fixture.store, &bad[i], 1, NULL, NULL),
			  -EINVAL);
	}
	buffer_done(&data);
	teardown(&fixture);
}

/* req: A2 */
TEST(a_symlink_in_the_way_is_not_followed)
{
	struct buffer data = BUFFER_INIT(1 << 20);
	const char *keys[] = { "link/secret" };
	struct fixture fixture;

	setup(&fixture);
	CHECK_INT(mkdirat(fixture.fd, "outside", 0700), 0);
	scratch_write(fixture.fd, "outside/secret", "s", 1);
	CHECK_INT(symlinkat("../outside", fixture.fd, "root/link"), 0);
	CHECK_INT(symlinkat("../outside/secret", fixture.fd, "root/file"), 0);
	CHECK(store_get(fixture.store, "link/secret", 0, 0, &data, NULL, NULL) <
	      0);
	CHECK(store_get(fixture.store, "file", 0, 0, &data, NULL, NULL) < 0);
	CHECK(put(&fixture, "link/new", "x", 0) < 0);
	CHECK(store_delete(fixture.store, keys, 1, NULL, NULL) < 0);
	CHECK(scratch_has(fixture.fd, "outside/secret"));
	CHECK(!scratch_has(fixture.fd, "outside/new"));
	CHECK_INT(put(&fixture, "file", "replaced", 0), 0);
	check_get(&fixture, "file", 0, 0, "replaced");
	buffer_done(&data);
	teardown(&fixture);
}

static int append_key(void *arg, const char *key,
		      const struct store_object *object)
{
	(void)object;
	return buffer_append_format(arg, "%s ", key);
}

static void check_list(struct fixture *fixture, const char *prefix,
		       const char *after, const char *wanted)
{
	struct buffer keys = BUFFER_INIT(1 << 20);

	CHECK_INT(store_list(fixture->store, prefix, after, append_key, &keys,
			     NULL, NULL),
		  0);
	CHECK_STR(buffer_string(&keys), wanted);
	buffer_done(&keys);
}

TEST(a_listing_is_in_the_order_of_the_keys_bytes)
{
	static const char *const keys[] = { "b",   "a/z", "a-b/c", "a.txt",
					    "a/b", "a0",  "a-c",   "a/b0/x" };
	struct fixture fixture;

	setup(&fixture);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		CHECK_INT(put(&fixture, keys[i], "x", 0), 0);
	check_list(&fixture, "", NULL, "a-b/c a-c a.txt a/b a/b0/x a/z a0 b ");
	check_list(&fixture, "a/", NULL, "a/b a/b0/x a/z ");
	check_list(&fixture, "a", NULL, "a-b/c a-c a.txt a/b a/b0/x a/z a0 ");
	check_list(&fixture, "a/b", NULL, "a/b a/b0/x ");
	check_list(&fixture, "a-", NULL, "a-b/c a-c ");
	check_list(&fixture, "none/", NULL, "");
	check_list(&fixture, "b/", NULL, "");
	check_list(&fixture, "zz", NULL, "");
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		check_list(&fixture, keys[i], keys[i],
			   strcmp(keys[i], "a/b") == 0 ? "a/b0/x " : "");
	check_list(&fixture, "", "a.txt", "a/b a/b0/x a/z a0 b ");
	check_list(&fixture, "", "a/b", "a/b0/x a/z a0 b ");
	check_list(&fixture, "", "a/b0/x", "a/z a0 b ");
	check_list(&fixture, "", "a/b0/y", "a/z a0 b ");
	check_list(&fixture, "", "a/", "a/b a/b0/x a/z a0 b ");
	check_list(&fixture, "a/", "a-z", "a/b a/b0/x a/z ");
	check_list(&fixture, "a/", "a0", "");
	teardown(&fixture);
}

struct counter {
	size_t count;
	char last[STORE_KEY_BYTES];
};

static int count_key(void *arg, const char *key,
		     const struct store_object *object)
{
	struct counter *counter = arg;

	(void)object;
	if (strcmp(key, counter->last) <= 0)
		return -EILSEQ;
	snprintf(counter->last, sizeof(counter->last), "%s", key);
	counter->count++;
	return 0;
}

TEST(a_listing_goes_over_pages)
{
	struct counter counter = { 0 };
	struct fixture fixture;
	int root;

	setup(&fixture);
	root = openat(fixture.fd, "root", O_RDONLY | O_DIRECTORY);
	CHECK(root >= 0);
	for (int i = 0; i < 50; i++) {
		char name[64];

		snprintf(name, sizeof(name), "d%d", i);
		CHECK_INT(mkdirat(root, name, 0755), 0);
		for (int k = 0; k < 60; k++) {
			snprintf(name, sizeof(name), "d%d/%d", i, k);
			scratch_write(root, name, "x", 1);
			snprintf(name, sizeof(name), "f%d-%d", i, k);
			scratch_write(root, name, "x", 1);
		}
	}
	close(root);
	CHECK_INT(store_list(fixture.store, "", NULL, count_key, &counter, NULL,
			     NULL),
		  0);
	CHECK_INT(counter.count, 6000);
	teardown(&fixture);
}

TEST(a_visitor_ends_the_listing)
{
	struct counter counter = { .last = "zzz" };
	struct fixture fixture;

	setup(&fixture);
	CHECK_INT(put(&fixture, "a", "x", 0), 0);
	CHECK_INT(store_list(fixture.store, "", NULL, count_key, &counter, NULL,
			     NULL),
		  -EILSEQ);
	teardown(&fixture);
}

/* req: P8 */
TEST(deleting_leaves_no_empty_directories)
{
	const char *keys[] = { "a/b/c", "a/b/none", "none/x" };
	struct fixture fixture;

	setup(&fixture);
	CHECK_INT(put(&fixture, "a/b/c", "x", 0), 0);
	CHECK_INT(put(&fixture, "a/d", "x", 0), 0);
	CHECK_INT(store_delete(fixture.store, keys, 3, NULL, NULL), 0);
	CHECK(!scratch_has(fixture.fd, "root/a/b"));
	CHECK(scratch_has(fixture.fd, "root/a/d"));
	keys[0] = "a/d";
	CHECK_INT(store_delete(fixture.store, keys, 1, NULL, NULL), 0);
	CHECK(!scratch_has(fixture.fd, "root/a"));
	CHECK(scratch_has(fixture.fd, "root"));
	teardown(&fixture);
}

TEST(what_a_crashed_writer_left_is_removed)
{
	static const char old[] =
		"root/.hibfs-tmp/2b7c3a7e-5d8f-4c6a-9e1b-0a1b2c3d4e5f";
	static const char fresh[] =
		"root/.hibfs-tmp/3b7c3a7e-5d8f-4c6a-9e1b-0a1b2c3d4e5f";
	const struct timespec times[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	struct store_config config = { 0 };
	struct fixture fixture;
	char url[300];

	setup(&fixture);
	scratch_write(fixture.fd, old, "x", 1);
	scratch_write(fixture.fd, fresh, "x", 1);
	CHECK_INT(utimensat(fixture.fd, old, times, 0), 0);
	snprintf(url, sizeof(url), "%s", store_url(fixture.store));
	store_close(fixture.store);
	config.url = url;
	CHECK_INT(store_open(&config, &fixture.store, NULL), 0);
	CHECK(!scratch_has(fixture.fd, old));
	CHECK(scratch_has(fixture.fd, fresh));
	check_list(&fixture, "", NULL, "");
	teardown(&fixture);
}

struct racer {
	struct fixture *fixture;
	pthread_t thread;
	int number, result;
};

static void *race_if_absent(void *arg)
{
	struct racer *racer = arg;
	char text[32];

	snprintf(text, sizeof(text), "%d", racer->number);
	racer->result = put(racer->fixture, "race/k", text, STORE_IF_ABSENT);
	return NULL;
}

/* req: P14 */
TEST(of_many_who_put_if_absent_one_wins)
{
	struct racer racers[16];
	struct fixture fixture;
	char winner[32] = "";
	int won = 0;

	setup(&fixture);
	for (int i = 0; i < 16; i++) {
		racers[i] = (struct racer){ .fixture = &fixture, .number = i };
		CHECK_INT(pthread_create(&racers[i].thread, NULL,
					 race_if_absent, &racers[i]),
			  0);
	}
	for (int i = 0; i < 16; i++) {
		pthread_join(racers[i].thread, NULL);
		if (racers[i].result == 0) {
			won++;
			snprintf(winner, sizeof(winner), "%d", i);
		} else {
			CHECK_INT(racers[i].result, -EEXIST);
		}
	}
	CHECK_INT(won, 1);
	check_get(&fixture, "race/k", 0, 0, winner);
	teardown(&fixture);
}

static void *put_and_delete(void *arg)
{
	struct racer *racer = arg;
	char key[32];
	const char *keys[] = { key };

	snprintf(key, sizeof(key), "shared/%d", racer->number);
	for (int i = 0; i < 50 && racer->result == 0; i++) {
		racer->result = put(racer->fixture, key, "x", 0);
		if (racer->result == 0)
			racer->result = store_delete(racer->fixture->store,
						     keys, 1, NULL, NULL);
	}
	return NULL;
}

TEST(a_directory_removed_under_a_put_is_made_again)
{
	struct racer racers[4];
	struct fixture fixture;

	setup(&fixture);
	for (int i = 0; i < 4; i++) {
		racers[i] = (struct racer){ .fixture = &fixture, .number = i };
		CHECK_INT(pthread_create(&racers[i].thread, NULL,
					 put_and_delete, &racers[i]),
			  0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(racers[i].thread, NULL);
		CHECK_INT(racers[i].result, 0);
	}
	teardown(&fixture);
}

TEST_MAIN()
