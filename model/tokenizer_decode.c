/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * From ids to text. A decoder is a chain of steps; tokens enter at one end as they arrive, text leaves at the other.
 * Each step holds back what later tokens may still change, and no more. Decoding a finished list is the same chain.
 *
 * A step sees a list of tokens, until a step before it has fused them (Fuse, ByteLevel): then it sees one token, in
 * fragments.
 */
#include <config.h>

#include "model/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

enum decode_kind { JOIN_BY_SPACE, BYTE_LEVEL, METASPACE, REPLACE, BYTE_FALLBACK, FUSE, STRIP };

struct sm_decode_step {
    enum decode_kind kind;
    bool fused;          /* what comes in are fragments of one token */
    sm_pattern *pattern; /* REPLACE */
    sm_text text;        /* REPLACE: the replacement; METASPACE: the mark; STRIP: the character */
    bool keep_first;     /* METASPACE: marks in the first token are spaces as well */
    uint32_t start, stop;
};

/* What a step remembers between tokens. */
typedef struct step_state {
    bool started;          /* a token has come */
    sm_utf8_mender mender; /* BYTE_LEVEL */
    sm_text held;          /* BYTE_FALLBACK: bytes; REPLACE: what may begin a match */
    uint32_t stripped;     /* STRIP: characters taken from the start */
    bool start_done;
    uint32_t waiting; /* STRIP: characters that may be the last */
} step_state;

struct sm_decoder {
    const sm_tokenizer *tokenizer;
    bool skip_special;
    step_state *states;
};

/* --- reading --- */

static int set_text(struct sm_decode_step *step, const json_t *value, const char *key, bool character, sm_error *error)
{
    size_t length;
    const char *text = sm_json_string(value, key, "decoder", &length, error);
    if (!text) {
        return error->code;
    }
    if (character && (!length || sm_utf8_size(*text) != length)) {
        return sm_fail(error, SM_FORMAT, "decoder: \"%s\" must be one character", key);
    }
    return sm_text_append(&step->text, text, length) < 0 ? sm_fail(error, SM_NO_MEMORY, "out of memory") : SM_OK;
}

static int parse_replace(struct sm_decode_step *step, const json_t *value, sm_error *error)
{
    const json_t *pattern = json_object_get(value, "pattern");
    const json_t *text = json_object_get(pattern, "String"), *regex = json_object_get(pattern, "Regex");
    if (json_is_string(text)) {
        step->pattern = sm_pattern_literal(json_string_value(text), json_string_length(text), error);
    } else if (!json_is_string(regex)) {
        return sm_fail(error, SM_FORMAT, "decoder: Replace: \"pattern\" must be {\"String\": …} or {\"Regex\": …}");
    } else if (step->fused) {
        return sm_fail(error, SM_UNSUPPORTED, "decoder: Replace: a regular expression after Fuse is not supported");
    } else {
        step->pattern = sm_pattern_regex(json_string_value(regex), json_string_length(regex), error);
    }
    return step->pattern ? set_text(step, value, "content", false, error) : error->code;
}

static int parse_metaspace(struct sm_decode_step *step, const json_t *value, sm_error *error)
{
    bool prefix = true;
    const json_t *scheme = json_object_get(value, "prepend_scheme");
    int code = set_text(step, value, "replacement", true, error);
    code = code != SM_OK ? code : sm_json_bool_or(value, "add_prefix_space", "decoder: Metaspace", &prefix, error);
    step->keep_first = !prefix || (json_is_string(scheme) && strcmp(json_string_value(scheme), "never") == 0);
    return code;
}

static int parse_strip(struct sm_decode_step *step, const json_t *value, sm_error *error)
{
    uint64_t start, stop;
    int code = set_text(step, value, "content", true, error);
    code = code != SM_OK ? code : sm_json_number(value, "start", "decoder: Strip", 1 << 20, &start, error);
    code = code != SM_OK ? code : sm_json_number(value, "stop", "decoder: Strip", 1 << 20, &stop, error);
    if (code == SM_OK) {
        step->start = (uint32_t)start;
        step->stop = (uint32_t)stop;
    }
    return code;
}

