/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * Kernels on their way to the device: what of a launch can be checked at once, and what when it runs. */
#include "runtime.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

namespace emulate_cuda
{

static void run_kernel(const void *kernel, Place launched, bool follows, const std::vector<uint64_t> &pointers,
                       const Stream *stream, dim3 grid, dim3 block, size_t dynamic, const std::function<void()> &body)
{
    std::string why;
    for (uint64_t word : pointers) {
        if (stale_pointer(word, stream, &why)) {
            fault("%s, launched at %s:%d, is given %s", name_of(kernel).c_str(), launched.file, launched.line,
                  why.c_str());
            return;
        }
    }
    rt.counts.ran++;
    if ((settings.fail_device < 0 || settings.fail_device == stream->device) && out_of_luck(&settings.fail_launch)) {
        broken(stream->device) = (cudaError_t)settings.launch_error;
        return;
    }
    if (out_of_luck(&settings.signal_launch)) {
        kill(getpid(), settings.signal);
    }
    rt.kernel = kernel;
    carried_out.insert(kernel);
    bool ran = true;
    if (follows) { /* on a device this may come before the kernel before it has ended */
        close_memory();
        ran = run_grid(kernel, launched, grid, block, dynamic, true, body);
    }
    open_memory();
    ran = ran && run_grid(kernel, launched, grid, block, dynamic, false, body);
    if (!ran) {
        broken(stream->device) = cudaErrorLaunchFailure;
    } else if (!zones_untouched(&why)) {
        fault("%s, launched at %s:%d: %s", name_of(kernel).c_str(), launched.file, launched.line, why.c_str());
    }
}

cudaError_t queue_kernel(const void *kernel, Place launched, bool follows, dim3 grid, dim3 block, size_t dynamic,
                         cudaStream_t handle, const Argument *arguments, int count, std::function<void()> body)
{
    EMULATE_BEGIN();
    const std::shared_ptr<Stream> stream = stream_of(handle);
    if (stream == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    if (settings.capability < 80) {
        return answer(cudaErrorNoKernelImageForDevice);
    }
    if (follows && settings.capability < 90) {
        return answer(cudaErrorNotSupported);
    }
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (threads == 0 || threads > MAX_THREADS || block.z > 64 || (uint64_t)grid.x * grid.y * grid.z == 0 ||
        grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535) {
        return answer(cudaErrorInvalidConfiguration);
    }
    if (dynamic > (size_t)shared_most()) {
        return answer(cudaErrorInvalidValue);
    }
    if (threads % 32 != 0) {
        fault("%s, launched at %s:%d: a block of %u threads is no multiple of 32", name_of(kernel).c_str(),
              launched.file, launched.line, (unsigned)threads);
        return answer(cudaErrorInvalidConfiguration);
    }
    std::vector<uint64_t> pointers;
    for (int i = 0; i < count; i++) {
        for (size_t at = 0; at + 8 <= arguments[i].size; at += 8) {
            uint64_t word;
            int device;
            memcpy(&word, static_cast<const char *>(arguments[i].bytes) + at, 8);
            if (host_pointer(word)) {
                fault("%s, launched at %s:%d: argument %d points to host memory that is not pinned",
                      name_of(kernel).c_str(), launched.file, launched.line, i + 1);
                return answer(cudaErrorIllegalAddress);
            }
            if (where(reinterpret_cast<void *>(word), &device) == DEVICE) {
                const Card &mine = rt.cards[(size_t)stream->device];
                if (device != stream->device && !mine.peers[(size_t)device]) {
                    fault(
                        "%s, launched at %s:%d: argument %d points to memory of device %d, the stream is of device %d",
                        name_of(kernel).c_str(), launched.file, launched.line, i + 1, device, stream->device);
                    return answer(cudaErrorIllegalAddress);
                }
                pointers.push_back(word);
            }
        }
    }
    rt.counts.launches += stream->capture == nullptr;
    rt.counts.following += follows;
    return answer(enqueue(stream, Work{"a kernel",
                                       [=, body = std::move(body)] {
                                           run_kernel(kernel, launched, follows, pointers, stream.get(), grid, block,
                                                      dynamic, body);
                                       },
                                       {}}));
}

} // namespace emulate_cuda

using namespace emulate_cuda;

extern "C" cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *)
{
    EMULATE_BEGIN();
    attributes->ptxVersion = attributes->binaryVersion = settings.code != 0 ? settings.code : settings.capability;
    return cudaSuccess;
}
