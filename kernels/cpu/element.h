/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The element type of activations. The files that include this are compiled twice for each instruction set, for float32
 * and, with KN_ELEMENT_BF16, for bfloat16: E is the type, KE(name) the name of an op for it. Loading widens, storing
 * rounds; between the two everything is float32, and the same code.
 */
#ifndef KN_ELEMENT_H
#define KN_ELEMENT_H

#include "vmath.h"

#ifdef KN_ELEMENT_BF16

typedef uint16_t E;

KN_INLINE float e_get(const E *p)
{
    return kn_widen(*p);
}

KN_INLINE void e_put(E *p, float a)
{
    *p = kn_narrow(a);
}

KN_INLINE V e_load(const E *p)
{
    return v_load_bf16(p);
}

KN_INLINE void e_store(E *p, V a)
{
    v_store_bf16(p, a);
}

KN_INLINE V e_load_n(const E *p, size_t n)
{
    return v_load_bf16_n(p, n);
}

KN_INLINE void e_store_n(E *p, V a, size_t n)
{
    v_store_bf16_n(p, a, n);
}

#else

typedef float E;

KN_INLINE float e_get(const E *p)
{
    return *p;
}

KN_INLINE void e_put(E *p, float a)
{
    *p = a;
}

KN_INLINE V e_load(const E *p)
{
    return v_load(p);
}

KN_INLINE void e_store(E *p, V a)
{
    v_store(p, a);
}

KN_INLINE V e_load_n(const E *p, size_t n)
{
    return v_load_n(p, n);
}

KN_INLINE void e_store_n(E *p, V a, size_t n)
{
    v_store_n(p, a, n);
}

#endif

/* Sixteen lanes; the first n (1 … 16) of them, 0 in the others. */
KN_INLINE W e_load16(const E *p)
{
    W r;
    W_EACH(w)
    r.v[w] = e_load(p + w * VN);
    return r;
}

KN_INLINE W e_load16_n(const E *p, size_t n)
{
    E lane[16] = {0};
    memcpy(lane, p, n * sizeof(E));
    return e_load16(lane);
}

/* Σ a[i]·b[i] by sixteen lanes. */
KN_INLINE float e_dot(const E *a, const E *b, size_t d)
{
    W sum = w_set1(0);
    size_t i = 0;
    for (; i + 16 <= d; i += 16)
        sum = w_fma(e_load16(a + i), e_load16(b + i), sum);
    if (i < d)
        sum = w_fma(e_load16_n(a + i, d - i), e_load16_n(b + i, d - i), sum);
    return w_sum(sum);
}

/* n elements as float32, and back. */
KN_INLINE void e_widen(float *to, const E *from, size_t n)
{
    size_t i = 0;
    for (; i + VN <= n; i += VN)
        v_store(to + i, e_load(from + i));
    if (i < n)
        v_store_n(to + i, e_load_n(from + i, n - i), n - i);
}

KN_INLINE void e_narrow(E *to, const float *from, size_t n)
{
    size_t i = 0;
    for (; i + VN <= n; i += VN)
        e_store(to + i, v_load(from + i));
    if (i < n)
        e_store_n(to + i, v_load_n(from + i, n - i), n - i);
}

#endif
