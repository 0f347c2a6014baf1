/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/utf8.h"

static int escape(sl_buffer *out, uint8_t c)
{
    switch (c) {
    case '"':
        return sl_buffer_append(out, "\\\"", 2);
    case '\\':
        return sl_buffer_append(out, "\\\\", 2);
    case '\n':
        return sl_buffer_append(out, "\\n", 2);
    case '\r':
        return sl_buffer_append(out, "\\r", 2);
    case '\t':
        return sl_buffer_append(out, "\\t", 2);
    default:
        return sl_buffer_printf(out, "\\u%04x", c);
    }
}

int sl_json_string(sl_buffer *out, const char *text, size_t size)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t begin = 0, valid = sl_utf8_check(s, size);
    int rc = sl_buffer_append(out, "\"", 1);
    for (size_t i = 0; i < size && rc == SLUICE_OK; i++) {
        const bool malformed = i == valid;
        if (!malformed && s[i] >= 0x20 && s[i] != '"' && s[i] != '\\')
            continue;
        rc = sl_buffer_append(out, s + begin, i - begin);
        if (rc == SLUICE_OK)
            rc = malformed ? sl_buffer_append(out, "\xEF\xBF\xBD", 3) : escape(out, s[i]);
        begin = i + 1;
        if (malformed)
            valid = begin + sl_utf8_check(s + begin, size - begin);
    }
    if (rc == SLUICE_OK)
        rc = sl_buffer_append(out, s + begin, size - begin);
    return rc < 0 ? rc : sl_buffer_append(out, "\"", 1);
}

static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                               1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* A positive decimal: digits · 10^exponent. */
typedef struct decimal {
    uint64_t digits;
    int exponent;
} decimal;

/* `places` significant digits of a number between 1e-5 and 1e16, by one multiplication or division of doubles. The
 * result may be off by one in the last digit: the caller checks that it reads back. */
static bool guess(double value, int places, decimal *d)
{
    int magnitude = 0; /* 10^(magnitude - 1) <= value < 10^magnitude */
    while (magnitude < 17 && value >= power[magnitude])
        magnitude++;
    for (double v = value; magnitude <= 0 && v < 0.1; v *= 10)
        magnitude--;
    const int shift = places - magnitude;
    if (shift > 22 || shift < -22)
        return false;
    d->digits = (uint64_t)nearbyint(shift >= 0 ? value * power[shift] : value / power[-shift]);
    d->exponent = -shift;
    return true;
}

/* The double that digits · 10^exponent reads back as: exact operands and one rounding (Clinger, "How to read floating
 * point numbers accurately", PLDI 1990), for digits below 2^53. */
static double read_back(decimal d)
{
    return d.exponent <= 0 ? (double)d.digits / power[-d.exponent] : (double)d.digits * power[d.exponent];
}

/* Prints with ever more digits until it reads back; no decimal point of any locale is looked at. */
static decimal by_printing(double value, int from, int to, bool single)
{
    decimal d = {0, 0};
    for (int places = from; places <= to; places++) {
        char text[40];
        snprintf(text, sizeof text, "%.*e", places - 1, value);
        d.digits = 0;
        char *c = text;
        for (; *c && *c != 'e'; c++)
            if (*c >= '0' && *c <= '9')
                d.digits = d.digits * 10 + (uint64_t)(*c - '0');
        d.exponent = (*c ? atoi(c + 1) : 0) - (places - 1);
        snprintf(text, sizeof text, "%llue%d", (unsigned long long)d.digits, d.exponent);
        if (single ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value)
            break;
    }
    return d;
}

/* Shortest digits of a positive finite double. Decimals of 15 digits and doubles match one to one, so a guess of 15
 * digits that reads back holds the shortest one with zeros behind it. */
static decimal shortest_double(double value)
{
    decimal d;
    if (value >= 1e-5 && value < 1e16 && guess(value, 15, &d) && read_back(d) == value)
        return d;
    return by_printing(value, 1, 17, false);
}

static decimal shortest_float(float value)
{
    if (value >= 1e-5f && value < 1e16f) {
        for (int places = 6; places <= 9; places++) {
            decimal d;
            uint64_t bits;
            if (!guess(value, places, &d))
                break;
            double back = read_back(d);
            memcpy(&bits, &back, 8);
            if ((bits & 0x1fffffff) == 0x10000000) /* half-way between two floats: rounding twice could mislead */
                break;
            if ((float)back == value)
                return d;
        }
    }
    return by_printing(value, 1, 9, true);
}

/* As Python's repr: plain between 1e-4 and 1e16, with a point always. */
static int lay_out(sl_buffer *out, bool negative, decimal d)
{
    while (d.digits && d.digits % 10 == 0) {
        d.digits /= 10;
        d.exponent++;
    }
    char digits[24], text[64];
    const int count = snprintf(digits, sizeof digits, "%llu", (unsigned long long)d.digits);
    const int point = d.digits ? count + d.exponent : 1; /* digits before the decimal point */
    char *to = text;
    if (negative)
        *to++ = '-';
    if (point > 16 || point < -3) {
        *to++ = digits[0];
        if (count > 1) {
            *to++ = '.';
            memcpy(to, digits + 1, (size_t)count - 1);
            to += count - 1;
        }
        to += snprintf(to, 8, "e%c%02d", point > 0 ? '+' : '-', abs(point - 1));
        return sl_buffer_append(out, text, (size_t)(to - text));
    }
    if (point <= 0) {
        memcpy(to, "0.0000", 6);
        to += 2 - point;
        memcpy(to, digits, (size_t)count);
        to += count;
        return sl_buffer_append(out, text, (size_t)(to - text));
    }
    for (int i = 0; i < point || i < count; i++) {
        if (i == point)
            *to++ = '.';
        *to++ = i < count ? digits[i] : '0';
    }
    if (count <= point) {
        *to++ = '.';
        *to++ = '0';
    }
    return sl_buffer_append(out, text, (size_t)(to - text));
}

int sl_json_double(sl_buffer *out, double value)
{
    if (!isfinite(value))
        return sl_buffer_append(out, "null", 4);
    return lay_out(out, signbit(value), value == 0 ? (decimal){0, 0} : shortest_double(fabs(value)));
}

int sl_json_float(sl_buffer *out, float value)
{
    if (!isfinite(value))
        return sl_buffer_append(out, "null", 4);
    return lay_out(out, signbit(value), value == 0 ? (decimal){0, 0} : shortest_float(fabsf(value)));
}
