/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * From Oniguruma's regular expressions, as tokenizer files have them, to PCRE2's.
 */
#include "model/tokenizer_pattern.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* White space: PCRE2's \s has U+180E besides, Oniguruma's has not. */
#define SPACE \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NO_SPACE                                                                                                       \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}" \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

/* The code points that Unicode 15 and 16 assigned, by general category. The PCRE2 of today's distributions knows
 * Unicode 14; the Oniguruma that the tokenizers library ships knows 16. */
static const struct {
    char category[3];
    unsigned low, high;
} newer[] = {
    {"Mn", 0x897, 0x897},     {"Mc", 0xcf3, 0xcf3},     {"Mn", 0xece, 0xece},     {"Po", 0x1b4e, 0x1b4f},
    {"Po", 0x1b7f, 0x1b7f},   {"Lu", 0x1c89, 0x1c89},   {"Ll", 0x1c8a, 0x1c8a},   {"So", 0x2427, 0x2429},
    {"So", 0x2ffc, 0x2fff},   {"So", 0x31e4, 0x31e5},   {"So", 0x31ef, 0x31ef},   {"Lu", 0xa7cb, 0xa7cc},
    {"Ll", 0xa7cd, 0xa7cd},   {"Lu", 0xa7da, 0xa7da},   {"Ll", 0xa7db, 0xa7db},   {"Lu", 0xa7dc, 0xa7dc},
    {"Lo", 0x105c0, 0x105f3}, {"Nd", 0x10d40, 0x10d49}, {"Lo", 0x10d4a, 0x10d4d}, {"Lm", 0x10d4e, 0x10d4e},
    {"Lo", 0x10d4f, 0x10d4f}, {"Lu", 0x10d50, 0x10d65}, {"Mn", 0x10d69, 0x10d6d}, {"Pd", 0x10d6e, 0x10d6e},
    {"Lm", 0x10d6f, 0x10d6f}, {"Ll", 0x10d70, 0x10d85}, {"Sm", 0x10d8e, 0x10d8f}, {"Lo", 0x10ec2, 0x10ec4},
    {"Mn", 0x10efc, 0x10eff}, {"Lo", 0x1123f, 0x11240}, {"Mn", 0x11241, 0x11241}, {"Lo", 0x11380, 0x11389},
    {"Lo", 0x1138b, 0x1138b}, {"Lo", 0x1138e, 0x1138e}, {"Lo", 0x11390, 0x113b5}, {"Lo", 0x113b7, 0x113b7},
    {"Mc", 0x113b8, 0x113ba}, {"Mn", 0x113bb, 0x113c0}, {"Mc", 0x113c2, 0x113c2}, {"Mc", 0x113c5, 0x113c5},
    {"Mc", 0x113c7, 0x113ca}, {"Mc", 0x113cc, 0x113cd}, {"Mn", 0x113ce, 0x113ce}, {"Mc", 0x113cf, 0x113cf},
    {"Mn", 0x113d0, 0x113d0}, {"Lo", 0x113d1, 0x113d1}, {"Mn", 0x113d2, 0x113d2}, {"Lo", 0x113d3, 0x113d3},
    {"Po", 0x113d4, 0x113d5}, {"Po", 0x113d7, 0x113d8}, {"Mn", 0x113e1, 0x113e2}, {"Nd", 0x116d0, 0x116e3},
    {"Po", 0x11b00, 0x11b09}, {"Lo", 0x11bc0, 0x11be0}, {"Po", 0x11be1, 0x11be1}, {"Nd", 0x11bf0, 0x11bf9},
    {"Mn", 0x11f00, 0x11f01}, {"Lo", 0x11f02, 0x11f02}, {"Mc", 0x11f03, 0x11f03}, {"Lo", 0x11f04, 0x11f10},
    {"Lo", 0x11f12, 0x11f33}, {"Mc", 0x11f34, 0x11f35}, {"Mn", 0x11f36, 0x11f3a}, {"Mc", 0x11f3e, 0x11f3f},
    {"Mn", 0x11f40, 0x11f40}, {"Mc", 0x11f41, 0x11f41}, {"Mn", 0x11f42, 0x11f42}, {"Po", 0x11f43, 0x11f4f},
    {"Nd", 0x11f50, 0x11f59}, {"Mn", 0x11f5a, 0x11f5a}, {"Lo", 0x1342f, 0x1342f}, {"Cf", 0x13439, 0x1343f},
    {"Mn", 0x13440, 0x13440}, {"Lo", 0x13441, 0x13446}, {"Mn", 0x13447, 0x13455}, {"Lo", 0x13460, 0x143fa},
    {"Lo", 0x16100, 0x1611d}, {"Mn", 0x1611e, 0x16129}, {"Mc", 0x1612a, 0x1612c}, {"Mn", 0x1612d, 0x1612f},
    {"Nd", 0x16130, 0x16139}, {"Lm", 0x16d40, 0x16d42}, {"Lo", 0x16d43, 0x16d6a}, {"Lm", 0x16d6b, 0x16d6c},
    {"Po", 0x16d6d, 0x16d6f}, {"Nd", 0x16d70, 0x16d79}, {"Lo", 0x18cff, 0x18cff}, {"Lo", 0x1b132, 0x1b132},
    {"Lo", 0x1b155, 0x1b155}, {"So", 0x1cc00, 0x1ccef}, {"Nd", 0x1ccf0, 0x1ccf9}, {"So", 0x1cd00, 0x1ceb3},
    {"No", 0x1d2c0, 0x1d2d3}, {"Ll", 0x1df25, 0x1df2a}, {"Lm", 0x1e030, 0x1e06d}, {"Mn", 0x1e08f, 0x1e08f},
    {"Lo", 0x1e4d0, 0x1e4ea}, {"Lm", 0x1e4eb, 0x1e4eb}, {"Mn", 0x1e4ec, 0x1e4ef}, {"Nd", 0x1e4f0, 0x1e4f9},
    {"Lo", 0x1e5d0, 0x1e5ed}, {"Mn", 0x1e5ee, 0x1e5ef}, {"Lo", 0x1e5f0, 0x1e5f0}, {"Nd", 0x1e5f1, 0x1e5fa},
    {"Po", 0x1e5ff, 0x1e5ff}, {"So", 0x1f6dc, 0x1f6dc}, {"So", 0x1f774, 0x1f776}, {"So", 0x1f77b, 0x1f77f},
    {"So", 0x1f7d9, 0x1f7d9}, {"So", 0x1f8b2, 0x1f8bb}, {"So", 0x1f8c0, 0x1f8c1}, {"So", 0x1fa75, 0x1fa77},
    {"So", 0x1fa87, 0x1fa89}, {"So", 0x1fa8f, 0x1fa8f}, {"So", 0x1faad, 0x1faaf}, {"So", 0x1fabb, 0x1fabf},
    {"So", 0x1fac6, 0x1fac6}, {"So", 0x1face, 0x1facf}, {"So", 0x1fada, 0x1fadc}, {"So", 0x1fadf, 0x1fadf},
    {"So", 0x1fae8, 0x1fae9}, {"So", 0x1faf7, 0x1faf8}, {"So", 0x1fbcb, 0x1fbef}, {"Lo", 0x2b739, 0x2b739},
    {"Lo", 0x2ebf0, 0x2ee5d}, {"Lo", 0x31350, 0x323af},
};

