/* What manifest.c and manifest_parse.c share. */
#ifndef HIBFS_META_MANIFEST_INTERNAL_H
#define HIBFS_META_MANIFEST_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>

#include "meta/manifest.h"

/* Of one JSON text: 65,536 extents or 12 MiB of xattrs fit well. */
#define MANIFEST_MAX_LINE_BYTES ((size_t)16 << 20)

const char *manifest_type_name(enum entry_type type);
int manifest_type_parse(const char *text, enum entry_type *ret);
int manifest_compare_paths(const char *a, const char *b);
void manifest_entry_done(struct manifest_entry *entry);

/* The highest hard-link group; seen[] has one more than that. */
uint64_t manifest_group_count(const struct manifest *manifest);
/* Marks the entry's group in seen[]; false when it was marked before. */
bool manifest_is_first_name(const struct manifest_entry *entry, bool *seen);
/* Computes the totals into *ret, which is zeroed. -ENOMEM. */
int manifest_count(const struct manifest *manifest, struct manifest *ret);

/* `name` with the bytes as text when they are UTF-8, else name_base64. */
int manifest_set_bytes(json_t *object, const char *name, const char *bytes);

#endif
