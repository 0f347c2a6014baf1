/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient of attention in bf16 on tensor cores, probabilities computed again from the kept log-sum-exp (formulas:
 * kernels/reference/attention_backward.c; Dao 2023, "FlashAttention-2", algorithm 2). Two kernels that write disjoint
 * things, so that no sum is made by atomics: one takes tiles of queries and walks over the keys they see (dq), the
 * other takes blocks of keys and walks over the queries that see them, those of the block's own segment first, then
 * those of the segments that have it in their prefix, in order (dk, dv). The price is that scores and dout·v are
 * computed in both: seven products instead of five.
 *
 * In the second the scores are computed transposed, keys by queries: what multiplies the queries and the gradients of
 * the results is then already laid out as the tensor cores want it, in registers.
 */
#include "attend.cuh"

namespace
{

/* prob · (dp - dot), times the slope of the cap: s are capped scores (-infinity where hidden). */
KDEV float score_gradient(float s, float p, float dp, float dot, const attend_shape &a)
{
    const float ds = p * (dp - dot);
    if (!(a.cap_out > 0))
        return ds;
    const float t = fmaxf(s, -a.cap_out) / a.cap_out;
    return ds * fmaf(-t, t, 1.0f);
}

/* The rows of a tile that a warp staged, rows of C columns from `column`, to where `row(r)` says (NULL = nowhere). */
template <int ROWS, int D, int C, class R>
KDEV void store_rows(const attend_bf16 *tile, uint32_t column, uint32_t head_dim, int lane, R row)
{
    for (int c = lane; c < ROWS * (C / 8); c += 32) {
        const uint32_t e = (uint32_t)(c % (C / 8) * 8);
        attend_bf16 *to = row(c / (C / 8));
        if (to && column + e < head_dim)
            *reinterpret_cast<uint4 *>(to + column + e) =
                *reinterpret_cast<const uint4 *>(tile + c / (C / 8) * attend_pitch<D>() + column + e);
    }
}

/* --- dq --- */

enum { THREADS = 128, WARPS = 4 };

/* D, MT and BN as in attention_forward.cu. Keys have two buffers, for they are needed until a round's end; values are
 * not. */
template <int D, int MT, int BN>
__global__ void __launch_bounds__(THREADS)
    gradient_of_queries(attend_bf16 *dqkv, const attend_bf16 *dout, const attend_bf16 *qkv, const float *lse,
                        const float *dots, attend_keys keys, const attend_rows *all, const attend_tile *tiles,
                        attend_shape a)
{
    constexpr int BM = WARPS * MT * 16, PITCH = D + 8;
    SHARED(int, position, [BM]); /* of each row: not in registers, for few tiles of keys need it */
    DYN_SHARED(attend_bf16, memory);
    attend_bf16 *const tile_q = memory, *const tile_d = tile_q + BM * PITCH, *const tile_v = tile_d + BM * PITCH,
                       *const tile_k = tile_v + BN * PITCH;
    const int thread = (int)threadIdx.x, lane = thread & 31, warp = thread >> 5;
    const uint32_t kv = blockIdx.x % a.kv_heads, head = kv * a.group;
    const attend_tile tile = tiles[blockIdx.x / a.kv_heads];
    const attend_rows s = all[tile.rows];
    const uint32_t rows = s.count * a.group, m1 = tile.first + BM < rows ? tile.first + BM : rows;
    const uint32_t m0 = tile.first + (uint32_t)(warp * MT * 16);
    const attend_span span = attend_span_of(a, s, tile.first, m1);
    const attend_bf16 *const k = (const attend_bf16 *)keys.first + kv * a.head_dim, *const v = k + keys.values;
    const int at_first = (int)(s.before + tile.first / a.group), at_last = (int)span.end - 1;
    static_assert(BM <= THREADS, "a thread fills in one position");
    if (thread < BM)
        position[thread] = (int)(s.before + (tile.first + (uint32_t)thread) / a.group);

    uint32_t j0 = span.first / BN * BN;
    attend_load_queries<BM, D, THREADS>(tile_q, qkv + head * a.head_dim, a.width, s, a.group, tile.first, rows,
                                        a.head_dim, thread);
    attend_load_queries<BM, D, THREADS>(tile_d, dout + head * a.head_dim, a.heads * a.head_dim, s, a.group, tile.first,
                                        rows, a.head_dim, thread);
    attend_load_keys<BN, D, THREADS>(tile_k, k, keys, s, j0, span.end, a.head_dim, thread);
    attend_load_keys<BN, D, THREADS>(tile_v, v, keys, s, j0, span.end, a.head_dim, thread);
    cp_async_commit();

    float low[MT][2], dot[MT][2], dq[MT][D / 8][4];
    attend_zero(dq);
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t row = m0 + (uint32_t)(m * 16 + (lane >> 2) + 8 * i);
            row = row < m1 ? row : m1 - 1; /* beyond the end: q and dout are 0, and nothing is stored */
            const size_t stat = (size_t)(s.row + row / a.group) * a.heads + head + row % a.group;
            low[m][i] = lse[stat] * ATTEND_LOG2E;
            dot[m][i] = dots[stat];
        }

