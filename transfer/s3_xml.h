/*
 * A reader for the XML that S3 answers with: elements, attributes (skipped),
 * character data with the predefined and numeric entities, comments, CDATA and
 * an XML declaration. What it does not know it refuses: no DTD, hence no
 * entities of one's own, no processing instructions, UTF-8 only, little depth.
 * Used by s3_message.c; fuzzed by tests/fuzz/fuzz_s3_xml.c.
 *
 * Thread-safety: pure.
 */
#ifndef HIBFS_TRANSFER_S3_XML_H
#define HIBFS_TRANSFER_S3_XML_H

#include <stddef.h>

#define S3_XML_DEPTH 8
#define S3_XML_PATH_BYTES 256
#define S3_XML_TEXT_BYTES 16384

/*
 * Called at the end of each element. `path` is "Root/Child/Leaf" without
 * namespace prefixes, `text` its decoded character data ("" when empty), NULL
 * for an element that has child elements. A negative answer ends the parse and
 * is returned.
 */
typedef int (*s3_xml_fn)(void *arg, const char *path, const char *text);

/* 0, visit's answer, -EBADMSG when malformed or over a limit, -ENOMEM. */
int s3_xml_parse(const void *data, size_t size, s3_xml_fn visit, void *arg);

#endif
