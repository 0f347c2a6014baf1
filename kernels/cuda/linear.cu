/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Weights and the three matrix products of a linear layer. */
#include "linear.cuh"

#include <stdlib.h>
#include <string.h>

enum {
    THREADS = 256,
    SUM_COLUMNS = 128, /* of a block that sums columns */
    SUM_ROWS = 64,     /* rows that are summed one after another */
};

static unsigned blocks_of(size_t n, size_t each)
{
    return (unsigned)((n + each - 1) / each);
}

/* --- weights --- */

/* Four at a time where both ends are aligned. */
__global__ void __launch_bounds__(THREADS) round_kernel(__nv_bfloat16 *to, const float *from, size_t n, bool aligned)
{
    const size_t at = 4 * ((size_t)blockIdx.x * THREADS + threadIdx.x);
    if (aligned && at + 4 <= n) {
        const float4 v = *reinterpret_cast<const float4 *>(from + at);
        __nv_bfloat162 *pair = reinterpret_cast<__nv_bfloat162 *>(to + at);
        pair[0] = __floats2bfloat162_rn(v.x, v.y);
        pair[1] = __floats2bfloat162_rn(v.z, v.w);
        return;
    }
    for (size_t i = at; i < n && i < at + 4; i++)
        to[i] = __float2bfloat16(from[i]);
}

void kn_cuda_round(kn_cuda *c, void *to, const float *from, size_t n)
{
    const bool aligned = (((uintptr_t)to & 7) | ((uintptr_t)from & 15)) == 0;
    if (n > 0)
        KN_LAUNCH(c, round_kernel, blocks_of(n, 4 * THREADS), THREADS, 0, (__nv_bfloat16 *)to, from, n, aligned);
}

template <kn_dtype D> static kn_matrix *matrix_new(kn_device *device, size_t out, size_t in, bool with_backward)
{
    (void)with_backward; /* both products read the one layout */
    if (out == 0 || in == 0)
        return NULL;
    kn_matrix *m = (kn_matrix *)calloc(1, sizeof(*m));
    kn_cuda *c = m != NULL ? kn_cuda_begin(device) : NULL;
    if (c == NULL) {
        free(m);
        return NULL;
    }
    m->out = out;
    m->in = in;
    m->dtype = D;
    m->w = kn_cuda_alloc(c, out * in * kn_size_of(D));
    if (m->w != NULL)
        kn_cuda_clear(c, m->w, out * in * kn_size_of(D));
    const bool whole = m->w != NULL;
    if (kn_cuda_end(c) == KN_OK && whole)
        return m;
    free(m);
    return NULL;
}

template <kn_dtype D> static kn_matrix *matrix_at(kn_device *, const void *w, size_t out, size_t in)
{
    kn_matrix *m = out > 0 && in > 0 ? (kn_matrix *)calloc(1, sizeof(*m)) : NULL;
    if (m == NULL)
        return NULL;
    m->w = const_cast<void *>(w);
    m->borrowed = true;
    m->out = out;
    m->in = in;
    m->dtype = D;
    return m;
}

template <kn_dtype D> static int matrix_set(kn_device *device, kn_matrix *m, const float *w)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    if (D == KN_F32)
        kn_cuda_copy(c, m->w, w, m->out * m->in * sizeof(float));
    else
        kn_cuda_round(c, m->w, w, m->out * m->in);
    return kn_cuda_end(c);
}

static void matrix_free(kn_device *device, kn_matrix *m)
{
    if (m == NULL)
        return;
    kn_cuda *c = kn_cuda_begin(device);
    if (c != NULL) { /* the memory of a device that failed is gone */
        if (!m->borrowed)
            kn_cuda_free_memory(c, m->w);
        if (m->rounded_bias != NULL)
            kn_cuda_free_memory(c, m->rounded_bias);
        kn_cuda_end(c);
    }
    free(m);
}

/* A kernel that rounds a bias takes as long as one of the small products of a decoding step. */
static int matrix_bias(kn_device *device, kn_matrix *m, const float *bias)
{
    m->bias = NULL;
    if (bias == NULL || m->dtype == KN_F32)
        return KN_OK;
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    if (m->rounded_bias == NULL)
        m->rounded_bias = kn_cuda_alloc(c, m->out * sizeof(uint16_t));
    if (m->rounded_bias != NULL)
        kn_cuda_round(c, m->rounded_bias, bias, m->out);
    const int status = kn_cuda_end(c);
    if (status == KN_OK && m->rounded_bias != NULL)
        m->bias = bias;
    return status;
}

/* --- y = x·Wᵀ, dx = dy·W --- */

