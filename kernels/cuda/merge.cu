/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Models put together on the device: weighted means with the bits of the host's, SLERP of differences. The formulas
 * stand in kernels/reference/merge.c. */
#include "merge.cuh"

#include <math.h>

enum { FLAT = 256, EACH = 4 }; /* threads, pieces of a thread */

/* --- means --- */

/* Elements of EACH pieces of each array in turn; products and sums rounded singly, as on the host. */
template <int N>
__global__ void __launch_bounds__(FLAT)
    mean_kernel(float *to, const float *const *from, const float *weight, size_t count, size_t n)
{
    const size_t first = ((size_t)blockIdx.x * FLAT * EACH + threadIdx.x) * N;
    float sum[EACH][N];
    for (size_t j = 0; j < count; j++) {
        const float *x = from[j];
        const float w = weight != NULL ? weight[j] : 1.0f;
        float v[EACH][N];
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            const size_t at = first + (size_t)k * FLAT * N;
            if (at + N <= n) {
                row_load(v[k], x + at);
            } else {
#pragma unroll
                for (int i = 0; i < N; i++)
                    v[k][i] = at + i < n ? x[at + i] : 0.0f;
            }
        }
#pragma unroll
        for (int k = 0; k < EACH; k++)
#pragma unroll
            for (int i = 0; i < N; i++) {
                const float share = __fmul_rn(w, v[k][i]);
                sum[k][i] = j == 0 ? share : __fadd_rn(sum[k][i], share);
            }
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const size_t at = first + (size_t)k * FLAT * N;
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[k][i] = weight != NULL ? sum[k][i] : __fdiv_rn(sum[k][i], (float)count);
        if (at + N <= n) {
            row_store(to + at, sum[k]);
        } else {
#pragma unroll
            for (int i = 0; i < N; i++)
                if (at + i < n)
                    to[at + i] = sum[k][i];
        }
    }
}

static bool all_aligned(const float *const *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!row_aligned(16, from[i]))
            return false;
    return true;
}

static int mean(kn_device *device, float *to, const float *const *from, const float *weight, size_t count, size_t n)
{
    return row_op(device, count == 0, [&](kn_cuda *c) {
        if (n == 0)
            return;
        const float *const *arrays = (const float *const *)kn_cuda_upload(c, from, count * sizeof(*from));
        const float *w = weight ? (const float *)kn_cuda_upload(c, weight, count * sizeof(*weight)) : NULL;
        if (arrays == NULL || (weight != NULL && w == NULL))
            return;
        if (row_aligned(16, to) && all_aligned(from, count))
            KN_LAUNCH(c, mean_kernel<4>, dim3(row_ceil(n, FLAT * EACH * 4)), dim3(FLAT), 0, to, arrays, w, count, n);
        else
            KN_LAUNCH(c, mean_kernel<1>, dim3(row_ceil(n, FLAT * EACH)), dim3(FLAT), 0, to, arrays, w, count, n);
    });
}

/* --- SLERP --- */

/* N elements from `at`, zeros behind the end. */
template <int N> KDEV void fetch(float (&v)[N], const float *x, size_t at, size_t n)
{
    if (x != NULL && at + N <= n) {
        row_load(v, x + at);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = x != NULL && at + i < n ? x[at + i] : 0.0f;
    }
}

template <int N>
__global__ void __launch_bounds__(SUM_THREADS)
    slerp_dots_kernel(double *partial, const float *base, const float *a, const float *b, size_t n)
{
    double s[3] = {};
    const size_t step = (size_t)gridDim.x * SUM_THREADS * N;
    for (size_t at = ((size_t)blockIdx.x * SUM_THREADS + threadIdx.x) * N; at < n; at += 2 * step) {
        float o[2][N], x[2][N], y[2][N];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            fetch(o[k], base, at + k * step, n);
            fetch(x[k], a, at + k * step, n);
            fetch(y[k], b, at + k * step, n);
        }
#pragma unroll
        for (int k = 0; k < 2; k++)
#pragma unroll
            for (int i = 0; i < N; i++) {
                const double da = (double)x[k][i] - (double)o[k][i], db = (double)y[k][i] - (double)o[k][i];
                s[0] = fma(da, da, s[0]);
                s[1] = fma(db, db, s[1]);
                s[2] = fma(da, db, s[2]);
            }
    }
    sum_leave(partial, s);
}

