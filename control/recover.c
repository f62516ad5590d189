#include "control/recover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "control/daemon_internal.h"
#include "control/evict.h"
#include "control/trash.h"

json_t *task_event_attributes(struct task *task)
{
	CLEANUP(buffer_done)
	struct buffer bucket = BUFFER_INIT(TARGET_TEXT_BYTES);
	CLEANUP(buffer_done)
	struct buffer shard = BUFFER_INIT(TARGET_TEXT_BYTES);
	json_t *extra;

	if (target_format(&bucket, task_bucket(task), NULL, 2) < 0 ||
	    target_format(&shard, task_shard(task), NULL, 2) < 0)
		return NULL;
	extra = json_pack("{s:s, s:s}", "task_id", task_id(task), "bucket",
			  buffer_string(&bucket));
	if (extra && *task_shard(task))
		json_object_set_new(extra, "shard",
				    json_string(buffer_string(&shard)));
	return extra;
}

/* The word after the title of an end event that is already in the log. */
static bool find_end(struct event_log *events, const char *id,
		     enum task_status *ret_status)
{
	struct event_filter filter = { .task_id = id };
	const char *description;
	json_t *list, *event;
	bool found = false;
	size_t i;

	if (event_read(events, &filter, &list, NULL) < 0)
		return false;
	json_array_foreach(list, i, event)
	{
		description = json_string_value(
			json_object_get(event, "description"));
		description = description ? strrchr(description, ' ') : NULL;
		for (int s = TASK_COMPLETED; description && s <= TASK_STOPPED;
		     s++) {
			if (strcmp(description + 1, task_status_name(s)) != 0)
				continue;
			*ret_status = s;
			found = true;
		}
	}
	json_decref(list);
	return found;
}

enum task_status recover_task(void *arg, struct task *task)
{
	struct daemon *daemon = arg;
	enum task_status status = TASK_FAILED;
	char description[64];
	json_t *extra;

	if (find_end(daemon->events, task_id(task), &status))
		return status;
	snprintf(description, sizeof(description), "%s failed",
		 task_kind_name(task_get_kind(task)));
	description[0] = (char)(description[0] - 'a' + 'A');
	extra = task_event_attributes(task);
	if (extra)
		json_object_set_new(
			extra, "error",
			json_string("the daemon ended while it ran"));
	event_append(daemon->events, EVENT_ERROR, description, extra, NULL,
		     NULL);
	return TASK_FAILED;
}

static void clear_task(void *arg, struct shard_record *record)
{
	(void)arg;
	record->task[0] = 0;
}

static void forget_stub(void *arg, struct shard_record *record)
{
	(void)arg;
	record->stub = false;
	record->task[0] = 0;
}

static int set_place(struct daemon *daemon, struct shard *shard,
		     struct hib_error *error)
{
	enum fs_place place = FS_PLACE_NONE;

	if (shard_has_tree(shard))
		place = FS_PLACE_LIVE;
	else if (shard_has_stub(shard))
		place = FS_PLACE_STUB;
	return fs_shard_set_place(daemon->fs, shard_fs(shard), place, error);
}

static int recover_shard(struct daemon *daemon, struct shard *shard,
			 struct hib_error *error)
{
	enum shard_state before = shard_state(shard);
	bool tree = shard_has_tree(shard), stub = shard_has_stub(shard);
	uint64_t freed = 0;
	struct shard_record record;
	unsigned actions;
	int r;

	/* a resume that did not get to a snapshot, on a node without the shard */
	shard_get_record(shard, &record);
	if (before == SHARD_RESUMING && !tree && !stub && !record.seq)
		return shard_forget(shard, error);
	/* nothing to put in order, and nothing to write at every start */
	if ((before == SHARD_LIVE && tree && !stub) ||
	    (before == SHARD_HIBERNATED && !tree))
		return set_place(daemon, shard, error);
	r = shard_step(shard, shard_recover_event(tree, stub), clear_task, NULL,
		       &actions, error);
	if (r == 0 && (actions & SHARD_TRASH_STUB))
		r = trash_stub(daemon, shard, error);
	if (r == 0 && (actions & SHARD_TRASH_STUB))
		r = shard_update(shard, forget_stub, NULL, error);
	if (r == 0)
		r = set_place(daemon, shard, error);
	if (r == 0 && (actions & SHARD_EVICT))
		r = evict_shard(daemon, shard, false, &freed, error);
	if (r == 0 && shard_state(shard) != before)
		log_warning(daemon->log,
			    "%s was %s when the daemon ended; it is %s now",
			    shard_text(shard), shard_state_name(before),
			    shard_state_name(shard_state(shard)));
	return r;
}

/* Was this task's bucket committed before the crash? */
static bool has_committed(struct shard *const *list, size_t count,
			  const char *task)
{
	for (size_t i = 0; i < count; i++) {
		struct shard_record record;

		shard_get_record(list[i], &record);
		if (record.state == SHARD_COMMITTED &&
		    strcmp(record.task, task) == 0)
			return true;
	}
	return false;
}

/*
 * A bucket is paused as a whole: where the crash came after the first of its
 * shards was recorded as committed, bucket.json names them all, and the others
 * follow. Their files are as they were: nobody had one open, and there was no
 * mount since.
 */
static void follow_siblings(struct daemon *daemon, struct shard *const *list,
			    size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct hib_error error = HIB_ERROR_INIT;
		struct shard_record record;

		shard_get_record(list[i], &record);
		if (record.state != SHARD_PAUSING || !record.task[0] ||
		    !has_committed(list, count, record.task))
			continue;
		if (shard_step(list[i], SHARD_PAUSE_COMMITTED, NULL, NULL, NULL,
			       &error) < 0)
			log_error(daemon->log,
				  "%s cannot follow its bucket: %s",
				  shard_text(list[i]), error.message);
	}
}

int recover_shards(struct daemon *daemon, struct hib_error *error)
{
	CLEANUP_FREE struct shard **list = NULL;
	size_t count;
	int r = trash_sweep(daemon, error);

	if (r == 0)
		r = shards_recorded(daemon->shards, &list, &count, error);
	if (r < 0)
		return r;
	follow_siblings(daemon, list, count);
	for (size_t i = 0; i < count; i++) {
		struct hib_error shard_error = HIB_ERROR_INIT;

		if (shard_begin(list[i], OPERATION_RECOVER, "", &shard_error) <
		    0)
			continue;
		r = recover_shard(daemon, list[i], &shard_error);
		shard_end(list[i]);
		if (r < 0)
			log_error(daemon->log, "%s cannot be put in order: %s",
				  shard_text(list[i]), shard_error.message);
	}
	return 0;
}
