/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A CPU device whose products of bfloat16 are kernels/cpu/gemm_amx.c with the tile instructions in C
 * (kernels/cpu/amx.h): so that code runs on processors without AMX. Programs that use it link kernels/libamxemulated.a.
 */
#ifndef AMX_EMULATED_H
#define AMX_EMULATED_H

#include "kernels/ops.h"

/* NULL where the processor or the compiler lacks AVX-512. Free with kn_cpu_free. */
kn_device *amx_emulated_device(int threads);
/* C[M, N] = A·B as the emulated instructions define it, one element after the other: A[M, K] in rows, w[N, K] = Bᵀ. */
void amx_define(float *c, const uint16_t *a, const uint16_t *w, size_t M, size_t N, size_t K);

#endif
