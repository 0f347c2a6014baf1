/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops over whole checkpoints, compiled once for every x86-64 and once for those with AVX2, which has eight lanes and
 * an integer maximum. Products and sums are never contracted (configure's -ffp-contract=off), so the bits are the same.
 *
 *     SM_LOOP void scale(float *x, size_t n) { … }
 *     SM_TWICE(void, scale, (float *x, size_t n), (x, n))       defines scale_here
 */
#ifndef MODEL_WIDE_H
#define MODEL_WIDE_H

/* -O2 leaves loops a number at a time. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

#define SM_LOOP static inline __attribute__((always_inline))

#if defined(__x86_64__)
#define SM_TWICE(type, name, parameters, arguments)                                     \
    __attribute__((target("avx2"))) static type name##_avx2 parameters                  \
    {                                                                                   \
        return name arguments;                                                          \
    }                                                                                   \
    static type name##_here parameters                                                  \
    {                                                                                   \
        return __builtin_cpu_supports("avx2") ? name##_avx2 arguments : name arguments; \
    }
#else
#define SM_TWICE(type, name, parameters, arguments) \
    static type name##_here parameters              \
    {                                               \
        return name arguments;                      \
    }
#endif

#endif
