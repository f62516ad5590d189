#include "fs/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buffer.h"
#include "fs/ops.h"

#define FILE_SYSTEM_TYPE "fuse.hibfs"
#define OPTION_LIMIT (64 * 1024)

/*
 * ---- What is at the mount point ----
 */

/* Undoes the octal escapes of /proc/self/mountinfo. */
static void unescape(char *text)
{
	char *out = text;

	for (; *text; text++) {
		if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' &&
		    text[2] >= '0' && text[2] <= '7' && text[3] >= '0' &&
		    text[3] <= '7') {
			*out++ = (char)((text[1] - '0') * 64 +
					(text[2] - '0') * 8 + text[3] - '0');
			text += 3;
		} else {
			*out++ = *text;
		}
	}
	*out = '\0';
}

/* Is the topmost mount on `path` one of ours? Asks no file system. */
static bool is_hibfs_mount(const char *path)
{
	CLEANUP_FCLOSE FILE *file = fopen("/proc/self/mountinfo", "re");
	CLEANUP_FREE char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (file && getline(&line, &room, file) > 0) {
		CLEANUP_FREE char *point = NULL;
		char *rest;

		/* id parent major:minor root POINT options [...] - TYPE ... */
		if (sscanf(line, "%*s %*s %*s %*s %ms", &point) != 1)
			continue;
		unescape(point);
		rest = strstr(line, " - ");
		if (rest && strcmp(point, path) == 0)
			found = strncmp(rest + 3, FILE_SYSTEM_TYPE " ",
					strlen(FILE_SYSTEM_TYPE) + 1) == 0;
	}
	return found;
}

/* fusermount3 detaches for those who may not call umount2(2). */
static int detach_by_helper(const char *path)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-u", "-z", "--", path,
		       (char *)NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

static int detach(struct fs *fs)
{
	if (umount2(fs->mountpoint, MNT_DETACH) == 0)
		return 0;
	if (errno != EPERM || fs->rights.privileged)
		return -errno;
	return detach_by_helper(fs->mountpoint);
}

/*
 * statfs(2) always asks the daemon, while attributes may still be remembered
 * of one that is gone.
 */
static bool is_dead(const char *path)
{
	struct statfs figures;

	return statfs(path, &figures) < 0 &&
	       (errno == ENOTCONN || errno == ECONNABORTED);
}

static int clear_mountpoint(struct fs *fs, struct hib_error *error)
{
	struct stat attr;
	int r;

	while (is_dead(fs->mountpoint)) {
		r = detach(fs);
		if (r < 0)
			return hib_fail_errno(
				error, -r,
				"detach the dead mount on %s that an earlier "
				"daemon left (umount -l it by hand)",
				fs->mountpoint);
		log_info(fs->log, "%s: detached a dead mount", fs->mountpoint);
	}
	if (is_hibfs_mount(fs->mountpoint))
		return hib_fail(error, EBUSY,
				"%s is in use by another hibfs; stop it first",
				fs->mountpoint);
	if (stat(fs->mountpoint, &attr) < 0)
		return hib_fail_errno(error, errno, "mount point %s",
				      fs->mountpoint);
	if (!S_ISDIR(attr.st_mode))
		return hib_fail(error, ENOTDIR,
				"mount point %s is not a directory",
				fs->mountpoint);
	return 0;
}

/*
 * ---- Session ----
 */

/* In an option's value a comma and a backslash are escaped. */
static int append_escaped(struct buffer *options, const char *text)
{
	char escaped[3] = "\\";
	int r = 0;

	for (; *text && r == 0; text++) {
		escaped[1] = *text;
		r = buffer_append_string(options, *text == ',' || *text == '\\'
							  ? escaped
							  : escaped + 1);
	}
	return r;
}

static int build_options(struct fs *fs, struct buffer *options)
{
	int r;

	r = buffer_append_string(options, "default_permissions,subtype=hibfs");
	/* Without root it takes user_allow_other in /etc/fuse.conf. */
	if (r == 0 && fs->rights.privileged)
		r = buffer_append_string(options, ",allow_other,suid,dev");
	if (r == 0 && fs->read_only)
		r = buffer_append_string(options, ",ro");
	if (r == 0 && fs->kernel_options && *fs->kernel_options)
		r = buffer_append_format(options, ",%s", fs->kernel_options);
	if (r == 0)
		r = buffer_append_string(options, ",fsname=");
	if (r == 0)
		r = append_escaped(options, fs->source);
	return r;
}

static int make_session(struct fs *fs, struct hib_error *error)
{
	CLEANUP(buffer_done) struct buffer options = BUFFER_INIT(OPTION_LIMIT);
	struct fuse_lowlevel_ops ops = ops_table();
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int r;

	r = build_options(fs, &options);
	if (r < 0)
		return hib_fail_errno(error, -r, "mount options");
	if (fuse_opt_add_arg(&args, "hibfs") == 0 &&
	    fuse_opt_add_arg(&args, "-o") == 0 &&
	    fuse_opt_add_arg(&args, buffer_string(&options)) == 0)
		fs->session = fuse_session_new(&args, &ops, sizeof(ops), fs);
	fuse_opt_free_args(&args);
	if (!fs->session)
		return hib_fail(error, EINVAL,
				"libfuse refuses the mount options \"%s\"",
				buffer_string(&options));
	return 0;
}

