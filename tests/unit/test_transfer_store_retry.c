#include "transfer/store_retry.h"

#include <errno.h>

#include "tests/unit/test.h"

static void check(long status, const char *code, int wanted_code,
		  enum store_remedy remedy)
{
	struct store_verdict verdict = store_judge(status, code);

	CHECK_INT(verdict.code, wanted_code);
	CHECK_INT(verdict.remedy, remedy);
}

/* req: T13 */
TEST(failures_that_pass_are_tried_again)
{
	check(500, "InternalError", EIO, STORE_RETRY);
	check(502, NULL, EIO, STORE_RETRY);
	check(504, NULL, EIO, STORE_RETRY);
	check(503, "SlowDown", EIO, STORE_RETRY_SLOWER);
	check(503, NULL, EIO, STORE_RETRY_SLOWER);
	check(429, NULL, EIO, STORE_RETRY_SLOWER);
	check(408, NULL, ETIMEDOUT, STORE_RETRY);
	check(400, "RequestTimeout", ETIMEDOUT, STORE_RETRY);
	check(409, "ConditionalRequestConflict", EIO, STORE_RETRY);
	check(400, "BadDigest", EIO, STORE_RETRY);
	check(400, "XAmzContentSHA256Mismatch", EIO, STORE_RETRY);
}

/* req: T13 */
TEST(an_error_inside_a_200_is_judged_by_its_code)
{
	check(200, NULL, 0, STORE_GIVE_UP);
	check(200, "InternalError", EIO, STORE_RETRY);
	check(200, "SlowDown", EIO, STORE_RETRY_SLOWER);
	check(200, "AccessDenied", EIO, STORE_GIVE_UP);
}

/* req: T13 */
TEST(credentials_and_clock_are_put_right_first)
{
	check(400, "ExpiredToken", EACCES, STORE_RELOAD_CREDENTIALS);
	check(403, "InvalidAccessKeyId", EACCES, STORE_RELOAD_CREDENTIALS);
	check(403, "RequestTimeTooSkewed", EACCES, STORE_LEARN_CLOCK);
}

TEST(refusals_are_final)
{
	check(404, "NoSuchKey", ENOENT, STORE_GIVE_UP);
	check(404, "NoSuchBucket", ENXIO, STORE_GIVE_UP);
	check(403, "AccessDenied", EACCES, STORE_GIVE_UP);
	check(403, NULL, EACCES, STORE_GIVE_UP);
	check(412, "PreconditionFailed", EEXIST, STORE_GIVE_UP);
	check(412, NULL, EEXIST, STORE_GIVE_UP);
	check(501, "NotImplemented", EOPNOTSUPP, STORE_GIVE_UP);
	check(501, NULL, EOPNOTSUPP, STORE_GIVE_UP);
	check(400, "InvalidRequest", EIO, STORE_GIVE_UP);
	check(301, "PermanentRedirect", EIO, STORE_GIVE_UP);
	check(507, NULL, ENOSPC, STORE_GIVE_UP);
	check(403, "QuotaExceeded", EDQUOT, STORE_GIVE_UP);
}

/* req: P8 */
TEST(a_404_that_is_not_s3s_does_not_mean_that_an_object_is_gone)
{
	check(404, NULL, EIO, STORE_GIVE_UP);
	check(404, "SomethingElse", EIO, STORE_GIVE_UP);
}

TEST(delays_grow_and_are_spread)
{
	CHECK_INT(store_retry_delay_ms(1, false, 0, 120000, 0), 1);
	CHECK_INT(store_retry_delay_ms(1, false, 0, 120000, 49), 50);
	CHECK_INT(store_retry_delay_ms(1, false, 0, 120000, 50), 1);
	CHECK_INT(store_retry_delay_ms(4, false, 0, 120000, 399), 400);
	CHECK_INT(store_retry_delay_ms(1, true, 0, 120000, 399), 400);
	CHECK_INT(store_retry_delay_ms(1000, true, 0, 120000, 9999), 10000);
}

TEST(a_store_that_asks_for_time_gets_it)
{
	CHECK_INT(store_retry_delay_ms(1, false, 3000, 120000, 0), 3000);
	CHECK_INT(store_retry_delay_ms(1, false, UINT64_MAX, 3600000, 0),
		  60000);
}

TEST(the_deadline_leaves_room_for_further_attempts)
{
	uint64_t remaining = 1000;
	int attempts = 0;

	while (attempts < 100) {
		uint64_t delay = store_retry_delay_ms(20, true, 5000, remaining,
						      UINT32_MAX);

		if (delay == STORE_RETRY_NEVER)
			break;
		CHECK(delay <= remaining / 2);
		remaining -= delay;
		attempts++;
	}
	CHECK(attempts >= 3 && attempts < 20);
	CHECK_INT(store_retry_delay_ms(1, false, 0, 0, 0) == STORE_RETRY_NEVER,
		  1);
}

TEST_MAIN()
