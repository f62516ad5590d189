#include "fs/request.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/fuse.h>

/* Since protocol 7.45, which the headers of older systems do not have. */
#define OPCODE_COPY_FILE_RANGE_64 53

#define TIMES (FATTR_ATIME | FATTR_MTIME)
/* What else may come with times that are given, not "now". */
#define TIMES_IGNORED (FATTR_CTIME | FATTR_LOCKOWNER)

/* Protocols before 7.9 had shorter structs; such kernels have no passthrough. */
struct body {
	const char *data;
	size_t size;
};

/* The struct at the front of the body, or NULL when it is cut off. */
static const void *front(const struct body *body, size_t size)
{
	return body->size >= size ? body->data : NULL;
}

/* The name that begins at `offset`, or NULL if it does not end in the body. */
static const char *name_at(const struct body *body, size_t offset)
{
	if (offset >= body->size ||
	    !memchr(body->data + offset, '\0', body->size - offset))
		return NULL;
	return body->data + offset;
}

static void change(struct request *request, uint64_t node)
{
	request->class = REQUEST_CHANGE;
	request->nodes[0] = node;
	request->node_count = 1;
}

static void change_locked(struct request *request, uint64_t node)
{
	change(request, node);
	request->locks_node = true;
}

static void parse_setattr(struct request *request, const struct body *body)
{
	const struct fuse_setattr_in *in = front(body, sizeof(*in));

	if (!in || (in->valid & ~TIMES_IGNORED) != TIMES)
		return;
	request->sets_times = true;
	request->atime_s = in->atime;
	request->atime_ns = in->atimensec;
	request->mtime_s = in->mtime;
	request->mtime_ns = in->mtimensec;
}

static void parse_open(struct request *request, const struct body *body,
		       uint64_t node)
{
	const struct fuse_open_in *in = front(body, sizeof(*in));

	change(request, node);
	if (!in ||
	    !(in->flags & O_TRUNC || in->open_flags & FUSE_OPEN_KILL_SUIDGID))
		request->class = REQUEST_OPEN;
}

static void parse_write(struct request *request, const struct body *body,
			uint64_t node)
{
	const struct fuse_write_in *in = front(body, sizeof(*in));

	change(request, node);
	request->writeback = in && in->write_flags & FUSE_WRITE_CACHE;
	request->locks_node = !request->writeback;
}

/* `front_bytes`: of the struct before the two names. */
static void parse_rename(struct request *request, const struct body *body,
			 size_t front_bytes, uint64_t node)
{
	const uint64_t *new_parent = front(body, front_bytes);

	change(request, node);
	if (!new_parent)
		return;
	memcpy(&request->nodes[1], new_parent, sizeof(request->nodes[1]));
	request->node_count = 2;
	request->names[0] = name_at(body, front_bytes);
	if (request->names[0])
		request->names[1] = name_at(
			body, front_bytes + strlen(request->names[0]) + 1);
}

static void parse_link(struct request *request, const struct body *body,
		       uint64_t node)
{
	const struct fuse_link_in *in = front(body, sizeof(*in));

	change(request, node);
	if (!in)
		return;
	request->nodes[1] = in->oldnodeid;
	request->node_count = 2;
}

static void parse_copy(struct request *request, const struct body *body)
{
	const struct fuse_copy_file_range_in *in = front(body, sizeof(*in));

	/* What is copied from does not change. */
	if (in)
		change_locked(request, in->nodeid_out);
}

static void parse_ioctl(struct request *request, const struct body *body,
			uint64_t node)
{
	const struct fuse_ioctl_in *in = front(body, sizeof(*in));

	/* FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR and the like hand something in. */
	if (in && _IOC_DIR(in->cmd) & _IOC_WRITE)
		change(request, node);
}

static void parse_interrupt(struct request *request, const struct body *body)
{
	const struct fuse_interrupt_in *in = front(body, sizeof(*in));

	if (!in)
		return;
	request->class = REQUEST_INTERRUPT;
	request->interrupted = in->unique;
}

static void parse_body(struct request *request, const struct body *body,
		       uint64_t node)
{
	switch (request->opcode) {
	case FUSE_SETATTR:
		change_locked(request, node);
		parse_setattr(request, body);
		break;
	case FUSE_SETXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_FALLOCATE:
		change_locked(request, node);
		break;
	case FUSE_SYMLINK:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_CREATE:
	case FUSE_TMPFILE:
		change(request, node);
		break;
	case FUSE_UNLINK:
	case FUSE_RMDIR:
		change(request, node);
		request->names[0] = name_at(body, 0);
		break;
	case FUSE_RENAME:
		parse_rename(request, body, sizeof(struct fuse_rename_in),
			     node);
		break;
	case FUSE_RENAME2:
		parse_rename(request, body, sizeof(struct fuse_rename2_in),
			     node);
		break;
	case FUSE_LINK:
		parse_link(request, body, node);
		break;
	case FUSE_OPEN:
		parse_open(request, body, node);
		break;
	case FUSE_RELEASE:
		change(request, node);
		request->class = REQUEST_RELEASE;
		break;
	case FUSE_WRITE:
		parse_write(request, body, node);
		break;
	case FUSE_COPY_FILE_RANGE:
	case OPCODE_COPY_FILE_RANGE_64:
		parse_copy(request, body);
		break;
	case FUSE_IOCTL:
		parse_ioctl(request, body, node);
		break;
	case FUSE_INTERRUPT:
		parse_interrupt(request, body);
		break;
	default:
		/* Reads, and what libfuse does not know: it answers ENOSYS. */
		break;
	}
}

void request_parse(const void *data, size_t size, struct request *ret)
{
	struct fuse_in_header header;
	struct body body;

	memset(ret, 0, sizeof(*ret));
	if (size < sizeof(header))
		return;
	memcpy(&header, data, sizeof(header));
	ret->opcode = header.opcode;
	ret->unique = header.unique;
	body.data = (const char *)data + sizeof(header);
	body.size = size - sizeof(header);
	parse_body(ret, &body, header.nodeid);
}
