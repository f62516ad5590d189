#include "base/clock.h"

#include <stdio.h>
#include <time.h>

int64_t clock_realtime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t clock_monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_ms(void)
{
	return clock_monotonic_ns() / 1000000u;
}

void clock_format_ms(int64_t realtime_ms, char ret_text[CLOCK_TEXT_BYTES])
{
	int64_t ms = realtime_ms % 1000;
	time_t seconds = (time_t)(realtime_ms / 1000);
	struct tm tm;

	if (ms < 0) {
		ms += 1000;
		seconds--;
	}
	if (!gmtime_r(&seconds, &tm) || tm.tm_year < -1900 ||
	    tm.tm_year > 9999 - 1900) {
		/* Beyond what RFC 3339 can say. */
		snprintf(ret_text, CLOCK_TEXT_BYTES,
			 "0000-01-01T00:00:00.000Z");
		return;
	}
	snprintf(ret_text, CLOCK_TEXT_BYTES,
		 "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
		 (unsigned int)(tm.tm_year + 1900) % 10000u,
		 (unsigned int)(tm.tm_mon + 1) % 100u,
		 (unsigned int)tm.tm_mday % 100u,
		 (unsigned int)tm.tm_hour % 100u,
		 (unsigned int)tm.tm_min % 100u, (unsigned int)tm.tm_sec % 100u,
		 (unsigned int)ms % 1000u);
}
