/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/head.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/bf16.h"
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

/*
 * What the head computes with, in host memory: the few rows that are scored and the head's own numbers are read, what
 * it computes is written back. That costs less than it would to launch work for so little, on a device that is far.
 *
 *     rows [S, d] after the final norm, as float32    weight [k, d]    gradient [k, d]
 */
typedef struct host_head {
    size_t d, k, scored;
    float *rows, *weight, *gradient;
} host_head;

static host_head parts(const sm_network *n, const sm_workspace *w, const sm_pack *pack)
{
    const size_t d = n->layout->config.hidden, k = n->layout->config.outputs;
    float *const at = w->host_head;
    return (host_head){d, k, pack->scored, at, at + pack->scored * d, at + (pack->scored + k) * d};
}

static int reserve(const sm_network *n, sm_workspace *w, const sm_pack *pack, sm_error *error)
{
    const size_t wanted = (pack->scored + 2 * (size_t)n->layout->config.outputs) * n->layout->config.hidden;
    if (wanted <= w->host_head_capacity)
        return SM_OK;
    free(w->host_head);
    w->host_head_capacity = 0;
    w->host_head = malloc(wanted * sizeof(float));
    if (!w->host_head)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for %zu answers; use smaller batches", pack->scored);
    w->host_head_capacity = wanted;
    return SM_OK;
}

/* Rows of the network's type. Those of bfloat16 are read into the end of the array, whose start their float32 then
 * fill: number i is written when all before it and itself are taken. */
static int read_rows(const sm_network *n, const sm_workspace *w, const host_head *h, sm_error *error)
{
    const size_t count = h->scored * h->d, bytes = count * sm_network_element(n);
    char *const at = (char *)(h->rows + count) - bytes;
    const int rc = sm_device_read(n->device, at, w->scored_normed, bytes, error);
    for (size_t i = 0; rc == SM_OK && n->ops->dtype == KN_BF16 && i < count; i++) {
        uint16_t narrow;
        memcpy(&narrow, at + i * sizeof(narrow), sizeof(narrow));
        h->rows[i] = kn_widen(narrow);
    }
    return rc;
}

int sm_forward_values(const sm_network *n, sm_workspace *w, const sm_pack *pack, const sm_dropout *dropout,
                      float *values, sm_error *error)
{
    int rc = sm_forward_scored(n, w, pack, dropout, error);
    if (rc == SM_OK)
        rc = reserve(n, w, pack, error);
    if (rc != SM_OK)
        return rc;
    const host_head h = parts(n, w, pack);
    rc = read_rows(n, w, &h, error);
    if (rc == SM_OK)
        rc = sm_device_read(n->device, h.weight, n->score, h.k * h.d * sizeof(float), error);
    for (size_t s = 0; rc == SM_OK && s < h.scored; s++)
        for (size_t o = 0; o < h.k; o++) {
            const float *row = h.rows + s * h.d, *weight = h.weight + o * h.d;
            double sum = 0;
            for (size_t i = 0; i < h.d; i++)
                sum += (double)row[i] * weight[i];
            values[s * h.k + o] = (float)sum;
        }
    return rc;
}

int sm_head_backward(const sm_network *n, const sm_workspace *w, const sm_pack *pack, const float *dvalues,
                     float *head_gradient, bool accumulate, sm_error *error)
{
    const host_head h = parts(n, w, pack);
    const size_t bytes = h.k * h.d * sizeof(float);
    const int rc = accumulate ? sm_device_read(n->device, h.gradient, head_gradient, bytes, error) : SM_OK;
    if (rc != SM_OK)
        return rc;
    if (!accumulate)
        memset(h.gradient, 0, bytes);
    for (size_t s = 0; s < h.scored; s++)
        for (size_t o = 0; o < h.k; o++) {
            const float dvalue = dvalues[s * h.k + o], *row = h.rows + s * h.d;
            float *const to = h.gradient + o * h.d;
            for (size_t i = 0; i < h.d; i++)
                to[i] += dvalue * row[i];
        }
    return sm_device_write(n->device, head_gradient, h.gradient, bytes, error);
}

/* flow.dscored = dvalues · weight. The rows are no longer needed: what comes of one takes its place. */
static int enter_scored(const sm_network *n, const sm_workspace *w, const host_head *h, const float *dvalues,
                        sm_error *error)
{
    for (size_t s = 0; s < h->scored; s++)
        for (size_t i = 0; i < h->d; i++) {
            double sum = 0;
            for (size_t o = 0; o < h->k; o++)
                sum += (double)dvalues[s * h->k + o] * h->weight[o * h->d + i];
            h->rows[s * h->d + i] = (float)sum;
        }
    const size_t count = h->scored * h->d;
    for (size_t i = 0; n->ops->dtype == KN_BF16 && i < count; i++) {
        const uint16_t narrow = kn_narrow(h->rows[i]);
        memcpy((char *)h->rows + i * sizeof(narrow), &narrow, sizeof(narrow));
    }
    return sm_device_write(n->device, w->flow.dscored, h->rows, count * sm_network_element(n), error);
}

int sm_backward_values(const sm_network *n, sm_workspace *w, const sm_pack *pack, const sm_dropout *dropout,
                       const float *dvalues, const sm_gradient *gradient, sm_error *error)
{
    const host_head h = parts(n, w, pack);
    int rc = sm_head_backward(n, w, pack, dvalues, gradient->params + n->layout->score, gradient->add, error);
    if (rc == SM_OK)
        rc = enter_scored(n, w, &h, dvalues, error);
    return rc == SM_OK ? sm_backward_scored(n, w, pack, dropout, gradient, error) : rc;
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
