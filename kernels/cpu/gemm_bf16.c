/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Products of bfloat16 with VDPBF16PS or widened to float32: the parts that one thread computes (gemm_bf16.h). */
#include "tile_bf16.h"

enum { MOST_PANELS = 8 };

/* --- one block of C --- */

/* m rows × np panels of a product: rows from `row` on, at `a` (widened or not, as the tile wants them). */
KN_INLINE void block(const int m, const int np, const kn_product16 *p, const A *a, size_t lda, size_t row, size_t panel)
{
    const int nv = np * NW;
    const size_t column = panel * KN_PANEL, columns = kn_min(p->N - column, (size_t)np * KN_PANEL);
    float *c = p->c ? p->c + row * p->ldc + column : NULL;
    V acc[MR * NP * NW > MOST_PANELS ? MR * NP * NW : MOST_PANELS];
    KN_UNROLL
    for (int r = 0; r < m; r++) { /* two loops, each short enough to be unrolled: the sums stay in registers */
        KN_UNROLL
        for (int n = 0; n < nv; n++)
            acc[r * nv + n] = v_zero();
    }
    if (c && p->accumulate)
        for (int r = 0; r < m; r++) {
            KN_UNROLL
            for (int n = 0; n < nv; n++)
                acc[r * nv + n] = load_columns(c + (size_t)r * p->ldc, n, columns);
        }
    tile_run(acc, m, np, 1, kn_ceil(p->K, 2), a, lda, p->packed + panel * p->panel_stride, p->panel_stride);
    KN_UNROLL
    for (int r = 0; r < m; r++) {
        KN_UNROLL
        for (int n = 0; n < nv; n++) {
            const size_t at = (size_t)n * VN;
            if (c)
                store_columns(c + (size_t)r * p->ldc, n, columns, acc[r * nv + n]);
            else if (at < columns)
                store_rounded(p, row + (size_t)r, column + at, columns - at, acc[r * nv + n]);
        }
    }
}

/* Panels that a block of m rows takes at once: enough sums to keep the multipliers busy when rows are few. */
static size_t panels_at_once(size_t m)
{
#if VN == 16
    return m == 1 ? 8 : m <= 6 ? 4 : 2;
#elif VN == 8
    return m == 1 ? 4 : m == 2 ? 2 : 1;
#else
    return m == 1 ? 2 : 1;
#endif
}

static void block_rows(size_t m, size_t np, const kn_product16 *p, const A *a, size_t lda, size_t row, size_t panel)
{
#define ROWS(M, P)                          \
    case M:                                 \
        block(M, P, p, a, lda, row, panel); \
        break;
#define BY1(M) ROWS(M, 1)
    if (np == 1) {
        TILE_ROWS(m, BY1)
    }
#if VN == 16
#define BY2(M) ROWS(M, 2)
    else if (np == 2) {
        TILE_ROWS(m, BY2)
    } else if (np == 4) {
        switch (m) {
            ROWS(1, 4) ROWS(2, 4) ROWS(3, 4) ROWS(4, 4) ROWS(5, 4) ROWS(6, 4)
        }
    } else {
        block(1, 8, p, a, lda, row, panel);
    }
#undef BY2
#elif VN == 8
    else if (np == 2) {
        switch (m) {
            ROWS(1, 2) ROWS(2, 2)
        }
    } else {
        block(1, 4, p, a, lda, row, panel);
    }
#else
    else
        block(1, 2, p, a, lda, row, panel);
#endif
#undef BY1
#undef ROWS
}

/* --- rows of A as the tile wants them --- */

/* Whether they can be read where they are. Rows a multiple of 2 KiB apart would crowd a few sets of the first-level
 * cache. */
static bool usable(const kn_product16 *p, size_t rows)
{
    return DOT && p->K % 2 == 0 && !(p->lda % 1024 == 0 && rows > 4);
}

static void copy_row(A *to, const uint16_t *from, size_t K)
{
#if DOT
    memcpy(to, from, K * sizeof(*from));
    if (K % 2)
        ((uint16_t *)to)[K] = 0;
#else
    size_t k = 0;
    for (; k + VN <= K; k += VN)
        v_store(to + k, v_load_bf16(from + k));
    for (; k < K; k++)
        to[k] = kn_widen(from[k]);
    if (K % 2)
        to[K] = 0;
#endif
}

static void product(const kn_product16 *p, size_t row, size_t row_end, size_t panel, size_t panel_end, void *scratch)
{
    const size_t rows = row_end - row, tiles = kn_ceil(rows, MR);
    if (tiles == 0)
        return;
    const uint16_t *a = p->a + row * p->lda;
    size_t lda = p->lda; /* elements of 2 bytes, or of 4 when widened */
    if (!usable(p, rows)) {
        lda = kn_ceil(p->K, 32) * 32 + 32;
        for (size_t r = 0; r < rows; r++)
            copy_row((A *)((char *)scratch + r * lda * (DOT ? 2 : 4)), a + r * p->lda, p->K);
        a = scratch;
    }
    const size_t bytes = lda * (DOT ? 2 : 4), highest = kn_ceil(rows, tiles);
    for (size_t at = panel, np; at < panel_end; at += np) {
        for (np = panels_at_once(highest); np > panel_end - at; np /= 2)
            ;
        for (size_t i = 0; i < tiles; i++) {
            const size_t r = kn_cut(rows, tiles, i), m = kn_cut(rows, tiles, i + 1) - r;
            block_rows(m, np, p, (const A *)((const char *)a + r * bytes), lda, row + r, at);
        }
    }
}

