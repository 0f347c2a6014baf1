/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Matrix products of our own: for shapes that cuBLASLt refuses (odd distances of rows in bfloat16), and to compare. */
#include "linear.cuh"

enum {
    TILE = 64, /* rows and columns of y a block makes */
    STEP = 16, /* of k at a time */
    EDGE = 4,  /* rows and columns a thread makes */
    THREADS = (TILE / EDGE) * (TILE / EDGE),
};

/* A tile of an operand in shared memory, k by k, zeros beyond its edges. ALONG_K: an operand's rows run along k. */
template <bool ALONG_K, class E>
KDEV void load_tile(float (&tile)[STEP][TILE + 4], const E *x, size_t ld, size_t at, size_t rows, size_t k0, size_t k)
{
    for (unsigned i = threadIdx.x; i < TILE * STEP; i += THREADS) {
        const unsigned r = ALONG_K ? i / STEP : i % TILE, kk = ALONG_K ? i % STEP : i / TILE;
        const bool in = at + r < rows && k0 + kk < k;
        tile[kk][r] = in ? widen(x[ALONG_K ? (at + r) * ld + k0 + kk : (k0 + kk) * ld + at + r]) : 0;
    }
}

template <kn_layout LAYOUT, class From, class To>
__global__ void __launch_bounds__(THREADS)
    product_kernel(To *y, size_t ldy, const From *a, size_t lda, const From *b, size_t ldb, const float *bias,
                   const To *added, float beta, size_t m, size_t n, size_t k)
{
    SHARED(float, left, [STEP][TILE + 4]);
    SHARED(float, right, [STEP][TILE + 4]);
    const size_t row0 = (size_t)blockIdx.y * TILE, column0 = (size_t)blockIdx.x * TILE;
    const unsigned r = threadIdx.x / (TILE / EDGE) * EDGE, s = threadIdx.x % (TILE / EDGE) * EDGE;
    float sum[EDGE][EDGE] = {};
    for (size_t k0 = 0; k0 < k; k0 += STEP) {
        load_tile<LAYOUT != KN_TN>(left, a, lda, row0, m, k0, k);
        load_tile<LAYOUT == KN_NT>(right, b, ldb, column0, n, k0, k);
        __syncthreads();
#pragma unroll
        for (int kk = 0; kk < STEP; kk++)
#pragma unroll
            for (int i = 0; i < EDGE; i++)
#pragma unroll
                for (int j = 0; j < EDGE; j++)
                    sum[i][j] = fmaf(left[kk][r + i], right[kk][s + j], sum[i][j]);
        __syncthreads(); /* before the tiles are filled anew */
    }
#pragma unroll
    for (int i = 0; i < EDGE; i++)
#pragma unroll
        for (int j = 0; j < EDGE; j++) {
            const size_t row = row0 + r + i, column = column0 + s + j;
            if (row >= m || column >= n)
                continue;
            float v = sum[i][j];
            if (bias != NULL)
                v += bias[column];
            if (added != NULL)
                v = fmaf(beta, widen(added[row * ldy + column]), v);
            narrow(y + row * ldy + column, v);
        }
}

template <kn_layout LAYOUT, class From, class To> static cudaError_t launch(const kn_product *p, cudaStream_t stream)
{
    const dim3 grid((unsigned)((p->n + TILE - 1) / TILE), (unsigned)((p->m + TILE - 1) / TILE));
    return kn_launch(false, product_kernel<LAYOUT, From, To>, grid, dim3(THREADS), 0, stream, (To *)p->y, p->ldy,
                     (const From *)p->a, p->lda, (const From *)p->b, p->ldb, p->bias, (const To *)p->added, p->beta,
                     p->m, p->n, p->k);
}

/* Of the nine, those that are asked for: gradients of weights and logits are float32, gradients of rows are bf16. */
cudaError_t kn_cuda_product_own(const void *product, cudaStream_t stream)
{
    typedef __nv_bfloat16 bf16;
    const kn_product *p = (const kn_product *)product;
    if (p->from == KN_F32)
        return p->layout == KN_NT   ? launch<KN_NT, float, float>(p, stream)
               : p->layout == KN_NN ? launch<KN_NN, float, float>(p, stream)
                                    : launch<KN_TN, float, float>(p, stream);
    if (p->layout == KN_NT)
        return p->to == KN_F32 ? launch<KN_NT, bf16, float>(p, stream) : launch<KN_NT, bf16, bf16>(p, stream);
    if (p->layout == KN_NN && p->to == KN_BF16)
        return launch<KN_NN, bf16, bf16>(p, stream);
    if (p->layout == KN_TN && p->to == KN_F32)
        return launch<KN_TN, bf16, float>(p, stream);
    return cudaErrorInvalidValue;
}
