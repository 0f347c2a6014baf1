/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax of a row of float32 logits, in one pass (Milakov & Gimelshein 2018): the greatest logit and
 * Σ exp(l - greatest), in an order that depends on nothing but the row's length. A row is cut into slices of one
 * length, so that few rows still fill a device: a block takes a slice, then a warp puts the slices together. logprob
 * and choose both take a row's log-probabilities from here, so what a sampler noted equals what a later scoring finds,
 * to the bit. Every product that is added is an explicit fmaf, every other sum an __fadd_rn: expf ends in a product,
 * which nvcc joins with a sum behind it where nobody else wants it, so in one kernel and not in another.
 */
#ifndef KN_CUDA_SOFTMAX_CUH
#define KN_CUDA_SOFTMAX_CUH

#include <math.h>

#include "launch.cuh"

enum {                                                                /* the order of the sums hangs on these */
       KN_SOFTMAX_THREADS = 512,                                      /* in the block */
       KN_SOFTMAX_AHEAD = 4,                                          /* loads of a thread on their way at once */
       KN_SOFTMAX_GROUPS = 2 * KN_SOFTMAX_AHEAD * KN_SOFTMAX_THREADS, /* of four logits, in a slice */
       KN_SOFTMAX_SLICE = 4 * KN_SOFTMAX_GROUPS
};

/* Slices of a row of n. */
static inline unsigned softmax_slices(size_t n)
{
    return (unsigned)((n + KN_SOFTMAX_SLICE - 1) / KN_SOFTMAX_SLICE);
}

/* Σ over the elements seen; none seen, or all -infinity: {-infinity, 0, 0}. A NaN makes the sum NaN. */
struct softmax_sums {
    float max;    /* the greatest element m */
    float sum;    /* Σ exp(l - m) */
    float moment; /* Σ exp(l - m)·(l - m), for the entropy */
};

/* Four logits from element 4·group, -infinity beyond n: the same four for the same thread however the row is aligned.
 */
KDEV void softmax_four(float (&v)[4], const float *row, size_t n, size_t group, bool aligned)
{
    const size_t at = 4 * group;
    if (aligned && at + 4 <= n) {
        const float4 four = *reinterpret_cast<const float4 *>(row + at);
        v[0] = four.x;
        v[1] = four.y;
        v[2] = four.z;
        v[3] = four.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        v[i] = at + i < n ? row[at + i] : -INFINITY;
}

template <bool MOMENT> KDEV void softmax_add(softmax_sums &s, const float (&v)[4])
{
    const float top = fmaxf(fmaxf(v[0], v[1]), fmaxf(v[2], v[3]));
    if (top > s.max) {
        if (s.sum != 0) {
            const float down = s.max - top, scale = expf(down);
            if (MOMENT)
                s.moment = scale * fmaf(s.sum, down, s.moment);
            s.sum = __fmul_rn(s.sum, scale);
        }
        s.max = top;
    }
    if (!(s.max > -INFINITY))
        return;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float down = v[i] - s.max, e = expf(down);
        s.sum = __fadd_rn(s.sum, e);
        if (MOMENT)
            s.moment = fmaf(e, fmaxf(down, -1e30f), s.moment); /* 0 · -infinity is to be 0 */
    }
}

/* Puts two parts together; the same bits whichever comes first. */
template <bool MOMENT> KDEV softmax_sums softmax_merge(const softmax_sums &a, const softmax_sums &b)
{
    const bool first = a.max >= b.max;
    const softmax_sums high = first ? a : b, low = first ? b : a;
    if (low.sum == 0)
        return high;
    const float down = low.max - high.max, scale = expf(down);
    softmax_sums s = {high.max, fmaf(low.sum, scale, high.sum), 0};
    if (MOMENT)
        s.moment = fmaf(scale, fmaf(low.sum, down, low.moment), high.moment);
    return s;
}

template <bool MOMENT> KDEV softmax_sums softmax_warp(softmax_sums s)
{
#pragma unroll
    for (int step = 16; step; step >>= 1) {
        softmax_sums other = {__shfl_xor_sync(0xffffffffu, s.max, step), __shfl_xor_sync(0xffffffffu, s.sum, step), 0};
        if (MOMENT)
            other.moment = __shfl_xor_sync(0xffffffffu, s.moment, step);
        s = softmax_merge<MOMENT>(s, other);
    }
    return s;
}

/* The sums of a block's threads put together, answered to each: called by all KN_SOFTMAX_THREADS of them; it may be
 * called again. */
template <bool MOMENT> KDEV softmax_sums softmax_block(softmax_sums s)
{
    SHARED(softmax_sums, part, [KN_SOFTMAX_THREADS / 32]);
    const int lane = threadIdx.x % 32;
    s = softmax_warp<MOMENT>(s);
    __syncthreads(); /* an earlier call may still be reading */
    if (lane == 0)
        part[threadIdx.x / 32] = s;
    __syncthreads();
    const softmax_sums nothing = {-INFINITY, 0, 0};
    return softmax_warp<MOMENT>(lane < KN_SOFTMAX_THREADS / 32 ? part[lane] : nothing);
}

/* The sums of a slice of row[0, n): called by all KN_SOFTMAX_THREADS threads of a one-dimensional block, answered to
 * each. With MOMENT or without, max and sum are the same bits. choose.cu makes the same sums, in the same order, on its
 * way over a slice. */
template <bool MOMENT> KDEV softmax_sums softmax_slice(const float *row, size_t n, unsigned slice)
{
    const size_t from = (size_t)slice * KN_SOFTMAX_GROUPS;
    const bool aligned = (reinterpret_cast<uintptr_t>(row) & 15) == 0;
    softmax_sums s = {-INFINITY, 0, 0};
#pragma unroll 1
    for (unsigned g = threadIdx.x; g < KN_SOFTMAX_GROUPS; g += KN_SOFTMAX_AHEAD * KN_SOFTMAX_THREADS) {
        float v[KN_SOFTMAX_AHEAD][4];
#pragma unroll
        for (int k = 0; k < KN_SOFTMAX_AHEAD; k++)
            softmax_four(v[k], row, n, from + g + k * KN_SOFTMAX_THREADS, aligned);
#pragma unroll
        for (int k = 0; k < KN_SOFTMAX_AHEAD; k++)
            softmax_add<MOMENT>(s, v[k]);
    }
    return softmax_block<MOMENT>(s);
}

/* A row's slices, part_of(i) of each, put together by a warp, answered to each lane. */
template <bool MOMENT, class F> KDEV softmax_sums softmax_join(unsigned slices, F part_of)
{
    softmax_sums s = {-INFINITY, 0, 0};
    for (unsigned i = threadIdx.x % 32; i < slices; i += 32)
        s = softmax_merge<MOMENT>(s, part_of(i));
    return softmax_warp<MOMENT>(s);
}

/* log softmax of a logit of the row. */
KDEV float softmax_logprob(const softmax_sums &s, float logit)
{
    return (logit - s.max) - logf(s.sum);
}

/* log Σ exp(l). */
KDEV float softmax_lse(const softmax_sums &s)
{
    return s.max + logf(s.sum);
}

/* -Σ p·log p, in nats. */
KDEV float softmax_entropy(const softmax_sums &s)
{
    return logf(s.sum) - s.moment / s.sum;
}

#endif
