/*
 * Threads: the workers run engine_work() and nothing else; they block in reads
 * and writes of files, on `work` for items, and in engine_buffer_get(). What
 * wakes them: items that become ready, a buffer that comes back (from a store
 * thread), a cancel, the end. No lock is held over I/O or callbacks.
 */
#include "transfer/engine_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "transfer/pack.h"

#define MEMORY_DEFAULT ((uint64_t)96 << 20)
#define PACKS_MIN 4
#define WORKERS_MAX 8

/* The next job with an item to hand out; it goes to the end of the turn. */
static struct engine_job *take_turn_locked(struct engine *engine)
{
	for (struct engine_job **link = &engine->jobs; *link;
	     link = &(*link)->next_job) {
		struct engine_job *job = *link;

		if (job->result || job->next >= job->ready_count)
			continue;
		*link = job->next_job;
		job->next_job = NULL;
		while (*link)
			link = &(*link)->next_job;
		*link = job;
		return job;
	}
	return NULL;
}

static void fail_locked(struct engine_job *job, int r,
			const struct hib_error *error)
{
	if (!job->result) {
		job->result = r;
		job->error = *error;
	}
}

static void *engine_work(void *arg)
{
	struct engine_worker *worker = arg;
	struct engine *engine = worker->engine;

	pthread_mutex_lock(&engine->lock);
	while (!engine->stop) {
		struct engine_job *job = take_turn_locked(engine);
		struct hib_error error = HIB_ERROR_INIT;
		size_t item;
		int r;

		if (!job) {
			pthread_cond_wait(&engine->work, &engine->lock);
			continue;
		}
		item = job->next++;
		job->active++;
		pthread_mutex_unlock(&engine->lock);
		r = job->work(job, item, worker, &error);
		pthread_mutex_lock(&engine->lock);
		if (r < 0)
			fail_locked(job, r, &error);
		job->active--;
		pthread_cond_broadcast(&engine->progress);
	}
	pthread_mutex_unlock(&engine->lock);
	return NULL;
}

void engine_job_start(struct engine *engine, struct engine_job *job)
{
	struct engine_job **link = &engine->jobs;

	pthread_mutex_lock(&engine->lock);
	while (*link)
		link = &(*link)->next_job;
	job->next_job = NULL;
	*link = job;
	pthread_cond_broadcast(&engine->work);
	pthread_mutex_unlock(&engine->lock);
}

void engine_job_ready(struct engine *engine, struct engine_job *job,
		      size_t ready_count)
{
	pthread_mutex_lock(&engine->lock);
	job->ready_count = ready_count;
	pthread_cond_broadcast(&engine->work);
	pthread_mutex_unlock(&engine->lock);
}

void engine_job_fail(struct engine *engine, struct engine_job *job, int r,
		     const struct hib_error *error)
{
	pthread_mutex_lock(&engine->lock);
	fail_locked(job, r, error);
	pthread_cond_broadcast(&engine->progress);
	pthread_mutex_unlock(&engine->lock);
}

void engine_wake(void *arg)
{
	struct engine *engine = arg;

	pthread_mutex_lock(&engine->lock);
	pthread_cond_broadcast(&engine->progress);
	pthread_mutex_unlock(&engine->lock);
}

/* Idle daemons hold no memory for what may never come. */
static void trim_locked(struct engine *engine)
{
	if (engine->memory_used || engine->jobs || engine->rounds_active)
		return;
	while (engine->idle_count)
		free(engine->idle_buffers[--engine->idle_count]);
}

int engine_job_finish(struct engine *engine, struct engine_job *job,
		      struct cancel *cancel, struct hib_error *error)
{
	struct cancel_watch watch = { .wake = engine_wake, .arg = engine };
	struct hib_error cancelled = HIB_ERROR_INIT;
	struct engine_job **link = &engine->jobs;

	hib_fail(&cancelled, ECANCELED, "cancelled");
	cancel_watch_add(cancel, &watch);
	pthread_mutex_lock(&engine->lock);
	while (job->active || (!job->result && job->next < job->item_count)) {
		if (cancel_requested(cancel))
			fail_locked(job, -ECANCELED, &cancelled);
		if (job->active || !job->result)
			pthread_cond_wait(&engine->progress, &engine->lock);
	}
	while (*link != job)
		link = &(*link)->next_job;
	*link = job->next_job;
	trim_locked(engine);
	pthread_mutex_unlock(&engine->lock);
	cancel_watch_remove(cancel, &watch);
	if (job->result < 0 && error)
		*error = job->error;
	return job->result;
}

