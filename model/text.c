/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/text.h"

#include <stdlib.h>
#include <string.h>

int sm_text_reserve(sm_text *text, size_t more)
{
    if (more > SIZE_MAX / 2 - text->length) {
        return -1;
    }
    size_t need = text->length + more + 1;
    if (need <= text->capacity) {
        return 0;
    }
    size_t capacity = text->capacity ? text->capacity : 64;
    while (capacity < need) {
        capacity *= 2;
    }
    char *bytes = realloc(text->bytes, capacity);
    if (!bytes) {
        return -1;
    }
    bytes[text->length] = '\0';
    text->bytes = bytes;
    text->capacity = capacity;
    return 0;
}

int sm_text_append(sm_text *text, const void *bytes, size_t length)
{
    if (sm_text_reserve(text, length) < 0) {
        return -1;
    }
    if (length) {
        memcpy(text->bytes + text->length, bytes, length);
    }
    text->length += length;
    text->bytes[text->length] = '\0';
    return 0;
}

void sm_text_free(sm_text *text)
{
    free(text->bytes);
    *text = (sm_text){0};
}

int sm_tokens_append(sm_tokens *tokens, const uint32_t *ids, size_t count)
{
    if (count > SIZE_MAX / 16 - tokens->count) {
        return -1;
    }
    size_t need = tokens->count + count;
    if (need > tokens->capacity) {
        size_t capacity = tokens->capacity ? tokens->capacity : 32;
        while (capacity < need) {
            capacity *= 2;
        }
        uint32_t *grown = realloc(tokens->ids, capacity * sizeof *grown);
        if (!grown) {
            return -1;
        }
        tokens->ids = grown;
        tokens->capacity = capacity;
    }
    if (count) {
        memcpy(tokens->ids + tokens->count, ids, count * sizeof *ids);
    }
    tokens->count = need;
    return 0;
}

int sm_tokens_push(sm_tokens *tokens, uint32_t id)
{
    return sm_tokens_append(tokens, &id, 1);
}

void sm_tokens_free(sm_tokens *tokens)
{
    free(tokens->ids);
    *tokens = (sm_tokens){0};
}
