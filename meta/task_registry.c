#include "meta/task_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "meta/document.h"

#define KEEP_COUNT 1000
#define KEEP_MS (10 * 60 * 1000)
#define BUCKETS_AT_FIRST 64

static void cleanup_json(json_t **json)
{
	json_decref(*json);
}

/* FNV-1a; ids are random, so this need only spread. */
static size_t hash_id(const char *id)
{
	uint64_t hash = 14695981039346656037u;

	for (; *id; id++)
		hash = (hash ^ (unsigned char)*id) * 1099511628211u;
	return (size_t)(hash ^ hash >> 32);
}

static struct task **chain_of(const struct task_registry *registry,
			      const char *id)
{
	return &registry->buckets[hash_id(id) & (registry->bucket_count - 1)];
}

static int grow_locked(struct task_registry *registry)
{
	size_t count = registry->bucket_count ? registry->bucket_count * 2
					      : BUCKETS_AT_FIRST;
	struct task **old = registry->buckets;
	struct task **buckets = calloc(count, sizeof(struct task *));

	if (!buckets)
		return -ENOMEM;
	registry->buckets = buckets;
	registry->bucket_count = count;
	for (struct task *task = registry->first; task; task = task->next) {
		struct task **chain = chain_of(registry, task->id);

		task->hash_next = *chain;
		*chain = task;
	}
	free(old);
	return 0;
}

int task_insert_locked(struct task_registry *registry, struct task *task)
{
	struct task **chain;

	if (registry->task_count >= registry->bucket_count) {
		int r = grow_locked(registry);

		if (r < 0)
			return r;
	}
	chain = chain_of(registry, task->id);
	task->hash_next = *chain;
	*chain = task;
	task->previous = registry->last;
	if (registry->last)
		registry->last->next = task;
	else
		registry->first = task;
	registry->last = task;
	registry->task_count++;
	return 0;
}

static void remove_locked(struct task_registry *registry, struct task *task)
{
	struct task **at = chain_of(registry, task->id);

	while (*at != task)
		at = &(*at)->hash_next;
	*at = task->hash_next;
	if (task->previous)
		task->previous->next = task->next;
	else
		registry->first = task->next;
	if (task->next)
		task->next->previous = task->previous;
	else
		registry->last = task->previous;
	task->hash_next = task->next = task->previous = NULL;
	registry->task_count--;
}

struct task *task_lookup_locked(struct task_registry *registry, const char *id)
{
	struct task *task = *chain_of(registry, id);

	while (task && strcmp(task->id, id) != 0)
		task = task->hash_next;
	return task;
}

void task_add_ended_locked(struct task_registry *registry, struct task *task)
{
	task->ended_next = NULL;
	if (registry->ended_last)
		registry->ended_last->ended_next = task;
	else
		registry->ended_first = task;
	registry->ended_last = task;
	registry->ended_count++;
}

struct task *task_prune_locked(struct task_registry *registry)
{
	int64_t now_ms = (int64_t)clock_monotonic_ms();
	struct task *pruned = NULL;

	while (registry->ended_count > registry->keep_count) {
		struct task *task = registry->ended_first;

		if (now_ms - task->ended_monotonic_ms <
		    (int64_t)registry->keep_ms)
			break;
		registry->ended_first = task->ended_next;
		if (!registry->ended_first)
			registry->ended_last = NULL;
		registry->ended_count--;
		task->ended_next = NULL;
		remove_locked(registry, task);
		task->hash_next = pruned;
		pruned = task;
	}
	return pruned;
}

void task_drop_files(struct task_registry *registry, struct task *pruned)
{
	char name[TASK_FILE_BYTES];

	while (pruned) {
		struct task *next = pruned->hash_next;

		/* One that stays behind is read and dropped at the next start. */
		snprintf(name, sizeof(name), "%s.json", pruned->id);
		unlinkat(registry->tasks_fd, name, 0);
		task_unref(pruned);
		pruned = next;
	}
}

struct task *task_find(struct task_registry *registry, const char *id)
{
	struct task *task;

	pthread_mutex_lock(&registry->lock);
	task = task_lookup_locked(registry, id);
	if (task)
		task_ref(task);
	pthread_mutex_unlock(&registry->lock);
	return task;
}

int task_list(struct task_registry *registry, bool active, struct task ***ret,
	      size_t *ret_count)
{
	struct task **tasks;
	size_t count = 0;

	pthread_mutex_lock(&registry->lock);
	tasks = calloc(registry->task_count + 1, sizeof(struct task *));
	for (struct task *task = registry->first; tasks && task;
	     task = task->next)
		if (!active || !task_status_is_end(task->status))
			tasks[count++] = task_ref(task);
	pthread_mutex_unlock(&registry->lock);
	if (!tasks)
		return -ENOMEM;
	*ret = tasks;
	*ret_count = count;
	return 0;
}

