/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* bfloat16: the upper half of a float32's bits. The one definition of how numbers go from one type to the other. */
#ifndef KERNELS_BF16_H
#define KERNELS_BF16_H

#include <stdint.h>
#include <string.h>

static inline float kn_widen(uint16_t b)
{
    const uint32_t bits = (uint32_t)b << 16;
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* To the nearest, ties to even; denormals are kept, what is too large becomes infinity, NaN stays NaN (made quiet). */
static inline uint16_t kn_narrow(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Up or down at random, in proportion to how near each is: `random` is uniform in 0 … 65535. Infinity and NaN stay. */
static inline uint16_t kn_narrow_random(float x, uint32_t random)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    if ((bits & 0x7f800000) == 0x7f800000)
        return kn_narrow(x);
    return (uint16_t)((bits + (random & 0xffff)) >> 16);
}

#endif
