/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Pre-tokenizers: a text becomes words, each of which is encoded alone. Split, Digits, ByteLevel, Metaspace, and
 * sequences of them; every step works on each word of the step before.
 */
#include "model/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

enum split_kind { BY_PATTERN, BYTE_LEVEL, METASPACE };
enum behavior { ISOLATED, REMOVED, CONTIGUOUS, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT };
enum prepend { ALWAYS, FIRST, NEVER };

struct sm_split_step {
    enum split_kind kind;
    sm_pattern *pattern; /* NULL: no splitting */
    enum behavior behavior;
    bool invert;       /* what lies between matches counts as the match */
    bool prefix_space; /* BYTE_LEVEL */
    enum prepend prepend;
    sm_text mark; /* METASPACE: what stands for a space */
};

static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* --- the GPT-2 alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and on --- */

static bool is_printable(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

uint32_t sm_byte_to_char(unsigned char byte)
{
    if (is_printable(byte)) {
        return byte;
    }
    return byte <= 0x20 ? 0x100u + byte : byte <= 0xa0 ? 0x121u + byte - 0x7f : 0x143u;
}

int sm_char_to_byte(uint32_t c)
{
    if (c < 0x100) {
        return is_printable(c) ? (int)c : -1;
    }
    return c <= 0x120 ? (int)c - 0x100 : c <= 0x142 ? (int)c - 0x121 + 0x7f : c == 0x143 ? 0xad : -1;
}

/* --- reading --- */

static int parse_behavior(const json_t *value, enum behavior *out, sm_error *error)
{
    static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"};
    const char *name = sm_json_string(value, "behavior", "pre_tokenizer: Split", NULL, error);
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum behavior)i;
            return SM_OK;
        }
    }
    return name ? sm_fail(error, SM_FORMAT, "pre_tokenizer: Split: no behavior \"%.60s\"", name) : error->code;
}

static int parse_split(struct sm_split_step *step, const json_t *value, sm_error *error)
{
    const json_t *pattern = json_object_get(value, "pattern");
    const json_t *text = json_object_get(pattern, "String"), *regex = json_object_get(pattern, "Regex");
    step->kind = BY_PATTERN;
    if (json_is_string(text)) {
        step->pattern = sm_pattern_literal(json_string_value(text), json_string_length(text), error);
    } else if (json_is_string(regex)) {
        step->pattern = sm_pattern_regex(json_string_value(regex), json_string_length(regex), error);
    } else {
        return sm_fail(error, SM_FORMAT, "pre_tokenizer: Split: \"pattern\" must be {\"String\": …} or {\"Regex\": …}");
    }
    int code = step->pattern ? parse_behavior(value, &step->behavior, error) : error->code;
    return code != SM_OK ? code : sm_json_bool(value, "invert", "pre_tokenizer: Split", &step->invert, error);
}

static int parse_digits(struct sm_split_step *step, const json_t *value, sm_error *error)
{
    bool individual = false;
    int code = sm_json_bool_or(value, "individual_digits", "pre_tokenizer: Digits", &individual, error);
    step->kind = BY_PATTERN;
    step->behavior = individual ? ISOLATED : CONTIGUOUS;
    if (code == SM_OK) {
        step->pattern = sm_pattern_regex("\\p{N}", 5, error);
        code = step->pattern ? SM_OK : error->code;
    }
    return code;
}

static int parse_byte_level(struct sm_split_step *step, const json_t *value, sm_error *error)
{
    bool regex = true;
    step->kind = BYTE_LEVEL;
    int code = sm_json_bool(value, "add_prefix_space", "pre_tokenizer: ByteLevel", &step->prefix_space, error);
    code = code != SM_OK ? code : sm_json_bool_or(value, "use_regex", "pre_tokenizer: ByteLevel", &regex, error);
    if (code == SM_OK && regex) {
        step->pattern = sm_pattern_regex(gpt2, sizeof gpt2 - 1, error);
        code = step->pattern ? SM_OK : error->code;
    }
    return code;
}

/* The older spelling has add_prefix_space in place of prepend_scheme. */
static int parse_prepend(struct sm_split_step *step, const json_t *value, sm_error *error)
{
    static const char *const names[] = {"always", "first", "never"};
    const json_t *scheme = json_object_get(value, "prepend_scheme");
    bool prefix = true;
    step->prepend = ALWAYS;
    for (size_t i = 0; scheme; i++) {
        if (i == 3 || !json_is_string(scheme)) {
            return sm_fail(error, SM_FORMAT,
                           "pre_tokenizer: Metaspace: \"prepend_scheme\" must be \"always\", \"first\" or \"never\"");
        }
        if (strcmp(json_string_value(scheme), names[i]) == 0) {
            step->prepend = (enum prepend)i;
            break;
        }
    }
    int code = sm_json_bool_or(value, "add_prefix_space", "pre_tokenizer: Metaspace", &prefix, error);
    if (code == SM_OK && !prefix) {
        if (scheme && step->prepend != NEVER) {
            return sm_fail(error, SM_FORMAT,
                           "pre_tokenizer: Metaspace: \"add_prefix_space\" contradicts \"prepend_scheme\"");
        }
        step->prepend = NEVER;
    }
    return code;
}

