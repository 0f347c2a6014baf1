/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Two growable buffers: UTF-8 text and token ids.
 *
 * Both start as {0}, grow as things are appended, belong to whoever declared them, and are released by their _free
 * function, after which they are {0} again. A failed append (-1, out of memory) leaves the buffer as it was.
 */
#ifndef MODEL_TEXT_H
#define MODEL_TEXT_H

#include <stddef.h>
#include <stdint.h>

typedef struct sm_text {
    char *bytes; /* `length` bytes and a final NUL; NULL while nothing was ever appended */
    size_t length;
    size_t capacity;
} sm_text;

typedef struct sm_tokens {
    uint32_t *ids;
    size_t count;
    size_t capacity;
} sm_tokens;

int sm_text_append(sm_text *text, const void *bytes, size_t length);
int sm_text_reserve(sm_text *text, size_t more); /* room for `more` bytes and the NUL */
void sm_text_free(sm_text *text);

int sm_tokens_append(sm_tokens *tokens, const uint32_t *ids, size_t count);
int sm_tokens_push(sm_tokens *tokens, uint32_t id);
void sm_tokens_free(sm_tokens *tokens);

#endif
