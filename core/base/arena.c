/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16, FIRST_BLOCK = 4096, LARGEST_BLOCK = 1 << 20 };

typedef struct block {
    struct block *next;
    size_t size, used;
    _Alignas(ALIGNMENT) unsigned char bytes[];
} block;

struct sl_arena {
    block *newest;
    size_t bytes;
};

sl_arena *sl_arena_new(void)
{
    return calloc(1, sizeof(sl_arena));
}

void *sl_arena_alloc(sl_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    block *b = arena->newest;
    if (!b || b->size - b->used < bytes) {
        size_t size = b && b->size < LARGEST_BLOCK ? b->size * 2 : b ? LARGEST_BLOCK : FIRST_BLOCK;
        if (size < bytes)
            size = bytes;
        b = calloc(1, sizeof *b + size);
        if (!b)
            return NULL;
        b->size = size;
        b->next = arena->newest;
        arena->newest = b;
        arena->bytes += size;
    }
    void *at = b->bytes + b->used;
    b->used += bytes;
    return at;
}

char *sl_arena_strdup(sl_arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = sl_arena_alloc(arena, size);
    return copy ? memcpy(copy, text, size) : NULL;
}

char *sl_arena_printf(sl_arena *arena, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = length < 0 ? NULL : sl_arena_alloc(arena, (size_t)length + 1);
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
        free(b);
        b = next;
    }
    free(arena);
}