void task_list_free(struct task **tasks, size_t count)
{
	for (size_t i = 0; i < count; i++)
		task_unref(tasks[i]);
	free(tasks);
}

/* What task_registry_open() collects while it walks tasks/. */
struct loading {
	struct task_registry *registry;
	struct task **tasks;
	size_t count, capacity;
	struct hib_error *error;
};

static int add_loaded(struct loading *loading, struct task *task)
{
	if (loading->count == loading->capacity) {
		size_t capacity = loading->capacity * 2 + 64;
		struct task **tasks = reallocarray(loading->tasks, capacity,
						   sizeof(struct task *));

		if (!tasks)
			return -ENOMEM;
		loading->tasks = tasks;
		loading->capacity = capacity;
	}
	loading->tasks[loading->count++] = task;
	return 0;
}

static int load_task(struct task_registry *registry, const char *name,
		     struct task **ret, struct hib_error *error)
{
	CLEANUP(cleanup_json) json_t *document = NULL;
	struct task *task;
	char label[64 + TASK_FILE_BYTES];
	int r;

	snprintf(label, sizeof(label), ".hibfs/tasks/%s", name);
	r = document_load(registry->tasks_fd, name, label, TASK_FORMAT,
			  TASK_VERSION, &document, error);
	if (r < 0)
		return r;
	task = task_make(registry, NULL);
	if (!task)
		return hib_fail_errno(error, ENOMEM, "%s", label);
	r = task_from_document(label, document, task, error);
	if (r == 0 && strncmp(task->id, name, UUID_TEXT_BYTES - 1) != 0)
		r = hib_fail(error, EBADMSG, "%s: of another task", label);
	if (r < 0) {
		task_unref(task);
		return r;
	}
	*ret = task;
	return 0;
}

/* "<uuid>.json" */
static bool is_task_file(const char *name)
{
	char id[UUID_TEXT_BYTES];
	size_t length = UUID_TEXT_BYTES - 1;

	if (strlen(name) != length + strlen(".json") ||
	    strcmp(name + length, ".json") != 0)
		return false;
	memcpy(id, name, length);
	id[length] = 0;
	return uuid_is_valid(id);
}

static int visit_file(void *arg, const char *name, unsigned char d_type)
{
	struct loading *loading = arg;
	int fd = loading->registry->tasks_fd;
	struct hib_error error = HIB_ERROR_INIT;
	struct task *task = NULL;
	int r;

	(void)d_type;
	if (!is_task_file(name)) {
		/* ".<name>.tmp": a crash interrupted a replace. */
		if (name[0] == '.')
			unlinkat(fd, name, 0);
		return 0;
	}
	r = load_task(loading->registry, name, &task, &error);
	if (r == -EBADMSG || r == -EMSGSIZE) {
		/* No task's record is worth a mount that does not start. */
		char aside[TASK_FILE_BYTES + 8];

		snprintf(aside, sizeof(aside), "%.*s.broken",
			 TASK_FILE_BYTES - 1, name);
		renameat(fd, name, fd, aside);
		return 0;
	}
	if (r == 0) {
		r = add_loaded(loading, task);
		if (r < 0) {
			task_unref(task);
			hib_fail_errno(&error, -r, ".hibfs/tasks");
		}
	}
	if (r < 0 && loading->error)
		*loading->error = error;
	return r;
}

static int compare_created(const void *a, const void *b)
{
	const struct task *left = *(struct task *const *)a;
	const struct task *right = *(struct task *const *)b;

	if (left->created_ms != right->created_ms)
		return left->created_ms < right->created_ms ? -1 : 1;
	return strcmp(left->id, right->id);
}

static int compare_ended(const void *a, const void *b)
{
	const struct task *left = *(struct task *const *)a;
	const struct task *right = *(struct task *const *)b;

	if (left->ended_ms != right->ended_ms)
		return left->ended_ms < right->ended_ms ? -1 : 1;
	return strcmp(left->id, right->id);
}

/* A start of the daemon: whatever had not ended was cut off by a crash. */
static int end_interrupted(const struct task_registry_config *config,
			   struct task *task, struct hib_error *error)
{
	enum task_status status = TASK_FAILED;
	char text[128];

	if (config->interrupted)
		status = config->interrupted(config->arg, task);
	if (!task_status_is_end(status))
		status = TASK_FAILED;
	snprintf(text, sizeof(text), "the daemon ended while the task was %s",
		 task_status_name(task->status));
	return task_end(task, status, status == TASK_FAILED ? text : NULL,
			error);
}

