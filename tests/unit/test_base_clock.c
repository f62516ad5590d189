#include "base/clock.h"
#include "tests/unit/test.h"

static void check_text(int64_t ms, const char *wanted)
{
	char text[CLOCK_TEXT_BYTES];

	clock_format_ms(ms, text);
	CHECK_STR(text, wanted);
}

TEST(times_are_written_as_rfc_3339_utc_with_milliseconds)
{
	check_text(0, "1970-01-01T00:00:00.000Z");
	check_text(1795235160123, "2026-11-21T04:26:00.123Z");
	check_text(951782400001, "2000-02-29T00:00:00.001Z");
	check_text(-1, "1969-12-31T23:59:59.999Z");
}

TEST(a_time_out_of_range_is_harmless)
{
	check_text(INT64_MAX, "0000-01-01T00:00:00.000Z");
	check_text(INT64_MIN, "0000-01-01T00:00:00.000Z");
}

TEST(monotonic_time_goes_forward)
{
	uint64_t first = clock_monotonic_ns();

	CHECK(clock_monotonic_ns() >= first);
	CHECK(clock_monotonic_ms() >= first / 1000000);
	CHECK(clock_realtime_ms() > 1600000000000);
}

TEST_MAIN()
