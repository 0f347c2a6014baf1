/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The gradient of attention without tensor cores, with the two walks of attention_backward.cu, and the sums Σ dout·out
 * that both take. */
#include "attention_plain.cuh"

namespace
{

/* p and ds (less the scale) of a score; nothing where it is hidden. */
KDEV void plain_gradient(float *p, float *ds, bool seen, float lse, float dot, const attend_shape &a)
{
    float slope = 0;
    const float w = seen ? expf(plain_score(*p, a, &slope) - lse) : 0;
    *ds = w * (*ds - dot) * slope;
    *p = w;
}

template <class E, int D, int B>
__global__ void __launch_bounds__(PLAIN_THREADS)
    plain_gradient_of_queries(E *dqkv, const E *dout, const E *qkv, const float *lse, const float *dots,
                              attend_keys keys, const attend_rows *all, const attend_tile *tiles, attend_shape a)
{
    constexpr int R = B / 16, TILE = B * (D + 4);
    DYN_SHARED(float, memory);
    float *const tile_q = memory, *const tile_d = tile_q + TILE, *const tile_k = tile_d + TILE,
                 *const tile_v = tile_k + TILE, *const tile_p = tile_v + TILE;
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
    plain_load<B, D>(tile_d, a.head_dim, [&](int r) -> const E * {
        const uint32_t m = tile.first + (uint32_t)r;
        return m < m1 ? dout + ((size_t)(s.row + m / a.group) * a.heads + head + m % a.group) * a.head_dim : NULL;
    });
    int at[R];
    float low[R], dot[R];
    float4 dq[R][D / 64];
    plain_zero(dq);
#pragma unroll
    for (int i = 0; i < R; i++) {
        uint32_t m = tile.first + (uint32_t)(y * R + i);
        m = m < m1 ? m : m1 - 1;
        const size_t stat = (size_t)(s.row + m / a.group) * a.heads + head + m % a.group;
        at[i] = (int)(s.before + m / a.group);
        low[i] = lse[stat];
        dot[i] = dots[stat];
    }
    for (uint32_t j0 = span.first / B * B; j0 < span.end; j0 += B) {
        __syncthreads(); /* the keys of the round before are no longer read */
        plain_load<B, D>(tile_k, a.head_dim, [&](int r) -> const E * {
            const uint32_t j = j0 + (uint32_t)r;
            return j < span.end ? k + (size_t)attend_key_row(keys, s, j) * keys.stride : NULL;
        });
        plain_load<B, D>(tile_v, a.head_dim, [&](int r) -> const E * {
            const uint32_t j = j0 + (uint32_t)r;
            return j < span.end ? k + (size_t)attend_key_row(keys, s, j) * keys.stride + keys.values : NULL;
        });
        __syncthreads(); /* keys and values are there */
        float p[R][R], ds[R][R];
        plain_product<B, D>(p, tile_q, tile_k);
        plain_product<B, D>(ds, tile_d, tile_v);
#pragma unroll
        for (int i = 0; i < R; i++)
#pragma unroll
            for (int j = 0; j < R; j++) {
                const int key = (int)j0 + x + 16 * j;
                plain_gradient(&p[i][j], &ds[i][j], key <= at[i] && key >= attend_first_key(a, at[i]), low[i], dot[i],
                               a);
            }
        plain_lay<B>(tile_p, ds);
        __syncthreads(); /* the gradients of scores are there */
        plain_gather<B, D>(dq, tile_p, tile_k);
    }
#pragma unroll
    for (int i = 0; i < R; i++) {
        const uint32_t m = tile.first + (uint32_t)(y * R + i);
        if (m < m1)
            plain_store(dqkv + (size_t)(s.row + m / a.group) * a.width + (head + m % a.group) * a.head_dim, dq[i],
                        a.scale, a.head_dim);
    }
}

template <class E, int D, int B>
__global__ void __launch_bounds__(PLAIN_THREADS)
    plain_gradient_of_keys(E *dqkv, const E *dout, const E *qkv, const float *lse, const float *dots,
                           const attend_rows *all, const uint32_t *viewers, const attend_block *blocks, attend_shape a)
{
    constexpr int R = B / 16, TILE = B * (D + 4);
    DYN_SHARED(float, memory);
    float *const tile_k = memory, *const tile_v = tile_k + TILE, *const tile_q = tile_v + TILE,
                 *const tile_d = tile_q + TILE, *const tile_p = tile_d + TILE;
    const int x = (int)threadIdx.x % 16, y = (int)threadIdx.x / 16;
    const uint32_t kv = blockIdx.x % a.kv_heads, head = kv * a.group, wide = a.heads * a.head_dim;
    const attend_block b = blocks[blockIdx.x / a.kv_heads];
    const size_t key0 = (size_t)b.row * a.width + (a.heads + kv) * a.head_dim, values = a.kv_heads * a.head_dim;

    plain_load<B, D>(tile_k, a.head_dim, [&](int r) -> const E * {
        return (uint32_t)r < b.count ? qkv + key0 + (size_t)r * a.width : NULL;
    });
    plain_load<B, D>(tile_v, a.head_dim, [&](int r) -> const E * {
        return (uint32_t)r < b.count ? qkv + key0 + (size_t)r * a.width + values : NULL;
    });
    float4 dk[R][D / 64], dv[R][D / 64];
    plain_zero(dk);
    plain_zero(dv);
    attend_walk now;
    now.viewer = b.viewer;
    bool more = attend_next_viewer(now, b, viewers, all, a);
    while (more) {
        __syncthreads(); /* the queries of the round before are no longer read */
        plain_load<B, D>(tile_q, a.head_dim, [&](int r) -> const E * {
            const uint32_t m = now.m + (uint32_t)r;
            return m < now.end ? qkv + (size_t)(now.s.row + m / a.group) * a.width + (head + m % a.group) * a.head_dim
                               : NULL;
        });
        plain_load<B, D>(tile_d, a.head_dim, [&](int r) -> const E * {
            const uint32_t m = now.m + (uint32_t)r;
            return m < now.end ? dout + (size_t)(now.s.row + m / a.group) * wide + (head + m % a.group) * a.head_dim
                               : NULL;
        });
        __syncthreads(); /* queries and gradients of results are there */
        float p[R][R], ds[R][R];
        plain_product<B, D>(p, tile_k, tile_q);
        plain_product<B, D>(ds, tile_v, tile_d);
#pragma unroll
        for (int j = 0; j < R; j++) {
            const uint32_t m = now.m + (uint32_t)(x + 16 * j), i = m / a.group;
            const bool in = m < now.end;
            const size_t stat = (size_t)(now.s.row + i) * a.heads + head + m % a.group;
            const float low = in ? lse[stat] : 0, dot = in ? dots[stat] : 0;
            const int at = (int)(now.s.before + i), first = attend_first_key(a, at);
            const int last = at < now.limit ? at : now.limit;
#pragma unroll
            for (int n = 0; n < R; n++) {
                const int key = now.first + y * R + n;
                plain_gradient(&p[n][j], &ds[n][j], in && key >= first && key <= last, low, dot, a);
            }
        }
        plain_lay<B>(tile_p, p);
        __syncthreads(); /* the weights are there */
        plain_gather<B, D>(dv, tile_p, tile_d);
        __syncthreads(); /* they are no longer read */
        plain_lay<B>(tile_p, ds);
        __syncthreads(); /* the gradients of scores are there */
        plain_gather<B, D>(dk, tile_p, tile_q);
        now.m += B;
        more = now.m < now.end || attend_next_viewer(now, b, viewers, all, a);
    }
#pragma unroll
    for (int i = 0; i < R; i++)
        if ((uint32_t)(y * R + i) < b.count) {
            E *const to = dqkv + key0 + (size_t)(y * R + i) * a.width;
            plain_store(to, dk[i], a.scale, a.head_dim);
            plain_store(to + values, dv[i], 1, a.head_dim);
        }
}

template <class E, int D, int B>
void run(kn_cuda *c, E *dqkv, const E *dout, const E *qkv, const float *lse, const float *dots, const attend_keys &keys,
         const kn_segment *segment, size_t segments, const attend_shape &a)
{
    constexpr size_t shared = (size_t)(4 * B * (D + 4) + B * (B + 4)) * sizeof(float);
    const attend_viewed viewed = attend_plan_viewed(c, segment, segments, &a, B);
    const attend_queries queries = attend_plan_segments(c, segment, segments, &a, B);
    if (c->status != KN_OK || queries.tiles == 0)
        return;
    KN_LAUNCH(c, (plain_gradient_of_keys<E, D, B>), dim3(viewed.blocks * a.kv_heads), dim3(PLAIN_THREADS), shared, dqkv,
              dout, qkv, lse, dots, viewed.rows, viewed.viewers, viewed.block, a);
    KN_LAUNCH(c, (plain_gradient_of_queries<E, D, B>), dim3(queries.tiles * a.kv_heads), dim3(PLAIN_THREADS), shared,
              dqkv, dout, qkv, lse, dots, keys, queries.rows, queries.tile, a);
}

/* --- Σ dout·out --- */

enum { DOT_THREADS = 256, DOT_LANES = 8 }; /* eight threads take one head of one row */

KDEV float dot_of_four(float4 x, float4 y, float sum)
{
    return fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, sum))));
}