static int parse_metaspace(struct sm_split_step *step, const json_t *value, sm_error *error)
{
    bool split = true;
    size_t length;
    step->kind = METASPACE;
    step->behavior = MERGED_WITH_NEXT;
    const char *mark = sm_json_string(value, "replacement", "pre_tokenizer: Metaspace", &length, error);
    if (!mark) {
        return error->code;
    }
    if (!length || sm_utf8_size(*mark) != length) {
        return sm_fail(error, SM_FORMAT, "pre_tokenizer: Metaspace: \"replacement\" must be one character");
    }
    if (sm_text_append(&step->mark, mark, length) < 0) {
        return sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    int code = parse_prepend(step, value, error);
    code = code != SM_OK ? code : sm_json_bool_or(value, "split", "pre_tokenizer: Metaspace", &split, error);
    if (code == SM_OK && split) {
        step->pattern = sm_pattern_literal(mark, length, error);
        code = step->pattern ? SM_OK : error->code;
    }
    return code;
}

static int parse_step(sm_splitter *splitter, const json_t *value, int depth, sm_error *error)
{
    const char *type = sm_json_type(value, "pre_tokenizer", error);
    if (!type) {
        return error->code;
    }
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(value, "pretokenizers");
        if (!json_is_array(list) || depth == SM_MAX_NESTING) {
            return sm_fail(error, SM_FORMAT,
                           "pre_tokenizer: Sequence: \"pretokenizers\" must be a list, nested at most %d deep",
                           SM_MAX_NESTING);
        }
        int code = SM_OK;
        for (size_t i = 0; code == SM_OK && i < json_array_size(list); i++) {
            code = parse_step(splitter, json_array_get(list, i), depth + 1, error);
        }
        return code;
    }
    if (splitter->count == SM_MAX_STEPS) {
        return sm_fail(error, SM_UNSUPPORTED, "pre_tokenizer: more than %d steps are not supported", SM_MAX_STEPS);
    }
    struct sm_split_step *step = &splitter->steps[splitter->count++];
    if (strcmp(type, "Split") == 0) {
        return parse_split(step, value, error);
    }
    if (strcmp(type, "Digits") == 0) {
        return parse_digits(step, value, error);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        return parse_byte_level(step, value, error);
    }
    if (strcmp(type, "Metaspace") == 0) {
        return parse_metaspace(step, value, error);
    }
    return sm_fail(
        error, SM_UNSUPPORTED,
        "pre_tokenizer: type \"%.60s\" is not supported; ByteLevel, Split, Digits, Metaspace and Sequence are", type);
}

int sm_splitter_parse(sm_splitter *splitter, const json_t *value, sm_error *error)
{
    if (!value || json_is_null(value)) {
        return SM_OK;
    }
    splitter->steps = calloc(SM_MAX_STEPS, sizeof *splitter->steps);
    return splitter->steps ? parse_step(splitter, value, 0, error) : sm_fail(error, SM_NO_MEMORY, "out of memory");
}

void sm_splitter_free(sm_splitter *splitter)
{
    for (size_t i = 0; i < splitter->count; i++) {
        sm_pattern_free(splitter->steps[i].pattern);
        sm_text_free(&splitter->steps[i].mark);
    }
    free(splitter->steps);
    *splitter = (sm_splitter){0};
}

/* --- splitting --- */

static int push_word(sm_words *words, bool at_start)
{
    if (words->count == words->capacity) {
        size_t capacity = words->capacity ? words->capacity * 2 : 64;
        sm_word *items = realloc(words->items, capacity * sizeof *items);
        if (!items) {
            return -1;
        }
        words->items = items;
        words->capacity = capacity;
    }
    words->items[words->count++] = (sm_word){words->text.length, at_start};
    return 0;
}

/* Joins matches to their neighbours as the behavior says, in place. Afterwards `match` marks what is left out. */
static void apply_behavior(enum behavior behavior, sm_spans *spans)
{
    size_t kept = 0;
    bool previous = false;
    sm_span *items = spans->items;
    switch (behavior) {
    case REMOVED:
        return;
    case ISOLATED:
        kept = spans->count;
        break;
    case CONTIGUOUS:
    case MERGED_WITH_PREVIOUS:
        for (size_t i = 0; i < spans->count; i++) {
            sm_span span = items[i];
            bool join = behavior == CONTIGUOUS ? span.match == previous : span.match && !previous;
            if (join && kept) {
                items[kept - 1].end = span.end;
            } else {
                items[kept++] = span;
            }
            previous = span.match;
        }
        break;
    case MERGED_WITH_NEXT:
        /* The same from the right; the result gathers at the end of the list. */
        for (size_t i = spans->count; i-- > 0;) {
            sm_span span = items[i];
            if (span.match && !previous && kept) {
                items[spans->count - kept].start = span.start;
            } else {
                items[spans->count - ++kept] = span;
            }
            previous = span.match;
        }
        memmove(items, items + spans->count - kept, kept * sizeof *items);
        break;
    }
    spans->count = kept;
    for (size_t i = 0; i < kept; i++) {
        items[i].match = false;
    }
}

