#include "control/client.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "meta/options.h"

#define FOUND_LIMIT 64

/* Sockets that a living hibfs listens at. */
struct found {
	char *paths[FOUND_LIMIT];
	size_t count;
	const char *directory; /* the one that is looked through */
};

static void found_done(struct found *found)
{
	for (size_t i = 0; i < found->count; i++)
		free(found->paths[i]);
}

/* One that may not be used counts: the message is about it, then. */
static bool is_alive(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	CLEANUP_CLOSE int fd = -EBADF;

	if (strlen(path) >= sizeof(address.sun_path))
		return false;
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	return connect(fd, (const struct sockaddr *)&address,
		       sizeof(address)) == 0 ||
	       errno == EAGAIN || errno == EACCES || errno == EPERM;
}

static int visit(void *arg, const char *name, unsigned char type)
{
	struct found *found = arg;
	const char *suffix = strrchr(name, '.');
	char *path;

	(void)type;
	if (!suffix || strcmp(suffix, ".sock") != 0 ||
	    found->count == FOUND_LIMIT)
		return 0;
	if (asprintf(&path, "%s/%s", found->directory, name) < 0)
		return -ENOMEM;
	if (is_alive(path))
		found->paths[found->count++] = path;
	else
		free(path);
	return 0;
}

static void look_through(struct found *found, const char *directory)
{
	CLEANUP_CLOSE int fd =
		open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	found->directory = directory;
	if (fd >= 0)
		dir_each(fd, visit, found, NULL);
}

/* $XDG_RUNTIME_DIR/hibfs, malloc'ed; NULL: there is none. */
static char *user_directory(void)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char *directory;

	if (!runtime || runtime[0] != '/' ||
	    asprintf(&directory, "%s/hibfs", runtime) < 0)
		return NULL;
	return directory;
}

static int find_any(char **ret_path, struct hib_error *error)
{
	CLEANUP(found_done) struct found found = { 0 };
	CLEANUP_FREE char *user = user_directory();
	CLEANUP(buffer_done) struct buffer list = BUFFER_INIT(64u << 10);

	look_through(&found, OPTION_RUN_DIRECTORY);
	if (user)
		look_through(&found, user);
	if (found.count == 1) {
		*ret_path = TAKE_PTR(found.paths[0]);
		return 0;
	}
	if (found.count == 0)
		return hib_fail(
			error, ENOENT,
			"No hibfs is running here: no socket in %s%s%s answers. With -o socket= it is elsewhere: give it with --socket or in HIBFS_SOCKET",
			OPTION_RUN_DIRECTORY, user ? " or " : "",
			user ? user : "");
	for (size_t i = 0; i < found.count; i++)
		buffer_append_format(&list, "\n  %s", found.paths[i]);
	return hib_fail(
		error, ENOTUNIQ,
		"Several hibfs run here; choose one with --socket PATH or HIBFS_SOCKET=MOUNTPOINT:%s",
		buffer_string(&list));
}

/*
 * The absolute path of a mount point, which may be one whose daemon is dead:
 * then its parent is resolved and the last component kept.
 */
static int resolve(const char *path, char ret[PATH_MAX],
		   struct hib_error *error)
{
	CLEANUP_FREE char *parent = strdup(path);
	char *slash;
	size_t used;

	if (realpath(path, ret))
		return 0;
	if (errno != ENOTCONN || !parent)
		return hib_fail_errno(
			error, errno,
			"%s is neither a control socket nor a mount point",
			path);
	while (strlen(parent) > 1 && parent[strlen(parent) - 1] == '/')
		parent[strlen(parent) - 1] = '\0';
	slash = strrchr(parent, '/');
	if (slash)
		*slash = '\0';
	if (!realpath(slash ? (*parent ? parent : "/") : ".", ret))
		return hib_fail_errno(error, errno, "%s cannot be resolved",
				      path);
	used = strlen(ret);
	snprintf(ret + used, PATH_MAX - used, "%s%s", used > 1 ? "/" : "",
		 slash ? slash + 1 : parent);
	return 0;
}

static int find_of_mount(const char *mount_point, char **ret_path,
			 struct hib_error *error)
{
	char path[OPTION_SOCKET_BYTES];
	CLEANUP_FREE char *user = user_directory();
	char resolved[PATH_MAX];
	struct stat st;
	int r;

	r = resolve(mount_point, resolved, error);
	if (r < 0)
		return r;
	if (user && options_socket_path(user, resolved, path, error) == 0 &&
	    lstat(path, &st) == 0) {
		*ret_path = strdup(path);
		return *ret_path ? 0 : hib_fail_errno(error, ENOMEM, "find");
	}
	r = options_socket_path(OPTION_RUN_DIRECTORY, resolved, path, error);
	if (r < 0)
		return r;
	if (lstat(path, &st) < 0)
		return hib_fail(
			error, ENOENT,
			"No hibfs has its socket for the mount point %s at %s. With -o socket= it is elsewhere: give it with --socket",
			resolved, path);
	*ret_path = strdup(path);
	return *ret_path ? 0 : hib_fail_errno(error, ENOMEM, "find");
}

int client_find(const char *hint, char **ret_path, struct hib_error *error)
{
	struct stat st;

	if (!hint)
		return find_any(ret_path, error);
	/* A dead mount answers ENOTCONN: resolve() deals with it. */
	if (stat(hint, &st) < 0 && errno != ENOTCONN)
		return hib_fail_errno(error, errno,
				      "No control socket or mount point %s",
				      hint);
	if (stat(hint, &st) < 0 || !S_ISSOCK(st.st_mode))
		return find_of_mount(hint, ret_path, error);
	*ret_path = strdup(hint);
	return *ret_path ? 0 : hib_fail_errno(error, ENOMEM, "find %s", hint);
}
