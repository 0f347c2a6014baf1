/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/transformer.h"

#include <sluice/random.h>

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
static int project(const sm_network *n, void *y, const void *input, const kn_matrix *matrix, const float *bias,
                   const void *x, size_t T, const sm_dropout *dropout, size_t layer, unsigned site)
{
    const kn_ops *ops = n->ops;
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

/* The rotary embedding and attention. */
static int attend(const sm_network *n, const sm_layer_state *s, size_t layer, size_t T, const sm_attending *a)
{
    const kn_ops *ops = n->ops;
    const sm_config *c = &n->layout->config;
    if (a->cache) {
        const kn_rotary rotary = {n->cos, n->sin};
        return ops->attention_cached(n->device, s->attended, s->qkv, a->cache, layer, a->cached, a->sequences, T,
                                     &rotary);
    }
    const size_t turned = c->heads + c->kv_heads; /* values are not turned */
    const size_t width = (turned + c->kv_heads) * c->head_dim;
    const int kn = ops->rope(n->device, s->qkv, width, a->position, n->cos, n->sin, T, turned, c->head_dim, false);
    if (kn != KN_OK)
        return kn;
    return ops->attention(n->device, s->attended, s->lse, s->qkv, a->segment, a->segments, T, &n->attention);
}

/* The attention half of a layer: from s->x to s->middle. */
static int forward_attention(const sm_network *n, sm_workspace *w, size_t layer, size_t T,
                             const sm_attending *attending, const sm_dropout *dropout)
{
    const kn_ops *ops = n->ops;
    kn_device *dev = n->device;
    const sm_config *c = &n->layout->config;
    const sm_layer_weights *m = &n->layer[layer];
    const sm_layer_state *s = &w->layer[layer];
    int kn;
    if ((kn = ops->rms_norm(dev, w->normed, s->attention_rstd, s->x, m->attention_norm, T, c->hidden, c->rms_eps)) ||
        (kn = ops->linear(dev, s->qkv, w->normed, m->qkv, m->qkv_bias, NULL, T)) ||
        (kn = attend(n, s, layer, T, attending)))
        return kn;
    return project(n, s->middle, s->attended, m->out, m->out_bias, s->x, T, dropout, layer, 0);
}

/* What the feed-forward half keeps: from s->middle to s->gate_up. */
static int forward_gate(const sm_network *n, sm_workspace *w, size_t layer, size_t T)
{
    const sm_config *c = &n->layout->config;
    const sm_layer_weights *m = &n->layer[layer];
    const sm_layer_state *s = &w->layer[layer];
    const int kn =
        n->ops->rms_norm(n->device, w->normed, s->mlp_rstd, s->middle, m->mlp_norm, T, c->hidden, c->rms_eps);
    return kn == KN_OK ? n->ops->linear(n->device, s->gate_up, w->normed, m->gate_up, m->gate_up_bias, NULL, T) : kn;
}

/* One layer: from s->x to `next` (the next layer's x). */
static int forward_layer(const sm_network *n, sm_workspace *w, size_t layer, void *next, size_t T,
                         const sm_attending *attending, const sm_dropout *dropout)
{
    const sm_layer_weights *m = &n->layer[layer];
    const sm_layer_state *s = &w->layer[layer];
    int kn;
    if ((kn = forward_attention(n, w, layer, T, attending, dropout)) || (kn = forward_gate(n, w, layer, T)) ||
        (kn = n->ops->swiglu(n->device, w->activated, s->gate_up, T, n->layout->config.intermediate)))
        return kn;
    return project(n, next, w->activated, m->down, m->down_bias, s->middle, T, dropout, layer, 1);
}

static sm_attending attending_of(const sm_pack *pack)
{
    return (sm_attending){.segment = pack->segment, .segments = pack->segments, .position = pack->position};
}

int sm_forward_again(const sm_network *n, sm_workspace *w, size_t layer, const sm_pack *pack, const sm_dropout *dropout)
{
    const sm_attending attending = attending_of(pack);
    const int kn = forward_attention(n, w, layer, pack->rows, &attending, dropout);
    return kn == KN_OK ? forward_gate(n, w, layer, pack->rows) : kn;
}

int sm_forward(const sm_network *n, sm_workspace *w, const uint32_t *token, size_t T, const sm_attending *attending,
               const sm_dropout *dropout, sm_error *error)
{
    const size_t layers = n->layout->config.layers;
    int kn = n->ops->embed(n->device, layers > 0 ? w->layer[0].x : w->x, n->embed, token, T, n->layout->config.hidden);
    for (size_t l = 0; kn == KN_OK && l < layers; l++)
        kn = forward_layer(n, w, l, l + 1 < layers ? w->layer[l + 1].x : w->x, T, attending, dropout);
    return kn == KN_OK ? SM_OK : sm_device_fail(n->device, kn, "the forward pass", error);
}

int sm_forward_scored(const sm_network *n, sm_workspace *w, const sm_pack *pack, const sm_dropout *dropout,
                      sm_error *error)
{
    const sm_config *c = &n->layout->config;
    const sm_attending attending = attending_of(pack);
    int rc = sm_workspace_reserve(w, n, pack->rows, pack->scored, error);
    if (rc == SM_OK)
        rc = sm_forward(n, w, pack->token, pack->rows, &attending, dropout, error);
    if (rc != SM_OK)
        return rc;
    /* Rows are gathered by the embedding op: the hidden states are the table. */
    int kn = n->ops->embed(n->device, w->scored_x, w->x, pack->scored_row, pack->scored, c->hidden);
    if (kn == KN_OK)
        kn = n->ops->rms_norm(n->device, w->scored_normed, w->scored_rstd, w->scored_x, n->norm, pack->scored,
                              c->hidden, c->rms_eps);
    return kn == KN_OK ? SM_OK : sm_device_fail(n->device, kn, "the forward pass", error);
}

/* Where there is no memory, for them or beside them, none are kept, and the backward pass makes them again: the same
 * bits. */
static void keep_logits(const sm_network *n, sm_workspace *w, size_t scored)
{
    sm_workspace_drop_logits(w);
    const size_t rows = n->ops->logits_kept(n->device, n->head, scored);
    if (rows > 0)
        w->kept = n->ops->alloc(n->device, rows * n->layout->config.vocab * sizeof(*w->kept));
}

int sm_forward_pack(const sm_network *n, sm_workspace *w, const sm_pack *pack, const sm_dropout *dropout, bool entropy,
                    sm_error *error)
{
    const int rc = sm_forward_scored(n, w, pack, dropout, error);
    if (rc != SM_OK)
        return rc;
    const size_t bytes = pack->scored * sizeof(float);
    if (w->keep)
        keep_logits(n, w, pack->scored);
    int kn = n->ops->logprob(n->device, w->logprob, w->scored_lse, entropy ? w->entropy : NULL, w->scored_normed,
                             n->head, pack->target, pack->scored, w->kept);
    if (kn == KN_NO_MEMORY && w->kept) {
        sm_workspace_drop_logits(w);
        kn = n->ops->logprob(n->device, w->logprob, w->scored_lse, entropy ? w->entropy : NULL, w->scored_normed,
                             n->head, pack->target, pack->scored, NULL);
    }
    if (kn == KN_OK)
        kn = n->ops->read(n->device, w->host_logprob, w->logprob, bytes);
    if (kn == KN_OK && entropy)
        kn = n->ops->read(n->device, w->host_entropy, w->entropy, bytes);
    return kn == KN_OK ? SM_OK : sm_device_fail(n->device, kn, "the forward pass", error);
}
