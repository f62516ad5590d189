#include "control/rpc_listen.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BACKLOG 1024 /* a burst of more clients than may connect */

static int make_directory(const char *path, struct hib_error *error)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *directory = NULL;

	if (!slash || slash == path)
		return 0;
	directory = strndup(path, (size_t)(slash - path));
	if (!directory)
		return hib_fail_errno(error, ENOMEM, "make %s", path);
	/* The umask may not keep the control group out of it. */
	if (mkdir(directory, 0755) == 0)
		chmod(directory, 0755);
	else if (errno != EEXIST)
		return hib_fail_errno(
			error, errno,
			"The directory %s for the control socket cannot be made",
			directory);
	return 0;
}

/* Makes room at `path`: -EADDRINUSE unless nothing or a dead socket is there. */
static int remove_stale(const char *path, const struct sockaddr_un *address,
			struct hib_error *error)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0
				       : hib_fail_errno(error, errno,
							"look at %s", path);
	if (!S_ISSOCK(st.st_mode))
		return hib_fail(
			error, EADDRINUSE,
			"%s exists and is not a socket; remove it, or choose another path with -o socket=.",
			path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return hib_fail_errno(error, errno, "make a socket");
	/* A full backlog (EAGAIN) is a sign of life, too. */
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) ==
		    0 ||
	    errno != ECONNREFUSED)
		return hib_fail(
			error, EADDRINUSE,
			"Another hibfs answers at the control socket %s; choose another path with -o socket=.",
			path);
	if (unlink(path) < 0 && errno != ENOENT)
		return hib_fail_errno(
			error, errno,
			"The control socket %s of a dead hibfs cannot be removed",
			path);
	return 0;
}

static int give_away(const char *path, const struct peer_access *access)
{
	uid_t owner =
		access->owner_uid == geteuid() ? (uid_t)-1 : access->owner_uid;
	gid_t group = access->has_group ? access->group : (gid_t)-1;

	if ((owner != (uid_t)-1 || access->has_group) &&
	    lchown(path, owner, group) < 0)
		return -errno;
	return chmod(path, access->has_group ? 0660 : 0600) < 0 ? -errno : 0;
}

int rpc_listen(const char *path, const struct peer_access *access, int *ret_fd,
	       struct stat *ret_identity, struct hib_error *error)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	CLEANUP_CLOSE int fd = -EBADF;
	struct stat st;
	int r;

	if (strlen(path) >= sizeof(address.sun_path))
		return hib_fail(
			error, ENAMETOOLONG,
			"The path of the control socket is longer than %zu bytes: %.200s; choose another with -o socket=.",
			sizeof(address.sun_path) - 1, path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	r = make_directory(path, error);
	if (r == 0)
		r = remove_stale(path, &address, error);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The file is born with the mode of the socket: closed to others. */
	if (fd < 0 || fchmod(fd, 0600) < 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return hib_fail_errno(error, errno,
				      "The control socket %s cannot be made",
				      path);
	r = listen(fd, BACKLOG) < 0 ? -errno : give_away(path, access);
	if (r == 0 && lstat(path, &st) < 0)
		r = -errno;
	if (r < 0) {
		unlink(path);
		return hib_fail_errno(
			error, -r,
			"The control socket %s cannot be given to its owner and group",
			path);
	}
	*ret_identity = st;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

void rpc_unlisten(const char *path, const struct stat *identity)
{
	struct stat st;

	if (lstat(path, &st) == 0 && st.st_dev == identity->st_dev &&
	    st.st_ino == identity->st_ino)
		unlink(path);
}
