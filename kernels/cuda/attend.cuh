/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The pieces that attention's kernels are made of.
 *
 * bf16 tiles in shared memory have rows of D elements (head_dim rounded up to a size that has an instance, the rest
 * zero) and 8 more: a row is then an odd multiple of 16 bytes, so the eight rows of an ldmatrix lie in different banks.
 *
 * A warp's fragments of a product: a[m] are MT tiles of 16 rows, a row of the result lies in the four lanes of one
 * `lane / 4`: element [mt][n][2·i + e] of lane l is row 16·mt + l/4 + 8·i, column 8·n + 2·(l%4) + e.
 */
#ifndef KERNELS_CUDA_ATTEND_CUH
#define KERNELS_CUDA_ATTEND_CUH

#include "attention.cuh"
#include "ptx.cuh"

#include <math.h>

typedef __nv_bfloat16 attend_bf16;

#define ATTEND_LOG2E 1.4426950408889634f
#define ATTEND_LN2   0.6931471805599453f

/* tanh with an absolute error of 1e-7, which is what a capped score needs. */
KDEV float attend_tanh(float x)
{
    return 1.0f - __fdividef(2.0f, ex2_approx(2 * ATTEND_LOG2E * x) + 1.0f);
}

/* q·k as the softmax takes it: before it, factor · this is an exponent of two. */
KDEV float attend_change(float dot, const attend_shape &a)
{
    return a.cap_out > 0 ? a.cap_out * attend_tanh(a.cap_in * dot) : a.cap_in * dot;
}

/* Row of qkv, or of the cache, that key j of a sequence lies in. */
KDEV uint32_t attend_key_row(const attend_keys &keys, const attend_rows &s, uint32_t j)
{
    if (keys.pages)
        return keys.pages[s.prefix + j / KN_PAGE] * KN_PAGE + j % KN_PAGE;
    return j < s.before ? s.prefix + j : s.row + (j - s.before);
}

/* --- bf16 tiles --- */

template <int D> KDEV int attend_pitch()
{
    return D + 8;
}

/* How THREADS threads share the 16-byte pieces of a tile's rows: a thread stays in its column, PASS rows a pass. */
template <int D, int THREADS> struct attend_lanes {
    static constexpr int PASS = THREADS / (D / 8);
    static constexpr int WORKING = PASS * (D / 8);
};

/* Asks for a tile's rows: row(r) is where the r-th begins, or NULL for zeros. A thread asks about its own, in rising
 * order. `some` is any address of global memory. */
template <int ROWS, int D, int THREADS, class R>
KDEV void attend_load(attend_bf16 *tile, const attend_bf16 *some, uint32_t head_dim, int thread, R row)
{
    typedef attend_lanes<D, THREADS> lanes;
    const int column = thread % (D / 8) * 8;
    if (thread >= lanes::WORKING)
        return;
#pragma unroll
    for (int n = 0; n < (ROWS + lanes::PASS - 1) / lanes::PASS; n++) {
        const int r = thread / (D / 8) + n * lanes::PASS;
        if (ROWS % lanes::PASS != 0 && r >= ROWS)
            break;
        const attend_bf16 *from = row(r);
        const bool in = from != NULL && (uint32_t)column < head_dim;
        cp_async16(tile + r * attend_pitch<D>() + column, in ? from + column : some, in);
    }
}

/* Asks for rows [j0, j0 + ROWS) of keys or of values (`from`: those of position 0); zeros from `end` on. */
template <int ROWS, int D, int THREADS>
KDEV void attend_load_keys(attend_bf16 *tile, const attend_bf16 *from, const attend_keys &keys, const attend_rows &s,
                           uint32_t j0, uint32_t end, uint32_t head_dim, int thread)
{
    typedef attend_lanes<D, THREADS> lanes;
    const int column = thread % (D / 8) * 8;
    if (thread >= lanes::WORKING)
        return;
#pragma unroll
    for (int n = 0; n < (ROWS + lanes::PASS - 1) / lanes::PASS; n++) {
        const int r = thread / (D / 8) + n * lanes::PASS;
        if (ROWS % lanes::PASS != 0 && r >= ROWS)
            break;
        const uint32_t j = j0 + (uint32_t)r;
        const bool in = j < end && (uint32_t)column < head_dim;
        const attend_bf16 *row = in ? from + (size_t)attend_key_row(keys, s, j) * keys.stride + column : from;
        cp_async16(tile + r * attend_pitch<D>() + column, row, in);
    }
}

/* Asks for rows [m0, m0 + ROWS) of the count · group queries (or of results) of a sequence and one key head; `from` is
 * the first query head of the group in row 0, `width` the elements between rows. */
