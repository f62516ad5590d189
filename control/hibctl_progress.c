#include <stdlib.h>
#include <string.h>

#include "control/hibctl.h"

#define BAR_WIDTH 24

struct sums {
	uint64_t done, total;
	uint64_t rate;
	double left_ms; /* < 0: not known */
	const char *phase;
	const char *kind;
	char target[TARGET_SHOW_BYTES];
};

/* What a bar can show of several tasks: their sum, under the first's name. */
static void sum_up(const json_t *tasks, struct sums *ret)
{
	const json_t *progress;
	size_t index;
	json_t *task;

	*ret = (struct sums){ .left_ms = -1, .phase = "", .kind = "" };
	json_array_foreach(tasks, index, task)
	{
		const json_t *left;

		progress = json_object_get(task, "progress");
		left = json_object_get(progress, "remaining_ms");
		ret->done += get_number(progress, "bytes_done");
		ret->total += get_number(progress, "bytes_total");
		ret->rate += get_number(progress, "bytes_per_second");
		if (json_is_integer(left) &&
		    (double)json_integer_value(left) > ret->left_ms)
			ret->left_ms = (double)json_integer_value(left);
		if (index > 0)
			continue;
		ret->phase = get_text(progress, "phase");
		ret->kind = get_text(task, "kind");
		show_target(task, ret->target);
	}
}

static unsigned int fraction(const struct sums *sums, unsigned int of)
{
	if (sums->total == 0)
		return 0;
	return (unsigned int)((double)sums->done / (double)sums->total * of);
}

static void draw(struct progress_bar *bar, const struct sums *sums)
{
	unsigned int filled = fraction(sums, BAR_WIDTH);
	char done[SHOW_BYTES], total[SHOW_BYTES];
	char rate[SHOW_BYTES], left[SHOW_BYTES] = "";
	char cells[BAR_WIDTH + 1];

	memset(cells, '.', BAR_WIDTH);
	memset(cells, '#', filled);
	cells[BAR_WIDTH] = '\0';
	show_size_value(bar->ctl, sums->done, done);
	show_size_value(bar->ctl, sums->total, total);
	show_size_value(bar->ctl, sums->rate, rate);
	if (sums->left_ms >= 0)
		show_duration((uint64_t)sums->left_ms, left);
	/* No wrapping: a bar over two lines could not be drawn again. */
	fputs("\r\033[K\033[?7l", stderr);
	fprintf(stderr, "%s ", sums->kind);
	put_text(stderr, sums->target);
	fprintf(stderr, " [%s] %3u%%  %s of %s  %s/s%s%s  %s\033[?7h", cells,
		fraction(sums, 100), done, total, rate, *left ? "  left " : "",
		left, sums->phase);
	fflush(stderr);
	bar->drawn = true;
}

/* Where nothing can be drawn over: a line for each phase and each tenth. */
static void tell(struct progress_bar *bar, const struct sums *sums)
{
	unsigned int tenth = fraction(sums, 10);
	char done[SHOW_BYTES], total[SHOW_BYTES];

	if (tenth <= bar->last_tenth &&
	    strcmp(bar->last_phase, sums->phase) == 0)
		return;
	bar->last_tenth = tenth;
	snprintf(bar->last_phase, sizeof(bar->last_phase), "%s", sums->phase);
	show_size_value(bar->ctl, sums->done, done);
	show_size_value(bar->ctl, sums->total, total);
	fprintf(stderr, "%s ", sums->kind);
	put_text(stderr, sums->target);
	fprintf(stderr, ": %u%%, %s of %s%s%s\n", fraction(sums, 100), done,
		total, *sums->phase ? ", " : "", sums->phase);
}

int progress_notify(void *arg, const char *method, json_t *params)
{
	struct progress_bar *bar = arg;
	struct sums sums;

	if (strcmp(method, "progress") != 0 || bar->ctl->json)
		return 0;
	sum_up(json_object_get(params, "tasks"), &sums);
	if (bar->ctl->terminal)
		draw(bar, &sums);
	else
		tell(bar, &sums);
	return 0;
}

void progress_end(struct progress_bar *bar)
{
	if (bar->drawn)
		fputs("\r\033[K", stderr);
	bar->drawn = false;
}
