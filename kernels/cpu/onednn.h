/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products by oneDNN, for those who ask for them (SLUICE_CPU_MATMUL=onednn): linear and linear_backward_input.
 * The vocabulary's products and weight gradients are always our own, so that choosing a token and scoring it agree.
 *
 * One answer: every product runs as tiles of exactly KN_ONEDNN_ROWS rows, the last one padded, one thread a tile, with
 * weights reordered once and a scratchpad of ours (the library's own is shared by threads that execute one primitive).
 */
#ifndef KN_ONEDNN_H
#define KN_ONEDNN_H

#include "cpu.h"

#define KN_ONEDNN_ROWS 64

typedef struct kn_onednn kn_onednn;           /* the library's engine */
typedef struct kn_onednn_side kn_onednn_side; /* one product with one weight: y = x · B, B[K, N] */

/* NULL when out of memory, or built without oneDNN. */
kn_onednn *kn_onednn_new(void);
void kn_onednn_free(kn_onednn *);
/* e.g. "onednn2.6.3-avx512_core"; "" when built without. */
void kn_onednn_name(char *name, size_t size);

/* B's element (k, n) will be w[k·row_stride + n·column_stride]. */
kn_onednn_side *kn_onednn_side_new(kn_onednn *, size_t K, size_t N, size_t row_stride, size_t column_stride);
void kn_onednn_side_free(kn_onednn_side *);
int kn_onednn_side_set(kn_onednn_side *, const float *w);
/* y[T, N] = start + x[T, K]·B; start is bias + residual (y may be residual), or y itself when `accumulate`. */
int kn_onednn_product(kn_cpu *, const kn_onednn_side *, float *y, const float *x, const float *bias,
                      const float *residual, bool accumulate, size_t T);

#endif
