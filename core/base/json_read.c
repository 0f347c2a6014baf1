/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* JSON text (RFC 8259) to deterministic CBOR. */
#include "core/base/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cbor.h"
#include "core/base/utf8.h"

typedef struct parser {
    const char *start, *at, *end;
    char *error;
    size_t error_size;
} parser;

static int refuse(parser *p, const char *what)
{
    snprintf(p->error, p->error_size, "JSON at byte %zu: %s", (size_t)(p->at - p->start), what);
    return SLUICE_BAD_PARAMETER;
}

static int value(parser *, sl_buffer *out, int depth);

static void blanks(parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r'))
        p->at++;
}

static bool accept(parser *p, char c)
{
    blanks(p);
    if (p->at >= p->end || *p->at != c)
        return false;
    p->at++;
    return true;
}

static int hex4(parser *p, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        const char c = p->at < p->end ? *p->at : '\0';
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return refuse(p, "\\u wants four hexadecimal digits");
        *code = *code << 4 | (uint32_t)digit;
    }
    return SLUICE_OK;
}

/* After the backslash. */
static int escape(parser *p, sl_buffer *text)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char c = p->at < p->end ? *p->at : '\0';
    const char *found = c ? strchr(from, c) : NULL;
    if (found) {
        p->at++;
        return sl_buffer_append(text, to + (found - from), 1);
    }
    if (c != 'u')
        return refuse(p, "an unknown escape");
    p->at++;
    uint32_t code, low;
    int rc = hex4(p, &code);
    if (rc < 0)
        return rc;
    if (code >= 0xD800 && code <= 0xDBFF && p->end - p->at >= 6 && p->at[0] == '\\' && p->at[1] == 'u') {
        const char *back = p->at;
        p->at += 2;
        rc = hex4(p, &low);
        if (rc < 0)
            return rc;
        if (low >= 0xDC00 && low <= 0xDFFF)
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        else
            p->at = back;
    }
    char bytes[4];
    return sl_buffer_append(text, bytes, sl_utf8_put(code, bytes));
}

/* After the opening quote: a whole string as a CBOR text. */
static int string(parser *p, sl_buffer *out)
{
    sl_buffer text = {0};
    int rc = SLUICE_OK;
    for (;;) {
        const char *begin = p->at;
        while (p->at < p->end && *p->at != '"' && *p->at != '\\' && (uint8_t)*p->at >= 0x20)
            p->at++;
        rc = sl_buffer_append(&text, begin, (size_t)(p->at - begin));
        if (rc < 0)
            break;
        if (p->at >= p->end || (uint8_t)*p->at < 0x20) {
            rc = refuse(p, p->at < p->end ? "a control character in a string" : "a string without end");
            break;
        }
        if (*p->at++ == '"')
            break;
        rc = escape(p, &text);
        if (rc < 0)
            break;
    }
    if (rc == SLUICE_OK) {
        sl_cbor_writer w = {out, SLUICE_OK};
        sl_cbor_put_text(&w, (const char *)text.data, text.size);
        rc = w.result;
    }
    sl_buffer_free(&text);
    return rc;
}

static size_t digits(parser *p)
{
    const char *begin = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9')
        p->at++;
    return (size_t)(p->at - begin);
}

/* The text between begin and end as a double. The point is taken out and the exponent shifted: strtod looks for the
 * locale's. */
static int to_double(parser *p, const char *begin, const char *end, double *value)
{
    char small[64];
    const size_t room = (size_t)(end - begin) + 24;
    char *text = room <= sizeof small ? small : malloc(room), *to = text;
    if (!text)
        return SLUICE_NO_MEMORY;
    long behind = 0, exponent = 0;
    bool point = false;
    for (; begin < end && *begin != 'e' && *begin != 'E'; begin++) {
        if (*begin == '.') {
            point = true;
        } else {
            *to++ = *begin;
            behind += point;
        }
    }
    if (begin < end) {
        const bool negative = begin[1] == '-';
        for (begin += 1 + (begin[1] == '-' || begin[1] == '+'); begin < end; begin++)
            exponent = exponent < 1000000000 ? exponent * 10 + (*begin - '0') : exponent;
        exponent = negative ? -exponent : exponent;
    }
    sprintf(to, "e%ld", exponent - behind);
    *value = strtod(text, NULL);
    if (text != small)
        free(text);
    return isfinite(*value) ? SLUICE_OK : refuse(p, "a number beyond the range of a float");
}

static int number(parser *p, sl_buffer *out)
{
    const char *begin = p->at;
    const bool negative = *p->at == '-';
    p->at += negative;
    const char *first = p->at;
    const size_t whole = digits(p);
    if (whole == 0 || (whole > 1 && *first == '0'))
        return refuse(p, "a malformed value");
    bool integer = true;
    if (p->at < p->end && *p->at == '.') {
        p->at++;
        integer = false;
        if (digits(p) == 0)
            return refuse(p, "a number wants digits after its point");
    }
    if (p->at < p->end && (*p->at == 'e' || *p->at == 'E')) {
        p->at++;
        integer = false;
        if (p->at < p->end && (*p->at == '-' || *p->at == '+'))
            p->at++;
        if (digits(p) == 0)
            return refuse(p, "a number wants digits after its e");
    }
    sl_cbor_writer w = {out, SLUICE_OK};
    uint64_t n = 0;
    for (const char *c = first; integer && c < p->at; c++)
        integer = !__builtin_mul_overflow(n, 10, &n) && !__builtin_add_overflow(n, (uint64_t)(*c - '0'), &n);
    if (integer && negative && n > 0)
        sl_cbor_put_head(&w, SL_CBOR_NINT, n - 1);
    else if (integer)
        sl_cbor_put_head(&w, SL_CBOR_UINT, n);
    if (integer)
        return w.result;
    double real;
    int rc = to_double(p, begin, p->at, &real);
    if (rc < 0)
        return rc;
    sl_cbor_put_double(&w, real);
    return w.result;
}

