/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/transformer.h"

#include <math.h>
#include <stdlib.h>

#include <sluice/random.h>

int sm_device_fail(int kn, const char *what, sm_error *error)
{
    if (kn == KN_NO_MEMORY)
        return sm_fail(error, SM_NO_MEMORY, "out of memory in %s; use smaller batches", what);
    if (kn == KN_UNSUPPORTED)
        return sm_fail(error, SM_UNSUPPORTED, "this device does not do %s for this model", what);
    return sm_fail(error, SM_BAD_ARGUMENT, "%s was refused by the device: a value is not finite or out of range", what);
}

static const float *at(const sm_network *n, size_t offset)
{
    return offset == SM_ABSENT ? NULL : n->params + offset;
}

/* --- the network ----------------------------------------------------------------------------------------------------
 */

static int make_matrices(sm_network *n, bool with_backward)
{
    const sm_config *c = &n->layout->config;
    const kn_ops *ops = n->device->ops;
    const size_t d = c->hidden, q = (size_t)c->heads * c->head_dim, kv = (size_t)c->kv_heads * c->head_dim;
    const size_t f = c->intermediate;
    if (n->layout->head != SM_ABSENT)
        n->head = ops->matrix_new(n->device, c->vocab, d, with_backward);
    bool ok = n->head || n->layout->head == SM_ABSENT;
    for (size_t l = 0; ok && l < c->layers; l++) {
        sm_layer_matrices *m = &n->layer[l];
        m->qkv = ops->matrix_new(n->device, q + 2 * kv, d, with_backward);
        m->out = ops->matrix_new(n->device, d, q, with_backward);
        m->gate_up = ops->matrix_new(n->device, 2 * f, d, with_backward);
        m->down = ops->matrix_new(n->device, d, f, with_backward);
        ok = m->qkv && m->out && m->gate_up && m->down;
    }
    return ok ? KN_OK : KN_NO_MEMORY;
}

static int make_rope(sm_network *n)
{
    const sm_config *c = &n->layout->config;
    const size_t half = c->head_dim / 2, bytes = c->max_positions * half * sizeof(float);
    float *frequency = malloc(half * sizeof(float));
    n->cos = n->device->ops->alloc(n->device, bytes);
    n->sin = n->device->ops->alloc(n->device, bytes);
    const bool ok = frequency && n->cos && n->sin;
    if (ok) {
        sm_config_rope_frequencies(c, frequency);
        for (size_t p = 0; p < c->max_positions; p++)
            for (size_t i = 0; i < half; i++) {
                /* as transformers: the angle is a float32 product */
                const float angle = (float)p * frequency[i];
                n->cos[p * half + i] = (float)cos(angle);
                n->sin[p * half + i] = (float)sin(angle);
            }
    }
    free(frequency);
    return ok ? KN_OK : KN_NO_MEMORY;
}

int sm_network_new(sm_network **out, kn_device *device, const sm_layout *layout, const float *params,
                   bool with_backward, sm_error *error)
{
    const sm_config *c = &layout->config;
    sm_network *n = calloc(1, sizeof(*n));
    *out = NULL;
    if (!n)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a model");
    n->device = device;
    n->layout = layout;
    n->params = params;
    n->attention = (kn_attention){.heads = c->heads,
                                  .kv_heads = c->kv_heads,
                                  .head_dim = c->head_dim,
                                  .scale = (float)(1.0 / sqrt((double)c->head_dim))};
    n->layer = calloc(c->layers, sizeof(*n->layer));
    int rc = SM_OK;
    if (!n->layer || make_matrices(n, with_backward) != KN_OK || make_rope(n) != KN_OK)
        rc = sm_fail(error, SM_NO_MEMORY, "out of memory for a model of %zu parameters", layout->count);
    if (rc == SM_OK)
        rc = sm_network_refresh(n, error);
    if (rc != SM_OK) {
        sm_network_free(n);
        return rc;
    }
    *out = n;
    return SM_OK;
}

