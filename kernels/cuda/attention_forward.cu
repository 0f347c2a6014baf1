/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in bf16 on tensor cores, scores never stored (Dao 2023, "FlashAttention-2", algorithm 1): a block takes a
 * tile of queries of one key head and walks over the tiles of keys that they see, keeping each row's greatest score,
 * the sum of its exponentials and the weighted values.
 *
 * Keys and values have one buffer each. While scores are computed the values fly in; while the values are gathered, the
 * next keys do. Two barriers a tile.
 *
 * Registers and shared memory of the instances: at the end of attention.cuh.
 */
#include "attend.cuh"

namespace
{

enum { THREADS = 128, WARPS = 4 };

/* D: head_dim rounded up. MT: tiles of 16 rows a warp. BN: keys of a tile. */
template <int D, int MT, int BN>
__global__ void __launch_bounds__(THREADS)
    attend_tiles(attend_bf16 *out, float *lse, const attend_bf16 *qkv, attend_keys keys, const attend_rows *all,
                 const attend_tile *tiles, attend_shape a)
{
    constexpr int BM = WARPS * MT * 16, PITCH = D + 8;
    SHARED(int, position, [BM]); /* of each row: not in registers, for few tiles of keys need it */
    DYN_SHARED(attend_bf16, memory);
    attend_bf16 *const tile_q = memory, *const tile_k = tile_q + BM * PITCH, *const tile_v = tile_k + BN * PITCH;
    const int thread = (int)threadIdx.x, lane = thread & 31, warp = thread >> 5;
    const uint32_t kv = blockIdx.x % a.kv_heads;
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

    attend_load_queries<BM, D, THREADS>(tile_q, qkv + kv * a.group * a.head_dim, a.width, s, a.group, tile.first, rows,
                                        a.head_dim, thread);
    uint32_t j0 = span.first / BN * BN;
    attend_load_keys<BN, D, THREADS>(tile_k, k, keys, s, j0, span.end, a.head_dim, thread);
    cp_async_commit();

    attend_softmax<MT> r;
    float o[MT][D / 8][4];
    attend_begin(r);
    attend_zero(o);

    for (; j0 < span.end; j0 += BN) {
        cp_async_wait<0>();
        __syncthreads(); /* the keys are there, and nobody gathers the values of the round before any more */
        attend_load_keys<BN, D, THREADS>(tile_v, v, keys, s, j0, span.end, a.head_dim, thread);
        cp_async_commit();
        float p[MT][BN / 8][4];
        attend_zero(p);
        attend_product<MT, BN, D>(p, tile_q + warp * MT * 16 * PITCH, tile_k, lane);
        cp_async_wait<0>();
        __syncthreads(); /* the values are there, and the keys are no longer read */
        if (j0 + BN < span.end)
            attend_load_keys<BN, D, THREADS>(tile_k, k, keys, s, j0 + BN, span.end, a.head_dim, thread);
        cp_async_commit();
        attend_change_all(p, a);
        if ((int)j0 + BN - 1 > at_first || (int)j0 < attend_first_key(a, at_last))
            attend_hide<MT, BN>(
                p, [&](int row) { return position[warp * MT * 16 + row]; }, (int)j0, a, lane);
        attend_soften<MT, BN, D>(p, o, r, a.factor);
        attend_gather<MT, BN, D, D>(o, p, tile_v, lane);
    }

    /* Each warp's own queries are no longer read: their place takes its results. */
    float by[MT][2];
    attend_bf16 *const mine = tile_q + warp * MT * 16 * PITCH;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float sum = attend_quad_sum(r.sum[m][i]);
            by[m][i] = 1.0f / sum;
            const uint32_t row = m0 + (uint32_t)(m * 16 + (lane >> 2) + 8 * i);
            if (lse && row < m1 && (lane & 3) == 0)
                lse[(size_t)(s.row + row / a.group) * a.heads + kv * a.group + row % a.group] =
                    (r.max[m][i] * a.factor + log2f(sum)) * ATTEND_LN2;
        }
    __syncwarp();
    attend_stage<MT, D, D>(mine, o, by, lane);
    __syncwarp();
    for (int c = lane; c < MT * 16 * (D / 8); c += 32) {
        const uint32_t row = m0 + (uint32_t)(c / (D / 8));
        const int column = c % (D / 8) * 8;
        if (row < m1 && (uint32_t)column < a.head_dim) {
            const size_t to = (size_t)(s.row + row / a.group) * a.heads + kv * a.group + row % a.group;
            *reinterpret_cast<uint4 *>(out + to * a.head_dim + column) =
                *reinterpret_cast<const uint4 *>(mine + c / (D / 8) * PITCH + column);
        }
    }
}

template <int D, int MT, int BN>
void launch(kn_cuda *c, attend_bf16 *out, float *lse, const attend_bf16 *qkv, const attend_keys &keys,
            const attend_queries &q, const attend_shape &a)
{
    constexpr size_t shared = (size_t)(WARPS * MT * 16 + 2 * BN) * (D + 8) * sizeof(attend_bf16);
    KN_LAUNCH(c, (attend_tiles<D, MT, BN>), dim3(q.tiles * a.kv_heads), dim3(THREADS), shared, out, lse, qkv, keys,
              q.rows, q.tile, a);
}

} // namespace

uint32_t attend_tile_rows(uint32_t head_dim)
{
    return head_dim > 128 ? 64 : 128;
}

void attend_bf16_tiles(kn_cuda *c, attend_bf16 *out, float *lse, const attend_bf16 *qkv, const attend_keys &keys,
                       const attend_queries &q, const attend_shape &a)
{
    if (c->status != KN_OK || q.tiles == 0)
        return;
    if (a.head_dim <= 16)
        launch<16, 2, 64>(c, out, lse, qkv, keys, q, a);
    else if (a.head_dim <= 32)
        launch<32, 2, 64>(c, out, lse, qkv, keys, q, a);
    else if (a.head_dim <= 64)
        launch<64, 2, 64>(c, out, lse, qkv, keys, q, a);
    else if (a.head_dim <= 80)
        launch<80, 2, 64>(c, out, lse, qkv, keys, q, a);
    else if (a.head_dim <= 96)
        launch<96, 2, 64>(c, out, lse, qkv, keys, q, a);
    else if (a.head_dim <= 128)
        launch<128, 2, 64>(c, out, lse, qkv, keys, q, a);
    else if (a.head_dim <= 192)
        launch<192, 1, 64>(c, out, lse, qkv, keys, q, a);
    else
        launch<256, 1, 48>(c, out, lse, qkv, keys, q, a);
}
