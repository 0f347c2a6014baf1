/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the files of one instruction set share: the layouts of matrices and caches, and the ops' names. */
#ifndef KN_CPU_OPS_H
#define KN_CPU_OPS_H

#include "cpu.h"
#include "gemm_bf16.h"
#include "onednn.h"
#include "tile.h"

/*
 * W[out, in] as panels of NR outputs: panel p holds, for k = 0 … in-1, the NR weights of outputs p·NR … at input k side
 * by side (0 beyond the last output). `back` is the same of Wᵀ: panels of NR inputs, k running over outputs.
 */
struct kn_matrix {
    kn_dtype dtype; /* which of the layouts it has: those of gemm_bf16.h are KN_BF16 */
    size_t out, in;
    float *forward;
    float *back;                                  /* NULL without backward */
    kn_onednn_side *onednn_forward, *onednn_back; /* NULL unless oneDNN was asked for */
    uint16_t *forward16, *back16;
};

/*
 * Pages of keys and values. A block holds sixteen positions of one key/value head: keys [head_dim][16], so that scores
 * vectorize over keys, then values [16][head_dim], so that their sum vectorizes over head_dim. A page is kv_heads
 * blocks.
 */
struct kn_cache {
    size_t layers, pages;
    kn_attention shape;
    void *data; /* of the table's type, [layers][pages][kv_heads][block] */
    size_t bytes;
};

static inline size_t kn_block_size(const kn_attention *a)
{
    return 2 * KN_PAGE * (size_t)a->head_dim;
}

static inline size_t kn_width(const kn_attention *a)
{
    return ((size_t)a->heads + 2 * (size_t)a->kv_heads) * a->head_dim;
}

/* --- gemm.c: serial pieces, for ops that order their own work --- */

/* Rows [row, row_end) and panels [panel, panel_end) of C[·, N] = start + A·B, K deep, B packed in panels. Start is bias
 * + residual (rows like C's) where given, else C itself when `accumulate`, else 0. */
typedef struct kn_product {
    size_t N, K;
    const float *a;
    size_t lda;
    const float *packed;
    size_t panel_stride; /* floats from panel to panel: usually K · NR */
    float *c;
    size_t ldc;
    const float *bias, *residual;
    bool accumulate;
} kn_product;

void KN(product_part)(const kn_product *, size_t row, size_t row_end, size_t panel, size_t panel_end);
/* All of it for M rows, on the pool. */
void KN(product)(kn_cpu *, const kn_product *, size_t M);
/* Zeros in rows `ld` apart. */
static inline void kn_zero_rows(float *to, size_t ld, size_t rows, size_t columns)
{
    for (size_t r = 0; r < rows; r++)
        memset(to + r * ld, 0, columns * sizeof(*to));
}

/* C[out, in] = dyᵀ·x over T rows in order, on the pool; db[out] = sums of dy's columns when given; or +=. */
int KN(product_weight)(kn_cpu *, float *dw, size_t lddw, float *db, const float *dy, size_t lddy, const float *x,
                       size_t ldx, size_t T, size_t out, size_t in, bool accumulate);

/* The same of bfloat16. KN_OK or KN_NO_MEMORY. */
int KN(product_bf16)(kn_cpu *, const kn_product16 *, size_t M);
int KN(product_weight_bf16)(kn_cpu *, const kn_weight16 *, float *db);

/* --- the ops: of the element type at hand, then those that both tables share --- */

kn_matrix *KE(matrix_new)(kn_device *, size_t out, size_t in, bool with_backward);
int KE(matrix_set)(kn_device *, kn_matrix *, const float *w);
void KE(matrix_free)(kn_device *, kn_matrix *);
int KE(linear)(kn_device *, void *y, const void *x, const kn_matrix *, const float *bias, const void *residual,
               size_t T);
int KE(linear_backward_input)(kn_device *, void *dx, const void *dy, const kn_matrix *, size_t T, bool accumulate);
int KE(linear_backward_weight)(kn_device *, float *dw, float *db, const void *dy, const void *x, size_t T, size_t out,
                               size_t in, bool accumulate);