/* Larger ones are worth keeping: they are all of one size. */
static bool is_kept(const struct engine *engine, size_t bytes)
{
	return bytes > engine->config.pack_bytes / 2;
}

static uint64_t charge_of(const struct engine *engine, size_t bytes)
{
	return is_kept(engine, bytes) ? engine->config.pack_bytes : bytes;
}

static uint8_t *take_buffer_locked(struct engine *engine, size_t bytes)
{
	uint64_t charge = charge_of(engine, bytes);
	uint8_t *buffer;

	if (is_kept(engine, bytes) && engine->idle_count) {
		buffer = engine->idle_buffers[--engine->idle_count];
	} else {
		while (engine->idle_count &&
		       engine->memory_used + charge +
				       (uint64_t)engine->idle_count *
					       engine->config.pack_bytes >
			       engine->memory_limit)
			free(engine->idle_buffers[--engine->idle_count]);
		buffer = malloc(charge);
	}
	if (buffer)
		engine->memory_used += charge;
	return buffer;
}

static bool has_room_locked(const struct engine *engine, enum engine_use use,
			    uint64_t charge)
{
	return engine->memory_used + charge <= engine->memory_limit &&
	       (use == ENGINE_UPLOAD ||
		engine->downloads_used + charge <= engine->downloads_limit);
}

int engine_buffer_get(struct engine *engine, enum engine_use use, size_t bytes,
		      struct cancel *cancel, const struct engine_job *job,
		      uint8_t **ret)
{
	struct cancel_watch watch = { .wake = engine_wake, .arg = engine };
	uint64_t charge = charge_of(engine, bytes);
	uint8_t *buffer = NULL;
	int r = 0;

	cancel_watch_add(cancel, &watch);
	pthread_mutex_lock(&engine->lock);
	for (;;) {
		if (cancel_requested(cancel) || (job && job->result))
			r = -ECANCELED;
		if (r < 0 || has_room_locked(engine, use, charge))
			break;
		pthread_cond_wait(&engine->progress, &engine->lock);
	}
	if (r == 0) {
		buffer = take_buffer_locked(engine, bytes);
		if (!buffer)
			r = -ENOMEM;
		else if (use == ENGINE_DOWNLOAD)
			engine->downloads_used += charge;
	}
	pthread_mutex_unlock(&engine->lock);
	cancel_watch_remove(cancel, &watch);
	if (r == 0)
		*ret = buffer;
	return r;
}

void engine_buffer_put(struct engine *engine, enum engine_use use, size_t bytes,
		       uint8_t *buffer)
{
	uint64_t charge = charge_of(engine, bytes);

	if (!buffer)
		return;
	pthread_mutex_lock(&engine->lock);
	engine->memory_used -= charge;
	if (use == ENGINE_DOWNLOAD)
		engine->downloads_used -= charge;
	if (is_kept(engine, bytes))
		engine->idle_buffers[engine->idle_count++] = buffer;
	else
		free(buffer);
	trim_locked(engine);
	pthread_cond_broadcast(&engine->progress);
	pthread_mutex_unlock(&engine->lock);
}

bool engine_wants_compression(enum engine_compression mode,
			      unsigned packs_sending, unsigned packs_limit)
{
	if (mode != ENGINE_COMPRESSION_AUTO)
		return mode == ENGINE_COMPRESSION_ON;
	return packs_sending >= (packs_limit + 1) / 2;
}

static bool has_place_locked(const struct engine *engine, bool large)
{
	unsigned limit = engine->rounds_limit;

	return engine->rounds_active < limit &&
	       (!large || limit == 1 ||
		engine->large_rounds_active < limit - 1);
}

