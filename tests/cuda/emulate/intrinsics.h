/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * The functions that CUDA gives kernels, as far as ours use them: arithmetic, bits, atomics, loads and stores. Fast
 * approximations are computed exactly here; the tests' bounds allow the device's error. */
#ifndef EMULATE_INTRINSICS_H
#define EMULATE_INTRINSICS_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>

/* ---- one type's bits as another's ---- */

namespace emulate_cuda
{
template <class To, class From> static inline To bits_as(From from)
{
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
} // namespace emulate_cuda

static inline float __uint_as_float(unsigned v)
{
    return emulate_cuda::bits_as<float>(v);
}

static inline unsigned __float_as_uint(float v)
{
    return emulate_cuda::bits_as<unsigned>(v);
}

static inline float __int_as_float(int v)
{
    return emulate_cuda::bits_as<float>(v);
}

static inline int __float_as_int(float v)
{
    return emulate_cuda::bits_as<int>(v);
}

static inline double __longlong_as_double(long long v)
{
    return emulate_cuda::bits_as<double>(v);
}

static inline long long __double_as_longlong(double v)
{
    return emulate_cuda::bits_as<long long>(v);
}

/* ---- arithmetic; the C library declares some of these names for itself ---- */

#define __expf(x)          expf(x)
#define __exp10f(x)        powf(10.0f, x)
#define __logf(x)          logf(x)
#define __log2f(x)         log2f(x)
#define __log10f(x)        log10f(x)
#define __powf(x, y)       powf(x, y)
#define __sinf(x)          sinf(x)
#define __cosf(x)          cosf(x)
#define __sincosf(x, s, c) sincosf(x, s, c)

static inline float __fdividef(float x, float y)
{
    return x / y;
}

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

static inline double rsqrt(double x)
{
    return 1.0 / sqrt(x);
}

static inline float __saturatef(float x)
{
    return x > 0 ? x < 1 ? x : 1.0f : 0.0f;
}

/* Rounded once, never joined with another operation. */
#define EMULATE_ROUNDED(name, T, expression)                 \
    static inline __attribute__((noinline)) T name(T x, T y) \
    {                                                        \
        return expression;                                   \
    }
EMULATE_ROUNDED(__fadd_rn, float, x + y)
EMULATE_ROUNDED(__fsub_rn, float, x - y)
EMULATE_ROUNDED(__fmul_rn, float, x *y)
EMULATE_ROUNDED(__fdiv_rn, float, x / y)
EMULATE_ROUNDED(__dadd_rn, double, x + y)
EMULATE_ROUNDED(__dsub_rn, double, x - y)
EMULATE_ROUNDED(__dmul_rn, double, x *y)
EMULATE_ROUNDED(__ddiv_rn, double, x / y)
#undef EMULATE_ROUNDED

static inline float __fmaf_rn(float x, float y, float z)
{
    return fmaf(x, y, z);
}

static inline double __fma_rn(double x, double y, double z)
{
    return fma(x, y, z);
}

static inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}

static inline double __dsqrt_rn(double x)
{
    return sqrt(x);
}

static inline float __frcp_rn(float x)
{
    return 1.0f / x;
}

static inline float __frsqrt_rn(float x)
{
    return (float)(1.0 / sqrt((double)x));
}

/* Conversions saturate; a NaN becomes 0. */
#define EMULATE_CONVERT(name, from, to, low, high, round)                                      \
    static inline to name(from v)                                                              \
    {                                                                                          \
        const from r = round(v);                                                               \
        return v != v ? (to)0 : r <= (from)low ? (to)low : r >= (from)high ? (to)high : (to)r; \
    }
EMULATE_CONVERT(__float2int_rn, float, int, INT32_MIN, INT32_MAX, rintf)
EMULATE_CONVERT(__float2int_rz, float, int, INT32_MIN, INT32_MAX, truncf)
EMULATE_CONVERT(__float2int_rd, float, int, INT32_MIN, INT32_MAX, floorf)
EMULATE_CONVERT(__float2int_ru, float, int, INT32_MIN, INT32_MAX, ceilf)
EMULATE_CONVERT(__float2uint_rn, float, unsigned, 0, UINT32_MAX, rintf)
EMULATE_CONVERT(__float2uint_rz, float, unsigned, 0, UINT32_MAX, truncf)
EMULATE_CONVERT(__double2int_rz, double, int, INT32_MIN, INT32_MAX, trunc)
EMULATE_CONVERT(__double2ll_rn, double, long long, INT64_MIN, INT64_MAX, rint)
EMULATE_CONVERT(__double2ll_rz, double, long long, INT64_MIN, INT64_MAX, trunc)
EMULATE_CONVERT(__float2ll_rn, float, long long, INT64_MIN, INT64_MAX, rintf)
#undef EMULATE_CONVERT

static inline float __int2float_rn(int v)
{
    return (float)v;
}

static inline float __uint2float_rn(unsigned v)
{
    return (float)v;
}

static inline float __ull2float_rn(unsigned long long v)
{
    return (float)v;
}

static inline float __ll2float_rn(long long v)
{
    return (float)v;
}

static inline float __double2float_rn(double v)
{
    return (float)v;
}

