#include "base/error.h"

#include <stdio.h>
#include <string.h>

static void set_message(struct hib_error *error, int code, const char *format,
			va_list args)
{
	char text[HIB_ERROR_MESSAGE_BYTES];

	vsnprintf(text, sizeof(text), format, args);
	error->code = code;
	memcpy(error->message, text, sizeof(text));
}

int hib_fail(struct hib_error *error, int code, const char *format, ...)
{
	va_list args;

	if (error) {
		va_start(args, format);
		set_message(error, code, format, args);
		va_end(args);
	}
	return -code;
}

int hib_fail_errno(struct hib_error *error, int code, const char *format, ...)
{
	va_list args;
	size_t used;

	if (error) {
		va_start(args, format);
		set_message(error, code, format, args);
		va_end(args);
		used = strlen(error->message);
		snprintf(error->message + used, sizeof(error->message) - used,
			 ": %s",
			 strerrordesc_np(code) ? strerrordesc_np(code)
					       : "unknown error");
	}
	return -code;
}

int hib_wrap(struct hib_error *error, int r, const char *format, ...)
{
	char inner[HIB_ERROR_MESSAGE_BYTES];
	va_list args;
	size_t used;

	if (!error)
		return r;
	if (!error->code) {
		const char *text = strerrordesc_np(-r);

		error->code = -r;
		snprintf(inner, sizeof(inner), "%s",
			 text ? text : "unknown error");
	} else {
		memcpy(inner, error->message, sizeof(inner));
	}
	va_start(args, format);
	vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
	used = strlen(error->message);
	snprintf(error->message + used, sizeof(error->message) - used, ": %s",
		 inner);
	return r;
}
