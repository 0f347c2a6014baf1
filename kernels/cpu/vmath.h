/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * exp, log and tanh on vectors, and sums in one fixed order. The C library's are not used: theirs differ from version
 * to version and from machine to machine, ours are part of the numerics class.
 */
#ifndef KN_VMATH_H
#define KN_VMATH_H

#include "vec.h"

#include <math.h>

/* --- sixteen lanes --- */

/* Sums over elements go by lane = index mod 16, then over the lanes in halves. */
typedef struct W {
    V v[NW];
} W;

#define W_EACH(w) \
    KN_UNROLL     \
    for (int w = 0; w < NW; w++)

KN_INLINE W w_set1(float a)
{
    W r;
    W_EACH(w)
    r.v[w] = v_set1(a);
    return r;
}

KN_INLINE W w_load(const float *p)
{
    W r;
    W_EACH(w)
    r.v[w] = v_load(p + w * VN);
    return r;
}

/* The first n (1 … 16) lanes, `fill` in the others. */
KN_INLINE W w_load_n(const float *p, size_t n, float fill)
{
    float lane[16];
    for (size_t i = 0; i < 16; i++)
        lane[i] = i < n ? p[i] : fill;
    return w_load(lane);
}

KN_INLINE void w_store(float *p, W a)
{
    W_EACH(w)
    v_store(p + w * VN, a.v[w]);
}

KN_INLINE W w_add(W a, W b)
{
    W_EACH(w)
    a.v[w] = a.v[w] + b.v[w];
    return a;
}

KN_INLINE W w_fma(W a, W b, W c)
{
    W_EACH(w)
    c.v[w] = v_fma(a.v[w], b.v[w], c.v[w]);
    return c;
}

KN_INLINE W w_max(W a, W b)
{
    W_EACH(w)
    a.v[w] = v_max(a.v[w], b.v[w]);
    return a;
}

/* Sixteen lanes to four, halves upon halves; then four to one. */
#if VN >= 8
#define W_FOLD(a, add256, add128)                                              \
    __m256 h = add256(W_LOW(a), W_HIGH(a));                                    \
    __m128 q = add128(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)); \
    q = add128(q, _mm_movehl_ps(q, q));                                        \
    return _mm_cvtss_f32(add128(q, _mm_movehdup_ps(q)))
#if VN == 16
#define W_LOW(a)  _mm512_castps512_ps256((__m512)(a).v[0])
#define W_HIGH(a) _mm512_extractf32x8_ps((__m512)(a).v[0], 1)
#else
#define W_LOW(a)  ((__m256)(a).v[0])
#define W_HIGH(a) ((__m256)(a).v[1])
#endif

KN_INLINE float w_sum(W a)
{
    W_FOLD(a, _mm256_add_ps, _mm_add_ps);
}

KN_INLINE float w_max_lane(W a)
{
    W_FOLD(a, _mm256_max_ps, _mm_max_ps);
}

#else

KN_INLINE float w_sum(W a)
{
    const V q = (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]);
    return (q[0] + q[2]) + (q[1] + q[3]);
}

KN_INLINE float w_max_lane(W a)
{
    const V q = v_max(v_max(a.v[0], a.v[2]), v_max(a.v[1], a.v[3]));
    const float x = q[0] > q[2] ? q[0] : q[2], y = q[1] > q[3] ? q[1] : q[3];
    return x > y ? x : y;
}

#endif

/* --- functions --- */

/* p · 2^n for whole n of -126 … 128 and p about 1, rounded once; 0 where x is less than `least`. */
KN_INLINE V v_scale(V p, V n, V x, V least)
{
#if VN == 16
    const __mmask16 kept = _mm512_cmp_ps_mask((__m512)x, (__m512)least, _CMP_NLT_UQ);
    return (V)_mm512_maskz_scalef_ps(kept, (__m512)p, (__m512)n);
#else
    const VI tiny = x < least;
    const VI whole = v_round(n), half = whole >> 1; /* in two steps: 2^128 is no float */
    return v_select(tiny, v_zero(), p * (V)((half + 127) << 23) * (V)((whole - half + 127) << 23));
#endif
}

/* Within 2 units in the last place; 0 below -87.33 (no denormals), infinity above 88.73, NaN for NaN. Argument
 * reduction and polynomial are those of Cephes' expf (Moshier). */
KN_INLINE V v_exp(V all)
{
    const V x = v_max(v_set1(-88.0f), v_min(v_set1(89.0f), all));
    const V n = v_nearest(x * v_set1(1.44269504088896341f));
    V r = v_fnma(n, v_set1(0.693359375f), x);
    r = v_fnma(n, v_set1(-2.12194440e-4f), r);
    V p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_fma(p, r * r, r) + v_set1(1.0f);
    return v_scale(p, n, all, v_set1(-87.33654f));
}

/* Normal positive numbers only; within 2 units in the last place (Cephes' logf). */
KN_INLINE V v_log(V x)
{
    VI bits = (VI)x - 0x3f3504f3; /* so that the mantissa falls in [√½, √2) */
    const V e = v_from_int(bits >> 23);
    const V f = (V)((bits & 0x7fffff) + 0x3f3504f3) - v_set1(1.0f);
    const V z = f * f;
    V p = v_set1(7.0376836292e-2f);
    p = v_fma(p, f, v_set1(-1.1514610310e-1f));
    p = v_fma(p, f, v_set1(1.1676998740e-1f));
    p = v_fma(p, f, v_set1(-1.2420140846e-1f));
    p = v_fma(p, f, v_set1(1.4249322787e-1f));
    p = v_fma(p, f, v_set1(-1.6668057665e-1f));
    p = v_fma(p, f, v_set1(2.0000714765e-1f));
    p = v_fma(p, f, v_set1(-2.4999993993e-1f));
    p = v_fma(p, f, v_set1(3.3333331174e-1f));
    V y = p * f * z;
    y = v_fma(e, v_set1(-2.12194440e-4f), y);
    y = v_fnma(z, v_set1(0.5f), y);
    return v_fma(e, v_set1(0.693359375f), f + y);
}

/* 1 - 2/(exp(2x) + 1); near 0, where that loses digits, the series. */
KN_INLINE V v_tanh(V x)
{
    const V z = x * x;
    V p = v_set1(62.0f / 2835);
    p = v_fma(p, z, v_set1(-17.0f / 315));
    p = v_fma(p, z, v_set1(2.0f / 15));
    p = v_fma(p, z, v_set1(-1.0f / 3));
    const V near = v_fma(p * z, x, x);
    const V far = v_set1(1.0f) - v_set1(2.0f) / (v_exp(x + x) + v_set1(1.0f));
    return v_select(z < v_set1(0.04f), near, far);
}

KN_INLINE V v_sigmoid(V x)
{
    return v_set1(1.0f) / (v_set1(1.0f) + v_exp(-x));
}

KN_INLINE W w_exp(W a)
{
    W_EACH(w)
    a.v[w] = v_exp(a.v[w]);
    return a;
}

#endif
