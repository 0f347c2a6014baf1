/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/transformer.h"

#include <stdlib.h>

sm_workspace *sm_workspace_new(const sm_network *network, sm_keep keep)
{
    sm_workspace *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->device = network->device;
    w->layers = network->layout->config.layers;
    w->element = sm_network_element(network);
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
    sm_workspace_shrink(w);
    free(w->layer);
    free(w);
}

/* Hands out pieces of one block of memory, each on a 64-byte border. Without a block it only adds up their sizes. */
typedef struct pieces {
    char *block;
    size_t used;    /* bytes */
    size_t element; /* bytes of one activation */
} pieces;

static void *take_bytes(pieces *p, size_t bytes)
{
    char *taken = p->block ? p->block + p->used : NULL;
    p->used += (bytes + 63) / 64 * 64;
    return taken;
}

static void *take(pieces *p, size_t count)
{
    return take_bytes(p, count * p->element);
}

static float *take_floats(pieces *p, size_t count)
{
    return take_bytes(p, count * sizeof(float));
}

/* What a layer may compute again. */
static void place_inner(sm_layer_state *s, const sm_config *c, size_t T, sm_keep keep, pieces *p)
{
    const size_t d = c->hidden, f = c->intermediate, q = (size_t)c->heads * c->head_dim;
    s->qkv = take(p, T * (q + 2 * (size_t)c->kv_heads * c->head_dim));
    s->attended = take(p, T * q);
    s->gate_up = take(p, T * 2 * f);
    if (keep == SM_KEEP_NOTHING)
        return;
    s->middle = take(p, T * d);
    s->attention_rstd = take_floats(p, T);
    s->mlp_rstd = take_floats(p, T);
    s->lse = take_floats(p, T * c->heads);
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
        if (l == 0 || w->keep == SM_KEEP_ALL)
            place_inner(s, c, T, w->keep, p);
        else
            *s = w->layer[0];
        if (w->keep == SM_KEEP_NOTHING)
            s->x = s->middle = w->x;
        else
            s->x = take(p, T * d);
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
    w->scored_rstd = take_floats(p, S);
    w->logprob = take_floats(p, S);
    w->scored_lse = take_floats(p, S);
    w->entropy = take_floats(p, S);
    if (w->keep) {
        w->flow.dscored = take(p, S * d);
        w->flow.dscored_x = take(p, S * d);
    }
}

/* Makes a block of the size that `place` asks for, in place of the old one, and places everything in it. */
static int reserve_block(sm_workspace *w, const sm_config *c, void **memory, size_t *capacity, size_t count,
                         void (*place)(sm_workspace *, const sm_config *, size_t, pieces *), sm_error *error)
{
    pieces p = {.element = w->element};
    place(w, c, count, &p);
    w->device->ops->free(w->device, *memory);
    *capacity = 0;
    *memory = w->device->ops->alloc(w->device, p.used);
    if (!*memory)
        return sm_device_no_memory(w->device, error,
                                   "out of memory: %.1f MiB for the activations of %zu tokens; use smaller batches",
                                   (double)p.used / (1 << 20), count);
    p = (pieces){.block = *memory, .element = w->element};
    place(w, c, count, &p);
    *capacity = count;
    return SM_OK;
}

void sm_workspace_drop_logits(sm_workspace *w)
{
    w->device->ops->free(w->device, w->kept);
    w->kept = NULL;
}

void sm_workspace_shrink(sm_workspace *w)
{
    w->device->ops->free(w->device, w->rows_memory);
    w->device->ops->free(w->device, w->scored_memory);
    sm_workspace_drop_logits(w);
    free(w->host_logprob);
    free(w->host_entropy);
    free(w->host_head);
    w->rows_memory = w->scored_memory = NULL;
    w->host_logprob = w->host_entropy = w->host_head = NULL;
    w->row_capacity = w->scored_capacity = w->host_head_capacity = 0;
}

/* Places for what is read of the scored rows. */
static int reserve_host(sm_workspace *w, size_t scored, sm_error *error)
{
    free(w->host_logprob);
    free(w->host_entropy);
    w->host_logprob = malloc(scored * sizeof(float));
    w->host_entropy = malloc(scored * sizeof(float));
    return w->host_logprob && w->host_entropy
               ? SM_OK
               : sm_fail(error, SM_NO_MEMORY, "out of memory for %zu tokens; use smaller batches", scored);
}

int sm_workspace_reserve(sm_workspace *w, const sm_network *n, size_t rows, size_t scored, sm_error *error)
{
    int rc = SM_OK;
    if (rows > w->row_capacity)
        rc = reserve_block(w, &n->layout->config, &w->rows_memory, &w->row_capacity, rows, place_rows, error);
    if (rc == SM_OK && scored > w->scored_capacity && (rc = reserve_host(w, scored, error)) == SM_OK)
        rc = reserve_block(w, &n->layout->config, &w->scored_memory, &w->scored_capacity, scored, place_scored, error);
    return rc;
}
