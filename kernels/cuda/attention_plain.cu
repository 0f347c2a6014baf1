/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Attention without tensor cores: float32, and bf16 with head sizes that these do not take. The walk is that of
 * attention_forward.cu and attention_decode.cu. */
#include "attention_plain.cuh"

namespace
{

/* --- tiles of queries --- */

template <class E, int D, int B>
__global__ void __launch_bounds__(PLAIN_THREADS)
    plain_tiles(E *out, float *lse, const E *qkv, attend_keys keys, const attend_rows *all, const attend_tile *tiles,
                attend_shape a)
{
    constexpr int R = B / 16;
    DYN_SHARED(float, memory);
    float *const tile_q = memory, *const tile_kv = tile_q + B * plain_pitch<D>(),
                 *const tile_p = tile_kv + B * plain_pitch<D>();
    const int x = (int)threadIdx.x % 16, y = (int)threadIdx.x / 16;
    const uint32_t kv = blockIdx.x % a.kv_heads, head = kv * a.group;
    const attend_tile tile = tiles[blockIdx.x / a.kv_heads];
    const attend_rows s = all[tile.rows];
    const uint32_t rows = s.count * a.group, m1 = tile.first + B < rows ? tile.first + B : rows;
    const attend_span span = attend_span_of(a, s, tile.first, m1);
    const E *const k = (const E *)keys.first + kv * a.head_dim;

    plain_load<B, D>(tile_q, a.head_dim, [&](int r) -> const E * {
        const uint32_t m = tile.first + (uint32_t)r;
        return m < m1 ? qkv + (size_t)(s.row + m / a.group) * a.width + (head + m % a.group) * a.head_dim : NULL;
    });
    int at[R];
    float max[R], sum[R];
    float4 o[R][D / 64];
    plain_zero(o);
#pragma unroll
    for (int i = 0; i < R; i++) {
        const uint32_t m = tile.first + (uint32_t)(y * R + i);
        at[i] = (int)(s.before + (m < m1 ? m : m1 - 1) / a.group);
        max[i] = -INFINITY;
        sum[i] = 0;
    }
    for (uint32_t j0 = span.first / B * B; j0 < span.end; j0 += B) {
        __syncthreads(); /* the values of the round before are no longer read */
        plain_load<B, D>(tile_kv, a.head_dim, [&](int r) -> const E * {
            const uint32_t j = j0 + (uint32_t)r;
            return j < span.end ? k + (size_t)attend_key_row(keys, s, j) * keys.stride : NULL;
        });
        __syncthreads(); /* the keys are there */
        float p[R][R];
        plain_product<B, D>(p, tile_q, tile_kv);
#pragma unroll
        for (int i = 0; i < R; i++) {
            float greatest = max[i], slope;
#pragma unroll
            for (int j = 0; j < R; j++) {
                const int key = (int)j0 + x + 16 * j;
                const bool seen = key <= at[i] && key >= attend_first_key(a, at[i]);
                p[i][j] = seen ? plain_score(p[i][j], a, &slope) : -INFINITY;
                greatest = fmaxf(greatest, p[i][j]);
            }
            greatest = plain_row_max(greatest);
            const float low = greatest == -INFINITY ? 0 : greatest, keep = expf(max[i] - low);
            float part = 0;
            max[i] = greatest;
#pragma unroll
            for (int j = 0; j < R; j++)
                part += p[i][j] = expf(p[i][j] - low);
            sum[i] = fmaf(sum[i], keep, part);
#pragma unroll
            for (int c = 0; c < D / 64; c++) {
                o[i][c].x *= keep;
                o[i][c].y *= keep;
                o[i][c].z *= keep;
                o[i][c].w *= keep;
            }
        }
        plain_lay<B>(tile_p, p);
        __syncthreads(); /* the weights are there, and the keys are no longer read */
        plain_load<B, D>(tile_kv, a.head_dim, [&](int r) -> const E * {
            const uint32_t j = j0 + (uint32_t)r;
            return j < span.end ? k + (size_t)attend_key_row(keys, s, j) * keys.stride + keys.values : NULL;
        });
        __syncthreads(); /* the values are there */
        plain_gather<B, D>(o, tile_p, tile_kv);
    }
#pragma unroll
    for (int i = 0; i < R; i++) {
        const float total = plain_row_sum(sum[i]);
        const uint32_t m = tile.first + (uint32_t)(y * R + i);
        if (m >= m1)
            continue;
        const size_t to = (size_t)(s.row + m / a.group) * a.heads + head + m % a.group;
        if (lse && x == 0)
            lse[to] = max[i] + logf(total);
        plain_store(out + to * a.head_dim, o[i], 1.0f / total, a.head_dim);
    }
}

template <class E, int D, int B>
void launch_tiles(kn_cuda *c, E *out, float *lse, const E *qkv, const attend_keys &keys, const attend_queries &q,
                  const attend_shape &a)
{
    constexpr size_t shared = (size_t)(2 * B * (D + 4) + B * (B + 4)) * sizeof(float);
    KN_LAUNCH(c, (plain_tiles<E, D, B>), dim3(q.tiles * a.kv_heads), dim3(PLAIN_THREADS), shared, out, lse, qkv, keys,
              q.rows, q.tile, a);
}

/* --- one query a sequence --- */

enum { PART_THREADS = 128, PART_HEADS = 16, EACH = ATTEND_HEAD_DIM_MOST / 32 };

/* A block takes one part of one sequence and up to 16 heads of a group. */
template <class E>
__global__ void __launch_bounds__(PART_THREADS)
    plain_part(E *out, attend_partial partial, const E *qkv, attend_keys keys, const attend_step *step,
               uint32_t bundles, attend_shape a)
{
    SHARED(float, query, [PART_HEADS][ATTEND_HEAD_DIM_MOST]);
    SHARED(float, weight, [PART_HEADS][ATTEND_SPLIT]);
    SHARED(float, greatest, [PART_HEADS]);
    SHARED(float, total, [PART_HEADS]);
    follow();
    const int thread = (int)threadIdx.x, lane = thread & 31, warp = thread >> 5;
    const uint32_t bundle = blockIdx.x % bundles, kv = blockIdx.x / bundles % a.kv_heads;
    const uint32_t index = blockIdx.x / bundles / a.kv_heads;
    if (index >= step->parts) /* the whole block */
        return;
    const attend_part part = attend_list_of<attend_part>(step, step->at_parts)[index];
    const attend_rows s = attend_list_of<attend_rows>(step, step->at_rows)[part.rows];
    keys.pages = attend_list_of<uint32_t>(step, step->at_pages);
    const uint32_t h0 = bundle * PART_HEADS, head = kv * a.group + h0;
    const int left = (int)(a.group - h0), heads = left < PART_HEADS ? left : PART_HEADS, hd = (int)a.head_dim;
    const int at = (int)s.before, low = attend_first_key(a, at), base = (int)part.part * ATTEND_SPLIT;
    const int first = low > base ? low : base, end = at + 1 < base + ATTEND_SPLIT ? at + 1 : base + ATTEND_SPLIT;
    const E *const k = (const E *)keys.first + kv * a.head_dim;

    for (int n = thread; n < heads * hd; n += PART_THREADS)
        query[n / hd][n % hd] = plain_get(qkv[(size_t)s.row * a.width + (size_t)head * a.head_dim + n]);
    __syncthreads(); /* the queries are there */
    for (int j = first + warp; j < end; j += PART_THREADS / 32) {
        const E *key = k + (size_t)attend_key_row(keys, s, (uint32_t)j) * keys.stride;
        float mine[EACH], slope;
#pragma unroll
        for (int i = 0; i < EACH; i++)
            mine[i] = i * 32 + lane < hd ? plain_get(key[i * 32 + lane]) : 0;
        for (int h = 0; h < heads; h++) {
            float dot = 0;
#pragma unroll
            for (int i = 0; i < EACH; i++)
                if (i * 32 + lane < hd)
                    dot = fmaf(mine[i], query[h][i * 32 + lane], dot);
            dot = warp_sum(dot);
            if (lane == 0)
                weight[h][j - base] = plain_score(dot, a, &slope);
        }
    }
    __syncthreads(); /* the scores are there */
    for (int h = warp; h < heads; h += PART_THREADS / 32) {
        float max = -INFINITY, sum = 0;
        for (int j = lane; j < ATTEND_SPLIT; j += 32)
            if (base + j >= first && base + j < end)
                max = fmaxf(max, weight[h][j]);
        max = warp_max(max);
        for (int j = lane; j < ATTEND_SPLIT; j += 32)
            if (base + j >= first && base + j < end)
                sum += weight[h][j] = expf(weight[h][j] - max);
        sum = warp_sum(sum);
        if (lane == 0) {
            greatest[h] = max;
            total[h] = sum;
        }
    }
    __syncthreads(); /* the weights are there */
    for (int n = thread; n < heads * hd; n += PART_THREADS) {
        const int h = n / hd, e = n % hd;
        float value = 0;
        for (int j = first; j < end; j++)
            value =
                fmaf(weight[h][j - base],
                     plain_get(k[(size_t)attend_key_row(keys, s, (uint32_t)j) * keys.stride + keys.values + e]), value);
        if (part.slot == ATTEND_WHOLE) {
            attend_put(out + ((size_t)s.row * a.heads + head) * a.head_dim + n, value / total[h]);
            continue;
        }
        const size_t to = (size_t)part.slot * a.heads + head + h;
        partial.values[to * a.head_dim + e] = value;
        if (e == 0) {
            partial.figures[2 * to] = greatest[h] * ATTEND_LOG2E;
            partial.figures[2 * to + 1] = total[h];
        }
    }
    if (part.slot != ATTEND_WHOLE)
        attend_join<PART_THREADS>(out, partial,
                                  partial.arrived + (size_t)keys.pages[s.prefix + s.before / KN_PAGE] * a.heads +
                                      kv * bundles + bundle,
                                  part, s, head, (uint32_t)heads, a);
}

} // namespace

