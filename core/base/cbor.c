/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/cbor.h"

#include <math.h>
#include <string.h>

#include "core/base/utf8.h"

/* A head takes 1, 2, 3, 5 or 9 bytes; the argument is big-endian. */
static size_t head_bytes(enum sl_cbor_major major, uint64_t value, uint8_t out[9])
{
    const uint8_t first = (uint8_t)(major << 5);
    if (value < 24) {
        out[0] = first | (uint8_t)value;
        return 1;
    }
    const int log = value <= 0xff ? 0 : value <= 0xffff ? 1 : value <= 0xffffffff ? 2 : 3;
    const size_t width = (size_t)1 << log;
    out[0] = first | (uint8_t)(24 + log);
    for (size_t i = width; i > 0; i--, value >>= 8)
        out[i] = (uint8_t)value;
    return width + 1;
}

void sl_cbor_put_raw(sl_cbor_writer *w, const void *bytes, size_t size)
{
    int rc = sl_buffer_append(w->out, bytes, size);
    if (w->result == SLUICE_OK)
        w->result = rc;
}

void sl_cbor_put_head(sl_cbor_writer *w, enum sl_cbor_major major, uint64_t value)
{
    uint8_t head[9];
    sl_cbor_put_raw(w, head, head_bytes(major, value, head));
}

void sl_cbor_put_int(sl_cbor_writer *w, int64_t value)
{
    if (value >= 0)
        sl_cbor_put_head(w, SL_CBOR_UINT, (uint64_t)value);
    else
        sl_cbor_put_head(w, SL_CBOR_NINT, ~(uint64_t)value); /* -1 - value */
}

void sl_cbor_put_bool(sl_cbor_writer *w, bool value)
{
    sl_cbor_put_raw(w, value ? "\xf5" : "\xf4", 1);
}

/* The half-precision bits of a float, when it has any without loss. */
static bool half_of(float value, uint16_t *half)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const int exponent = (int)(bits >> 23 & 0xff) - 127;
    const uint32_t mantissa = bits & 0x7fffff;
    if ((bits & 0x7fffffff) == 0) {
        *half = sign;
        return true;
    }
    if (exponent == 128 && mantissa == 0) {
        *half = sign | 0x7c00;
        return true;
    }
    if (exponent >= -14 && exponent <= 15 && (mantissa & 0x1fff) == 0) {
        *half = (uint16_t)(sign | (exponent + 15) << 10 | (int)(mantissa >> 13));
        return true;
    }
    if (exponent >= -24 && exponent < -14) { /* subnormal: a multiple of 2^-24 */
        const uint32_t whole = mantissa | 0x800000;
        const int shift = 23 - (exponent + 24);
        if ((whole & ((UINT32_C(1) << shift) - 1)) == 0) {
            *half = (uint16_t)(sign | (uint16_t)(whole >> shift));
            return true;
        }
    }
    return false;
}

/* The shortest of the three widths that keeps the value; every NaN is the one of RFC 8949 §4.2.2. */
static size_t double_bytes(double value, uint8_t out[9])
{
    uint64_t bits;
    size_t width;
    const float single = (float)value;
    uint16_t half;
    if (isnan(value)) {
        bits = 0x7e00;
        width = 2;
    } else if ((double)single != value) {
        memcpy(&bits, &value, 8);
        width = 8;
    } else if (half_of(single, &half)) {
        bits = half;
        width = 2;
    } else {
        uint32_t word;
        memcpy(&word, &single, 4);
        bits = word;
        width = 4;
    }
    out[0] = width == 2 ? 0xf9 : width == 4 ? 0xfa : 0xfb;
    for (size_t i = width; i > 0; i--, bits >>= 8)
        out[i] = (uint8_t)bits;
    return width + 1;
}

void sl_cbor_put_double(sl_cbor_writer *w, double value)
{
    uint8_t bytes[9];
    sl_cbor_put_raw(w, bytes, double_bytes(value, bytes));
}

void sl_cbor_put_text(sl_cbor_writer *w, const char *text, size_t size)
{
    sl_cbor_put_head(w, SL_CBOR_TEXT, size);
    sl_cbor_put_raw(w, text, size);
}

void sl_cbor_put_typed(sl_cbor_writer *w, enum sl_cbor_tag tag, const void *values, size_t size)
{
    sl_cbor_put_head(w, SL_CBOR_TAG, tag);
    sl_cbor_put_head(w, SL_CBOR_BYTES, size);
    sl_cbor_put_raw(w, values, size);
}

