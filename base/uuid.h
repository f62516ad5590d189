/* Random UUIDs (RFC 9562 version 4) in lower-case text: tasks, buckets, nodes. */
#ifndef HIBFS_BASE_UUID_H
#define HIBFS_BASE_UUID_H

#include <stdbool.h>

#define UUID_TEXT_BYTES 37

void uuid_new(char ret_text[UUID_TEXT_BYTES]);
bool uuid_is_valid(const char *text);

#endif