int mount_start(struct fs *fs, struct hib_error *error)
{
	int r;

	r = clear_mountpoint(fs, error);
	if (r == 0)
		r = make_session(fs, error);
	if (r < 0)
		return r;
	if (fuse_session_mount(fs->session, fs->mountpoint) == 0)
		return 0;
	r = errno ? errno : EIO;
	fuse_session_destroy(fs->session);
	fs->session = NULL;
	return hib_fail(error, r,
			"cannot mount on %s; is /dev/fuse there, and "
			"fusermount3 when not root?",
			fs->mountpoint);
}

void mount_stop(struct fs *fs)
{
	fuse_session_unmount(fs->session);
}

/*
 * ---- INIT ----
 */

static bool offered(const struct fuse_conn_info *conn, uint64_t capability)
{
#ifdef HIBFS_HAVE_PASSTHROUGH
	return conn->capable_ext & capability;
#else
	return conn->capable & capability;
#endif
}

static void want(struct fuse_conn_info *conn, uint64_t capability)
{
	if (!offered(conn, capability))
		return;
#ifdef HIBFS_HAVE_PASSTHROUGH
	fuse_set_feature_flag(conn, capability);
#else
	conn->want |= capability;
#endif
}

static void unwant(struct fuse_conn_info *conn, uint64_t capability)
{
#ifdef HIBFS_HAVE_PASSTHROUGH
	fuse_unset_feature_flag(conn, capability);
#else
	conn->want &= ~capability;
#endif
}

static void choose_caching(struct fuse_conn_info *conn)
{
	want(conn, FUSE_CAP_ASYNC_READ);
	want(conn, FUSE_CAP_ASYNC_DIO);
	want(conn, FUSE_CAP_PARALLEL_DIROPS);
	want(conn, FUSE_CAP_READDIRPLUS);
	want(conn, FUSE_CAP_READDIRPLUS_AUTO);
	want(conn, FUSE_CAP_CACHE_SYMLINKS);
	/* Switches passthrough off. */
	unwant(conn, FUSE_CAP_WRITEBACK_CACHE);
	/* Nothing changes the source behind the mount's back. */
	unwant(conn, FUSE_CAP_AUTO_INVAL_DATA);
	/* Each request would set a pipe up. */
	unwant(conn, FUSE_CAP_SPLICE_READ);
	unwant(conn, FUSE_CAP_SPLICE_WRITE);
	unwant(conn, FUSE_CAP_SPLICE_MOVE);
}

static void choose_semantics(struct fs *fs, struct fuse_conn_info *conn)
{
	want(conn, FUSE_CAP_POSIX_ACL);
	want(conn, FUSE_CAP_DONT_MASK);
	want(conn, FUSE_CAP_IOCTL_DIR);
	/* An open that truncates would do so while its shard is frozen. */
	unwant(conn, FUSE_CAP_ATOMIC_O_TRUNC);
	/* Locks are the kernel's. */
	unwant(conn, FUSE_CAP_POSIX_LOCKS);
	unwant(conn, FUSE_CAP_FLOCK_LOCKS);
#ifdef HIBFS_HAVE_PASSTHROUGH
	want(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
	if (offered(conn, FUSE_CAP_HANDLE_KILLPRIV_V2)) {
		want(conn, FUSE_CAP_HANDLE_KILLPRIV_V2);
		unwant(conn, FUSE_CAP_HANDLE_KILLPRIV);
		fs->killpriv_v2 = true;
		return;
	}
#endif
	want(conn, FUSE_CAP_HANDLE_KILLPRIV);
	fs->killpriv_v2 = false;
}

#ifdef HIBFS_HAVE_PASSTHROUGH

/* A source that itself stacks on another file system needs one level more. */
static unsigned stack_depth_of_source(int source_fd)
{
	struct statfs figures;

	if (fstatfs(source_fd, &figures) < 0)
		return 0;
	return (unsigned long)figures.f_type == 0x794c7630UL; /* overlayfs */
}

static void choose_passthrough(struct fs *fs, struct fuse_conn_info *conn)
{
	char *reason = fs->passthrough_reason;
	size_t room = sizeof(fs->passthrough_reason);
	struct utsname kernel;

	uname(&kernel);
	if (fs->no_passthrough) {
		snprintf(reason, room, "switched off by -o passthrough=off");
	} else if (!offered(conn, FUSE_CAP_PASSTHROUGH)) {
		snprintf(reason, room,
			 "kernel %.64s has no FUSE passthrough (needs 6.9)",
			 kernel.release);
	} else if (!fs->rights.privileged) {
		snprintf(reason, room, "not root");
	} else {
		want(conn, FUSE_CAP_PASSTHROUGH);
		conn->max_backing_stack_depth =
			stack_depth_of_source(fs->source_fd);
		fs->passthrough = true;
	}
}

#else

static void choose_passthrough(struct fs *fs, struct fuse_conn_info *conn)
{
	(void)conn;
	if (fs->no_passthrough)
		snprintf(fs->passthrough_reason, sizeof(fs->passthrough_reason),
			 "switched off by -o passthrough=off");
	else
		snprintf(fs->passthrough_reason, sizeof(fs->passthrough_reason),
			 "built with libfuse %.32s, which has none "
			 "(needs 3.17)",
			 fuse_pkgversion());
}

#endif

void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;

	choose_caching(conn);
	choose_semantics(fs, conn);
	choose_passthrough(fs, conn);
	conn->time_gran = 1;
	conn->max_background = 64;
	fs->protocol_major = conn->proto_major;
	fs->protocol_minor = conn->proto_minor;
}
