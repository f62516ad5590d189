#include "base/buffer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buffer_done(struct buffer *buffer)
{
	free(buffer->data);
	buffer->data = NULL;
	buffer->size = buffer->capacity = 0;
}

void buffer_clear(struct buffer *buffer)
{
	buffer->size = 0;
	if (buffer->data)
		buffer->data[0] = 0;
}

int buffer_reserve(struct buffer *buffer, size_t extra)
{
	size_t needed, capacity;
	uint8_t *data;

	if (extra > buffer->limit || buffer->size > buffer->limit - extra)
		return -EMSGSIZE;
	needed = buffer->size + extra + 1;
	if (needed <= buffer->capacity)
		return 0;
	capacity = buffer->capacity ? buffer->capacity : 256;
	while (capacity < needed)
		capacity += capacity / 2 + 1;
	if (capacity > buffer->limit + 1)
		capacity = buffer->limit + 1;
	data = realloc(buffer->data, capacity);
	if (!data)
		return -ENOMEM;
	buffer->data = data;
	buffer->capacity = capacity;
	return 0;
}

int buffer_append(struct buffer *buffer, const void *data, size_t size)
{
	int r = buffer_reserve(buffer, size);

	if (r < 0)
		return r;
	if (size)
		memcpy(buffer->data + buffer->size, data, size);
	buffer->size += size;
	buffer->data[buffer->size] = 0;
	return 0;
}

int buffer_append_string(struct buffer *buffer, const char *string)
{
	return buffer_append(buffer, string, strlen(string));
}

int buffer_append_format(struct buffer *buffer, const char *format, ...)
{
	va_list args;
	int length, r;

	va_start(args, format);
	length = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (length < 0)
		return -EINVAL;
	r = buffer_reserve(buffer, (size_t)length);
	if (r < 0)
		return r;
	va_start(args, format);
	vsnprintf((char *)buffer->data + buffer->size, (size_t)length + 1,
		  format, args);
	va_end(args);
	buffer->size += (size_t)length;
	return 0;
}

const char *buffer_string(const struct buffer *buffer)
{
	return buffer->data ? (const char *)buffer->data : "";
}