int sm_network_refresh(sm_network *n, sm_error *error)
{
    const kn_ops *ops = n->device->ops;
    int kn = n->head ? ops->matrix_set(n->device, n->head, n->params + n->layout->head) : KN_OK;
    for (size_t l = 0; kn == KN_OK && l < n->layout->config.layers; l++) {
        const sm_layer_layout *at_layer = &n->layout->layer[l];
        const sm_layer_matrices *m = &n->layer[l];
        if ((kn = ops->matrix_set(n->device, m->qkv, n->params + at_layer->qkv)) == KN_OK &&
            (kn = ops->matrix_set(n->device, m->out, n->params + at_layer->out)) == KN_OK &&
            (kn = ops->matrix_set(n->device, m->gate_up, n->params + at_layer->gate_up)) == KN_OK)
            kn = ops->matrix_set(n->device, m->down, n->params + at_layer->down);
    }
    return kn == KN_OK ? SM_OK : sm_device_fail(kn, "packing the weights", error);
}

void sm_network_free(sm_network *n)
{
    if (!n)
        return;
    const kn_ops *ops = n->device->ops;
    for (size_t l = 0; n->layer && l < n->layout->config.layers; l++) {
        ops->matrix_free(n->device, n->layer[l].qkv);
        ops->matrix_free(n->device, n->layer[l].out);
        ops->matrix_free(n->device, n->layer[l].gate_up);
        ops->matrix_free(n->device, n->layer[l].down);
    }
    ops->matrix_free(n->device, n->head);
    ops->free(n->device, n->cos);
    ops->free(n->device, n->sin);
    free(n->layer);
    free(n);
}

/* --- workspaces -----------------------------------------------------------------------------------------------------
 */

sm_workspace *sm_workspace_new(const sm_network *network, bool keep)
{
    sm_workspace *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->device = network->device;
    w->layers = network->layout->config.layers;
    w->keep = keep;
    w->layer = calloc(w->layers, sizeof(*w->layer));
    if (!w->layer) {
        free(w);
        return NULL;
    }
    return w;
}

void sm_workspace_free(sm_workspace *w)
{
    if (!w)
        return;
    w->device->ops->free(w->device, w->rows_memory);
    w->device->ops->free(w->device, w->scored_memory);
    free(w->layer);
    free(w);
}

/* Hands out pieces of one block of floats, each on a 64-byte border. Without a block it only adds up their sizes. */
typedef struct pieces {
    float *block;
    size_t used;
} pieces;

static float *take(pieces *p, size_t count)
{
    float *taken = p->block ? p->block + p->used : NULL;
    p->used += (count + 15) / 16 * 16;
    return taken;
}

static void place_rows(sm_workspace *w, const sm_config *c, size_t T, pieces *p)
{
    const size_t d = c->hidden, f = c->intermediate, q = (size_t)c->heads * c->head_dim;
    const size_t width = q + 2 * (size_t)c->kv_heads * c->head_dim;
    w->x = take(p, T * d);
    w->normed = take(p, T * d);
    w->activated = take(p, T * f);
    for (size_t l = 0; l < w->layers; l++) {
        sm_layer_state *s = &w->layer[l];
        if (l > 0 && !w->keep) {
            *s = w->layer[0];
            continue;
        }
        s->qkv = take(p, T * width);
        s->attended = take(p, T * q);
        s->gate_up = take(p, T * 2 * f);
        s->x = s->middle = w->x;
        if (w->keep) {
            s->x = take(p, T * d);
            s->middle = take(p, T * d);
            s->attention_rstd = take(p, T);
            s->mlp_rstd = take(p, T);
            s->lse = take(p, T * c->heads);
        }
    }
    if (w->keep) {
        w->flow.dx = take(p, T * d);
        w->flow.branch = take(p, T * d);
        w->flow.dactivated = take(p, T * f);
        w->flow.dgate_up = take(p, T * 2 * f);
        w->flow.dattended = take(p, T * q);
        w->flow.dqkv = take(p, T * width);
    }
}

