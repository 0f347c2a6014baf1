/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* CBOR values as JSON. */
#include "core/base/cbor.h"

#include <inttypes.h>
#include <string.h>

#include "core/base/json.h"

static int print(sl_cbor_reader *r, sl_buffer *out);

/* base64url without padding. */
static int print_bytes(const uint8_t *bytes, size_t size, sl_buffer *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    if (size > SIZE_MAX / 2)
        return SLUICE_NO_MEMORY;
    int rc = sl_buffer_reserve(out, size / 3 * 4 + 6);
    if (rc < 0)
        return rc;
    uint8_t *to = out->data + out->size;
    *to++ = '"';
    for (size_t i = 0; i < size; i += 3) {
        const size_t n = size - i < 3 ? size - i : 3;
        uint32_t group = (uint32_t)bytes[i] << 16;
        group |= n > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        group |= n > 2 ? bytes[i + 2] : 0;
        for (size_t k = 0; k <= n; k++)
            *to++ = (uint8_t)digits[group >> (18 - 6 * k) & 63];
    }
    *to++ = '"';
    out->size = (size_t)(to - out->data);
    return SLUICE_OK;
}

static int print_typed(uint64_t tag, const uint8_t *bytes, size_t size, sl_buffer *out)
{
    const size_t width = tag == SL_CBOR_F64 ? 8 : 4;
    int rc = sl_buffer_append(out, "[", 1);
    for (size_t i = 0; i < size && rc == SLUICE_OK; i += width) {
        if (i > 0)
            rc = sl_buffer_append(out, ",", 1);
        if (rc < 0)
            break;
        uint32_t integer;
        float single;
        double value;
        switch (tag) {
        case SL_CBOR_U32:
            memcpy(&integer, bytes + i, 4);
            rc = sl_buffer_printf(out, "%" PRIu32, integer);
            break;
        case SL_CBOR_F32:
            memcpy(&single, bytes + i, 4);
            rc = sl_json_float(out, single);
            break;
        default:
            memcpy(&value, bytes + i, 8);
            rc = sl_json_double(out, value);
        }
    }
    return rc < 0 ? rc : sl_buffer_append(out, "]", 1);
}

static int print_integer(enum sl_cbor_major major, uint64_t value, sl_buffer *out)
{
    if (major == SL_CBOR_UINT)
        return sl_buffer_printf(out, "%" PRIu64, value);
    if (value == UINT64_MAX) /* -2^64, the one that -1 - value cannot say in 64 bits */
        return sl_buffer_printf(out, "-18446744073709551616");
    return sl_buffer_printf(out, "-%" PRIu64, value + 1);
}

static int print_array(sl_cbor_reader *r, uint64_t count, sl_buffer *out)
{
    int rc = sl_buffer_append(out, "[", 1);
    for (uint64_t i = 0; i < count && rc == SLUICE_OK; i++) {
        if (i > 0)
            rc = sl_buffer_append(out, ",", 1);
        if (rc == SLUICE_OK)
            rc = print(r, out);
    }
    return rc < 0 ? rc : sl_buffer_append(out, "]", 1);
}

static int print_map(sl_cbor_reader *r, uint64_t count, sl_buffer *out)
{
    int rc = sl_buffer_append(out, "{", 1);
    for (uint64_t i = 0; i < count && rc == SLUICE_OK; i++) {
        if (i > 0)
            rc = sl_buffer_append(out, ",", 1);
        const bool text = *r->at >> 5 == SL_CBOR_TEXT;
        if (rc == SLUICE_OK && !text)
            rc = sl_buffer_append(out, "\"", 1);
        if (rc == SLUICE_OK)
            rc = print(r, out);
        if (rc == SLUICE_OK)
            rc = text ? sl_buffer_append(out, ":", 1) : sl_buffer_append(out, "\":", 2);
        if (rc == SLUICE_OK)
            rc = print(r, out);
    }
    return rc < 0 ? rc : sl_buffer_append(out, "}", 1);
}

static int print(sl_cbor_reader *r, sl_buffer *out)
{
    static const char *const simple[] = {"false", "true", "null", "null"};
    const uint8_t *start = r->at;
    enum sl_cbor_major major;
    uint64_t value;
    double number;
    if (!sl_cbor_head(r, &major, &value))
        return SLUICE_BAD_RECORD;
    switch (major) {
    case SL_CBOR_UINT:
    case SL_CBOR_NINT:
        return print_integer(major, value, out);
    case SL_CBOR_BYTES:
        r->at += value;
        return print_bytes(r->at - value, value, out);
    case SL_CBOR_TEXT:
        r->at += value;
        return sl_json_string(out, (const char *)r->at - value, value);
    case SL_CBOR_ARRAY:
        return print_array(r, value, out);
    case SL_CBOR_MAP:
        return print_map(r, value, out);
    case SL_CBOR_TAG:
        if (value == SL_CBOR_U32 || value == SL_CBOR_F32 || value == SL_CBOR_F64) {
            const uint8_t *bytes;
            size_t size;
            r->at = start;
            if (sl_cbor_typed(r, (enum sl_cbor_tag)value, &bytes, &size))
                return print_typed(value, bytes, size, out);
            r->at = start; /* the tag on something else: print what it stands on */
            if (!sl_cbor_head(r, &major, &value))
                return SLUICE_BAD_RECORD;
        }
        return print(r, out);
    default:
        if (*start >= 0xf9) {
            r->at = start;
            return sl_cbor_number(r, &number) ? sl_json_double(out, number) : SLUICE_BAD_RECORD;
        }
        return sl_buffer_append(out, simple[value - 20], strlen(simple[value - 20]));
    }
}

int sl_cbor_to_json(const uint8_t *value, size_t size, sl_buffer *out)
{
    sl_cbor_reader r = {value, value + size, NULL};
    return print(&r, out);
}
