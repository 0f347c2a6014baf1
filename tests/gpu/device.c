/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The first GPU as the CUDA runtime sees it, in the form of nvidia-smi's table: for machines without that program. */
#include <stdio.h>
#include <cuda_runtime_api.h>

int main(void)
{
    struct cudaDeviceProp p;
    int devices = 0, driver = 0;
    cudaError_t error = cudaGetDeviceCount(&devices);
    if (error == cudaSuccess && devices > 0)
        error = cudaGetDeviceProperties(&p, 0);
    if (error != cudaSuccess || devices == 0) {
        printf("the CUDA runtime finds no GPU: %s\n", cudaGetErrorString(error));
        return 77;
    }
    cudaDriverGetVersion(&driver);
    printf("%s, %d.%d, %zu MiB, for CUDA %d.%d\n", p.name, p.major, p.minor, (size_t)p.totalGlobalMem >> 20,
           driver / 1000, driver % 1000 / 10);
    return 0;
}