typedef struct translation {
    const char *source;
    size_t length, at;
    sm_text *out;
    sm_error *error;
} translation;

static int put(translation *t, const char *bytes, size_t length)
{
    return sm_text_append(t->out, bytes, length) < 0 ? sm_fail(t->error, SM_NO_MEMORY, "out of memory") : SM_OK;
}

static int put_text(translation *t, const char *text)
{
    return put(t, text, strlen(text));
}

static int refuse(translation *t, const char *what)
{
    return sm_fail(t->error, SM_UNSUPPORTED, "regular expression \"%.200s\": %s at byte %zu is not supported",
                   t->source, what, t->at);
}

static bool is_category(const char *name, size_t length)
{
    static const char known[] = " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So "
                                "Z Zs Zl Zp Cc Cf ";
    char key[5];
    if (length < 1 || length > 2) {
        return false;
    }
    snprintf(key, sizeof key, " %.*s ", (int)length, name);
    return strstr(known, key) != NULL;
}

/* The members of a class: \p{name} and what newer Unicode versions put there. */
static int put_category(translation *t, const char *name, size_t length)
{
    char text[48];
    snprintf(text, sizeof text, "\\p{%.*s}", (int)length, name);
    int code = put_text(t, text);
    unsigned low = 1, high = 0;
    for (size_t i = 0; code == SM_OK && i <= sizeof newer / sizeof *newer; i++) {
        bool end = i == sizeof newer / sizeof *newer;
        if (!end && strncmp(newer[i].category, name, length) != 0) {
            continue;
        }
        if (!end && low <= high && newer[i].low == high + 1) {
            high = newer[i].high;
            continue;
        }
        if (low <= high) {
            snprintf(text, sizeof text, "\\x{%x}-\\x{%x}", low, high);
            code = put_text(t, text);
        }
        if (!end) {
            low = newer[i].low;
            high = newer[i].high;
        }
    }
    return code;
}

