#include "meta/node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/encode.h"
#include "base/fault.h"
#include "base/file.h"
#include "meta/document.h"

#define DIRECTORY ".hibfs"
#define NODE_FILE "node.json"
#define LOCK_FILE "lock"
#define LABEL DIRECTORY "/" NODE_FILE

static void cleanup_json(json_t **json)
{
	json_decref(*json);
}

int node_open_directory(int source_fd, int *ret_hibfs_fd,
			struct hib_error *error)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct stat st;
	int r = dir_make(source_fd, DIRECTORY, 0700, &fd, error);

	if (r < 0)
		return hib_wrap(error, r, "source");
	if (fstat(fd, &st) < 0)
		return hib_fail_errno(error, errno, DIRECTORY);
	if (st.st_uid != geteuid() || (st.st_mode & 077))
		return hib_fail(
			error, EPERM,
			DIRECTORY
			" in the source must belong to the user that runs hibfs (uid %u, it has %u) and be closed to others (mode 0700, it has %04o)",
			(unsigned int)geteuid(), (unsigned int)st.st_uid,
			(unsigned int)st.st_mode & 07777);
	*ret_hibfs_fd = TAKE_FD(fd);
	return 0;
}

/* The pid in the lock file, 0 when there is none to be read. */
static long read_pid(int fd)
{
	char text[32] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	return n > 0 ? strtol(text, NULL, 10) : 0;
}

int node_lock_set_pid(int lock_fd, struct hib_error *error)
{
	char text[32];
	int length = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

	if (ftruncate(lock_fd, 0) < 0 ||
	    pwrite(lock_fd, text, (size_t)length, 0) != length)
		return hib_fail_errno(error, errno,
				      "cannot write " DIRECTORY "/" LOCK_FILE);
	return 0;
}

int node_lock(int hibfs_fd, int *ret_lock_fd, struct hib_error *error)
{
	CLEANUP_CLOSE int fd = -EBADF;
	int r;

	fd = openat(hibfs_fd, LOCK_FILE,
		    O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return hib_fail_errno(error, errno,
				      "cannot open " DIRECTORY "/" LOCK_FILE);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		long pid = read_pid(fd);

		if (errno != EWOULDBLOCK)
			return hib_fail_errno(error, errno,
					      "cannot lock the source");
		return hib_fail(
			error, EBUSY,
			"the source is in use by another hibfs, pid %ld: unmount that one first",
			pid);
	}
	r = node_lock_set_pid(fd, error);
	if (r < 0)
		return r;
	*ret_lock_fd = TAKE_FD(fd);
	return 0;
}

/* The host's name; "localhost" where it cannot be had. */
static void host_name(char *ret, size_t size)
{
	if (gethostname(ret, size) < 0 || !*ret)
		snprintf(ret, size, "localhost");
	ret[size - 1] = 0;
}

static int check_name(const char *name, struct hib_error *error)
{
	size_t length = strlen(name);

	if (length == 0 || length >= NODE_NAME_BYTES ||
	    !utf8_is_valid(name, length) || strpbrk(name, "@/\n"))
		return hib_fail(
			error, EINVAL,
			"node=%.300s: a node's name is UTF-8 of at most %d bytes without '@' and '/'",
			name, NODE_NAME_BYTES - 1);
	return 0;
}

static int save(int hibfs_fd, const struct node *node, struct hib_error *error)
{
	CLEANUP(cleanup_json)
	json_t *object = document_new(NODE_FORMAT, NODE_VERSION);
	int r;

	if (!object ||
	    json_object_set_new(object, "id", json_string(node->id)) < 0 ||
	    json_object_set_new(object, "name", json_string(node->name)) < 0)
		return hib_fail_errno(error, ENOMEM, LABEL);
	r = fault_point("node.save.before");
	if (r == 0)
		r = document_save(hibfs_fd, NODE_FILE, object, error);
	if (r == 0)
		r = fault_point("node.save.after");
	if (r < 0)
		return hib_wrap(error, r, LABEL);
	return 0;
}

static int parse(const json_t *object, struct node *ret,
		 struct hib_error *error)
{
	struct node node;
	int r;

	r = document_get_text(LABEL, object, "id", node.id, sizeof(node.id),
			      error);
	if (r == 0)
		r = document_get_text(LABEL, object, "name", node.name,
				      sizeof(node.name), error);
	if (r < 0)
		return r;
	if (!uuid_is_valid(node.id))
		return hib_fail(error, EBADMSG, LABEL ": \"id\" is not a UUID");
	*ret = node;
	return 0;
}

int node_load(int hibfs_fd, const char *name, struct node *ret,
	      struct hib_error *error)
{
	CLEANUP(cleanup_json) json_t *object = NULL;
	struct hib_error inner = HIB_ERROR_INIT;
	struct node node;
	bool changed = false;
	int r = name ? check_name(name, error) : 0;

	if (r < 0)
		return r;
	r = document_load(hibfs_fd, NODE_FILE, LABEL, NODE_FORMAT, NODE_VERSION,
			  &object, &inner);
	if (r == 0) {
		r = parse(object, &node, error);
	} else if (r == -ENOENT) {
		uuid_new(node.id);
		host_name(node.name, sizeof(node.name));
		changed = true;
		r = 0;
	} else if (error) {
		*error = inner;
	}
	if (r < 0)
		return r;
	if (name && strcmp(name, node.name) != 0) {
		snprintf(node.name, sizeof(node.name), "%s", name);
		changed = true;
	}
	if (changed)
		r = save(hibfs_fd, &node, error);
	if (r == 0)
		*ret = node;
	return r;
}

void node_otp_name(const struct node *node, char ret_text[NODE_OTP_BYTES])
{
	char host[256];

	host_name(host, sizeof(host));
	snprintf(ret_text, NODE_OTP_BYTES, "%s@%s", node->name, host);
}
