/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sl_buffer_reserve(sl_buffer *b, size_t more)
{
    if (more <= b->capacity - b->size)
        return SLUICE_OK;
    if (more > SIZE_MAX / 2 - b->size)
        return SLUICE_NO_MEMORY;
    size_t capacity = b->capacity ? b->capacity : 256;
    while (capacity < b->size + more)
        capacity *= 2;
    uint8_t *data = realloc(b->data, capacity);
    if (!data)
        return SLUICE_NO_MEMORY;
    b->data = data;
    b->capacity = capacity;
    return SLUICE_OK;
}

int sl_buffer_append(sl_buffer *b, const void *bytes, size_t count)
{
    int rc = sl_buffer_reserve(b, count);
    if (rc < 0 || count == 0)
        return rc;
    memcpy(b->data + b->size, bytes, count);
    b->size += count;
    return SLUICE_OK;
}

int sl_buffer_printf(sl_buffer *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    int rc = length < 0 ? SLUICE_FAILED : sl_buffer_reserve(b, (size_t)length + 1); /* vsnprintf writes a NUL behind */
    if (rc == SLUICE_OK) {
        vsnprintf((char *)b->data + b->size, (size_t)length + 1, format, again);
        b->size += (size_t)length;
    }
    va_end(again);
    return rc;
}

void *sl_items_grow(void *items, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return items;
    const size_t more = *room > 0 ? 2 * *room : 16;
    void *grown = more <= SIZE_MAX / size ? realloc(items, more * size) : NULL;
    if (grown)
        *room = more;
    return grown;
}

void sl_buffer_free(sl_buffer *b)
{
    free(b->data);
    *b = (sl_buffer){0};
}
