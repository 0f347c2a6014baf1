/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tokens top-k, top-p and min-p keep: exactly those that sorting the row would, without sorting it.
 *
 * A histogram over the distance from the largest logit says in which bin the last kept token lies. If few tokens lie
 * up to there, they are listed, sorted and walked, and the row is not read again. Otherwise the bin is taken apart by
 * the digits of the ranks in it, until what is left is few enough to be listed; then the last kept token is known by
 * its rank. Everything that is summed is a whole number.
 */
#ifndef KN_CUDA_CHOOSE_CUT_CUH
#define KN_CUDA_CHOOSE_CUT_CUH

#include "choose.cuh"

enum { BINS = 2048, LIST = 2048, DIGIT = 11 };
typedef unsigned long long mass_t;

/* Shared memory of a block. */
struct choose_room {
    unsigned long long list[LIST];               /* ranks */
    unsigned count[BINS], low[BINS], high[BINS]; /* of tokens; the halves of their mass */
};

/* What a search answers; in shared memory. */
struct choose_found {
    mass_t before, mass;          /* up to the bin or entry, and its own */
    unsigned before_count, count; /* the same of tokens */
    unsigned at, listed;          /* the bin or entry, BINS where there is none; tokens in the list */
};

/* The row as the searches see it. */
struct choose_view {
    const choose_row *c;
    const float *row;
    float max, bins; /* the largest logit; bins in a distance of 1 */
};

/* Some of the row's tokens: bins first … last, and of them those whose rank begins with `prefix`. */
struct choose_part {
    unsigned first, last;
    int shift; /* of the ranks' digits behind the prefix; 64: none is asked for */
    uint64_t prefix;
};

KDEV unsigned bin_of(const choose_view &v, float y)
{
    const float at = (v.max - y) * v.bins;
    return at < BINS - 1 ? (unsigned)at : BINS - 1;
}

/* f(rank, y) of the part's tokens. */
template <class F> KDEV void each_of(const choose_view &v, const choose_part &part, F f)
{
    choose_each(
        *v.c, v.row,
        [&](float y) {
            const unsigned bin = bin_of(v, y);
            return bin >= part.first && bin <= part.last;
        },
        [&](uint32_t token, float y) {
            const uint64_t rank = choose_rank(y, token);
            if (part.shift == 64 || rank >> part.shift == part.prefix)
                f(rank, y);
        });
}

/* Sums over the threads before this one, of two numbers. A barrier follows before it is called again. */
KDEV void scan_block(mass_t &a, unsigned &b)
{
    SHARED(mass_t, part, [CHOOSE_THREADS / 32]);
    SHARED(unsigned, part_count, [CHOOSE_THREADS / 32]);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const mass_t own = a;
    const unsigned own_count = b;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const mass_t other = __shfl_up_sync(0xffffffffu, a, step);
        const unsigned other_count = __shfl_up_sync(0xffffffffu, b, step);
        if (lane >= (unsigned)step) {
            a += other;
            b += other_count;
        }
    }
    if (lane == 31) {
        part[warp] = a;
        part_count[warp] = b;
    }
    __syncthreads();
    a -= own;
    b -= own_count;
    for (unsigned w = 0; w < warp; w++) {
        a += part[w];
        b += part_count[w];
    }
}

/* --- the histogram; who reads it ends with a barrier, so that it may be cleared at once --- */

KDEV void clear_bins(choose_room *room)
{
    for (unsigned b = threadIdx.x; b < BINS; b += CHOOSE_THREADS)
        room->count[b] = room->low[b] = room->high[b] = 0;
    __syncthreads();
}

/* Shared memory adds 32 bits at a time: the lower half tells by its overflow what the upper one is to get. */
KDEV void add_to_bin(choose_room *room, unsigned bin, unsigned count, mass_t mass)
{
    const unsigned low = (unsigned)mass, old = atomicAdd(&room->low[bin], low);
    const unsigned high = (unsigned)(mass >> 32) + (old + low < old);
    atomicAdd(&room->count[bin], count);
    if (high > 0)
        atomicAdd(&room->high[bin], high);
}

/* The whole row by distance. The last bin takes all that is far, mostly most of the row: it is summed by thread first.
 */
KDEV void fill_bins(choose_room *room, const choose_view &v)
{
    mass_t far = 0;
    unsigned far_count = 0;
    clear_bins(room);
    choose_each(
        *v.c, v.row,
        [&](float y) {
            if (bin_of(v, y) < BINS - 1)
                return true;
            far += choose_mass(y, v.max);
            far_count++;
            return false;
        },
        [&](uint32_t, float y) { add_to_bin(room, bin_of(v, y), 1, choose_mass(y, v.max)); });
    far = reduce_warp(far, reduce_add());
    far_count = reduce_warp(far_count, reduce_add());
    if (threadIdx.x % 32 == 0 && far_count > 0)
        add_to_bin(room, BINS - 1, far_count, far);
    __syncthreads();
}

