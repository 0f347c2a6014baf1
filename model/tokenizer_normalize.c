/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Normalizers: NFC, Prepend, Replace, and sequences of them. A guard, where there is one, follows its text.
 */
#include "model/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum normal_kind { COMPOSE, PREPEND, REPLACE };

struct sm_normal_step {
    enum normal_kind kind;
    sm_pattern *pattern; /* REPLACE */
    sm_text text;        /* what is put in front, or in place */
};

static int parse_pattern(const json_t *value, const char *what, sm_pattern **out, sm_error *error)
{
    const json_t *pattern = json_object_get(value, "pattern");
    const json_t *text = json_object_get(pattern, "String"), *regex = json_object_get(pattern, "Regex");
    if (json_is_string(text)) {
        *out = sm_pattern_literal(json_string_value(text), json_string_length(text), error);
    } else if (json_is_string(regex)) {
        *out = sm_pattern_regex(json_string_value(regex), json_string_length(regex), error);
    } else {
        return sm_fail(error, SM_FORMAT, "%s: \"pattern\" must be {\"String\": …} or {\"Regex\": …}", what);
    }
    return *out ? SM_OK : error->code;
}

static int parse_step(sm_normalizer *normalizer, const json_t *value, int depth, sm_error *error)
{
    const char *type = sm_json_type(value, "normalizer", error);
    if (!type) {
        return error->code;
    }
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(value, "normalizers");
        if (!json_is_array(list) || depth == SM_MAX_NESTING) {
            return sm_fail(error, SM_FORMAT,
                           "normalizer: Sequence: \"normalizers\" must be a list, nested at most %d deep",
                           SM_MAX_NESTING);
        }
        int code = SM_OK;
        for (size_t i = 0; code == SM_OK && i < json_array_size(list); i++) {
            code = parse_step(normalizer, json_array_get(list, i), depth + 1, error);
        }
        return code;
    }
    if (normalizer->count == SM_MAX_STEPS) {
        return sm_fail(error, SM_UNSUPPORTED, "normalizer: more than %d steps are not supported", SM_MAX_STEPS);
    }
    struct sm_normal_step *step = &normalizer->steps[normalizer->count++];
    const char *key = NULL;
    int code = SM_OK;
    if (strcmp(type, "NFC") == 0) {
        step->kind = COMPOSE;
    } else if (strcmp(type, "Prepend") == 0) {
        step->kind = PREPEND;
        key = "prepend";
    } else if (strcmp(type, "Replace") == 0) {
        step->kind = REPLACE;
        key = "content";
        code = parse_pattern(value, "normalizer: Replace", &step->pattern, error);
    } else {
        code = sm_fail(error, SM_UNSUPPORTED,
                       "normalizer: type \"%.60s\" is not supported; NFC, Prepend, Replace and "
                       "Sequence are",
                       type);
    }
    if (code == SM_OK && key) {
        size_t length;
        const char *text = sm_json_string(value, key, "normalizer", &length, error);
        if (!text) {
            return error->code;
        }
        if (sm_text_append(&step->text, text, length) < 0) {
            return sm_fail(error, SM_NO_MEMORY, "out of memory");
        }
    }
    return code;
}

int sm_normalizer_parse(sm_normalizer *normalizer, const json_t *value, sm_error *error)
{
    if (!value || json_is_null(value)) {
        return SM_OK;
    }
    normalizer->steps = calloc(SM_MAX_STEPS, sizeof *normalizer->steps);
    return normalizer->steps ? parse_step(normalizer, value, 0, error) : sm_fail(error, SM_NO_MEMORY, "out of memory");
}

void sm_normalizer_free(sm_normalizer *normalizer)
{
    for (size_t i = 0; i < normalizer->count; i++) {
        sm_pattern_free(normalizer->steps[i].pattern);
        sm_text_free(&normalizer->steps[i].text);
    }
    free(normalizer->steps);
    *normalizer = (sm_normalizer){0};
}

/* Appends text and, when there is a guard, its guard. */
static int put(sm_normal *out, const char *text, size_t length, const uint8_t *guard)
{
    if (sm_text_append(&out->text, text, length) < 0) {
        return -1;
    }
    return guard ? sm_text_append(&out->guard, guard, length) : 0;
}

