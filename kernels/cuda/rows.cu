/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What is done to each row, or each element, by itself: rotary embedding, gated activation, dropout, sums, conversion.
 * The formulas stand in kernels/reference/rows.c. */
#include "philox.cuh"
#include "ptx.cuh"
#include "rows.cuh"

/* --- rotary embedding --- */

enum { HEADS = 4 }; /* that a thread turns by the same angles, all loads on their way at once */

/* A row's pieces: N pairs of HEADS heads each. */
template <class E, int N>
__global__ void __launch_bounds__(256)
    rope_kernel(E *x, size_t stride, const uint32_t *position, const float *cos, const float *sin, size_t T,
                unsigned heads, unsigned half, float sign)
{
    const size_t t = (size_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (t >= T)
        return;
    const unsigned across = half / N, pieces = (heads + HEADS - 1) / HEADS * across;
    const size_t angle = (size_t)position[t] * half;
    for (unsigned p = threadIdx.x; p < pieces; p += blockDim.x) {
        const unsigned head = p / across * HEADS, at = p % across * N;
        E *first = x + t * stride + (size_t)head * 2 * half + at;
        float c[N], s[N], a[HEADS][N], b[HEADS][N];
#pragma unroll
        for (int h = 0; h < HEADS; h++)
            if (head + h < heads) {
                row_load(a[h], first + h * 2 * (size_t)half);
                row_load(b[h], first + h * 2 * (size_t)half + half);
            }
        row_load(c, cos + angle + at);
        row_load(s, sin + angle + at);
#pragma unroll
        for (int h = 0; h < HEADS; h++)
            if (head + h < heads) {
                float turned[2][N];
#pragma unroll
                for (int i = 0; i < N; i++) {
                    float pair[2];
                    row_turn(pair, a[h][i], b[h][i], c[i], sign * s[i]);
                    turned[0][i] = pair[0];
                    turned[1][i] = pair[1];
                }
                row_store(first + h * 2 * (size_t)half, turned[0]);
                row_store(first + h * 2 * (size_t)half + half, turned[1]);
            }
    }
}

template <class E, int N>
static void ask_rope(kn_cuda *c, E *x, size_t stride, const uint32_t *position, const float *cos, const float *sin,
                     size_t T, size_t heads, size_t half, bool inverse)
{
    const row_shape s = row_shape_of(T, (heads + HEADS - 1) / HEADS * (half / N));
    KN_LAUNCH(c, (rope_kernel<E, N>), s.grid, s.block, 0, x, stride, position, cos, sin, T, (unsigned)heads,
              (unsigned)half, inverse ? -1.0f : 1.0f);
}

template <class E>
static int rope(kn_device *device, void *x, size_t stride, const uint32_t *position, const float *cos, const float *sin,
                size_t T, size_t heads, size_t head_dim, bool inverse)
{
    return row_op(device, head_dim % 2 != 0, [&](kn_cuda *c) {
        const size_t half = head_dim / 2;
        if (T == 0 || heads * half == 0)
            return;
        const uint32_t *at = (const uint32_t *)kn_cuda_upload(c, position, T * sizeof(*position));
        if (at == NULL)
            return;
        if (half % wide<E>::N == 0 && stride % wide<E>::N == 0 && row_aligned(16, x, cos, sin))
            ask_rope<E, wide<E>::N>(c, (E *)x, stride, at, cos, sin, T, heads, half, inverse);
        else
            ask_rope<E, 1>(c, (E *)x, stride, at, cos, sin, T, heads, half, inverse);
    });
}

/* --- gated activation --- */

KDEV float sigmoid(float x)
{
    return __fdividef(1.0f, 1.0f + expf(-x)); /* 0 where exp overflows */
}

/* Loads of everything first, for two pieces of a row by turns. */
template <class E, int N>
__global__ void __launch_bounds__(256) swiglu_kernel(E *y, const E *gate_up, size_t T, size_t f)
{
    follow();
    const size_t t = (size_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (t >= T)
        return;
    const E *gate = gate_up + t * 2 * f, *up = gate + f;
    const size_t step = (size_t)blockDim.x * N;
    for (size_t at = (size_t)threadIdx.x * N; at < f; at += 2 * step) {
        float g[2][N], u[2][N];
#pragma unroll
        for (int k = 0; k < 2; k++)
            if (at + k * step < f) {
                row_load(g[k], gate + at + k * step);
                row_load(u[k], up + at + k * step);
            }
#pragma unroll
        for (int k = 0; k < 2; k++)
            if (at + k * step < f) {
#pragma unroll
                for (int i = 0; i < N; i++)
                    u[k][i] *= g[k][i] * sigmoid(g[k][i]);
                row_store(y + t * f + at + k * step, u[k]);
            }
    }
}

template <class E, int N>
__global__ void __launch_bounds__(256)
    swiglu_backward_kernel(E *dgate_up, E *y, const E *dy, const E *gate_up, size_t T, size_t f)
{
    const size_t t = (size_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (t >= T)
        return;
    const E *gate = gate_up + t * 2 * f;
    E *dgate = dgate_up + t * 2 * f;
    for (size_t at = (size_t)threadIdx.x * N; at < f; at += (size_t)blockDim.x * N) {
        float g[N], u[N], d[N], dg[N], du[N];
        row_load(g, gate + at);
        row_load(u, gate + f + at);
        row_load(d, dy + t * f + at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float s = sigmoid(g[i]);
            dg[i] = d[i] * u[i] * s * fmaf(g[i], 1.0f - s, 1.0f);
            du[i] = d[i] * g[i] * s;
            u[i] *= g[i] * s;
        }
        row_store(dgate + at, dg);
        row_store(dgate + f + at, du);
        if (y != NULL)
            row_store(y + t * f + at, u);
    }
}

template <class E, int N> static void ask_swiglu(kn_cuda *c, E *y, const E *gate_up, size_t T, size_t f)
{
    const row_shape s = row_shape_of(T, (f / N + 1) / 2);
    KN_FOLLOW(c, (swiglu_kernel<E, N>), s.grid, s.block, 0, y, gate_up, T, f);
}

template <class E> static int swiglu(kn_device *device, void *y, const void *gate_up, size_t T, size_t f)
{
    return row_op(device, false, [&](kn_cuda *c) {
        if (T == 0 || f == 0)
            return;
        if (f % wide<E>::N == 0 && row_aligned(16, y, gate_up))
            ask_swiglu<E, wide<E>::N>(c, (E *)y, (const E *)gate_up, T, f);
        else
            ask_swiglu<E, 1>(c, (E *)y, (const E *)gate_up, T, f);
    });
}

template <class E, int N>
static void ask_swiglu_backward(kn_cuda *c, E *dgate_up, E *y, const E *dy, const E *gate_up, size_t T, size_t f)
{
    const row_shape s = row_shape_of(T, f / N);
    KN_LAUNCH(c, (swiglu_backward_kernel<E, N>), s.grid, s.block, 0, dgate_up, y, dy, gate_up, T, f);
}

template <class E>
static int swiglu_backward(kn_device *device, void *dgate_up, void *y, const void *dy, const void *gate_up, size_t T,
                           size_t f)
{
    return row_op(device, false, [&](kn_cuda *c) {
        if (T == 0 || f == 0)
            return;
        if (f % wide<E>::N == 0 && row_aligned(16, dgate_up, y, dy, gate_up))
            ask_swiglu_backward<E, wide<E>::N>(c, (E *)dgate_up, (E *)y, (const E *)dy, (const E *)gate_up, T, f);
        else
            ask_swiglu_backward<E, 1>(c, (E *)dgate_up, (E *)y, (const E *)dy, (const E *)gate_up, T, f);
    });
}

/* --- dropout --- */

/* N neighbours in each quarter of a block of 64 elements: N counters, all of whose words are used. */
template <class E, int N>
__global__ void __launch_bounds__(256)
    dropout_kernel(E *x, size_t T, size_t d, size_t units, float rate, float scale, philox key, const uint64_t *row_id)
{
    const size_t t = (size_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (t >= T)
        return;
    const uint64_t row = row_id[t];
    key.counter[2] ^= (uint32_t)row; /* the key's other half is there already */
    key.counter[3] ^= (uint32_t)(row >> 32);
    E *to = x + t * d;
    for (size_t unit = threadIdx.x; unit < units; unit += blockDim.x) {
        float v[4][N];
#pragma unroll
        for (int q = 0; q < 4; q++)
            if (philox_element<N>(unit, q) < d)
                row_load(v[q], to + philox_element<N>(unit, q));
#pragma unroll
        for (int i = 0; i < N; i++) {
            uint32_t word[4];
            philox_words(word, key, philox_block<N>(unit, i));
#pragma unroll
            for (int q = 0; q < 4; q++)
                v[q][i] = philox_uniform(word[q]) < rate ? 0.0f : v[q][i] * scale;
        }
#pragma unroll
        for (int q = 0; q < 4; q++)
            if (philox_element<N>(unit, q) < d)
                row_store(to + philox_element<N>(unit, q), v[q]);
    }
}

template <class E, int N>
static void ask_dropout(kn_cuda *c, E *x, size_t T, size_t d, float rate, const uint64_t key[2], const uint64_t *row_id)
{
    const uint64_t none[2] = {0, 0};
    const size_t units = philox_units<N>(d);
    const row_shape s = row_shape_of(T, units);
    KN_LAUNCH(c, (dropout_kernel<E, N>), s.grid, s.block, 0, x, T, d, units, rate, 1 / (1 - rate), philox_of(key, none),
              row_id);
}

template <class E>
static int dropout(kn_device *device, void *x, size_t T, size_t d, float rate, const uint64_t key[2],
                   const uint64_t *row_id)
{
    return row_op(device, !(rate >= 0 && rate < 1), [&](kn_cuda *c) {
        if (T == 0 || d == 0)
            return;
        const uint64_t *row = (const uint64_t *)kn_cuda_upload(c, row_id, T * sizeof(*row_id));
        if (row == NULL)
            return;
        if (d % wide<E>::N == 0 && row_aligned(16, x))
            ask_dropout<E, wide<E>::N>(c, (E *)x, T, d, rate, key, row);
        else
            ask_dropout<E, 1>(c, (E *)x, T, d, rate, key, row);
    });
}

/* --- element by element --- */

enum { EACH = 4, FLAT = 256 }; /* pieces of a thread, threads */

/* to = f(to, from) of N elements at a time, those of EACH pieces loaded first; the last n % N one at a time. */
template <class To, class From, int N, class F>
__global__ void __launch_bounds__(FLAT, 2) map_kernel(To *to, const From *from, size_t n, F f)
{
    const size_t first = ((size_t)blockIdx.x * FLAT * EACH + threadIdx.x) * N;
    float x[EACH][N], y[EACH][N];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const size_t at = first + (size_t)k * FLAT * N;
        if (at + N <= n) {
            row_load(x[k], from + at);
            if (F::reads)
                row_load(y[k], to + at);
        }
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const size_t at = first + (size_t)k * FLAT * N;
        if (at + N <= n) {
#pragma unroll
            for (int i = 0; i < N; i++)
                y[k][i] = f(y[k][i], x[k][i]);
            row_store(to + at, y[k]);
        } else if (at < n) {
            for (size_t i = at; i < n; i++) {
                float a[1], b[1] = {0};
                row_load(a, from + i);
                if (F::reads)
                    row_load(b, to + i);
                b[0] = f(b[0], a[0]);
                row_store(to + i, b);
            }
        }
    }
}

struct map_axpy {
    enum { reads = true };
    float a;
    __device__ float operator()(float y, float x) const
    {
        return fmaf(a, x, y);
    }
};

struct map_convert {
    enum { reads = false };
    int zero; /* no struct of a kernel is empty */
    __device__ float operator()(float, float x) const
    {
        return x;
    }
};

template <class To, class From, class F> static int map(kn_device *device, To *to, const From *from, size_t n, F f)
{
    return row_op(device, false, [&](kn_cuda *c) {
        /* 16 bytes of the wider type: loads and stores of 16 bytes and of 8 move a sum of elements at full speed */
        constexpr int N = 16 / (sizeof(To) > sizeof(From) ? sizeof(To) : sizeof(From));
        if (n == 0)
            return;
        if (row_aligned(16, (const void *)to, (const void *)from))
            KN_LAUNCH(c, (map_kernel<To, From, N, F>), dim3(row_ceil(n, (size_t)FLAT * EACH * N)), dim3(FLAT), 0, to,
                      from, n, f);
        else
            KN_LAUNCH(c, (map_kernel<To, From, 1, F>), dim3(row_ceil(n, (size_t)FLAT * EACH)), dim3(FLAT), 0, to, from,
                      n, f);
    });
}

template <class E> static int axpy(kn_device *device, void *y, float a, const void *x, size_t n)
{
    return map(device, (E *)y, (const E *)x, n, map_axpy{a});
}

template <class E> static int add(kn_device *device, void *y, const void *x, size_t n)
{
    return axpy<E>(device, y, 1.0f, x, n); /* 1·x + y rounds once: the same bits as y + x */
}

static int to_bf16(kn_device *device, uint16_t *to, const float *from, size_t n)
{
    return map(device, (bf16 *)to, from, n, map_convert{0});
}

static int from_bf16(kn_device *device, float *to, const uint16_t *from, size_t n)
{
    return map(device, to, (const bf16 *)from, n, map_convert{0});
}

template <class E> static void enter(kn_ops *ops)
{
    ops->rope = rope<E>;
    ops->swiglu = swiglu<E>;
    ops->swiglu_backward = swiglu_backward<E>;
    ops->dropout = dropout<E>;
    ops->add = add<E>;
    ops->axpy = axpy<E>;
    ops->to_bf16 = to_bf16;
    ops->from_bf16 = from_bf16;
}

void kn_cuda_rows_ops(kn_ops *f32, kn_ops *b16)
{
    enter<float>(f32);
    enter<bf16>(b16);
    kn_cuda_norm_ops(f32, b16);
    kn_cuda_embed_ops(f32, b16);
}
