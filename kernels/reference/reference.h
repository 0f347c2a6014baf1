/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference backend: every op of kernels/ops.h written the way its formula reads, in scalar C on one thread. It is
 * the definition that the fast backends are tested against, so it is written to be checked by eye.
 *
 * Sums within a row run in float64 and are rounded once. What accumulates over rows (gradients of weights) does so in
 * float32, row after row, as the contract asks.
 */
#ifndef KN_REFERENCE_H
#define KN_REFERENCE_H

#include "kernels/bf16.h"
#include "kernels/ops.h"

/*
 * The files whose ops take activations are compiled once per element type. E is the type, REF(name) the name of an op
 * for it; get and put read and write element i of an array, at gives the address of one.
 */
#ifdef KN_ELEMENT_BF16
typedef uint16_t E;
#define REF(name) kn_ref_bf16_##name
#define ELEMENT   KN_BF16

static inline float get(const void *x, size_t i)
{
    return kn_widen(((const E *)x)[i]);
}

static inline void put(void *x, size_t i, double value)
{
    ((E *)x)[i] = kn_narrow((float)value);
}
#else
typedef float E;
#define REF(name) kn_ref_##name
#define ELEMENT   KN_F32

static inline float get(const void *x, size_t i)
{
    return ((const E *)x)[i];
}

static inline void put(void *x, size_t i, double value)
{
    ((E *)x)[i] = (float)value;
}
#endif

static inline const void *at(const void *x, size_t i)
{
    return (const E *)x + i;
}

/* W[out, in], row-major. */
struct kn_matrix {
    size_t out, in;
    E *w;
    bool borrowed; /* w is somebody else's */
};

/* Keys and values by layer, page, position in the page, key/value head:
 * [layers][pages][KN_PAGE][2][kv_heads][head_dim]. */
struct kn_cache {
    size_t layers, pages;
    kn_attention shape;
    E *data;
};

/* Position `at` (0 … KN_PAGE-1) of a page: keys of all heads, then values of all heads. */
E *REF(cache_at)(const kn_cache *, size_t layer, uint32_t page, size_t at);

bool kn_ref_attention_ok(const kn_attention *);
bool kn_ref_segments_ok(const kn_segment *, size_t segments, size_t T);
/* Row (of the packed batch) of absolute key j of a segment. */
static inline size_t kn_ref_key_row(const kn_segment *s, size_t j)
{
    return j < s->prefix_count ? s->prefix + j : s->row + (j - s->prefix_count);
}
/* The first key that position i may see. */
static inline size_t kn_ref_first_key(const kn_attention *a, size_t i)
{
    return a->window > 0 && i + 1 > a->window ? i + 1 - a->window : 0;
}

/* linear.c */
kn_matrix *REF(matrix_new)(kn_device *, size_t out, size_t in, bool with_backward);
kn_matrix *REF(matrix_at)(kn_device *, const void *w, size_t out, size_t in);
int REF(matrix_set)(kn_device *, kn_matrix *, const float *w);
void REF(matrix_free)(kn_device *, kn_matrix *);
int REF(linear)(kn_device *, void *y, const void *x, const kn_matrix *, const float *bias, const void *residual,
                size_t T);
int REF(linear_backward_input)(kn_device *, void *dx, const void *dy, const kn_matrix *, size_t T, bool accumulate);
int REF(linear_backward_weight)(kn_device *, float *dw, float *db, const void *dy, const void *x, size_t T, size_t out,
                                size_t in, bool accumulate);

/* rows.c */
int REF(rms_norm)(kn_device *, void *y, float *rstd, const void *x, const float *w, size_t T, size_t d, float eps);
int REF(rms_norm_backward)(kn_device *, void *dx, float *dw, void *y, const void *dy, const void *x, const float *w,
                           const float *rstd, size_t T, size_t d, bool accumulate);
int REF(rope)(kn_device *, void *x, size_t stride, const uint32_t *position, const float *cos, const float *sin,
              size_t T, size_t heads, size_t head_dim, bool inverse);