template <int ROWS, int D, int THREADS>
KDEV void attend_load_queries(attend_bf16 *tile, const attend_bf16 *from, uint32_t width, const attend_rows &s,
                              uint32_t group, uint32_t m0, uint32_t end, uint32_t head_dim, int thread)
{
    typedef attend_lanes<D, THREADS> lanes;
    const int column = thread % (D / 8) * 8;
    if (thread >= lanes::WORKING)
        return;
    uint32_t m = m0 + (uint32_t)(thread / (D / 8)), i = m / group, g = m % group;
    const uint32_t step_i = lanes::PASS / group, step_g = lanes::PASS % group;
#pragma unroll
    for (int n = 0; n < (ROWS + lanes::PASS - 1) / lanes::PASS; n++) {
        const int r = thread / (D / 8) + n * lanes::PASS;
        if (ROWS % lanes::PASS != 0 && r >= ROWS)
            break;
        const bool in = m < end && (uint32_t)column < head_dim;
        cp_async16(tile + r * attend_pitch<D>() + column,
                   in ? from + (size_t)(s.row + i) * width + g * head_dim + column : from, in);
        m += lanes::PASS;
        i += step_i;
        g += step_g;
        if (g >= group) {
            g -= group;
            i++;
        }
    }
}

/* s[MT·16 rows, N] += a · bᵀ, both tiles with rows of D: a is the warp's first row, b the tile's. */
template <int MT, int N, int D>
KDEV void attend_product(float (&s)[MT][N / 8][4], const attend_bf16 *a, const attend_bf16 *b, int lane)
{
    const attend_bf16 *const at_a = a + (lane & 15) * attend_pitch<D>() + (lane >> 4) * 8;
    const attend_bf16 *const at_b = b + ((lane & 7) + (lane >> 4) * 8) * attend_pitch<D>() + ((lane >> 3) & 1) * 8;
#pragma unroll 2 /* more fragments on the way would take too many registers */
    for (int k = 0; k < D / 16; k++) {
        uint32_t fa[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
            ldmatrix_x4(fa[m], at_a + m * 16 * attend_pitch<D>() + k * 16);
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            uint32_t fb[4];
            ldmatrix_x4(fb, at_b + n * 16 * attend_pitch<D>() + k * 16);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_m16n8k16_bf16(s[m][2 * n], fa[m], fb[0], fb[1]);
                mma_m16n8k16_bf16(s[m][2 * n + 1], fa[m], fb[2], fb[3]);
            }
        }
    }
}

/* o[MT·16 rows, C columns] += p[MT·16, N] · b[N, …]: p from registers, rounded to bf16; b is the first of the columns
 * of a tile with rows of D. */
template <int MT, int N, int D, int C>
KDEV void attend_gather(float (&o)[MT][C / 8][4], const float (&p)[MT][N / 8][4], const attend_bf16 *b, int lane)
{
    const attend_bf16 *const at_b = b + (lane & 15) * attend_pitch<D>() + (lane >> 4) * 8;
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        uint32_t fa[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
            fa[m][0] = pack_bf16(p[m][2 * k][0], p[m][2 * k][1]);
            fa[m][1] = pack_bf16(p[m][2 * k][2], p[m][2 * k][3]);
            fa[m][2] = pack_bf16(p[m][2 * k + 1][0], p[m][2 * k + 1][1]);
            fa[m][3] = pack_bf16(p[m][2 * k + 1][2], p[m][2 * k + 1][3]);
        }
#pragma unroll
        for (int n = 0; n < C / 16; n++) {
            uint32_t fb[4];
            ldmatrix_x4_trans(fb, at_b + k * 16 * attend_pitch<D>() + n * 16);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_m16n8k16_bf16(o[m][2 * n], fa[m], fb[0], fb[1]);
                mma_m16n8k16_bf16(o[m][2 * n + 1], fa[m], fb[2], fb[3]);
            }
        }
    }
}

template <int MT, int N> KDEV void attend_zero(float (&s)[MT][N][4])
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s[m][n][e] = 0;
}

/* The warp's accumulators, times `by` for each row, as bf16 into its rows of a tile. */
template <int MT, int D, int C>
KDEV void attend_stage(attend_bf16 *tile, const float (&o)[MT][C / 8][4], const float (&by)[MT][2], int lane)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            attend_bf16 *row = tile + (m * 16 + (lane >> 2) + 8 * i) * attend_pitch<D>() + (lane & 3) * 2;
#pragma unroll
            for (int n = 0; n < C / 8; n++)
                *reinterpret_cast<uint32_t *>(row + n * 8) =
                    pack_bf16(o[m][n][2 * i] * by[m][i], o[m][n][2 * i + 1] * by[m][i]);
        }
}

/* The sum, or the greatest, of the four lanes that share a row. */
KDEV float attend_quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