/* A set of characters: spelled out inside a class, or as a class of its own. */
static int put_set(translation *t, bool in_class, bool negated, const char *members, const char *category,
                   size_t length)
{
    int code = in_class ? SM_OK : put_text(t, negated ? "[^" : "[");
    if (code == SM_OK) {
        code = members ? put_text(t, members) : put_category(t, category, length);
    }
    if (code == SM_OK && !in_class) {
        code = put_text(t, "]");
    }
    /* A dash beside a set is a dash, never a range. */
    if (code == SM_OK && in_class && t->at < t->length && t->source[t->at] == '-') {
        t->at++;
        code = put_text(t, "\\-");
    }
    return code;
}

static int put_code_point(translation *t, const char *digits, size_t count)
{
    char text[24];
    if (count < 1 || count > 8) {
        return refuse(t, "this code point");
    }
    snprintf(text, sizeof text, "\\x{%.*s}", (int)count, digits);
    return put_text(t, text);
}

static size_t hex_digits(const translation *t, size_t at)
{
    size_t n = 0;
    while (at + n < t->length && isxdigit((unsigned char)t->source[at + n])) {
        n++;
    }
    return n;
}

/* \p{…} or \P{…}, at the brace. */
static int property(translation *t, bool in_class, bool negated)
{
    if (t->at >= t->length || t->source[t->at] != '{') {
        return refuse(t, "a property without braces");
    }
    const char *name = t->source + t->at + 1, *end = memchr(name, '}', t->length - t->at - 1);
    if (!end) {
        return refuse(t, "an unfinished property");
    }
    if (*name == '^') {
        negated = !negated;
        name++;
    }
    if (!is_category(name, (size_t)(end - name))) {
        return refuse(t, "a property that is no general category");
    }
    if (in_class && negated) {
        return refuse(t, "a negated property inside a class");
    }
    t->at = (size_t)(end + 1 - t->source);
    return put_set(t, in_class, negated, NULL, name, (size_t)(end - name));
}

static int escape(translation *t, bool in_class)
{
    if (t->at + 1 >= t->length) {
        return refuse(t, "a backslash at the end");
    }
    char c = t->source[t->at + 1], pair[3] = {'\\', c, 0};
    t->at += 2;
    switch (c) {
    case 's':
        return put_set(t, in_class, false, SPACE, NULL, 0);
    case 'S':
        return put_set(t, in_class, false, NO_SPACE, NULL, 0);
    case 'd':
        return put_set(t, in_class, false, NULL, "Nd", 2);
    case 'D':
        return in_class ? refuse(t, "\\D inside a class") : put_set(t, false, true, NULL, "Nd", 2);
    case 'p':
    case 'P':
        return property(t, in_class, c == 'P');
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'a':
    case 'e':
        return put_text(t, pair);
    case 'v':
        return put_text(t, "\\x{b}");
    case 'u':
        if (hex_digits(t, t->at) < 4) {
            return refuse(t, "\\u without four digits");
        }
        t->at += 4;
        return put_code_point(t, t->source + t->at - 4, 4);
    case 'x': {
        bool braces = t->at < t->length && t->source[t->at] == '{';
        size_t from = t->at + braces, count = hex_digits(t, from);
        if (!braces && (count < 2 || t->source[from] > '7')) {
            return refuse(t, "\\x that is no ASCII character");
        }
        if (braces && (from + count >= t->length || t->source[from + count] != '}')) {
            return refuse(t, "an unfinished \\x{…}");
        }
        count = braces ? count : 2;
        t->at = from + count + braces;
        return put_code_point(t, t->source + from, count);
    }
    default:
        if (ispunct((unsigned char)c)) {
            return put_text(t, pair);
        }
        t->at -= 2;
        return refuse(t, "this escape");
    }
}

