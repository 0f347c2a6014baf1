/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/utf8.h"

#include <string.h>

/* How many bytes at `s` are well-formed so far, and whether they make a character: the table of well-formed sequences
 * (Unicode 15, table 3-7). *complete is false when the bytes end, or break, before the character does. */
static size_t sequence(const unsigned char *s, size_t length, bool *complete)
{
    static const struct {
        unsigned char lead_low, lead_high, second_low, second_high, size;
    } rows[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
        {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    *complete = false;
    if (s[0] < 0x80) {
        *complete = true;
        return 1;
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (s[0] < rows[i].lead_low || s[0] > rows[i].lead_high) {
            continue;
        }
        size_t n = 1;
        while (n < rows[i].size && n < length) {
            unsigned char low = n == 1 ? rows[i].second_low : 0x80, high = n == 1 ? rows[i].second_high : 0xbf;
            if (s[n] < low || s[n] > high) {
                return n;
            }
            n++;
        }
        *complete = n == rows[i].size;
        return n;
    }
    return 0;
}

size_t sm_utf8_valid(const char *bytes, size_t length)
{
    const unsigned char *s = (const unsigned char *)bytes;
    size_t at = 0;
    while (at < length) {
        uint64_t word;
        if (length - at >= 8 && (memcpy(&word, s + at, 8), !(word & 0x8080808080808080u))) {
            at += 8;
            continue;
        }
        bool complete;
        size_t size = sequence(s + at, length - at, &complete);
        if (!complete) {
            return at;
        }
        at += size;
    }
    return length;
}

uint32_t sm_utf8_decode(const char *bytes, size_t *size)
{
    const unsigned char *s = (const unsigned char *)bytes;
    *size = sm_utf8_size(bytes[0]);
    switch (*size) {
    case 1:
        return s[0];
    case 2:
        return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    case 3:
        return (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    default:
        return (s[0] & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
    }
}

size_t sm_utf8_encode(uint32_t c, char bytes[4])
{
    if (c < 0x80) {
        bytes[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        bytes[0] = (char)(0xc0 | c >> 6);
        bytes[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        bytes[0] = (char)(0xe0 | c >> 12);
        bytes[1] = (char)(0x80 | (c >> 6 & 0x3f));
        bytes[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    bytes[0] = (char)(0xf0 | c >> 18);
    bytes[1] = (char)(0x80 | (c >> 12 & 0x3f));
    bytes[2] = (char)(0x80 | (c >> 6 & 0x3f));
    bytes[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

bool sm_utf8_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static const char replacement[] = "\xef\xbf\xbd";

int sm_utf8_mend(sm_utf8_mender *mender, const char *bytes, size_t length, sm_text *out)
{
    size_t at = 0;
    while (at < length) {
        if (!mender->count) {
            size_t valid = sm_utf8_valid(bytes + at, length - at);
            if (sm_text_append(out, bytes + at, valid) < 0) {
                return -1;
            }
            at += valid;
            if (at == length) {
                return 0;
            }
        }
        mender->held[mender->count++] = bytes[at++];
        bool complete;
        size_t good = sequence((const unsigned char *)mender->held, mender->count, &complete);
        if (complete) {
            if (sm_text_append(out, mender->held, good) < 0) {
                return -1;
            }
            mender->count = 0;
        } else if (good < mender->count) {
            /* The last byte does not belong to what came before: that was ill-formed. The byte is looked at anew,
             * unless it stands alone and can begin nothing. */
            if (sm_text_append(out, replacement, 3) < 0) {
                return -1;
            }
            if (mender->count > 1) {
                at--;
            }
            mender->count = 0;
        }
    }
    return 0;
}

int sm_utf8_mend_end(sm_utf8_mender *mender, sm_text *out)
{
    int result = mender->count ? sm_text_append(out, replacement, 3) : 0;
    mender->count = 0;
    return result;
}
