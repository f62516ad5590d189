/*
 * Two ways: PROCMAP_QUERY (since 6.11) finds the mappings in question inside
 * the kernel, some ten microseconds a process; before that /proc/PID/maps has
 * to be read as text, which is as slow as the process has mappings.
 */
#include "fs/mapping.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

/* The number of the machine's pid namespace (PROC_PID_INIT_INO). */
#define PID_NAMESPACE 0xeffffffcU

/* Of <linux/fs.h> since 6.11. */
struct procmap_query_v1 {
	uint64_t size, query_flags, query_addr;
	uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset;
	uint64_t inode;
	uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
	uint64_t vma_name_addr, build_id_addr;
};
#define QUERY _IOWR('f', 17, struct procmap_query_v1)
#define QUERY_SHARED 0x08
#define QUERY_THIS_OR_NEXT 0x10
#define QUERY_FILE 0x20

struct scan {
	uint64_t *inos;
	size_t count, capacity;
	bool by_text;
};

static int add(struct scan *scan, uint64_t ino)
{
	uint64_t *more;

	if (scan->count > 0 && scan->inos[scan->count - 1] == ino)
		return 0;
	if (scan->count == scan->capacity) {
		scan->capacity = scan->capacity ? 2 * scan->capacity : 64;
		more = reallocarray(scan->inos, scan->capacity, sizeof(*more));
		if (!more)
			return -ENOMEM;
		scan->inos = more;
	}
	scan->inos[scan->count++] = ino;
	return 0;
}

/* -ENOTTY: the kernel is too old. -ESRCH: no memory, or no process any more. */
static int query(struct scan *scan, int maps_fd)
{
	struct procmap_query_v1 question = {
		.size = sizeof(question),
		.query_flags = QUERY_SHARED | QUERY_THIS_OR_NEXT | QUERY_FILE,
	};
	int r = 0;

	while (r == 0 && ioctl(maps_fd, QUERY, &question) == 0) {
		r = add(scan, question.inode);
		question.query_addr = question.vma_end;
		question.vma_name_size = question.build_id_size = 0;
	}
	return r < 0 || errno == ENOENT ? r : -errno;
}

/* Lines are "start-end perms offset dev inode path". */
static int read_text(struct scan *scan, int maps_fd)
{
	CLEANUP_FCLOSE FILE *file = fdopen(dup(maps_fd), "r");
	CLEANUP_FREE char *line = NULL;
	bool any = false;
	size_t room = 0;
	int r = 0;

	while (file && r == 0 && getline(&line, &room, file) > 0) {
		char perms[5] = "";
		uint64_t ino;

		any = true;
		if (sscanf(line, "%*s %4s %*s %*s %" SCNu64, perms, &ino) ==
			    2 &&
		    perms[3] == 's' && ino > 0)
			r = add(scan, ino);
	}
	return r < 0 || any ? r : -ESRCH;
}

static int scan_task(struct scan *scan, int dirfd, const char *pid)
{
	CLEANUP_CLOSE int fd = -EBADF;
	char path[64];
	int r;

	snprintf(path, sizeof(path), "%.20s/maps", pid);
	fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ESRCH ? -ESRCH : -errno;
	r = scan->by_text ? -ENOTTY : query(scan, fd);
	if (r != -ENOTTY)
		return r;
	scan->by_text = true;
	return read_text(scan, fd);
}

static bool is_number(const char *text)
{
	return isdigit((unsigned char)*text);
}

/* The first thread may have ended while others go on. */
static int scan_threads(struct scan *scan, int procfd, const char *pid)
{
	CLEANUP_CLOSEDIR DIR *dir = NULL;
	struct dirent *entry;
	struct stat attr;
	char path[64];
	int fd, r = -ESRCH;

	snprintf(path, sizeof(path), "%.20s/task", pid);
	/* One thread, like those of the kernel. */
	if (fstatat(procfd, path, &attr, 0) < 0 || attr.st_nlink <= 3)
		return -ESRCH;
	fd = openat(procfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -ESRCH;
	dir = fdopendir(fd);
	if (!dir) {
		close_fd(fd);
		return -ENOMEM;
	}
	while (r == -ESRCH && (entry = readdir(dir)))
		if (is_number(entry->d_name) && strcmp(entry->d_name, pid) != 0)
			r = scan_task(scan, fd, entry->d_name);
	return r;
}

static int scan_all(struct scan *scan)
{
	CLEANUP_CLOSEDIR DIR *proc = opendir("/proc");
	struct dirent *entry;
	char self[32];
	int r = 0;

	if (!proc)
		return -EPERM;
	snprintf(self, sizeof(self), "%d", (int)getpid());
	while (r == 0 && (entry = readdir(proc))) {
		if (!is_number(entry->d_name) ||
		    strcmp(entry->d_name, self) == 0)
			continue;
		r = scan_task(scan, dirfd(proc), entry->d_name);
		if (r == -ESRCH)
			r = scan_threads(scan, dirfd(proc), entry->d_name);
		/* Some machines hide init; it maps no one's data files. */
		if (r == -ESRCH || strcmp(entry->d_name, "1") == 0)
			r = 0;
	}
	return r;
}

static bool sees_all_processes(void)
{
	struct stat attr;

	return geteuid() == 0 && stat("/proc/self/ns/pid", &attr) == 0 &&
	       attr.st_ino == PID_NAMESPACE;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

int mapping_scan(uint64_t **ret, size_t *ret_count)
{
	struct scan scan = { 0 };
	int r;

	if (!sees_all_processes())
		return -EPERM;
	r = scan_all(&scan);
	if (r < 0) {
		free(scan.inos);
		return r;
	}
	if (scan.count)
		qsort(scan.inos, scan.count, sizeof(*scan.inos), compare);
	*ret = scan.inos;
	*ret_count = scan.count;
	return 0;
}

bool mapping_has(const uint64_t *inos, size_t count, uint64_t ino)
{
	return count > 0 &&
	       bsearch(&ino, inos, count, sizeof(*inos), compare) != NULL;
}