uint32_t attend_plain_tile_rows(uint32_t head_dim)
{
    return head_dim > 128 ? 32 : 64;
}

template <class E>
void attend_plain_tiles(kn_cuda *c, E *out, float *lse, const E *qkv, const attend_keys &keys, const attend_queries &q,
                        const attend_shape &a)
{
    if (c->status != KN_OK || q.tiles == 0)
        return;
    if (a.head_dim <= 64)
        launch_tiles<E, 64, 64>(c, out, lse, qkv, keys, q, a);
    else if (a.head_dim <= 128)
        launch_tiles<E, 128, 64>(c, out, lse, qkv, keys, q, a);
    else
        launch_tiles<E, 256, 32>(c, out, lse, qkv, keys, q, a);
}

template <class E>
void attend_plain_parts(kn_cuda *c, E *out, const attend_partial &partial, const E *qkv, const attend_keys &keys,
                        const attend_planned &v, const attend_shape &a)
{
    const uint32_t bundles = (a.group + PART_HEADS - 1) / PART_HEADS;
    if (c->status == KN_OK && v.host->parts > 0)
        KN_FOLLOW(c, plain_part<E>, dim3(attend_grid(v.host->parts) * a.kv_heads * bundles), dim3(PART_THREADS), 0, out,
                  partial, qkv, keys, v.device, bundles, a);
}

#define BOTH(E)                                                                                                 \
    template void attend_plain_tiles<E>(kn_cuda *, E *, float *, const E *, const attend_keys &,                \
                                        const attend_queries &, const attend_shape &);                          \
    template void attend_plain_parts<E>(kn_cuda *, E *, const attend_partial &, const E *, const attend_keys &, \
                                        const attend_planned &, const attend_shape &);
BOTH(float)
BOTH(attend_bf16)
