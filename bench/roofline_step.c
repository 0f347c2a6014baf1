/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A decoding step as sampling asks for it: all layers, then logits and choice, between step_begin and step_end, so that
 * a device which keeps such steps (CUDA graphs) shows what it gains by that. */
#include "bench/roofline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { QKV, OUT, GATE_UP, DOWN, MATRICES }; /* of a layer */

typedef struct decoder {
    kn_matrix **matrix; /* [layers][MATRICES], then the output matrix */
    area table, norm, bias, cos, sin;
    area x, middle, normed, qkv, attended, gate_up, activated, logits;
    kn_attention attention;
    kn_cache *cache;
    kn_cached_rows *rows;
    kn_choice *choice;
    kn_chosen *chosen;
    uint32_t *token, *page;
} decoder;

static void *room(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p) {
        fprintf(stderr, "roofline: out of memory\n");
        exit(1);
    }
    return p;
}

static kn_matrix *matrix(roofline *r, const area *numbers, size_t out, size_t in)
{
    kn_matrix *m = r->ops->matrix_new(r->device, out, in, false);
    if (!m || r->ops->matrix_set(r->device, m, (const float *)(const void *)numbers->at) != KN_OK) {
        fprintf(stderr, "roofline: out of memory\n");
        exit(1);
    }
    return m;
}

static void make(roofline *r, decoder *d)
{
    const shape *s = r->shape;
    const size_t B = r->batch, wide = s->heads * s->head_dim, width = wide + 2 * s->kv_heads * s->head_dim;
    const size_t pages = (r->context + KN_PAGE) / KN_PAGE, positions = r->context + 1;
    const size_t size[MATRICES][2] = {
        {width, s->hidden}, {s->hidden, wide}, {2 * s->ffn, s->hidden}, {s->hidden, s->ffn}};
    area numbers = area_floats(r, s->vocab * s->hidden);
    d->matrix = room(s->layers * MATRICES + 1, sizeof(*d->matrix));
    for (size_t i = 0; i < s->layers * MATRICES; i++)
        d->matrix[i] = matrix(r, &numbers, size[i % MATRICES][0], size[i % MATRICES][1]);
    d->matrix[s->layers * MATRICES] = matrix(r, &numbers, s->vocab, s->hidden);
    r->ops->free(r->device, numbers.at);
    d->table = area_elements(r, s->vocab * s->hidden);
    d->norm = area_floats(r, s->hidden);
    d->bias = area_floats(r, width);
    d->cos = area_floats(r, positions * s->head_dim / 2);
    d->sin = area_floats(r, positions * s->head_dim / 2);
    d->x = area_elements(r, B * s->hidden);
    d->middle = area_elements(r, B * s->hidden);
    d->normed = area_elements(r, B * s->hidden);
    d->qkv = area_elements(r, B * width);
    d->attended = area_elements(r, B * wide);
    d->gate_up = area_elements(r, B * 2 * s->ffn);
    d->activated = area_elements(r, B * s->ffn);
    d->logits = area_floats(r, B * s->vocab);
    d->attention = (kn_attention){(uint32_t)s->heads,           (uint32_t)s->kv_heads, (uint32_t)s->head_dim, 0, 0,
                                  1 / sqrtf((float)s->head_dim)};
    d->cache = r->ops->cache_new(r->device, s->layers, B * pages, &d->attention);
    d->rows = room(B, sizeof(*d->rows));
    d->choice = room(B, sizeof(*d->choice));
    d->chosen = room(B, sizeof(*d->chosen));
    d->token = room(B, sizeof(*d->token));
    d->page = room(B * pages, sizeof(*d->page));
    for (size_t p = 0; p < B * pages; p++)
        d->page[p] = (uint32_t)p;
    for (size_t b = 0; b < B; b++) {
        d->rows[b] = (kn_cached_rows){b, 1, r->context, d->page + b * pages};
        d->choice[b] = (kn_choice){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .key = {b, 1}};
        d->token[b] = (uint32_t)(b % s->vocab);
    }
}

static void unmake(roofline *r, decoder *d)
{
    area *const all[] = {&d->table,  &d->norm, &d->bias,     &d->cos,     &d->sin,       &d->x,     &d->middle,
                         &d->normed, &d->qkv,  &d->attended, &d->gate_up, &d->activated, &d->logits};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        r->ops->free(r->device, all[i]->at);
    for (size_t i = 0; i <= r->shape->layers * MATRICES; i++)
        r->ops->matrix_free(r->device, d->matrix[i]);
    if (d->cache)
        r->ops->cache_free(r->device, d->cache);
    void *const here[] = {d->matrix, d->rows, d->choice, d->chosen, d->token, d->page};
    for (size_t i = 0; i < sizeof(here) / sizeof(*here); i++)
        free(here[i]);
}

