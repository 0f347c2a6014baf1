/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The far device's ops of one element type; included once for each, with
 *
 *     FAR(op)  the op's name       INNER  which table of the wrapped device       E  bytes of an element
 */

#define F32 sizeof(float)
/* Arguments: memory of the device, memory of the host. `f` is the device at hand. */
#define D(p, bytes) far_memory(f, __func__, p, bytes)
#define H(p, bytes) far_host(f, __func__, p, bytes)
#define CALL(waits, op, ...)                                                                          \
    do {                                                                                              \
        return far_begin(f, waits) ? far_end(f, f->inner->INNER->op(__VA_ARGS__)) : KN_DEVICE_FAILED; \
    } while (0)
#define M(m) ((const far_matrix *)(m))

static const char *FAR(numerics)(const kn_device *d)
{
    return ((const far_device *)d)->numerics[E == sizeof(float) ? 0 : 1];
}

static size_t FAR(row_group)(const kn_device *d)
{
    const far_device *f = (const far_device *)d;
    return f->inner->INNER->row_group(f->inner);
}

/* --- matrix products --- */

static kn_matrix *FAR(matrix_new)(kn_device *d, size_t out, size_t in, bool with_backward)
{
    far_device *f = (far_device *)d;
    far_matrix *m = malloc(sizeof(*m));
    if (!m || !far_begin(f, false)) {
        free(m);
        return NULL;
    }
    *m = (far_matrix){f->inner->INNER->matrix_new(f->inner, out, in, with_backward), out, in};
    far_end(f, KN_OK);
    if (!m->inner) {
        free(m);
        return NULL;
    }
    return (kn_matrix *)m;
}

static void FAR(matrix_free)(kn_device *d, kn_matrix *m)
{
    far_device *f = (far_device *)d;
    if (m)
        f->inner->INNER->matrix_free(f->inner, M(m)->inner);
    free(m);
}

static int FAR(matrix_set)(kn_device *d, kn_matrix *m, const float *w)
{
    far_device *f = (far_device *)d;
    CALL(false, matrix_set, f->inner, M(m)->inner, D(w, M(m)->out * M(m)->in * F32));
}

static int FAR(linear)(kn_device *d, void *y, const void *x, const kn_matrix *m, const float *bias,
                       const void *residual, size_t T)
{
    far_device *f = (far_device *)d;
    const size_t out = M(m)->out, in = M(m)->in;
    CALL(false, linear, f->inner, D(y, T * out * E), D(x, T * in * E), M(m)->inner, D(bias, out * F32),
         D(residual, T * out * E), T);
}

static int FAR(linear_backward_input)(kn_device *d, void *dx, const void *dy, const kn_matrix *m, size_t T,
                                      bool accumulate)
{
    far_device *f = (far_device *)d;
    CALL(false, linear_backward_input, f->inner, D(dx, T * M(m)->in * E), D(dy, T * M(m)->out * E), M(m)->inner, T,
         accumulate);
}

static int FAR(linear_backward_weight)(kn_device *d, float *dw, float *db, const void *dy, const void *x, size_t T,
                                       size_t out, size_t in, bool accumulate)
{
    far_device *f = (far_device *)d;
    CALL(false, linear_backward_weight, f->inner, D(dw, out * in * F32), D(db, out * F32), D(dy, T * out * E),
         D(x, T * in * E), T, out, in, accumulate);
}

/* --- rows --- */

static int FAR(rms_norm)(kn_device *d, void *y, float *rstd, const void *x, const float *w, size_t T, size_t n,
                         float eps)
{
    far_device *f = (far_device *)d;
    CALL(false, rms_norm, f->inner, D(y, T * n * E), D(rstd, T * F32), D(x, T * n * E), D(w, n * F32), T, n, eps);
}