static int parse_step(sm_unsplitter *unsplitter, const json_t *value, int depth, bool *fused, sm_error *error)
{
    static const char *const names[] = {
        [BYTE_LEVEL] = "ByteLevel",       [METASPACE] = "Metaspace", [REPLACE] = "Replace",
        [BYTE_FALLBACK] = "ByteFallback", [FUSE] = "Fuse",           [STRIP] = "Strip",
    };
    const char *type = sm_json_type(value, "decoder", error);
    if (!type) {
        return error->code;
    }
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(value, "decoders");
        if (!json_is_array(list) || depth == SM_MAX_NESTING) {
            return sm_fail(error, SM_FORMAT, "decoder: Sequence: \"decoders\" must be a list, nested at most %d deep",
                           SM_MAX_NESTING);
        }
        int code = SM_OK;
        for (size_t i = 0; code == SM_OK && i < json_array_size(list); i++) {
            code = parse_step(unsplitter, json_array_get(list, i), depth + 1, fused, error);
        }
        return code;
    }
    if (unsplitter->count == SM_MAX_STEPS) {
        return sm_fail(error, SM_UNSUPPORTED, "decoder: more than %d steps are not supported", SM_MAX_STEPS);
    }
    struct sm_decode_step *step = &unsplitter->steps[unsplitter->count++];
    size_t kind = BYTE_LEVEL;
    while (kind <= STRIP && strcmp(type, names[kind]) != 0) {
        kind++;
    }
    if (kind > STRIP) {
        unsplitter->count--;
        return sm_fail(error, SM_UNSUPPORTED,
                       "decoder: type \"%.60s\" is not supported; ByteLevel, Metaspace, Replace, ByteFallback, Fuse, "
                       "Strip and Sequence are",
                       type);
    }
    step->kind = (enum decode_kind)kind;
    step->fused = *fused;
    switch (step->kind) {
    case BYTE_LEVEL:
    case BYTE_FALLBACK:
        if (step->fused) {
            return sm_fail(error, SM_UNSUPPORTED, "decoder: %s after Fuse is not supported", type);
        }
        *fused = step->kind == BYTE_LEVEL;
        return SM_OK;
    case METASPACE:
        return parse_metaspace(step, value, error);
    case REPLACE:
        return parse_replace(step, value, error);
    case STRIP:
        return parse_strip(step, value, error);
    default:
        *fused = true;
        return SM_OK;
    }
}

