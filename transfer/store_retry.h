/*
 * What a store's failure means and what to do about it: the one table that
 * maps HTTP status and S3 error code to errno and remedy, and the times at
 * which a failed request is tried again. Used by the s3 backend.
 *
 * Thread-safety: pure functions.
 */
#ifndef HIBFS_TRANSFER_STORE_RETRY_H
#define HIBFS_TRANSFER_STORE_RETRY_H

#include <stdbool.h>
#include <stdint.h>

enum store_remedy {
	STORE_GIVE_UP,
	STORE_RETRY,
	STORE_RETRY_SLOWER, /* the store asked for fewer requests */
	STORE_RELOAD_CREDENTIALS, /* once, then try again */
	STORE_LEARN_CLOCK, /* take the store's time, then try again */
};

struct store_verdict {
	int code; /* positive errno, when nothing helps any more; 0: success */
	enum store_remedy remedy;
};

/*
 * `s3_code` is the <Code> of the answer's error document, NULL when the answer
 * had none that could be read. An error document inside a 2xx answer is judged
 * with status 200.
 */
struct store_verdict store_judge(long status, const char *s3_code);

#define STORE_RETRY_NEVER UINT64_MAX

/*
 * Milliseconds to wait before the next attempt: exponential with full jitter,
 * no less than what the store asked for, and never past half of the time that
 * is left, so that a short deadline still sees several attempts.
 * STORE_RETRY_NEVER when there is no time left for one.
 *
 * `failures` counts the attempts so far (from 1), `random` is any 32 bits.
 */
uint64_t store_retry_delay_ms(unsigned failures, bool slower, uint64_t asked_ms,
			      uint64_t remaining_ms, uint32_t random);

#endif
