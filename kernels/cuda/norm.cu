/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* RMS norm (Zhang & Sennrich 2019, eq. 4), forward and backward; each row is read from memory once. */
#include "ptx.cuh"
#include "reduce.cuh"
#include "rows.cuh"

enum {
    HELD = 16,     /* elements of a row that a thread keeps, forward */
    OWNED = 16,    /* columns of a thread, backward: their share of dw stays in registers; */
    OWNED_ONE = 8, /* that many where it takes them one by one */
    MOST_BACK = 512,
    STRIPS = 512, /* of rows, backward, twice as many of short ones: a matter of the shape alone, so that dw has the
                   * same bits on any device */
    SHORT = 2048,
    STRIP_ROWS = 4, /* at least */
};

template <int N> struct owned {
    enum { COLUMNS = N > 1 ? OWNED : OWNED_ONE, PIECES = COLUMNS / N };
};

/* Threads for a row of d elements where each takes `each`. */
static unsigned row_threads(size_t d, size_t each, unsigned most)
{
    const size_t n = (d + each - 1) / each;
    return n >= most ? most : (unsigned)((n + 31) / 32 * 32);
}

/* threadIdx.y is the row in the block. What does not fit into HELD is read twice. */
template <class E, int N>
__global__ void __launch_bounds__(1024, 1)
    rms_norm_kernel(E *y, float *rstd, const E *x, const float *w, size_t T, unsigned d, float eps)
{
    follow();
    constexpr int KEEP = N > 1 ? HELD / N : 8;
    SHARED(float, part, [32]);
    const size_t t = (size_t)blockIdx.x * blockDim.y + threadIdx.y, row = t < T ? t : T - 1; /* all meet in the sum */
    const unsigned step = blockDim.x * N, first = threadIdx.x * N;
    const E *from = x + row * d;
    float v[KEEP][N], sum = 0;
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        if (first + k * step < d)
            row_load(v[k], from + first + k * step);
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        if (first + k * step < d)
#pragma unroll
            for (int i = 0; i < N; i++)
                sum = fmaf(v[k][i], v[k][i], sum);
    for (unsigned at = first + KEEP * step; at < d; at += step) {
        float u[N];
        row_load(u, from + at);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum = fmaf(u[i], u[i], sum);
    }
    const unsigned warps = blockDim.x / 32, at_row = threadIdx.y * warps;
    sum = reduce_warps(sum, reduce_add(), 0.0f, part, at_row + threadIdx.x / 32, at_row, warps);
    const float r = 1.0f / sqrtf(sum / (float)d + eps);
    if (t >= T)
        return;
    if (threadIdx.x == 0 && rstd != NULL)
        rstd[t] = r;
    E *to = y + t * d;
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        const unsigned at = first + k * step;
        if (at < d) {
            float scale[N];
            row_load(scale, w + at);
#pragma unroll
            for (int i = 0; i < N; i++)
                v[k][i] = v[k][i] * r * scale[i];
            row_store(to + at, v[k]);
        }
    }
    for (unsigned at = first + KEEP * step; at < d; at += step) {
        float u[N], scale[N];
        row_load(u, from + at);
        row_load(scale, w + at);
#pragma unroll
        for (int i = 0; i < N; i++)
            u[i] = u[i] * r * scale[i];
        row_store(to + at, u);
    }
}

template <class E, int N>
static void ask_rms_norm(kn_cuda *c, E *y, float *rstd, const E *x, const float *w, size_t T, size_t d, float eps)
{
    const unsigned threads = row_threads(d, N > 1 ? HELD : 8, 1024), rows = threads < 128 ? 128 / threads : 1;
    KN_FOLLOW(c, (rms_norm_kernel<E, N>), dim3(row_ceil(T, rows)), dim3(threads, rows), 0, y, rstd, x, w, T,
              (unsigned)d, eps);
}

template <class E>
static int rms_norm(kn_device *device, void *y, float *rstd, const void *x, const float *w, size_t T, size_t d,
                    float eps)
{
    return row_op(device, d > UINT32_MAX / 2, [&](kn_cuda *c) {
        if (T == 0 || d == 0)
            return;
        if (d % wide<E>::N == 0 && row_aligned(16, y, x, (const void *)w))
            ask_rms_norm<E, wide<E>::N>(c, (E *)y, rstd, (const E *)x, w, T, d, eps);
        else
            ask_rms_norm<E, 1>(c, (E *)y, rstd, (const E *)x, w, T, d, eps);
    });
}

