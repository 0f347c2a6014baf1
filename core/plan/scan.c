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
    struct {
        char bracket;
        int line;
    } open[DEEPEST];
    int long_string; /* where the first string begins that goes past its line; 0 = none */
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

/* A string may go over several lines, but where quotes do not come out even, the first that does is the likeliest to
 * lack its end: from there on all that follows is turned inside out. */
static bool scan_string(scanner *s)
{
    const int line = s->line;
    const bool closed = skip_string(s);
    if (s->line > line && s->long_string == 0)
        s->long_string = line;
    if (!closed)
        sl_mistake_line(s->mistakes, s->long_string ? s->long_string : line,
                        "a string starts here and never ends; close it with \"");
    return closed;
}

static char closing_of(char opening)
{
    return opening == '(' ? ')' : opening == '{' ? '}' : ']';
}

static bool scan_bracket(scanner *s, char c)
{
    if (strchr("({[", c)) {
        if (s->depth == DEEPEST) {
            sl_mistake_line(s->mistakes, s->line,
                            "more than %d groups and lists inside each other; a pipeline needs four", DEEPEST);
            return false;
        }
        s->open[s->depth].bracket = c;
        s->open[s->depth++].line = s->line;
        return true;
    }
    if (s->depth == 0) {
        sl_mistake_line(s->mistakes, s->line,
                        "%c closes nothing that is open; there is one bracket too many here, or "
                        "one too few before",
                        c);
        return false;
    }
    s->depth--;
    const char wanted = closing_of(s->open[s->depth].bracket);
    if (c != wanted)
        sl_mistake_line(s->mistakes, s->line,
                        "%c stands where the %c of line %d would be closed; write %c before it, or "
                        "remove one bracket too many",
                        c, s->open[s->depth].bracket, s->open[s->depth].line, wanted);
    return c == wanted;
}

/* One token or comment; false when nothing sensible can follow. */
static bool scan_one(scanner *s)
{
    char c = *s->at;
    int line = s->line;
    if (c == '"')
        return scan_string(s);
    if (c == '#' || (c == '/' && s->at + 1 < s->end && s->at[1] == '/'))
        return skip_past(s, "\n");
    if (c == '/' && s->at + 1 < s->end && s->at[1] == '*') {
        s->at += 2;
        if (skip_past(s, "*/"))
            return true;
        sl_mistake_line(s->mistakes, line, "a comment starts here and never ends; close it with */");
        return false;
    }
    if (c == '@' && (size_t)(s->end - s->at) >= 8 && memcmp(s->at, "@include", 8) == 0) {
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
    if (strchr("({[)}]", c) && !scan_bracket(s, c))
        return false;
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
        scanner s = {.at = text, .end = text + size, .line = 1, .mistakes = mistakes};
        bool sensible = true;
        while (s.at < s.end && sensible)
            sensible = scan_one(&s);
        if (sensible && s.depth > 0)
            sl_mistake_line(mistakes, s.open[s.depth - 1].line, "the %c here is never closed; look for a missing %c",
                            s.open[s.depth - 1].bracket, closing_of(s.open[s.depth - 1].bracket));
        if (s.long_string && !sensible && s.at < s.end)
            sl_mistake_line(mistakes, s.long_string,
                            "a string starts here and goes on in the next line; close it with \" "
                            "if it should not");
    }
    return sl_mistakes_count(mistakes) == before;
}
