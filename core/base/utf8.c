/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/utf8.h"

#include <stdint.h>

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

size_t sl_utf8_check(const void *bytes, size_t size)
{
    const uint8_t *s = bytes;
    size_t at = 0;
    while (at < size) {
        size_t length = sequence(s + at, size - at);
        if (length == 0)
            return at;
        at += length;
    }
    return size;
}
