/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The memory of a sampling run. What one run may have depends on what others have left, so it asks for less until it
 * gets it: the result is the same, later. */
#include "model/generator.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    HOST_SLOTS = 64, /* one tile of rows */
    DEVICE_SLOTS = 256,
    MOST_SLOTS = 1024,
    PREFILL_ROWS = 1024 /* prompt rows in one pass, beside one row a running candidate */
};

int sm_generator_no_memory(const sm_generator *g)
{
    return sm_device_fail(g->n->device, KN_NO_MEMORY, "sampling", g->error);
}

/* Half of what a device of its own memory has left. */
static size_t most_cache_bytes(kn_device *device)
{
    kn_memory_use m;
    if (!device->ops->memory || device->ops->memory(device, &m) != KN_OK)
        return (size_t)2 << 30;
    const size_t left = m.free + (m.reserved - m.used);
    return (m.limit > 0 && m.limit - m.used < left ? m.limit - m.used : left) / 2;
}

/* Enough for all slots to run at once, within bounds; when a sequence finds no pages it waits for others to finish. */
static size_t cache_pages(const sm_generator *g)
{
    const sm_config *c = &g->n->layout->config;
    const size_t page_bytes = (size_t)c->layers * KN_PAGE * 2 * c->kv_heads * c->head_dim * sm_network_element(g->n);
    const size_t whole = sm_pages_of(c->max_positions), answer = sm_pages_of(g->given->max_tokens) + 1;
    const size_t wanted = g->slots * (answer < whole ? answer : whole) + (g->slots / g->given->candidates + 2) * whole;
    const size_t most = most_cache_bytes(g->n->device) / page_bytes, least = 2 * whole + 2;
    const size_t bounded = wanted < most ? wanted : most;
    return bounded > least ? bounded : least;
}

static int make(sm_generator *g)
{
    const sm_config *c = &g->n->layout->config;
    kn_device *dev = g->n->device;
    const kn_ops *ops = g->n->ops;
    const size_t rows = g->prefill + g->slots, places = g->slots + 1;
    g->width = g->slots;
    g->row_bytes = c->hidden * sm_network_element(g->n);
    g->last = &g->prompts;
    g->slot = calloc(g->slots, sizeof(*g->slot));
    g->free_place = malloc(places * sizeof(*g->free_place));
    g->token = malloc(rows * sizeof(*g->token));
    g->cached = malloc((places + g->slots) * sizeof(*g->cached));
    g->choosing = malloc(g->slots * sizeof(sm_slot *));
    g->gather = malloc(g->slots * sizeof(*g->gather));
    g->choice = malloc(g->slots * sizeof(*g->choice));
    g->chosen = malloc(g->slots * sizeof(*g->chosen));
    g->ended = malloc(g->slots * sizeof(*g->ended));
    if (!g->slot || !g->free_place || !g->token || !g->cached || !g->choosing || !g->gather || !g->choice ||
        !g->chosen || !g->ended)
        return sm_generator_no_memory(g);
    while (g->free_places < places) {
        g->free_place[g->free_places] = g->free_places;
        g->free_places++;
    }
    g->prompt_hidden = ops->alloc(dev, places * g->row_bytes);
    g->hidden = ops->alloc(dev, g->slots * g->row_bytes);
    g->normed = ops->alloc(dev, g->slots * g->row_bytes);
    g->logits = ops->alloc(dev, g->logit_rows * (size_t)c->vocab * sizeof(float));
    g->logprob = ops->alloc(dev, g->logit_rows * sizeof(float));
    const bool mirrors = g->given->hook && !dev->host_memory;
    if (mirrors)
        g->host_logits = malloc(g->logit_rows * (size_t)c->vocab * sizeof(float));
    const size_t pages = cache_pages(g);
    g->cache = ops->cache_new(dev, c->layers, pages, &g->n->attention);
    if (!g->prompt_hidden || !g->hidden || !g->normed || !g->logits || !g->logprob || (mirrors && !g->host_logits) ||
        !g->cache || sm_pages_new(&g->pages, pages) != SM_OK)
        return sm_generator_no_memory(g);
    return sm_workspace_reserve(g->w, g->n, rows, 0, g->error);
}

void sm_generator_prompt_free(sm_prompt *p)
{
    free(p->pages);
    free(p);
}

void sm_generator_free(sm_generator *g)
{
    kn_device *dev = g->n->device;
    const kn_ops *ops = g->n->ops;
    for (size_t i = 0; g->slot && i < g->slots; i++)
        sm_slot_release(&g->slot[i], &g->pages);
    while (g->prompts) {
        sm_prompt *p = g->prompts;
        g->prompts = p->next;
        sm_generator_prompt_free(p);
    }
    sm_pages_free(&g->pages);
    ops->cache_free(dev, g->cache);
    ops->free(dev, g->prompt_hidden);
    ops->free(dev, g->hidden);
    ops->free(dev, g->normed);
    ops->free(dev, g->logits);
    ops->free(dev, g->logprob);
    free(g->host_logits);
    free(g->slot);
    free(g->free_place);
    free(g->token);
    free(g->cached);
    free(g->choosing);
    free(g->gather);
    free(g->choice);
    free(g->chosen);
    free(g->ended);
}

/* Everything that make made. */
static void unmake(sm_generator *g)
{
    const sm_generator fixed = *g;
    sm_generator_free(g);
    *g = (sm_generator){.n = fixed.n,
                        .w = fixed.w,
                        .tokenizer = fixed.tokenizer,
                        .stop_ids = fixed.stop_ids,
                        .stop_count = fixed.stop_count,
                        .given = fixed.given,
                        .result = fixed.result,
                        .error = fixed.error,
                        .slots = fixed.slots,
                        .prefill = fixed.prefill,
                        .logit_rows = fixed.logit_rows,
                        .narrowed = fixed.narrowed};
}

/* Right after memory was refused. */
static void note_refusal(sm_generator *g)
{
    const kn_ops *ops = g->n->ops;
    const char *why = ops->refusal ? ops->refusal(g->n->device) : NULL;
    snprintf(g->narrowed.why, sizeof(g->narrowed.why), "%s", why ? why : "");
}

static size_t half(size_t n)
{
    return n > 1 ? n / 2 : 1;
}

int sm_generator_new(sm_generator *g)
{
    const bool on_host = g->n->device->host_memory;
    const size_t usual = on_host ? HOST_SLOTS : DEVICE_SLOTS;
    g->slots = g->given->slots > 0 ? g->given->slots : usual;
    g->slots = g->slots < MOST_SLOTS ? g->slots : MOST_SLOTS;
    g->prefill = PREFILL_ROWS;
    g->logit_rows = g->slots < usual ? g->slots : usual;
    g->narrowed.asked = g->slots;
    int rc = make(g);
    while (rc == SM_NO_MEMORY && (g->slots > 1 || g->prefill > 1)) {
        note_refusal(g);
        unmake(g);
        g->slots = half(g->slots);
        g->prefill = half(g->prefill);
        g->logit_rows = half(g->logit_rows);
        rc = make(g);
    }
    g->narrowed.at_once = g->slots;
    return rc;
}

bool sm_generator_narrow(sm_generator *g)
{
    if (g->width == 1 && g->prefill == 1 && g->logit_rows == 1)
        return false;
    note_refusal(g);
    g->width = half(g->width);
    g->narrowed.at_once = g->width;
    g->prefill = half(g->prefill);
    g->logit_rows = half(g->logit_rows);
    return true;
}
