/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/network.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/dtype.h"

int sm_device_fail(kn_device *device, int kn, const char *what, sm_error *error)
{
    const char *why = device->ops->error(device);
    if (why || kn == KN_DEVICE_FAILED)
        return sm_fail(error, SM_DEVICE, "the device stopped working, noticed in %s: %s; run again to resume", what,
                       why ? why : "it gives no reason");
    if (kn == KN_NO_MEMORY)
        return sm_device_no_memory(device, error, "out of memory in %s; use smaller batches", what);
    if (kn == KN_UNSUPPORTED)
        return sm_fail(error, SM_UNSUPPORTED, "this device does not do %s for this model", what);
    return sm_fail(error, SM_BAD_ARGUMENT, "%s was refused by the device: a value is not finite or out of range", what);
}

int sm_device_no_memory(kn_device *device, sm_error *error, const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (device->ops->error(device))
        return sm_device_fail(device, KN_DEVICE_FAILED, "making room", error);
    const char *figures = device->ops->refusal ? device->ops->refusal(device) : NULL;
    return sm_fail(error, SM_NO_MEMORY, "%s%s%s%s", text, figures ? " (" : "", figures ? figures : "",
                   figures ? ")" : "");
}

int sm_device_read(kn_device *device, void *to, const void *from, size_t bytes, sm_error *error)
{
    const int kn = device->ops->read(device, to, from, bytes);
    return kn == KN_OK ? SM_OK : sm_device_fail(device, kn, "reading results", error);
}

int sm_device_write(kn_device *device, void *to, const void *from, size_t bytes, sm_error *error)
{
    const int kn = device->ops->write(device, to, from, bytes);
    return kn == KN_OK ? SM_OK : sm_device_fail(device, kn, "sending numbers", error);
}

kn_dtype sm_device_dtype(const kn_device *device, kn_dtype wanted)
{
    return wanted == KN_BF16 && device->ops_bf16 ? KN_BF16 : KN_F32;
}

size_t sm_network_element(const sm_network *n)
{
    return sm_dtype_size(n->ops->dtype);
}

/* --- sizes ----------------------------------------------------------------------------------------------------------
 */

typedef struct sizes {
    size_t d, q, width, f, vocab;
} sizes;

