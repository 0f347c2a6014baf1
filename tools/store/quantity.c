/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/store/quantity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A number and one of the units; the first unit may be left out where `bare`. */
static bool read(const char *text, const char *units, const double *worth, bool bare, int64_t *out)
{
    char *end;
    const double number = strtod(text, &end);
    const char *unit = *end != '\0' ? strchr(units, *end) : bare ? units : NULL;
    if (end == text || unit == NULL || (*end != '\0' && end[1] != '\0') || !(number >= 0))
        return false;
    const double value = number * worth[unit - units];
    if (!(value < 9e18))
        return false;
    *out = (int64_t)value;
    return true;
}

bool st_read_size(const char *text, int64_t *bytes)
{
    static const double worth[] = {1, 0x1p10, 0x1p20, 0x1p30, 0x1p40};
    return read(text, "BKMGT", worth, true, bytes);
}

bool st_read_time(const char *text, int64_t *seconds)
{
    static const double worth[] = {1, 60, 3600, 86400};
    return read(text, "smhd", worth, false, seconds);
}

const char *st_size(int64_t bytes, char text[ST_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    snprintf(text, ST_TEXT, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text;
}

const char *st_age(int64_t seconds, char text[ST_TEXT])
{
    static const struct {
        int64_t worth;
        const char *name;
    } units[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
    size_t unit = 0;
    while (unit + 1 < sizeof units / sizeof *units && seconds < units[unit].worth)
        unit++;
    const long long count = (long long)((seconds > 0 ? seconds : 0) / units[unit].worth);
    snprintf(text, ST_TEXT, "%lld %s%s", count, units[unit].name, count == 1 ? "" : "s");
    return text;
}
