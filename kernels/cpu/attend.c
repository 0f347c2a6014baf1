/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "attend.h"

/* --- blocks --- */

static inline const void *block_at(const kn_blocks *k, size_t b)
{
    const size_t at = (k->pages ? k->pages[b] : b) * k->stride;
    return k->bf16 ? (const void *)((const uint16_t *)k->base + at) : (const float *)k->base + at;
}

/* The vector at element i of a block, or its first n lanes; bf16 must be constant after inlining. */
KN_INLINE V block_load(const void *block, size_t i, const bool bf16)
{
    return bf16 ? v_load_bf16((const uint16_t *)block + i) : v_load((const float *)block + i);
}

KN_INLINE V block_load_n(const void *block, size_t i, size_t n, const bool bf16)
{
    return bf16 ? v_load_bf16_n((const uint16_t *)block + i, n) : v_load_n((const float *)block + i, n);
}

/* --- scores --- */

/* m rows against nb blocks at once: with few rows, several blocks keep the multipliers busy. `next` are the blocks
 * after them where these lie in pages, each a step to somewhere else in memory: they are asked for, values and all,
 * meanwhile.
 */
KN_INLINE void scores(const int m, const int nb, const bool bf16, size_t head_dim, float scale, const float *q,
                      size_t sm, const void *const *block, const void *const *next, float *s, size_t ls)
{
    V acc[MR * NW > 4 * NW ? MR * NW : 4 * NW];
    KN_UNROLL
    for (int i = 0; i < m * nb * NW; i++)
        acc[i] = v_zero();
    for (size_t k = 0; k < head_dim; k++) {
        V b[4 * NW];
        KN_UNROLL
        for (int n = 0; n < nb; n++) {
            W_EACH(w)
            b[n * NW + w] = block_load(block[n], k * 16 + w * VN, bf16);
            if (next && bf16)
                __builtin_prefetch((const char *)next[n] + k * 64);
            else if (next) {
                __builtin_prefetch((const char *)next[n] + k * 128);
                __builtin_prefetch((const char *)next[n] + k * 128 + 64);
            }
        }
        KN_UNROLL
        for (int r = 0; r < m; r++) {
            const V x = v_set1(q[(size_t)r * sm + k]);
            KN_UNROLL
            for (int n = 0; n < nb * NW; n++)
                acc[r * nb * NW + n] = v_fma(x, b[n], acc[r * nb * NW + n]);
        }
    }
    const V by = v_set1(scale);
    KN_UNROLL
    for (int r = 0; r < m; r++) {
        KN_UNROLL
        for (int n = 0; n < nb * NW; n++)
            v_store(s + (size_t)r * ls + n * VN, acc[r * nb * NW + n] * by);
    }
}

KN_INLINE void all_scores(const bool bf16, size_t m, size_t head_dim, float scale, const float *q, size_t sm,
                          const kn_blocks *blocks, size_t from, size_t to, float *s, size_t ls)
{
    const size_t at_once = m == 1 ? 4 : (m == 2 && NW <= 2) || (m == 3 && NW == 1) ? 2 : 1;
    for (size_t b = from; b < to;) {
        const void *block[4], *after[4], *const *next = NULL;
        const size_t nb = to - b >= at_once ? at_once : 1;
        for (size_t i = 0; i < nb; i++)
            block[i] = block_at(blocks, b + i);
        if (blocks->pages && b + nb < to) {
            for (size_t i = 0; i < nb; i++)
                after[i] = block_at(blocks, kn_min(b + nb + i, to - 1));
            next = after;
        }
        float *to_s = s + 16 * (b - from);
#define ONE(M)                                                             \
    case M:                                                                \
        scores(M, 1, bf16, head_dim, scale, q, sm, block, next, to_s, ls); \
        break;
        if (nb == 4)
            scores(1, 4, bf16, head_dim, scale, q, sm, block, next, to_s, ls);
        else if (nb == 2 && m == 2)
            scores(2, 2, bf16, head_dim, scale, q, sm, block, next, to_s, ls);
        else if (nb == 2)
            scores(3, 2, bf16, head_dim, scale, q, sm, block, next, to_s, ls);
        else
            TILE_ROWS(m, ONE)
#undef ONE
        b += nb;
    }
}

void KN(attend_scores)(size_t m, size_t head_dim, float scale, const float *q, size_t sm, const kn_blocks *blocks,
                       size_t from, size_t to, float *s, size_t ls)
{
    if (blocks->bf16)
        all_scores(true, m, head_dim, scale, q, sm, blocks, from, to, s, ls);
    else
        all_scores(false, m, head_dim, scale, q, sm, blocks, from, to, s, ls);
}

/* --- weighted sums of values --- */

/* acc[r·nv + n] += Σ p[r·lp + k] · (row k of the block from `column` on), k < keys: tile_run with rows of either type.
 */
KN_INLINE void weigh(V *acc, const int m, const int nv, const bool bf16, size_t keys, const float *p, size_t lp,
                     const void *block, size_t column, size_t head_dim, size_t tail)
{
    const float *p0 = p, *p3 = p + 3 * lp, *p6 = p + 6 * lp, *p9 = p + 9 * lp, *p12 = p + 12 * lp;
    for (size_t k = 0; k < keys; k++) {
        V row[8];
        KN_UNROLL
        for (int n = 0; n < nv; n++) {
            const size_t i = k * head_dim + column + (size_t)n * VN;
            row[n] = tail && n == nv - 1 ? block_load_n(block, i, tail, bf16) : block_load(block, i, bf16);
        }
        KN_UNROLL
        for (int r = 0; r < m; r++) {
            const float *from = r < 3 ? p0 : r < 6 ? p3 : r < 9 ? p6 : r < 12 ? p9 : p12;
            const V weight = v_set1(from[(size_t)(r % 3) * lp + k]);
            KN_UNROLL
            for (int n = 0; n < nv; n++)
                acc[r * nv + n] = v_fma(weight, row[n], acc[r * nv + n]);
        }
    }
}

