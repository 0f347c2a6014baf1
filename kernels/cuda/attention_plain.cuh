/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles of attention without tensor cores: float32 throughout, either type in memory, every head_dim up to 256. A block
 * of 16 × 16 threads works on tiles of B rows in shared memory, widened to float32 and to D columns (zeros beyond
 * head_dim), with 4 more so that the rows that 16 threads read side by side lie in different banks.
 *
 * Thread (y, x) has, of a B × B product, rows y·R + i and columns x + 16·j (R = B / 16); of a B × D one, the same rows
 * and columns 4·x + 64·c and the next three.
 */
#ifndef KERNELS_CUDA_ATTENTION_PLAIN_CUH
#define KERNELS_CUDA_ATTENTION_PLAIN_CUH

#include "attend_join.cuh"

enum { PLAIN_THREADS = 256 };

KDEV float plain_get(float x)
{
    return x;
}

KDEV float plain_get(attend_bf16 x)
{
    return __bfloat162float(x);
}

KDEV float4 plain_four(const float *from)
{
    return *reinterpret_cast<const float4 *>(from);
}

KDEV float4 plain_four(const attend_bf16 *from)
{
    const uint2 bits = *reinterpret_cast<const uint2 *>(from);
    return make_float4(unpack_low_bf16(bits.x), unpack_high_bf16(bits.x), unpack_low_bf16(bits.y),
                       unpack_high_bf16(bits.y));
}

KDEV float &plain_at(float4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

template <int D> KDEV int plain_pitch()
{
    return D + 4;
}

/* Rows of a tile from where row(r) says; NULL = zeros. */
template <int B, int D, class R> KDEV void plain_load(float *tile, uint32_t head_dim, R row)
{
    for (int c = (int)threadIdx.x; c < B * (D / 4); c += PLAIN_THREADS) {
        const int r = c / (D / 4), e = c % (D / 4) * 4;
        const auto *from = row(r);
        float4 v = make_float4(0, 0, 0, 0);
        if (from && head_dim % 4 == 0) {
            if ((uint32_t)e < head_dim)
                v = plain_four(from + e);
        } else if (from) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if ((uint32_t)(e + i) < head_dim)
                    plain_at(v, i) = plain_get(from[e + i]);
        }
        *reinterpret_cast<float4 *>(tile + r * plain_pitch<D>() + e) = v;
    }
}

/* s = a · bᵀ. */
template <int B, int D> KDEV void plain_product(float (&s)[B / 16][B / 16], const float *a, const float *b)
{
    constexpr int R = B / 16;
    const int x = (int)threadIdx.x % 16, y = (int)threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < R; j++)
            s[i][j] = 0;
#pragma unroll 4
    for (int d = 0; d < D; d += 4) {
        float4 va[R], vb[R];
#pragma unroll
        for (int i = 0; i < R; i++)
            va[i] = *reinterpret_cast<const float4 *>(a + (y * R + i) * plain_pitch<D>() + d);
#pragma unroll
        for (int j = 0; j < R; j++)
            vb[j] = *reinterpret_cast<const float4 *>(b + (x + 16 * j) * plain_pitch<D>() + d);
#pragma unroll
        for (int i = 0; i < R; i++)
#pragma unroll
            for (int j = 0; j < R; j++) {
                s[i][j] = fmaf(va[i].x, vb[j].x, s[i][j]);
                s[i][j] = fmaf(va[i].y, vb[j].y, s[i][j]);
                s[i][j] = fmaf(va[i].z, vb[j].z, s[i][j]);
                s[i][j] = fmaf(va[i].w, vb[j].w, s[i][j]);
            }
    }
}

/* The thread's part of a B × B product into a tile with rows of B + 4. */
template <int B> KDEV void plain_lay(float *tile, const float (&s)[B / 16][B / 16])
{
    constexpr int R = B / 16;
    const int x = (int)threadIdx.x % 16, y = (int)threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < R; j++)
            tile[(y * R + i) * (B + 4) + x + 16 * j] = s[i][j];
}

/* o += p · b, p as plain_lay lays it. */
template <int B, int D> KDEV void plain_gather(float4 (&o)[B / 16][D / 64], const float *p, const float *b)
{
    constexpr int R = B / 16;
    const int x = (int)threadIdx.x % 16, y = (int)threadIdx.x / 16;
    for (int j = 0; j < B; j += 4) {
        float4 vp[R];
#pragma unroll
        for (int i = 0; i < R; i++)
            vp[i] = *reinterpret_cast<const float4 *>(p + (y * R + i) * (B + 4) + j);
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int c = 0; c < D / 64; c++) {
                const float4 v = *reinterpret_cast<const float4 *>(b + (j + n) * plain_pitch<D>() + 4 * x + 64 * c);
#pragma unroll
                for (int i = 0; i < R; i++) {
                    const float w = plain_at(vp[i], n);
                    o[i][c].x = fmaf(w, v.x, o[i][c].x);
                    o[i][c].y = fmaf(w, v.y, o[i][c].y);
                    o[i][c].z = fmaf(w, v.z, o[i][c].z);
                    o[i][c].w = fmaf(w, v.w, o[i][c].w);
                }
            }
    }
}

template <int R, int C> KDEV void plain_zero(float4 (&o)[R][C])
{
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
        for (int c = 0; c < C; c++)
            o[i][c] = make_float4(0, 0, 0, 0);
}

/* A row of a B × D product, times `by`, to memory. */
template <int C, class E> KDEV void plain_store(E *to, const float4 (&o)[C], float by, uint32_t head_dim)
{
    const int x = (int)threadIdx.x % 16;
#pragma unroll
    for (int c = 0; c < C; c++) {
        float4 v = o[c];
#pragma unroll
        for (int i = 0; i < 4; i++)
            if ((uint32_t)(4 * x + 64 * c + i) < head_dim)
                attend_put(to + 4 * x + 64 * c + i, plain_at(v, i) * by);
    }
}

/* The sum, or the greatest, of the 16 threads that share rows. */
KDEV float plain_row_sum(float v)
{
#pragma unroll
    for (int step = 8; step; step >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}

KDEV float plain_row_max(float v)
{
#pragma unroll
    for (int step = 8; step; step >>= 1)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
    return v;
}

/* The score that the softmax sees, and its slope by q·k (less the scale). */
KDEV float plain_score(float dot, const attend_shape &a, float *slope)
{
    const float x = dot * a.scale;
    *slope = 1;
    if (!(a.cap > 0))
        return x;
    const float t = tanhf(x / a.cap);
    *slope = 1 - t * t;
    return a.cap * t;
}

#endif
