/* @ID@: the kernels. */
#include <cuda_runtime.h>

#include "@NAME@.h"

/* Block b sums its n/PARTS numbers: each thread every 128th of them, then one thread the threads' sums. No atomics:
 * they would add in another order each time. */
__global__ void parts_kernel(double *parts, const float *x, size_t n)
{
    __shared__ double sum[128];
    __shared__ double square[128];
    const size_t share = (n + PARTS - 1) / PARTS, from = blockIdx.x * share, to = from + share < n ? from + share : n;
    double s = 0, q = 0;
    for (size_t i = from + threadIdx.x; i < to; i += blockDim.x) {
        s += x[i];
        q += (double)x[i] * x[i];
    }
    sum[threadIdx.x] = s;
    square[threadIdx.x] = q;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (unsigned t = 1; t < blockDim.x; t++) {
            s += sum[t];
            q += square[t];
        }
        parts[2 * blockIdx.x] = s;
        parts[2 * blockIdx.x + 1] = q;
    }
}

__global__ void total_kernel(double *sums, const double *parts)
{
    if (threadIdx.x < 2) {
        double total = 0;
        for (int p = 0; p < PARTS; p++)
            total += parts[2 * p + threadIdx.x];
        sums[threadIdx.x] = total;
    }
}

__global__ void weights_kernel(float *weight, const float *x, const double *sums, size_t n)
{
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        const double mean = sums[0] / (double)n, variance = sums[1] / (double)n - mean * mean;
        weight[i] = variance > 0 ? (float)(1 / (1 + exp(-(x[i] - mean) / sqrt(variance)))) : 0.5f;
    }
}

extern "C" int launch_sums(double *sums, double *parts, const float *x, size_t n, void *stream)
{
    parts_kernel<<<PARTS, 128, 0, (cudaStream_t)stream>>>(parts, x, n);
    total_kernel<<<1, 32, 0, (cudaStream_t)stream>>>(sums, parts);
    return (int)cudaGetLastError();
}

extern "C" int launch_weights(float *weight, const float *x, const double *sums, size_t n, void *stream)
{
    weights_kernel<<<(unsigned)((n + 255) / 256), 256, 0, (cudaStream_t)stream>>>(weight, x, sums, n);
    return (int)cudaGetLastError();
}
