/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Vectors of float32: the few operations that the kernels need, for each instruction set. The files that include this
 * are compiled once per set with that set's flags; KN_ISA names the set (avx512, avx2, neon, plain).
 *
 * V is the machine's own vector of VN floats, a GCC/Clang vector type, so + - * / and comparisons of integers are
 * written as such. Lanes behave alike on all sets, and v_fma rounds once on all but plain: the same formula gives the
 * same bits on AVX-512, AVX2 and NEON.
 */
#ifndef KN_VEC_H
#define KN_VEC_H

#include "kernels/bf16.h"

#include <stdint.h>
#include <string.h>
#include <stddef.h>

#define KN_JOIN2(a, b) kn_##a##_##b
#define KN_JOIN(a, b)  KN_JOIN2(a, b)
#define KN(name)       KN_JOIN(name, KN_ISA)
/* The name of an op of the element type at hand (element.h). */
#ifdef KN_ELEMENT_BF16
#define KE(name) KN(name##_bf16)
#else
#define KE(name) KN(name)
#endif
#define KN_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define KN_UNROLL _Pragma("clang loop unroll(full)")
#pragma clang diagnostic ignored "-Wpass-failed" /* loops over one vector have nothing to unroll */
#else
#define KN_UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(__AVX512F__)
#include <immintrin.h>
#define VN 16
#elif defined(__AVX2__)
#include <immintrin.h>
#define VN 8
#elif defined(__ARM_NEON) && !defined(KN_PLAIN)
#include <arm_neon.h>
#define VN 4
#else
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#define VN 4
#endif

typedef float V __attribute__((vector_size(VN * 4)));
typedef int32_t VI __attribute__((vector_size(VN * 4)));
typedef uint32_t VU __attribute__((vector_size(VN * 4)));

/* Sixteen lanes, the width by which sums are ordered on every set. */
#define NW (16 / VN)

KN_INLINE V v_load(const float *p)
{
    V a;
    memcpy(&a, p, sizeof(a));
    return a;
}

KN_INLINE void v_store(float *p, V a)
{
    memcpy(p, &a, sizeof(a));
}

KN_INLINE V v_set1(float a)
{
#if VN == 16
    return (V)_mm512_set1_ps(a);
#elif VN == 8
    return (V)_mm256_set1_ps(a);
#else
    return (V){a, a, a, a};
#endif
}

KN_INLINE VI vi_set1(int32_t a)
{
#if VN == 16
    return (VI)_mm512_set1_epi32(a);
#elif VN == 8
    return (VI)_mm256_set1_epi32(a);
#else
    return (VI){a, a, a, a};
#endif
}

KN_INLINE V v_zero(void)
{
    return v_set1(0);
}

/* 0, 1, 2, … */
KN_INLINE VI vi_iota(void)
{
#if VN == 16
    return (VI){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif VN == 8
    return (VI){0, 1, 2, 3, 4, 5, 6, 7};
#else
    return (VI){0, 1, 2, 3};
#endif
}

/* a·b + c */
KN_INLINE V v_fma(V a, V b, V c)
{
#if VN == 16
    return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif VN == 8
    return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON) && !defined(KN_PLAIN)
    return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

/* c - a·b */
KN_INLINE V v_fnma(V a, V b, V c)
{
#if VN == 16
    return (V)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif VN == 8
    return (V)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON) && !defined(KN_PLAIN)
    return (V)vfmsq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return -a * b + c;
#endif
}

/* Lane by lane: where mask is -1 a, where it is 0 b. */
KN_INLINE V v_select(VI mask, V a, V b)
{
#if VN == 16
    return (V)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)mask), (__m512)b, (__m512)a);
#elif VN == 8
    return (V)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#else
    return (V)((mask & (VI)a) | (~mask & (VI)b));
#endif
}

/* min(a, b) and max(a, b); b when either is not a number. */
KN_INLINE V v_min(V a, V b)
{
#if VN == 16
    return (V)_mm512_min_ps((__m512)a, (__m512)b);
#elif VN == 8
    return (V)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (V)_mm_min_ps((__m128)a, (__m128)b);
#else
    return v_select(a < b, a, b);
#endif
}

