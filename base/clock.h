/*
 * Time. Wall clock for people (events, records), monotonic for durations and
 * deadlines: a wall clock that jumps back must disturb nothing.
 */
#ifndef HIBFS_BASE_CLOCK_H
#define HIBFS_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t clock_realtime_ms(void);
uint64_t clock_monotonic_ns(void);
uint64_t clock_monotonic_ms(void);

#define CLOCK_TEXT_BYTES 32
/* "2026-11-21T04:26:00.123Z" (RFC 3339, UTC, milliseconds). */
void clock_format_ms(int64_t realtime_ms, char ret_text[CLOCK_TEXT_BYTES]);

#endif