static int character_class(translation *t)
{
    t->at++;
    int code = put_text(t, "[");
    if (code == SM_OK && t->at < t->length && t->source[t->at] == '^') {
        t->at++;
        code = put_text(t, "^");
    }
    for (bool first = true; code == SM_OK; first = false) {
        if (t->at >= t->length) {
            return refuse(t, "an unfinished class");
        }
        char c = t->source[t->at];
        if (c == ']' && !first) {
            t->at++;
            return put_text(t, "]");
        }
        if (c == '\\') {
            code = escape(t, true);
        } else if (c == '[') {
            return refuse(t, "a class inside a class");
        } else if (c == '&' && t->at + 1 < t->length && t->source[t->at + 1] == '&') {
            return refuse(t, "an intersection of classes");
        } else {
            bool before_set =
                t->at + 2 < t->length && t->source[t->at + 1] == '\\' && strchr("sSdp", t->source[t->at + 2]);
            code = c == ']'                            ? put_text(t, "\\]")
                   : c == '-' && (first || before_set) ? put_text(t, "\\-")
                                                       : put(t, &c, 1);
            t->at++;
        }
    }
    return code;
}

static int group(translation *t)
{
    static const char *const known[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    const char *rest = t->source + t->at;
    size_t left = t->length - t->at;
    if (left < 2 || rest[1] != '?') {
        t->at++;
        return put_text(t, "(");
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t size = strlen(known[i]);
        if (left >= size && memcmp(rest, known[i], size) == 0) {
            t->at += size;
            return put_text(t, known[i]);
        }
    }
    /* Elsewhere Ruby lets the option reach over the following alternatives. */
    if (t->at == 0 && left >= 4 && memcmp(rest, "(?i)", 4) == 0) {
        t->at += 4;
        return put_text(t, "(?i)");
    }
    return refuse(t, "this kind of group");
}

/* {n}, {n,} and {n,m} mean the same in both; followed by + or ? they do not always. */
static int braces(translation *t)
{
    size_t at = t->at + 1, digits = at;
    while (at < t->length && isdigit((unsigned char)t->source[at])) {
        at++;
    }
    bool comma = at < t->length && t->source[at] == ',';
    if (at == digits) {
        if (comma) {
            return refuse(t, "{,");
        }
        t->at++;
        return put_text(t, "\\{");
    }
    at += comma;
    while (comma && at < t->length && isdigit((unsigned char)t->source[at])) {
        at++;
    }
    if (at >= t->length || t->source[at] != '}') {
        t->at++;
        return put_text(t, "\\{");
    }
    at++;
    if (at < t->length && (t->source[at] == '+' || (t->source[at] == '?' && !comma))) {
        return refuse(t, "a repetition of a repetition");
    }
    int code = put(t, t->source + t->at, at - t->at);
    t->at = at;
    return code;
}

int sm_regex_translate(const char *source, size_t length, sm_text *out, sm_error *error)
{
    translation t = {source, length, 0, out, error};
    int code = SM_OK;
    while (code == SM_OK && t.at < length) {
        switch (source[t.at]) {
        case '\\':
            code = escape(&t, false);
            break;
        case '[':
            code = character_class(&t);
            break;
        case '(':
            code = group(&t);
            break;
        case '{':
            code = braces(&t);
            break;
        default:
            code = put(&t, source + t.at, 1);
            t.at++;
        }
    }
    return code;
}
