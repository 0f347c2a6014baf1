/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The ops of a training step and of a decoding step, with the flops and bytes they cannot do without. */
#include "bench/roofline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What an element of the table's type takes. */
static double size_of(const roofline *r)
{
    return r->ops->dtype == KN_F32 ? sizeof(float) : sizeof(uint16_t);
}

static bool wanted(const roofline *r, const char *name)
{
    return !r->only || strstr(name, r->only);
}

static void *room(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p) {
        fprintf(stderr, "roofline: out of memory\n");
        exit(1);
    }
    return p;
}

/* Area i for this call. */
static void *at(const job *j, int i, size_t call)
{
    return area_at(&j->area[i], call);
}

#define ASK(j, op, ...) ((j)->status |= (j)->r->ops->op((j)->r->device, __VA_ARGS__))

/* --- products: areas are x, y, dw, which is written as by the first pass of a step --- */

static void forward(job *j, size_t i)
{
    ASK(j, linear, at(j, 1, i), at(j, 0, i), job_matrix(j, i), NULL, NULL, j->T);
}

static void forward_added(job *j, size_t i)
{
    ASK(j, linear, at(j, 1, i), at(j, 0, i), job_matrix(j, i), NULL, at(j, 1, i), j->T);
}

static void forward_bias(job *j, size_t i)
{
    ASK(j, linear, at(j, 1, i), at(j, 0, i), job_matrix(j, i), at(j, 2, i), NULL, j->T);
}

static void backward_input(job *j, size_t i)
{
    ASK(j, linear_backward_input, at(j, 0, i), at(j, 1, i), job_matrix(j, i), j->T, false);
}

static void backward_weight(job *j, size_t i)
{
    ASK(j, linear_backward_weight, at(j, 2, i), NULL, at(j, 1, i), at(j, 0, i), j->T, j->out, j->in, false);
}

typedef struct layer {
    const char *name[3]; /* forward, input, weight; NULL = not measured */
    size_t out, in;
    job_run forward;
} layer;

static void products(roofline *r, const layer *l, size_t T, bool decoding)
{
    static const job_run backward[] = {NULL, backward_input, backward_weight};
    const double size = size_of(r), flops = 2.0 * (double)T * (double)l->out * (double)l->in;
    const double x = size * (double)(T * l->in), y = size * (double)(T * l->out), w = (double)(l->out * l->in);
    for (int k = 0; k < (decoding ? 1 : 3); k++) {
        if (!wanted(r, l->name[k]))
            continue;
        job j = {.r = r, .T = T, .out = l->out, .in = l->in};
        j.area[0] = area_elements(r, T * l->in);
        j.area[1] = area_elements(r, T * l->out);
        if (k == 2)
            j.area[2] = area_floats(r, l->out * l->in);
        else if (l->forward == forward_bias)
            j.area[2] = area_floats(r, l->out);
        if (k < 2)
            job_matrices(&j, l->out, l->in);
        const double extra = k == 0 && l->forward == forward_added ? y : 0;
        const double bytes = x + y + extra + (k == 2 ? 4 * w : size * w);
        job_measure(&j, l->name[k], k ? backward[k] : l->forward, flops, bytes, (double)r->shape->layers, decoding);
    }
}

/* --- rows: area 0 is what is written --- */

static void norm(job *j, size_t i)
{
    ASK(j, rms_norm, at(j, 0, i), at(j, 3, i), at(j, 1, i), at(j, 2, i), j->T, j->in, 1e-6f);
}

static void norm_backward(job *j, size_t i)
{
    ASK(j, rms_norm_backward, at(j, 0, i), at(j, 4, 0), at(j, 6, i), at(j, 5, i), at(j, 1, i), at(j, 2, i), at(j, 3, i),
        j->T, j->in, false);
}