    for (int round = 0; j0 < span.end; j0 += BN, round++) {
        const attend_bf16 *const now_k = tile_k + (round & 1) * BN * PITCH;
        cp_async_wait<0>();
        __syncthreads(); /* this round's keys and values are there; the other keys are no longer read */
        if (j0 + BN < span.end)
            attend_load_keys<BN, D, THREADS>(tile_k + (~round & 1) * BN * PITCH, k, keys, s, j0 + BN, span.end,
                                             a.head_dim, thread);
        cp_async_commit();
        float p[MT][BN / 8][4], ds[MT][BN / 8][4];
        attend_zero(p);
        attend_zero(ds);
        attend_product<MT, BN, D>(p, tile_q + warp * MT * 16 * PITCH, now_k, lane);
        attend_product<MT, BN, D>(ds, tile_d + warp * MT * 16 * PITCH, tile_v, lane);
        __syncthreads(); /* the values are no longer read */
        if (j0 + BN < span.end)
            attend_load_keys<BN, D, THREADS>(tile_v, v, keys, s, j0 + BN, span.end, a.head_dim, thread);
        cp_async_commit();
        attend_change_all(p, a);
        if ((int)j0 + BN - 1 > at_first || (int)j0 < attend_first_key(a, at_last))
            attend_hide<MT, BN>(
                p, [&](int row) { return position[warp * MT * 16 + row]; }, (int)j0, a, lane);
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int n = 0; n < BN / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float w = ex2_approx(fmaf(p[m][n][e], a.factor, -low[m][e / 2]));
                    ds[m][n][e] = score_gradient(p[m][n][e], w, ds[m][n][e], dot[m][e / 2], a);
                }
        attend_gather<MT, BN, D, D>(dq, ds, now_k, lane);
    }
    cp_async_wait<0>();

    /* Each warp's own queries are no longer read: their place takes its results. */
    float by[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++)
        by[m][0] = by[m][1] = a.scale;
    attend_bf16 *const mine = tile_q + warp * MT * 16 * PITCH;
    __syncwarp();
    attend_stage<MT, D, D>(mine, dq, by, lane);
    __syncwarp();
    store_rows<MT * 16, D, D>(mine, 0, a.head_dim, lane, [&](int r) -> attend_bf16 * {
        const uint32_t row = m0 + (uint32_t)r;
        return row < m1 ? dqkv + (size_t)(s.row + row / a.group) * a.width + (head + row % a.group) * a.head_dim : NULL;
    });
}

/* --- dk, dv --- */

/* What a tile of BM queries brings besides the queries. */
template <int BM> struct query_figures {
    float lse[BM], dot[BM];
    int at[BM];
    int first, limit, masked; /* of attend_walk; whether some query does not see some key of the block */
};

template <int BM, int BN>
KDEV void load_figures(query_figures<BM> *to, const float *lse, const float *dots, const attend_walk &w, uint32_t head,
                       const attend_shape &a, int thread)
{
    if (thread >= BM)
        return;
    if (thread == 0) {
        const uint32_t last = (w.m + BM < w.end ? w.m + BM : w.end) - 1;
        const int at_first = (int)(w.s.before + w.m / a.group), at_last = (int)(w.s.before + last / a.group);
        const int high = w.first + BN - 1;
        to->first = w.first;
        to->limit = w.limit;
        to->masked = w.first < 0 || high > w.limit || high > at_first || w.first < attend_first_key(a, at_last);
    }
    const uint32_t m = w.m + (uint32_t)thread, i = m / a.group;
    const size_t from = (size_t)(w.s.row + i) * a.heads + head + m % a.group;
    const bool in = m < w.end;
    cp_async4(&to->lse[thread], in ? lse + from : lse, in); /* beyond the end q and dout are 0: any weight will do */
    cp_async4(&to->dot[thread], in ? dots + from : dots, in);
    to->at[thread] = (int)(w.s.before + i);
}

/* Scores of keys (rows, from key0 of the block on) and queries (columns): those that a query does not see become
 * -infinity. */