/* The bin in which the sum over the bins reaches the target (> 0). */
KDEV void find_bin(choose_found *found, const choose_room *room, bool by_count, mass_t target)
{
    enum { OWN = BINS / CHOOSE_THREADS };
    mass_t mass[OWN], before = 0;
    unsigned count[OWN], before_count = 0;
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        const unsigned b = threadIdx.x * OWN + k;
        mass[k] = (mass_t)room->high[b] << 32 | room->low[b];
        count[k] = room->count[b];
        before += mass[k];
        before_count += count[k];
    }
    if (threadIdx.x == 0)
        found->at = BINS;
    scan_block(before, before_count);
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        const mass_t at = by_count ? before_count : before, own = by_count ? count[k] : mass[k];
        if (at < target && target <= at + own)
            *found = {before, mass[k], before_count, count[k], threadIdx.x * OWN + k, 0};
        before += mass[k];
        before_count += count[k];
    }
    __syncthreads();
}

/* Tokens and mass of bins 0 … last. */
KDEV unsigned count_bins(const choose_room *room, unsigned last, mass_t &mass)
{
    unsigned count = 0;
    mass = 0;
    for (unsigned b = threadIdx.x; b <= last; b += CHOOSE_THREADS) {
        count += room->count[b];
        mass += (mass_t)room->high[b] << 32 | room->low[b];
    }
    mass = reduce_block(mass, reduce_add(), (mass_t)0);
    return reduce_block(count, reduce_add(), 0u);
}

/* --- the list --- */

/* Lists the part's tokens, at most LIST, the first rank first; returns how many. */
KDEV unsigned list_part(choose_room *room, choose_found *found, const choose_view &v, const choose_part &part)
{
    if (threadIdx.x == 0)
        found->listed = 0;
    __syncthreads();
    each_of(v, part, [&](uint64_t rank, float) {
        const unsigned at = atomicAdd(&found->listed, 1u);
        if (at < LIST)
            room->list[at] = rank;
    });
    __syncthreads();
    const unsigned n = min(found->listed, (unsigned)LIST);
    unsigned size = 1;
    while (size < n)
        size *= 2;
    for (unsigned i = n + threadIdx.x; i < size; i += CHOOSE_THREADS)
        room->list[i] = 0;
    __syncthreads();
    for (unsigned run = 2; run <= size; run *= 2) /* Batcher 1968: bitonic */
        for (unsigned step = run / 2; step > 0; step /= 2) {
            for (unsigned i = threadIdx.x; i < size / 2; i += CHOOSE_THREADS) {
                const unsigned a = i / step * 2 * step + i % step, b = a + step;
                const unsigned long long x = room->list[a], y = room->list[b];
                if ((x < y) == ((a & run) == 0)) {
                    room->list[a] = y;
                    room->list[b] = x;
                }
            }
            __syncthreads();
        }
    return n;
}

/* Mass of the first n of the list. */
KDEV mass_t list_mass(const choose_room *room, const choose_view &v, unsigned n)
{
    mass_t sum = 0;
    for (unsigned i = threadIdx.x; i < n; i += CHOOSE_THREADS)
        sum += choose_mass(choose_logit(room->list[i]), v.max);
    return reduce_block(sum, reduce_add(), (mass_t)0);
}

/* The entry of the first n at which the mass of the list reaches the target (> 0). */
KDEV void find_entry(choose_found *found, const choose_room *room, const choose_view &v, unsigned n, mass_t target)
{
    enum { OWN = LIST / CHOOSE_THREADS };
    mass_t mass[OWN], before = 0;
    unsigned none = 0;
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        const unsigned i = threadIdx.x * OWN + k;
        mass[k] = i < n ? choose_mass(choose_logit(room->list[i]), v.max) : 0;
        before += mass[k];
    }
    if (threadIdx.x == 0)
        found->at = BINS;
    scan_block(before, none);
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        if (before < target && target <= before + mass[k])
            *found = {before, mass[k], 0, 1, threadIdx.x * OWN + k, 0};
        before += mass[k];
    }
    __syncthreads();
}

/* --- the cut --- */

/* The rank of the token of bin `found->at` at which the sum over the row reaches the target; `kept`: the mass up to it.
 * The histogram may be overwritten. */
KDEV uint64_t cut_bin(choose_room *room, choose_found *found, const choose_view &v, bool by_count, mass_t target,
                      mass_t &kept)
{
    choose_part part = {found->at, found->at, 64, 0};
    for (;;) {
        target -= by_count ? found->before_count : found->before;
        kept += found->before;
        if (found->count <= LIST)
            break;
        const int next = part.shift > DIGIT ? part.shift - DIGIT : 0, bits = part.shift - next;
        clear_bins(room);
        each_of(v, part,
                [&](uint64_t rank, float y) { /* the largest digit is in the first bin */
                                              add_to_bin(room, BINS - 1 - (unsigned)(rank >> next & ((1u << bits) - 1)),
                                                         1, choose_mass(y, v.max));
                });
        __syncthreads();
        find_bin(found, room, by_count, target);
        part.prefix = part.prefix << bits | (BINS - 1 - found->at);
        part.shift = next;
    }
    const unsigned n = list_part(room, found, v, part);
    if (by_count) {
        const unsigned last = (unsigned)target - 1;
        kept += list_mass(room, v, last + 1);
        return room->list[last];
    }
    find_entry(found, room, v, n, target);
    kept += found->before + found->mass;
    return room->list[found->at];
}

/* The share `top_p` of a mass, as the sum that is to be reached. */
KDEV mass_t share_of(mass_t mass, float top_p)
{
    const mass_t share = (mass_t)__double2ll_rz(ceil((double)top_p * (double)mass));
    return share > 0 ? share : 1;
}

#endif
