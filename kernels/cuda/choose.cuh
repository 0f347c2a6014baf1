/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing a token: what choose.cu (the op) and choose_cut.cuh (which tokens are kept) share. A block takes a row.
 *
 * Tokens stand in the order of their *rank*: the logit by its temperature first, of equal ones the smaller token first,
 * as the reference sorts them. A token's *mass* is exp(logit - largest) in units of 2^-44: sums of masses are sums of
 * whole numbers, the same in whatever order atomics make them, and 2^18 of them do not overflow.
 */
#ifndef KN_CUDA_CHOOSE_CUH
#define KN_CUDA_CHOOSE_CUH

#include "cuda.h"
#include "launch.cuh"
#include "philox.cuh"
#include "reduce.cuh"
#include "softmax.cuh"

enum { CHOOSE_THREADS = KN_SOFTMAX_THREADS, CHOOSE_AHEAD = KN_SOFTMAX_AHEAD };

/* A row's kn_choice; without padding. */
struct choose_row {
    uint64_t seen, banned; /* where they begin among the ids */
    double log_min_p;
    uint32_t seen_count, banned_count; /* 0 where they change nothing */
    philox key;
    float temperature, top_p, min_p, penalty;
    uint32_t top_k, vocab;
};

/* A number's bits, turned so that they order as numbers do; one zero. */
KDEV uint32_t choose_order(float y)
{
    const uint32_t bits = __float_as_uint(y + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

KDEV uint64_t choose_rank(float y, uint32_t token)
{
    return (uint64_t)choose_order(y) << 32 | (uint32_t)~token;
}

KDEV uint32_t choose_token(uint64_t rank)
{
    return ~(uint32_t)rank;
}

KDEV float choose_logit(uint64_t rank)
{
    const uint32_t bits = (uint32_t)(rank >> 32);
    return __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
}

/* The logit that is drawn by; what is no number cannot be drawn. */
KDEV float choose_scaled(const choose_row &c, float logit)
{
    const float y = c.temperature > 0 && c.temperature != 1 ? logit / c.temperature : logit;
    return y == y ? y : -INFINITY;
}

KDEV unsigned long long choose_mass(float y, float max)
{
    return (unsigned long long)__float2ll_rn(expf(y - max) * 0x1p44f);
}

/* f(token, y) of every token of the row that may be chosen and that wants(y). Few are wanted, so f is there once,
 * behind a loop over those among the thread's last loads, and its y is read again. */
template <class P, class F> KDEV void choose_each(const choose_row &c, const float *row, P wants, F f)
{
    const size_t n = c.vocab, groups = (n + 3) / 4;
    const bool aligned = (reinterpret_cast<uintptr_t>(row) & 15) == 0;
    for (size_t g = threadIdx.x; g < groups; g += CHOOSE_AHEAD * CHOOSE_THREADS) {
        float v[CHOOSE_AHEAD][4];
        unsigned wanted = 0;
#pragma unroll
        for (int k = 0; k < CHOOSE_AHEAD; k++)
            softmax_four(v[k], row, n, g + (size_t)k * CHOOSE_THREADS, aligned);
#pragma unroll
        for (int k = 0; k < CHOOSE_AHEAD; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float y = choose_scaled(c, v[k][i]);
                if (y > -INFINITY && wants(y))
                    wanted |= 1u << (4 * k + i);
            }
        for (; wanted != 0; wanted &= wanted - 1) {
            const unsigned at = (unsigned)__ffs((int)wanted) - 1;
            const uint32_t token = (uint32_t)(4 * (g + (size_t)(at / 4) * CHOOSE_THREADS)) + at % 4;
            f(token, choose_scaled(c, row[token]));
        }
    }
}

/* --- the draw: Gumbel-max (Maddison, Tarlow, Minka 2014) --- */

/* The best of what a thread has seen; tokens come in rising order, so of equal ones the first stays. */
struct choose_best {
    float value;
    uint32_t token;
};

enum { GUMBEL_MOST = 23 }; /* -log(-log(1 - u)) is below this for every u that 32 bits give */

/* logit - log(-log(1 - u)). The logarithms are worked out where they can matter alone: -log(1 - u) is at least u. */
KDEV void choose_draw(choose_best &best, float y, uint32_t token, uint32_t bits)
{
    const float u = philox_uniform(bits);
    if (!(y - __logf(u) + 1e-3f > best.value))
        return;
    const float value = y - logf(-log1pf(-u));
    if (value > best.value) {
        best.value = value;
        best.token = token;
    }
}

/* Whether a draw may come above `bound`: a little more often than it does. */
KDEV bool choose_may_win(float y, uint32_t bits, float bound)
{
    return y + 1e-3f - __logf(fmaf((float)bits, 0x1p-32f, 0x1p-34f)) > bound;
}

/* The bits of tokens 4·group … 4·group + 3, for a whole warp whose groups are 32 neighbours from a multiple of 32. A
 * counter's words belong to tokens 16 apart, so four lanes 4 apart need the same four counters: each makes one and they
 * exchange words, which transposes a matrix of 4 × 4. */
KDEV void choose_bits(uint32_t (&word)[4], const philox &key, uint32_t group)
{
    philox_words(word, key, group / 16 * 16 + group % 4 * 4 + group / 4 % 4);
    const bool odd = threadIdx.x & 4, upper = threadIdx.x & 8;
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? word[j] : word[j + 1], 4);
        word[j] = odd ? other : word[j];
        word[j + 1] = odd ? word[j + 1] : other;
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, upper ? word[j] : word[j + 2], 8);
        word[j] = upper ? other : word[j];
        word[j + 2] = upper ? word[j + 2] : other;
    }
}

/* The block's best, by its rank; 0 = none. */
KDEV unsigned long long choose_winning(const choose_best &best)
{
    return reduce_block(best.value > -INFINITY ? choose_rank(best.value, best.token) : 0ull, reduce_max(), 0ull);
}

/* Its token, to every thread. */
KDEV uint32_t choose_winner(const choose_best &best)
{
    return choose_token(choose_winning(best));
}

#endif
