/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A growing run of bytes, and an arena: the two ways the core holds memory. */
#ifndef SL_BUFFER_H
#define SL_BUFFER_H

#include <sluice/abi.h>

typedef struct sl_buffer {
    uint8_t *data;
    size_t size, capacity;
} sl_buffer;

/* Room for `more` bytes past size; SLUICE_NO_MEMORY leaves the buffer as it was. */
int sl_buffer_reserve(sl_buffer *, size_t more);
int sl_buffer_append(sl_buffer *, const void *bytes, size_t count);
int sl_buffer_printf(sl_buffer *, const char *format, ...) SLUICE_PRINTF(2, 3);
void sl_buffer_free(sl_buffer *);

/* Items of `size` bytes (malloc'ed, or NULL) with room for one beyond `count`; *room is how many fit. NULL when out of
 * memory: then they are as they were. */
void *sl_items_grow(void *items, size_t count, size_t *room, size_t size);

/* Allocations that live and die together. 16-byte aligned. NULL when out of memory. */
typedef struct sl_arena sl_arena;
sl_arena *sl_arena_new(void);
/* With room for `first` bytes at once. */
sl_arena *sl_arena_new_sized(size_t first);
/* Zeroed. */
void *sl_arena_alloc(sl_arena *, size_t bytes);
/* Not zeroed: for what is overwritten at once. */
void *sl_arena_take(sl_arena *, size_t bytes);
char *sl_arena_strdup(sl_arena *, const char *);
char *sl_arena_printf(sl_arena *, const char *format, ...) SLUICE_PRINTF(2, 3);
size_t sl_arena_bytes(const sl_arena *);
void sl_arena_free(sl_arena *);

#endif
