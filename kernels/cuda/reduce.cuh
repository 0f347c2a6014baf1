/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums and extremes over a warp and over a block, in an order that depends on the shape of the block alone. What the
 * xor shuffles add is the same on both sides of each exchange, so every lane ends with the same bits.
 */
#ifndef KN_CUDA_REDUCE_CUH
#define KN_CUDA_REDUCE_CUH

#include "launch.cuh"

struct reduce_add {
    template <class T> __device__ T operator()(T a, T b) const
    {
        return a + b;
    }
};

struct reduce_max {
    template <class T> __device__ T operator()(T a, T b) const
    {
        return a > b ? a : b;
    }
};

template <class T, class F> KDEV T reduce_warp(T v, F f)
{
#pragma unroll
    for (int step = 16; step; step >>= 1)
        v = f(v, __shfl_xor_sync(0xffffffffu, v, step));
    return v;
}

/* The same over the `warps` warps from warp `first` of the block; `part` has room for a number a warp of the block, and
 * no thread may still be reading it. All threads of the block call it with one value of `warps`. `none` changes nothing
 * (0 of a sum). */
template <class T, class F>
KDEV T reduce_warps(T v, F f, T none, T *part, unsigned warp, unsigned first, unsigned warps)
{
    v = reduce_warp(v, f);
    if (warps == 1)
        return v;
    const unsigned lane = threadIdx.x % 32;
    if (lane == 0)
        part[warp] = v;
    __syncthreads();
    return reduce_warp(lane < warps ? part[first + lane] : none, f);
}

/* Over a one-dimensional block; may be called again at once. */
template <class T, class F> KDEV T reduce_block(T v, F f, T none)
{
    SHARED(T, part, [32]);
    __syncthreads(); /* an earlier call may still be reading */
    return reduce_warps(v, f, none, part, threadIdx.x / 32, 0u, blockDim.x / 32);
}

#endif