int engine_round_begin(struct engine *engine, bool large, struct cancel *cancel)
{
	struct cancel_watch watch = { .wake = engine_wake, .arg = engine };
	int r = 0;

	cancel_watch_add(cancel, &watch);
	pthread_mutex_lock(&engine->lock);
	while (r == 0 && !has_place_locked(engine, large)) {
		if (cancel_requested(cancel))
			r = -ECANCELED;
		else
			pthread_cond_wait(&engine->progress, &engine->lock);
	}
	if (r == 0) {
		engine->rounds_active++;
		engine->large_rounds_active += large;
	}
	pthread_mutex_unlock(&engine->lock);
	cancel_watch_remove(cancel, &watch);
	return r;
}

void engine_round_end(struct engine *engine, bool large)
{
	pthread_mutex_lock(&engine->lock);
	engine->rounds_active--;
	engine->large_rounds_active -= large;
	trim_locked(engine);
	pthread_cond_broadcast(&engine->progress);
	pthread_mutex_unlock(&engine->lock);
}

struct store *engine_store(struct engine *engine)
{
	return engine->config.store;
}

static int start_workers(struct engine *engine, struct hib_error *error)
{
	for (unsigned i = 0; i < engine->config.workers; i++) {
		struct engine_worker *worker = &engine->workers[i];

		worker->engine = engine;
		worker->codec = codec_new();
		worker->scratch = malloc(CHUNK_BYTES_MAX);
		if (!worker->codec || !worker->scratch ||
		    pthread_create(&worker->thread, NULL, engine_work,
				   worker) != 0) {
			codec_free(worker->codec);
			free(worker->scratch);
			return hib_fail(error, EAGAIN,
					"cannot start the engine's workers");
		}
		engine->worker_count++;
	}
	return 0;
}

static void set_limits(struct engine *engine)
{
	struct engine_config *config = &engine->config;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t packs, rounds;

	if (!config->workers)
		config->workers = cpus > WORKERS_MAX ? WORKERS_MAX
				  : cpus > 2	     ? (unsigned)cpus
						     : 2;
	if (!config->memory_bytes)
		config->memory_bytes = MEMORY_DEFAULT;
	if (!config->pack_bytes)
		config->pack_bytes = PACK_BYTES_DEFAULT;
	if (config->pack_bytes < 2 * CHUNK_BYTES_MAX)
		config->pack_bytes = 2 * CHUNK_BYTES_MAX;
	packs = config->memory_bytes / config->pack_bytes;
	if (packs < PACKS_MIN)
		packs = PACKS_MIN;
	rounds = (packs - 1) / 2;
	engine->rounds_limit =
		rounds < config->workers ? (unsigned)rounds : config->workers;
	engine->memory_limit = packs * config->pack_bytes;
	engine->downloads_limit =
		engine->memory_limit -
		(engine->rounds_limit + (uint64_t)1) * config->pack_bytes;
}

int engine_new(const struct engine_config *config, struct engine **ret,
	       struct hib_error *error)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int r;

	if (!engine)
		return hib_fail(error, ENOMEM, "out of memory");
	pthread_mutex_init(&engine->lock, NULL);
	pthread_cond_init(&engine->work, NULL);
	pthread_cond_init(&engine->progress, NULL);
	engine->config = *config;
	set_limits(engine);
	engine->idle_buffers =
		calloc(engine->memory_limit / engine->config.pack_bytes,
		       sizeof(uint8_t *));
	engine->workers =
		calloc(engine->config.workers, sizeof(*engine->workers));
	r = engine->idle_buffers && engine->workers
		    ? start_workers(engine, error)
		    : hib_fail(error, ENOMEM, "out of memory");
	if (r < 0) {
		engine_free(engine);
		return r;
	}
	*ret = engine;
	return 0;
}

struct engine *engine_free(struct engine *engine)
{
	if (!engine)
		return NULL;
	pthread_mutex_lock(&engine->lock);
	engine->stop = true;
	pthread_cond_broadcast(&engine->work);
	pthread_mutex_unlock(&engine->lock);
	for (unsigned i = 0; i < engine->worker_count; i++) {
		pthread_join(engine->workers[i].thread, NULL);
		codec_free(engine->workers[i].codec);
		free(engine->workers[i].scratch);
	}
	while (engine->idle_count)
		free(engine->idle_buffers[--engine->idle_count]);
	free(engine->idle_buffers);
	free(engine->workers);
	pthread_cond_destroy(&engine->work);
	pthread_cond_destroy(&engine->progress);
	pthread_mutex_destroy(&engine->lock);
	free(engine);
	return NULL;
}