static void place_scored(sm_workspace *w, const sm_config *c, size_t S, pieces *p)
{
    const size_t d = c->hidden;
    w->scored_x = take(p, S * d);
    w->scored_normed = take(p, S * d);
    w->scored_rstd = take(p, S);
    w->logprob = take(p, S);
    w->scored_lse = take(p, S);
    w->entropy = take(p, S);
    if (w->keep) {
        w->flow.dscored = take(p, S * d);
        w->flow.dscored_x = take(p, S * d);
    }
}

/* Makes a block of the size that `place` asks for, in place of the old one, and places everything in it. */
static int reserve_block(sm_workspace *w, const sm_config *c, float **memory, size_t *capacity, size_t count,
                         void (*place)(sm_workspace *, const sm_config *, size_t, pieces *), sm_error *error)
{
    pieces p = {0};
    place(w, c, count, &p);
    w->device->ops->free(w->device, *memory);
    *capacity = 0;
    *memory = w->device->ops->alloc(w->device, p.used * sizeof(float));
    if (!*memory)
        return sm_fail(error, SM_NO_MEMORY,
                       "out of memory: %zu MiB for the activations of %zu tokens; use smaller batches",
                       p.used * sizeof(float) >> 20, count);
    p = (pieces){.block = *memory};
    place(w, c, count, &p);
    *capacity = count;
    return SM_OK;
}

int sm_workspace_reserve(sm_workspace *w, const sm_network *n, size_t rows, size_t scored, sm_error *error)
{
    int rc = SM_OK;
    if (rows > w->row_capacity)
        rc = reserve_block(w, &n->layout->config, &w->rows_memory, &w->row_capacity, rows, place_rows, error);
    if (rc == SM_OK && scored > w->scored_capacity)
        rc = reserve_block(w, &n->layout->config, &w->scored_memory, &w->scored_capacity, scored, place_scored, error);
    return rc;
}

/* --- forward --------------------------------------------------------------------------------------------------------
 */

void sm_dropout_key(const sm_dropout *dropout, size_t layer, unsigned site, uint64_t key[2])
{
    const sluice_draw draw = {.seed = dropout->seed,
                              .step = dropout->step,
                              .record = layer,
                              .candidate = site,
                              .purpose = SLUICE_PURPOSE_DROPOUT};
    uint64_t counter[2];
    sluice_draw_place(&draw, key, counter);
}

/* y = x + dropout(input·Wᵀ + bias), the end of both halves of a layer. */
static int project(const sm_network *n, float *y, const float *input, const kn_matrix *matrix, const float *bias,
                   const float *x, size_t T, const sm_dropout *dropout, size_t layer, unsigned site)
{
    const kn_ops *ops = n->device->ops;
    if (!dropout || dropout->rate == 0)
        return ops->linear(n->device, y, input, matrix, bias, x, T);
    const size_t d = n->layout->config.hidden;
    uint64_t key[2];
    sm_dropout_key(dropout, layer, site, key);
    int kn = ops->linear(n->device, y, input, matrix, bias, NULL, T);
    if (kn == KN_OK)
        kn = ops->dropout(n->device, y, T, d, dropout->rate, key, dropout->row_id);
    return kn == KN_OK ? ops->add(n->device, y, x, T * d) : kn;
}

static int attend(const sm_network *n, const sm_layer_state *s, size_t layer, size_t T, const sm_attending *a)
{
    const kn_ops *ops = n->device->ops;
    if (a->cache)
        return ops->attention_cached(n->device, s->attended, s->qkv, a->cache, layer, a->cached, a->sequences, T);
    return ops->attention(n->device, s->attended, s->lse, s->qkv, a->segment, a->segments, T, &n->attention);
}

