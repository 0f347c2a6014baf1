/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The measuring device's table of one element type: each op calls the wrapped one, then counts. */
#include "profile_parts.h"

#include <stdlib.h>

#ifdef KN_ELEMENT_BF16
#define ELEMENT       KN_BF16
#define WRAPPED(d)    (((const kn_profile *)(d))->inner->ops_bf16)
#define PROFILE_TABLE kn_profile_ops_bf16
enum { SIZE = 2 }; /* bytes of an element */
#else
#define ELEMENT       KN_F32
#define WRAPPED(d)    (((const kn_profile *)(d))->inner->ops)
#define PROFILE_TABLE kn_profile_ops_f32
enum { SIZE = 4 };
#endif

#define INNER(d) (((const kn_profile *)(d))->inner)
/* Calls the wrapped op with these arguments (after the device), counts and returns what it returned. */
#define MEASURED(d, op, flops, bytes, ...)                                                  \
    do {                                                                                    \
        const double since = kn_profile_now();                                              \
        const int status = WRAPPED(d)->op(INNER(d), __VA_ARGS__);                           \
        kn_profile_count((kn_profile *)(d), ELEMENT, KN_PROFILE_##op, since, flops, bytes); \
        return status;                                                                      \
    } while (0)

/* What this device gives out as kn_matrix and kn_cache: the wrapped one's, and its shape. */
typedef struct matrix {
    kn_matrix *inner;
    double out, in;
} matrix;

typedef struct cache {
    kn_cache *inner;
    kn_attention shape;
} cache;

static const matrix *matrix_of(const kn_matrix *m)
{
    return (const matrix *)m;
}

/* --- the device --- */

static const char *numerics(const kn_device *d)
{
    return WRAPPED(d)->numerics(INNER(d));
}

static int write(kn_device *d, void *to, const void *from, size_t bytes)
{
    MEASURED(d, write, 0, 2 * (double)bytes, to, from, bytes);
}

static int read(kn_device *d, void *to, const void *from, size_t bytes)
{
    MEASURED(d, read, 0, 2 * (double)bytes, to, from, bytes);
}

static int copy(kn_device *d, void *to, const void *from, size_t bytes)
{
    MEASURED(d, copy, 0, 2 * (double)bytes, to, from, bytes);
}

static int clear(kn_device *d, void *p, size_t bytes)
{
    MEASURED(d, clear, 0, (double)bytes, p, bytes);
}

static const char *error(kn_device *d)
{
    return WRAPPED(d)->error(INNER(d));
}

static size_t row_group(const kn_device *d)
{
    return WRAPPED(d)->row_group(INNER(d));
}

static void *device_alloc(kn_device *d, size_t bytes)
{
    return WRAPPED(d)->alloc(INNER(d), bytes);
}

static void device_free(kn_device *d, void *p)
{
    WRAPPED(d)->free(INNER(d), p);
}

static int threads(const kn_device *d)
{
    return WRAPPED(d)->threads(INNER(d));
}

static int set_threads(kn_device *d, int n)
{
    return WRAPPED(d)->set_threads(INNER(d), n);
}

static void parallel(kn_device *d, size_t n, size_t grain, kn_task task, void *arg)
{
    WRAPPED(d)->parallel(INNER(d), n, grain, task, arg);
}

static int memory(kn_device *d, kn_memory_use *use)
{
    return WRAPPED(d)->memory(INNER(d), use);
}

static const char *refusal(kn_device *d)
{
    return WRAPPED(d)->refusal(INNER(d));
}

static int step_begin(kn_device *d)
{
    const double since = kn_profile_now();
    const int status = WRAPPED(d)->step_begin(INNER(d));
    if (status == KN_OK)
        kn_profile_step_begin((kn_profile *)d, since);
    return status;
}

static int step_end(kn_device *d)
{
    const int status = WRAPPED(d)->step_end(INNER(d));
    kn_profile_step_end((kn_profile *)d, ELEMENT);
    return status;
}

/* --- matrix products --- */

/* A matrix of the wrapped device, in the form that this one gives out. */
static kn_matrix *matrix_around(kn_device *d, kn_matrix *inner, size_t out, size_t in)
{
    matrix *m = inner ? malloc(sizeof(*m)) : NULL;
    if (m)
        *m = (matrix){inner, (double)out, (double)in};
    else if (inner)
        WRAPPED(d)->matrix_free(INNER(d), inner);
    return (kn_matrix *)m;
}

static kn_matrix *matrix_new(kn_device *d, size_t out, size_t in, bool with_backward)
{
    return matrix_around(d, WRAPPED(d)->matrix_new(INNER(d), out, in, with_backward), out, in);
}

static kn_matrix *matrix_at(kn_device *d, const void *w, size_t out, size_t in)
{
    return matrix_around(d, WRAPPED(d)->matrix_at(INNER(d), w, out, in), out, in);
}

static void matrix_free(kn_device *d, kn_matrix *m)
{
    if (m)
        WRAPPED(d)->matrix_free(INNER(d), matrix_of(m)->inner);
    free(m);
}

static int matrix_set(kn_device *d, kn_matrix *m, const float *w)
{
    const matrix *s = matrix_of(m);
    MEASURED(d, matrix_set, 0, (4 + SIZE) * s->out * s->in, s->inner, w);
}

static int matrix_bias(kn_device *d, kn_matrix *m, const float *bias)
{
    const matrix *s = matrix_of(m);
    MEASURED(d, matrix_bias, 0, (4 + SIZE) * s->out, s->inner, bias);
}

/* Bytes of T rows times a matrix of this table. */
static double product_bytes(const matrix *m, size_t T)
{
    return SIZE * (m->out * m->in + (double)T * (m->out + m->in));
}

static int linear(kn_device *d, void *y, const void *x, const kn_matrix *w, const float *bias, const void *residual,
                  size_t T)
{
    const matrix *m = matrix_of(w);
    MEASURED(d, linear, 2 * (double)T * m->out * m->in,
             product_bytes(m, T) + (residual ? SIZE * (double)T * m->out : 0), y, x, m->inner, bias, residual, T);
}

static int linear_backward_input(kn_device *d, void *dx, const void *dy, const kn_matrix *w, size_t T, bool accumulate)
{
    const matrix *m = matrix_of(w);
    MEASURED(d, linear_backward_input, 2 * (double)T * m->out * m->in,
             product_bytes(m, T) + (accumulate ? SIZE * (double)T * m->in : 0), dx, dy, m->inner, T, accumulate);
}

static int linear_backward_weight(kn_device *d, float *dw, float *db, const void *dy, const void *x, size_t T,
                                  size_t out, size_t in, bool accumulate)
{
    MEASURED(d, linear_backward_weight, 2 * (double)T * (double)out * (double)in,
             (accumulate ? 8 : 4) * (double)out * (double)in + SIZE * (double)T * (double)(out + in), dw, db, dy, x, T,
             out, in, accumulate);
}

/* --- rows --- */

static int rms_norm(kn_device *d, void *y, float *rstd, const void *x, const float *w, size_t T, size_t n, float eps)
{
    MEASURED(d, rms_norm, 0, 2.0 * SIZE * (double)T * (double)n, y, rstd, x, w, T, n, eps);
}

static int rms_norm_backward(kn_device *d, void *dx, float *dw, void *y, const void *dy, const void *x, const float *w,
                             const float *rstd, size_t T, size_t n, bool accumulate)
{
    MEASURED(d, rms_norm_backward, 0, (y ? 5.0 : 4.0) * SIZE * (double)T * (double)n, dx, dw, y, dy, x, w, rstd, T, n,
             accumulate);
}

static int rope(kn_device *d, void *x, size_t stride, const uint32_t *position, const float *cos, const float *sin,
                size_t T, size_t heads, size_t head_dim, bool inverse)
{
    MEASURED(d, rope, 0, (2.0 * SIZE * (double)heads + 4) * (double)T * (double)head_dim, x, stride, position, cos, sin,
             T, heads, head_dim, inverse);
}

static int swiglu(kn_device *d, void *y, const void *gate_up, size_t T, size_t f)
{
    MEASURED(d, swiglu, 0, 3.0 * SIZE * (double)T * (double)f, y, gate_up, T, f);
}

static int swiglu_backward(kn_device *d, void *dgate_up, void *y, const void *dy, const void *gate_up, size_t T,
                           size_t f)
{
    MEASURED(d, swiglu_backward, 0, (y ? 6.0 : 5.0) * SIZE * (double)T * (double)f, dgate_up, y, dy, gate_up, T, f);
}

static int embed(kn_device *d, void *y, const void *table, const uint32_t *token, size_t T, size_t n)
{
    MEASURED(d, embed, 0, 2.0 * SIZE * (double)T * (double)n, y, table, token, T, n);
}

static int embed_backward(kn_device *d, float *dtable, const void *dy, const uint32_t *token, size_t T, size_t n,
                          size_t vocab)
{
    MEASURED(d, embed_backward, 0, (SIZE + 8.0) * (double)T * (double)n, dtable, dy, token, T, n, vocab);
}

static int scatter_add(kn_device *d, void *y, const void *x, const uint32_t *row, size_t S, size_t T, size_t n)
{
    MEASURED(d, scatter_add, 0, 3.0 * SIZE * (double)S * (double)n, y, x, row, S, T, n);
}

static int dropout(kn_device *d, void *x, size_t T, size_t n, float rate, const uint64_t key[2], const uint64_t *row_id)
{
    MEASURED(d, dropout, 0, 2.0 * SIZE * (double)T * (double)n, x, T, n, rate, key, row_id);
}

static int add(kn_device *d, void *y, const void *x, size_t n)
{
    MEASURED(d, add, 0, 3.0 * SIZE * (double)n, y, x, n);
}

static int axpy(kn_device *d, void *y, float a, const void *x, size_t n)
{
    MEASURED(d, axpy, 0, 3.0 * SIZE * (double)n, y, a, x, n);
}

/* --- attention --- */

/* Keys that rows at positions [position, position + count) see, added up. */
static double seen(const kn_attention *a, size_t position, size_t count)
{
    double keys = 0;
    for (size_t i = position + 1; i <= position + count; i++)
        keys += (double)(a->window > 0 && i > a->window ? a->window : i);
    return keys;
}

static double segment_pairs(const kn_segment *s, size_t segments, const kn_attention *a)
{
    double keys = 0;
    for (size_t i = 0; i < segments; i++)
        keys += seen(a, s[i].prefix_count, s[i].count);
    return keys * a->heads * a->head_dim;
}

/* Elements of a packed batch's qkv, and of its attention's result. */
static double qkv_size(const kn_attention *a, size_t T)
{
    return (double)T * ((double)a->heads + 2.0 * a->kv_heads) * a->head_dim;
}

static double out_size(const kn_attention *a, size_t T)
{
    return (double)T * a->heads * a->head_dim;
}

static int attention(kn_device *d, void *out, float *lse, const void *qkv, const kn_segment *s, size_t segments,
                     size_t T, const kn_attention *a)
{
    MEASURED(d, attention, 4 * segment_pairs(s, segments, a), SIZE * (qkv_size(a, T) + out_size(a, T)), out, lse, qkv,
             s, segments, T, a);
}

/* Five products: scores again, and the gradients of probabilities, queries, keys and values. */
static int attention_backward(kn_device *d, void *dqkv, const void *dout, const void *qkv, const void *out,
                              const float *lse, const kn_segment *s, size_t segments, size_t T, const kn_attention *a)
{
    MEASURED(d, attention_backward, 10 * segment_pairs(s, segments, a), SIZE * 2 * (qkv_size(a, T) + out_size(a, T)),
             dqkv, dout, qkv, out, lse, s, segments, T, a);
}

/* --- generation --- */

static kn_cache *cache_new(kn_device *d, size_t layers, size_t pages, const kn_attention *a)
{
    cache *c = malloc(sizeof(*c));
    if (!c)
        return NULL;
    *c = (cache){WRAPPED(d)->cache_new(INNER(d), layers, pages, a), *a};
    if (!c->inner) {
        free(c);
        return NULL;
    }
    return (kn_cache *)c;
}

static void cache_free(kn_device *d, kn_cache *c)
{
    if (c)
        WRAPPED(d)->cache_free(INNER(d), ((cache *)c)->inner);
    free(c);
}

static int cache_copy_page(kn_device *d, kn_cache *c, uint32_t to, uint32_t from, size_t count)
{
    const cache *s = (const cache *)c;
    MEASURED(d, cache_copy_page, 0, 4.0 * SIZE * (double)count * s->shape.kv_heads * s->shape.head_dim, s->inner, to,
             from, count);
}

static int attention_cached(kn_device *d, void *out, void *qkv, kn_cache *c, size_t layer, const kn_cached_rows *rows,
                            size_t sequences, size_t T, const kn_rotary *rotary)
{
    const cache *s = (const cache *)c;
    const kn_attention *a = &s->shape;
    double pairs = 0, keys = 0;
    for (size_t i = 0; i < sequences; i++) {
        pairs += seen(a, rows[i].position, rows[i].count);
        keys += (double)(rows[i].position + rows[i].count);
    }
    MEASURED(d, attention_cached, 4 * pairs * a->heads * a->head_dim,
             SIZE * (qkv_size(a, T) + out_size(a, T) + 2 * keys * a->kv_heads * a->head_dim), out, qkv, s->inner, layer,
             rows, sequences, T, rotary);
}

/* --- the vocabulary --- */

static double rows_kept(kn_device *d, const matrix *m, size_t T, const float *kept)
{
    return kept ? (double)WRAPPED(d)->logits_kept(INNER(d), m->inner, T) : 0;
}

static int logprob(kn_device *d, float *lp, float *lse, float *entropy, const void *h, const kn_matrix *w,
                   const uint32_t *target, size_t T, float *kept)
{
    const matrix *m = matrix_of(w);
    MEASURED(d, logprob, 2 * (double)T * m->out * m->in,
             SIZE * m->in * (m->out + (double)T) + 4 * m->out * rows_kept(d, m, T, kept), lp, lse, entropy, h, m->inner,
             target, T, kept);
}

/* Three products: the logits that were not kept, the gradients of h and of the weights. */
static int logprob_backward(kn_device *d, void *dh, float *dw, const float *dlogprob, const void *h, const kn_matrix *w,
                            const float *lse, const uint32_t *target, size_t T, bool accumulate, float *kept)
{
    const matrix *m = matrix_of(w);
    const double there = rows_kept(d, m, T, kept);
    MEASURED(d, logprob_backward, (6 * (double)T - 2 * there) * m->out * m->in,
             m->in * (SIZE * 2 * (m->out + (double)T) + (accumulate ? 8 : 4) * m->out) + 4 * m->out * there, dh, dw,
             dlogprob, h, m->inner, lse, target, T, accumulate, kept);
}

static size_t logits_kept(kn_device *d, const kn_matrix *w, size_t T)
{
    return WRAPPED(d)->logits_kept(INNER(d), matrix_of(w)->inner, T);
}

static int logits(kn_device *d, float *to, const void *h, const kn_matrix *w, size_t T)
{
    const matrix *m = matrix_of(w);
    MEASURED(d, logits, 2 * (double)T * m->out * m->in, SIZE * m->in * (m->out + (double)T) + 4 * (double)T * m->out,
             to, h, m->inner, T);
}

static int choose(kn_device *d, kn_chosen *chosen, float *from, const kn_choice *choice, size_t T, size_t vocab)
{
    MEASURED(d, choose, 0, 4 * (double)T * (double)vocab, chosen, from, choice, T, vocab);
}

/* --- types and the optimizer --- */

static int to_bf16(kn_device *d, uint16_t *to, const float *from, size_t n)
{
    MEASURED(d, to_bf16, 0, 6 * (double)n, to, from, n);
}

static int from_bf16(kn_device *d, float *to, const uint16_t *from, size_t n)
{
    MEASURED(d, from_bf16, 0, 6 * (double)n, to, from, n);
}

static int sum_squares_add(kn_device *d, double *sum, const float *x, size_t n)
{
    MEASURED(d, sum_squares_add, 0, 4 * (double)n, sum, x, n);
}

static int clip(kn_device *d, float *scale, const double *sum, double grad_scale, double max_norm)
{
    MEASURED(d, clip, 0, 12, scale, sum, grad_scale, max_norm);
}

static int adamw(kn_device *d, float *w, float *m, float *v, const float *g, size_t n, const kn_adamw *a)
{
    MEASURED(d, adamw, 0, (a->rounded ? 30 : 28) * (double)n, w, m, v, g, n, a);
}

static int adamw_bf16(kn_device *d, float *w, uint16_t *m, uint16_t *v, const float *g, size_t n, const kn_adamw *a,
                      const uint64_t key[2], const uint64_t counter[2])
{
    MEASURED(d, adamw_bf16, 0, (a->rounded ? 22 : 20) * (double)n, w, m, v, g, n, a, key, counter);
}

static int mean(kn_device *d, float *to, const float *const *from, const float *weight, size_t count, size_t n)
{
    MEASURED(d, mean, 0, 4 * (double)(count + 1) * (double)n, to, from, weight, count, n);
}

static int slerp_dots_add(kn_device *d, double dots[3], const float *base, const float *a, const float *b, size_t n)
{
    MEASURED(d, slerp_dots_add, 0, (base ? 12 : 8) * (double)n, dots, base, a, b, n);
}

static int slerp(kn_device *d, float *to, const double dots[3], const float *base, const float *a, const float *b,
                 double lambda, size_t n)
{
    MEASURED(d, slerp, 0, (base ? 16 : 12) * (double)n, to, dots, base, a, b, lambda, n);
}

#define ENTRY(op) .op = op,
static const kn_ops table = {.size = sizeof(kn_ops),
                             .dtype = ELEMENT,
                             .numerics = numerics,
                             .alloc = device_alloc,
                             .free = device_free,
                             .error = error,
                             .row_group = row_group,
                             .logits_kept = logits_kept,
                             .threads = threads,
                             .set_threads = set_threads,
                             .parallel = parallel,
                             .memory = memory,
                             .refusal = refusal,
                             .step_begin = step_begin,
                             .matrix_new = matrix_new,
                             .matrix_at = matrix_at,
                             .matrix_free = matrix_free,
                             .cache_new = cache_new,
                             .cache_free = cache_free,
                             KN_PROFILED(ENTRY)};

const kn_ops *PROFILE_TABLE(void)
{
    return &table;
}
