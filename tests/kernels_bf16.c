/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "kernels_bf16.h"

#include "kernels/bf16.h"
#include "kernels_test.h"

typedef struct adapter {
    kn_device base;
    kn_device *inner;
} adapter;

typedef struct matrix {
    kn_matrix *inner;
    size_t out, in;
} matrix;

typedef struct cache {
    kn_cache *inner;
    kn_attention shape;
} cache;

#define INNER(d)  (((const adapter *)(d))->inner)
#define OPS(d)    (INNER(d)->ops_bf16)
#define MATRIX(m) ((const matrix *)(m))

/* A rounded copy, NULL of NULL; and back into float32, freed. */
static uint16_t *narrow(const float *x, size_t n)
{
    if (!x)
        return NULL;
    uint16_t *y = test_memory(n * sizeof(*y));
    for (size_t i = 0; i < n; i++)
        y[i] = kn_narrow(x[i]);
    return y;
}

static void widen(float *to, uint16_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = kn_widen(from[i]);
    free(from);
}

void bf16_round(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = kn_widen(kn_narrow(x[i]));
}

static const char *numerics(const kn_device *d)
{
    return OPS(d)->numerics(INNER(d));
}

static size_t row_group(const kn_device *d)
{
    return OPS(d)->row_group(INNER(d));
}

static int threads(const kn_device *d)
{
    return OPS(d)->threads(INNER(d));
}

static int set_threads(kn_device *d, int n)
{
    return OPS(d)->set_threads(INNER(d), n);
}

/* --- matrix products --- */

static kn_matrix *matrix_new(kn_device *d, size_t out, size_t in, bool with_backward)
{
    matrix *m = test_memory(sizeof(*m));
    *m = (matrix){OPS(d)->matrix_new(INNER(d), out, in, with_backward), out, in};
    if (!m->inner) {
        free(m);
        return NULL;
    }
    return (kn_matrix *)m;
}

static int matrix_set(kn_device *d, kn_matrix *m, const float *w)
{
    return OPS(d)->matrix_set(INNER(d), MATRIX(m)->inner, w);
}

static void matrix_free(kn_device *d, kn_matrix *m)
{
    if (m)
        OPS(d)->matrix_free(INNER(d), MATRIX(m)->inner);
    free(m);
}

static int linear(kn_device *d, void *y, const void *x, const kn_matrix *m, const float *bias, const void *residual,
                  size_t T)
{
    const size_t n = T * MATRIX(m)->out;
    uint16_t *x16 = narrow(x, T * MATRIX(m)->in), *r16 = narrow(residual, n);
    uint16_t *y16 = y == residual ? r16 : test_memory(n * sizeof(*y16));
    const int rc = OPS(d)->linear(INNER(d), y16, x16, MATRIX(m)->inner, bias, r16, T);
    free(x16);
    if (r16 != y16)
        free(r16);
    widen(y, y16, n);
    return rc;
}

static int linear_backward_input(kn_device *d, void *dx, const void *dy, const kn_matrix *m, size_t T, bool accumulate)
{
    const size_t n = T * MATRIX(m)->in;
    uint16_t *dx16 = narrow(dx, n), *dy16 = narrow(dy, T * MATRIX(m)->out);
    const int rc = OPS(d)->linear_backward_input(INNER(d), dx16, dy16, MATRIX(m)->inner, T, accumulate);
    free(dy16);
    widen(dx, dx16, n);
    return rc;
}

static int linear_backward_weight(kn_device *d, float *dw, float *db, const void *dy, const void *x, size_t T,
                                  size_t out, size_t in)
{
    uint16_t *dy16 = narrow(dy, T * out), *x16 = narrow(x, T * in);
    const int rc = OPS(d)->linear_backward_weight(INNER(d), dw, db, dy16, x16, T, out, in);
    free(dy16);
    free(x16);
    return rc;
}

/* --- rows --- */

static int rms_norm(kn_device *d, void *y, float *rstd, const void *x, const float *w, size_t T, size_t n, float eps)
{
    uint16_t *x16 = narrow(x, T * n), *y16 = test_memory(T * n * sizeof(*y16));
    const int rc = OPS(d)->rms_norm(INNER(d), y16, rstd, x16, w, T, n, eps);
    free(x16);
    widen(y, y16, T * n);
    return rc;
}

static int rms_norm_backward(kn_device *d, void *dx, float *dw, const void *dy, const void *x, const float *w,
                             const float *rstd, size_t T, size_t n)
{
    uint16_t *dx16 = narrow(dx, T * n), *dy16 = narrow(dy, T * n), *x16 = narrow(x, T * n);
    const int rc = OPS(d)->rms_norm_backward(INNER(d), dx16, dw, dy16, x16, w, rstd, T, n);
    free(dy16);
    free(x16);
    widen(dx, dx16, T * n);
    return rc;
}

