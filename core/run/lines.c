/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/run/lines.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Past a JSON string that starts at `c`; its content, unescaped as far as the writer escapes, into `text`. NULL when it
 * does not end before `end`. */
static const char *read_string(const char *c, const char *end, char text[SL_LINE_TEXT])
{
    static const char letters[] = "btnfr", meant[] = "\b\t\n\f\r";
    size_t n = 0;
    if (c >= end || *c++ != '"')
        return NULL;
    for (; c < end && *c != '"'; c++) {
        char byte = *c;
        if (byte == '\\') {
            if (++c == end)
                return NULL;
            const char *letter = strchr(letters, *c);
            byte = letter != NULL ? meant[letter - letters] : *c;
            if (*c == 'u') {
                char code[5] = {0};
                if (end - c < 5 || strspn(c + 1, "0123456789abcdefABCDEF") < 4)
                    return NULL;
                memcpy(code, c + 1, 4);
                byte = (char)strtol(code, NULL, 16); /* a control character: all others stand as they are */
                c += 4;
            }
        }
        if (n + 1 < SL_LINE_TEXT)
            text[n++] = byte;
    }
    text[n] = '\0';
    return c < end ? c + 1 : NULL;
}

static const char *read_value(const char *c, const char *end, double *value)
{
    static const struct {
        const char *word;
        double value;
    } words[] = {{"null", NAN}, {"true", 1}, {"false", 0}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const size_t n = strlen(words[i].word);
        if ((size_t)(end - c) >= n && memcmp(c, words[i].word, n) == 0) {
            *value = words[i].value;
            return c + n;
        }
    }
    if (c >= end || strchr("-0123456789", *c) == NULL)
        return NULL;
    char *after;
    *value = strtod(c, &after);
    return after > c && after <= end ? after : NULL;
}

int sl_line_read(const char *line, const char *end, sl_line_visitor *visit, void *context)
{
    char name[SL_LINE_TEXT], text[SL_LINE_TEXT];
    const char *c = line;
    if (end - line < 2 || *c++ != '{' || end[-1] != '}')
        return SLUICE_CORRUPT;
    for (bool first = true; c < end - 1; first = false) {
        double value = NAN;
        if (!first && *c++ != ',')
            return SLUICE_CORRUPT;
        c = read_string(c, end, name);
        if (c == NULL || c >= end || *c++ != ':')
            return SLUICE_CORRUPT;
        const bool is_text = c < end && *c == '"';
        c = is_text ? read_string(c, end, text) : read_value(c, end, &value);
        if (c == NULL)
            return SLUICE_CORRUPT;
        const int rc = visit(context, name, is_text ? text : NULL, value);
        if (rc != SLUICE_OK)
            return rc;
    }
    return c == end - 1 ? SLUICE_OK : SLUICE_CORRUPT;
}
