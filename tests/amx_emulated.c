/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "kernels/cpu/amx.h"
#include "kernels/cpu/gemm_bf16.h"
#include "tests/amx_emulated.h"

kn_device *amx_emulated_device(int threads)
{
    kn_device *device = NULL;
#ifdef KN_HAVE_X86
    device = kn_cpu_new(threads, "avx512", NULL);
    if (device)
        ((kn_cpu *)device)->way16 = kn_way16_amx_emulated();
#endif
    return device;
}

void amx_define(float *c, const uint16_t *a, const uint16_t *w, size_t M, size_t N, size_t K)
{
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            float sum = 0;
            for (size_t from = 0; from < K; from += 32) {
                uint16_t left[32] = {0}, right[32] = {0};
                const size_t n = kn_min(32, K - from);
                memcpy(left, a + i * K + from, n * sizeof(*left));
                memcpy(right, w + j * K + from, n * sizeof(*right));
                sum = kn_tile_dot(sum, left, right, 2, 16);
            }
            c[i * N + j] = sum;
        }
}
