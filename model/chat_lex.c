/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Source to tokens, with jinja2's treatment of white space under trim_blocks and lstrip_blocks: the newline after a
 * block or comment goes, as do blanks before one that begins a line; "-" takes all white space, "+" leaves it.
 */
#include <config.h>

#include "model/chat_parts.h"

#include <ctype.h>
#include <string.h>

typedef struct lexer {
    chat_run *run;
    const char *source;
    size_t length, at;
    int line;
    bool line_starting; /* the last tag took the newline behind it */
    chat_tokens *tokens;
} lexer;

static void push(lexer *l, chat_token token)
{
    chat_tokens *tokens = l->tokens;
    if (tokens->count == tokens->capacity) {
        size_t capacity = tokens->capacity ? 2 * tokens->capacity : 256;
        chat_token *items = chat_alloc(l->run, capacity * sizeof *items);
        if (!items) {
            return;
        }
        if (tokens->count) {
            memcpy(items, tokens->items, tokens->count * sizeof *items);
        }
        tokens->items = items;
        tokens->capacity = capacity;
    }
    tokens->items[tokens->count++] = token;
}

static void push_text(lexer *l, chat_token_kind kind, const char *bytes, size_t length)
{
    push(l, (chat_token){.kind = kind, .line = l->line, .text = {bytes, NULL, length}});
}

static bool starts(const lexer *l, const char *text)
{
    size_t length = strlen(text);
    return l->length - l->at >= length && memcmp(l->source + l->at, text, length) == 0;
}

/* Moves on, counting lines. */
static void advance(lexer *l, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        l->line += l->source[l->at++] == '\n';
    }
}

static void skip_space(lexer *l)
{
    size_t size;
    while (l->at < l->length && chat_is_space(sm_utf8_decode(l->source + l->at, &size))) {
        advance(l, size);
    }
}

/* A tag's end at this place: with its "-", "+" and what that swallows. */
static bool take_end(lexer *l, const char *end, bool trims)
{
    char with_sign[4] = {l->at < l->length ? l->source[l->at] : '\0', end[0], end[1], '\0'};
    size_t before = l->at;
    if (with_sign[0] == '-' && starts(l, with_sign)) {
        advance(l, 3);
        skip_space(l);
    } else if (trims && with_sign[0] == '+' && starts(l, with_sign)) {
        advance(l, 3);
    } else if (starts(l, end)) {
        advance(l, 2);
        if (trims && l->at < l->length && l->source[l->at] == '\n') {
            advance(l, 1);
        }
    }
    l->line_starting = l->at > before && l->source[l->at - 1] == '\n';
    return l->at > before;
}

/* --- inside of tags --- */

static uint32_t escaped_code_point(lexer *l, size_t digits, size_t end)
{
    uint32_t c = 0;
    for (size_t i = 0; i < digits; i++) {
        if (l->at >= end || !isxdigit((unsigned char)l->source[l->at])) {
            chat_fail(l->run, l->line, SM_FORMAT, "an escape in a string lacks hexadecimal digits");
            return 0;
        }
        char d = l->source[l->at++];
        c = c << 4 | (uint32_t)(isdigit((unsigned char)d) ? d - '0' : (d | 0x20) - 'a' + 10);
    }
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        chat_fail(l->run, l->line, SM_UNSUPPORTED, "an escape in a string names no character");
        return 0;
    }
    return c;
}

/* The escape behind a backslash, as in Python. */
static size_t unescape(lexer *l, size_t end, char *to)
{
    static const char from[] = "nrtabfv\\'\"", into[] = "\n\r\t\a\b\f\v\\'\"";
    char c = l->source[l->at++];
    const char *simple = c ? strchr(from, c) : NULL;
    if (simple) {
        to[0] = into[simple - from];
        return 1;
    }
    switch (c) {
    case '\n':
        return 0;
    case 'x':
        return sm_utf8_encode(escaped_code_point(l, 2, end), to);
    case 'u':
        return sm_utf8_encode(escaped_code_point(l, 4, end), to);
    case 'U':
        return sm_utf8_encode(escaped_code_point(l, 8, end), to);
    default:
        if (isalnum((unsigned char)c)) {
            chat_fail(l->run, l->line, SM_UNSUPPORTED, "the escape \\%c in a string is not supported", c);
        }
        to[0] = '\\';
        to[1] = c;
        return 2;
    }
}

static void string_literal(lexer *l)
{
    char quote = l->source[l->at];
    size_t end = l->at + 1, length = 0;
    while (end < l->length && l->source[end] != quote) {
        end += l->source[end] == '\\' ? 2 : 1;
    }
    if (end >= l->length) {
        chat_fail(l->run, l->line, SM_FORMAT, "a string without its closing quote");
        return;
    }
    char *bytes = chat_alloc(l->run, end - l->at + 4);
    int line = l->line;
    for (size_t i = l->at; i < end; i++) {
        line += l->source[i] == '\n';
    }
    l->at++;
    while (!l->run->failed && l->at < end) {
        if (l->source[l->at] == '\\') {
            l->at++;
            length += unescape(l, end, bytes + length);
        } else {
            bytes[length++] = l->source[l->at++];
        }
    }
    if (!l->run->failed) {
        push_text(l, CHAT_TOKEN_STRING, bytes, length);
    }
    l->at = end + 1;
    l->line = line;
}