static int rope(kn_device *d, void *x, size_t stride, const uint32_t *position, const float *cos_t, const float *sin_t,
                size_t T, size_t heads, size_t head_dim, bool inverse)
{
    uint16_t *x16 = narrow(x, T * stride);
    const int rc = OPS(d)->rope(INNER(d), x16, stride, position, cos_t, sin_t, T, heads, head_dim, inverse);
    widen(x, x16, T * stride);
    return rc;
}

static int swiglu(kn_device *d, void *y, const void *gate_up, size_t T, size_t f)
{
    uint16_t *x16 = narrow(gate_up, T * 2 * f), *y16 = test_memory(T * f * sizeof(*y16));
    const int rc = OPS(d)->swiglu(INNER(d), y16, x16, T, f);
    free(x16);
    widen(y, y16, T * f);
    return rc;
}

static int swiglu_backward(kn_device *d, void *dgate_up, const void *dy, const void *gate_up, size_t T, size_t f)
{
    uint16_t *x16 = narrow(gate_up, T * 2 * f), *dy16 = narrow(dy, T * f);
    uint16_t *dx16 = test_memory(T * 2 * f * sizeof(*dx16));
    const int rc = OPS(d)->swiglu_backward(INNER(d), dx16, dy16, x16, T, f);
    free(x16);
    free(dy16);
    widen(dgate_up, dx16, T * 2 * f);
    return rc;
}

static int embed(kn_device *d, void *y, const void *table, const uint32_t *token, size_t T, size_t n)
{
    uint32_t most = 0;
    for (size_t t = 0; t < T; t++)
        most = token[t] > most ? token[t] : most;
    uint16_t *table16 = narrow(table, (most + 1) * n), *y16 = test_memory(T * n * sizeof(*y16));
    const int rc = OPS(d)->embed(INNER(d), y16, table16, token, T, n);
    free(table16);
    widen(y, y16, T * n);
    return rc;
}

static int embed_backward(kn_device *d, float *dtable, const void *dy, const uint32_t *token, size_t T, size_t n,
                          size_t vocab)
{
    uint16_t *dy16 = narrow(dy, T * n);
    const int rc = OPS(d)->embed_backward(INNER(d), dtable, dy16, token, T, n, vocab);
    free(dy16);
    return rc;
}

static int scatter_add(kn_device *d, void *y, const void *x, const uint32_t *row, size_t S, size_t T, size_t n)
{
    uint16_t *y16 = narrow(y, T * n), *x16 = narrow(x, S * n);
    const int rc = OPS(d)->scatter_add(INNER(d), y16, x16, row, S, T, n);
    free(x16);
    widen(y, y16, T * n);
    return rc;
}

static int dropout(kn_device *d, void *x, size_t T, size_t n, float rate, const uint64_t key[2], const uint64_t *row_id)
{
    uint16_t *x16 = narrow(x, T * n);
    const int rc = OPS(d)->dropout(INNER(d), x16, T, n, rate, key, row_id);
    widen(x, x16, T * n);
    return rc;
}

static int add(kn_device *d, void *y, const void *x, size_t n)
{
    uint16_t *x16 = narrow(x, n), *y16 = narrow(y, n);
    const int rc = OPS(d)->add(INNER(d), y16, x16, n);
    free(x16);
    widen(y, y16, n);
    return rc;
}

static int axpy(kn_device *d, void *y, float a, const void *x, size_t n)
{
    uint16_t *x16 = narrow(x, n), *y16 = narrow(y, n);
    const int rc = OPS(d)->axpy(INNER(d), y16, a, x16, n);
    free(x16);
    widen(y, y16, n);
    return rc;
}

/* --- attention --- */

static size_t qkv_size(const kn_attention *a, size_t T)
{
    return T * (a->heads + 2 * (size_t)a->kv_heads) * a->head_dim;
}

static size_t out_size(const kn_attention *a, size_t T)
{
    return T * a->heads * a->head_dim;
}

static int attention(kn_device *d, void *out, float *lse, const void *qkv, const kn_segment *s, size_t segments,
                     size_t T, const kn_attention *a)
{
    uint16_t *qkv16 = narrow(qkv, qkv_size(a, T)), *out16 = narrow(out, out_size(a, T));
    const int rc = OPS(d)->attention(INNER(d), out16, lse, qkv16, s, segments, T, a);
    free(qkv16);
    widen(out, out16, out_size(a, T));
    return rc;
}