/* Those of a step are short; `many` rows show what they make of the memory. */
static void norms(roofline *r, size_t T, bool decoding, bool many)
{
    const size_t d = r->shape->hidden;
    const double n = (double)(T * d), times = many ? 0 : 2.0 * (double)r->shape->layers + 1;
    const char *const names[] = {decoding ? "rms_norm, a token"
                                 : many   ? "rms_norm, many rows"
                                          : "rms_norm",
                                 many ? "rms_norm_backward, many rows" : "rms_norm_backward"};
    for (int k = 0; k < (decoding ? 1 : 2); k++) {
        if (!wanted(r, names[k]))
            continue;
        job j = {.r = r, .T = T, .in = d};
        j.area[0] = area_elements(r, T * d);
        j.area[1] = area_elements(r, T * d);
        j.area[2] = area_floats(r, d);
        j.area[3] = area_floats(r, T);
        j.area[4] = area_floats(r, d);
        for (int i = 5; k == 1 && i < 7; i++)
            j.area[i] = area_elements(r, T * d);
        job_measure(&j, names[k], k ? norm_backward : norm, (k ? 10 : 4) * n, (k ? 5 : 2) * n * size_of(r), times,
                    decoding);
    }
}

static void rope(job *j, size_t i)
{
    ASK(j, rope, at(j, 0, i), j->out, j->index, at(j, 1, 0), at(j, 2, 0), j->T, j->in, j->attention.head_dim, false);
}

static void ropes(roofline *r, size_t T, bool decoding)
{
    const shape *s = r->shape;
    const char *name = decoding ? "rope, a token" : "rope";
    const size_t width = (s->heads + 2 * s->kv_heads) * s->head_dim, heads = s->heads + s->kv_heads, most = 4096;
    if (!wanted(r, name))
        return;
    job j = {.r = r, .T = T, .in = heads, .out = width, .attention = {.head_dim = (uint32_t)s->head_dim}};
    j.area[0] = area_elements(r, T * width);
    j.area[1] = area_floats(r, most * s->head_dim / 2);
    j.area[2] = area_floats(r, most * s->head_dim / 2);
    j.index = room(T, sizeof(*j.index));
    for (size_t t = 0; t < T; t++)
        j.index[t] = (uint32_t)(decoding ? r->context : t % 256);
    const double n = (double)(T * heads * s->head_dim);
    job_measure(&j, name, rope, 3 * n, 2 * n * size_of(r), (decoding ? 1 : 2) * (double)s->layers, decoding);
}

static void swiglu(job *j, size_t i)
{
    ASK(j, swiglu, at(j, 0, i), at(j, 1, i), j->T, j->in);
}

static void swiglu_backward(job *j, size_t i)
{
    ASK(j, swiglu_backward, at(j, 0, i), at(j, 3, i), at(j, 2, i), at(j, 1, i), j->T, j->in);
}

static void gates(roofline *r, size_t T, bool decoding)
{
    const size_t f = r->shape->ffn;
    const double n = (double)(T * f), times = (double)r->shape->layers;
    const char *const names[] = {decoding ? "swiglu, a token" : "swiglu", "swiglu_backward"};
    for (int k = 0; k < (decoding ? 1 : 2); k++) {
        if (!wanted(r, names[k]))
            continue;
        job j = {.r = r, .T = T, .in = f};
        j.area[0] = area_elements(r, (k ? 2 : 1) * T * f);
        j.area[1] = area_elements(r, 2 * T * f);
        for (int i = 2; k && i < 4; i++)
            j.area[i] = area_elements(r, T * f);
        job_measure(&j, names[k], k ? swiglu_backward : swiglu, (k ? 10 : 5) * n, (k ? 6 : 3) * n * size_of(r), times,
                    decoding);
    }
}

static void embed(job *j, size_t i)
{
    ASK(j, embed, at(j, 0, i), at(j, 1, 0), j->index, j->T, j->in);
}

static void embed_backward(job *j, size_t i)
{
    ASK(j, embed_backward, (float *)at(j, 1, 0), at(j, 0, i), j->index, j->T, j->in, j->out);
}

static void embeddings(roofline *r)
{
    const shape *s = r->shape;
    const double n = (double)(r->tokens * s->hidden);
    const char *const names[] = {"embed", "embed_backward"};
    for (int k = 0; k < 2; k++) {
        if (!wanted(r, names[k]))
            continue;
        job j = {.r = r, .T = r->tokens, .in = s->hidden, .out = s->vocab};
        j.area[0] = area_elements(r, r->tokens * s->hidden);
        j.area[1] = k ? area_floats(r, s->vocab * s->hidden) : area_elements(r, s->vocab * s->hidden);
        j.index = room(r->tokens, sizeof(*j.index));
        for (size_t t = 0; t < r->tokens; t++)
            j.index[t] = (uint32_t)(t * 2654435761u % s->vocab);
        job_measure(&j, names[k], k ? embed_backward : embed, k ? n : 0, n * (size_of(r) + (k ? 8 : size_of(r))), 1,
                    false);
    }
}

