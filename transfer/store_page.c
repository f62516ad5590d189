#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transfer/store_backend.h"

#define PAGE_TEXT_BYTES (STORE_PAGE_KEYS * (STORE_KEY_BYTES + 1))

struct store_page *store_page_new(void)
{
	struct store_page *page = calloc(1, sizeof(*page));

	if (page)
		page->text = BUFFER_INIT(PAGE_TEXT_BYTES);
	return page;
}

struct store_page *store_page_free(struct store_page *page)
{
	if (page) {
		buffer_done(&page->text);
		free(page->token);
		free(page);
	}
	return NULL;
}

const char *store_page_key(const struct store_page *page, size_t index)
{
	return (const char *)page->text.data + page->entries[index].key_at;
}

int store_page_add(struct store_page *page, const char *key,
		   const struct store_object *object)
{
	size_t at = page->text.size;
	int r;

	if (page->count == STORE_PAGE_KEYS)
		return -EMSGSIZE;
	r = buffer_append(&page->text, key, strlen(key) + 1);
	if (r < 0)
		return r;
	page->entries[page->count++] = (struct store_page_entry){
		.key_at = at,
		.object = *object,
	};
	return 0;
}

void store_page_clear(struct store_page *page)
{
	buffer_clear(&page->text);
	page->count = 0;
	page->truncated = false;
}

static bool is_key_text(const char *key)
{
	for (; *key; key++)
		if (*key < ' ' || *key > '~')
			return false;
	return true;
}

int store_key_check(const char *key, bool partial)
{
	const char *at = key;

	if (strlen(key) >= STORE_KEY_BYTES)
		return -ENAMETOOLONG;
	if (!is_key_text(key))
		return -EINVAL;
	for (;;) {
		size_t length = strcspn(at, "/");
		bool last = at[length] == 0;

		if (last && partial)
			return 0;
		if (length == 0 || (length <= 2 && strspn(at, ".") == length))
			return -EINVAL;
		if (last)
			return 0;
		at += length + 1;
	}
}