/* Reading. */

static bool refuse(sl_cbor_reader *r, const char *error)
{
    r->error = error;
    return false;
}

/* The head as it stands: for floats `value` is the bits and *width their bytes. */
static bool raw_head(sl_cbor_reader *r, enum sl_cbor_major *major, uint64_t *value, size_t *width)
{
    if (r->at >= r->end)
        return refuse(r, "the item is cut off");
    const uint8_t first = r->at[0];
    *major = (enum sl_cbor_major)(first >> 5);
    const unsigned info = first & 31;
    if (info < 24) {
        *value = info;
        *width = 0;
        r->at++;
        return true;
    }
    if (info > 27)
        return refuse(r, "indefinite lengths and reserved heads are not admitted");
    *width = (size_t)1 << (info - 24);
    if ((size_t)(r->end - r->at) <= *width)
        return refuse(r, "the item is cut off");
    uint64_t v = 0;
    for (size_t i = 1; i <= *width; i++)
        v = v << 8 | r->at[i];
    const bool shortest = *width == 1 ? v >= 24 : *width == 2 ? v > 0xff : *width == 4 ? v > 0xffff : v > 0xffffffff;
    if (*major != SL_CBOR_SIMPLE && !shortest)
        return refuse(r, "a length or integer is not in its shortest form");
    *value = v;
    r->at += 1 + *width;
    return true;
}

static double half_value(uint16_t half)
{
    const int exponent = half >> 10 & 31, mantissa = half & 0x3ff;
    double v = exponent == 0    ? ldexp(mantissa, -24)
               : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                : ldexp(mantissa + 1024, exponent - 25);
    return half & 0x8000 ? -v : v;
}

/* After a head of major type 7 with an argument of 2, 4 or 8 bytes: the float, which must be in its shortest form. */
static bool float_value(sl_cbor_reader *r, uint64_t bits, size_t width, double *value)
{
    if (width == 2) {
        *value = half_value((uint16_t)bits);
    } else if (width == 4) {
        const uint32_t word = (uint32_t)bits;
        float single;
        memcpy(&single, &word, 4);
        *value = single;
    } else {
        memcpy(value, &bits, 8);
    }
    uint8_t shortest[9];
    if (double_bytes(*value, shortest) != width + 1 || (isnan(*value) && bits != 0x7e00))
        return refuse(r, "a float is not in its shortest form");
    return true;
}

bool sl_cbor_head(sl_cbor_reader *r, enum sl_cbor_major *major, uint64_t *value)
{
    size_t width;
    const uint8_t *start = r->at;
    if (!raw_head(r, major, value, &width))
        return false;
    bool fits = true;
    switch (*major) {
    case SL_CBOR_BYTES:
    case SL_CBOR_TEXT:
    case SL_CBOR_ARRAY: /* an element takes at least a byte, a map's entry two */
        fits = *value <= (uint64_t)(r->end - r->at);
        break;
    case SL_CBOR_MAP:
        fits = *value <= (uint64_t)(r->end - r->at) / 2;
        break;
    case SL_CBOR_SIMPLE:
        if (width >= 2) {
            double unused;
            return float_value(r, *value, width, &unused);
        }
        if (width != 0 || *value < 20 || *value > 23) {
            r->at = start;
            return refuse(r, "an unknown simple value");
        }
        break;
    default:
        break;
    }
    if (!fits) {
        r->at = start;
        return refuse(r, "a length runs past the end");
    }
    return true;
}

bool sl_cbor_expect(sl_cbor_reader *r, enum sl_cbor_major major, uint64_t *value)
{
    static const char *const wanted[] = {"an unsigned integer is wanted",
                                         "a negative integer is wanted",
                                         "a byte string is wanted",
                                         "a text string is wanted",
                                         "an array is wanted",
                                         "a map is wanted",
                                         "a tag is wanted",
                                         "a simple value is wanted"};
    const uint8_t *start = r->at;
    enum sl_cbor_major found;
    if (!sl_cbor_head(r, &found, value))
        return false;
    if (found != major) {
        r->at = start;
        return refuse(r, wanted[major]);
    }
    return true;
}