/* --- attention: areas are out, qkv, lse, dqkv, dout --- */

static void attention(job *j, size_t i)
{
    ASK(j, attention, at(j, 0, i), at(j, 2, i), at(j, 1, i), j->segment, j->segments, j->T, &j->attention);
}

static void attention_backward(job *j, size_t i)
{
    ASK(j, attention_backward, at(j, 3, i), at(j, 4, i), at(j, 1, i), at(j, 0, i), at(j, 2, i), j->segment, j->segments,
        j->T, &j->attention);
}

static kn_attention attention_of(const shape *s)
{
    return (kn_attention){(uint32_t)s->heads,           (uint32_t)s->kv_heads, (uint32_t)s->head_dim, 0, 0,
                          1 / sqrtf((float)s->head_dim)};
}

/* Causal: half of the keys. The backward pass computes five products where the forward pass computes two. */
static void attentions(roofline *r)
{
    const shape *s = r->shape;
    const size_t T = r->tokens, width = (s->heads + 2 * s->kv_heads) * s->head_dim, wide = s->heads * s->head_dim;
    static const char *const names[][2] = {{"attention, 256 each", "attention_backward, 256 each"},
                                           {"attention, all together", "attention_backward, all"}};
    for (int whole = 0; whole < 2; whole++)
        for (int k = 0; k < 2; k++) {
            const size_t L = whole || T < 256 ? T : 256, segments = T / L;
            if (!wanted(r, names[whole][k]))
                continue;
            job j = {.r = r, .T = segments * L, .segments = segments, .attention = attention_of(s)};
            j.area[0] = area_elements(r, T * wide);
            j.area[1] = area_elements(r, T * width);
            j.area[2] = area_floats(r, T * s->heads);
            if (k) {
                j.area[3] = area_elements(r, T * width);
                j.area[4] = area_elements(r, T * wide);
            }
            j.segment = room(segments, sizeof(*j.segment));
            for (size_t i = 0; i < segments; i++)
                j.segment[i] = (kn_segment){i * L, L, 0, 0};
            for (size_t i = 0; k && i < j.area[0].slots; i++) /* out and lse that belong together */
                attention(&j, i);
            const double flops = (k ? 2.5 : 1) * 2 * (double)(j.T * L) * (double)wide;
            const double bytes = size_of(r) * (double)T * (double)((k ? 2 : 1) * (width + wide));
            job_measure(&j, names[whole][k], k ? attention_backward : attention, flops, bytes,
                        whole ? 0 : (double)s->layers, false);
        }
}

static void attention_cached(job *j, size_t i)
{
    ASK(j, attention_cached, at(j, 0, i), at(j, 1, i), j->cache, i % 2, j->rows, j->segments, j->T, NULL);
}

/* Each sequence adds a token to `context` others of its own. */
static void decoding_attention(roofline *r)
{
    const shape *s = r->shape;
    const size_t B = r->batch, width = (s->heads + 2 * s->kv_heads) * s->head_dim, wide = s->heads * s->head_dim;
    const size_t pages = (r->context + KN_PAGE) / KN_PAGE;
    if (!wanted(r, "attention_cached"))
        return;
    job j = {.r = r, .T = B, .segments = B, .attention = attention_of(s)};
    j.area[0] = area_elements(r, B * wide);
    j.area[1] = area_elements(r, B * width);
    j.cache = r->ops->cache_new(r->device, 2, B * pages, &j.attention);
    j.index = room(B * pages, sizeof(*j.index));
    j.rows = room(B, sizeof(*j.rows));
    for (size_t p = 0; p < B * pages; p++)
        j.index[p] = (uint32_t)p;
    for (size_t b = 0; b < B; b++)
        j.rows[b] = (kn_cached_rows){b, 1, r->context, j.index + b * pages};
    const double keys = (double)(B * (r->context + 1));
    const double bytes = size_of(r) * (2 * keys * (double)(s->kv_heads * s->head_dim) + (double)(B * (width + wide)));
    if (!j.cache)
        j.status = KN_NO_MEMORY;
    if (j.cache)
        job_measure(&j, "attention_cached", attention_cached, 4 * keys * (double)wide, bytes, (double)s->layers, true);
}

