/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/pack.h"

#include <stdlib.h>

#include <sluice/random.h>

/* In a row id, instead of a completion. */
#define PROMPT_ROWS UINT64_MAX
#define FILLING_ROW (UINT64_MAX - 1)

/* Makes room for `wanted` items in an array of *capacity; false when out of memory (the old array stays valid). */
static bool grow(void *array, size_t item, size_t wanted, size_t capacity)
{
    void **at = array;
    size_t bytes;
    if (wanted <= capacity)
        return true;
    if (__builtin_mul_overflow(wanted, item, &bytes))
        return false;
    void *larger = realloc(*at, bytes);
    if (!larger)
        return false;
    *at = larger;
    return true;
}

static size_t roomy(size_t wanted, size_t capacity)
{
    return wanted <= capacity ? capacity : wanted + wanted / 2 + 64;
}

static int reserve(sm_pack *p, size_t rows, size_t segments, size_t scored, sm_error *error)
{
    const size_t r = roomy(p->rows + rows, p->row_capacity), g = roomy(p->segments + segments, p->segment_capacity),
                 s = roomy(p->scored + scored, p->scored_capacity);
    if (!grow(&p->token, sizeof(*p->token), r, p->row_capacity) ||
        !grow(&p->position, sizeof(*p->position), r, p->row_capacity) ||
        !grow(&p->row_id, sizeof(*p->row_id), r, p->row_capacity) ||
        !grow(&p->segment, sizeof(*p->segment), g, p->segment_capacity) ||
        !grow(&p->scored_row, sizeof(*p->scored_row), s, p->scored_capacity) ||
        !grow(&p->target, sizeof(*p->target), s, p->scored_capacity))
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a batch of %zu tokens; use smaller batches",
                       p->rows + rows);
    p->row_capacity = r;
    p->segment_capacity = g;
    p->scored_capacity = s;
    return SM_OK;
}

static size_t completion_rows(const sluice_span *completion)
{
    return completion->count > 0 ? completion->count - 1 : 0;
}

size_t sm_pack_rows(const sluice_group *group, size_t begin, size_t end)
{
    size_t rows = group->prompt.count;
    for (size_t c = begin; c < end; c++)
        rows += completion_rows(&group->completions[c]);
    return rows;
}

size_t sm_pack_scored(const sluice_group *group, size_t completion)
{
    const size_t count = group->completions[completion].count;
    return group->prompt.count == 0 && count > 0 ? count - 1 : count;
}

/* What `count` lacks of a multiple. */
static size_t filling(const sm_pack *p, size_t count)
{
    return p->multiple > 1 ? (p->multiple - count % p->multiple) % p->multiple : 0;
}

size_t sm_pack_places(const sm_pack *pack, const sluice_group *group, size_t begin, size_t end)
{
    size_t places = pack->values ? end - begin : 0;
    for (size_t c = begin; c < end && !pack->values; c++)
        places += sm_pack_scored(group, c);
    return places + filling(pack, places);
}

static int check_span(const sluice_span *span, uint32_t vocab, sm_error *error)
{
    for (size_t i = 0; i < span->count; i++)
        if (span->tokens[i] >= vocab)
            return sm_fail(error, SM_BAD_ARGUMENT, "token id %u is not of this model's vocabulary of %u",
                           (unsigned)span->tokens[i], (unsigned)vocab);
    return SM_OK;
}

static int check(const sluice_group *group, size_t begin, size_t end, uint32_t vocab, uint32_t max_positions,
                 sm_error *error)
{
    int rc = check_span(&group->prompt, vocab, error);
    for (size_t c = begin; rc == SM_OK && c < end; c++) {
        const size_t length = group->prompt.count + group->completions[c].count;
        if (length > max_positions)
            return sm_fail(error, SM_BAD_ARGUMENT,
                           "a sequence of %zu tokens is longer than the model's context of %u; shorten the prompt or "
                           "the answer",
                           length, (unsigned)max_positions);
        rc = check_span(&group->completions[c], vocab, error);
    }
    return rc;
}

/* Rows for tokens [0, count) of a span that starts at `position`. */
static void add_rows(sm_pack *p, const uint32_t *tokens, size_t count, size_t position, uint64_t key,
                     uint64_t completion)
{
    const uint64_t id = sluice_mix(sluice_mix(0, key), completion);
    for (size_t i = 0; i < count; i++) {
        p->token[p->rows] = tokens[i];
        p->position[p->rows] = (uint32_t)(position + i);
        p->row_id[p->rows] = sluice_mix(id, position + i);
        p->rows++;
    }
}