static int FAR(rms_norm_backward)(kn_device *d, void *dx, float *dw, void *y, const void *dy, const void *x,
                                  const float *w, const float *rstd, size_t T, size_t n, bool accumulate)
{
    far_device *f = (far_device *)d;
    CALL(false, rms_norm_backward, f->inner, D(dx, T * n * E), D(dw, n * F32), D(y, T * n * E), D(dy, T * n * E),
         D(x, T * n * E), D(w, n * F32), D(rstd, T * F32), T, n, accumulate);
}

static size_t FAR(rows_named)(const uint32_t *row, size_t count)
{
    size_t most = 0;
    for (size_t i = 0; i < count; i++)
        most = row[i] >= most ? (size_t)row[i] + 1 : most;
    return most;
}

static int FAR(rope)(kn_device *d, void *x, size_t stride, const uint32_t *position, const float *cos, const float *sin,
                     size_t T, size_t heads, size_t head_dim, bool inverse)
{
    far_device *f = (far_device *)d;
    H(position, T * sizeof(*position));
    const size_t table = FAR(rows_named)(position, T) * (head_dim / 2) * F32;
    const size_t last = T > 0 ? ((T - 1) * stride + heads * head_dim) * E : 0;
    CALL(false, rope, f->inner, D(x, last), stride, position, D(cos, table), D(sin, table), T, heads, head_dim,
         inverse);
}

static int FAR(swiglu)(kn_device *d, void *y, const void *gate_up, size_t T, size_t n)
{
    far_device *f = (far_device *)d;
    CALL(false, swiglu, f->inner, D(y, T * n * E), D(gate_up, 2 * T * n * E), T, n);
}

static int FAR(swiglu_backward)(kn_device *d, void *dgate_up, void *y, const void *dy, const void *gate_up, size_t T,
                                size_t n)
{
    far_device *f = (far_device *)d;
    CALL(false, swiglu_backward, f->inner, D(dgate_up, 2 * T * n * E), D(y, T * n * E), D(dy, T * n * E),
         D(gate_up, 2 * T * n * E), T, n);
}

static int FAR(embed)(kn_device *d, void *y, const void *table, const uint32_t *token, size_t T, size_t n)
{
    far_device *f = (far_device *)d;
    H(token, T * sizeof(*token));
    CALL(false, embed, f->inner, D(y, T * n * E), D(table, FAR(rows_named)(token, T) * n * E), token, T, n);
}

static int FAR(embed_backward)(kn_device *d, float *dtable, const void *dy, const uint32_t *token, size_t T, size_t n,
                               size_t vocab)
{
    far_device *f = (far_device *)d;
    CALL(false, embed_backward, f->inner, D(dtable, vocab * n * F32), D(dy, T * n * E), H(token, T * sizeof(*token)), T,
         n, vocab);
}

static int FAR(scatter_add)(kn_device *d, void *y, const void *x, const uint32_t *row, size_t S, size_t T, size_t n)
{
    far_device *f = (far_device *)d;
    CALL(false, scatter_add, f->inner, D(y, T * n * E), D(x, S * n * E), H(row, S * sizeof(*row)), S, T, n);
}

static int FAR(dropout)(kn_device *d, void *x, size_t T, size_t n, float rate, const uint64_t key[2],
                        const uint64_t *row_id)
{
    far_device *f = (far_device *)d;
    CALL(false, dropout, f->inner, D(x, T * n * E), T, n, rate, H(key, 2 * sizeof(*key)),
         H(row_id, T * sizeof(*row_id)));
}

static int FAR(add)(kn_device *d, void *y, const void *x, size_t n)
{
    far_device *f = (far_device *)d;
    CALL(false, add, f->inner, D(y, n * E), D(x, n * E), n);
}

static int FAR(axpy)(kn_device *d, void *y, float a, const void *x, size_t n)
{
    far_device *f = (far_device *)d;
    CALL(false, axpy, f->inner, D(y, n * E), a, D(x, n * E), n);
}

/* --- attention --- */