/* --- the vocabulary: areas are logprob, lse, h, dh, dw, logits (those that were kept) --- */

static void logprob(job *j, size_t i)
{
    ASK(j, logprob, at(j, 0, i), at(j, 1, i), NULL, at(j, 2, i), job_matrix(j, i), j->index, j->T, NULL);
}

static void logprob_backward(job *j, size_t i)
{
    ASK(j, logprob_backward, at(j, 3, i), at(j, 4, 0), at(j, 0, i), at(j, 2, i), job_matrix(j, i), at(j, 1, i),
        j->index, j->T, false, j->area[5].slots > 0 ? at(j, 5, i) : NULL);
}

static void logits(job *j, size_t i)
{
    ASK(j, logits, at(j, 5, i), at(j, 2, i), job_matrix(j, i), j->T);
}

static void choose(job *j, size_t i)
{
    ASK(j, choose, j->chosen, at(j, 5, i), j->choice, j->T, j->out);
}

/* The gradient is two products, and a third for logits that were not kept. */
static void vocabulary(roofline *r)
{
    const shape *s = r->shape;
    const size_t T = r->tokens;
    const double size = size_of(r), w = (double)(s->vocab * s->hidden), h = (double)(T * s->hidden);
    const char *const names[] = {"logprob", "logprob_backward"};
    for (int k = 0; k < 2; k++) {
        if (!wanted(r, names[k]))
            continue;
        job j = {.r = r, .T = T, .out = s->vocab, .in = s->hidden};
        j.area[0] = area_floats(r, T);
        j.area[1] = area_floats(r, T);
        j.area[2] = area_elements(r, T * s->hidden);
        if (k) {
            j.area[3] = area_elements(r, T * s->hidden);
            j.area[4] = area_floats(r, s->vocab * s->hidden);
        }
        job_matrices(&j, s->vocab, s->hidden);
        const size_t kept = k ? r->ops->logits_kept(r->device, job_matrix(&j, 0), T) : 0;
        if (kept > 0)
            j.area[5] = area_floats(r, kept * s->vocab);
        const double products = k ? 3 - (double)kept / (double)T : 1, logits = 4 * (double)(kept * s->vocab);
        j.index = room(T, sizeof(*j.index));
        for (size_t t = 0; t < T; t++)
            j.index[t] = (uint32_t)(t * 2654435761u % s->vocab);
        for (size_t i = 0; k && i < j.area[1].slots; i++)
            if (i < 2 * j.matrices) /* an lse that fits, as far as it matters for time */
                logprob(&j, i);
        job_measure(&j, names[k], k ? logprob_backward : logprob, products * 2 * (double)T * w,
                    k ? (size + 4) * w + 2 * size * h + logits : size * (w + h), 1, false);
    }
}

static void decoding_vocabulary(roofline *r)
{
    const shape *s = r->shape;
    const size_t B = r->batch;
    const double w = (double)(s->vocab * s->hidden), n = (double)(B * s->vocab);
    if (wanted(r, "logits, a token")) {
        job j = {.r = r, .T = B, .out = s->vocab, .in = s->hidden};
        j.area[2] = area_elements(r, B * s->hidden);
        j.area[5] = area_floats(r, B * s->vocab);
        job_matrices(&j, s->vocab, s->hidden);
        job_measure(&j, "logits, a token", logits, 2 * (double)B * w, size_of(r) * w + 4 * n, 1, true);
    }
    for (int cut = 0; cut < 2; cut++) {
        const char *name = cut ? "choose, top-k 50, top-p 0.9" : "choose";
        if (!wanted(r, name))
            continue;
        job j = {.r = r, .T = B, .out = s->vocab};
        j.area[5] = area_floats(r, B * s->vocab);
        j.choice = room(B, sizeof(*j.choice));
        j.chosen = room(B, sizeof(*j.chosen));
        for (size_t b = 0; b < B; b++)
            j.choice[b] = (kn_choice){.temperature = 1,
                                      .top_p = cut ? 0.9f : 1,
                                      .top_k = cut ? 50 : 0,
                                      .repetition_penalty = 1,
                                      .key = {b, 1}};
        job_measure(&j, name, choose, 10 * n, 4 * n, cut ? 0 : 1, true);
    }
}

