/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Arrays from float32 to bfloat16 and back. */
#include "ops.h"

typedef struct convert_job {
    uint16_t *narrow;
    float *wide;
    size_t n, pieces;
} convert_job;

enum { GRAIN = 1024 }; /* elements: pieces do not share cache lines */

static void narrow_piece(void *arg, size_t index, unsigned worker)
{
    const convert_job *j = arg;
    const size_t blocks = kn_ceil(j->n, GRAIN), to = kn_min(j->n, kn_cut(blocks, j->pieces, index + 1) * GRAIN);
    size_t i = kn_cut(blocks, j->pieces, index) * GRAIN;
    for (; i + VN <= to; i += VN)
        v_store_bf16(j->narrow + i, v_load(j->wide + i));
    if (i < to)
        v_store_bf16_n(j->narrow + i, v_load_n(j->wide + i, to - i), to - i);
}

static void widen_piece(void *arg, size_t index, unsigned worker)
{
    const convert_job *j = arg;
    const size_t blocks = kn_ceil(j->n, GRAIN), to = kn_min(j->n, kn_cut(blocks, j->pieces, index + 1) * GRAIN);
    size_t i = kn_cut(blocks, j->pieces, index) * GRAIN;
    for (; i + VN <= to; i += VN)
        v_store(j->wide + i, v_load_bf16(j->narrow + i));
    if (i < to)
        v_store_n(j->wide + i, v_load_bf16_n(j->narrow + i, to - i), to - i);
}

int KN(to_bf16)(kn_device *device, uint16_t *to, const float *from, size_t n)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.15 * (double)n;
    convert_job j = {.narrow = to, .wide = (float *)from, .n = n, .pieces = kn_pieces(cpu, kn_ceil(n, GRAIN), cost)};
    kn_run(cpu, j.pieces, cost, narrow_piece, &j);
    return KN_OK;
}

int KN(from_bf16)(kn_device *device, float *to, const uint16_t *from, size_t n)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.15 * (double)n;
    convert_job j = {.narrow = (uint16_t *)from, .wide = to, .n = n, .pieces = kn_pieces(cpu, kn_ceil(n, GRAIN), cost)};
    kn_run(cpu, j.pieces, cost, widen_piece, &j);
    return KN_OK;
}