static int slerp_dots_add(kn_device *device, double dots[3], const float *base, const float *a, const float *b,
                          size_t n)
{
    return row_op(device, false, [&](kn_cuda *c) {
        const unsigned blocks = sum_blocks(n);
        double *partial = n > 0 ? (double *)kn_cuda_scratch(c, 3 * blocks * sizeof(double)) : NULL;
        if (partial == NULL)
            return;
        if (row_aligned(16, base, a, b))
            KN_LAUNCH(c, slerp_dots_kernel<4>, dim3(blocks), dim3(SUM_THREADS), 0, partial, base, a, b, n);
        else
            KN_LAUNCH(c, slerp_dots_kernel<1>, dim3(blocks), dim3(SUM_THREADS), 0, partial, base, a, b, n);
        KN_LAUNCH(c, sum_add_kernel, dim3(3), dim3(SUM_THREADS), 0, dots, partial, blocks);
    });
}

/* The shares of a and b (Shoemake 1985, §3.3), once for all elements. */
__global__ void slerp_shares_kernel(float *share, const double *dots, double lambda)
{
    if (threadIdx.x > 0)
        return;
    const double norms = sqrt(dots[0]) * sqrt(dots[1]), cosine = norms > 0 ? dots[2] / norms : 1.0;
    const double angle = acos(fmin(fmax(cosine, -1.0), 1.0)), sine = sin(angle);
    share[0] = (float)(sine < 1e-6 ? 1 - lambda : sin((1 - lambda) * angle) / sine);
    share[1] = (float)(sine < 1e-6 ? lambda : sin(lambda * angle) / sine);
}

template <int N>
__global__ void __launch_bounds__(FLAT)
    slerp_kernel(float *to, const float *share, const float *base, const float *a, const float *b, size_t n)
{
    const size_t first = ((size_t)blockIdx.x * FLAT * 2 + threadIdx.x) * N;
    float o[2][N], x[2][N], y[2][N];
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const size_t at = first + (size_t)k * FLAT * N;
        fetch(o[k], base, at, n);
        fetch(x[k], a, at, n);
        fetch(y[k], b, at, n);
    }
    const float sa = share[0], sb = share[1];
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const size_t at = first + (size_t)k * FLAT * N;
#pragma unroll
        for (int i = 0; i < N; i++)
            x[k][i] = o[k][i] + fmaf(sa, x[k][i] - o[k][i], sb * (y[k][i] - o[k][i]));
        if (at + N <= n) {
            row_store(to + at, x[k]);
        } else {
#pragma unroll
            for (int i = 0; i < N; i++)
                if (at + i < n)
                    to[at + i] = x[k][i];
        }
    }
}

static int slerp(kn_device *device, float *to, const double dots[3], const float *base, const float *a, const float *b,
                 double lambda, size_t n)
{
    return row_op(device, false, [&](kn_cuda *c) {
        float *share = n > 0 ? (float *)kn_cuda_scratch(c, 2 * sizeof(float)) : NULL;
        if (share == NULL)
            return;
        KN_LAUNCH(c, slerp_shares_kernel, dim3(1), dim3(32), 0, share, dots, lambda);
        if (row_aligned(16, to, base, a, b))
            KN_LAUNCH(c, slerp_kernel<4>, dim3(row_ceil(n, FLAT * 2 * 4)), dim3(FLAT), 0, to, share, base, a, b, n);
        else
            KN_LAUNCH(c, slerp_kernel<1>, dim3(row_ceil(n, FLAT * 2)), dim3(FLAT), 0, to, share, base, a, b, n);
    });
}

void kn_cuda_merge_ops(kn_ops *ops)
{
    ops->mean = mean;
    ops->slerp_dots_add = slerp_dots_add;
    ops->slerp = slerp;
}
