/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* AdamW (Loshchilov & Hutter 2019, algorithm 2, in PyTorch's order), the sum of squares and clipping; the host learns
 * neither norm nor scale. All of it is as fast as memory. */
#include "merge.cuh"
#include "philox.cuh"

#include <math.h>

enum { FLAT = 256, EACH = 2 }; /* threads, pieces of four elements of a thread */

/* --- the gradient's norm --- */

template <int N>
__global__ void __launch_bounds__(SUM_THREADS) sum_squares_kernel(double *partial, const float *x, size_t n)
{
    double s[SUM_AHEAD] = {}, all[1];
    const size_t step = (size_t)gridDim.x * SUM_THREADS * N;
    for (size_t at = ((size_t)blockIdx.x * SUM_THREADS + threadIdx.x) * N; at < n; at += SUM_AHEAD * step) {
        float v[SUM_AHEAD][N];
#pragma unroll
        for (int k = 0; k < SUM_AHEAD; k++)
            if (at + k * step + N <= n) {
                row_load(v[k], x + at + k * step);
            } else {
#pragma unroll
                for (int i = 0; i < N; i++) /* behind the end: zeros */
                    v[k][i] = at + k * step + i < n ? x[at + k * step + i] : 0.0f;
            }
#pragma unroll
        for (int k = 0; k < SUM_AHEAD; k++)
#pragma unroll
            for (int i = 0; i < N; i++)
                s[k] = fma((double)v[k][i], (double)v[k][i], s[k]);
    }
    all[0] = (s[0] + s[1]) + (s[2] + s[3]);
    sum_leave(partial, all);
}

static int sum_squares_add(kn_device *device, double *sum, const float *x, size_t n)
{
    return row_op(device, false, [&](kn_cuda *c) {
        const unsigned blocks = sum_blocks(n);
        double *partial = n > 0 ? (double *)kn_cuda_scratch(c, blocks * sizeof(double)) : NULL;
        if (partial == NULL)
            return;
        if (row_aligned(16, x))
            KN_LAUNCH(c, sum_squares_kernel<4>, dim3(blocks), dim3(SUM_THREADS), 0, partial, x, n);
        else
            KN_LAUNCH(c, sum_squares_kernel<1>, dim3(blocks), dim3(SUM_THREADS), 0, partial, x, n);
        KN_LAUNCH(c, sum_add_kernel, dim3(1), dim3(SUM_THREADS), 0, sum, partial, blocks);
    });
}

/* Pascanu et al. 2013, algorithm 1. */
__global__ void clip_kernel(float *scale, const double *sum, double grad_scale, double max_norm)
{
    if (threadIdx.x > 0)
        return;
    const double norm = sqrt(*sum) * fabs(grad_scale);
    if (!isfinite(norm))
        *scale = NAN;
    else
        *scale = (float)(max_norm > 0 && norm > max_norm ? grad_scale * (max_norm / (norm + 1e-6)) : grad_scale);
}

static int clip(kn_device *device, float *scale, const double *sum, double grad_scale, double max_norm)
{
    return row_op(device, false, [&](kn_cuda *c) {
        KN_LAUNCH(c, clip_kernel, dim3(1), dim3(32), 0, scale, sum, grad_scale, max_norm);
    });
}

/* --- the step --- */

struct adamw_step {
    const float *scale_at;
    bf16 *rounded;                    /* NULL, or where w goes in bfloat16 too */
    float scale, less1, beta2, less2; /* of the gradient, 1 - β1, β2, 1 - β2 */
    float eps, rate, root, keep;      /* ε, lr / (1 - β1^t), 1 / √(1 - β2^t), 1 - lr·decay */
};

static adamw_step adamw_step_of(const kn_adamw *a)
{
    const double correct1 = 1 - pow((double)a->beta1, (double)a->step);
    const double correct2 = 1 - pow((double)a->beta2, (double)a->step);
    return {a->scale_at,
            (bf16 *)a->rounded,
            a->grad_scale,
            1 - a->beta1,
            a->beta2,
            1 - a->beta2,
            a->eps,
            (float)(a->lr / correct1),
            (float)(1 / sqrt(correct2)),
            (float)(1 - (double)a->lr * a->weight_decay)};
}

KDEV void adamw_update(const adamw_step &a, float scale, float &w, float &m, float &v, float g)
{
    g *= scale;
    m = fmaf(a.less1, g - m, m);
    v = fmaf(a.beta2, v, a.less2 * (g * g));
    w = w * a.keep - a.rate * m / fmaf(sqrtf(v), a.root, a.eps);
}

/* Answers false where nothing is to change. */
KDEV bool adamw_scale(const adamw_step &a, float &scale)
{
    scale = a.scale;
    if (a.scale_at == NULL)
        return true;
    scale *= *a.scale_at;
    return isfinite(scale);
}

template <int N>
__global__ void __launch_bounds__(FLAT)
    adamw_kernel(float *w, float *m, float *v, const float *g, size_t n, adamw_step a)
{
    const size_t first = ((size_t)blockIdx.x * FLAT * EACH + threadIdx.x) * N;
    float wv[EACH][N], mv[EACH][N], vv[EACH][N], gv[EACH][N], scale;
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const size_t at = first + (size_t)k * FLAT * N;
        if (at + N <= n) {
            row_load(wv[k], w + at);
            row_load(mv[k], m + at);
            row_load(vv[k], v + at);
            row_load(gv[k], g + at);
        }
    }
    if (!adamw_scale(a, scale))
        return;
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const size_t at = first + (size_t)k * FLAT * N;
        if (at + N <= n) {
#pragma unroll
            for (int i = 0; i < N; i++)
                adamw_update(a, scale, wv[k][i], mv[k][i], vv[k][i], gv[k][i]);
            row_store(w + at, wv[k]);
            row_store(m + at, mv[k]);
            row_store(v + at, vv[k]);
            if (a.rounded != NULL)
                row_store(a.rounded + at, wv[k]);
        } else {
            for (size_t i = at; i < n; i++) {
                adamw_update(a, scale, w[i], m[i], v[i], g[i]);
                if (a.rounded != NULL)
                    a.rounded[i] = __float2bfloat16(w[i]);
            }
        }
    }
}

