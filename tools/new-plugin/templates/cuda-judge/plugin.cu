/* @ID@: the kernels. */
#include <cuda_runtime.h>

#include "@NAME@.h"

/* A block a text; its threads take the text's n-grams in turn. Words are hashes, so that a comparison is one of numbers. */
__global__ void overlap_kernel(float *overlap, const struct text *texts, const uint64_t *words, uint32_t n)
{
    __shared__ uint32_t found[128];
    const struct text t = texts[blockIdx.x];
    const uint32_t grams = t.end - t.begin >= n ? t.end - t.begin - n + 1 : 0;
    const uint32_t references = t.reference_end - t.reference >= n ? t.reference_end - t.reference - n + 1 : 0;
    uint32_t mine = 0;
    for (uint32_t g = threadIdx.x; g < grams; g += blockDim.x) {
        bool there = false;
        for (uint32_t r = 0; r < references && !there; r++) {
            there = true;
            for (uint32_t k = 0; k < n && there; k++)
                there = words[t.begin + g + k] == words[t.reference + r + k];
        }
        mine += there;
    }
    found[threadIdx.x] = mine;
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t all = 0;
        for (uint32_t i = 0; i < blockDim.x; i++)
            all += found[i];
        overlap[blockIdx.x] = grams > 0 ? (float)all / (float)grams : NO_SHARE;
    }
}

extern "C" int launch_overlap(float *overlap, const struct text *texts, uint32_t count, const uint64_t *words,
                              uint32_t n, void *stream)
{
    if (count > 0)
        overlap_kernel<<<count, 128, 0, (cudaStream_t)stream>>>(overlap, texts, words, n);
    return (int)cudaGetLastError();
}