KN_INLINE V v_max(V a, V b)
{
#if VN == 16
    return (V)_mm512_max_ps((__m512)a, (__m512)b);
#elif VN == 8
    return (V)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (V)_mm_max_ps((__m128)a, (__m128)b);
#else
    return v_select(a > b, a, b);
#endif
}

KN_INLINE V v_sqrt(V a)
{
#if VN == 16
    return (V)_mm512_sqrt_ps((__m512)a);
#elif VN == 8
    return (V)_mm256_sqrt_ps((__m256)a);
#elif defined(__ARM_NEON) && !defined(KN_PLAIN)
    return (V)vsqrtq_f32((float32x4_t)a);
#elif defined(__SSE2__)
    return (V)_mm_sqrt_ps((__m128)a);
#else
    return (V){__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])};
#endif
}

/* The nearest integers, ties to even; |a| < 2^31. */
KN_INLINE VI v_round(V a)
{
#if VN == 16
    return (VI)_mm512_cvtps_epi32((__m512)a);
#elif VN == 8
    return (VI)_mm256_cvtps_epi32((__m256)a);
#elif defined(__ARM_NEON) && !defined(KN_PLAIN)
    return (VI)vcvtnq_s32_f32((float32x4_t)a);
#elif defined(__SSE2__)
    return (VI)_mm_cvtps_epi32((__m128)a);
#else
    return (VI){(int32_t)__builtin_rintf(a[0]), (int32_t)__builtin_rintf(a[1]), (int32_t)__builtin_rintf(a[2]),
                (int32_t)__builtin_rintf(a[3])};
#endif
}

/* The same as float32. */
KN_INLINE V v_nearest(V a)
{
#if VN == 16
    return (V)_mm512_roundscale_ps((__m512)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif VN == 8
    return (V)_mm256_round_ps((__m256)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__ARM_NEON) && !defined(KN_PLAIN)
    return (V)vrndnq_f32((float32x4_t)a);
#else
    return __builtin_convertvector(v_round(a), V);
#endif
}

KN_INLINE V v_from_int(VI a)
{
    return __builtin_convertvector(a, V);
}

/* The first n lanes (1 … VN), 0 in the others; memory behind them is not touched. */
KN_INLINE V v_load_n(const float *p, size_t n)
{
#if VN == 16
    return (V)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif VN == 8
    return (V)_mm256_maskload_ps(p, (__m256i)(vi_iota() < vi_set1((int32_t)n)));
#else
    V a = v_zero();
    memcpy(&a, p, n * sizeof(float));
    return a;
#endif
}

KN_INLINE void v_store_n(float *p, V a, size_t n)
{
#if VN == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)a);
#elif VN == 8
    _mm256_maskstore_ps(p, (__m256i)(vi_iota() < vi_set1((int32_t)n)), (__m256)a);
#else
    memcpy(p, &a, n * sizeof(float));
#endif
}

/* --- bfloat16: widened exactly, rounded to nearest even with denormals and NaN kept (kernels/bf16.h). Integer work:
 * the machine's own conversions flush denormals. --- */

KN_INLINE V v_load_bf16(const uint16_t *p)
{
#if VN == 16
    return (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#elif VN == 8
    return (V)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
#elif defined(__ARM_NEON) && !defined(KN_PLAIN)
    return (V)vshll_n_u16(vld1_u16(p), 16);
#elif defined(__SSE2__)
    return (V)_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i *)p));
#else
    return (V){kn_widen(p[0]), kn_widen(p[1]), kn_widen(p[2]), kn_widen(p[3])};
#endif
}

/* Rounded, in the upper half of each lane; the lower half is not cleared. */
KN_INLINE VU v_round_bf16(V a)
{
    const VU bits = (VU)a, rounded = bits + 0x7fff + ((bits >> 16) & 1);
#if VN == 16
    const __mmask16 nan = _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q);
    return (VU)_mm512_mask_or_epi32((__m512i)rounded, nan, (__m512i)bits, _mm512_set1_epi32(0x400000));
#else
    return (VU)v_select(a == a, (V)rounded, (V)(bits | 0x400000));
#endif
}