int sm_unsplitter_parse(sm_unsplitter *unsplitter, const json_t *value, sm_error *error)
{
    unsplitter->steps = calloc(SM_MAX_STEPS, sizeof *unsplitter->steps);
    if (!unsplitter->steps) {
        return sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    if (!value || json_is_null(value)) {
        unsplitter->steps[unsplitter->count++].kind = JOIN_BY_SPACE;
        return SM_OK;
    }
    bool fused = false;
    return parse_step(unsplitter, value, 0, &fused, error);
}

void sm_unsplitter_free(sm_unsplitter *unsplitter)
{
    for (size_t i = 0; i < unsplitter->count; i++) {
        sm_pattern_free(unsplitter->steps[i].pattern);
        sm_text_free(&unsplitter->steps[i].text);
    }
    free(unsplitter->steps);
    *unsplitter = (sm_unsplitter){0};
}

/* --- the chain --- */

static int enter(sm_decoder *decoder, size_t at, const char *token, size_t length, sm_text *out);

/* A token whose characters are all of the GPT-2 alphabet stands for their bytes; any other (an added token with a
 * blank, say) for itself. */
static int byte_level(sm_decoder *decoder, size_t at, const char *token, size_t length, sm_text *out)
{
    step_state *state = &decoder->states[at];
    sm_text *bytes = &state->held, mended = {0};
    size_t size;
    bytes->length = 0;
    if (sm_text_reserve(bytes, length) < 0) {
        return -1;
    }
    for (size_t i = 0; i < length; i += size) {
        int byte = sm_char_to_byte(sm_utf8_decode(token + i, &size));
        if (byte < 0) {
            memcpy(bytes->bytes, token, length);
            bytes->length = length;
            break;
        }
        bytes->bytes[bytes->length++] = (char)byte;
    }
    if (at + 1 == decoder->tokenizer->unsplitter.count) {
        return sm_utf8_mend(&state->mender, bytes->bytes, bytes->length, out);
    }
    int code = sm_utf8_mend(&state->mender, bytes->bytes, bytes->length, &mended);
    code = code ? code : enter(decoder, at + 1, mended.bytes, mended.length, out);
    sm_text_free(&mended);
    return code;
}

static int metaspace(sm_decoder *decoder, size_t at, const char *token, size_t length, sm_text *out)
{
    const struct sm_decode_step *step = &decoder->tokenizer->unsplitter.steps[at];
    bool drop = !step->keep_first && (step->fused || !decoder->states[at].started);
    sm_text text = {0};
    int code = 0;
    for (size_t i = 0; code == 0 && i < length;) {
        const char *mark = memmem(token + i, length - i, step->text.bytes, step->text.length);
        size_t end = mark ? (size_t)(mark - token) : length;
        code = sm_text_append(&text, token + i, end - i);
        if (code == 0 && mark && !drop) {
            code = sm_text_append(&text, " ", 1);
        }
        i = end + (mark ? step->text.length : 0);
    }
    code = code ? code : enter(decoder, at + 1, text.bytes, text.length, out);
    sm_text_free(&text);
    return code;
}

/* Longest end of `text` that begins `pattern` without being all of it. */
static size_t overlap(const char *text, size_t length, const char *pattern, size_t size)
{
    size_t most = length < size - 1 ? length : size - 1;
    while (most && memcmp(text + length - most, pattern, most) != 0) {
        most--;
    }
    return most;
}

static int replace(sm_decoder *decoder, size_t at, const char *token, size_t length, bool end, sm_text *out)
{
    const struct sm_decode_step *step = &decoder->tokenizer->unsplitter.steps[at];
    sm_text *held = &decoder->states[at].held, text = {0};
    sm_spans spans = {0};
    if (sm_text_append(held, token, length) < 0 ||
        sm_pattern_find(step->pattern, held->bytes, held->length, &spans, NULL) != SM_OK) {
        free(spans.items);
        return -1;
    }
    size_t keep = 0;
    int code = 0;
    for (size_t i = 0; code == 0 && i < spans.count; i++) {
        const sm_span *span = &spans.items[i];
        size_t size = span->end - span->start;
        if (span->match) {
            code = sm_text_append(&text, step->text.bytes, step->text.length);
            continue;
        }
        const char *pattern;
        size_t pattern_length;
        if (step->fused && !end && i + 1 == spans.count &&
            sm_pattern_is_literal(step->pattern, &pattern, &pattern_length)) {
            keep = overlap(held->bytes + span->start, size, pattern, pattern_length);
        }
        code = sm_text_append(&text, held->bytes + span->start, size - keep);
    }
    if (code == 0) {
        memmove(held->bytes, held->bytes + held->length - keep, keep);
        held->length = keep;
        code = enter(decoder, at + 1, text.bytes, text.length, out);
    }
    free(spans.items);
    sm_text_free(&text);
    return code;
}

/* A run of byte tokens becomes their text, or, if that is no UTF-8, one U+FFFD each. */
static int release_bytes(sm_decoder *decoder, size_t at, sm_text *out)
{
    sm_text run = decoder->states[at].held;
    int code = 0;
    decoder->states[at].held = (sm_text){0};
    if (run.length && sm_utf8_valid(run.bytes, run.length) == run.length) {
        code = enter(decoder, at + 1, run.bytes, run.length, out);
    } else {
        for (size_t i = 0; code == 0 && i < run.length; i++) {
            code = enter(decoder, at + 1, "\xef\xbf\xbd", 3, out);
        }
    }
    sm_text_free(&run);
    return code;
}

static int byte_fallback(sm_decoder *decoder, size_t at, const char *token, size_t length, sm_text *out)
{
    static const char hex[] = "0123456789ABCDEFabcdef";
    const char *high, *low;
    if (length == 6 && memcmp(token, "<0x", 3) == 0 && token[5] == '>' && token[3] && token[4] &&
        (high = strchr(hex, token[3])) && (low = strchr(hex, token[4]))) {
        long h = high - hex, l = low - hex;
        char byte = (char)((h > 15 ? h - 6 : h) << 4 | (l > 15 ? l - 6 : l));
        return sm_text_append(&decoder->states[at].held, &byte, 1);
    }
    int code = release_bytes(decoder, at, out);
    return code ? code : enter(decoder, at + 1, token, length, out);
}

/* The last `stop` characters, when they are the step's, are known only at the end; so they wait. */
static int strip(sm_decoder *decoder, size_t at, const char *token, size_t length, sm_text *out)
{
    const struct sm_decode_step *step = &decoder->tokenizer->unsplitter.steps[at];
    step_state *state = &decoder->states[at];
    sm_text text = {0};
    int code = 0;
    if (!step->fused) {
        state->stripped = state->waiting = 0;
        state->start_done = false;
    }
    for (size_t i = 0, size; code == 0 && i < length; i += size) {
        size = sm_utf8_size(token[i]);
        bool ours = size == step->text.length && memcmp(token + i, step->text.bytes, size) == 0;
        if (!state->start_done && ours && state->stripped < step->start) {
            state->stripped++;
            continue;
        }
        state->start_done = true;
        if (ours && state->waiting < step->stop) {
            state->waiting++;
        } else if (ours) {
            code = sm_text_append(&text, token + i, size);
        } else {
            for (; code == 0 && state->waiting; state->waiting--) {
                code = sm_text_append(&text, step->text.bytes, step->text.length);
            }
            code = code ? code : sm_text_append(&text, token + i, size);
        }
    }
    code = code ? code : enter(decoder, at + 1, text.bytes, text.length, out);
    sm_text_free(&text);
    return code;
}

static int join_by_space(sm_decoder *decoder, size_t at, const char *token, size_t length, sm_text *out)
{
    if (decoder->states[at].started && sm_text_append(out, " ", 1) < 0) {
        return -1;
    }
    return sm_text_append(out, token, length);
}

static int enter(sm_decoder *decoder, size_t at, const char *token, size_t length, sm_text *out)
{
    if (at == decoder->tokenizer->unsplitter.count) {
        return sm_text_append(out, token, length);
    }
    int code;
    switch (decoder->tokenizer->unsplitter.steps[at].kind) {
    case BYTE_LEVEL:
        return byte_level(decoder, at, token, length, out);
    case METASPACE:
        code = metaspace(decoder, at, token, length, out);
        decoder->states[at].started = true;
        return code;
    case REPLACE:
        return replace(decoder, at, token, length, false, out);
    case BYTE_FALLBACK:
        return byte_fallback(decoder, at, token, length, out);
    case STRIP:
        return strip(decoder, at, token, length, out);
    case JOIN_BY_SPACE:
        code = join_by_space(decoder, at, token, length, out);
        decoder->states[at].started = true;
        return code;
    default:
        return enter(decoder, at + 1, token, length, out);
    }
}

/* --- the decoder --- */

sm_decoder *sm_decoder_new(const sm_tokenizer *tokenizer, bool skip_special)
{
    sm_decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder) {
        return NULL;
    }
    decoder->tokenizer = tokenizer;
    decoder->skip_special = skip_special;
    decoder->states = calloc(tokenizer->unsplitter.count + 1, sizeof *decoder->states);
    if (!decoder->states) {
        free(decoder);
        return NULL;
    }
    return decoder;
}