KN_INLINE void values(const int m, const int nv, size_t tail, const bool bf16, size_t head_dim, const float *p,
                      size_t lp, const kn_blocks *blocks, size_t from, size_t end, const float *factor, size_t column,
                      float *out, size_t so)
{
    V acc[MR * 2 > 4 * 4 ? MR * 2 : 4 * 4];
    KN_UNROLL
    for (int i = 0; i < m * nv; i++)
        acc[i] = v_zero();
    for (size_t b = from; b * 16 < end; b++)
        weigh(acc, m, nv, bf16, kn_min(16, end - b * 16), p + 16 * (b - from), lp, block_at(blocks, b), column,
              head_dim, tail);
    KN_UNROLL
    for (int r = 0; r < m; r++) {
        const V by = v_set1(factor ? factor[r] : 1.0f);
        KN_UNROLL
        for (int n = 0; n < nv; n++) {
            const V o = acc[r * nv + n] * by + v_zero(); /* + 0: no negative zero from a value that was masked */
            float *to = out + (size_t)r * so + column + n * VN;
            if (tail && n == nv - 1)
                v_store_n(to, o, tail);
            else
                v_store(to, o);
        }
    }
}

KN_INLINE void all_values(const bool bf16, size_t m, size_t head_dim, const float *p, size_t lp,
                          const kn_blocks *blocks, size_t from, size_t end, const float *factor, float *out, size_t so)
{
    const size_t widest = m == 1 ? 8 : m <= 2 || (m <= 4 && VN != 8) ? 4 : 2;
#define CALL(M, NVX, TAIL) values(M, NVX, TAIL, bf16, head_dim, p, lp, blocks, from, end, factor, column, out, so)
#define ONE(M)         \
    case M:            \
        CALL(M, 1, 0); \
        break;
#define TWO(M)         \
    case M:            \
        CALL(M, 2, 0); \
        break;
#define TAIL(M)                        \
    case M:                            \
        CALL(M, 1, head_dim - column); \
        break;
    size_t column = 0;
    while (column < head_dim) {
        const size_t left = head_dim - column;
        size_t nv = widest;
        while (nv > 1 && nv * VN > left)
            nv /= 2;
        if (left < VN)
            TILE_ROWS(m, TAIL)
        else if (nv == 1)
            TILE_ROWS(m, ONE)
        else if (nv == 2)
            TILE_ROWS(m, TWO)
        else if (nv == 8)
            CALL(1, 8, 0);
        else if (m == 1)
            CALL(1, 4, 0);
        else if (m == 2)
            CALL(2, 4, 0);
        else if (m == 3)
            CALL(3, 4, 0);
        else
            CALL(4, 4, 0);
        column += nv * VN;
    }
#undef CALL
#undef ONE
#undef TWO
#undef TAIL
}

void KN(attend_values)(size_t m, size_t head_dim, const float *p, size_t lp, const kn_blocks *blocks, size_t from,
                       size_t end, const float *factor, float *out, size_t so)
{
    if (blocks->bf16)
        all_values(true, m, head_dim, p, lp, blocks, from, end, factor, out, so);
    else
        all_values(false, m, head_dim, p, lp, blocks, from, end, factor, out, so);
}

/* --- gradients of keys and values --- */

KN_INLINE void gradient(const int m, const int nv, size_t tail, size_t depth, const float *a, size_t sk, const float *b,
                        size_t sb, float *c, size_t sc)
{
    V acc[MR * 2];
    KN_UNROLL
    for (int r = 0; r < m; r++) {
        KN_UNROLL
        for (int n = 0; n < nv; n++) {
            const float *from = c + (size_t)r * sc + n * VN;
            acc[r * nv + n] = tail ? v_load_n(from, tail) : v_load(from);
        }
    }
    tile_run(acc, m, nv, depth, a, 0, sk, 0, b, sb, 0, tail);
    KN_UNROLL
    for (int r = 0; r < m; r++) {
        KN_UNROLL
        for (int n = 0; n < nv; n++) {
            float *to = c + (size_t)r * sc + n * VN;
            if (tail)
                v_store_n(to, acc[r * nv + n], tail);
            else
                v_store(to, acc[r * nv + n]);
        }
    }
}

void KN(attend_gradient)(size_t m, size_t head_dim, size_t depth, const float *a, size_t sk, const float *b, size_t sb,
                         float *c)
{
#define CALL(M, NVX, TAIL) gradient(M, NVX, TAIL, depth, a, sk, b + column, sb, c + column, head_dim)
#define ONE(M)         \
    case M:            \
        CALL(M, 1, 0); \
        break;
#define TWO(M)         \
    case M:            \
        CALL(M, 2, 0); \
        break;
#define TAIL(M)           \
    case M:               \
        CALL(M, 1, left); \
        break;
    for (size_t column = 0; column < head_dim;) {
        const size_t left = head_dim - column, nv = left >= 2 * VN ? 2 : 1;
        if (nv == 2)
            TILE_ROWS(m, TWO)
        else if (left >= VN)
            TILE_ROWS(m, ONE)
        else
            TILE_ROWS(m, TAIL)
        column += nv * VN;
    }
#undef CALL
#undef ONE
#undef TWO
#undef TAIL
}