template <int MT, int BM>
KDEV void hide_transposed(float (&s)[MT][BM / 8][4], const query_figures<BM> &q, int key0, const attend_shape &a,
                          int lane)
{
    const int first = q.first + key0, limit = q.limit;
#pragma unroll
    for (int n = 0; n < BM / 8; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int at = q.at[n * 8 + (lane & 3) * 2 + e], low = attend_first_key(a, at);
            const int high = at < limit ? at : limit;
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int j = first + m * 16 + (lane >> 2) + 8 * i;
                    if (j < low || j > high)
                        s[m][n][2 * i + e] = -INFINITY;
                }
        }
}

/* BM: queries of a tile. A warp has MT · 16 keys and D / PARTS columns of their gradients: wide heads do not leave
 * registers for all of them. */
template <int D, int PARTS, int MT, int BM>
__global__ void __launch_bounds__(THREADS *PARTS)
    gradient_of_keys(attend_bf16 *dqkv, const attend_bf16 *dout, const attend_bf16 *qkv, const float *lse,
                     const float *dots, const attend_rows *all, const uint32_t *viewers, const attend_block *blocks,
                     attend_shape a)
{
    constexpr int BN = WARPS * MT * 16, PITCH = D + 8, C = D / PARTS, ALL = THREADS * PARTS;
    SHARED(query_figures<BM>, figures, [2]);
    DYN_SHARED(attend_bf16, memory);
    attend_bf16 *const tile_k = memory, *const tile_v = tile_k + BN * PITCH, *const tile_d = tile_v + BN * PITCH,
                       *const tile_q = tile_d + BM * PITCH;
    const int thread = (int)threadIdx.x, lane = thread & 31, warp = thread >> 5;
    const int key0 = warp % WARPS * MT * 16, column = warp / WARPS * C;
    const uint32_t kv = blockIdx.x % a.kv_heads, head = kv * a.group;
    const attend_block b = blocks[blockIdx.x / a.kv_heads];
    const attend_bf16 *const q = qkv + head * a.head_dim, *const d = dout + head * a.head_dim;
    const attend_bf16 *const k = qkv + (a.heads + kv) * a.head_dim;
    const attend_keys keys = {k, NULL, a.width, 0};
    const attend_rows own = {b.row, b.count, 0, 0};

    attend_walk now;
    now.viewer = b.viewer;
    bool more = attend_next_viewer(now, b, viewers, all, a);
    attend_load_keys<BN, D, ALL>(tile_k, k, keys, own, 0, b.count, a.head_dim, thread);
    attend_load_keys<BN, D, ALL>(tile_v, k + a.kv_heads * a.head_dim, keys, own, 0, b.count, a.head_dim, thread);
    if (more) {
        attend_load_queries<BM, D, ALL>(tile_q, q, a.width, now.s, a.group, now.m, now.end, a.head_dim, thread);
        attend_load_queries<BM, D, ALL>(tile_d, d, a.heads * a.head_dim, now.s, a.group, now.m, now.end, a.head_dim,
                                        thread);
        load_figures<BM, BN>(&figures[0], lse, dots, now, head, a, thread);
    }
    cp_async_commit();

    float dk[MT][C / 8][4], dv[MT][C / 8][4];
    attend_zero(dk);
    attend_zero(dv);
    for (int round = 0; more; round++) {
        const attend_bf16 *const now_q = tile_q + (round & 1) * BM * PITCH;
        const query_figures<BM> &figure = figures[round & 1];
        now.m += BM;
        more = now.m < now.end || attend_next_viewer(now, b, viewers, all, a);
        cp_async_wait<0>();
        __syncthreads(); /* this round's queries are there; the other ones are no longer read */
        if (more) {
            attend_load_queries<BM, D, ALL>(tile_q + (~round & 1) * BM * PITCH, q, a.width, now.s, a.group, now.m,
                                            now.end, a.head_dim, thread);
            load_figures<BM, BN>(&figures[~round & 1], lse, dots, now, head, a, thread);
        }
        cp_async_commit();
        float p[MT][BM / 8][4], ds[MT][BM / 8][4];
        attend_zero(p);
        attend_zero(ds);
        attend_product<MT, BM, D>(p, tile_k + key0 * PITCH, now_q, lane);
        attend_product<MT, BM, D>(ds, tile_v + key0 * PITCH, tile_d, lane);
        attend_change_all(p, a);
        if (figure.masked)
            hide_transposed<MT, BM>(p, figure, key0, a, lane);
#pragma unroll
        for (int n = 0; n < BM / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const float low = figure.lse[n * 8 + (lane & 3) * 2 + e] * ATTEND_LOG2E;
                const float dot = figure.dot[n * 8 + (lane & 3) * 2 + e];
#pragma unroll
                for (int m = 0; m < MT; m++)
#pragma unroll
                    for (int i = e; i < 4; i += 2) {
                        const float w = ex2_approx(fmaf(p[m][n][i], a.factor, -low));
                        ds[m][n][i] = score_gradient(p[m][n][i], w, ds[m][n][i], dot, a);
                        p[m][n][i] = w;
                    }
            }
        attend_gather<MT, BM, D, C>(dv, p, tile_d + column, lane);
        __syncthreads(); /* the gradients of results are no longer read */
        if (more)
            attend_load_queries<BM, D, ALL>(tile_d, d, a.heads * a.head_dim, now.s, a.group, now.m, now.end, a.head_dim,
                                            thread);
        cp_async_commit();
        attend_gather<MT, BM, D, C>(dk, ds, now_q + column, lane);
    }
    cp_async_wait<0>();

    float by[MT][2], one[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) {
        by[m][0] = by[m][1] = a.scale;
        one[m][0] = one[m][1] = 1;
    }
    __syncthreads(); /* keys and values are no longer read: their place takes the results */
    attend_stage<MT, D, C>(tile_k + key0 * PITCH + column, dk, by, lane);
    attend_stage<MT, D, C>(tile_v + key0 * PITCH + column, dv, one, lane);
    __syncwarp();
    attend_bf16 *const to_k = dqkv + (size_t)b.row * a.width + (a.heads + kv) * a.head_dim;
    attend_bf16 *const to_v = to_k + a.kv_heads * a.head_dim;
    store_rows<MT * 16, D, C>(tile_k + key0 * PITCH, (uint32_t)column, a.head_dim, lane, [&](int r) {
        return (uint32_t)(key0 + r) < b.count ? to_k + (size_t)(key0 + r) * a.width : NULL;
    });
    store_rows<MT * 16, D, C>(tile_v + key0 * PITCH, (uint32_t)column, a.head_dim, lane, [&](int r) {
        return (uint32_t)(key0 + r) < b.count ? to_v + (size_t)(key0 + r) * a.width : NULL;
    });
}