static int attention_backward(kn_device *d, void *dqkv, const void *dout, const void *qkv, const void *out,
                              const float *lse, const kn_segment *s, size_t segments, size_t T, const kn_attention *a)
{
    uint16_t *dout16 = narrow(dout, out_size(a, T)), *out16 = narrow(out, out_size(a, T));
    uint16_t *qkv16 = narrow(qkv, qkv_size(a, T)), *dqkv16 = narrow(dqkv, qkv_size(a, T));
    const int rc = OPS(d)->attention_backward(INNER(d), dqkv16, dout16, qkv16, out16, lse, s, segments, T, a);
    free(dout16);
    free(out16);
    free(qkv16);
    widen(dqkv, dqkv16, qkv_size(a, T));
    return rc;
}

static kn_cache *cache_new(kn_device *d, size_t layers, size_t pages, const kn_attention *a)
{
    cache *c = test_memory(sizeof(*c));
    *c = (cache){OPS(d)->cache_new(INNER(d), layers, pages, a), *a};
    if (!c->inner) {
        free(c);
        return NULL;
    }
    return (kn_cache *)c;
}

static void cache_free(kn_device *d, kn_cache *c)
{
    if (c)
        OPS(d)->cache_free(INNER(d), ((cache *)c)->inner);
    free(c);
}

static int cache_copy_page(kn_device *d, kn_cache *c, uint32_t to, uint32_t from, size_t count)
{
    return OPS(d)->cache_copy_page(INNER(d), ((cache *)c)->inner, to, from, count);
}

static int attention_cached(kn_device *d, void *out, const void *qkv, kn_cache *c, size_t layer,
                            const kn_cached_rows *rows, size_t sequences, size_t T)
{
    const kn_attention *a = &((cache *)c)->shape;
    uint16_t *qkv16 = narrow(qkv, qkv_size(a, T)), *out16 = narrow(out, out_size(a, T));
    const int rc = OPS(d)->attention_cached(INNER(d), out16, qkv16, ((cache *)c)->inner, layer, rows, sequences, T);
    free(qkv16);
    widen(out, out16, out_size(a, T));
    return rc;
}

/* --- the vocabulary --- */

static int logprob(kn_device *d, float *lp, float *lse, float *entropy, const void *h, const kn_matrix *m,
                   const uint32_t *target, size_t T)
{
    uint16_t *h16 = narrow(h, T * MATRIX(m)->in);
    const int rc = OPS(d)->logprob(INNER(d), lp, lse, entropy, h16, MATRIX(m)->inner, target, T);
    free(h16);
    return rc;
}

static int logprob_backward(kn_device *d, void *dh, float *dw, const float *dlogprob, const void *h, const kn_matrix *m,
                            const float *lse, const uint32_t *target, size_t T)
{
    const size_t n = T * MATRIX(m)->in;
    uint16_t *h16 = narrow(h, n), *dh16 = test_memory(n * sizeof(*dh16));
    const int rc = OPS(d)->logprob_backward(INNER(d), dh16, dw, dlogprob, h16, MATRIX(m)->inner, lse, target, T);
    free(h16);
    widen(dh, dh16, n);
    return rc;
}

static int logits(kn_device *d, float *to, const void *h, const kn_matrix *m, size_t T)
{
    uint16_t *h16 = narrow(h, T * MATRIX(m)->in);
    const int rc = OPS(d)->logits(INNER(d), to, h16, MATRIX(m)->inner, T);
    free(h16);
    return rc;
}

static int choose(kn_device *d, kn_chosen *chosen, float *from, const kn_choice *choice, size_t T, size_t vocab)
{
    return OPS(d)->choose(INNER(d), chosen, from, choice, T, vocab);
}

static const kn_ops table = {
    .size = sizeof(kn_ops),
    .dtype = KN_BF16,
    .numerics = numerics,
    .row_group = row_group,
    .threads = threads,
    .set_threads = set_threads,
    .matrix_new = matrix_new,
    .matrix_set = matrix_set,
    .matrix_free = matrix_free,
    .linear = linear,
    .linear_backward_input = linear_backward_input,
    .linear_backward_weight = linear_backward_weight,
    .rms_norm = rms_norm,
    .rms_norm_backward = rms_norm_backward,
    .rope = rope,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .embed = embed,
    .embed_backward = embed_backward,
    .scatter_add = scatter_add,
    .dropout = dropout,
    .add = add,
    .axpy = axpy,
    .attention = attention,
    .attention_backward = attention_backward,
    .cache_new = cache_new,
    .cache_free = cache_free,
    .cache_copy_page = cache_copy_page,
    .attention_cached = attention_cached,
    .logprob = logprob,
    .logprob_backward = logprob_backward,
    .logits = logits,
    .choose = choose,
};

kn_device *bf16_device(kn_device *inner)
{
    if (!inner || !inner->ops_bf16)
        return NULL;
    adapter *a = test_memory(sizeof(*a));
    *a = (adapter){.base = {.ops = &table}, .inner = inner};
    return &a->base;
}

void bf16_device_free(kn_device *device)
{
    free(device);
}