/* One layer: from s->x to `next` (the next layer's x). */
static int forward_layer(const sm_network *n, sm_workspace *w, size_t layer, float *next, const uint32_t *position,
                         size_t T, const sm_attending *attending, const sm_dropout *dropout)
{
    const kn_ops *ops = n->device->ops;
    kn_device *dev = n->device;
    const sm_config *c = &n->layout->config;
    const sm_layer_layout *p = &n->layout->layer[layer];
    const sm_layer_matrices *m = &n->layer[layer];
    const sm_layer_state *s = &w->layer[layer];
    const size_t d = c->hidden, f = c->intermediate, turned = c->heads + c->kv_heads; /* values are not turned */
    const size_t width = (turned + c->kv_heads) * c->head_dim;
    int kn;
    if ((kn = ops->rms_norm(dev, w->normed, s->attention_rstd, s->x, at(n, p->attention_norm), T, d, c->rms_eps)) ||
        (kn = ops->linear(dev, s->qkv, w->normed, m->qkv, at(n, p->qkv_bias), NULL, T)) ||
        (kn = ops->rope(dev, s->qkv, width, position, n->cos, n->sin, T, turned, c->head_dim, false)) ||
        (kn = attend(n, s, layer, T, attending)) ||
        (kn = project(n, s->middle, s->attended, m->out, at(n, p->out_bias), s->x, T, dropout, layer, 0)))
        return kn;
    if ((kn = ops->rms_norm(dev, w->normed, s->mlp_rstd, s->middle, at(n, p->mlp_norm), T, d, c->rms_eps)) ||
        (kn = ops->linear(dev, s->gate_up, w->normed, m->gate_up, at(n, p->gate_up_bias), NULL, T)) ||
        (kn = ops->swiglu(dev, w->activated, s->gate_up, T, f)))
        return kn;
    return project(n, next, w->activated, m->down, at(n, p->down_bias), s->middle, T, dropout, layer, 1);
}

int sm_forward(const sm_network *n, sm_workspace *w, const uint32_t *token, const uint32_t *position, size_t T,
               const sm_attending *attending, const sm_dropout *dropout, sm_error *error)
{
    const size_t layers = n->layout->config.layers;
    int kn = n->device->ops->embed(n->device, layers > 0 ? w->layer[0].x : w->x, n->params + n->layout->embed, token, T,
                                   n->layout->config.hidden);
    for (size_t l = 0; kn == KN_OK && l < layers; l++)
        kn = forward_layer(n, w, l, l + 1 < layers ? w->layer[l + 1].x : w->x, position, T, attending, dropout);
    return kn == KN_OK ? SM_OK : sm_device_fail(kn, "the forward pass", error);
}

int sm_forward_scored(const sm_network *n, sm_workspace *w, const sm_pack *pack, const sm_dropout *dropout,
                      sm_error *error)
{
    const kn_ops *ops = n->device->ops;
    const sm_config *c = &n->layout->config;
    const sm_attending attending = {.segment = pack->segment, .segments = pack->segments};
    int rc = sm_workspace_reserve(w, n, pack->rows, pack->scored, error);
    if (rc == SM_OK)
        rc = sm_forward(n, w, pack->token, pack->position, pack->rows, &attending, dropout, error);
    if (rc != SM_OK)
        return rc;
    /* Rows are gathered by the embedding op: the hidden states are the table. */
    int kn = ops->embed(n->device, w->scored_x, w->x, pack->scored_row, pack->scored, c->hidden);
    if (kn == KN_OK)
        kn = ops->rms_norm(n->device, w->scored_normed, w->scored_rstd, w->scored_x, n->params + n->layout->norm,
                           pack->scored, c->hidden, c->rms_eps);
    return kn == KN_OK ? SM_OK : sm_device_fail(kn, "the forward pass", error);
}

int sm_forward_pack(const sm_network *n, sm_workspace *w, const sm_pack *pack, const sm_dropout *dropout, bool entropy,
                    sm_error *error)
{
    const int rc = sm_forward_scored(n, w, pack, dropout, error);
    if (rc != SM_OK)
        return rc;
    const int kn = n->device->ops->logprob(n->device, w->logprob, w->scored_lse, entropy ? w->entropy : NULL,
                                           w->scored_normed, n->head, pack->target, pack->scored);
    return kn == KN_OK ? SM_OK : sm_device_fail(kn, "the forward pass", error);
}