#define EMULATE_EXTREMES(T)       \
    static inline T min(T a, T b) \
    {                             \
        return b < a ? b : a;     \
    }                             \
    static inline T max(T a, T b) \
    {                             \
        return a < b ? b : a;     \
    }
EMULATE_EXTREMES(int)
EMULATE_EXTREMES(unsigned)
EMULATE_EXTREMES(long)
EMULATE_EXTREMES(unsigned long)
EMULATE_EXTREMES(long long)
EMULATE_EXTREMES(unsigned long long)
#undef EMULATE_EXTREMES

static inline float min(float a, float b)
{
    return fminf(a, b);
}

static inline float max(float a, float b)
{
    return fmaxf(a, b);
}

static inline double min(double a, double b)
{
    return fmin(a, b);
}

static inline double max(double a, double b)
{
    return fmax(a, b);
}

/* ---- bits ---- */

static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}

static inline int __mulhi(int a, int b)
{
    return (int)((int64_t)a * b >> 32);
}

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

static inline long long __mul64hi(long long a, long long b)
{
    return (long long)((__int128)a * b >> 64);
}

static inline int __clz(int v)
{
    return v == 0 ? 32 : __builtin_clz((unsigned)v);
}

static inline int __clzll(long long v)
{
    return v == 0 ? 64 : __builtin_clzll((unsigned long long)v);
}

static inline int __ffs(int v)
{
    return __builtin_ffs(v);
}

static inline int __ffsll(long long v)
{
    return __builtin_ffsll(v);
}

static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}

static inline int __popcll(unsigned long long v)
{
    return __builtin_popcountll(v);
}

static inline unsigned __brev(unsigned v)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i++) {
        r |= (v >> i & 1u) << (31 - i);
    }
    return r;
}

static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)(((uint64_t)high << 32 | low) << (by & 31) >> 32);
}

static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)(((uint64_t)high << 32 | low) >> (by & 31));
}

static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    const uint64_t both = (uint64_t)y << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned byte = (unsigned)(both >> (selector >> 4 * i & 7) * 8) & 0xffu;
        r |= (selector >> 4 * i & 8 ? (byte & 0x80u ? 0xffu : 0u) : byte) << 8 * i;
    }
    return r;
}

/* ---- atomics, each at one place in an order, without ordering other memory ---- */

namespace emulate_cuda
{
template <class T, class F> static inline T change(T *p, F f)
{
    T old, now;
    passes_atomic();
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do {
        now = f(old);
    } while (!__atomic_compare_exchange(p, &old, &now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
template <class T> using Given = typename std::common_type<T>::type; /* the pointer alone says the type */
} // namespace emulate_cuda

#define EMULATE_ATOMIC(name, expression)                                        \
    template <class T> static inline T name(T *p, emulate_cuda::Given<T> v)     \
    {                                                                           \
        return emulate_cuda::change(p, [=](T old) -> T { return expression; }); \
    }
EMULATE_ATOMIC(atomicAdd, old + v)
EMULATE_ATOMIC(atomicSub, old - v)
EMULATE_ATOMIC(atomicMin, v < old ? v : old)
EMULATE_ATOMIC(atomicMax, old < v ? v : old)
EMULATE_ATOMIC(atomicAnd, old &v)
EMULATE_ATOMIC(atomicOr, old | v)
EMULATE_ATOMIC(atomicXor, old ^ v)
#undef EMULATE_ATOMIC

template <class T> static inline T atomicExch(T *p, emulate_cuda::Given<T> v)
{
    return emulate_cuda::change(p, [=](T) -> T { return v; });
}

template <class T> static inline T atomicCAS(T *p, emulate_cuda::Given<T> compare, emulate_cuda::Given<T> v)
{
    return emulate_cuda::change(p, [=](T old) -> T { return old == compare ? v : old; });
}

/* One more until the limit, then 0. */
template <class T> static inline T atomicInc(T *p, emulate_cuda::Given<T> limit)
{
    return emulate_cuda::change(p, [=](T old) -> T { return old >= limit ? 0 : old + 1; });
}

static inline void __threadfence()
{
    emulate_cuda::passes_fence();
}

static inline void __threadfence_block()
{
    TSAN_ACQUIRE(&emulate_cuda::worker->fence_sync);
    TSAN_RELEASE(&emulate_cuda::worker->fence_sync);
}

/* ---- loads and stores that say how they are cached ---- */

#define EMULATE_LOAD(name)                              \
    template <class T> static inline T name(const T *p) \
    {                                                   \
        return *p;                                      \
    }
EMULATE_LOAD(__ldg)
EMULATE_LOAD(__ldca)
EMULATE_LOAD(__ldcg)
EMULATE_LOAD(__ldcs)
EMULATE_LOAD(__ldlu)
EMULATE_LOAD(__ldcv)
#undef EMULATE_LOAD

#define EMULATE_STORE(name)                                                    \
    template <class T> static inline void name(T *p, emulate_cuda::Given<T> v) \
    {                                                                          \
        *p = v;                                                                \
    }
EMULATE_STORE(__stwb)
EMULATE_STORE(__stcg)
EMULATE_STORE(__stcs)
EMULATE_STORE(__stwt)
#undef EMULATE_STORE

#endif
