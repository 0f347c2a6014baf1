/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/plan/setting.h"
#include "core/base/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 32 };

typedef struct scanner {
    const char *at, *end;
    int line, depth;
    sl_mistakes *mistakes;
} scanner;

/* Moves to the first occurrence of `text` and past it; false at the end of the file. */
static bool skip_past(scanner *s, const char *text)
{
    size_t length = strlen(text);
    for (; s->at < s->end; s->at++) {
        if ((size_t)(s->end - s->at) >= length && memcmp(s->at, text, length) == 0) {
            s->at += length;
            s->line += text[0] == '\n';
            return true;
        }
        s->line += *s->at == '\n';
    }
    return false;
}

static bool skip_string(scanner *s)
{
    for (s->at++; s->at < s->end; s->at++) {
        if (*s->at == '"') {
            s->at++;
            return true;
        }
        if (*s->at == '\\' && s->at + 1 < s->end)
            s->at++;
        s->line += *s->at == '\n';
    }
    return false;
}

/* The parser takes 32 bits unless an L follows, and wraps what is larger. */
static void check_number(scanner *s, const char *begin, size_t length)
{
    char text[64];
    size_t digits = length;
    bool longer = false;
    while (digits > 0 && (begin[digits - 1] == 'L' || begin[digits - 1] == 'l')) {
        longer = true;
        digits--;
    }
    if (digits == 0 || digits >= sizeof text)
        return;
    memcpy(text, begin, digits);
    text[digits] = '\0';
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    char *end;
    errno = 0;
    if (hex) {
        unsigned long long value = strtoull(text + 2, &end, 16);
        if (*end == '\0' && (errno == ERANGE || (!longer && value > UINT32_MAX)))
            sl_mistake_line(s->mistakes, s->line, "integer %s does not fit into %s bits%s", text, longer ? "64" : "32",
                            errno == ERANGE ? "" : "; write an L behind it");
        return;
    }
    long long value = strtoll(text, &end, 10);
    if (*end != '\0')
        return; /* a float, or a name: the parser's business */
    if (errno == ERANGE)
        sl_mistake_line(s->mistakes, s->line, "integer %s does not fit into 64 bits", text);
    else if (!longer && (value > INT32_MAX || value < INT32_MIN))
        sl_mistake_line(s->mistakes, s->line, "integer %s does not fit into 32 bits; write %sL", text, text);
}

/* One token or comment; false when nothing sensible can follow. */
static bool scan_one(scanner *s)
{
    char c = *s->at;
    int line = s->line;
    if (c == '"') {
        if (skip_string(s))
            return true;
        sl_mistake_line(s->mistakes, line, "a string starts here and never ends; close it with \"");
        return false;
    }
    if (c == '#' || (c == '/' && s->at + 1 < s->end && s->at[1] == '/'))
        return skip_past(s, "\n");
    if (c == '/' && s->at + 1 < s->end && s->at[1] == '*') {
        s->at += 2;
        if (skip_past(s, "*/"))
            return true;
        sl_mistake_line(s->mistakes, line, "a comment starts here and never ends; close it with */");
        return false;
    }
    if (c == '@') {
        sl_mistake_line(s->mistakes, line, "@include is not supported; copy the settings into this file");
        return skip_past(s, "\n");
    }
    if (isalnum((unsigned char)c) || c == '-' || c == '+' || c == '.' || c == '_' || c == '*') {
        const char *begin = s->at;
        while (s->at < s->end && (isalnum((unsigned char)*s->at) || strchr("-+._*", *s->at)))
            s->at++;
        check_number(s, begin, (size_t)(s->at - begin));
        return true;
    }
    if (strchr("({[", c) && ++s->depth > DEEPEST) {
        sl_mistake_line(s->mistakes, line, "more than %d groups and lists inside each other; a pipeline needs four",
                        DEEPEST);
        return false;
    }
    s->depth -= strchr(")}]", c) != NULL;
    s->line += c == '\n';
    s->at++;
    return true;
}

static int line_of(const char *text, size_t offset)
{
    int line = 1;
    for (size_t i = 0; i < offset; i++)
        line += text[i] == '\n';
    return line;
}

bool sl_scan(const char *text, size_t size, sl_mistakes *mistakes)
{
    size_t before = sl_mistakes_count(mistakes);
    const char *nul = memchr(text, '\0', size);
    size_t bad = sl_utf8_check(text, size);
    if (nul) {
        sl_mistake_line(mistakes, line_of(text, (size_t)(nul - text)), "a NUL byte: this is no text file");
    } else if (bad < size) {
        sl_mistake_line(mistakes, line_of(text, bad), "byte %zu (0x%02x) is no UTF-8; save the file as UTF-8", bad,
                        (unsigned char)text[bad]);
    } else {
        scanner s = {text, text + size, 1, 0, mistakes};
        while (s.at < s.end && scan_one(&s))
            ;
    }
    return sl_mistakes_count(mistakes) == before;
}
