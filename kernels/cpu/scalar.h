/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * exp and log in float64 for the few places where a row's parts are put together, and powers for AdamW's bias
 * correction. Plain double arithmetic without contraction: the same bits on every machine. Relative error about 1e-15.
 */
#ifndef KN_SCALAR_H
#define KN_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline double kn_exp(double x)
{
    if (!(x > -700))
        return x == x ? 0 : x;
    if (x > 709)
        return INFINITY;
    const int n = (int)(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5));
    const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    static const double part[] = {1.0,     1.0 / 2, 1.0 / 3,  1.0 / 4,  1.0 / 5,  1.0 / 6, 1.0 / 7,
                                  1.0 / 8, 1.0 / 9, 1.0 / 10, 1.0 / 11, 1.0 / 12, 1.0 / 13};
    double p = 1;
    for (int i = 12; i >= 0; i--)
        p = 1 + p * r * part[i]; /* Σ rⁿ/n! */
    const uint64_t bits = (uint64_t)(n + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
}

/* x > 0 and normal. */
static inline double kn_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & UINT64_C(0xfffffffffffff)) | UINT64_C(0x3ff0000000000000);
    double m;
    memcpy(&m, &bits, sizeof(m));
    if (m > 1.4142135623730951) {
        m /= 2;
        e++;
    }
    const double s = (m - 1) / (m + 1), z = s * s;
    static const double part[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9, 1.0 / 11,
                                  1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
    double p = 0;
    for (int i = 10; i >= 0; i--)
        p = p * z + part[i]; /* artanh(s)/s */
    return e * 6.93147180369123816490e-01 + (2 * s * p + e * 1.90821492927058770002e-10);
}

static inline double kn_power(double x, uint64_t n)
{
    double r = 1;
    for (; n > 0; n >>= 1, x *= x)
        if (n & 1)
            r *= x;
    return r;
}

#endif