static size_t FAR(width)(const kn_attention *a)
{
    return ((size_t)a->heads + 2 * (size_t)a->kv_heads) * a->head_dim;
}

static int FAR(attention)(kn_device *d, void *out, float *lse, const void *qkv, const kn_segment *s, size_t segments,
                          size_t T, const kn_attention *a)
{
    far_device *f = (far_device *)d;
    CALL(false, attention, f->inner, D(out, T * a->heads * a->head_dim * E), D(lse, T * a->heads * F32),
         D(qkv, T * FAR(width)(a) * E), H(s, segments * sizeof(*s)), segments, T, H(a, sizeof(*a)));
}

static int FAR(attention_backward)(kn_device *d, void *dqkv, const void *dout, const void *qkv, const void *out,
                                   const float *lse, const kn_segment *s, size_t segments, size_t T,
                                   const kn_attention *a)
{
    far_device *f = (far_device *)d;
    const size_t wide = T * a->heads * a->head_dim * E, width = T * FAR(width)(a) * E;
    CALL(false, attention_backward, f->inner, D(dqkv, width), D(dout, wide), D(qkv, width), D(out, wide),
         D(lse, T * a->heads * F32), H(s, segments * sizeof(*s)), segments, T, H(a, sizeof(*a)));
}

/* --- generation --- */

static kn_cache *FAR(cache_new)(kn_device *d, size_t layers, size_t pages, const kn_attention *a)
{
    far_device *f = (far_device *)d;
    far_cache *c = malloc(sizeof(*c));
    H(a, sizeof(*a));
    if (!c || !far_begin(f, false)) {
        free(c);
        return NULL;
    }
    *c = (far_cache){f->inner->INNER->cache_new(f->inner, layers, pages, a), layers, pages, *a};
    far_end(f, KN_OK);
    if (!c->inner) {
        free(c);
        return NULL;
    }
    return (kn_cache *)c;
}

static void FAR(cache_free)(kn_device *d, kn_cache *c)
{
    far_device *f = (far_device *)d;
    if (c)
        f->inner->INNER->cache_free(f->inner, ((far_cache *)c)->inner);
    free(c);
}

static int FAR(cache_copy_page)(kn_device *d, kn_cache *c, uint32_t to, uint32_t from, size_t count)
{
    far_device *f = (far_device *)d;
    CALL(false, cache_copy_page, f->inner, ((far_cache *)c)->inner, to, from, count);
}

static int FAR(attention_cached)(kn_device *d, void *out, void *qkv, kn_cache *c, size_t layer,
                                 const kn_cached_rows *rows, size_t sequences, size_t T, const kn_rotary *rotary)
{
    far_device *f = (far_device *)d;
    const kn_attention *a = &((far_cache *)c)->shape;
    H(rows, sequences * sizeof(*rows));
    size_t positions = 0;
    for (size_t i = 0; i < sequences; i++) {
        const size_t end = rows[i].position + rows[i].count;
        H(rows[i].pages, (end + KN_PAGE - 1) / KN_PAGE * sizeof(*rows[i].pages));
        positions = end > positions ? end : positions;
    }
    kn_rotary there = {0};
    if (rotary) {
        const size_t bytes = positions * (a->head_dim / 2) * F32;
        H(rotary, sizeof(*rotary));
        there = (kn_rotary){D(rotary->cos, bytes), D(rotary->sin, bytes)};
    }
    CALL(false, attention_cached, f->inner, D(out, T * a->heads * a->head_dim * E), D(qkv, T * FAR(width)(a) * E),
         ((far_cache *)c)->inner, layer, rows, sequences, T, rotary ? &there : NULL);
}

/* --- the vocabulary --- */

/* It keeps half of the rows' logits, and looks whether the gradient is given those of its own rows. */
static size_t FAR(logits_kept)(kn_device *d, const kn_matrix *m, size_t T)
{
    (void)d, (void)m;
    return (T + 1) / 2;
}

