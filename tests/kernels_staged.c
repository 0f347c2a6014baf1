/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "kernels_staged.h"

#include "kernels/bf16.h"
#include "kernels_test.h"

typedef struct adapter {
    kn_device base;
    kn_device *inner;
    const kn_ops *ops; /* inner's table under test */
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
#define OPS(d)    (((const adapter *)(d))->ops)
#define MATRIX(m) ((const matrix *)(m))

void bf16_round(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = kn_widen(kn_narrow(x[i]));
}

/* --- one op's arrays --- */

typedef struct array {
    void *host, *device;
    size_t n, element; /* on the device: bytes */
    bool narrowed;     /* float32 here, bfloat16 there */
    bool result;
} array;

typedef struct staging {
    const adapter *a;
    array array[12];
    size_t count;
} staging;

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

static void send(const staging *s, const array *x)
{
    uint16_t *room = x->narrowed ? test_memory(x->n * sizeof(*room)) : NULL;
    for (size_t i = 0; room && i < x->n; i++)
        room[i] = kn_narrow(((const float *)x->host)[i]);
    const void *from = room ? room : x->host;
    if (s->a->inner->host_memory)
        memcpy(x->device, from, x->n * x->element);
    else
        assert_int_equal(s->a->ops->write(s->a->inner, x->device, from, x->n * x->element), KN_OK);
    free(room);
}

static void fetch(const staging *s, const array *x)
{
    uint16_t *room = x->narrowed ? test_memory(x->n * sizeof(*room)) : NULL;
    void *to = room ? room : x->host;
    if (s->a->inner->host_memory)
        memcpy(to, x->device, x->n * x->element);
    else
        assert_int_equal(s->a->ops->read(s->a->inner, to, x->device, x->n * x->element), KN_OK);
    for (size_t i = 0; room && i < x->n; i++)
        ((float *)x->host)[i] = kn_widen(room[i]);
    free(room);
}

/* The device's array for n elements at `host`: the same one each time an op names them. */
static void *stage(staging *s, const void *host, size_t n, size_t element, bool narrowed, bool result)
{
    if (!host || (!narrowed && s->a->inner->host_memory))
        return (void *)(uintptr_t)host;
    for (size_t i = 0; i < s->count; i++)
        if (s->array[i].host == host) {
            s->array[i].result |= result;
            return s->array[i].device;
        }
    array *x = &s->array[s->count++];
    *x = (array){(void *)(uintptr_t)host, NULL, n, element, narrowed, result};
    x->device =
        must(s->a->inner->host_memory ? malloc(n * element + 1) : s->a->ops->alloc(s->a->inner, n * element + 1));
    send(s, x);
    return x->device;
}

static int staged(staging *s, int status)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->array[i].result)
            fetch(s, &s->array[i]);
        if (s->a->inner->host_memory)
            free(s->array[i].device);
        else
            s->a->ops->free(s->a->inner, s->array[i].device);
    }
    return status;
}

/* Arrays of the table's type and of float32, that are read alone or changed too. */
#define BEGIN(d)      staging s = {.a = (const adapter *)(d)}
#define ROWS(n)       (n), s.a->ops->dtype == KN_BF16 ? sizeof(uint16_t) : sizeof(float), s.a->ops->dtype == KN_BF16
#define X(x, n)       stage(&s, x, ROWS(n), false)
#define Y(y, n)       stage(&s, y, ROWS(n), true)
#define FX(x, n)      stage(&s, x, n, sizeof(float), false, false)
#define FY(y, n)      stage(&s, y, n, sizeof(float), false, true)
#define RAW(y, n)     stage(&s, y, n, sizeof(*(y)), false, true)
#define CALL(op, ...) return staged(&s, s.a->ops->op(s.a->inner, __VA_ARGS__))

/* --- the device --- */

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

static void matrix_free(kn_device *d, kn_matrix *m)
{
    if (m)
        OPS(d)->matrix_free(INNER(d), MATRIX(m)->inner);
    free(m);
}

