/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * What every .cu of ours begins with: one text for two compilers. nvcc makes the kernels of the device; a C++ compiler
 * with -Itests/cuda -Itests/cuda/emulate/include runs each CUDA thread as a fiber on the processor, where barriers,
 * warps, copies and streams are checked (tests/cuda/README.md). Kernels keep a few rules for it:
 *
 * - SHARED(float, part, [32]); is a variable in shared memory, its dimensions last; SHARED(int, n, ); has none.
 * - DYN_SHARED(__nv_bfloat16, tile); is the launch's dynamic shared memory, aligned to 128 bytes.
 * - KDEV float square(float x) {...} is a function of the device.
 * - kn_launch(follows, kernel<8>, grid, block, bytes, stream, arguments...) stands for <<<>>>.
 *
 * The size of a block is a multiple of 32. No thread returns before a barrier that others reach. Warp masks are written
 * out; no __activemask, no waiting on memory that another block writes. PTX only in ptx.cuh. Arithmetic on bf16 goes
 * through float. Two barriers never share a line. */
#ifndef KN_CUDA_LAUNCH_CUH
#define KN_CUDA_LAUNCH_CUH

#include <stddef.h>
#include <stdint.h>
#include <cuda_runtime.h>
#include <cuda_bf16.h>

#ifdef __CUDACC__

#include <tuple>

#define SHARED(T, name, dims) __shared__ T name dims
#define DYN_SHARED(T, name)                                             \
    extern __shared__ __align__(128) unsigned char kn_dynamic_shared[]; \
    T *name = reinterpret_cast<T *>(kn_dynamic_shared)
#define KDEV __device__ __forceinline__

/* Queues a kernel on a stream. Arguments are converted to the kernel's own parameter types and copied before it
 * returns. bytes: dynamic shared memory. follows: it may be brought to the multiprocessors before the kernel before it
 * in the stream has ended, and waits for that itself (programmatic dependent launch; capability 9.0). Returns the
 * launch's own error; what the kernel does wrong later shows at the stream. */
template <class... P, class... A>
static inline cudaError_t kn_launch(bool follows, void (*kernel)(P...), dim3 grid, dim3 block, size_t bytes,
                                    cudaStream_t stream, A... arguments)
{
    static_assert(sizeof...(P) == sizeof...(A), "kn_launch: one argument for each parameter of the kernel");
    if (bytes > 48 * 1024) { /* more than this a kernel must ask for */
        cudaError_t status = cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                                  cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
        if (status != cudaSuccess) {
            return status;
        }
    }
    std::tuple<P...> values(static_cast<P>(arguments)...);
    return std::apply(
        [&](P &...value) {
            void *pointers[sizeof...(P) + 1] = {const_cast<void *>(static_cast<const void *>(&value))...};
            cudaLaunchAttribute attribute = {};
            attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
            attribute.val.programmaticStreamSerializationAllowed = 1;
            cudaLaunchConfig_t how = {};
            how.gridDim = grid;
            how.blockDim = block;
            how.dynamicSmemBytes = bytes;
            how.stream = stream;
            how.attrs = &attribute;
            how.numAttrs = follows ? 1 : 0;
            return cudaLaunchKernelExC(&how, reinterpret_cast<const void *>(kernel), pointers);
        },
        values);
}

#else
#include <emulate/launch.h>
#endif

#endif