int REF(swiglu)(kn_device *, void *y, const void *gate_up, size_t T, size_t f);
int REF(swiglu_backward)(kn_device *, void *dgate_up, void *y, const void *dy, const void *gate_up, size_t T, size_t f);
int REF(embed)(kn_device *, void *y, const void *table, const uint32_t *token, size_t T, size_t d);
int REF(embed_backward)(kn_device *, float *dtable, const void *dy, const uint32_t *token, size_t T, size_t d,
                        size_t vocab);
int REF(scatter_add)(kn_device *, void *y, const void *x, const uint32_t *row, size_t S, size_t T, size_t d);
int REF(dropout)(kn_device *, void *x, size_t T, size_t d, float rate, const uint64_t key[2], const uint64_t *row_id);
int REF(add)(kn_device *, void *y, const void *x, size_t n);
int REF(axpy)(kn_device *, void *y, float a, const void *x, size_t n);

/* attention.c, attention_backward.c */
int REF(attention)(kn_device *, void *out, float *lse, const void *qkv, const kn_segment *, size_t segments, size_t T,
                   const kn_attention *);
int REF(attention_backward)(kn_device *, void *dqkv, const void *dout, const void *qkv, const void *out,
                            const float *lse, const kn_segment *, size_t segments, size_t T, const kn_attention *);
int REF(attention_cached)(kn_device *, void *out, void *qkv, kn_cache *, size_t layer, const kn_cached_rows *,
                          size_t sequences, size_t T, const kn_rotary *);

/* cache.c */
kn_cache *REF(cache_new)(kn_device *, size_t layers, size_t pages, const kn_attention *);
void REF(cache_free)(kn_device *, kn_cache *);
int REF(cache_copy_page)(kn_device *, kn_cache *, uint32_t to, uint32_t from, size_t count);

/* vocabulary.c */
int REF(logprob)(kn_device *, float *logprob, float *lse, float *entropy, const void *h, const kn_matrix *,
                 const uint32_t *target, size_t T, float *kept);
int REF(logprob_backward)(kn_device *, void *dh, float *dw, const float *dlogprob, const void *h, const kn_matrix *,
                          const float *lse, const uint32_t *target, size_t T, bool accumulate, float *kept);
int REF(logits)(kn_device *, float *logits, const void *h, const kn_matrix *, size_t T);
/* device.c: log Σ exp of one row of logits. */
double kn_ref_lse(const float *logits, size_t vocab);

/* convert.c */
int kn_ref_to_bf16(kn_device *, uint16_t *to, const float *from, size_t n);
int kn_ref_from_bf16(kn_device *, float *to, const uint16_t *from, size_t n);

/* choose.c */
int kn_ref_choose(kn_device *, kn_chosen *, float *logits, const kn_choice *, size_t T, size_t vocab);

/* optimizer.c */
int kn_ref_sum_squares_add(kn_device *, double *sum, const float *x, size_t n);
int kn_ref_clip(kn_device *, float *scale, const double *sum, double grad_scale, double max_norm);
int kn_ref_adamw(kn_device *, float *w, float *m, float *v, const float *g, size_t n, const kn_adamw *);
int kn_ref_adamw_bf16(kn_device *, float *w, uint16_t *m, uint16_t *v, const float *g, size_t n, const kn_adamw *,
                      const uint64_t key[2], const uint64_t counter[2]);

/* merge.c */
int kn_ref_mean(kn_device *, float *to, const float *const *from, const float *weight, size_t count, size_t n);
int kn_ref_slerp_dots_add(kn_device *, double dots[3], const float *base, const float *a, const float *b, size_t n);
int kn_ref_slerp(kn_device *, float *to, const double dots[3], const float *base, const float *a, const float *b,
                 double lambda, size_t n);

/* ops_table.c */
const kn_ops *kn_ref_ops_table(void);
const kn_ops *kn_ref_bf16_ops_table(void);

#endif