bool sl_cbor_text(sl_cbor_reader *r, const char **text, size_t *size)
{
    uint64_t length;
    if (!sl_cbor_expect(r, SL_CBOR_TEXT, &length))
        return false;
    if (sl_utf8_check(r->at, length) != length)
        return refuse(r, "a text is not UTF-8");
    *text = (const char *)r->at;
    *size = length;
    r->at += length;
    return true;
}

bool sl_cbor_bool(sl_cbor_reader *r, bool *value)
{
    if (r->at >= r->end || (*r->at != 0xf4 && *r->at != 0xf5))
        return refuse(r, "true or false is wanted");
    *value = *r->at++ == 0xf5;
    return true;
}

bool sl_cbor_number(sl_cbor_reader *r, double *value)
{
    const uint8_t *start = r->at;
    enum sl_cbor_major major;
    uint64_t v;
    size_t width;
    if (!raw_head(r, &major, &v, &width))
        return false;
    if (major == SL_CBOR_UINT || major == SL_CBOR_NINT) {
        *value = major == SL_CBOR_UINT ? (double)v : -1.0 - (double)v;
        return true;
    }
    if (major == SL_CBOR_SIMPLE && width >= 2)
        return float_value(r, v, width, value);
    r->at = start;
    return refuse(r, "a number is wanted");
}

bool sl_cbor_typed(sl_cbor_reader *r, enum sl_cbor_tag tag, const uint8_t **bytes, size_t *size)
{
    const uint8_t *start = r->at;
    uint64_t found, length;
    if (!sl_cbor_expect(r, SL_CBOR_TAG, &found) || !sl_cbor_expect(r, SL_CBOR_BYTES, &length))
        return false;
    if (found != tag || length % (tag == SL_CBOR_F64 ? 8 : 4) != 0) {
        r->at = start;
        return refuse(r, tag == SL_CBOR_U32   ? "a typed array of uint32 (tag 70) is wanted"
                         : tag == SL_CBOR_F32 ? "a typed array of float32 (tag 85) is wanted"
                                              : "a typed array of float64 (tag 86) is wanted");
    }
    *bytes = r->at;
    *size = length;
    r->at += length;
    return true;
}

int sl_cbor_compare(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

bool sl_cbor_key(sl_cbor_reader *r, const uint8_t *previous, size_t previous_size)
{
    const uint8_t *start = r->at;
    enum sl_cbor_major major;
    uint64_t value;
    if (!sl_cbor_head(r, &major, &value))
        return false;
    if (major == SL_CBOR_TEXT) {
        if (sl_utf8_check(r->at, value) != value)
            return refuse(r, "a text is not UTF-8");
        r->at += value;
    } else if (major != SL_CBOR_UINT && major != SL_CBOR_NINT) {
        r->at = start;
        return refuse(r, "a map's key is neither text nor an integer");
    }
    if (previous && sl_cbor_compare(previous, previous_size, start, (size_t)(r->at - start)) >= 0) {
        r->at = start;
        return refuse(r, "a map's key comes twice or out of order");
    }
    return true;
}

static bool skip(sl_cbor_reader *r, int depth)
{
    enum sl_cbor_major major;
    uint64_t value;
    if (depth == 0)
        return refuse(r, "values nest too deeply");
    if (!sl_cbor_head(r, &major, &value))
        return false;
    switch (major) {
    case SL_CBOR_TEXT:
        if (sl_utf8_check(r->at, value) != value)
            return refuse(r, "a text is not UTF-8");
        r->at += value;
        return true;
    case SL_CBOR_BYTES:
        r->at += value;
        return true;
    case SL_CBOR_ARRAY:
        for (uint64_t i = 0; i < value; i++)
            if (!skip(r, depth - 1))
                return false;
        return true;
    case SL_CBOR_MAP: {
        const uint8_t *previous = NULL;
        size_t previous_size = 0;
        for (uint64_t i = 0; i < value; i++) {
            const uint8_t *key = r->at;
            if (!sl_cbor_key(r, previous, previous_size))
                return false;
            previous = key;
            previous_size = (size_t)(r->at - key);
            if (!skip(r, depth - 1))
                return false;
        }
        return true;
    }
    case SL_CBOR_TAG:
        return skip(r, depth - 1);
    default:
        return true;
    }
}

bool sl_cbor_skip(sl_cbor_reader *r)
{
    return skip(r, SL_CBOR_DEPTH);
}