/* --- the optimizer: areas are w, m, v, g, w rounded --- */

static void adamw(job *j, size_t i)
{
    const kn_adamw a = {.lr = 1e-5f,
                        .beta1 = 0.9f,
                        .beta2 = 0.95f,
                        .eps = 1e-8f,
                        .weight_decay = 0.1f,
                        .step = 10,
                        .grad_scale = 1,
                        .rounded = j->area[4].at ? at(j, 4, i) : NULL};
    ASK(j, adamw, at(j, 0, i), at(j, 1, i), at(j, 2, i), at(j, 3, i), j->in, &a);
}

static void sum_squares(job *j, size_t i)
{
    ASK(j, sum_squares_add, at(j, 0, 0), at(j, 3, i), j->in);
}

static void optimizer(roofline *r)
{
    const shape *s = r->shape;
    const size_t n = 3 * s->hidden * s->ffn; /* as large as a layer's gates */
    const double parameters =
        (double)(s->vocab * s->hidden) +
        (double)s->layers * (double)(n + s->hidden * (2 * s->heads + 2 * s->kv_heads) * s->head_dim);
    for (int k = 0; k < 2; k++) {
        const char *name = k ? "sum_squares_add" : "adamw";
        if (!wanted(r, name))
            continue;
        job j = {.r = r, .in = n};
        for (int i = k ? 3 : 0; i < 4; i++)
            j.area[i] = area_floats(r, n);
        if (k)
            j.area[0] = area_floats(r, 2);
        const bool rounds = !k && r->ops->dtype == KN_BF16;
        if (rounds)
            j.area[4] = area_elements(r, n);
        for (size_t i = 0; !k && i < j.area[2].slots; i++) /* second moments are not negative */
            r->ops->clear(r->device, at(&j, 2, i), n * sizeof(float));
        job_measure(&j, name, k ? sum_squares : adamw, (k ? 2 : 15) * (double)n,
                    (k        ? 4
                     : rounds ? 30
                              : 28) *
                        (double)n,
                    parameters / (double)n, false);
    }
}

/* --- a step --- */

static void layers(roofline *r, size_t T, bool decoding)
{
    const shape *s = r->shape;
    const size_t width = (s->heads + 2 * s->kv_heads) * s->head_dim, wide = s->heads * s->head_dim;
    const layer training[] = {
        {{"qkv, bias", "qkv, input", "qkv, weight"}, width, s->hidden, forward_bias},
        {{"out, residual", "out, input", "out, weight"}, s->hidden, wide, forward_added},
        {{"gate and up", "gate and up, input", "gate and up, weight"}, 2 * s->ffn, s->hidden, forward},
        {{"down, residual", "down, input", "down, weight"}, s->hidden, s->ffn, forward_added},
    };
    const layer token[] = {
        {{"qkv, bias, a token"}, width, s->hidden, forward_bias},
        {{"out, residual, a token"}, s->hidden, wide, forward_added},
        {{"gate and up, a token"}, 2 * s->ffn, s->hidden, forward},
        {{"down, residual, a token"}, s->hidden, s->ffn, forward_added},
    };
    for (size_t i = 0; i < 4; i++)
        products(r, decoding ? &token[i] : &training[i], T, decoding);
}

void roofline_training(roofline *r)
{
    layers(r, r->tokens, false);
    attentions(r);
    norms(r, r->tokens, false, false);
    norms(r, 32 * r->tokens, false, true);
    ropes(r, r->tokens, false);
    gates(r, r->tokens, false);
    embeddings(r);
    vocabulary(r);
    optimizer(r);
}

void roofline_decoding(roofline *r)
{
    layers(r, r->batch, true);
    decoding_attention(r);
    norms(r, r->batch, true, false);
    ropes(r, r->batch, true);
    gates(r, r->batch, true);
    decoding_vocabulary(r);
}
