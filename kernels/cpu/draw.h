/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Philox on sixteen counters at once, and the Gumbel noise made from its bits: what sluice/random.h defines for one
 * token (sluice_random_item, sluice_uniform_float), for sixteen.
 */
#ifndef KN_DRAW_H
#define KN_DRAW_H

#include "sluice/random.h"
#include "vmath.h"

typedef struct WU {
    VU v[NW];
} WU;

/* What a draw's key and counter come to, but for the item: the key of each round. */
typedef struct kn_draw {
    uint32_t key[10][2], counter[4];
} kn_draw;

static inline kn_draw kn_draw_of(const uint64_t key[2], const uint64_t counter[2])
{
    const uint64_t high = counter[1] ^ key[1];
    kn_draw d = {
        .counter = {(uint32_t)counter[0], (uint32_t)(counter[0] >> 32), (uint32_t)high, (uint32_t)(high >> 32)}};
    for (uint32_t round = 0; round < 10; round++) {
        d.key[round][0] = (uint32_t)key[0] + round * 0x9E3779B9u;
        d.key[round][1] = (uint32_t)(key[0] >> 32) + round * 0xBB67AE85u;
    }
    return d;
}

KN_INLINE VU vu_set1(uint32_t a)
{
    return (VU)vi_set1((int32_t)a);
}

/* The four words of counters base + block. */
KN_INLINE void draw_words(VU word[4], const kn_draw *d, VU block)
{
    const VU m0 = vu_set1(0xD2511F53u), m1 = vu_set1(0xCD9E8D57u);
    VU c0 = vu_set1(d->counter[0]) + block, c1 = vu_set1(d->counter[1]), c2 = vu_set1(d->counter[2]),
       c3 = vu_set1(d->counter[3]);
    KN_UNROLL
    for (int round = 0; round < 10; round++) {
        VU low0, low1;
        const VU high0 = vu_mul_wide(c0, m0, &low0), high1 = vu_mul_wide(c2, m1, &low1);
        c0 = high1 ^ c1 ^ vu_set1(d->key[round][0]);
        c2 = high0 ^ c3 ^ vu_set1(d->key[round][1]);
        c1 = low1;
        c3 = low0;
    }
    word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

/* sluice_uniform_float. */
KN_INLINE V draw_uniform(VU bits)
{
    const V high = v_from_int((VI)(bits >> 16)) * v_set1(0x1p-16f);
    const V low = (v_from_int((VI)(bits & 0xffff)) + v_set1(0.5f)) * v_set1(0x1p-32f);
    return v_min(high + low, v_set1(0x1.fffffep-1f));
}

/* -log(-log(1 - u)), u as sluice_uniform_float makes it. 1 - u rounds; what it loses is put back to first order, so
 * that small u, which decide who wins, keep all their digits. */
KN_INLINE V draw_gumbel(VU bits)
{
    const V u = draw_uniform(bits), one = v_set1(1.0f);
    const V rest = one - u;
    const V e = -(v_log(rest) + ((one - rest) - u) / rest);
    return -v_log(e);
}

#endif
