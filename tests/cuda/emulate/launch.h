/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * What kernels/cuda/launch.cuh offers kernels, for a C++ compiler. */
#ifndef EMULATE_LAUNCH_H
#define EMULATE_LAUNCH_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tuple>
#include <utility>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "fiber.h"

#define __global__
#define __device__
#define __host__
#define __constant__    static
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define KDEV         static inline

#define threadIdx (emulate_cuda::worker->current->index)
#define blockIdx  (emulate_cuda::worker->block)
#define blockDim  (emulate_cuda::worker->block_size)
#define gridDim   (emulate_cuda::worker->grid)
#define warpSize  32

#define SHARED(T, name, dims)                                             \
    static char name##_key;                                               \
    typedef T name##_type dims;                                           \
    name##_type &name = *static_cast<name##_type *>(emulate_cuda::shared( \
        &name##_key, sizeof(name##_type), alignof(name##_type) > 16 ? alignof(name##_type) : (size_t)16))
#define DYN_SHARED(T, name) T *name = static_cast<T *>(emulate_cuda::shared(&emulate_cuda::worker->dynamic, 0, 128))

namespace emulate_cuda
{

template <class... P, class... A>
static inline cudaError_t launch(Place launched, bool follows, void (*kernel)(P...), dim3 grid, dim3 block,
                                 size_t dynamic, cudaStream_t stream, A... given)
{
    static_assert(sizeof...(P) == sizeof...(A), "kn_launch: one argument for each parameter of the kernel");
    std::tuple<P...> values(static_cast<P>(given)...);
    return std::apply(
        [&](P &...value) {
            /* what is aligned to less than a pointer holds none */
            const Argument arguments[sizeof...(P) + 1] = {Argument{&value, alignof(P) < 8 ? 0 : sizeof value}...,
                                                          Argument{nullptr, 0}};
            return queue_kernel(reinterpret_cast<const void *>(kernel), launched, follows, grid, block, dynamic, stream,
                                arguments, (int)sizeof...(P), [kernel, values] { std::apply(kernel, values); });
        },
        values);
}

} // namespace emulate_cuda

#define kn_launch(...) emulate_cuda::launch(emulate_cuda::Place{__FILE__, __LINE__}, __VA_ARGS__)
#include "intrinsics.h"
#include "warp.h"

#endif
