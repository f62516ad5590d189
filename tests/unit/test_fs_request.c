#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <linux/fs.h>
#include <linux/fuse.h>

#include "fs/request.h"

struct raw {
	struct fuse_in_header header;
	char body[256];
};

static struct request parse(uint32_t opcode, const void *body, size_t size)
{
	struct raw raw = {
		.header = { .opcode = opcode, .unique = 77, .nodeid = 5 }
	};
	struct request request;

	memcpy(raw.body, body, size);
	request_parse(&raw, sizeof(raw.header) + size, &request);
	return request;
}

/* The opcode's class with a body of zeros. */
static enum request_class class_of(uint32_t opcode)
{
	static const char zeros[200];

	return parse(opcode, zeros, sizeof(zeros)).class;
}

/* req: L1 */
TEST(reads_pass)
{
	static const uint32_t reads[] = {
		FUSE_LOOKUP,   FUSE_FORGET,	  FUSE_GETATTR,
		FUSE_READLINK, FUSE_READ,	  FUSE_STATFS,
		FUSE_FSYNC,    FUSE_GETXATTR,	  FUSE_LISTXATTR,
		FUSE_FLUSH,    FUSE_INIT,	  FUSE_OPENDIR,
		FUSE_READDIR,  FUSE_RELEASEDIR,	  FUSE_FSYNCDIR,
		FUSE_GETLK,    FUSE_SETLK,	  FUSE_SETLKW,
		FUSE_ACCESS,   FUSE_DESTROY,	  FUSE_POLL,
		FUSE_LSEEK,    FUSE_BATCH_FORGET, FUSE_READDIRPLUS,
		FUSE_IOCTL,    FUSE_SYNCFS,	  0,
		1000,
	};
	size_t i;

	for (i = 0; i < sizeof(reads) / sizeof(reads[0]); i++)
		CHECK_INT(class_of(reads[i]), REQUEST_PASS);
}

/* req: L1 */
TEST(changes_are_changes)
{
	static const uint32_t changes[] = {
		FUSE_SETATTR,
		FUSE_SYMLINK,
		FUSE_MKNOD,
		FUSE_MKDIR,
		FUSE_UNLINK,
		FUSE_RMDIR,
		FUSE_RENAME,
		FUSE_RENAME2,
		FUSE_LINK,
		FUSE_WRITE,
		FUSE_SETXATTR,
		FUSE_REMOVEXATTR,
		FUSE_CREATE,
		FUSE_FALLOCATE,
		FUSE_COPY_FILE_RANGE,
		FUSE_TMPFILE,
		53,
	};
	size_t i;

	for (i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
		CHECK_INT(class_of(changes[i]), REQUEST_CHANGE);
}

/* req: L1 */
TEST(an_open_is_a_change_when_it_truncates)
{
	struct fuse_open_in in = { .flags = O_RDWR | O_APPEND };

	CHECK_INT(parse(FUSE_OPEN, &in, sizeof(in)).class, REQUEST_OPEN);
	in.flags |= O_TRUNC;
	CHECK_INT(parse(FUSE_OPEN, &in, sizeof(in)).class, REQUEST_CHANGE);
}

TEST(an_ioctl_is_a_change_when_it_hands_something_in)
{
	struct fuse_ioctl_in in = { .cmd = FS_IOC_GETFLAGS };

	CHECK_INT(parse(FUSE_IOCTL, &in, sizeof(in)).class, REQUEST_PASS);
	in.cmd = 0x5401; /* TCGETS: isatty(3) */
	CHECK_INT(parse(FUSE_IOCTL, &in, sizeof(in)).class, REQUEST_PASS);
	in.cmd = FS_IOC_SETFLAGS;
	CHECK_INT(parse(FUSE_IOCTL, &in, sizeof(in)).class, REQUEST_CHANGE);
}

TEST(names_and_both_directories_of_a_rename_are_found)
{
	struct {
		struct fuse_rename2_in in;
		char names[8];
	} body = { .in = { .newdir = 9 }, .names = "ab\0cde" };
	struct request request = parse(FUSE_RENAME2, &body, sizeof(body));

	CHECK_INT(request.node_count, 2);
	CHECK_INT(request.nodes[0], 5);
	CHECK_INT(request.nodes[1], 9);
	CHECK(request.names[0] && request.names[1]);
}

TEST(a_copy_changes_the_file_that_is_copied_to)
{
	struct fuse_copy_file_range_in in = { .nodeid_out = 11 };
	struct request request = parse(FUSE_COPY_FILE_RANGE, &in, sizeof(in));

	CHECK_INT(request.node_count, 1);
	CHECK_INT(request.nodes[0], 11);
	CHECK(request.locks_node);
}

TEST(written_back_pages_are_told_from_writes)
{
	struct fuse_write_in in = { .write_flags = 0 };

	CHECK(!parse(FUSE_WRITE, &in, sizeof(in)).writeback);
	in.write_flags = FUSE_WRITE_CACHE;
	CHECK(parse(FUSE_WRITE, &in, sizeof(in)).writeback);
	CHECK(!parse(FUSE_WRITE, &in, sizeof(in)).locks_node);
}

TEST(times_are_read_only_from_a_setattr_of_just_times)
{
	struct fuse_setattr_in in = { .valid = FATTR_ATIME | FATTR_MTIME,
				      .atime = 1,
				      .mtime = 2,
				      .atimensec = 3,
				      .mtimensec = 4 };
	struct request request = parse(FUSE_SETATTR, &in, sizeof(in));

	CHECK(request.sets_times);
	CHECK_INT(request.atime_s, 1);
	CHECK_INT(request.mtime_s, 2);
	CHECK_INT(request.atime_ns, 3);
	CHECK_INT(request.mtime_ns, 4);
	in.valid |= FATTR_SIZE;
	CHECK(!parse(FUSE_SETATTR, &in, sizeof(in)).sets_times);
	in.valid = FATTR_ATIME | FATTR_MTIME | FATTR_MTIME_NOW;
	CHECK(!parse(FUSE_SETATTR, &in, sizeof(in)).sets_times);
}

TEST(an_interrupt_names_its_request)
{
	struct fuse_interrupt_in in = { .unique = 42 };
	struct request request = parse(FUSE_INTERRUPT, &in, sizeof(in));

	CHECK_INT(request.class, REQUEST_INTERRUPT);
	CHECK_INT(request.interrupted, 42);
}

/* Every opcode, cut at every length: to be run under ASan. req: A2 */
TEST(cut_off_requests_are_not_read_beyond_their_end)
{
	struct raw raw;
	struct request request;
	uint32_t opcode;
	size_t size;

	for (opcode = 0; opcode < 60; opcode++) {
		for (size = 0; size < sizeof(raw); size++) {
			char *cut = malloc(size ? size : 1);

			memset(&raw, 'x', sizeof(raw));
			raw.header.opcode = opcode;
			memcpy(cut, &raw, size);
			request_parse(cut, size, &request);
			CHECK(size >= sizeof(raw.header) ||
			      request.class == REQUEST_PASS);
			CHECK(!request.names[0] ||
			      memchr(request.names[0], '\0', size));
			free(cut);
		}
	}
}

TEST_MAIN()
