#include "transfer/store_retry.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/cleanup.h"

#define BASE_MS 50
#define BASE_SLOWER_MS 400
#define CEILING_MS 10000
#define ASKED_CEILING_MS 60000
#define SHORTEST_REMAINDER_MS 20

static const char any_code[] = "*";
static const char no_code[] = "";

/* The first line that fits counts. Status 0 fits every status. */
static const struct store_rule {
	int first_status, last_status;
	const char *s3_code;
	struct store_verdict verdict;
} rules[] = {
	{ 200, 299, no_code, { 0, STORE_GIVE_UP } },

	{ 0, 0, "RequestTimeTooSkewed", { EACCES, STORE_LEARN_CLOCK } },
	{ 0, 0, "ExpiredToken", { EACCES, STORE_RELOAD_CREDENTIALS } },
	{ 0, 0, "InvalidToken", { EACCES, STORE_RELOAD_CREDENTIALS } },
	{ 0, 0, "TokenRefreshRequired", { EACCES, STORE_RELOAD_CREDENTIALS } },
	{ 0, 0, "InvalidAccessKeyId", { EACCES, STORE_RELOAD_CREDENTIALS } },
	{ 0, 0, "SignatureDoesNotMatch", { EACCES, STORE_RELOAD_CREDENTIALS } },

	/* The body was damaged or cut on its way there. */
	{ 0, 0, "BadDigest", { EIO, STORE_RETRY } },
	{ 0, 0, "XAmzContentSHA256Mismatch", { EIO, STORE_RETRY } },
	{ 0, 0, "IncompleteBody", { EIO, STORE_RETRY } },

	{ 0, 0, "RequestTimeout", { ETIMEDOUT, STORE_RETRY } },
	{ 0, 0, "SlowDown", { EIO, STORE_RETRY_SLOWER } },
	{ 0, 0, "ServiceUnavailable", { EIO, STORE_RETRY_SLOWER } },
	{ 0, 0, "Throttling", { EIO, STORE_RETRY_SLOWER } },
	{ 0, 0, "RequestLimitExceeded", { EIO, STORE_RETRY_SLOWER } },
	{ 0, 0, "InternalError", { EIO, STORE_RETRY } },
	{ 0, 0, "OperationAborted", { EIO, STORE_RETRY } },
	{ 0, 0, "ConditionalRequestConflict", { EIO, STORE_RETRY } },

	{ 0, 0, "QuotaExceeded", { EDQUOT, STORE_GIVE_UP } },
	{ 0, 0, "NoSuchBucket", { ENXIO, STORE_GIVE_UP } },
	{ 0, 0, "EntityTooLarge", { EFBIG, STORE_GIVE_UP } },
	{ 0, 0, "KeyTooLongError", { ENAMETOOLONG, STORE_GIVE_UP } },
	{ 0, 0, "NotImplemented", { EOPNOTSUPP, STORE_GIVE_UP } },
	{ 0, 0, "MethodNotAllowed", { EOPNOTSUPP, STORE_GIVE_UP } },

	/* Only the store itself can say that an object is not there: a 404
	 * without its code comes from whatever else answers at that address. */
	{ 404, 404, "NoSuchKey", { ENOENT, STORE_GIVE_UP } },
	{ 404, 404, "NoSuchUpload", { ESTALE, STORE_GIVE_UP } },
	{ 404, 404, any_code, { EIO, STORE_GIVE_UP } },
	{ 401, 401, any_code, { EACCES, STORE_GIVE_UP } },
	{ 403, 403, any_code, { EACCES, STORE_GIVE_UP } },
	{ 405, 405, any_code, { EOPNOTSUPP, STORE_GIVE_UP } },
	{ 408, 408, any_code, { ETIMEDOUT, STORE_RETRY } },
	{ 409, 409, any_code, { EIO, STORE_GIVE_UP } },
	{ 412, 412, any_code, { EEXIST, STORE_GIVE_UP } },
	{ 413, 413, any_code, { EFBIG, STORE_GIVE_UP } },
	{ 429, 429, any_code, { EIO, STORE_RETRY_SLOWER } },
	{ 501, 501, any_code, { EOPNOTSUPP, STORE_GIVE_UP } },
	{ 503, 503, any_code, { EIO, STORE_RETRY_SLOWER } },
	{ 507, 507, any_code, { ENOSPC, STORE_GIVE_UP } },
	{ 500, 599, any_code, { EIO, STORE_RETRY } },

	{ 0, 0, any_code, { EIO, STORE_GIVE_UP } },
};

struct store_verdict store_judge(long status, const char *s3_code)
{
	const char *code = s3_code ? s3_code : no_code;

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		const struct store_rule *rule = &rules[i];

		if (rule->first_status &&
		    (status < rule->first_status || status > rule->last_status))
			continue;
		if (rule->s3_code == any_code ||
		    strcmp(rule->s3_code, code) == 0)
			return rule->verdict;
	}
	return (struct store_verdict){ EIO, STORE_GIVE_UP };
}

uint64_t store_retry_delay_ms(unsigned failures, bool slower, uint64_t asked_ms,
			      uint64_t remaining_ms, uint32_t random)
{
	uint64_t window = slower ? BASE_SLOWER_MS : BASE_MS;
	uint64_t delay;

	if (remaining_ms < SHORTEST_REMAINDER_MS)
		return STORE_RETRY_NEVER;
	for (unsigned i = 1; i < failures && window < CEILING_MS; i++)
		window *= 2;
	if (window > CEILING_MS)
		window = CEILING_MS;
	delay = 1 + (uint64_t)random % window;
	if (asked_ms > ASKED_CEILING_MS)
		asked_ms = ASKED_CEILING_MS;
	if (delay < asked_ms)
		delay = asked_ms;
	if (delay > remaining_ms / 2)
		delay = remaining_ms / 2;
	return delay;
}