KN_INLINE void v_store_bf16(uint16_t *p, V a)
{
    const VU r = v_round_bf16(a);
#if VN == 16
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32((__m512i)r, 16)));
#elif VN == 8
    const __m256i high = _mm256_srli_epi32((__m256i)r, 16);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
#elif defined(__ARM_NEON) && !defined(KN_PLAIN)
    vst1_u16(p, vshrn_n_u32((uint32x4_t)r, 16));
#elif defined(__SSE2__)
    const __m128i high = _mm_srai_epi32((__m128i)r, 16); /* signed: packing with signed saturation changes nothing */
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi32(high, high));
#else
    for (int i = 0; i < VN; i++)
        p[i] = (uint16_t)(r[i] >> 16);
#endif
}

KN_INLINE V v_load_bf16_n(const uint16_t *p, size_t n)
{
#if VN == 16
    return (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p)), 16);
#else
    uint16_t lane[VN] = {0};
    memcpy(lane, p, n * sizeof(*p));
    return v_load_bf16(lane);
#endif
}

KN_INLINE void v_store_bf16_n(uint16_t *p, V a, size_t n)
{
#if VN == 16
    const __m512i high = _mm512_srli_epi32((__m512i)v_round_bf16(a), 16);
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), _mm512_cvtepi32_epi16(high));
#else
    uint16_t lane[VN];
    v_store_bf16(lane, a);
    memcpy(p, lane, n * sizeof(*p));
#endif
}

/* The lanes of a mask as bits. */
KN_INLINE unsigned v_bits(VI mask)
{
#if VN == 16
    return _mm512_movepi32_mask((__m512i)mask);
#elif VN == 8
    return (unsigned)_mm256_movemask_ps((__m256)mask);
#elif defined(__SSE2__)
    return (unsigned)_mm_movemask_ps((__m128)mask);
#else
    return (unsigned)((mask[0] & 1) | (mask[1] & 2) | (mask[2] & 4) | (mask[3] & 8));
#endif
}

/* Comparisons that end as bits or as zeros; said in one step, for AVX-512 keeps them in mask registers. */
KN_INLINE unsigned v_bits_at_least(V a, V b)
{
#if VN == 16
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ);
#else
    return v_bits(a >= b);
#endif
}

KN_INLINE unsigned v_bits_less(V a, V b)
{
#if VN == 16
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
#else
    return v_bits(a < b);
#endif
}

/* x where a is at least b, else 0. */
KN_INLINE V v_where_at_least(V a, V b, V x)
{
#if VN == 16
    return (V)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ), (__m512)x);
#else
    return (V)((VI)(a >= b) & (VI)x);
#endif
}

/* High and low halves of the 64-bit products a·b; b is the same in all lanes. */
KN_INLINE VU vu_mul_wide(VU a, VU b, VU *low)
{
#if VN == 16
    const __m512i even = _mm512_mul_epu32((__m512i)a, (__m512i)b);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), (__m512i)b);
    *low = (VU)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
    return (VU)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
#elif VN == 8
    const __m256i even = _mm256_mul_epu32((__m256i)a, (__m256i)b);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), (__m256i)b);
    *low = (VU)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    return (VU)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
#else
    VU high;
    *low = a * b;
    for (int i = 0; i < VN; i++)
        high[i] = (uint32_t)(((uint64_t)a[i] * b[i]) >> 32);
    return high;
#endif
}

/* Four rows of four floats (row r at from + r·stride) as columns: to[c·to_stride + r] = from[r·stride + c]. */
KN_INLINE void v_transpose4(float *to, size_t to_stride, const float *r0, const float *r1, const float *r2,
                            const float *r3)
{
#if defined(__SSE2__)
    __m128 a = _mm_loadu_ps(r0), b = _mm_loadu_ps(r1), c = _mm_loadu_ps(r2), d = _mm_loadu_ps(r3);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(to, a);
    _mm_storeu_ps(to + to_stride, b);
    _mm_storeu_ps(to + 2 * to_stride, c);
    _mm_storeu_ps(to + 3 * to_stride, d);
#else
    for (int i = 0; i < 4; i++) {
        to[i * to_stride] = r0[i];
        to[i * to_stride + 1] = r1[i];
        to[i * to_stride + 2] = r2[i];
        to[i * to_stride + 3] = r3[i];
    }
#endif
}

#endif
