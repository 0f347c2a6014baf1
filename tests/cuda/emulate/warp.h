/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * Barriers, and what the lanes of a warp do together. Only __syncthreads and __syncwarp order memory: a shuffle taken
 * for a barrier is a race, and TSan shows it. */
#ifndef EMULATE_WARP_H
#define EMULATE_WARP_H

#include "fiber.h"

static inline void __syncthreads(EMULATE_PLACE)
{
    emulate_cuda::barrier("__syncthreads", EMULATE_HERE);
}

static inline int __syncthreads_count(int predicate, EMULATE_PLACE)
{
    return emulate_cuda::vote(predicate != 0, "__syncthreads_count", EMULATE_HERE);
}

static inline int __syncthreads_or(int predicate, EMULATE_PLACE)
{
    return emulate_cuda::vote(predicate != 0, "__syncthreads_or", EMULATE_HERE) != 0;
}

static inline int __syncthreads_and(int predicate, EMULATE_PLACE)
{
    return emulate_cuda::vote(predicate != 0, "__syncthreads_and", EMULATE_HERE) == emulate_cuda::worker->threads;
}

static inline void __syncwarp(uint32_t mask = ~0u, EMULATE_PLACE)
{
    emulate_cuda::meet(mask, nullptr, nullptr, true, "__syncwarp", EMULATE_HERE);
}

namespace emulate_cuda
{

template <class T> struct Shuffle {
    T value, result;
    int from;
};

template <class T> QUIET void shuffle(Fiber *lanes, uint32_t mask)
{
    for (int i = 0; i < 32; i++) {
        if (mask >> i & 1) {
            auto *mine = static_cast<Shuffle<T> *>(lanes[i].brought);
            if ((mask >> mine->from & 1) == 0) {
                fail("%s at %s:%d reads lane %d, which is not in mask %08x", lanes[i].what, lanes[i].at.file,
                     lanes[i].at.line, mine->from, mask);
            }
            mine->result = static_cast<Shuffle<T> *>(lanes[mine->from].brought)->value;
        }
    }
}

/* width: lanes in a segment, a power of two; a source outside the segment gives the lane's own value. */
template <class T> static inline T shuffle_from(uint32_t mask, T value, int from, int width, const char *what, Place at)
{
    const int lane = worker->current->number & 31, first = lane & -width;
    Shuffle<T> pay = {value, value, from < first || from >= first + width ? lane : from};
    meet(mask, &pay, shuffle<T>, false, what, at);
    return pay.result;
}

inline int lane()
{
    return worker->current->number & 31;
}

} // namespace emulate_cuda

template <class T> static inline T __shfl_sync(uint32_t mask, T value, int from, int width = 32, EMULATE_PLACE)
{
    const int first = emulate_cuda::lane() & -width;
    return emulate_cuda::shuffle_from(mask, value, first + (from & (width - 1)), width, "__shfl_sync", EMULATE_HERE);
}

template <class T> static inline T __shfl_xor_sync(uint32_t mask, T value, int flip, int width = 32, EMULATE_PLACE)
{
    return emulate_cuda::shuffle_from(mask, value, emulate_cuda::lane() ^ flip, width, "__shfl_xor_sync", EMULATE_HERE);
}

template <class T> static inline T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32, EMULATE_PLACE)
{
    return emulate_cuda::shuffle_from(mask, value, emulate_cuda::lane() + (int)by, width, "__shfl_down_sync",
                                      EMULATE_HERE);
}

template <class T> static inline T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32, EMULATE_PLACE)
{
    return emulate_cuda::shuffle_from(mask, value, emulate_cuda::lane() - (int)by, width, "__shfl_up_sync",
                                      EMULATE_HERE);
}

namespace emulate_cuda
{

/* All lanes get the same combination of what they bring. */
template <class T, class F> QUIET void combine(Fiber *lanes, uint32_t mask)
{
    bool first = true;
    T all = T();
    for (int i = 0; i < 32; i++) {
        if (mask >> i & 1) {
            const T mine = *static_cast<T *>(lanes[i].brought);
            all = first ? mine : F::of(all, mine);
            first = false;
        }
    }
    for (int i = 0; i < 32; i++) {
        if (mask >> i & 1) {
            *static_cast<T *>(lanes[i].brought) = all;
        }
    }
}

#define EMULATE_COMBINE(name, expression)        \
    struct name {                                \
        template <class T> static T of(T a, T b) \
        {                                        \
            return expression;                   \
        }                                        \
    };
EMULATE_COMBINE(Sum, a + b)
EMULATE_COMBINE(Least, a < b ? a : b)
EMULATE_COMBINE(Greatest, a > b ? a : b)
EMULATE_COMBINE(And, a &b)
EMULATE_COMBINE(Or, a | b)
EMULATE_COMBINE(Xor, a ^ b)
#undef EMULATE_COMBINE

} // namespace emulate_cuda

static inline uint32_t __ballot_sync(uint32_t mask, int predicate, EMULATE_PLACE)
{
    uint32_t bits = predicate != 0 ? 1u << emulate_cuda::lane() : 0;
    emulate_cuda::meet(mask, &bits, emulate_cuda::combine<uint32_t, emulate_cuda::Or>, false, "__ballot_sync",
                       EMULATE_HERE);
    return bits;
}

static inline int __any_sync(uint32_t mask, int predicate, EMULATE_PLACE)
{
    return __ballot_sync(mask, predicate, file, line) != 0;
}

static inline int __all_sync(uint32_t mask, int predicate, EMULATE_PLACE)
{
    return __ballot_sync(mask, predicate, file, line) == mask;
}

#define EMULATE_REDUCE(name, T, F)                                                                               \
    static inline T name(uint32_t mask, T value, EMULATE_PLACE)                                                  \
    {                                                                                                            \
        emulate_cuda::meet(mask, &value, emulate_cuda::combine<T, emulate_cuda::F>, false, #name, EMULATE_HERE); \
        return value;                                                                                            \
    }
EMULATE_REDUCE(__reduce_add_sync, unsigned, Sum)
EMULATE_REDUCE(__reduce_add_sync, int, Sum)
EMULATE_REDUCE(__reduce_min_sync, unsigned, Least)
EMULATE_REDUCE(__reduce_min_sync, int, Least)
EMULATE_REDUCE(__reduce_max_sync, unsigned, Greatest)
EMULATE_REDUCE(__reduce_max_sync, int, Greatest)
EMULATE_REDUCE(__reduce_and_sync, unsigned, And)
EMULATE_REDUCE(__reduce_or_sync, unsigned, Or)
EMULATE_REDUCE(__reduce_xor_sync, unsigned, Xor)
#undef EMULATE_REDUCE

namespace emulate_cuda
{
template <class T> struct Match {
    T value;
    uint32_t same;
};

template <class T> QUIET void match(Fiber *lanes, uint32_t mask)
{
    for (int i = 0; i < 32; i++) {
        for (int j = 0; j < 32 && (mask >> i & 1); j++) {
            auto *mine = static_cast<Match<T> *>(lanes[i].brought);
            if ((mask >> j & 1) && static_cast<Match<T> *>(lanes[j].brought)->value == mine->value) {
                mine->same |= 1u << j;
            }
        }
    }
}
} // namespace emulate_cuda

template <class T> static inline uint32_t __match_any_sync(uint32_t mask, T value, EMULATE_PLACE)
{
    emulate_cuda::Match<T> pay = {value, 0};
    emulate_cuda::meet(mask, &pay, emulate_cuda::match<T>, false, "__match_any_sync", EMULATE_HERE);
    return pay.same;
}

#endif