int KE(rms_norm)(kn_device *, void *y, float *rstd, const void *x, const float *w, size_t T, size_t d, float eps);
int KE(rms_norm_backward)(kn_device *, void *dx, float *dw, void *y, const void *dy, const void *x, const float *w,
                          const float *rstd, size_t T, size_t d, bool accumulate);
int KE(rope)(kn_device *, void *x, size_t stride, const uint32_t *position, const float *cos, const float *sin,
             size_t T, size_t heads, size_t head_dim, bool inverse);
int KE(swiglu)(kn_device *, void *y, const void *gate_up, size_t T, size_t f);
int KE(swiglu_backward)(kn_device *, void *dgate_up, void *y, const void *dy, const void *gate_up, size_t T, size_t f);
int KE(embed)(kn_device *, void *y, const void *table, const uint32_t *token, size_t T, size_t d);
int KE(embed_backward)(kn_device *, float *dtable, const void *dy, const uint32_t *token, size_t T, size_t d,
                       size_t vocab);
int KE(scatter_add)(kn_device *, void *y, const void *x, const uint32_t *row, size_t S, size_t T, size_t d);
int KE(dropout)(kn_device *, void *x, size_t T, size_t d, float rate, const uint64_t key[2], const uint64_t *row_id);
int KE(add)(kn_device *, void *y, const void *x, size_t n);
int KE(axpy)(kn_device *, void *y, float a, const void *x, size_t n);
int KE(attention)(kn_device *, void *out, float *lse, const void *qkv, const kn_segment *, size_t segments, size_t T,
                  const kn_attention *);
int KE(attention_backward)(kn_device *, void *dqkv, const void *dout, const void *qkv, const void *out,
                           const float *lse, const kn_segment *, size_t segments, size_t T, const kn_attention *);
kn_cache *KE(cache_new)(kn_device *, size_t layers, size_t pages, const kn_attention *);
void KE(cache_free)(kn_device *, kn_cache *);
int KE(cache_copy_page)(kn_device *, kn_cache *, uint32_t to, uint32_t from, size_t count);
int KE(attention_cached)(kn_device *, void *out, void *qkv, kn_cache *, size_t layer, const kn_cached_rows *,
                         size_t sequences, size_t T, const kn_rotary *);
/* One row's heads, in place, by the angles of its position; what rope does, for ops that order their own work. */
void KE(turn)(void *x, const float *cos, const float *sin, size_t heads, size_t head_dim, bool inverse);
int KN(logprob)(kn_device *, float *logprob, float *lse, float *entropy, const void *h, const kn_matrix *,
                const uint32_t *target, size_t T, float *kept);
int KN(logprob_backward)(kn_device *, void *dh, float *dw, const float *dlogprob, const void *h, const kn_matrix *,
                         const float *lse, const uint32_t *target, size_t T, bool accumulate, float *kept);
int KN(logits)(kn_device *, float *logits, const void *h, const kn_matrix *, size_t T);
int KN(choose)(kn_device *, kn_chosen *, float *logits, const kn_choice *, size_t T, size_t vocab);
int KN(to_bf16)(kn_device *, uint16_t *to, const float *from, size_t n);
int KN(from_bf16)(kn_device *, float *to, const uint16_t *from, size_t n);
int KN(sum_squares_add)(kn_device *, double *sum, const float *x, size_t n);
int KN(clip)(kn_device *, float *scale, const double *sum, double grad_scale, double max_norm);
int KN(adamw)(kn_device *, float *w, float *m, float *v, const float *g, size_t n, const kn_adamw *);
int KN(adamw_bf16)(kn_device *, float *w, uint16_t *m, uint16_t *v, const float *g, size_t n, const kn_adamw *,
                   const uint64_t key[2], const uint64_t counter[2]);
int KN(mean)(kn_device *, float *to, const float *const *from, const float *weight, size_t count, size_t n);
int KN(slerp_dots_add)(kn_device *, double dots[3], const float *base, const float *a, const float *b, size_t n);
int KN(slerp)(kn_device *, float *to, const double dots[3], const float *base, const float *a, const float *b,
              double lambda, size_t n);

/* log Σ exp of a row of logits, in the one order that logprob uses too. */
double KN(row_lse)(const float *logits, size_t vocab);

#endif