static void add_segment(sm_pack *p, size_t row, size_t count, size_t prefix, size_t prefix_count)
{
    if (count > 0)
        p->segment[p->segments++] = (kn_segment){row, count, prefix_count > 0 ? prefix : 0, prefix_count};
}

static void add_scored(sm_pack *p, size_t row, uint32_t target)
{
    p->scored_row[p->scored] = (uint32_t)row;
    p->target[p->scored++] = target;
}

/* A completion's rows, each of which predicts its next token. */
static void add_predicting(sm_pack *p, const sluice_group *group, size_t c, size_t prompt)
{
    const sluice_span *completion = &group->completions[c];
    const size_t row = p->rows, count = completion_rows(completion), prompt_count = group->prompt.count;
    add_rows(p, completion->tokens, count, prompt_count, group->key, c);
    add_segment(p, row, count, prompt, prompt_count);
    if (prompt_count > 0 && completion->count > 0)
        add_scored(p, prompt + prompt_count - 1, completion->tokens[0]);
    for (size_t i = 0; i < count; i++)
        add_scored(p, row + i, completion->tokens[i + 1]);
}

/* A completion's rows, whose last has its value. */
static void add_valued(sm_pack *p, const sluice_group *group, size_t c, size_t prompt)
{
    const sluice_span *completion = &group->completions[c];
    const size_t row = p->rows, prompt_count = group->prompt.count;
    add_rows(p, completion->tokens, completion->count, prompt_count, group->key, c);
    add_segment(p, row, completion->count, prompt, prompt_count);
    add_scored(p, completion->count > 0 ? row + completion->count - 1 : prompt + prompt_count - 1, 0);
}

/* Rows of their own, and places, until a group of `rows` rows and `places` scored ones is full. */
static void fill_up(sm_pack *p, const sluice_group *group, size_t rows, size_t places)
{
    static const uint32_t nothing = 0; /* a token that every vocabulary has */
    for (size_t i = filling(p, rows); i > 0; i--) {
        add_segment(p, p->rows, 1, 0, 0);
        add_rows(p, &nothing, 1, 0, group->key, FILLING_ROW);
    }
    for (size_t i = filling(p, places); i > 0; i--)
        add_scored(p, p->rows - 1, nothing);
}

int sm_pack_add(sm_pack *p, const sluice_group *group, size_t begin, size_t end, uint32_t vocab, uint32_t max_positions,
                sm_error *error)
{
    const size_t prompt_count = group->prompt.count, completions = end - begin;
    const size_t rows = sm_pack_rows(group, begin, end) + (p->values ? completions : 0);
    const size_t scored = sm_pack_places(p, group, begin, end);
    for (size_t c = begin; c < end; c++)
        if (p->values && prompt_count + group->completions[c].count == 0)
            return sm_fail(error, SM_BAD_ARGUMENT, "an answer without a token after an empty prompt has no value");
    int rc = check(group, begin, end, vocab, max_positions, error);
    if (rc == SM_OK && p->rows + rows > UINT32_MAX)
        rc = sm_fail(error, SM_BAD_ARGUMENT, "a batch of %zu tokens is too large; use smaller batches", p->rows + rows);
    if (rc == SM_OK)
        rc = reserve(p, rows + filling(p, rows), completions + 1 + filling(p, rows), scored, error);
    if (rc != SM_OK || scored == 0)
        return rc;

    const size_t prompt = p->rows, first = p->scored;
    add_rows(p, group->prompt.tokens, prompt_count, 0, group->key, PROMPT_ROWS);
    add_segment(p, prompt, prompt_count, 0, 0);
    for (size_t c = begin; c < end; c++) {
        if (p->values)
            add_valued(p, group, c, prompt);
        else
            add_predicting(p, group, c, prompt);
    }
    fill_up(p, group, p->rows - prompt, p->scored - first);
    return SM_OK;
}

void sm_pack_clear(sm_pack *p)
{
    p->rows = p->segments = p->scored = 0;
}

void sm_pack_free(sm_pack *p)
{
    free(p->token);
    free(p->position);
    free(p->row_id);
    free(p->segment);
    free(p->scored_row);
    free(p->target);
    *p = (sm_pack){0};
}
