/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The products inside attention, over blocks of sixteen keys or values. Scores vectorize over the keys of a block, the
 * weighted sum over head_dim; both are chains of fused multiply-adds in index order (tile.h), so neither the number of
 * queries taken together nor where a block lies changes a bit.
 */
#ifndef KN_ATTEND_H
#define KN_ATTEND_H

#include "ops.h"
#include "vmath.h"

/* Blocks of one key/value head: block b starts at base + (pages ? pages[b] : b) · stride elements, which are bfloat16
 * or float32. */
typedef struct kn_blocks {
    const void *base;
    const uint32_t *pages;
    size_t stride;
    bool bf16;
} kn_blocks;

/* s[r·ls + 16·(b - from) + lane] = scale · (q_r · column `lane` of block b), blocks [from, to) laid out [head_dim][16];
 * q_r = q + r·sm, m ≤ MR rows. */
void KN(attend_scores)(size_t m, size_t head_dim, float scale, const float *q, size_t sm, const kn_blocks *,
                       size_t from, size_t to, float *s, size_t ls);
/* out_r = factor_r · Σ_j p[r·lp + j - 16·from] · row j, keys from block `from` up to key `end`, blocks laid out
 * [16][head_dim]; out_r = out + r·so, m ≤ MR rows; factor may be NULL. */
void KN(attend_values)(size_t m, size_t head_dim, const float *p, size_t lp, const kn_blocks *, size_t from, size_t end,
                       const float *factor, float *out, size_t so);
/* c_r += Σ_k a[r + k·sk] · (row k of b), k < depth in order; rows of b are sb apart, rows of c head_dim. */
void KN(attend_gradient)(size_t m, size_t head_dim, size_t depth, const float *a, size_t sk, const float *b, size_t sb,
                         float *c);

#endif
