/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums in float64 over whole arrays, in one fixed order: as many blocks as the array's length says, each striding over
 * it, then one block over their parts. What the optimizer and the merges share.
 */
#ifndef KN_CUDA_MERGE_CUH
#define KN_CUDA_MERGE_CUH

#include "reduce.cuh"
#include "rows.cuh"

enum { SUM_THREADS = 256, SUM_BLOCKS = 1024, SUM_AHEAD = 4 };

static inline unsigned sum_blocks(size_t n)
{
    const size_t blocks = (n + 4 * SUM_THREADS * SUM_AHEAD - 1) / (4 * SUM_THREADS * SUM_AHEAD);
    return blocks < SUM_BLOCKS ? (unsigned)blocks : (unsigned)SUM_BLOCKS;
}

/* The K sums of a block into partial[K][gridDim.x]. */
template <int K> KDEV void sum_leave(double *partial, const double (&s)[K])
{
#pragma unroll
    for (int k = 0; k < K; k++) {
        const double all = reduce_block(s[k], reduce_add(), 0.0);
        if (threadIdx.x == 0)
            partial[(size_t)k * gridDim.x + blockIdx.x] = all;
    }
}

/* sum[k] += Σ_b partial[k][b], block k. */
static __global__ void __launch_bounds__(SUM_THREADS)
    sum_add_kernel(double *sum, const double *partial, unsigned blocks)
{
    double s = 0;
    for (unsigned b = threadIdx.x; b < blocks; b += SUM_THREADS)
        s += partial[(size_t)blockIdx.x * blocks + b];
    s = reduce_block(s, reduce_add(), 0.0);
    if (threadIdx.x == 0)
        sum[blockIdx.x] += s;
}

/* The op of kn_cuda_optimizer_ops that are merge.cu's. */
void kn_cuda_merge_ops(kn_ops *);

#endif