static int matrix_set(kn_device *d, kn_matrix *m, const float *w)
{
    BEGIN(d);
    CALL(matrix_set, MATRIX(m)->inner, FX(w, MATRIX(m)->out * MATRIX(m)->in));
}

static int linear(kn_device *d, void *y, const void *x, const kn_matrix *m, const float *bias, const void *residual,
                  size_t T)
{
    BEGIN(d);
    const size_t out = MATRIX(m)->out;
    CALL(linear, Y(y, T * out), X(x, T * MATRIX(m)->in), MATRIX(m)->inner, FX(bias, out), X(residual, T * out), T);
}

static int linear_backward_input(kn_device *d, void *dx, const void *dy, const kn_matrix *m, size_t T, bool accumulate)
{
    BEGIN(d);
    CALL(linear_backward_input, Y(dx, T * MATRIX(m)->in), X(dy, T * MATRIX(m)->out), MATRIX(m)->inner, T, accumulate);
}

static int linear_backward_weight(kn_device *d, float *dw, float *db, const void *dy, const void *x, size_t T,
                                  size_t out, size_t in, bool accumulate)
{
    BEGIN(d);
    CALL(linear_backward_weight, FY(dw, out * in), FY(db, out), X(dy, T * out), X(x, T * in), T, out, in, accumulate);
}

/* --- rows --- */

static int rms_norm(kn_device *d, void *y, float *rstd, const void *x, const float *w, size_t T, size_t n, float eps)
{
    BEGIN(d);
    CALL(rms_norm, Y(y, T * n), FY(rstd, T), X(x, T * n), FX(w, n), T, n, eps);
}

static int rms_norm_backward(kn_device *d, void *dx, float *dw, void *y, const void *dy, const void *x, const float *w,
                             const float *rstd, size_t T, size_t n, bool accumulate)
{
    BEGIN(d);
    CALL(rms_norm_backward, Y(dx, T * n), FY(dw, n), Y(y, T * n), X(dy, T * n), X(x, T * n), FX(w, n), FX(rstd, T), T,
         n, accumulate);
}

static size_t most(const uint32_t *row, size_t count)
{
    size_t rows = 0;
    for (size_t i = 0; i < count; i++)
        rows = row[i] >= rows ? (size_t)row[i] + 1 : rows;
    return rows;
}

static int rope(kn_device *d, void *x, size_t stride, const uint32_t *position, const float *cos_t, const float *sin_t,
                size_t T, size_t heads, size_t head_dim, bool inverse)
{
    BEGIN(d);
    const size_t table = most(position, T) * (head_dim / 2);
    CALL(rope, Y(x, T * stride), stride, position, FX(cos_t, table), FX(sin_t, table), T, heads, head_dim, inverse);
}

static int swiglu(kn_device *d, void *y, const void *gate_up, size_t T, size_t f)
{
    BEGIN(d);
    CALL(swiglu, Y(y, T * f), X(gate_up, T * 2 * f), T, f);
}

static int swiglu_backward(kn_device *d, void *dgate_up, void *y, const void *dy, const void *gate_up, size_t T,
                           size_t f)
{
    BEGIN(d);
    CALL(swiglu_backward, Y(dgate_up, T * 2 * f), Y(y, T * f), X(dy, T * f), X(gate_up, T * 2 * f), T, f);
}

static int embed(kn_device *d, void *y, const void *table, const uint32_t *token, size_t T, size_t n)
{
    BEGIN(d);
    CALL(embed, Y(y, T * n), X(table, most(token, T) * n), token, T, n);
}

static int embed_backward(kn_device *d, float *dtable, const void *dy, const uint32_t *token, size_t T, size_t n,
                          size_t vocab)
{
    BEGIN(d);
    CALL(embed_backward, FY(dtable, vocab * n), X(dy, T * n), token, T, n, vocab);
}

static int scatter_add(kn_device *d, void *y, const void *x, const uint32_t *row, size_t S, size_t T, size_t n)
{
    BEGIN(d);
    CALL(scatter_add, Y(y, T * n), X(x, S * n), row, S, T, n);
}