static sizes sizes_of(const sm_config *c)
{
    const size_t q = (size_t)c->heads * c->head_dim;
    return (sizes){c->hidden, q, q + 2 * (size_t)c->kv_heads * c->head_dim, c->intermediate, c->vocab};
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Of the largest matrix. */
static size_t most_elements(const sizes *s)
{
    return larger(larger(s->width, s->q) * s->d, larger(2 * s->f, s->vocab) * s->d);
}

/* --- matrices -------------------------------------------------------------------------------------------------------
 */

static bool tied(const sm_layout *layout)
{
    return layout->head == layout->embed;
}

/* The matrix at this offset: in place, or packed. */
static kn_matrix *make_matrix(const sm_network *n, size_t offset, size_t out, size_t in, bool with_backward)
{
    if (!n->in_place)
        return n->ops->matrix_new(n->device, out, in, with_backward);
    return n->ops->matrix_at(n->device, n->rounded ? (const void *)(n->rounded + offset) : n->masters + offset, out,
                             in);
}

/* Whether the output matrix reads the embedding's rows where they lie. */
static bool shares_rows(const sm_network *n)
{
    return n->ops->matrix_at && tied(n->layout);
}

/* After the embedding. */
static int make_matrices(sm_network *n, bool with_backward)
{
    const sizes s = sizes_of(&n->layout->config);
    const kn_ops *ops = n->ops;
    if (shares_rows(n))
        n->head = ops->matrix_at(n->device, n->embed, s.vocab, s.d);
    else if (n->layout->head != SM_ABSENT)
        n->head = make_matrix(n, n->layout->head, s.vocab, s.d, with_backward);
    bool ok = n->head || n->layout->head == SM_ABSENT;
    for (size_t l = 0; ok && l < n->layout->config.layers; l++) {
        sm_layer_weights *m = &n->layer[l];
        const sm_layer_layout *at = &n->layout->layer[l];
        m->qkv = make_matrix(n, at->qkv, s.width, s.d, with_backward);
        m->out = make_matrix(n, at->out, s.d, s.q, with_backward);
        m->gate_up = make_matrix(n, at->gate_up, 2 * s.f, s.d, with_backward);
        m->down = make_matrix(n, at->down, s.d, s.f, with_backward);
        ok = m->qkv && m->out && m->gate_up && m->down;
    }
    return ok ? KN_OK : KN_NO_MEMORY;
}

/* What packing needs: a place for one matrix on the device where there are no masters, and one in host memory where
 * the device's is another. */
typedef struct packing {
    sm_network *n;
    float *room, *host_room;
    sm_error *error;
} packing;

/* Reads parameters into memory of the device. */
static int bring(const packing *p, size_t offset, size_t count, float *to)
{
    const sm_network *n = p->n;
    float *const at = n->device->host_memory ? to : p->host_room;
    const int rc = sm_numbers_read(&n->numbers, offset, count, at, p->error);
    return rc == SM_OK && at != to ? sm_device_write(n->device, to, at, count * sizeof(float), p->error) : rc;
}

/* The parameters at `offset` in memory of the device: masters, or brought into the room. */
static int fetch(const packing *p, size_t offset, size_t count, const float **out)
{
    const float *masters = p->n->masters;
    *out = masters ? masters + offset : p->room;
    return masters ? SM_OK : bring(p, offset, count, p->room);
}

static int set(const packing *p, kn_matrix *matrix, const float *w)
{
    const int kn = p->n->ops->matrix_set(p->n->device, matrix, w);
    return kn == KN_OK ? SM_OK : sm_device_fail(p->n->device, kn, "packing the weights", p->error);
}

static int pack_matrix(const packing *p, kn_matrix *matrix, size_t offset, size_t count)
{
    const float *w;
    const int rc = fetch(p, offset, count, &w);
    return rc == SM_OK ? set(p, matrix, w) : rc;
}

/* The embedding's rows, and the output matrix where they are the same numbers. */
static int pack_embedding(const packing *p)
{
    sm_network *n = p->n;
    const size_t count = (size_t)n->layout->config.vocab * n->layout->config.hidden;
    const float *w = NULL;
    int rc = SM_OK;
    if (n->ops->dtype == KN_F32 && n->own_embed) {
        rc = bring(p, n->layout->embed, count, n->own_embed);
        w = n->own_embed;
    } else {
        rc = fetch(p, n->layout->embed, count, &w);
    }
    if (rc == SM_OK && n->ops->dtype == KN_BF16) {
        const int kn = n->ops->to_bf16(n->device, n->own_embed, w, count);
        rc = kn == KN_OK ? SM_OK : sm_device_fail(n->device, kn, "packing the weights", p->error);
    }
    if (rc == SM_OK && n->head && tied(n->layout) && !shares_rows(n))
        rc = set(p, n->head, w);
    return rc;
}

static int pack_weights(const packing *p)
{
    const sm_network *n = p->n;
    const sizes s = sizes_of(&n->layout->config);
    if (n->in_place) {
        const int kn = n->rounded ? n->ops->to_bf16(n->device, n->rounded, n->masters, n->layout->count) : (int)KN_OK;
        return kn == KN_OK ? SM_OK : sm_device_fail(n->device, kn, "packing the weights", p->error);
    }
    int rc = pack_embedding(p);
    if (rc == SM_OK && n->head && !tied(n->layout))
        rc = pack_matrix(p, n->head, n->layout->head, s.vocab * s.d);
    for (size_t l = 0; rc == SM_OK && l < n->layout->config.layers; l++) {
        const sm_layer_layout *at = &n->layout->layer[l];
        const sm_layer_weights *m = &n->layer[l];
        if ((rc = pack_matrix(p, m->qkv, at->qkv, s.width * s.d)) == SM_OK &&
            (rc = pack_matrix(p, m->out, at->out, s.d * s.q)) == SM_OK &&
            (rc = pack_matrix(p, m->gate_up, at->gate_up, 2 * s.f * s.d)) == SM_OK)
            rc = pack_matrix(p, m->down, at->down, s.d * s.f);
    }
    return rc;
}

/* --- norms and biases -----------------------------------------------------------------------------------------------
 */

/* Each vector lies in the masters, or one after the other in the network's own memory. Twice the same walk: once to say
 * where on the device, once to read them into host memory laid out alike. */
typedef struct placing {
    sm_network *n;
    float *memory; /* own_vectors, NULL while they are only counted */
    float *host;   /* read to here; NULL = nothing is read */
    size_t used;
    int rc;
    sm_error *error;
} placing;

static const float *place(placing *p, size_t offset, size_t count)
{
    const sm_network *n = p->n;
    if (offset == SM_ABSENT)
        return NULL;
    if (n->masters)
        return n->masters + offset;
    const size_t at = p->used;
    p->used += count;
    if (p->host && p->rc == SM_OK)
        p->rc = sm_numbers_read(&n->numbers, offset, count, p->host + at, p->error);
    return p->memory ? p->memory + at : NULL;
}

static void place_vectors(placing *p)
{
    const sm_layout *layout = p->n->layout;
    const sizes s = sizes_of(&layout->config);
    p->n->norm = place(p, layout->norm, s.d);
    p->n->score = place(p, layout->score, layout->config.outputs * s.d);
    for (size_t l = 0; l < layout->config.layers; l++) {
        const sm_layer_layout *at = &layout->layer[l];
        sm_layer_weights *w = &p->n->layer[l];
        w->attention_norm = place(p, at->attention_norm, s.d);
        w->mlp_norm = place(p, at->mlp_norm, s.d);
        w->qkv_bias = place(p, at->qkv_bias, s.width);
        w->out_bias = place(p, at->out_bias, s.d);
        w->gate_up_bias = place(p, at->gate_up_bias, 2 * s.f);
        w->down_bias = place(p, at->down_bias, s.d);
    }
}

static int make_vectors(sm_network *n)
{
    placing p = {.n = n};
    place_vectors(&p);
    if (n->masters)
        return KN_OK;
    n->vector_count = p.used;
    n->own_vectors = n->ops->alloc(n->device, p.used * sizeof(float));
    return n->own_vectors ? KN_OK : KN_NO_MEMORY;
}

/* Without masters: all vectors in one go. */
static int set_vectors(sm_network *n, sm_error *error)
{
    const size_t bytes = n->vector_count * sizeof(float);
    float *const room = n->device->host_memory ? n->own_vectors : malloc(bytes);
    if (!room)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a model");
    placing p = {.n = n, .memory = n->own_vectors, .host = room, .error = error};
    place_vectors(&p);
    if (room == n->own_vectors)
        return p.rc;
    if (p.rc == SM_OK)
        p.rc = sm_device_write(n->device, n->own_vectors, room, bytes, error);
    free(room);
    return p.rc;
}

/* Tells a device that wants to know which biases its matrices will get, and their numbers. */
static int tell_biases(const sm_network *n, sm_error *error)
{
    int kn = KN_OK;
    for (size_t l = 0; n->ops->matrix_bias && kn == KN_OK && l < n->layout->config.layers; l++) {
        const sm_layer_weights *w = &n->layer[l];
        kn_matrix *const matrix[] = {w->qkv, w->out, w->gate_up, w->down};
        const float *const bias[] = {w->qkv_bias, w->out_bias, w->gate_up_bias, w->down_bias};
        for (size_t i = 0; kn == KN_OK && i < sizeof(bias) / sizeof(*bias); i++)
            if (bias[i])
                kn = n->ops->matrix_bias(n->device, matrix[i], bias[i]);
    }
    return kn == KN_OK ? SM_OK : sm_device_fail(n->device, kn, "packing the weights", error);
}

/* --- the whole ------------------------------------------------------------------------------------------------------
 */

static void fill_rope(const sm_config *c, const float *frequency, float *cosines, float *sines)
{
    const size_t half = c->head_dim / 2;
    for (size_t p = 0; p < c->max_positions; p++)
        for (size_t i = 0; i < half; i++) {
            /* as transformers: the angle is a float32 product */
            const float angle = (float)p * frequency[i];
            cosines[p * half + i] = (float)cos(angle);
            sines[p * half + i] = (float)sin(angle);
        }
}

static int make_rope(sm_network *n)
{
    const sm_config *c = &n->layout->config;
    const size_t half = c->head_dim / 2, bytes = c->max_positions * half * sizeof(float);
    const bool here = n->device->host_memory;
    float *frequency = malloc(half * sizeof(float)), *room = here ? NULL : malloc(2 * bytes);
    n->cos = n->ops->alloc(n->device, bytes);
    n->sin = n->ops->alloc(n->device, bytes);
    int kn = frequency && (here || room) && n->cos && n->sin ? KN_OK : KN_NO_MEMORY;
    if (kn == KN_OK) {
        float *const cosines = here ? n->cos : room, *const sines = here ? n->sin : room + c->max_positions * half;
        sm_config_rope_frequencies(c, frequency);
        fill_rope(c, frequency, cosines, sines);
        if (!here && (kn = n->ops->write(n->device, n->cos, cosines, bytes)) == KN_OK)
            kn = n->ops->write(n->device, n->sin, sines, bytes);
    }
    free(frequency);
    free(room);
    return kn;
}

/* Rows to look tokens up in: the masters' where they have the network's type. All masters are rounded at once where
 * matrices can lie in what that gives. */
static int make_embedding(sm_network *n)
{
    n->in_place = n->masters && n->ops->matrix_at;
    if (n->in_place && n->ops->dtype == KN_BF16) {
        n->rounded = n->ops->alloc(n->device, n->layout->count * sizeof(*n->rounded));
        n->embed = n->rounded ? n->rounded + n->layout->embed : NULL;
        return n->rounded ? KN_OK : KN_NO_MEMORY;
    }
    if (n->ops->dtype == KN_F32 && n->masters) {
        n->embed = n->masters + n->layout->embed;
        return KN_OK;
    }
    const size_t count = (size_t)n->layout->config.vocab * n->layout->config.hidden;
    n->embed = n->own_embed = n->ops->alloc(n->device, count * sm_network_element(n));
    return n->embed ? KN_OK : KN_NO_MEMORY;
}

int sm_network_new(sm_network **out, kn_device *device, kn_dtype dtype, const sm_layout *layout,
                   const sm_numbers *numbers, bool with_backward, sm_error *error)
{
    const sm_config *c = &layout->config;
    sm_network *n = calloc(1, sizeof(*n));
    *out = NULL;
    if (!n)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a model");
    n->device = device;
    n->ops = dtype == KN_BF16 ? device->ops_bf16 : device->ops;
    n->layout = layout;
    n->numbers = *numbers;
    n->masters = numbers->on_device ? numbers->on_device : device->host_memory ? numbers->params : NULL;
    n->attention = (kn_attention){.heads = c->heads,
                                  .kv_heads = c->kv_heads,
                                  .head_dim = c->head_dim,
                                  .scale = (float)(1.0 / sqrt((double)c->head_dim))};
    if (n->ops->attention(device, NULL, NULL, NULL, NULL, 0, 0, &n->attention) == KN_UNSUPPORTED) {
        sm_network_free(n);
        return sm_fail(error, SM_UNSUPPORTED,
                       "its attention heads have %u numbers, which is more than this device computes; run it on the "
                       "processor: runtime.device=cpu",
                       c->head_dim);
    }
    n->layer = calloc(c->layers, sizeof(*n->layer));
    int kn = n->layer ? KN_OK : KN_NO_MEMORY, rc = SM_OK;
    if (kn != KN_OK || (kn = make_embedding(n)) || (kn = make_matrices(n, with_backward)) || (kn = make_rope(n)) ||
        (kn = make_vectors(n)))
        rc = kn == KN_NO_MEMORY
                 ? sm_device_no_memory(device, error, "out of memory for a model of %zu parameters", layout->count)
                 : sm_device_fail(device, kn, "making a model", error);
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
    packing p = {.n = n, .error = error};
    int rc = SM_OK;
    if (!n->masters) {
        const sizes s = sizes_of(&n->layout->config);
        const size_t bytes = most_elements(&s) * sizeof(float);
        const bool here = n->device->host_memory;
        p.room = n->ops->alloc(n->device, bytes);
        p.host_room = here ? NULL : malloc(bytes);
        if (!p.room || (!here && !p.host_room))
            rc = sm_device_no_memory(n->device, error, "out of memory for a model of %zu parameters", n->layout->count);
        else
            rc = set_vectors(n, error);
    }
    if (rc == SM_OK)
        rc = pack_weights(&p);
    if (rc == SM_OK)
        rc = tell_biases(n, error);
    n->ops->free(n->device, p.room);
    free(p.host_room);
    return rc;
}

uint16_t *sm_network_rounded(const sm_network *n, size_t offset)
{
    return n->rounded ? n->rounded + offset : NULL;
}

int sm_network_follow(sm_network *n, sm_error *error)
{
    return n->in_place ? tell_biases(n, error) : sm_network_refresh(n, error);
}

void sm_network_free(sm_network *n)
{
    if (!n)
        return;
    const kn_ops *ops = n->ops;
    for (size_t l = 0; n->layer && l < n->layout->config.layers; l++) {
        ops->matrix_free(n->device, n->layer[l].qkv);
        ops->matrix_free(n->device, n->layer[l].out);
        ops->matrix_free(n->device, n->layer[l].gate_up);
        ops->matrix_free(n->device, n->layer[l].down);
    }
    ops->matrix_free(n->device, n->head);
    ops->free(n->device, n->cos);
    ops->free(n->device, n->sin);
    ops->free(n->device, n->own_embed);
    ops->free(n->device, n->rounded);
    ops->free(n->device, n->own_vectors);
    free(n->layer);
    free(n);
}