static void number(lexer *l)
{
    int64_t value = 0;
    size_t start = l->at;
    while (l->at < l->length && isdigit((unsigned char)l->source[l->at])) {
        int digit = l->source[l->at++] - '0';
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, digit, &value)) {
            chat_fail(l->run, l->line, SM_UNSUPPORTED, "a number beyond 64 bits");
            return;
        }
    }
    char after = l->at < l->length ? l->source[l->at] : ' ';
    char behind = l->at + 1 < l->length ? l->source[l->at + 1] : ' ';
    if (isalpha((unsigned char)after) || after == '_' || (after == '.' && isdigit((unsigned char)behind))) {
        chat_fail(l->run, l->line, SM_UNSUPPORTED, "numbers that are not whole and decimal are not supported");
        return;
    }
    push(l, (chat_token){.kind = CHAT_TOKEN_INT,
                         .line = l->line,
                         .number = value,
                         .text = {l->source + start, NULL, l->at - start}});
}

static void operator(lexer *l)
{
    static const char *const known[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "[",
                                        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ","};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (starts(l, known[i])) {
            push_text(l, CHAT_TOKEN_OPERATOR, l->source + l->at, strlen(known[i]));
            l->at += strlen(known[i]);
            return;
        }
    }
    chat_fail(l->run, l->line, SM_FORMAT, "an unexpected character in a tag: \"%.*s\"",
              (int)sm_utf8_size(l->source[l->at]), l->source + l->at);
}

/* From behind {% or {{ to its end. Inside of brackets there is no end: "}}" may close two dicts. */
static void tag(lexer *l, const char *end, bool block)
{
    int line = l->line;
    int open = 0;
    push_text(l, block ? CHAT_TOKEN_BLOCK : CHAT_TOKEN_PRINT, "", 0);
    while (!l->run->failed) {
        skip_space(l);
        if (l->at >= l->length) {
            chat_fail(l->run, line, SM_FORMAT, "a tag that is not closed by \"%s\"", end);
            return;
        }
        if (open == 0 && take_end(l, end, block)) {
            push_text(l, block ? CHAT_TOKEN_BLOCK_END : CHAT_TOKEN_PRINT_END, "", 0);
            return;
        }
        char c = l->source[l->at];
        if (isdigit((unsigned char)c)) {
            number(l);
        } else if (isalpha((unsigned char)c) || c == '_') {
            size_t start = l->at;
            while (l->at < l->length && (isalnum((unsigned char)l->source[l->at]) || l->source[l->at] == '_')) {
                l->at++;
            }
            push_text(l, CHAT_TOKEN_NAME, l->source + start, l->at - start);
        } else if (c == '\'' || c == '"') {
            string_literal(l);
        } else {
            open += c == '(' || c == '[' || c == '{';
            open -= c == ')' || c == ']' || c == '}';
            operator(l);
        }
    }
}

static void comment(lexer *l)
{
    int line = l->line;
    while (l->at < l->length) {
        if (take_end(l, "#}", true)) {
            return;
        }
        advance(l, 1);
    }
    chat_fail(l->run, line, SM_FORMAT, "a comment that is not closed by \"#}\"");
}

/* --- between tags --- */

/* Data before a tag that begins at `end`, less the white space that the tag takes. */
static void data(lexer *l, size_t end)
{
    chat_string text = {l->source + l->at, NULL, end - l->at};
    char sign = end + 2 < l->length ? l->source[end + 2] : '\0';
    bool print = end < l->length && l->source[end + 1] == '{';
    if (end < l->length && sign == '-') {
        text = chat_strip(text, NULL, false, true);
    } else if (end < l->length && sign != '+' && !print) {
        const char *newline = memrchr(text.bytes, '\n', text.length);
        size_t from = newline ? (size_t)(newline + 1 - text.bytes) : 0;
        if ((newline || l->line_starting) &&
            !chat_strip(chat_part(text, from, text.length), NULL, true, false).length) {
            text.length = from;
        }
    }
    if (text.length) {
        push_text(l, CHAT_TOKEN_DATA, text.bytes, text.length);
    }
    advance(l, end - l->at);
}

static size_t next_tag(const lexer *l)
{
    for (size_t i = l->at; i + 1 < l->length; i++) {
        if (l->source[i] == '{' && l->source[i + 1] && strchr("%{#", l->source[i + 1])) {
            return i;
        }
    }
    return l->length;
}

/* Newlines of every kind become \n, and one at the very end goes. */
static char *with_plain_newlines(chat_run *run, const char *source, size_t *length)
{
    char *text = chat_alloc(run, *length + 1);
    size_t count = 0;
    for (size_t i = 0; text && i < *length; i++) {
        if (source[i] == '\r') {
            text[count++] = '\n';
            i += i + 1 < *length && source[i + 1] == '\n';
        } else {
            text[count++] = source[i];
        }
    }
    *length = count - (count && text[count - 1] == '\n');
    return text;
}

void chat_lex(chat_run *run, const char *source, size_t length, chat_tokens *tokens)
{
    char *text = with_plain_newlines(run, source, &length);
    lexer l = {run, text, length, 0, 1, true, tokens};
    while (!run->failed && l.at < l.length) {
        size_t begin = next_tag(&l);
        data(&l, begin);
        if (begin == l.length) {
            break;
        }
        char kind = l.source[begin + 1];
        l.at += 2;
        if (l.at < l.length && (l.source[l.at] == '-' || l.source[l.at] == '+')) {
            l.at++;
        }
        if (kind == '#') {
            comment(&l);
        } else {
            tag(&l, kind == '%' ? "%}" : "}}", kind == '%');
        }
    }
    push_text(&l, CHAT_TOKEN_END, "", 0);
}