KDEV float attend_quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* The keys that a tile of queries [m0, m1) sees: [first, end). */
struct attend_span {
    uint32_t first, end;
};

/* The first key that the query at position `at` sees. */
KDEV int attend_first_key(const attend_shape &a, int at)
{
    const int first = at + 1 - a.window;
    return first > 0 ? first : 0;
}

KDEV attend_span attend_span_of(const attend_shape &a, const attend_rows &s, uint32_t m0, uint32_t m1)
{
    attend_span span;
    span.first = (uint32_t)attend_first_key(a, (int)(s.before + m0 / a.group));
    span.end = s.before + (m1 - 1) / a.group + 1;
    return span;
}

/* A walk over the queries that see a block of keys. */
struct attend_walk {
    attend_rows s;   /* who sees it now */
    uint32_t viewer; /* the next one */
    uint32_t m, end; /* its rows of count · group */
    int first;       /* index of the block's first key, as the viewer counts; negative where the prefix begins later */
    int limit;       /* the last key that is the viewer's at all */
};

/* To the next viewer with queries that see keys of the block. */
KDEV bool attend_next_viewer(attend_walk &w, const attend_block &b, const uint32_t *viewers, const attend_rows *all,
                             const attend_shape &a)
{
    while (w.viewer < b.viewer_end) {
        const bool own = w.viewer == b.viewer;
        w.s = all[viewers[w.viewer++]];
        w.first = own ? (int)(w.s.before + b.row - w.s.row) : (int)b.row - (int)w.s.prefix;
        w.limit = own ? INT32_MAX : (int)w.s.before - 1;
        const int low = w.first > 0 ? w.first : 0, last = w.first + (int)b.count - 1;
        const int high = last < w.limit ? last : w.limit;
        int from = low - (int)w.s.before, to = (int)w.s.count;
        if (from < 0)
            from = 0;
        if (a.window < to - high + (int)w.s.before)
            to = high + a.window - (int)w.s.before;
        if (low > high || from >= to)
            continue;
        w.m = (uint32_t)from * a.group;
        w.end = (uint32_t)to * a.group;
        return true;
    }
    return false;
}

/* --- the softmax of a tile --- */

/* One row's state of the softmax, for MT · 2 rows a lane. */
template <int MT> struct attend_softmax {
    float max[MT][2], sum[MT][2]; /* sum: this lane's columns only */
};

template <int MT> KDEV void attend_begin(attend_softmax<MT> &r)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            r.max[m][i] = -INFINITY;
            r.sum[m][i] = 0;
        }
}

/* Scores become exp2(factor · (score - max)); what was gathered before is brought to the new greatest. */
template <int MT, int BN, int D>
KDEV void attend_soften(float (&s)[MT][BN / 8][4], float (&o)[MT][D / 8][4], attend_softmax<MT> &r, float factor)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float max = r.max[m][i];
#pragma unroll
            for (int n = 0; n < BN / 8; n++)
                max = fmaxf(max, fmaxf(s[m][n][2 * i], s[m][n][2 * i + 1]));
            max = attend_quad_max(max);
            const float low = max == -INFINITY ? 0 : max * factor; /* no key of this row yet: all weights are 0 */
            const float keep = max == r.max[m][i] ? 1 : ex2_approx(r.max[m][i] * factor - low); /* exactly 1 */
            float sum = 0;
            r.max[m][i] = max;
#pragma unroll
            for (int n = 0; n < BN / 8; n++)
#pragma unroll
                for (int e = 2 * i; e < 2 * i + 2; e++) {
                    s[m][n][e] = ex2_approx(fmaf(s[m][n][e], factor, -low));
                    sum += s[m][n][e];
                }
            r.sum[m][i] = r.sum[m][i] * keep + sum;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                o[m][n][2 * i] *= keep;
                o[m][n][2 * i + 1] *= keep;
            }
        }
}

/* Keys that a row does not see get no weight. at(r): the position of the warp's row r. */
template <int MT, int BN, class P>
KDEV void attend_hide(float (&s)[MT][BN / 8][4], P at, int j0, const attend_shape &a, int lane)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int last = at(m * 16 + (lane >> 2) + 8 * i), first = attend_first_key(a, last);
#pragma unroll
            for (int n = 0; n < BN / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int j = j0 + n * 8 + (lane & 3) * 2 + e;
                    if (j < first || j > last)
                        s[m][n][2 * i + e] = -INFINITY;
                }
        }
}

template <int MT, int N> KDEV void attend_change_all(float (&s)[MT][N][4], const attend_shape &a)
{
    if (!a.changed)
        return;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s[m][n][e] = attend_change(s[m][n][e], a);
}

#endif
