/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Numbers as people read them. */
#include "tools/report/page.h"

#include <math.h>
#include <string.h>

/* 1234567 → 1,234,567 */
static void group(const char *digits, char text[RP_NUMBER])
{
    const size_t sign = digits[0] == '-', length = strlen(digits + sign);
    char *to = text;
    if (sign)
        *to++ = '-';
    for (size_t i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[sign + i];
    }
    *to = '\0';
}

const char *rp_number_text(double value, char text[RP_NUMBER])
{
    char digits[32];
    if (isnan(value)) {
        snprintf(text, RP_NUMBER, "–");
    } else if (value == floor(value) && fabs(value) < 1e15) {
        snprintf(digits, sizeof digits, "%.0f", value);
        group(digits, text);
    } else if (fabs(value) >= 1000 && fabs(value) < 1e15) {
        snprintf(digits, sizeof digits, "%.0f", value);
        group(digits, text);
    } else {
        snprintf(text, RP_NUMBER, "%.4g", value);
    }
    return text;
}

const char *rp_percent_text(double value, char text[RP_NUMBER])
{
    if (isnan(value))
        snprintf(text, RP_NUMBER, "–");
    else
        snprintf(text, RP_NUMBER, "%.1f %%", 100 * value);
    return text;
}

const char *rp_duration_text(double seconds, char text[RP_NUMBER])
{
    const long s = isfinite(seconds) ? lround(seconds) : 0;
    if (!isfinite(seconds))
        snprintf(text, RP_NUMBER, "–");
    else if (seconds < 59.95)
        snprintf(text, RP_NUMBER, "%.1f s", seconds);
    else if (s < 3600)
        snprintf(text, RP_NUMBER, "%ld:%02ld min", s / 60, s % 60);
    else
        snprintf(text, RP_NUMBER, "%ld:%02ld:%02ld h", s / 3600, s / 60 % 60, s % 60);
    return text;
}

bool rp_is_share(const char *metric)
{
    return strstr(metric, "accurac") != NULL || strstr(metric, "win_rate") != NULL;
}
