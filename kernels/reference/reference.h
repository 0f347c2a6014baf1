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

#include "kernels/ops.h"

/* W[out, in], row-major. */
struct kn_matrix {
    size_t out, in;
    float *w;
};

/* Keys and values by layer, page, position in the page, key/value head:
 * [layers][pages][KN_PAGE][2][kv_heads][head_dim]. */
struct kn_cache {
    size_t layers, pages;
    kn_attention shape;
    float *data;
};

/* Position `at` (0 … KN_PAGE-1) of a page: keys of all heads, then values of all heads. */
float *kn_ref_cache_at(const kn_cache *, size_t layer, uint32_t page, size_t at);

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
kn_matrix *kn_ref_matrix_new(kn_device *, kn_dtype, size_t out, size_t in, bool with_backward);
int kn_ref_matrix_set(kn_device *, kn_matrix *, const float *w);
void kn_ref_matrix_free(kn_device *, kn_matrix *);
int kn_ref_linear(kn_device *, float *y, const float *x, const kn_matrix *, const float *bias, const float *residual,
                  size_t T);
int kn_ref_linear_backward_input(kn_device *, float *dx, const float *dy, const kn_matrix *, size_t T, bool accumulate);
int kn_ref_linear_backward_weight(kn_device *, float *dw, float *db, const float *dy, const float *x, size_t T,
                                  size_t out, size_t in);

/* rows.c */
int kn_ref_rms_norm(kn_device *, float *y, float *rstd, const float *x, const float *w, size_t T, size_t d, float eps);
int kn_ref_rms_norm_backward(kn_device *, float *dx, float *dw, const float *dy, const float *x, const float *w,
                             const float *rstd, size_t T, size_t d);
int kn_ref_rope(kn_device *, float *x, size_t stride, const uint32_t *position, const float *cos, const float *sin,
                size_t T, size_t heads, size_t head_dim, bool inverse);
int kn_ref_swiglu(kn_device *, float *y, const float *gate_up, size_t T, size_t f);
int kn_ref_swiglu_backward(kn_device *, float *dgate_up, const float *dy, const float *gate_up, size_t T, size_t f);
int kn_ref_embed(kn_device *, float *y, const float *table, const uint32_t *token, size_t T, size_t d);
int kn_ref_embed_backward(kn_device *, float *dtable, const float *dy, const uint32_t *token, size_t T, size_t d,
                          size_t vocab);
int kn_ref_dropout(kn_device *, float *x, size_t T, size_t d, float rate, const uint64_t key[2],
                   const uint64_t *row_id);
int kn_ref_add(kn_device *, float *y, const float *x, size_t n);
int kn_ref_axpy(kn_device *, float *y, float a, const float *x, size_t n);

/* attention.c, attention_backward.c */
int kn_ref_attention(kn_device *, float *out, float *lse, const float *qkv, const kn_segment *, size_t segments,
                     size_t T, const kn_attention *);
int kn_ref_attention_backward(kn_device *, float *dqkv, const float *dout, const float *qkv, const float *out,
                              const float *lse, const kn_segment *, size_t segments, size_t T, const kn_attention *);
int kn_ref_attention_cached(kn_device *, float *out, const float *qkv, kn_cache *, size_t layer, const kn_cached_rows *,
                            size_t sequences, size_t T);

/* cache.c */
kn_cache *kn_ref_cache_new(kn_device *, kn_dtype, size_t layers, size_t pages, const kn_attention *);
void kn_ref_cache_free(kn_device *, kn_cache *);
int kn_ref_cache_copy_page(kn_device *, kn_cache *, uint32_t to, uint32_t from, size_t count);

/* vocabulary.c */
int kn_ref_logprob(kn_device *, float *logprob, float *lse, float *entropy, const float *h, const kn_matrix *,
                   const uint32_t *target, size_t T);
int kn_ref_logprob_backward(kn_device *, float *dh, float *dw, const float *dlogprob, const float *h, const kn_matrix *,
                            const float *lse, const uint32_t *target, size_t T);
int kn_ref_logits(kn_device *, float *logits, const float *h, const kn_matrix *, size_t T);
/* log Σ exp of one row of logits. */
double kn_ref_lse(const float *logits, size_t vocab);

/* choose.c */
int kn_ref_choose(kn_device *, kn_chosen *, float *logits, const kn_choice *, size_t T, size_t vocab);

/* optimizer.c */
int kn_ref_sum_squares(kn_device *, double *sum, const float *x, size_t n);
int kn_ref_adamw(kn_device *, float *w, float *m, float *v, const float *g, size_t n, const kn_adamw *);

#endif
