/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/error.h"

#include <stdarg.h>
#include <stdio.h>

int sm_fail(sm_error *error, int code, const char *format, ...)
{
    if (!error) {
        return code;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    for (unsigned char *c = (unsigned char *)error->text; *c; c++) {
        if (*c < 0x20 || *c == 0x7f) {
            *c = '?';
        }
    }
    error->code = code;
    return code;
}
