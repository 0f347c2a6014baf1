/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a kernel may begin before the one before it has ended (programmatic dependent launch: CUDA C++ programming
 * guide). Code for capability 9.0 waits for it by itself (ptx.cuh, follow); older code, also where the driver makes it
 * anew for a newer device, does not, and must then not be launched so. Graphs take such launches from CUDA 12.3 on.
 */
#include "cuda.h"
#include "launch.cuh"

enum { CUDA_12_3 = 12030 };

/* Stands for all kernels of the build, which are compiled for the same architectures; it is never launched. */
static __global__ void __launch_bounds__(32) follower()
{
}

bool kn_cuda_overlaps(int capability)
{
    int runtime = 0, driver = 0;
    if (capability < 90 || cudaRuntimeGetVersion(&runtime) != cudaSuccess ||
        cudaDriverGetVersion(&driver) != cudaSuccess || runtime < CUDA_12_3 || driver < CUDA_12_3)
        return false;
    cudaFuncAttributes code = {};
    if (cudaFuncGetAttributes(&code, reinterpret_cast<const void *>(follower)) != cudaSuccess) {
        cudaGetLastError();
        return false;
    }
    return code.ptxVersion >= 90;
}
