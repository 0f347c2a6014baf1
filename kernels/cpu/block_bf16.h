/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Moving rows and columns of bfloat16 products between memory and registers: what the ways of gemm_bf16.h share. */
#ifndef KN_BLOCK_BF16_H
#define KN_BLOCK_BF16_H

#include "gemm_bf16.h"
#include "vec.h"

void KN(pack16)(uint16_t *forward, uint16_t *back, const float *w, size_t out, size_t in, size_t panel,
                size_t panel_end);

KN_INLINE VU vu_load(const uint16_t *p)
{
    VU a;
    memcpy(&a, p, sizeof(a));
    return a;
}

/* VN bfloat16 as the low halves of 32-bit lanes. */
KN_INLINE VU vu_load_half(const uint16_t *p)
{
#if VN == 16
    return (VU)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
#elif VN == 8
    return (VU)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
#else
    return (VU)v_load_bf16(p) >> 16;
#endif
}

/* The n first columns (1 … 16) of a row's panel: the result of a block goes there, start values come from there. */
KN_INLINE V load_columns(const float *c, int v, size_t n)
{
    const size_t at = (size_t)v * VN;
    return n >= at + VN ? v_load(c + at) : n > at ? v_load_n(c + at, n - at) : v_zero();
}

KN_INLINE void store_columns(float *c, int v, size_t n, V value)
{
    const size_t at = (size_t)v * VN;
    if (n >= at + VN)
        v_store(c + at, value);
    else if (n > at)
        v_store_n(c + at, value, n - at);
}

/* Columns from `at` of row r in bfloat16: round(sum + bias + residual). */
KN_INLINE void store_rounded(const kn_product16 *p, size_t r, size_t at, size_t n, V sum)
{
    const size_t place = r * p->ldc + at;
    if (n >= VN) {
        if (p->bias)
            sum = sum + v_load(p->bias + at);
        if (p->residual)
            sum = sum + v_load_bf16(p->residual + place);
        v_store_bf16(p->y + place, sum);
    } else {
        if (p->bias)
            sum = sum + v_load_n(p->bias + at, n);
        if (p->residual)
            sum = sum + v_load_bf16_n(p->residual + place, n);
        v_store_bf16_n(p->y + place, sum, n);
    }
}

/* VN pairs of two rows (the second may be NULL: zeros), of which `left` are there: low halves from the first. */
KN_INLINE VU load_pairs(const uint16_t *first, const uint16_t *second, size_t left)
{
    if (left >= VN)
        return vu_load_half(first) | (second ? vu_load_half(second) << 16 : (VU)v_zero());
    if (left == 0)
        return (VU)v_zero();
    uint16_t low[VN] = {0}, high[VN] = {0};
    memcpy(low, first, left * sizeof(*low));
    if (second)
        memcpy(high, second, left * sizeof(*high));
    return vu_load_half(low) | vu_load_half(high) << 16;
}

/* One step of k of a panel of B. */
KN_INLINE void pack_panel(uint16_t *to, const uint16_t *first, const uint16_t *second, size_t left)
{
    KN_UNROLL
    for (size_t i = 0; i < KN_PANEL; i += VN) {
        const VU pairs = load_pairs(first + i, second ? second + i : NULL, left > i ? left - i : 0);
        memcpy(to + 2 * i, &pairs, sizeof(pairs));
    }
}

/* Four pairs of four rows: to's step is a pair of k, all columns. */
KN_INLINE void transpose4(uint16_t *to, const uint16_t *r0, const uint16_t *r1, const uint16_t *r2, const uint16_t *r3)
{
#if defined(__SSE2__)
    __m128 a = _mm_castsi128_ps(_mm_loadu_si128((const __m128i *)r0));
    __m128 b = _mm_castsi128_ps(_mm_loadu_si128((const __m128i *)r1));
    __m128 c = _mm_castsi128_ps(_mm_loadu_si128((const __m128i *)r2));
    __m128 d = _mm_castsi128_ps(_mm_loadu_si128((const __m128i *)r3));
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_si128((__m128i *)to, _mm_castps_si128(a));
    _mm_storeu_si128((__m128i *)(to + 2 * KN_PANEL), _mm_castps_si128(b));
    _mm_storeu_si128((__m128i *)(to + 4 * KN_PANEL), _mm_castps_si128(c));
    _mm_storeu_si128((__m128i *)(to + 6 * KN_PANEL), _mm_castps_si128(d));
#else
    for (size_t i = 0; i < 4; i++, to += 2 * KN_PANEL) {
        memcpy(to, r0 + 2 * i, 4);
        memcpy(to + 2, r1 + 2 * i, 4);
        memcpy(to + 4, r2 + 2 * i, 4);
        memcpy(to + 6, r3 + 2 * i, 4);
    }
#endif
}

#endif