/* Appends text that is guarded, or not, as a whole. */
static int put_uniform(sm_normal *out, const char *text, size_t length, bool has_guard, bool guarded)
{
    if (sm_text_append(&out->text, text, length) < 0 || (has_guard && sm_text_reserve(&out->guard, length) < 0)) {
        return -1;
    }
    if (has_guard) {
        memset(out->guard.bytes + out->guard.length, guarded, length);
        out->guard.length += length;
    }
    return 0;
}

/* Canonical composition (UAX 15). Text below U+0300 is composed already. Where composing changed something, what lies
 * between the first and the last changed byte is guarded if any of it was. */
static int compose(const char *text, size_t length, const uint8_t *guard, sm_normal *out)
{
    size_t at = 0;
    while (at < length && (unsigned char)text[at] < 0xcc) {
        at++;
    }
    if (at == length) {
        return put(out, text, length, guard);
    }
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &composed,
                                         UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (size < 0) {
        return -1;
    }
    const char *result = (const char *)composed;
    size_t total = (size_t)size, head = 0, tail = 0, least = total < length ? total : length;
    while (head < least && text[head] == result[head]) {
        head++;
    }
    while (tail < least - head && text[length - 1 - tail] == result[total - 1 - tail]) {
        tail++;
    }
    bool guarded = guard && memchr(guard + head, 1, length - head - tail);
    int code = put(out, result, head, guard);
    code = code ? code : put_uniform(out, result + head, total - head - tail, guard, guarded);
    code = code ? code : put(out, result + total - tail, tail, guard ? guard + length - tail : NULL);
    free(composed);
    return code;
}

static int replace(const struct sm_normal_step *step, const char *text, size_t length, const uint8_t *guard,
                   sm_normal *out, sm_error *error)
{
    sm_spans spans = {0};
    int code = sm_pattern_find(step->pattern, text, length, &spans, error);
    for (size_t i = 0; code == SM_OK && i < spans.count; i++) {
        const sm_span *span = &spans.items[i];
        size_t size = span->end - span->start;
        int put_code;
        if (span->match) {
            bool guarded = guard && memchr(guard + span->start, 1, size);
            put_code = put_uniform(out, step->text.bytes, step->text.length, guard, guarded);
            out->lead_lost |= span->start == 0 && size && !step->text.length;
        } else {
            put_code = put(out, text + span->start, size, guard ? guard + span->start : NULL);
        }
        code = put_code < 0 ? sm_fail(error, SM_NO_MEMORY, "out of memory") : SM_OK;
    }
    free(spans.items);
    return code;
}

/* Does the text begin with a space, or with what stands for one? */
static bool begins_spaced(const struct sm_normal_step *step, const sm_text *text)
{
    return text->bytes[0] == ' ' ||
           (text->length >= step->text.length && memcmp(text->bytes, step->text.bytes, step->text.length) == 0);
}

int sm_normalize(const sm_normalizer *normalizer, const char *text, size_t length, const uint8_t *guard, bool continues,
                 sm_normal *out, sm_error *error)
{
    out->text.length = out->guard.length = 0;
    out->lead_lost = false;
    int code = put(out, text, length, guard) < 0 ? sm_fail(error, SM_NO_MEMORY, "out of memory") : SM_OK;
    for (size_t i = 0; code == SM_OK && i < normalizer->count; i++) {
        const struct sm_normal_step *step = &normalizer->steps[i];
        if (!out->text.length) {
            break;
        }
        sm_normal next = {.lead_lost = out->lead_lost};
        const uint8_t *before = guard ? (const uint8_t *)out->guard.bytes : NULL;
        int put_code = 0;
        switch (step->kind) {
        case COMPOSE:
            put_code = compose(out->text.bytes, out->text.length, before, &next);
            break;
        case PREPEND:
            if (!continues || !begins_spaced(step, &out->text)) {
                put_code = put_uniform(&next, step->text.bytes, step->text.length, guard, false);
            }
            put_code = put_code ? put_code : put(&next, out->text.bytes, out->text.length, before);
            break;
        case REPLACE:
            code = replace(step, out->text.bytes, out->text.length, before, &next, error);
            break;
        }
        if (put_code < 0) {
            code = sm_fail(error, SM_NO_MEMORY, "out of memory");
        }
        sm_normal_free(out);
        *out = next;
    }
    return code;
}

void sm_normal_free(sm_normal *normal)
{
    sm_text_free(&normal->text);
    sm_text_free(&normal->guard);
}
