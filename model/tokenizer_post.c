/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-processors: what is added before and after the tokens of one sequence. (Templates of pairs of sequences are for
 * classifiers and are not read.)
 */
#include "model/tokenizer_parts.h"

#include <string.h>

static int add_special(sm_tokens *out, const json_t *template, const json_t *piece, uint32_t size, sm_error *error)
{
    const char *name = sm_json_string(piece, "id", "post_processor: SpecialToken", NULL, error);
    if (!name) {
        return error->code;
    }
    const json_t *entry = json_object_get(json_object_get(template, "special_tokens"), name);
    const json_t *ids = json_object_get(entry, "ids");
    if (!json_is_array(ids) || json_array_size(ids) > 64) {
        return sm_fail(error, SM_FORMAT, "post_processor: special token \"%.60s\" needs a list of \"ids\"", name);
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= size) {
            return sm_fail(error, SM_FORMAT, "post_processor: special token \"%.60s\": its id is not below %u", name,
                           size);
        }
        if (sm_tokens_push(out, (uint32_t)json_integer_value(id)) < 0) {
            return sm_fail(error, SM_NO_MEMORY, "out of memory");
        }
    }
    return SM_OK;
}

/* Puts the template's pieces around what is there. */
static int parse_template(sm_frame *frame, const json_t *template, uint32_t size, sm_error *error)
{
    const json_t *single = json_object_get(template, "single");
    sm_tokens before = {0}, after = {0};
    bool seen = false;
    int code = SM_OK;
    if (!json_is_array(single) || json_array_size(single) > 64) {
        return sm_fail(error, SM_FORMAT, "post_processor: \"single\" must be a list of at most 64 pieces");
    }
    for (size_t i = 0; code == SM_OK && i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i);
        const json_t *token = json_object_get(piece, "SpecialToken"), *sequence = json_object_get(piece, "Sequence");
        const char *id = json_string_value(json_object_get(sequence, "id"));
        if (token) {
            code = add_special(seen ? &after : &before, template, token, size, error);
        } else if (id && strcmp(id, "A") == 0 && !seen) {
            seen = true;
        } else {
            code = sm_fail(error, SM_FORMAT,
                           "post_processor: piece %zu of \"single\" must be a SpecialToken, or the "
                           "Sequence A once",
                           i);
        }
    }
    if (code == SM_OK && !seen) {
        code = sm_fail(error, SM_FORMAT, "post_processor: \"single\" lacks the Sequence A");
    }
    if (code == SM_OK && (sm_tokens_append(&before, frame->before.ids, frame->before.count) < 0 ||
                          sm_tokens_append(&frame->after, after.ids, after.count) < 0)) {
        code = sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    if (code == SM_OK) {
        sm_tokens swap = frame->before;
        frame->before = before;
        before = swap;
        frame->templated = true;
    }
    sm_tokens_free(&before);
    sm_tokens_free(&after);
    return code;
}

static int parse(sm_frame *frame, const json_t *value, uint32_t size, int depth, sm_error *error)
{
    const char *type = sm_json_type(value, "post_processor", error);
    if (!type) {
        return error->code;
    }
    if (strcmp(type, "TemplateProcessing") == 0) {
        return parse_template(frame, value, size, error);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        return SM_OK; /* trims offsets, which nobody asks for here */
    }
    if (strcmp(type, "Sequence") != 0) {
        return sm_fail(
            error, SM_UNSUPPORTED,
            "post_processor: type \"%.60s\" is not supported; TemplateProcessing, ByteLevel and Sequence are", type);
    }
    const json_t *list = json_object_get(value, "processors");
    if (!json_is_array(list) || json_array_size(list) > SM_MAX_STEPS || depth == SM_MAX_NESTING) {
        return sm_fail(error, SM_FORMAT,
                       "post_processor: Sequence: \"processors\" must be a list of at most %d, nested "
                       "at most %d deep",
                       SM_MAX_STEPS, SM_MAX_NESTING);
    }
    int code = SM_OK;
    for (size_t i = 0; code == SM_OK && i < json_array_size(list); i++) {
        code = parse(frame, json_array_get(list, i), size, depth + 1, error);
        if (code == SM_OK && frame->before.count + frame->after.count > 1024) {
            code = sm_fail(error, SM_UNSUPPORTED, "post_processor: more than 1024 tokens around a text");
        }
    }
    return code;
}

int sm_frame_parse(sm_frame *frame, const json_t *value, uint32_t size, sm_error *error)
{
    return !value || json_is_null(value) ? SM_OK : parse(frame, value, size, 0, error);
}

void sm_frame_free(sm_frame *frame)
{
    sm_tokens_free(&frame->before);
    sm_tokens_free(&frame->after);
}
