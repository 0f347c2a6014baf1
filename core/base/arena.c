/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/pool.h"

enum { ALIGNMENT = 16, FIRST_BLOCK = 1024, LARGEST_STEP = 1 << 20 };

typedef struct block {
    struct block *next;
    size_t size, used;
    bool pooled;
    _Alignas(ALIGNMENT) unsigned char bytes[];
} block;

struct sl_arena { /* lies at the start of its oldest block */
    block *newest;
    size_t bytes;
};
_Static_assert(sizeof(sl_arena) % ALIGNMENT == 0, "what follows it is aligned");

/* Of a pooled block's size or some less, it is one: records come and go by the million. */
static block *new_block(size_t size, block *next)
{
    const size_t pooled = SL_POOL_SIZE - sizeof(block);
    const bool from_pool = size > SL_POOL_SIZE / 4 && size <= pooled;
    block *b = from_pool ? sl_pool_take() : malloc(sizeof *b + size);
    if (b)
        *b = (block){.next = next, .size = from_pool ? pooled : size, .pooled = from_pool};
    return b;
}

sl_arena *sl_arena_new(void)
{
    return sl_arena_new_sized(FIRST_BLOCK);
}

sl_arena *sl_arena_new_sized(size_t first)
{
    if (first > SIZE_MAX / 2)
        return NULL;
    block *b = new_block(sizeof(sl_arena) + first, NULL);
    if (!b)
        return NULL;
    sl_arena *arena = (sl_arena *)b->bytes;
    *arena = (sl_arena){.newest = b, .bytes = b->size};
    b->used = sizeof *arena;
    return arena;
}

void *sl_arena_take(sl_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    block *b = arena->newest;
    if (b->size - b->used < bytes) {
        /* As much again as there is, so that many small pieces cost few blocks and a large one wastes at most half. */
        size_t step = arena->bytes < LARGEST_STEP ? arena->bytes : LARGEST_STEP;
        b = new_block(bytes > step ? bytes : step, arena->newest);
        if (!b)
            return NULL;
        arena->newest = b;
        arena->bytes += b->size;
    }
    void *at = b->bytes + b->used;
    b->used += bytes;
    return at;
}

void *sl_arena_alloc(sl_arena *arena, size_t bytes)
{
    void *at = sl_arena_take(arena, bytes);
    return at ? memset(at, 0, bytes) : NULL;
}

char *sl_arena_strdup(sl_arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = sl_arena_take(arena, size);
    return copy ? memcpy(copy, text, size) : NULL;
}

char *sl_arena_printf(sl_arena *arena, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = length < 0 ? NULL : sl_arena_take(arena, (size_t)length + 1);
    if (text)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

size_t sl_arena_bytes(const sl_arena *arena)
{
    return arena->bytes;
}

void sl_arena_free(sl_arena *arena)
{
    for (block *b = arena ? arena->newest : NULL; b;) {
        block *next = b->next;
        if (b->pooled)
            sl_pool_give(b);
        else
            free(b);
        b = next;
    }
}