/* --- weight gradients --- */

/* One step of a tile of A, in the form that tile_run reads. Places behind the tile's own take what follows in the row;
 * they are not read. */
KN_INLINE void pack_tile(A *to, const uint16_t *first, const uint16_t *second, size_t left)
{
    KN_UNROLL
    for (size_t i = 0; i < MR_PITCH; i += VN) {
        const VU pairs = load_pairs(first + i, second ? second + i : NULL, left > i ? left - i : 0);
#if DOT
        memcpy(to + i, &pairs, sizeof(pairs));
#else
        v_store(to + i, (V)(pairs << 16));
        v_store(to + MR_PITCH + i, (V)(pairs & 0xffff0000u));
#endif
    }
}

KN_INLINE void weight_block(const int m, const int np, size_t pairs, const A *a, const uint16_t *b, float *c,
                            size_t ldc, size_t columns)
{
    const int nv = np * NW;
    V acc[MR * NP * NW];
    KN_UNROLL
    for (int r = 0; r < m; r++) {
        KN_UNROLL
        for (int n = 0; n < nv; n++)
            acc[r * nv + n] = load_columns(c + (size_t)r * ldc, n, columns);
    }
    for (int r = 0; r < m; r++) /* the next tile's sums */
        for (int n = 0; n < np; n++)
            __builtin_prefetch(c + (size_t)(m + r) * ldc + n * KN_PANEL, 1);
    tile_run(acc, m, np, 0, pairs, a, 0, b, (size_t)KN_DEPTH16 * KN_PANEL);
    KN_UNROLL
    for (int r = 0; r < m; r++) {
        KN_UNROLL
        for (int n = 0; n < nv; n++)
            store_columns(c + (size_t)r * ldc, n, columns, acc[r * nv + n]);
    }
}

static void weight_rows(size_t m, size_t np, size_t pairs, const A *a, const uint16_t *b, float *c, size_t ldc,
                        size_t columns)
{
#define ROWS(M, P)                                        \
    case M:                                               \
        weight_block(M, P, pairs, a, b, c, ldc, columns); \
        break;
#define BY1(M) ROWS(M, 1)
#define BY2(M) ROWS(M, 2)
    if (np == 1) {
        TILE_ROWS(m, BY1)
    }
#if NP == 2
    else {
        TILE_ROWS(m, BY2)
    }
#endif
#undef BY2
#undef BY1
#undef ROWS
}

static void weight(const kn_weight16 *w, size_t out, size_t out_end, size_t panel, size_t panel_end, void *scratch)
{
    const size_t outputs = out_end - out, tiles = kn_ceil(outputs, MR), panels = panel_end - panel;
    const size_t a_step = KN_DEPTH16 / (DOT ? 2 : 1) * MR_PITCH, b_step = (size_t)KN_DEPTH16 * KN_PANEL;
    const size_t column = panel * KN_PANEL;
    size_t first[KN_WEIGHT_OUTPUTS / MR + 2];
    for (size_t i = 0; i <= tiles; i++)
        first[i] = out + kn_cut(outputs, tiles, i);
    uint16_t *b = scratch;
    A *a = (A *)(b + panels * b_step);
    for (size_t t = 0; t < w->T; t += KN_DEPTH16) {
        const size_t depth = kn_min(KN_DEPTH16, w->T - t), pairs = kn_ceil(depth, 2);
        for (size_t k = 0; k < pairs; k++) {
            const bool both = 2 * k + 1 < depth;
            const uint16_t *x = w->x + (t + 2 * k) * w->ldx, *dy = w->dy + (t + 2 * k) * w->lddy;
            const uint16_t *x_next = both ? x + w->ldx : NULL, *dy_next = both ? dy + w->lddy : NULL;
            for (size_t p = 0, i = column; p < panels; p++, i += KN_PANEL)
                pack_panel(b + p * b_step + k * 2 * KN_PANEL, x + i, both ? x_next + i : NULL, w->in - i);
            for (size_t i = 0; i < tiles; i++)
                pack_tile(a + i * a_step + k * (DOT ? 1 : 2) * MR_PITCH, dy + first[i],
                          both ? dy_next + first[i] : NULL, w->out - first[i]);
        }
        for (size_t p = 0, np; p < panels; p += np) {
            np = kn_min(NP, panels - p);
            const size_t at = column + p * KN_PANEL, columns = kn_min(np * KN_PANEL, w->in - at);
            for (size_t i = 0; i < tiles; i++)
                weight_rows(first[i + 1] - first[i], np, pairs, a + i * a_step, b + p * b_step,
                            w->dw + first[i] * w->lddw + at, w->lddw, columns);
        }
    }
}

static const kn_way16 way = {.name = DOT ? "avx512bf16" : "widened",
                             .tile_rows = MR,
                             .row_group = 2,
                             .product = product,
                             .weight = weight,
                             .pack = KN(pack16)};

const kn_way16 *KN(way16)(void)
{
    return &way;
}