template <kn_dtype D>
static int linear(kn_device *device, void *y, const void *x, const kn_matrix *m, const float *bias,
                  const void *residual, size_t T)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    kn_product p;
    memset(&p, 0, sizeof(p));
    p.layout = KN_NT;
    p.m = T;
    p.n = p.ldy = m->out;
    p.k = p.lda = p.ldb = m->in;
    p.a = x;
    p.b = m->w;
    p.from = p.to = D;
    p.y = y;
    p.bias = bias;
    p.rounded_bias = bias != NULL && bias == m->bias ? m->rounded_bias : NULL;
    p.added = residual;
    p.beta = 1;
    kn_cuda_multiply(c, &p);
    return kn_cuda_end(c);
}

template <kn_dtype D>
static int linear_backward_input(kn_device *device, void *dx, const void *dy, const kn_matrix *m, size_t T,
                                 bool accumulate)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    kn_cuda_product(c, KN_NN, dx, D, dy, m->w, D, NULL, accumulate ? dx : NULL, 1, T, m->in, m->out);
    return kn_cuda_end(c);
}

/* --- dw = dyᵀ·x, db = Σ dy, or += --- */

/* part[chunk, columns]: sums of SUM_ROWS rows, one column a thread. */
template <class E>
__global__ void __launch_bounds__(SUM_COLUMNS) sum_rows_kernel(float *part, const E *x, size_t rows, size_t columns)
{
    const size_t column = (size_t)blockIdx.x * SUM_COLUMNS + threadIdx.x, from = (size_t)blockIdx.y * SUM_ROWS;
    if (column >= columns)
        return;
    const size_t to = from + SUM_ROWS < rows ? from + SUM_ROWS : rows;
    float sum = 0;
#pragma unroll 8
    for (size_t t = from; t < to; t++)
        sum += widen(x[t * columns + column]);
    part[blockIdx.y * columns + column] = sum;
}

/* sum[column] = its parts, in order, or += when accumulate. */
__global__ void __launch_bounds__(SUM_COLUMNS)
    add_parts_kernel(float *sum, const float *part, size_t parts, size_t columns, bool accumulate)
{
    const size_t column = (size_t)blockIdx.x * SUM_COLUMNS + threadIdx.x;
    if (column >= columns)
        return;
    float s = 0;
#pragma unroll 8
    for (size_t i = 0; i < parts; i++)
        s += part[i * columns + column];
    sum[column] = accumulate ? sum[column] + s : s;
}

template <class E>
static void add_columns(kn_cuda *c, float *sum, const E *x, size_t rows, size_t columns, bool accumulate)
{
    const unsigned parts = blocks_of(rows, SUM_ROWS);
    float *part = (float *)kn_cuda_scratch(c, parts * columns * sizeof(float));
    KN_LAUNCH(c, sum_rows_kernel<E>, dim3(blocks_of(columns, SUM_COLUMNS), parts), SUM_COLUMNS, 0, part, x, rows,
              columns);
    KN_LAUNCH(c, add_parts_kernel, blocks_of(columns, SUM_COLUMNS), SUM_COLUMNS, 0, sum, part, (size_t)parts, columns,
              accumulate);
}

template <kn_dtype D>
static int linear_backward_weight(kn_device *device, float *dw, float *db, const void *dy, const void *x, size_t T,
                                  size_t out, size_t in, bool accumulate)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    if (T > 0) {
        kn_cuda_product(c, KN_TN, dw, KN_F32, dy, x, D, NULL, accumulate ? dw : NULL, 1, out, in, T);
        if (db != NULL)
            add_columns(c, db, (const typename element<D>::type *)dy, T, out, accumulate);
    } else if (!accumulate) {
        kn_cuda_clear(c, dw, out * in * sizeof(*dw));
        if (db != NULL)
            kn_cuda_clear(c, db, out * sizeof(*db));
    }
    return kn_cuda_end(c);
}

template <kn_dtype D> static void enter(kn_ops *ops)
{
    ops->matrix_new = matrix_new<D>;
    ops->matrix_at = matrix_at<D>;
    ops->matrix_set = matrix_set<D>;
    ops->matrix_free = matrix_free;
    ops->matrix_bias = matrix_bias;
    ops->linear = linear<D>;
    ops->linear_backward_input = linear_backward_input<D>;
    ops->linear_backward_weight = linear_backward_weight<D>;
}

void kn_cuda_linear_ops(kn_ops *f32, kn_ops *bf16)
{
    enter<KN_F32>(f32);
    enter<KN_BF16>(bf16);
}