static int array(parser *p, sl_buffer *out, int depth)
{
    sl_buffer items = {0};
    uint64_t count = 0;
    int rc = SLUICE_OK;
    if (!accept(p, ']')) {
        do {
            rc = value(p, &items, depth);
            count++;
        } while (rc == SLUICE_OK && accept(p, ','));
        if (rc == SLUICE_OK && !accept(p, ']'))
            rc = refuse(p, "an array wants ',' or ']'");
    }
    if (rc == SLUICE_OK) {
        sl_cbor_writer w = {out, SLUICE_OK};
        sl_cbor_put_head(&w, SL_CBOR_ARRAY, count);
        sl_cbor_put_raw(&w, items.data, items.size);
        rc = w.result;
    }
    sl_buffer_free(&items);
    return rc;
}

/* An encoded key and its value, side by side in a buffer of all entries. */
typedef struct entry {
    const uint8_t *bytes;
    size_t begin, key_size, size;
} entry;

static int by_key(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    return sl_cbor_compare(x->bytes, x->key_size, y->bytes, y->key_size);
}

static int entries(parser *p, sl_buffer *items, sl_buffer *index, int depth)
{
    do {
        entry e = {.begin = items->size};
        if (!accept(p, '"'))
            return refuse(p, "an object wants a key in quotes");
        int rc = string(p, items);
        e.key_size = items->size - e.begin;
        if (rc == SLUICE_OK && !accept(p, ':'))
            rc = refuse(p, "an object wants ':' after a key");
        if (rc == SLUICE_OK)
            rc = value(p, items, depth);
        e.size = items->size - e.begin;
        if (rc == SLUICE_OK)
            rc = sl_buffer_append(index, &e, sizeof e);
        if (rc < 0)
            return rc;
    } while (accept(p, ','));
    return accept(p, '}') ? SLUICE_OK : refuse(p, "an object wants ',' or '}'");
}

static int object(parser *p, sl_buffer *out, int depth)
{
    sl_buffer items = {0}, index = {0};
    int rc = accept(p, '}') ? SLUICE_OK : entries(p, &items, &index, depth);
    entry *sorted = (entry *)(void *)index.data;
    const size_t count = index.size / sizeof(entry);
    if (rc == SLUICE_OK && count > 0) {
        for (size_t i = 0; i < count; i++)
            sorted[i].bytes = items.data + sorted[i].begin;
        qsort(sorted, count, sizeof *sorted, by_key);
        for (size_t i = 1; i < count && rc == SLUICE_OK; i++)
            if (by_key(&sorted[i - 1], &sorted[i]) == 0)
                rc = refuse(p, "an object has the same key twice");
    }
    if (rc == SLUICE_OK) {
        sl_cbor_writer w = {out, SLUICE_OK};
        sl_cbor_put_head(&w, SL_CBOR_MAP, count);
        for (size_t i = 0; i < count; i++)
            sl_cbor_put_raw(&w, sorted[i].bytes, sorted[i].size);
        rc = w.result;
    }
    sl_buffer_free(&index);
    sl_buffer_free(&items);
    return rc;
}

static bool word(parser *p, const char *text)
{
    const size_t size = strlen(text);
    if ((size_t)(p->end - p->at) < size || memcmp(p->at, text, size) != 0)
        return false;
    p->at += size;
    return true;
}

static int value(parser *p, sl_buffer *out, int depth)
{
    if (depth == 0)
        return refuse(p, "values nest too deeply");
    if (accept(p, '{'))
        return object(p, out, depth - 1);
    if (accept(p, '['))
        return array(p, out, depth - 1);
    if (accept(p, '"'))
        return string(p, out);
    if (p->at >= p->end)
        return refuse(p, "a value is wanted");
    if (word(p, "true"))
        return sl_buffer_append(out, "\xf5", 1);
    if (word(p, "false"))
        return sl_buffer_append(out, "\xf4", 1);
    if (word(p, "null"))
        return sl_buffer_append(out, "\xf6", 1);
    return number(p, out);
}

int sl_json_to_cbor(const char *text, size_t size, sl_buffer *out, char *error, size_t error_size)
{
    const size_t before = out->size;
    parser p = {text, text, text + size, error, error_size};
    const size_t valid = sl_utf8_check(text, size);
    if (valid != size) {
        p.at += valid;
        return refuse(&p, "not UTF-8");
    }
    int rc = value(&p, out, SL_CBOR_DEPTH);
    blanks(&p);
    if (rc == SLUICE_OK && p.at != p.end)
        rc = refuse(&p, "something follows the value");
    if (rc < 0)
        out->size = before;
    return rc;
}