/* Appends text to the words, in the step's alphabet. */
static int put(const struct sm_split_step *step, sm_words *out, const char *text, size_t length)
{
    if (step->kind != BYTE_LEVEL) {
        return sm_text_append(&out->text, text, length);
    }
    if (sm_text_reserve(&out->text, 2 * length) < 0) {
        return -1;
    }
    for (size_t i = 0; i < length; i++) {
        uint32_t c = sm_byte_to_char((unsigned char)text[i]);
        out->text.length += sm_utf8_encode(c, out->text.bytes + out->text.length);
    }
    return 0;
}

static int split_word(const struct sm_split_step *step, const char *text, size_t length, bool at_start, sm_spans *spans,
                      sm_words *out, sm_error *error)
{
    if (!step->pattern) {
        spans->count = 0;
        if (sm_spans_push(spans, 0, length, false) < 0) {
            return sm_fail(error, SM_NO_MEMORY, "out of memory");
        }
    } else {
        int code = sm_pattern_find(step->pattern, text, length, spans, error);
        if (code != SM_OK) {
            return code;
        }
        for (size_t i = 0; i < spans->count; i++) {
            spans->items[i].match ^= step->invert;
        }
        apply_behavior(step->behavior, spans);
    }
    for (size_t i = 0; i < spans->count; i++) {
        const sm_span *span = &spans->items[i];
        if (!span->match && span->end > span->start &&
            (put(step, out, text + span->start, span->end - span->start) < 0 ||
             push_word(out, at_start && span->start == 0) < 0)) {
            return sm_fail(error, SM_NO_MEMORY, "out of memory");
        }
    }
    return SM_OK;
}

/* What a step puts in front of a word or changes in it before it splits. */
static int prepare(const struct sm_split_step *step, const char *word, size_t length, bool at_start, sm_text *out)
{
    out->length = 0;
    if (step->kind == BYTE_LEVEL) {
        if (step->prefix_space && *word != ' ' && sm_text_append(out, " ", 1) < 0) {
            return -1;
        }
        return sm_text_append(out, word, length);
    }
    const sm_text *mark = &step->mark;
    bool marked = *word == ' ' || (length >= mark->length && memcmp(word, mark->bytes, mark->length) == 0);
    if (!marked && (step->prepend == ALWAYS || (step->prepend == FIRST && at_start)) &&
        sm_text_append(out, mark->bytes, mark->length) < 0) {
        return -1;
    }
    for (size_t at = 0; at < length;) {
        const char *space = memchr(word + at, ' ', length - at);
        size_t size = (space ? (size_t)(space - word) : length) - at;
        if (sm_text_append(out, word + at, size) < 0 || (space && sm_text_append(out, mark->bytes, mark->length) < 0)) {
            return -1;
        }
        at += size + (space != NULL);
    }
    return 0;
}

int sm_split(const sm_splitter *splitter, const char *text, size_t length, bool at_start, sm_split_work *work,
             sm_error *error)
{
    sm_words *words = &work->words, *other = &work->other;
    words->text.length = words->count = 0;
    if (length && (sm_text_append(&words->text, text, length) < 0 || push_word(words, at_start) < 0)) {
        return sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    for (size_t i = 0; i < splitter->count; i++) {
        const struct sm_split_step *step = &splitter->steps[i];
        other->text.length = other->count = 0;
        size_t begin = 0;
        for (size_t w = 0; w < words->count; w++) {
            const char *word = words->text.bytes + begin;
            size_t size = words->items[w].end - begin;
            bool start = words->items[w].at_start;
            begin = words->items[w].end;
            if (step->kind != BY_PATTERN) {
                if (prepare(step, word, size, start, &work->text) < 0) {
                    return sm_fail(error, SM_NO_MEMORY, "out of memory");
                }
                word = work->text.bytes;
                size = work->text.length;
            }
            int code = split_word(step, word, size, start, &work->spans, other, error);
            if (code != SM_OK) {
                return code;
            }
        }
        sm_words swap = *words;
        *words = *other;
        *other = swap;
    }
    return SM_OK;
}

void sm_split_work_free(sm_split_work *work)
{
    sm_text_free(&work->words.text);
    sm_text_free(&work->other.text);
    sm_text_free(&work->text);
    free(work->words.items);
    free(work->other.items);
    free(work->spans.items);
    *work = (sm_split_work){0};
}