/* Puts what was read into the table; `loading` owns nothing afterwards. */
static int insert_loaded(struct loading *loading)
{
	struct task_registry *registry = loading->registry;
	int64_t now_ms = clock_realtime_ms();
	int64_t now_monotonic_ms = (int64_t)clock_monotonic_ms();
	size_t inserted = 0;
	int r = 0;

	if (loading->count == 0)
		return 0;
	pthread_mutex_lock(&registry->lock);
	qsort(loading->tasks, loading->count, sizeof(struct task *),
	      compare_created);
	while (inserted < loading->count && r == 0) {
		r = task_insert_locked(registry, loading->tasks[inserted]);
		inserted += r == 0;
	}
	qsort(loading->tasks, inserted, sizeof(struct task *), compare_ended);
	for (size_t i = 0; i < inserted; i++) {
		struct task *task = loading->tasks[i];
		int64_t age_ms = now_ms - task->ended_ms;

		if (!task_status_is_end(task->status))
			continue;
		task->ending = true;
		/* The wall clock may have been set back since. */
		task->ended_monotonic_ms =
			now_monotonic_ms - (age_ms < 0 ? 0 : age_ms);
		task_add_ended_locked(registry, task);
	}
	pthread_mutex_unlock(&registry->lock);
	/* Those that are not in the table have no other owner. */
	while (loading->count > inserted)
		task_unref(loading->tasks[--loading->count]);
	return r < 0 ? hib_fail_errno(loading->error, -r, ".hibfs/tasks") : 0;
}

static int end_all_interrupted(const struct task_registry_config *config,
			       struct task_registry *registry,
			       struct hib_error *error)
{
	struct task **tasks;
	size_t count;
	int r = task_list(registry, true, &tasks, &count);

	if (r < 0)
		return hib_fail_errno(error, -r, ".hibfs/tasks");
	for (size_t i = 0; i < count && r == 0; i++)
		r = end_interrupted(config, tasks[i], error);
	task_list_free(tasks, count);
	return r;
}

static void prune(struct task_registry *registry)
{
	struct task *pruned;

	pthread_mutex_lock(&registry->lock);
	pruned = task_prune_locked(registry);
	pthread_mutex_unlock(&registry->lock);
	task_drop_files(registry, pruned);
}

static struct task_registry *
registry_new(const struct task_registry_config *config)
{
	struct task_registry *registry = calloc(1, sizeof(*registry));
	pthread_condattr_t attributes;

	if (!registry)
		return NULL;
	atomic_init(&registry->references, 1);
	registry->tasks_fd = -EBADF;
	registry->keep_count =
		config->keep_count ? config->keep_count : KEEP_COUNT;
	registry->keep_ms = config->keep_ms ? config->keep_ms : KEEP_MS;
	pthread_mutex_init(&registry->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&registry->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	if (grow_locked(registry) < 0)
		return task_registry_unref(registry);
	return registry;
}

int task_registry_open(const struct task_registry_config *config,
		       struct task_registry **ret, struct hib_error *error)
{
	struct task_registry *registry = registry_new(config);
	struct loading loading = { .registry = registry, .error = error };
	int r;

	if (!registry)
		return hib_fail_errno(error, ENOMEM, "tasks");
	r = dir_make(config->hibfs_fd, "tasks", 0700, &registry->tasks_fd,
		     error);
	if (r == 0)
		r = dir_each(registry->tasks_fd, visit_file, &loading, error);
	if (r == 0)
		r = insert_loaded(&loading);
	else
		while (loading.count > 0)
			task_unref(loading.tasks[--loading.count]);
	free(loading.tasks);
	if (r == 0)
		r = end_all_interrupted(config, registry, error);
	if (r < 0) {
		task_registry_close(registry);
		return r;
	}
	prune(registry);
	*ret = registry;
	return 0;
}

struct task_registry *task_registry_unref(struct task_registry *registry)
{
	if (!registry || atomic_fetch_sub(&registry->references, 1) != 1)
		return NULL;
	close_fd(registry->tasks_fd);
	pthread_mutex_destroy(&registry->lock);
	pthread_cond_destroy(&registry->changed);
	free(registry->buckets);
	free(registry);
	return NULL;
}

struct task_registry *task_registry_close(struct task_registry *registry)
{
	struct task *tasks = NULL;

	if (!registry)
		return NULL;
	pthread_mutex_lock(&registry->lock);
	while (registry->first) {
		struct task *task = registry->first;

		remove_locked(registry, task);
		task->ended_next = tasks;
		tasks = task;
	}
	registry->ended_first = registry->ended_last = NULL;
	registry->ended_count = 0;
	pthread_mutex_unlock(&registry->lock);
	while (tasks) {
		struct task *next = tasks->ended_next;

		tasks->ended_next = NULL;
		task_unref(tasks);
		tasks = next;
	}
	return task_registry_unref(registry);
}
