/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/dtype.h"

#include <string.h>

/* Whole checkpoints pass through these loops; -O2 leaves them a number at a time. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weight files are little-endian, and so is every machine this runs on"
#endif

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float f16_decode(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
    if (exponent == 0x1f) {
        return float_of(sign | 0x7f800000 | fraction << 13);
    }
    if (exponent == 0) { /* zero or subnormal: fraction · 2⁻²⁴, exact in float32 */
        return float_of(sign | bits_of((float)fraction * 0x1p-24f));
    }
    return float_of(sign | (exponent + 112) << 23 | fraction << 13);
}

static uint16_t f16_encode(float value)
{
    const uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffff;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude >= 0x47800000) { /* 65536 and above */
        return sign | 0x7c00;
    }
    if (magnitude < 0x38800000) {
        /* Below 2⁻¹⁴ the result is a multiple of 2⁻²⁴: adding 0.5 makes the hardware round at exactly that bit. */
        return sign | (uint16_t)(bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f));
    }
    const uint32_t rounded = magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1);
    return sign | (uint16_t)(rounded >> 13);
}

static uint16_t bf16_encode(float value)
{
    const uint32_t bits = bits_of(value);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

size_t sm_dtype_size(kn_dtype dtype)
{
    return dtype == KN_F32 ? 4 : 2;
}

void sm_dtype_decode(float *to, const void *from, size_t count, kn_dtype dtype)
{
    if (dtype == KN_F32) {
        memcpy(to, from, count * sizeof *to);
        return;
    }
    const char *restrict at = from;
    float *restrict out = to;
    for (size_t i = 0; dtype == KN_BF16 && i < count; i++) {
        uint16_t half;
        memcpy(&half, at + 2 * i, sizeof half);
        out[i] = float_of((uint32_t)half << 16);
    }
    for (size_t i = 0; dtype == KN_F16 && i < count; i++) {
        uint16_t half;
        memcpy(&half, at + 2 * i, sizeof half);
        out[i] = f16_decode(half);
    }
}

void sm_dtype_encode(void *to, const float *from, size_t count, kn_dtype dtype)
{
    if (dtype == KN_F32) {
        memcpy(to, from, count * sizeof *from);
        return;
    }
    char *restrict at = to;
    const float *restrict in = from;
    for (size_t i = 0; dtype == KN_BF16 && i < count; i++) {
        const uint16_t half = bf16_encode(in[i]);
        memcpy(at + 2 * i, &half, sizeof half);
    }
    for (size_t i = 0; dtype == KN_F16 && i < count; i++) {
        const uint16_t half = f16_encode(in[i]);
        memcpy(at + 2 * i, &half, sizeof half);
    }
}

bool sm_dtype_holds(const float *values, size_t count, kn_dtype dtype)
{
    /* The smallest magnitude that rounds to infinity; as bits, magnitudes are in the order of their values. */
    const uint32_t limit = dtype == KN_F32 ? 0x7f800000 : dtype == KN_BF16 ? 0x7f7f8000 : bits_of(65520.0f);
    int32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        const int32_t magnitude = (int32_t)(bits_of(values[i]) & 0x7fffffff);
        largest = magnitude > largest ? magnitude : largest;
    }
    return (uint32_t)largest < limit;
}
