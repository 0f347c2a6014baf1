/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/dtype.h"

#include <string.h>

#include "model/wide.h"

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

/* These return the largest of their numbers' magnitudes, as bits, which are in the order of the values: to check is to
 * compare once, behind the loop. */

SM_LOOP uint32_t largest_f32(const float *values, size_t count)
{
    int32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        const int32_t magnitude = (int32_t)(bits_of(values[i]) & 0x7fffffff);
        largest = magnitude > largest ? magnitude : largest;
    }
    return (uint32_t)largest;
}

SM_LOOP uint32_t decode_bf16(float *restrict to, const char *restrict from, size_t count)
{
    int16_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, from + 2 * i, sizeof half);
        const int16_t magnitude = (int16_t)(half & 0x7fff);
        largest = magnitude > largest ? magnitude : largest;
        to[i] = float_of((uint32_t)half << 16);
    }
    return (uint32_t)largest << 16;
}

SM_LOOP uint32_t encode_bf16(char *restrict to, const float *restrict from, size_t count)
{
    int32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        const int32_t magnitude = (int32_t)(bits_of(from[i]) & 0x7fffffff);
        const uint16_t half = bf16_encode(from[i]);
        largest = magnitude > largest ? magnitude : largest;
        memcpy(to + 2 * i, &half, sizeof half);
    }
    return (uint32_t)largest;
}

SM_TWICE(uint32_t, largest_f32, (const float *values, size_t count), (values, count))
SM_TWICE(uint32_t, decode_bf16, (float *to, const char *from, size_t count), (to, from, count))
SM_TWICE(uint32_t, encode_bf16, (char *to, const float *from, size_t count), (to, from, count))

static uint32_t decode_f16(float *restrict to, const char *restrict from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, from + 2 * i, sizeof half);
        to[i] = f16_decode(half);
    }
    return largest_f32_here(to, count);
}

static uint32_t encode_f16(char *restrict to, const float *restrict from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const uint16_t half = f16_encode(from[i]);
        memcpy(to + 2 * i, &half, sizeof half);
    }
    return largest_f32_here(from, count);
}

/* The smallest magnitude that is infinite in a dtype: rounding takes it there. */
static uint32_t limit_of(kn_dtype dtype)
{
    return dtype == KN_F32 ? 0x7f800000 : dtype == KN_BF16 ? 0x7f7f8000 : bits_of(65520.0f);
}

bool sm_dtype_finite(const float *values, size_t count)
{
    return largest_f32_here(values, count) < limit_of(KN_F32);
}

bool sm_dtype_decode(float *to, const void *from, size_t count, kn_dtype dtype)
{
    if (dtype == KN_BF16) {
        return decode_bf16_here(to, from, count) < limit_of(KN_F32);
    }
    if (dtype == KN_F16) {
        return decode_f16(to, from, count) < limit_of(KN_F32);
    }
    if (to != from) {
        memcpy(to, from, count * sizeof *to);
    }
    return sm_dtype_finite(to, count);
}

bool sm_dtype_encode(void *to, const float *from, size_t count, kn_dtype dtype)
{
    if (dtype == KN_F32) {
        memcpy(to, from, count * sizeof *from);
        return sm_dtype_finite(from, count);
    }
    const uint32_t largest = dtype == KN_BF16 ? encode_bf16_here(to, from, count) : encode_f16(to, from, count);
    return largest < limit_of(dtype);
}
