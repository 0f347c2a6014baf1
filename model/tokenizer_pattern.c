/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "model/tokenizer_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "model/utf8.h"

struct sm_pattern {
    char *literal; /* or NULL for an expression */
    size_t length;
    pcre2_code *code;
};

int sm_spans_push(sm_spans *spans, size_t start, size_t end, bool match)
{
    if (spans->count == spans->capacity) {
        size_t capacity = spans->capacity ? spans->capacity * 2 : 64;
        sm_span *items = realloc(spans->items, capacity * sizeof *items);
        if (!items) {
            return -1;
        }
        spans->items = items;
        spans->capacity = capacity;
    }
    spans->items[spans->count++] = (sm_span){start, end, match};
    return 0;
}

sm_pattern *sm_pattern_literal(const char *source, size_t length, sm_error *error)
{
    if (!length) {
        sm_fail(error, SM_UNSUPPORTED, "an empty pattern is not supported");
        return NULL;
    }
    sm_pattern *pattern = calloc(1, sizeof *pattern);
    if (pattern && (pattern->literal = malloc(length))) {
        memcpy(pattern->literal, source, length);
        pattern->length = length;
        return pattern;
    }
    free(pattern);
    sm_fail(error, SM_NO_MEMORY, "out of memory");
    return NULL;
}

sm_pattern *sm_pattern_regex(const char *source, size_t length, sm_error *error)
{
    if (!length || length > 64 * 1024) {
        sm_fail(error, SM_UNSUPPORTED, "a regular expression of %zu bytes is not supported", length);
        return NULL;
    }
    sm_text text = {0};
    sm_pattern *pattern = NULL;
    pcre2_compile_context *context = NULL;
    if (sm_regex_translate(source, length, &text, error) != SM_OK) {
        goto done;
    }
    pattern = calloc(1, sizeof *pattern);
    context = pcre2_compile_context_create(NULL);
    if (!pattern || !context) {
        sm_fail(error, SM_NO_MEMORY, "out of memory");
        goto failed;
    }
    /* In Ruby's syntax ^ and $ are the borders of lines, which \n ends. */
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int number = 0;
    PCRE2_SIZE offset = 0;
    pattern->code =
        pcre2_compile((PCRE2_SPTR)text.bytes, text.length,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &number, &offset, context);
    if (!pattern->code) {
        char why[256] = "";
        pcre2_get_error_message(number, (PCRE2_UCHAR *)why, sizeof why);
        sm_fail(error, SM_FORMAT, "regular expression \"%.200s\": %s", source, why);
        goto failed;
    }
    /* Without a just-in-time compiler matching is slower, and the same. */
    (void)pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE);
    goto done;
failed:
    sm_pattern_free(pattern);
    pattern = NULL;
done:
    pcre2_compile_context_free(context);
    sm_text_free(&text);
    return pattern;
}

void sm_pattern_free(sm_pattern *pattern)
{
    if (pattern) {
        free(pattern->literal);
        pcre2_code_free(pattern->code);
        free(pattern);
    }
}

bool sm_pattern_is_literal(const sm_pattern *pattern, const char **text, size_t *length)
{
    *text = pattern->literal;
    *length = pattern->length;
    return pattern->literal != NULL;
}

static int cover(sm_spans *spans, size_t *covered, size_t start, size_t end, sm_error *error)
{
    if ((*covered != start && sm_spans_push(spans, *covered, start, false) < 0) ||
        sm_spans_push(spans, start, end, true) < 0) {
        return sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    *covered = end;
    return SM_OK;
}

static int find_literal(const sm_pattern *pattern, const char *text, size_t length, sm_spans *spans, size_t *covered,
                        sm_error *error)
{
    const char *at = text, *end = text + length;
    while ((at = memmem(at, (size_t)(end - at), pattern->literal, pattern->length))) {
        size_t start = (size_t)(at - text);
        int code = cover(spans, covered, start, start + pattern->length, error);
        if (code != SM_OK) {
            return code;
        }
        at += pattern->length;
    }
    return SM_OK;
}

static int find_regex(const sm_pattern *pattern, const char *text, size_t length, sm_spans *spans, size_t *covered,
                      sm_error *error)
{
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    if (!data) {
        return sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(data);
    size_t at = 0, last = SIZE_MAX;
    int code = SM_OK;
    while (code == SM_OK && at <= length) {
        int found = pcre2_match(pattern->code, (PCRE2_SPTR)text, length, at, PCRE2_NO_UTF_CHECK, data, NULL);
        if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
            found =
                pcre2_match(pattern->code, (PCRE2_SPTR)text, length, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, NULL);
        }
        if (found == PCRE2_ERROR_NOMATCH) {
            break;
        }
        if (found < 0) {
            char why[256] = "";
            pcre2_get_error_message(found, (PCRE2_UCHAR *)why, sizeof why);
            code = sm_fail(error, SM_UNSUPPORTED,
                           "the tokenizer's regular expression cannot be matched at byte %zu of a text: %s", at, why);
            break;
        }
        if (ends[0] == ends[1] && ends[1] == last) {
            at = ends[1] < length ? ends[1] + sm_utf8_size(text[ends[1]]) : length + 1;
            continue;
        }
        at = last = ends[1];
        code = cover(spans, covered, ends[0], ends[1], error);
    }
    pcre2_match_data_free(data);
    return code;
}

int sm_pattern_find(const sm_pattern *pattern, const char *text, size_t length, sm_spans *spans, sm_error *error)
{
    spans->count = 0;
    size_t covered = 0;
    if (length) {
        int code = pattern->literal ? find_literal(pattern, text, length, spans, &covered, error)
                                    : find_regex(pattern, text, length, spans, &covered, error);
        if (code != SM_OK) {
            return code;
        }
    }
    if ((covered != length || !length) && sm_spans_push(spans, covered, length, false) < 0) {
        return sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    return SM_OK;
}
