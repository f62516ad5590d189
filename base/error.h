/*
 * How a failure travels: 0 or a negative errno is returned, and the message is
 * kept in a caller-owned struct hib_error, which each layer on the way up may
 * wrap with what it was doing ("put packs/3f/3f9a...: connection refused").
 *
 * Used by every module. base/, meta/ and transfer/ never log an error, they
 * return it; fs/ and control/ log it once.
 *
 * Thread-safety: none of its own; one hib_error belongs to one thread at a time.
 */
#ifndef HIBFS_BASE_ERROR_H
#define HIBFS_BASE_ERROR_H

#include <stdarg.h>

#define HIB_ERROR_MESSAGE_BYTES 1024

struct hib_error {
	int code; /* positive errno, 0 when unset */
	char message[HIB_ERROR_MESSAGE_BYTES]; /* cut at the end if too long */
};

#define HIB_ERROR_INIT ((struct hib_error){ 0 })

/*
 * Sets *error to `code` (a positive errno) and the formatted message, and
 * returns -code. `error` may be NULL: then only the return value is made.
 * Says everything: what happened, to what, and what the user can do.
 */
int hib_fail(struct hib_error *error, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Like hib_fail(), and appends ": " and the system's text for `code`. */
int hib_fail_errno(struct hib_error *error, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Puts "<formatted>: " before the message that *error holds, and returns r
 * unchanged, so that it can stand in a return statement. With an unset *error
 * the message becomes the system's text for -r.
 */
int hib_wrap(struct hib_error *error, int r, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
