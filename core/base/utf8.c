/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/utf8.h"

#include <string.h>

/* Length of the sequence that starts at s, 0 when it is malformed. */
static size_t sequence(const uint8_t *s, size_t left)
{
    uint8_t lead = s[0], low = 0x80, high = 0xBF; /* bounds of the second byte: RFC 3629, section 4 */
    size_t length;
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF) {
        length = 2;
    } else if ((lead & 0xF0) == 0xE0) {
        length = 3;
        if (lead == 0xE0)
            low = 0xA0;
        if (lead == 0xED)
            high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        length = 4;
        if (lead == 0xF0)
            low = 0x90;
        if (lead == 0xF4)
            high = 0x8F;
    } else {
        return 0;
    }
    if (left < length || s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

/* True when the next 32 bytes are ASCII: what most text is, many bytes at a time. */
static int plain(const uint8_t *s)
{
    uint64_t word[4];
    memcpy(word, s, sizeof word);
    return ((word[0] | word[1] | word[2] | word[3]) & UINT64_C(0x8080808080808080)) == 0;
}

size_t sl_utf8_check(const void *bytes, size_t size)
{
    const uint8_t *s = bytes;
    size_t at = 0;
    while (at < size) {
        if (size - at >= 32 && plain(s + at)) {
            at += 32;
            continue;
        }
        size_t length = sequence(s + at, size - at);
        if (length == 0)
            return at;
        at += length;
    }
    return size;
}

size_t sl_utf8_repair(const void *bytes, size_t size, char *out)
{
    const uint8_t *s = bytes;
    size_t at = 0, written = 0;
    for (;;) {
        size_t good = sl_utf8_check(s + at, size - at);
        memcpy(out + written, s + at, good);
        at += good;
        written += good;
        if (at == size)
            return written;
        memcpy(out + written, "\xEF\xBF\xBD", 3);
        at++;
        written += 3;
    }
}

size_t sl_utf8_put(uint32_t code, char out[4])
{
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        code = 0xFFFD;
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    if (length == 1) {
        out[0] = (char)code;
        return 1;
    }
    for (size_t i = length - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3F));
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(lead[length] | code);
    return length;
}
