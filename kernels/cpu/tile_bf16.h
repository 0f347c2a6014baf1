/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The innermost loop of the bfloat16 products (gemm_bf16.h): an m × (np panels) block of float32 sums kept in registers
 * while k runs upward by pairs. With VDPBF16PS an element of A is a pair of bfloat16, otherwise a float32 (A is widened
 * beforehand, B as it is loaded: the two elements of a pair are the halves of a 32-bit lane, one operation each).
 */
#ifndef KN_TILE_BF16_H
#define KN_TILE_BF16_H

#include "block_bf16.h"

#if defined(__AVX512BF16__)
#define DOT 1
typedef uint32_t A; /* a pair */
#else
#define DOT 0
typedef float A;
#endif

/* Blocks of at most MR rows and NP panels; a packed A has MR_PITCH elements of A a step. */
#if VN == 16
#define MR       14
#define NP       2
#define MR_PITCH 16
#elif VN == 8
#define MR       6
#define NP       1
#define MR_PITCH 8
#elif defined(__ARM_NEON) && !defined(KN_PLAIN)
#define MR       6
#define NP       1
#define MR_PITCH 8
#else
#define MR       2
#define NP       1
#define MR_PITCH 4
#endif

#if DOT

KN_INLINE uint32_t load_pair(const uint16_t *p)
{
    uint32_t a;
    memcpy(&a, p, sizeof(a));
    return a;
}

/* acc[r·np + n] += over `pairs` steps. A's pair k of row r is at a + r·lda + 2k (by_row), or a + (k·MR_PITCH + r)·2. */
KN_INLINE void tile_run(V *acc, const int m, const int np, const int by_row, size_t pairs, const void *a, size_t lda,
                        const uint16_t *b, size_t panel)
{
    /* Memory has to keep up with the first rows that use a panel, so the next panels are asked for; for the rows after
     * them this costs nothing that they would use. One row: the loads themselves run far enough ahead. */
    const bool ahead = by_row && m > 1;
    const uint16_t *a0 = a, *a3 = a0 + 3 * lda, *a6 = a0 + 6 * lda, *a9 = a0 + 9 * lda, *a12 = a0 + 12 * lda;
    for (size_t k = 0; k < pairs; k++) {
        VU bv[8];
        KN_UNROLL
        for (int n = 0; n < np; n++)
            bv[n] = vu_load(b + (size_t)n * panel);
        KN_UNROLL
        for (int r = 0; r < m; r++) {
            const uint16_t *row = r < 3 ? a0 : r < 6 ? a3 : r < 9 ? a6 : r < 12 ? a9 : a12;
            const uint32_t x = by_row ? load_pair(row + (size_t)(r % 3) * lda + 2 * k) : load_pair(a0 + 2 * r);
            const __m512bh av = (__m512bh)_mm512_set1_epi32((int)x);
            KN_UNROLL
            for (int n = 0; n < np; n++)
                acc[r * np + n] = (V)_mm512_dpbf16_ps((__m512)acc[r * np + n], av, (__m512bh)bv[n]);
        }
        if (ahead) {
            KN_UNROLL
            for (int n = 0; n < np; n++)
                __builtin_prefetch(b + (size_t)(n + np) * panel, 0, 2);
        }
        b += 2 * KN_PANEL;
        if (!by_row)
            a0 += 2 * MR_PITCH;
    }
}

#else

/* acc[r·np·NW + n]: the same with float32 elements: (r, k) at a + r·lda + k (by_row), or a + k·MR_PITCH + r. */
KN_INLINE void tile_run(V *acc, const int m, const int np, const int by_row, size_t pairs, const void *a, size_t lda,
                        const uint16_t *b, size_t panel)
{
    const int nv = np * NW;
    const float *a0 = a, *a3 = a0 + 3 * lda, *a6 = a0 + 6 * lda, *a9 = a0 + 9 * lda, *a12 = a0 + 12 * lda;
    for (size_t k = 0; k < 2 * pairs; k += 2) {
        KN_UNROLL
        for (int half = 0; half < 2; half++) {
            V bv[8];
            KN_UNROLL
            for (int n = 0; n < nv; n++) {
                const VU pair = vu_load(b + (size_t)(n / NW) * panel + n % NW * 2 * VN);
                bv[n] = (V)(half ? pair & 0xffff0000u : pair << 16);
            }
            KN_UNROLL
            for (int r = 0; r < m; r++) {
                const float *row = r < 3 ? a0 : r < 6 ? a3 : r < 9 ? a6 : r < 12 ? a9 : a12;
                const V av = v_set1(by_row ? row[(size_t)(r % 3) * lda + k + (size_t)half] : a0[r]);
                KN_UNROLL
                for (int n = 0; n < nv; n++)
                    acc[r * nv + n] = v_fma(av, bv[n], acc[r * nv + n]);
            }
            if (!by_row)
                a0 += MR_PITCH;
        }
        b += 2 * KN_PANEL;
    }
}

#endif

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
