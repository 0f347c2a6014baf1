/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers by counting, the same bits as sluice/random.h. A counter's four words belong to elements i, i + 16,
 * i + 32, i + 48 of a block of 64 (sluice_random_item), so a thread takes neighbours from each quarter of a block and
 * uses all four.
 */
#ifndef KN_CUDA_PHILOX_CUH
#define KN_CUDA_PHILOX_CUH

#include "launch.cuh"

/* A key and counter as sluice_philox puts them together. */
struct philox {
    uint32_t key[2], counter[4];
};

static inline philox philox_of(const uint64_t key[2], const uint64_t counter[2])
{
    const uint64_t high = counter[1] ^ key[1];
    return {{(uint32_t)key[0], (uint32_t)(key[0] >> 32)},
            {(uint32_t)counter[0], (uint32_t)(counter[0] >> 32), (uint32_t)high, (uint32_t)(high >> 32)}};
}

/* The four words of counter + block (Salmon et al. 2011, Philox4x32-10). */
KDEV void philox_words(uint32_t (&word)[4], const philox &p, uint32_t block)
{
    uint32_t c0 = p.counter[0] + block, c1 = p.counter[1], c2 = p.counter[2], c3 = p.counter[3];
    uint32_t k0 = p.key[0], k1 = p.key[1];
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

/* sluice_random_item */
KDEV uint32_t philox_item(const philox &p, uint32_t index)
{
    uint32_t word[4];
    philox_words(word, p, index / 64 * 16 + index % 16);
    const uint32_t low = index & 16 ? word[1] : word[0], high = index & 16 ? word[3] : word[2];
    return index & 32 ? high : low;
}

/* sluice_uniform_float */
KDEV float philox_uniform(uint32_t bits)
{
    const float high = (float)(bits >> 16) * 0x1p-16f;
    return fminf(high + ((float)(bits & 0xffff) + 0.5f) * 0x1p-32f, 0x1.fffffep-1f);
}

/* Elements of a row of n by thread: unit u of a row is N neighbours in each quarter of block u / (16/N); quarter q of
 * it begins at this element. */
template <int N> KDEV size_t philox_element(size_t unit, int quarter)
{
    return unit / (16 / N) * 64 + 16 * quarter + unit % (16 / N) * N;
}

/* The counter of neighbour i of the unit. */
template <int N> KDEV uint32_t philox_block(size_t unit, int i)
{
    return (uint32_t)(unit * N + i);
}

template <int N> static inline size_t philox_units(size_t n)
{
    return (n + 63) / 64 * (16 / N);
}

#endif
