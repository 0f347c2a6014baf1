/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels over rows share: how elements are loaded and stored, and how rows are dealt to blocks.
 *
 * A kernel is a template over the element type and N, the elements a thread takes at once: 16 bytes of the narrower of
 * its arrays, or 1 where a row's length or an address does not allow that. Loads widen, stores round once; between the
 * two everything is float32. 16 bytes a thread and several loads before the first use are what these kernels live by:
 * all of them wait for memory.
 */
#ifndef KN_CUDA_ROWS_CUH
#define KN_CUDA_ROWS_CUH

#include "cuda.h"
#include "launch.cuh"

typedef __nv_bfloat16 bf16;

/* Elements in 16 bytes. */
template <class E> struct wide {
    enum { N = 16 / sizeof(E) };
};

KDEV void row_split(float *v, uint32_t two)
{
    v[0] = __uint_as_float(two << 16);
    v[1] = __uint_as_float(two & 0xffff0000u);
}

KDEV uint32_t row_join(const float *v)
{
    const __nv_bfloat162 two = __floats2bfloat162_rn(v[0], v[1]);
    return (uint32_t)__bfloat16_as_ushort(two.x) | (uint32_t)__bfloat16_as_ushort(two.y) << 16;
}

template <int N> KDEV void row_load(float (&v)[N], const float *p)
{
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            const float4 x = *reinterpret_cast<const float4 *>(p + i);
            v[i] = x.x, v[i + 1] = x.y, v[i + 2] = x.z, v[i + 3] = x.w;
        }
    } else {
        static_assert(N == 1, "one, or 16 bytes");
        v[0] = *p;
    }
}

template <int N> KDEV void row_load(float (&v)[N], const bf16 *p)
{
    if constexpr (N == 8) {
        const uint4 x = *reinterpret_cast<const uint4 *>(p);
        row_split(v, x.x), row_split(v + 2, x.y), row_split(v + 4, x.z), row_split(v + 6, x.w);
    } else if constexpr (N == 4) {
        const uint2 x = *reinterpret_cast<const uint2 *>(p);
        row_split(v, x.x), row_split(v + 2, x.y);
    } else {
        static_assert(N == 1, "one, or 8 or 16 bytes");
        v[0] = __bfloat162float(*p);
    }
}

template <int N> KDEV void row_store(float *p, const float (&v)[N])
{
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4)
            *reinterpret_cast<float4 *>(p + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
    } else {
        *p = v[0];
    }
}

template <int N> KDEV void row_store(bf16 *p, const float (&v)[N])
{
    if constexpr (N == 8)
        *reinterpret_cast<uint4 *>(p) = make_uint4(row_join(v), row_join(v + 2), row_join(v + 4), row_join(v + 6));
    else if constexpr (N == 4)
        *reinterpret_cast<uint2 *>(p) = make_uint2(row_join(v), row_join(v + 2));
    else
        *p = __float2bfloat16(v[0]);
}

/* A pair turned by an angle, in three roundings: the same bits whichever kernel does it. */
KDEV void row_turn(float (&turned)[2], float a, float b, float cos, float sin)
{
    turned[0] = fmaf(-b, sin, __fmul_rn(a, cos));
    turned[1] = fmaf(a, sin, __fmul_rn(b, cos));
}

/* --- on the host --- */

template <class... P> bool row_aligned(size_t bytes, const P *...p)
{
    return ((reinterpret_cast<uintptr_t>(p) % bytes == 0) && ...);
}

static inline unsigned row_ceil(size_t n, size_t by)
{
    return (unsigned)((n + by - 1) / by);
}

/* `items` pieces of work in each of T rows: threadIdx.x walks over a row's pieces, threadIdx.y is the row in the block.
 */
struct row_shape {
    dim3 grid, block;
};

static inline row_shape row_shape_of(size_t T, size_t items)
{
    unsigned x = 1;
    while (x < 256 && x < items)
        x *= 2;
    row_shape s;
    s.block = dim3(x, 256 / x);
    s.grid = dim3(row_ceil(T, 256 / x));
    return s;
}

/* An op's frame: what the body launches between begin and end. */
template <class F> int row_op(kn_device *device, bool refused, F body)
{
    if (refused)
        return KN_BAD_ARGUMENT;
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    body(c);
    return kn_cuda_end(c);
}

/* The parts of kn_cuda_rows_ops. */
void kn_cuda_norm_ops(kn_ops *f32, kn_ops *bf16);
void kn_cuda_embed_ops(kn_ops *f32, kn_ops *bf16);

#endif
