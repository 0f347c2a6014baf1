/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/head.h"

#include <stdlib.h>
#include <string.h>

#include "model/checkpoint.h"

#define MICRO_BATCH 1024 /* rows, as in score.c */

size_t sm_body_count(const sm_layout *layout)
{
    return layout->norm + layout->config.hidden;
}

int sm_head_layout(sm_layout *out, const sm_layout *body, uint32_t outputs, sm_error *error)
{
    sm_config config = body->config;
    config.outputs = outputs;
    return sm_layout_init(out, &config, error);
}

void sm_head_random(float *head, uint32_t outputs, uint32_t hidden, uint64_t seed)
{
    sm_random_normal(head, (size_t)outputs * hidden, SM_HEAD_DEVIATION, SM_SCORE, seed);
}

/* --- values and their gradient --------------------------------------------------------------------------------------
 */

/* Row s of `rows` as float32: where it lies, or in `room`. */
static const float *as_floats(const sm_network *n, const void *rows, size_t s, float *room)
{
    const size_t d = n->layout->config.hidden;
    if (n->ops->dtype == KN_F32)
        return (const float *)rows + s * d;
    n->ops->from_bf16(n->device, room, (const uint16_t *)rows + s * d, d);
    return room;
}

int sm_forward_values(const sm_network *n, sm_workspace *w, const sm_pack *pack, const sm_dropout *dropout,
                      float *values, sm_error *error)
{
    const size_t d = n->layout->config.hidden, k = n->layout->config.outputs;
    const int rc = sm_forward_scored(n, w, pack, dropout, error);
    for (size_t s = 0; rc == SM_OK && s < pack->scored; s++) {
        const float *row = as_floats(n, w->scored_normed, s, w->scored_row);
        for (size_t o = 0; o < k; o++) {
            const float *weight = n->score + o * d;
            double sum = 0;
            for (size_t i = 0; i < d; i++)
                sum += (double)row[i] * weight[i];
            values[s * k + o] = (float)sum;
        }
    }
    return rc;
}

void sm_head_backward(const sm_network *n, const sm_workspace *w, const sm_pack *pack, const float *dvalues,
                      float *head_gradient)
{
    const size_t d = n->layout->config.hidden, k = n->layout->config.outputs;
    for (size_t s = 0; s < pack->scored; s++) {
        const float *row = as_floats(n, w->scored_normed, s, w->scored_row);
        for (size_t o = 0; o < k; o++) {
            const float dvalue = dvalues[s * k + o];
            float *const to = head_gradient + o * d;
            for (size_t i = 0; i < d; i++)
                to[i] += dvalue * row[i];
        }
    }
}

int sm_backward_values(const sm_network *n, sm_workspace *w, const sm_pack *pack, const sm_dropout *dropout,
                       const float *dvalues, float *gradient, sm_error *error)
{
    const size_t d = n->layout->config.hidden, k = n->layout->config.outputs;
    const bool whole = n->ops->dtype == KN_F32;
    sm_head_backward(n, w, pack, dvalues, gradient + n->layout->score);
    for (size_t s = 0; s < pack->scored; s++) {
        float *const to = whole ? (float *)w->flow.dscored + s * d : w->scored_row;
        for (size_t i = 0; i < d; i++) {
            double sum = 0;
            for (size_t o = 0; o < k; o++)
                sum += (double)dvalues[s * k + o] * n->score[o * d + i];
            to[i] = (float)sum;
        }
        if (!whole)
            n->ops->to_bf16(n->device, (uint16_t *)w->flow.dscored + s * d, to, d);
    }
    return sm_backward_scored(n, w, pack, dropout, gradient, error);
}

/* --- scoring --------------------------------------------------------------------------------------------------------
 */

/* Rows of completions [begin, end) and their prompt. */
static size_t rows_of(const sluice_group *group, size_t begin, size_t end)
{
    size_t rows = group->prompt.count;
    for (size_t c = begin; c < end; c++)
        rows += group->completions[c].count;
    return rows;
}

/* The next completion to score. */
typedef struct cursor {
    size_t group, completion;
} cursor;

/* Packs what fits from `here` on, at least one completion; a group may be cut between completions. */
static int fill(sm_pack *pack, cursor *here, const sm_config *config, const sluice_group *groups, size_t count,
                sm_error *error)
{
    for (; here->group < count; *here = (cursor){here->group + 1, 0}) {
        const sluice_group *group = &groups[here->group];
        size_t end = here->completion;
        while (end < group->completion_count && (pack->scored + (end - here->completion) == 0 ||
                                                 pack->rows + rows_of(group, here->completion, end + 1) <= MICRO_BATCH))
            end++;
        const int rc = sm_pack_add(pack, group, here->completion, end, config->vocab, config->max_positions, error);
        here->completion = end;
        if (rc != SM_OK || end < group->completion_count)
            return rc;
    }
    return SM_OK;
}

int sm_score_values(const sm_network *n, sm_workspace *w, const sluice_group *groups, size_t count,
                    float *const *values, sm_error *error)
{
    const sm_config *c = &n->layout->config;
    sm_pack pack = {.values = true};
    cursor here = {0};
    size_t out = 0, room = 0;
    float *flat = NULL;
    int rc = SM_OK;
    while (rc == SM_OK && here.group < count) {
        sm_pack_clear(&pack);
        rc = fill(&pack, &here, c, groups, count, error);
        if (rc == SM_OK && pack.scored > room) {
            free(flat);
            flat = malloc((room = pack.scored) * c->outputs * sizeof(float));
            if (!flat)
                rc = sm_fail(error, SM_NO_MEMORY, "out of memory for %zu answers", room);
        }
        if (rc == SM_OK && pack.scored > 0)
            rc = sm_forward_values(n, w, &pack, NULL, flat, error);
        for (size_t s = 0; rc == SM_OK && s < pack.scored; s++)
            memcpy(values[out++], flat + s * c->outputs, c->outputs * sizeof(float));
    }
    free(flat);
    sm_pack_free(&pack);
    return rc;
}