static int FAR(logprob)(kn_device *d, float *logprob, float *lse, float *entropy, const void *h, const kn_matrix *m,
                        const uint32_t *target, size_t T, float *kept)
{
    far_device *f = (far_device *)d;
    const size_t rows = (T + 1) / 2, beside = 1000; /* bytes of memory, which it gives back */
    if (!far_begin(f, false))
        return KN_DEVICE_FAILED;
    if (f->limit - f->used < beside)
        return far_end(f, KN_NO_MEMORY);
    int status = f->inner->INNER->logprob(f->inner, D(logprob, T * F32), D(lse, T * F32), D(entropy, T * F32),
                                          D(h, T * M(m)->in * E), M(m)->inner, H(target, T * sizeof(*target)), T, NULL);
    if (status == KN_OK && kept)
        status = f->inner->INNER->logits(f->inner, D(kept, rows * M(m)->out * F32), D(h, rows * M(m)->in * E),
                                         M(m)->inner, rows);
    return far_end(f, status);
}

static int FAR(logprob_backward)(kn_device *d, void *dh, float *dw, const float *dlogprob, const void *h,
                                 const kn_matrix *m, const float *lse, const uint32_t *target, size_t T,
                                 bool accumulate, float *kept)
{
    far_device *f = (far_device *)d;
    const size_t rows = (T + 1) / 2;
    if (!far_begin(f, false))
        return KN_DEVICE_FAILED;
    if (kept)
        far_compare_kept(f, __func__, D(kept, rows * M(m)->out * F32), f->inner->INNER, D(h, rows * M(m)->in * E),
                         M(m)->inner, rows, M(m)->out);
    return far_end(f, f->inner->INNER->logprob_backward(f->inner, D(dh, T * M(m)->in * E),
                                                        D(dw, M(m)->out * M(m)->in * F32), D(dlogprob, T * F32),
                                                        D(h, T * M(m)->in * E), M(m)->inner, D(lse, T * F32),
                                                        H(target, T * sizeof(*target)), T, accumulate, NULL));
}

static int FAR(logits)(kn_device *d, float *logits, const void *h, const kn_matrix *m, size_t T)
{
    far_device *f = (far_device *)d;
    CALL(false, logits, f->inner, D(logits, T * M(m)->out * F32), D(h, T * M(m)->in * E), M(m)->inner, T);
}

static const kn_ops FAR(table) = {
    .size = sizeof(kn_ops),
    .dtype = E == sizeof(float) ? KN_F32 : KN_BF16,
    .numerics = FAR(numerics),
    .row_group = FAR(row_group),
    .logits_kept = FAR(logits_kept),
    .matrix_new = FAR(matrix_new),
    .matrix_set = FAR(matrix_set),
    .matrix_free = FAR(matrix_free),
    .linear = FAR(linear),
    .linear_backward_input = FAR(linear_backward_input),
    .linear_backward_weight = FAR(linear_backward_weight),
    .rms_norm = FAR(rms_norm),
    .rms_norm_backward = FAR(rms_norm_backward),
    .rope = FAR(rope),
    .swiglu = FAR(swiglu),
    .swiglu_backward = FAR(swiglu_backward),
    .embed = FAR(embed),
    .embed_backward = FAR(embed_backward),
    .scatter_add = FAR(scatter_add),
    .dropout = FAR(dropout),
    .add = FAR(add),
    .axpy = FAR(axpy),
    .attention = FAR(attention),
    .attention_backward = FAR(attention_backward),
    .cache_new = FAR(cache_new),
    .cache_free = FAR(cache_free),
    .cache_copy_page = FAR(cache_copy_page),
    .attention_cached = FAR(attention_cached),
    .logprob = FAR(logprob),
    .logprob_backward = FAR(logprob_backward),
    .logits = FAR(logits),
};

#undef F32
#undef D
#undef H
#undef CALL
#undef M
