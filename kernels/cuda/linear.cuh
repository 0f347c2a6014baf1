/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the files of the matrix products share: linear.cu (the ops), linear_lt.cu (cuBLASLt), linear_own.cu (our own
 * kernel, for what cuBLASLt will not do), vocabulary.cu. */
#ifndef KN_CUDA_LINEAR_CUH
#define KN_CUDA_LINEAR_CUH

#include "cuda.h"
#include "launch.cuh"

/* y[m, n] = a·b (+ bias[n]) (+ beta · added[m, n]); a and b as the layout says (cuda.h). All row-major; `ld` counts
 * elements from row to row. `added` has y's type and distance of rows, and may be y. Types: float32 throughout,
 * bfloat16 throughout, or bfloat16 into float32. Sums are float32 (never TF32) and rounded once. */
typedef struct kn_product {
    size_t m, n, k;
    size_t lda, ldb, ldy;
    const void *a, *b;
    void *y;
    const float *bias; /* float32, NULL = none; into bfloat16 cuBLASLt adds it rounded to bfloat16, as PyTorch does */
    const void *rounded_bias; /* the same rounded, where somebody has it; else NULL */
    const void *added;        /* NULL = none */
    kn_layout layout;
    kn_dtype from, to;
    float beta;
    uint32_t each_row; /* a row's bits must not depend on m */
    uint32_t zero;     /* no padding: products that are put off are compared as bytes */
} kn_product;

static inline size_t kn_size_of(kn_dtype type)
{
    return type == KN_F32 ? sizeof(float) : sizeof(uint16_t);
}

/* The element of a type: element<KN_BF16>::type. */
template <kn_dtype D> struct element;
template <> struct element<KN_F32> {
    typedef float type;
};
template <> struct element<KN_BF16> {
    typedef __nv_bfloat16 type;
};

KDEV float widen(float x)
{
    return x;
}

KDEV float widen(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

KDEV void narrow(float *to, float x)
{
    *to = x;
}

KDEV void narrow(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16(x);
}

/* Asks for the product: by cuBLASLt where it can. m, n or k may be 0. */
void kn_cuda_multiply(kn_cuda *, const kn_product *);
/* The product by our own kernel (a kn_cuda_run, given a kn_product): any shape, any alignment, one order of sums. Not
 * fast. */
cudaError_t kn_cuda_product_own(const void *product, cudaStream_t stream);
/* to[n] = from[n] rounded to bfloat16. */
void kn_cuda_round(kn_cuda *, void *to, const float *from, size_t n);

#endif
