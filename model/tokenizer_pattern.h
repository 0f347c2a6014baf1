/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The patterns of a tokenizer.json: literal strings, and regular expressions.
 *
 * The expressions are written for Oniguruma (Ruby's syntax, Unicode 16) and run by PCRE2. What both mean alike is
 * passed on; what they mean differently (\s, and every property that newer Unicode versions extended) is spelled out;
 * what would silently change its meaning is refused.
 */
#ifndef MODEL_TOKENIZER_PATTERN_H
#define MODEL_TOKENIZER_PATTERN_H

#include <stdbool.h>

#include "model/error.h"
#include "model/text.h"

typedef struct sm_pattern sm_pattern;

/* A part of a text: a match, or what lies between two matches. Together they cover the text, in order. */
typedef struct sm_span {
    size_t start, end;
    bool match;
} sm_span;

typedef struct sm_spans {
    sm_span *items;
    size_t count, capacity;
} sm_spans;

int sm_spans_push(sm_spans *spans, size_t start, size_t end, bool match);

/* Compiles `source` (UTF-8). A pattern does not change after this; threads share it. NULL on failure. */
sm_pattern *sm_pattern_literal(const char *source, size_t length, sm_error *error);
sm_pattern *sm_pattern_regex(const char *source, size_t length, sm_error *error);
void sm_pattern_free(sm_pattern *pattern);
bool sm_pattern_is_literal(const sm_pattern *pattern, const char **text, size_t *length);

/* Replaces the contents of `spans` by the matches in `text` (valid UTF-8) and what lies between. Matches go from left
 * to right without overlap; an empty match counts unless it touches the match before it, as in the onig crate. */
int sm_pattern_find(const sm_pattern *pattern, const char *text, size_t length, sm_spans *spans, sm_error *error);

/* Oniguruma to PCRE2, appended to `out`. */
int sm_regex_translate(const char *source, size_t length, sm_text *out, sm_error *error);

#endif
