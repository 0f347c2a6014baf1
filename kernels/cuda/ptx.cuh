/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * The only place with PTX: one small function an instruction, each with an emulation of the same name in
 * tests/cuda/emulate/ptx.h, which tests/gpu compares with it on hardware. sm_80 and later. */
#ifndef KN_CUDA_PTX_CUH
#define KN_CUDA_PTX_CUH

#include "launch.cuh"

#ifdef __CUDACC__

KDEV uint32_t ptx_shared(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* d += a · b for a warp: a is 16 × 16 bf16 by rows, b 16 × 8 bf16 by columns, d 16 × 8 floats. With g = lane / 4 and
 * t = lane % 4, two elements a word and the lower column (or, in b, row) in the low half:
 *   a[0] = (row g, columns 2t, 2t+1), a[1] = (row g+8, the same), a[2] = (row g, columns 2t+8, 2t+9), a[3] = (row g+8)
 *   b0   = (rows 2t, 2t+1, column g), b1 = (rows 2t+8, 2t+9, column g)
 *   d[0], d[1] = (row g, columns 2t, 2t+1), d[2], d[3] = (row g+8, the same) */
KDEV void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Loads 8 × 8 matrices of 16-bit elements from shared memory into a warp's registers. Lane 8i + r gives the address of
 * row r of matrix i (16 bytes, aligned to 16; x2 reads those of lanes 0–15 alone, but every lane's must be valid).
 * Lane l gets in r[i] the elements (row l / 4, columns 2(l % 4) and the next) of matrix i, or of its transpose. */
KDEV void ldmatrix_x2(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(ptx_shared(row))
                 : "memory");
}

KDEV void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(ptx_shared(row))
                 : "memory");
}

KDEV void ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_shared(row))
                 : "memory");
}

KDEV void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_shared(row))
                 : "memory");
}

/* Copies from global to shared memory while the thread goes on: 16 bytes past the first-level cache, 8 or 4 through it,
 * both addresses aligned to that size. Where not valid, zeros are written and nothing is read. */
KDEV void cp_async16(void *shared, const void *global, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ptx_shared(shared)), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}

KDEV void cp_async8(void *shared, const void *global, bool valid)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(ptx_shared(shared)), "l"(global),
                 "r"(valid ? 8 : 0)
                 : "memory");
}

KDEV void cp_async4(void *shared, const void *global, bool valid)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(ptx_shared(shared)), "l"(global),
                 "r"(valid ? 4 : 0)
                 : "memory");
}

/* Ends the thread's group of copies. */
KDEV void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until all but the thread's last N groups have landed; other threads see them after a barrier. */
template <int N> KDEV void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* 2^x; error within 2 ulp, subnormal results flushed to zero. */
KDEV float ex2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 16 bytes of global memory that no kernel writes meanwhile and nobody reads again soon: not kept near the processor.
 */
KDEV uint4 load_stream16(const void *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

KDEV void store_stream16(void *p, uint4 v)
{
    asm volatile("st.global.L1::no_allocate.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z),
                 "r"(v.w)
                 : "memory");
}

/* Asks for a line of global memory to be brought to the second-level cache. */
KDEV void prefetch_l2(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* In a kernel that was launched to follow (kn_launch): waits until the kernel before it has ended and what that wrote
 * is there; else nothing. sm_90 and later. */
KDEV void griddep_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Lets a kernel that follows be brought to the multiprocessors as soon as all blocks have said so, or ended. */
KDEV void griddep_launch()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#else
#include <emulate/ptx.h>
#endif

/* What every thread of a kernel launched by KN_FOLLOW does first: no memory of the device is touched before, and no
 * thread leaves. A kernel that follows this one then waits for those before it, too. */
KDEV void follow()
{
    griddep_wait();
    griddep_launch();
}

/* Two bf16 in a word, rounded to the nearest even; `low` in the low half. */
KDEV uint32_t pack_bf16(float low, float high)
{
    union {
        __nv_bfloat162 pair;
        uint32_t bits;
    } both;
    both.pair = __floats2bfloat162_rn(low, high);
    return both.bits;
}

KDEV float unpack_low_bf16(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

KDEV float unpack_high_bf16(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

/* The sum, or the greatest, of a whole warp's values, for every lane; always in the same order. */
template <class T> KDEV T warp_sum(T value)
{
#pragma unroll
    for (int step = 16; step; step >>= 1) {
        value += __shfl_xor_sync(0xffffffffu, value, step);
    }
    return value;
}

KDEV float warp_max(float value)
{
#pragma unroll
    for (int step = 16; step; step >>= 1) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    }
    return value;
}

#endif
