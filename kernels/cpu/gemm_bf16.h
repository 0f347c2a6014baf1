/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products of bfloat16: the layout of packed weights, and the ways of multiplying them. A device picks one way
 * when it is made (device.c); gemm_bf16.c is compiled once per way, the ops above them (linear_bf16.c, vocabulary.c)
 * call the way's table.
 *
 *   widened      elements widened to float32, one chain of fused multiply-adds a sum: the same bits as the float32
 *                product of the same numbers, on every instruction set that has them.
 *   avx512bf16   VDPBF16PS: pairs (0, 1), (2, 3), … of k, each added to the sum by two fused multiply-adds that flush
 *                denormals.
 *   amx          TDPBF16PS: blocks of 32 k, see amx.h and gemm_amx.c.
 *
 * In all of them an output's sum runs in one order of k that nothing but k decides.
 *
 * The layout. B[K, N] lies in panels of KN_PANEL columns; a panel holds, for each pair of k, its columns side by side,
 * each with its two elements: element (k, n) is at (n / 16)·stride + (k / 2)·32 + (n % 16)·2 + k % 2. K is filled up
 * with zeros to a multiple of 32 and the last panel with zero columns, so a panel is a row of whole AMX tiles, and
 * starts on a cache line.
 */
#ifndef KN_CPU_GEMM_BF16_H
#define KN_CPU_GEMM_BF16_H

#include "cpu.h"

enum {
    KN_PANEL = 16,
    KN_DEPTH16 = 512, /* rows packed at a time for a weight gradient: whole row_groups. The block of a part: */
    KN_WEIGHT_OUTPUTS = 256,
    KN_WEIGHT_PANELS = 256 / KN_PANEL, /* so that what is packed stays in the second-level cache */
};

/* Elements from panel to panel. */
static inline size_t kn_panel_stride(size_t K)
{
    return kn_ceil(K, 32) * 32 * KN_PANEL;
}

/* C[·, N] = A·B, K deep. The result goes to c in float32 (added to what is there when `accumulate`), or, when c is
 * NULL, to y: round(A·B + bias + residual), where y may be residual. */
typedef struct kn_product16 {
    size_t N, K;
    const uint16_t *a;
    size_t lda;
    const uint16_t *packed;
    size_t panel_stride;
    size_t ldc; /* elements from row to row of c, y and residual */
    float *c;
    bool accumulate;
    uint16_t *y;
    const float *bias;
    const uint16_t *residual;
} kn_product16;

/* dw[out, in] += dyᵀ·x, rows in pairs, or in blocks of 32 (row_group); onto zeros unless `accumulate`. */
typedef struct kn_weight16 {
    float *dw;
    size_t lddw;
    const uint16_t *dy, *x;
    size_t lddy, ldx, T, out, in;
    bool accumulate;
} kn_weight16;

typedef struct kn_way16 {
    const char *name;
    size_t tile_rows; /* rows that one block holds in registers */
    size_t row_group; /* rows that a weight gradient takes together */
    /* Rows [row, row_end) and panels [panel, panel_end). scratch: kn_product16_room bytes, 64-byte aligned. */
    void (*product)(const kn_product16 *, size_t row, size_t row_end, size_t panel, size_t panel_end, void *scratch);
    /* Outputs [out, out_end), at most KN_WEIGHT_OUTPUTS, and panels of inputs, added to what is there. scratch:
     * kn_weight16_room bytes. */
    void (*weight)(const kn_weight16 *, size_t out, size_t out_end, size_t panel, size_t panel_end, void *scratch);
    /* W's panels of outputs [panel, panel_end) from float32 W[out, in], rounded, into `forward` (the layout of Wᵀ:
     * K = in, N = out), and their part of `back` (K = out, N = in) unless NULL. Fillings are zero beforehand. */
    void (*pack)(uint16_t *forward, uint16_t *back, const float *w, size_t out, size_t in, size_t panel,
                 size_t panel_end);
} kn_way16;

/* Scratch of product: its rows of A where they must be copied (widened; K odd; rows that crowd the cache). */
static inline size_t kn_product16_room(size_t rows, size_t K)
{
    return rows * (kn_ceil(K, 32) * 32 + 32) * sizeof(float);
}

static inline size_t kn_weight16_room(const kn_way16 *way, size_t outputs, size_t panels)
{
    return KN_DEPTH16 * (kn_ceil(outputs, way->tile_rows) * 16 * sizeof(float) + panels * KN_PANEL * sizeof(uint16_t));
}

const kn_way16 *kn_way16_plain(void);
const kn_way16 *kn_way16_avx2(void);
const kn_way16 *kn_way16_avx512(void);
const kn_way16 *kn_way16_neon(void);
const kn_way16 *kn_way16_avx512bf16(void);
const kn_way16 *kn_way16_amx(void);
/* Why this machine cannot go that way; NULL = it can, which a small product has shown. */
const char *kn_amx_refused_amx(void);
/* The same with the instructions in C, in kernels/libamxemulated.a alone. */
const kn_way16 *kn_way16_amx_emulated(void);
const char *kn_amx_refused_amx_emulated(void);

#endif