static int dropout(kn_device *d, void *x, size_t T, size_t n, float rate, const uint64_t key[2], const uint64_t *row_id)
{
    BEGIN(d);
    CALL(dropout, Y(x, T * n), T, n, rate, key, row_id);
}

static int add(kn_device *d, void *y, const void *x, size_t n)
{
    BEGIN(d);
    CALL(add, Y(y, n), X(x, n), n);
}

static int axpy(kn_device *d, void *y, float a, const void *x, size_t n)
{
    BEGIN(d);
    CALL(axpy, Y(y, n), a, X(x, n), n);
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

static int attention(kn_device *d, void *out, float *lse, const void *qkv, const kn_segment *segment, size_t segments,
                     size_t T, const kn_attention *a)
{
    BEGIN(d);
    CALL(attention, Y(out, out_size(a, T)), FY(lse, T * a->heads), X(qkv, qkv_size(a, T)), segment, segments, T, a);
}

static int attention_backward(kn_device *d, void *dqkv, const void *dout, const void *qkv, const void *out,
                              const float *lse, const kn_segment *segment, size_t segments, size_t T,
                              const kn_attention *a)
{
    BEGIN(d);
    CALL(attention_backward, Y(dqkv, qkv_size(a, T)), X(dout, out_size(a, T)), X(qkv, qkv_size(a, T)),
         X(out, out_size(a, T)), FX(lse, T * a->heads), segment, segments, T, a);
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

static int attention_cached(kn_device *d, void *out, void *qkv, kn_cache *c, size_t layer, const kn_cached_rows *rows,
                            size_t sequences, size_t T, const kn_rotary *rotary)
{
    BEGIN(d);
    const kn_attention *a = &((cache *)c)->shape;
    size_t positions = 0;
    for (size_t i = 0; i < sequences; i++)
        positions = rows[i].position + rows[i].count > positions ? rows[i].position + rows[i].count : positions;
    const size_t table = positions * (a->head_dim / 2);
    kn_rotary there = {0};
    if (rotary)
        there = (kn_rotary){FX(rotary->cos, table), FX(rotary->sin, table)};
    CALL(attention_cached, Y(out, out_size(a, T)), Y(qkv, qkv_size(a, T)), ((cache *)c)->inner, layer, rows, sequences,
         T, rotary ? &there : NULL);
}

/* --- the vocabulary --- */

static size_t logits_kept(kn_device *d, const kn_matrix *m, size_t T)
{
    return OPS(d)->logits_kept(INNER(d), MATRIX(m)->inner, T);
}

static int logprob(kn_device *d, float *lp, float *lse, float *entropy, const void *h, const kn_matrix *m,
                   const uint32_t *target, size_t T, float *kept)
{
    BEGIN(d);
    CALL(logprob, FY(lp, T), FY(lse, T), FY(entropy, T), X(h, T * MATRIX(m)->in), MATRIX(m)->inner, target, T,
         FY(kept, logits_kept(d, m, T) * MATRIX(m)->out));
}

static int logprob_backward(kn_device *d, void *dh, float *dw, const float *dlogprob, const void *h, const kn_matrix *m,
                            const float *lse, const uint32_t *target, size_t T, bool accumulate, float *kept)
{
    BEGIN(d);
    const size_t out = MATRIX(m)->out, in = MATRIX(m)->in;
    CALL(logprob_backward, Y(dh, T * in), FY(dw, out * in), FX(dlogprob, T), X(h, T * in), MATRIX(m)->inner, FX(lse, T),
         target, T, accumulate, FY(kept, logits_kept(d, m, T) * out));
}

static int logits(kn_device *d, float *to, const void *h, const kn_matrix *m, size_t T)
{
    BEGIN(d);
    CALL(logits, FY(to, T * MATRIX(m)->out), X(h, T * MATRIX(m)->in), MATRIX(m)->inner, T);
}

static int choose(kn_device *d, kn_chosen *chosen, float *from, const kn_choice *choice, size_t T, size_t vocab)
{
    BEGIN(d);
    CALL(choose, chosen, FY(from, T * vocab), choice, T, vocab);
}

/* --- types, optimizer, merging: of float32 in both tables --- */

static int to_bf16(kn_device *d, uint16_t *to, const float *from, size_t n)
{
    BEGIN(d);
    CALL(to_bf16, RAW(to, n), FX(from, n), n);
}

static int from_bf16(kn_device *d, float *to, const uint16_t *from, size_t n)
{
    BEGIN(d);
    CALL(from_bf16, FY(to, n), stage(&s, from, n, sizeof(*from), false, false), n);
}

static int sum_squares_add(kn_device *d, double *sum, const float *x, size_t n)
{
    BEGIN(d);
    CALL(sum_squares_add, RAW(sum, 1), FX(x, n), n);
}

static int clip(kn_device *d, float *scale, const double *sum, double grad_scale, double max_norm)
{
    BEGIN(d);
    CALL(clip, FY(scale, 1), stage(&s, sum, 1, sizeof(*sum), false, false), grad_scale, max_norm);
}

static int adamw(kn_device *d, float *w, float *m, float *v, const float *g, size_t n, const kn_adamw *a)
{
    BEGIN(d);
    kn_adamw inner = *a;
    inner.scale_at = FX(a->scale_at, 1);
    inner.rounded = RAW(a->rounded, n);
    CALL(adamw, FY(w, n), FY(m, n), FY(v, n), FX(g, n), n, &inner);
}

static int adamw_bf16(kn_device *d, float *w, uint16_t *m, uint16_t *v, const float *g, size_t n, const kn_adamw *a,
                      const uint64_t key[2], const uint64_t counter[2])
{
    BEGIN(d);
    kn_adamw inner = *a;
    inner.scale_at = FX(a->scale_at, 1);
    inner.rounded = RAW(a->rounded, n);
    CALL(adamw_bf16, FY(w, n), RAW(m, n), RAW(v, n), FX(g, n), n, &inner, key, counter);
}

static int mean(kn_device *d, float *to, const float *const *from, const float *weight, size_t count, size_t n)
{
    BEGIN(d);
    const float *inner[8];
    assert_true(count <= 8);
    for (size_t i = 0; i < count; i++)
        inner[i] = FX(from[i], n);
    CALL(mean, FY(to, n), inner, weight, count, n);
}

static int slerp_dots_add(kn_device *d, double dots[3], const float *base, const float *a, const float *b, size_t n)
{
    BEGIN(d);
    CALL(slerp_dots_add, stage(&s, dots, 3, sizeof(*dots), false, true), FX(base, n), FX(a, n), FX(b, n), n);
}

static int slerp(kn_device *d, float *to, const double dots[3], const float *base, const float *a, const float *b,
                 double lambda, size_t n)
{
    BEGIN(d);
    CALL(slerp, FY(to, n), stage(&s, dots, 3, sizeof(*dots), false, false), FX(base, n), FX(a, n), FX(b, n), lambda, n);
}

static const kn_ops table = {
    .size = sizeof(kn_ops),
    .dtype = KN_F32,
    .numerics = numerics,
    .row_group = row_group,
    .logits_kept = logits_kept,
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
    .to_bf16 = to_bf16,
    .from_bf16 = from_bf16,
    .sum_squares_add = sum_squares_add,
    .clip = clip,
    .adamw = adamw,
    .adamw_bf16 = adamw_bf16,
    .mean = mean,
    .slerp_dots_add = slerp_dots_add,
    .slerp = slerp,
};

kn_device *staged_device(kn_device *inner, kn_dtype dtype)
{
    if (inner && inner->ops == &table)
        inner = INNER(inner);
    const kn_ops *ops = !inner ? NULL : dtype == KN_BF16 ? inner->ops_bf16 : inner->ops;
    if (!ops)
        return NULL;
    adapter *a = test_memory(sizeof(*a));
    *a = (adapter){.base = {.ops = &table, .host_memory = true, .one_answer = true}, .inner = inner, .ops = ops};
    return &a->base;
}

void staged_device_free(kn_device *device)
{
    free(device);
}