int sm_decoder_feed(sm_decoder *decoder, uint32_t id, sm_text *out, sm_error *error)
{
    size_t length;
    const char *text = sm_token_for_decoder(decoder->tokenizer, id, &length);
    if (!text || (decoder->skip_special && sm_bit(decoder->tokenizer->skipped, id))) {
        return SM_OK;
    }
    return enter(decoder, 0, text, length, out) < 0 ? sm_fail(error, SM_NO_MEMORY, "out of memory") : SM_OK;
}

int sm_decoder_finish(sm_decoder *decoder, sm_text *out, sm_error *error)
{
    const sm_unsplitter *unsplitter = &decoder->tokenizer->unsplitter;
    int code = 0;
    for (size_t at = 0; code == 0 && at < unsplitter->count; at++) {
        step_state *state = &decoder->states[at];
        sm_text rest = {0};
        switch (unsplitter->steps[at].kind) {
        case BYTE_LEVEL:
            code = sm_utf8_mend_end(&state->mender, &rest);
            code = code ? code : enter(decoder, at + 1, rest.bytes, rest.length, out);
            break;
        case BYTE_FALLBACK:
            code = release_bytes(decoder, at, out);
            break;
        case REPLACE:
            if (state->held.length) {
                code = replace(decoder, at, "", 0, true, out);
            }
            break;
        default:
            break;
        }
        sm_text_free(&rest);
    }
    for (size_t at = 0; at < unsplitter->count; at++) {
        sm_text_free(&decoder->states[at].held);
        decoder->states[at] = (step_state){0};
    }
    return code < 0 ? sm_fail(error, SM_NO_MEMORY, "out of memory") : SM_OK;
}

void sm_decoder_free(sm_decoder *decoder)
{
    if (decoder) {
        for (size_t at = 0; at < decoder->tokenizer->unsplitter.count; at++) {
            sm_text_free(&decoder->states[at].held);
        }
        free(decoder->states);
        free(decoder);
    }
}

int sm_decode(const sm_tokenizer *tokenizer, const uint32_t *ids, size_t count, bool skip_special, sm_text *out,
              sm_error *error)
{
    sm_decoder *decoder = sm_decoder_new(tokenizer, skip_special);
    if (!decoder) {
        return sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    int code = SM_OK;
    for (size_t i = 0; code == SM_OK && i < count; i++) {
        code = sm_decoder_feed(decoder, ids[i], out, error);
    }
    code = code != SM_OK ? code : sm_decoder_finish(decoder, out, error);
    sm_decoder_free(decoder);
    return code;
}
