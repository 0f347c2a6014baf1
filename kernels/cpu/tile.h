/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The innermost loop of every matrix product here: an m × (nv vectors) block of C kept in registers while k runs
 * upward, C[r][·] = fma(A[r][k], B[k][·], C[r][·]),  k = 0, 1, 2, … Every element of C is one chain of fused
 * multiply-adds in the order of k from its first value. Nothing about the block's height, width or place enters, so a
 * result has the same bits in whatever block it is computed.
 */
#ifndef KN_TILE_H
#define KN_TILE_H

#include "vec.h"

/* Blocks of at most MR rows and NR columns: as many accumulators as leave registers for B and one element of A. */
#if VN == 16
#define MR 14
#define NV 2
#elif VN == 8
#define MR 6
#define NV 2
#elif defined(__ARM_NEON) && !defined(KN_PLAIN)
#define MR 6
#define NV 4
#else
#define MR 2
#define NV 4
#endif
#define NR (NV * VN)

/* acc[r·nv + n] over K steps. A's element (r, k) is a[r·sm + k] (by_row) or a[r + k·sk]; B's vector n of step k starts
 * at b[k·sb + n·VN], or, where several packed panels are walked at once, panel n / NV lies `panel` floats further. The
 * last vector has `tail` lanes when that is not 0. m, nv, by_row and whether tail is 0 must be constants after
 * inlining. */
KN_INLINE void tile_run(V *acc, const int m, const int nv, size_t K, const float *a, size_t sm, size_t sk,
                        const int by_row, const float *b, size_t sb, size_t panel, size_t tail)
{
    const float *a0 = a, *a3 = a + 3 * sm, *a6 = a + 6 * sm, *a9 = a + 9 * sm, *a12 = a + 12 * sm;
    for (size_t k = 0; k < K; k++) {
        V bv[8];
        KN_UNROLL
        for (int n = 0; n < nv; n++) {
            const float *from = panel ? b + (size_t)(n / NV) * panel + n % NV * VN : b + n * VN;
            bv[n] = tail && n == nv - 1 ? v_load_n(from, tail) : v_load(from);
        }
        KN_UNROLL
        for (int r = 0; r < m; r++) {
            float x;
            if (by_row) {
                const float *row = r < 3 ? a0 : r < 6 ? a3 : r < 9 ? a6 : r < 12 ? a9 : a12;
                x = row[(size_t)(r % 3) * sm + k];
            } else {
                x = a0[r];
            }
            const V av = v_set1(x);
            KN_UNROLL
            for (int n = 0; n < nv; n++)
                acc[r * nv + n] = v_fma(av, bv[n], acc[r * nv + n]);
        }
        b += sb;
        if (!by_row)
            a0 += sk;
    }
}

/* Calls X(1) … X(MR) by the value of m. */
#if MR == 14
#define TILE_ROWS(m, X)                                                            \
    switch (m) {                                                                   \
        X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) \
    }
#elif MR == 6
#define TILE_ROWS(m, X)               \
    switch (m) {                      \
        X(1) X(2) X(3) X(4) X(5) X(6) \
    }
#else
#define TILE_ROWS(m, X) \
    switch (m) {        \
        X(1) X(2)       \
    }
#endif

#endif
