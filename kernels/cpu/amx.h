/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The tile instructions of AMX, or, with KN_AMX_EMULATED, plain C functions that do what Intel's manual says they do
 * (Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS, TILELOADD, …), so that the code above them
 * runs and is tested on machines that have none. Tile numbers are literals.
 *
 * TDPBF16PS adds to C[16][16] (float32) the product of A[rows][32] and B[32][16] (bfloat16, B as pairs of k side by
 * side): per element two chains of fused multiply-adds, over the even k and over the odd, both from 0; their sum is
 * added to C. Denormals are zero, in and out.
 *
 * Everything above the instructions has been run in emulation only (tests/amx_emulated.h). A device with AMX first
 * tries a small product against the definition below, and goes another way where it errs.
 */
#ifndef KN_AMX_H
#define KN_AMX_H

#include "kernels/bf16.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What LDTILECFG reads. */
typedef struct kn_tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
} kn_tile_shapes;

static inline float kn_flush(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x;
}

/* One element's share of a TDPBF16PS: `pairs` pairs of a, and of b with `step` elements from pair to pair. */
static inline float kn_tile_dot(float c, const uint16_t *a, const uint16_t *b, size_t step, size_t pairs)
{
    float even = 0, odd = 0;
    for (size_t k = 0; k < pairs; k++) {
        even = kn_flush(fmaf(kn_flush(kn_widen(a[2 * k])), kn_flush(kn_widen(b[k * step])), even));
        odd = kn_flush(fmaf(kn_flush(kn_widen(a[2 * k + 1])), kn_flush(kn_widen(b[k * step + 1])), odd));
    }
    return kn_flush(kn_flush(c) + kn_flush(even + odd));
}

#ifdef KN_AMX_EMULATED

typedef struct kn_tiles {
    kn_tile_shapes shapes;
    uint8_t tile[8][16][64];
} kn_tiles;

static _Thread_local kn_tiles kn_amx;

static inline void kn_tile_config(const kn_tile_shapes *shapes)
{
    memset(&kn_amx, 0, sizeof(kn_amx));
    kn_amx.shapes = *shapes;
}

static inline void kn_tile_release(void)
{
    memset(&kn_amx, 0, sizeof(kn_amx));
}

static inline void kn_tile_zero(int tile)
{
    memset(kn_amx.tile[tile], 0, sizeof(kn_amx.tile[tile]));
}

static inline void kn_tile_load(int tile, const void *from, size_t stride)
{
    kn_tile_zero(tile);
    for (size_t r = 0; r < kn_amx.shapes.rows[tile]; r++)
        memcpy(kn_amx.tile[tile][r], (const char *)from + r * stride, kn_amx.shapes.bytes[tile]);
}

static inline void kn_tile_store(int tile, void *to, size_t stride)
{
    for (size_t r = 0; r < kn_amx.shapes.rows[tile]; r++)
        memcpy((char *)to + r * stride, kn_amx.tile[tile][r], kn_amx.shapes.bytes[tile]);
}

static inline void kn_tile_dpbf16(int c, int a, int b)
{
    uint16_t left[32], right[16][32];
    memcpy(right, kn_amx.tile[b], sizeof(right));
    for (size_t r = 0; r < kn_amx.shapes.rows[c]; r++) {
        float sum[16];
        memcpy(left, kn_amx.tile[a][r], sizeof(left));
        memcpy(sum, kn_amx.tile[c][r], sizeof(sum));
        for (size_t n = 0; n < kn_amx.shapes.bytes[c] / 4u; n++)
            sum[n] = kn_tile_dot(sum[n], left, &right[0][2 * n], 32, kn_amx.shapes.bytes[a] / 4u);
        memcpy(kn_amx.tile[c][r], sum, sizeof(sum));
    }
}

#else

#include <immintrin.h>

/* GCC (bug 114098, before 14) takes LDTILECFG for reading 8 bytes: the operand of the empty instruction keeps the rest.
 */
static inline void kn_tile_config(const kn_tile_shapes *shapes)
{
    __asm__ volatile("" ::"r"(shapes) : "memory");
    _tile_loadconfig(shapes);
}

/* The compiler's tile loads do not say that they read memory: the barrier does. */
#define kn_tile_barrier()                __asm__ volatile("" ::: "memory")
#define kn_tile_release()                _tile_release()
#define kn_tile_zero(tile)               _tile_zero(tile)
#define kn_tile_load(tile, from, stride) _tile_loadd(tile, from, stride)
#define kn_tile_store(tile, to, stride)  _tile_stored(tile, to, stride)
#define kn_tile_dpbf16(c, a, b)          _tile_dpbf16ps(c, a, b)

#endif

#ifndef kn_tile_barrier
#define kn_tile_barrier() ((void)0)
#endif

#endif