/* --- who is launched --- */

/* QT, QN: MT and BN of the queries' kernel. KT, KM, PARTS: of the keys'. */
template <int D, int QT, int QN, int PARTS, int KT, int KM>
void run(kn_cuda *c, attend_bf16 *dqkv, const attend_bf16 *dout, const attend_bf16 *qkv, const float *lse,
         const float *dots, const attend_keys &keys, const kn_segment *segment, size_t segments, const attend_shape &a)
{
    constexpr uint32_t block_keys = WARPS * KT * 16;
    constexpr size_t row = (D + 8) * sizeof(attend_bf16);
    constexpr size_t shared_q = (2 * WARPS * QT * 16 + 3 * QN) * row, shared_k = (2 * block_keys + 3 * KM) * row;
    const attend_viewed viewed = attend_plan_viewed(c, segment, segments, &a, block_keys);
    const attend_queries queries = attend_plan_segments(c, segment, segments, &a, WARPS * QT * 16);
    if (c->status != KN_OK || queries.tiles == 0)
        return;
    KN_LAUNCH(c, (gradient_of_keys<D, PARTS, KT, KM>), dim3(viewed.blocks * a.kv_heads), dim3(THREADS * PARTS),
              shared_k, dqkv, dout, qkv, lse, dots, viewed.rows, viewed.viewers, viewed.block, a);
    KN_LAUNCH(c, (gradient_of_queries<D, QT, QN>), dim3(queries.tiles * a.kv_heads), dim3(THREADS), shared_q, dqkv,
              dout, qkv, lse, dots, keys, queries.rows, queries.tile, a);
}

} // namespace

void attend_bf16_backward(kn_cuda *c, attend_bf16 *dqkv, const attend_bf16 *dout, const attend_bf16 *qkv,
                          const float *lse, const float *dots, const attend_keys &keys, const kn_segment *segment,
                          size_t segments, const attend_shape &a)
{
    if (a.head_dim <= 16)
        run<16, 2, 64, 1, 2, 64>(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
    else if (a.head_dim <= 32)
        run<32, 2, 64, 1, 2, 32>(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
    else if (a.head_dim <= 64)
        run<64, 2, 32, 1, 2, 32>(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
    else if (a.head_dim <= 80)
        run<80, 2, 32, 1, 1, 64>(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
    else if (a.head_dim <= 96)
        run<96, 2, 32, 1, 1, 64>(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
    else if (a.head_dim <= 128)
        run<128, 1, 64, 1, 1, 48>(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
    else if (a.head_dim <= 192)
        run<192, 1, 32, 2, 1, 32>(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
    else
        run<256, 1, 16, 2, 1, 16>(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
}