static int layer(roofline *r, decoder *d, size_t l)
{
    const kn_ops *o = r->ops;
    kn_device *v = r->device;
    const shape *s = r->shape;
    const size_t B = r->batch;
    kn_matrix *const *m = d->matrix + l * MATRICES;
    const float *norm = (const float *)(const void *)d->norm.at, *bias = (const float *)(const void *)d->bias.at;
    const kn_rotary rotary = {(const float *)(const void *)d->cos.at, (const float *)(const void *)d->sin.at};
    int kn;
    if ((kn = o->rms_norm(v, d->normed.at, NULL, d->x.at, norm, B, s->hidden, 1e-6f)) ||
        (kn = o->linear(v, d->qkv.at, d->normed.at, m[QKV], bias, NULL, B)) ||
        (kn = o->attention_cached(v, d->attended.at, d->qkv.at, d->cache, l, d->rows, B, B, &rotary)) ||
        (kn = o->linear(v, d->middle.at, d->attended.at, m[OUT], NULL, d->x.at, B)) ||
        (kn = o->rms_norm(v, d->normed.at, NULL, d->middle.at, norm, B, s->hidden, 1e-6f)) ||
        (kn = o->linear(v, d->gate_up.at, d->normed.at, m[GATE_UP], NULL, NULL, B)) ||
        (kn = o->swiglu(v, d->activated.at, d->gate_up.at, B, s->ffn)))
        return kn;
    return o->linear(v, d->x.at, d->activated.at, m[DOWN], NULL, d->middle.at, B);
}

static int step(roofline *r, decoder *d)
{
    const kn_ops *o = r->ops;
    const shape *s = r->shape;
    kn_device *v = r->device;
    const size_t B = r->batch;
    int kn = o->step_begin ? o->step_begin(v) : KN_OK;
    if (kn != KN_OK)
        return kn;
    kn = o->embed(v, d->x.at, d->table.at, d->token, B, s->hidden);
    for (size_t l = 0; kn == KN_OK && l < s->layers; l++)
        kn = layer(r, d, l);
    if (kn == KN_OK)
        kn = o->rms_norm(v, d->normed.at, NULL, d->x.at, (const float *)(const void *)d->norm.at, B, s->hidden, 1e-6f);
    float *const logits = (float *)(void *)d->logits.at;
    if (kn == KN_OK)
        kn = o->logits(v, logits, d->normed.at, d->matrix[s->layers * MATRICES], B);
    if (kn == KN_OK)
        kn = o->choose(v, d->chosen, logits, d->choice, B, s->vocab);
    const int end = o->step_end ? o->step_end(v) : KN_OK;
    return kn != KN_OK ? kn : end;
}

/* What a step moves at least: weights, keys and values, logits once each way. */
static double least_bytes(const roofline *r, double size)
{
    const shape *s = r->shape;
    const double wide = (double)(s->heads * s->head_dim), keys = (double)(s->kv_heads * s->head_dim);
    const double d = (double)s->hidden, each = d * (2 * wide + 2 * keys + 3 * (double)s->ffn);
    const double cached = 2 * keys * (double)(r->batch * (r->context + 1));
    return size * ((double)s->layers * (each + cached) + (double)s->vocab * d) + 8 * (double)(r->batch * s->vocab);
}

void roofline_step(roofline *r)
{
    static const char name[] = "a decoding step, whole";
    if (r->only && !strstr(name, r->only))
        return;
    decoder d = {0};
    const size_t spread = r->spread;
    r->spread = 0; /* the step is larger than any cache as it is */
    make(r, &d);
    r->spread = spread;
    const shape *s = r->shape;
    const double size = r->ops->dtype == KN_F32 ? sizeof(float) : sizeof(uint16_t);
    const double wide = (double)(s->heads * s->head_dim), keys = (double)(s->kv_heads * s->head_dim);
    const double weights = (double)s->layers * (double)s->hidden * (2 * wide + 2 * keys + 3 * (double)s->ffn) +
                           (double)(s->vocab * s->hidden);
    const double flops = 2 * (double)r->batch * weights + 4 * (double)(s->layers * r->batch * (r->context + 1)) * wide;
    enum { ROUNDS = 9 };
    double took[ROUNDS];
    int status = d.cache ? KN_OK : KN_NO_MEMORY;
    for (int i = -3; i < ROUNDS && status == KN_OK; i++) { /* the third time it is known */
        const double start = roofline_now();
        status = step(r, &d); /* waits for what was chosen */
        if (i >= 0)
            took[i] = roofline_now() - start;
    }
    if (status == KN_OK)
        roofline_print(r, name, roofline_median(took, ROUNDS), flops, least_bytes(r, size), status);
    else
        fprintf(stderr, "roofline: %s refused: status %d\n", name, status);
    unmake(r, &d);
}
