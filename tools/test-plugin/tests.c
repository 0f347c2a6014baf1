/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The list of tests, and reporting. */
#include <string.h>

#include "tools/test-plugin/test.h"

const tp_test *const tp_tests[] = {
    &tp_test_loads,       &tp_test_symbols,    &tp_test_description, &tp_test_registry,
    &tp_test_life,        &tp_test_works,      &tp_test_bounds,      &tp_test_random_parameters,
    &tp_test_batches,     &tp_test_fields,     &tp_test_malformed,   &tp_test_odd_numbers,
    &tp_test_cancel,      &tp_test_resume,     &tp_test_same_seed,   &tp_test_speed,
    &tp_test_borrowed,    &tp_test_quiet,      &tp_test_memory,      &tp_test_threads,
    &tp_test_descriptors, &tp_test_derivative, &tp_test_extremes,    NULL,
};

/* Words of a plugin may hold newlines. */
static void one_line(char *text)
{
    for (char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
}

void tp_doing(tp_report *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->doing, sizeof r->doing, format, args);
    va_end(args);
    one_line(r->doing);
}

static void say(tp_report *r, enum tp_verdict verdict, const char *format, va_list args)
{
    if ((int)verdict <= r->verdict)
        return;
    vsnprintf(r->why, sizeof r->why, format, args);
    one_line(r->why);
    r->verdict = (int)verdict;
}

void tp_skip(tp_report *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(r, TP_SKIPPED, format, args);
    va_end(args);
}

void tp_warn(tp_report *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(r, TP_WARNING, format, args);
    va_end(args);
}

void tp_fail(tp_report *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(r, TP_FAILED, format, args);
    va_end(args);
}