template <class E>
__global__ void __launch_bounds__(DOT_THREADS)
    dots_of_rows(float *dots, const E *dout, const E *out, size_t n, uint32_t head_dim)
{
    const size_t index = (size_t)blockIdx.x * (DOT_THREADS / DOT_LANES) + threadIdx.x / DOT_LANES;
    const size_t from = (index < n ? index : n - 1) * head_dim;
    float sum = 0;
    if (head_dim % 4 == 0)
        for (uint32_t e = threadIdx.x % DOT_LANES * 4; e < head_dim; e += DOT_LANES * 4)
            sum = dot_of_four(plain_four(dout + from + e), plain_four(out + from + e), sum);
    else
        for (uint32_t e = threadIdx.x % DOT_LANES; e < head_dim; e += DOT_LANES)
            sum = fmaf(plain_get(dout[from + e]), plain_get(out[from + e]), sum);
#pragma unroll
    for (int step = DOT_LANES / 2; step; step >>= 1)
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (index < n && threadIdx.x % DOT_LANES == 0)
        dots[index] = sum;
}

} // namespace

template <class E> void attend_dots(kn_cuda *c, float *dots, const E *dout, const E *out, size_t n, uint32_t head_dim)
{
    const size_t each = DOT_THREADS / DOT_LANES;
    if (c->status == KN_OK && n > 0)
        KN_LAUNCH(c, dots_of_rows<E>, dim3((unsigned)((n + each - 1) / each)), dim3(DOT_THREADS), 0, dots, dout, out, n,
                  head_dim);
}

template <class E>
void attend_plain_backward(kn_cuda *c, E *dqkv, const E *dout, const E *qkv, const float *lse, const float *dots,
                           const attend_keys &keys, const kn_segment *segment, size_t segments, const attend_shape &a)
{
    if (a.head_dim <= 64)
        run<E, 64, 64>(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
    else if (a.head_dim <= 128)
        run<E, 128, 32>(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
    else
        run<E, 256, 16>(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
}

#define BOTH(E)                                                                                                \
    template void attend_dots<E>(kn_cuda *, float *, const E *, const E *, size_t, uint32_t);                  \
    template void attend_plain_backward<E>(kn_cuda *, E *, const E *, const E *, const float *, const float *, \
                                           const attend_keys &, const kn_segment *, size_t, const attend_shape &);
BOTH(float)
BOTH(attend_bf16)
