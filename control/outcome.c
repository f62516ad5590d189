#include "control/outcome.h"

#include <errno.h>

int outcome_note(struct outcome *outcome, int r, const struct hib_error *error)
{
	if (r < 0 && !outcome->result) {
		outcome->result = r;
		outcome->error = *error;
	}
	return r;
}

void outcome_report(const struct outcome *outcome, struct task *task,
		    struct shard *shard, int task_result, const char *remote)
{
	enum task_status status = TASK_COMPLETED;
	const char *message = NULL;

	if (outcome->result == -ECANCELED ||
	    (outcome->result == 0 && task_result < 0)) {
		status = TASK_STOPPED;
	} else if (outcome->result < 0) {
		status = TASK_FAILED;
		message = outcome->error.message;
	}
	task_add_result(task, shard_name(shard), status, message, remote);
}