static int adamw(kn_device *device, float *w, float *m, float *v, const float *g, size_t n, const kn_adamw *a)
{
    return row_op(device, a->step == 0, [&](kn_cuda *c) {
        if (n == 0)
            return;
        if (row_aligned(16, w, m, v, g) && row_aligned(8, a->rounded))
            KN_LAUNCH(c, adamw_kernel<4>, dim3(row_ceil(n, FLAT * EACH * 4)), dim3(FLAT), 0, w, m, v, g, n,
                      adamw_step_of(a));
        else
            KN_LAUNCH(c, adamw_kernel<1>, dim3(row_ceil(n, FLAT * EACH)), dim3(FLAT), 0, w, m, v, g, n,
                      adamw_step_of(a));
    });
}

/* --- with moments in bfloat16 --- */

/* kn_narrow_random */
KDEV float narrow_random(float x, uint32_t random)
{
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u)
        return x;
    return __uint_as_float((bits + (random & 0xffffu)) & 0xffff0000u); /* exact in bfloat16 */
}

/* N neighbours in each quarter of a block of 64 elements, so that every word of a counter is used. */
template <int N>
__global__ void __launch_bounds__(FLAT)
    adamw_bf16_kernel(float *w, bf16 *m, bf16 *v, const float *g, size_t n, size_t units, adamw_step a, philox key)
{
    const size_t unit = (size_t)blockIdx.x * FLAT + threadIdx.x;
    float wv[4][N], mv[4][N], vv[4][N], gv[4][N], scale;
    if (unit >= units || !adamw_scale(a, scale))
        return;
#pragma unroll
    for (int q = 0; q < 4; q++) {
        const size_t at = philox_element<N>(unit, q);
        if (at + N <= n) {
            row_load(wv[q], w + at);
            row_load(mv[q], m + at);
            row_load(vv[q], v + at);
            row_load(gv[q], g + at);
        } else {
#pragma unroll
            for (int i = 0; i < N; i++) {
                const bool is = at + i < n;
                wv[q][i] = is ? w[at + i] : 0.0f;
                mv[q][i] = is ? __bfloat162float(m[at + i]) : 0.0f;
                vv[q][i] = is ? __bfloat162float(v[at + i]) : 0.0f;
                gv[q][i] = is ? g[at + i] : 0.0f;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        uint32_t word[4];
        philox_words(word, key, philox_block<N>(unit, i));
#pragma unroll
        for (int q = 0; q < 4; q++) {
            adamw_update(a, scale, wv[q][i], mv[q][i], vv[q][i], gv[q][i]);
            mv[q][i] = narrow_random(mv[q][i], word[q]);
            vv[q][i] = narrow_random(vv[q][i], word[q] >> 16);
        }
    }
#pragma unroll
    for (int q = 0; q < 4; q++) {
        const size_t at = philox_element<N>(unit, q);
        if (at + N <= n) {
            row_store(w + at, wv[q]);
            row_store(m + at, mv[q]);
            row_store(v + at, vv[q]);
            if (a.rounded != NULL)
                row_store(a.rounded + at, wv[q]);
        } else {
#pragma unroll
            for (int i = 0; i < N; i++)
                if (at + i < n) {
                    w[at + i] = wv[q][i];
                    m[at + i] = __float2bfloat16(mv[q][i]);
                    v[at + i] = __float2bfloat16(vv[q][i]);
                    if (a.rounded != NULL)
                        a.rounded[at + i] = __float2bfloat16(wv[q][i]);
                }
        }
    }
}

template <int N>
static void ask_adamw_bf16(kn_cuda *c, float *w, uint16_t *m, uint16_t *v, const float *g, size_t n, const kn_adamw *a,
                           philox key)
{
    const size_t units = philox_units<N>(n);
    KN_LAUNCH(c, adamw_bf16_kernel<N>, dim3(row_ceil(units, FLAT)), dim3(FLAT), 0, w, (bf16 *)m, (bf16 *)v, g, n, units,
              adamw_step_of(a), key);
}

static int adamw_bf16(kn_device *device, float *w, uint16_t *m, uint16_t *v, const float *g, size_t n,
                      const kn_adamw *a, const uint64_t key[2], const uint64_t counter[2])
{
    return row_op(device, a->step == 0 || n > (uint64_t)1 << 32, [&](kn_cuda *c) {
        if (n == 0)
            return;
        if (row_aligned(16, (const void *)w, (const void *)g) && row_aligned(8, m, v, a->rounded))
            ask_adamw_bf16<4>(c, w, m, v, g, n, a, philox_of(key, counter));
        else
            ask_adamw_bf16<1>(c, w, m, v, g, n, a, philox_of(key, counter));
    });
}

void kn_cuda_optimizer_ops(kn_ops *f32, kn_ops *b16)
{
    for (kn_ops *ops : {f32, b16}) {
        ops->sum_squares_add = sum_squares_add;
        ops->clip = clip;
        ops->adamw = adamw;
        ops->adamw_bf16 = adamw_bf16;
        kn_cuda_merge_ops(ops);
    }
}