/* --- backward: dx += r·w·dy - x·r³·mean(w·dy·x), dw = Σ dy·x·r or += --- */

/* What a thread holds of one row. */
template <int N> struct norm_piece {
    float dy[owned<N>::PIECES][N], x[owned<N>::PIECES][N];
};

/* There are no registers for dx as well: it comes as far as the second-level cache. */
template <class E, int N>
KDEV void norm_fetch(norm_piece<N> &p, const E *dy, const E *x, const E *dx, size_t row, unsigned d, unsigned first,
                     unsigned step)
{
#pragma unroll
    for (int k = 0; k < owned<N>::PIECES; k++)
        if (first + k * step < d) {
            row_load(p.dy[k], dy + row * d + first + k * step);
            row_load(p.x[k], x + row * d + first + k * step);
            prefetch_l2(dx + row * d + first + k * step);
        }
}

/* Block b takes the rows of strip b one after the other, the next row's loads on their way while this row's sum is
 * made, and leaves its share of dw in partial[b]. A thread owns its columns in every row, so their sums need no one
 * else; columns that do not fit into OWNED are added up in `partial` itself. */
template <class E, int N>
__global__ void __launch_bounds__(MOST_BACK, 1)
    rms_norm_backward_kernel(E *dx, float *partial, E *y, const E *dy, const E *x, const float *w, const float *rstd,
                             size_t T, unsigned d, size_t strip)
{
    constexpr int KEEP = owned<N>::PIECES;
    SHARED(float, part, [2][MOST_BACK / 32]);
    const unsigned step = blockDim.x * N, first = threadIdx.x * N;
    const size_t begin = blockIdx.x * strip, end = begin + strip < T ? begin + strip : T;
    float *share = partial + (size_t)blockIdx.x * d;
    float scale[KEEP][N], sum[KEEP][N];
    norm_piece<N> now;
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        if (first + k * step < d)
            row_load(scale[k], w + first + k * step);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[k][i] = 0;
    }
    norm_fetch<E>(now, dy, x, dx, begin, d, first, step);
    for (size_t t = begin; t < end; t++) {
        const norm_piece<N> here = now;
        if (t + 1 < end)
            norm_fetch<E>(now, dy, x, dx, t + 1, d, first, step);
        const float r = rstd[t];
        float dot = 0;
#pragma unroll
        for (int k = 0; k < KEEP; k++)
            if (first + k * step < d)
#pragma unroll
                for (int i = 0; i < N; i++)
                    dot = fmaf(scale[k][i] * here.dy[k][i], here.x[k][i], dot);
        for (unsigned at = first + KEEP * step; at < d; at += step) {
            float a[N], b[N], s[N];
            row_load(a, dy + t * d + at);
            row_load(b, x + t * d + at);
            row_load(s, w + at);
#pragma unroll
            for (int i = 0; i < N; i++)
                dot = fmaf(s[i] * a[i], b[i], dot);
        }
        /* Two arrays by turns: who is a row ahead does not touch the one that is read. */
        dot = reduce_warps(dot, reduce_add(), 0.0f, part[(t - begin) % 2], threadIdx.x / 32, 0u, blockDim.x / 32);
        const float back = r * r * r * (dot / (float)d);
#pragma unroll
        for (int k = 0; k < KEEP; k++) {
            const unsigned at = first + k * step;
            if (at < d) {
                float g[N];
                row_load(g, dx + t * d + at);
#pragma unroll
                for (int i = 0; i < N; i++) {
                    g[i] += r * (scale[k][i] * here.dy[k][i]) - back * here.x[k][i];
                    sum[k][i] = fmaf(here.dy[k][i], here.x[k][i] * r, sum[k][i]);
                }
                row_store(dx + t * d + at, g);
                if (y != NULL) {
#pragma unroll
                    for (int i = 0; i < N; i++)
                        g[i] = here.x[k][i] * r * scale[k][i];
                    row_store(y + t * d + at, g);
                }
            }
        }
        for (unsigned at = first + KEEP * step; at < d; at += step) {
            float a[N], b[N], s[N], g[N], all[N];
            row_load(a, dy + t * d + at);
            row_load(b, x + t * d + at);
            row_load(s, w + at);
            row_load(g, dx + t * d + at);
            if (t > begin)
                row_load(all, share + at);
#pragma unroll
            for (int i = 0; i < N; i++) {
                g[i] += r * (s[i] * a[i]) - back * b[i];
                all[i] = fmaf(a[i], b[i] * r, t > begin ? all[i] : 0);
            }
            row_store(dx + t * d + at, g);
            row_store(share + at, all);
            if (y != NULL) {
#pragma unroll
                for (int i = 0; i < N; i++)
                    g[i] = b[i] * r * s[i];
                row_store(y + t * d + at, g);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        if (first + k * step < d)
            row_store(share + first + k * step, sum[k]);
}

/* sum[d] = Σ_b partial[b][d], or += when accumulate: thread (x, y) of a block of 32 × 32 takes strips y, y + 32, … of a
 * column. */
__global__ void __launch_bounds__(1024)
    add_strips_kernel(float *sum, const float *partial, unsigned strips, size_t d, bool accumulate)
{
    SHARED(float, part, [32][33]);
    const size_t column = (size_t)blockIdx.x * 32 + threadIdx.x;
    float s = 0;
    if (column < d)
#pragma unroll 4
        for (unsigned b = threadIdx.y; b < strips; b += 32)
            s += partial[b * d + column];
    part[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    s = reduce_warp(part[threadIdx.x][threadIdx.y], reduce_add()); /* row y of the block now holds column y */
    const size_t to = (size_t)blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && to < d)
        sum[to] = accumulate ? sum[to] + s : s;
}

template <class E, int N>
static void ask_backward(kn_cuda *c, E *dx, float *dw, E *y, const E *dy, const E *x, const float *w, const float *rstd,
                         size_t T, size_t d, bool accumulate)
{
    const size_t most = d < SHORT ? 2 * STRIPS : STRIPS;
    size_t strip = (T + most - 1) / most;
    if (strip < STRIP_ROWS)
        strip = STRIP_ROWS;
    const unsigned strips = row_ceil(T, strip);
    float *partial = (float *)kn_cuda_scratch(c, strips * d * sizeof(float));
    if (partial == NULL)
        return;
    KN_LAUNCH(c, (rms_norm_backward_kernel<E, N>), dim3(strips), dim3(row_threads(d, owned<N>::COLUMNS, MOST_BACK)), 0,
              dx, partial, y, dy, x, w, rstd, T, (unsigned)d, strip);
    KN_LAUNCH(c, add_strips_kernel, dim3(row_ceil(d, 32)), dim3(32, 32), 0, dw, partial, strips, d, accumulate);
}

template <class E>
static int rms_norm_backward(kn_device *device, void *dx, float *dw, void *y, const void *dy, const void *x,
                             const float *w, const float *rstd, size_t T, size_t d, bool accumulate)
{
    return row_op(device, d > UINT32_MAX / 2, [&](kn_cuda *c) {
        if (T == 0 && !accumulate)
            kn_cuda_clear(c, dw, d * sizeof(*dw));
        if (T == 0 || d == 0)
            return;
        if (d % wide<E>::N == 0 && row_aligned(16, dx, y, dy, x, (const void *)w))
            ask_backward<E, wide<E>::N>(c, (E *)dx, dw, (E *)y, (const E *)dy, (const E *)x, w, rstd, T, d, accumulate);
        else
            ask_backward<E, 1>(c, (E *)dx, dw, (E *)y, (const E *)dy, (const E *)x, w, rstd, T, d, accumulate);
    });
}

template <class E> static void enter(kn_ops *ops)
{
    ops->rms_norm = rms_norm<E>;
    ops->rms_norm_backward = rms_norm_backward<E>;
}

void kn_cuda_norm_ops(kn_ops *f32, kn_ops *b16)
{
    enter<float>(f32);
    enter<bf16>(b16);
}
