/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/isolate/wire.h"

#include <string.h>

void sl_message_free(sl_message *m)
{
    sl_buffer_free(&m->body);
}

static void put(sl_message *m, const void *bytes, size_t size)
{
    static const uint8_t zeroes[8];
    if (m->failed == SLUICE_OK)
        m->failed = sl_buffer_append(&m->body, bytes, size);
    if (m->failed == SLUICE_OK && size % 8 != 0)
        m->failed = sl_buffer_append(&m->body, zeroes, 8 - size % 8);
}

void sl_put(sl_message *m, uint64_t value)
{
    put(m, &value, sizeof value);
}

void sl_put_double(sl_message *m, double value)
{
    put(m, &value, sizeof value);
}

void sl_put_bytes(sl_message *m, const void *bytes, size_t size)
{
    sl_put(m, size);
    put(m, bytes, size);
}

/* With its NUL; NULL is no bytes at all. */
void sl_put_text(sl_message *m, const char *text)
{
    sl_put_bytes(m, text, text != NULL ? strlen(text) + 1 : 0);
}

static void take(sl_message *m, void *to, size_t size)
{
    if (m->bad || size > m->body.size - m->at) {
        memset(to, 0, size);
        m->bad = true;
        return;
    }
    memcpy(to, m->body.data + m->at, size);
    m->at += size;
}

uint64_t sl_get(sl_message *m)
{
    uint64_t value;
    take(m, &value, sizeof value);
    return value;
}

double sl_get_double(sl_message *m)
{
    double value;
    take(m, &value, sizeof value);
    return value;
}

const void *sl_get_bytes(sl_message *m, size_t item, size_t *size)
{
    const uint64_t length = sl_get(m);
    *size = 0;
    if (m->bad || length > m->body.size - m->at || length % item != 0) {
        m->bad = true;
        return NULL;
    }
    const void *bytes = m->body.data + m->at;
    const size_t padded = ((size_t)length + 7) / 8 * 8;
    m->at += padded < m->body.size - m->at ? padded : m->body.size - m->at;
    *size = (size_t)length;
    return bytes;
}

const char *sl_get_text(sl_message *m)
{
    size_t size;
    const char *text = sl_get_bytes(m, 1, &size);
    if (size == 0)
        return NULL;
    if (text[size - 1] == '\0')
        return text;
    m->bad = true;
    return NULL;
}

size_t sl_get_count(sl_message *m, size_t least)
{
    const uint64_t count = sl_get(m);
    if (count <= (m->body.size - m->at) / least)
        return (size_t)count;
    m->bad = true;
    return 0;
}

void sl_wire_head(const sl_message *m, uint8_t head[SL_WIRE_HEAD])
{
    const uint32_t words[2] = {SL_WIRE_MARK, m->kind};
    const uint64_t size = m->body.size;
    memcpy(head, words, sizeof words);
    memcpy(head + sizeof words, &size, sizeof size);
}

bool sl_wire_read_head(const uint8_t head[SL_WIRE_HEAD], uint32_t *kind, uint64_t *size)
{
    uint32_t words[2];
    memcpy(words, head, sizeof words);
    memcpy(size, head + sizeof words, sizeof *size);
    *kind = words[1];
    return words[0] == SL_WIRE_MARK && words[1] < SL_WIRE_KINDS && *size <= SL_WIRE_MOST;
}
