/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * Settings, faults and errors. */
#include "runtime.h"
#include "sanitizer.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace emulate_cuda
{

Runtime &rt = *new Runtime;

static emulate_settings usual()
{
    emulate_settings s = {};
    s.threads = 1;
    s.fatal = true;
    s.devices = 1;
    s.memory = (size_t)4 << 30;
    s.capability = 90;
    s.multiprocessors = 16;
    s.driver = CUDART_VERSION;
    s.launch_error = cudaErrorIllegalAddress;
    s.signal = SIGKILL;
    s.refusals = 1;
    s.fail_device = -1;
    s.closed = -1;
    s.nccl = 22809;
    s.patience = 10000;
    return s;
}

static const emulate_settings defaults = usual();
emulate_settings settings = defaults;
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static __thread cudaError_t last;

static void set(const char *key, const char *value)
{
    char *end;
    long long n = strtoll(value, &end, 10);
    n <<= *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (end == value || strcmp(end + (*end != 0 && strchr("KMG", *end) != nullptr), "") != 0) {
        fprintf(stderr, "EMULATED_CUDA: %s=%s is no number\n", key, value);
        exit(2);
    }
    if (strcmp(key, "seed") == 0) {
        settings.seed = (uint64_t)n;
    } else if (strcmp(key, "threads") == 0) {
        settings.threads = (int)n;
    } else if (strcmp(key, "fatal") == 0) {
        settings.fatal = n != 0;
    } else if (strcmp(key, "devices") == 0) {
        settings.devices = (int)n;
    } else if (strcmp(key, "memory") == 0) {
        settings.memory = (size_t)n;
    } else if (strcmp(key, "capability") == 0) {
        settings.capability = (int)n;
    } else if (strcmp(key, "code") == 0) {
        settings.code = (int)n;
    } else if (strcmp(key, "multiprocessors") == 0) {
        settings.multiprocessors = (int)n;
    } else if (strcmp(key, "driver") == 0) {
        settings.driver = (int)n;
    } else if (strcmp(key, "fail_launch") == 0) {
        settings.fail_launch = n;
    } else if (strcmp(key, "launch_error") == 0) {
        settings.launch_error = (int)n;
    } else if (strcmp(key, "signal_launch") == 0) {
        settings.signal_launch = n;
    } else if (strcmp(key, "signal") == 0) {
        settings.signal = (int)n;
    } else if (strcmp(key, "fail_allocation") == 0) {
        settings.fail_allocation = n;
    } else if (strcmp(key, "refusals") == 0) {
        settings.refusals = n;
    } else if (strcmp(key, "exclusive") == 0) {
        settings.exclusive = n != 0;
    } else if (strcmp(key, "fail_pinned") == 0) {
        settings.fail_pinned = n;
    } else if (strcmp(key, "fail_device") == 0) {
        settings.fail_device = (int)n;
    } else if (strcmp(key, "small") == 0) {
        settings.small = (size_t)n;
    } else if (strcmp(key, "other") == 0) {
        settings.other = (int)n;
    } else if (strcmp(key, "nccl") == 0) {
        settings.nccl = (int)n;
    } else if (strcmp(key, "fail_nccl") == 0) {
        settings.fail_nccl = n;
    } else if (strcmp(key, "closed") == 0) {
        settings.closed = (int)n;
    } else if (strcmp(key, "refuse_graph") == 0) {
        settings.refuse_graph = (int)n;
    } else if (strcmp(key, "patience") == 0) {
        settings.patience = (int)n;
    } else {
        fprintf(stderr, "EMULATED_CUDA: no setting \"%s\"; control.h lists them\n", key);
        exit(2);
    }
}

static void read_environment()
{
    const char *text = getenv("EMULATED_CUDA");
    std::string all = text != nullptr ? text : "";
    while (!all.empty()) {
        const size_t end = all.find(','), equal = all.find('=');
        const std::string item = all.substr(0, end);
        if (equal == std::string::npos || equal > item.size()) {
            fprintf(stderr, "EMULATED_CUDA: \"%s\" is no key=value\n", item.c_str());
            exit(2);
        }
        set(item.substr(0, equal).c_str(), item.substr(equal + 1).c_str());
        all = end == std::string::npos ? "" : all.substr(end + 1);
    }
}

std::set<const void *> carried_out;

/* EMULATED_CUDA_COUNTS=FILE: what is left of a program that used a device, when it ends. EMULATED_CUDA_KERNELS=FILE:
 * the kernels that it carried out, one a line. */
static struct Account {
    static FILE *file(const char *variable)
    {
        const char *name = getenv(variable);
        return name != nullptr && rt.begun ? fopen(name, "a") : nullptr;
    }

    ~Account()
    {
        if (FILE *kernels = file("EMULATED_CUDA_KERNELS")) {
            for (const void *kernel : carried_out) {
                fprintf(kernels, "%s\n", name_of(kernel).c_str());
            }
            fclose(kernels);
        }
        if (FILE *counts = file("EMULATED_CUDA_COUNTS")) {
            const emulate_counts c = emulate_count();
            fprintf(counts,
                    "contexts %d streams %d events %d allocations %d pinned %d bytes %zu most %zu launches %llu graphs "
                    "%llu communicators %d sums %llu taken %llu ran %llu\n",
                    c.contexts, c.streams, c.events, c.allocations, c.pinned, c.bytes, c.most,
                    (unsigned long long)c.launches, (unsigned long long)c.graph_launches, c.communicators,
                    (unsigned long long)c.sums, (unsigned long long)c.taken, (unsigned long long)c.ran);
            fclose(counts);
        }
    }
} account;

Call::Call()
{
    pthread_mutex_lock(&lock);
    if (!rt.begun) {
        rt.begun = true;
        static bool read;
        if (!read) {
            read = true;
            read_environment();
        }
    }
}

Call::~Call()
{
    pthread_mutex_unlock(&lock);
}

void let_others()
{
    pthread_mutex_unlock(&lock);
    usleep(50);
    pthread_mutex_lock(&lock);
}

cudaError_t &broken(int device)
{
    return rt.broken[device];
}

cudaError_t &broken()
{
    return rt.broken[rt.working >= 0 ? rt.working : current_device()];
}

cudaError_t answer(cudaError_t error)
{
    if (error != cudaSuccess) {
        last = error;
    }
    return error;
}

/* The generator SplitMix64. */
uint64_t draw()
{
    if (rt.random_of != settings.seed) { /* tests change it as they go */
        rt.random_of = settings.seed;
        rt.random = settings.seed << 32;
    }
    uint64_t r = rt.random += 0x9e3779b97f4a7c15u;
    r = (r ^ r >> 30) * 0xbf58476d1ce4e5b9u;
    r = (r ^ r >> 27) * 0x94d049bb133111ebu;
    return r ^ r >> 31;
}

void fault(const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    note_fault(text);
    if (settings.fatal) {
        fprintf(stderr, "emulated CUDA: %s\n", text);
        abort();
    }
    if (broken() == cudaSuccess) {
        broken() = cudaErrorLaunchFailure;
    }
}

} // namespace emulate_cuda

using namespace emulate_cuda;

extern "C" {

emulate_settings *emulate(void)
{
    Call call;
    return &settings;
}

emulate_counts emulate_count(void)
{
    Call call;
    emulate_counts counts = rt.counts;
    counts.allocations = counts.streams = 0;
    counts.pinned = (int)rt.pinned.size();
    counts.streams = (int)rt.handles.size();
    for (const Card &card : rt.cards) {
        counts.allocations += (int)card.blocks.size();
    }
    return counts;
}

/* What a broken device holds cannot be given back, here as there, so LeakSanitizer has nothing to say; the counts tell
 * of what a working one keeps. */
#ifdef EMULATE_ASAN
extern "C" __attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}
#endif

void emulate_reset(void)
{
    Call call;
    for (const auto &stream : rt.streams) {
        stream->queue.clear(); /* their work holds them */
        stream->capture = nullptr;
    }
    for (Card &card : rt.cards) {
        drop_card(&card);
    }
    rt = Runtime();
    rt.begun = true;
    forget_fibers();
    settings = defaults;
    last = cudaSuccess;
    choose_device(0);
    note_fault("");
}

/* ---- errors ---- */

static const struct {
    cudaError_t code;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer", "invalid device pointer"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorStubLibrary, "cudaErrorStubLibrary", "CUDA driver is a stub library"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {cudaErrorUnsupportedPtxVersion, "cudaErrorUnsupportedPtxVersion",
     "the provided PTX was compiled with an unsupported toolchain."},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {cudaErrorPeerAccessAlreadyEnabled, "cudaErrorPeerAccessAlreadyEnabled", "peer access is already enabled"},
    {cudaErrorPeerAccessNotEnabled, "cudaErrorPeerAccessNotEnabled", "peer access has not been enabled"},
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped"},
    {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
     "pointer does not correspond to a registered memory region"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotPermitted, "cudaErrorNotPermitted", "operation not permitted"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorSystemNotReady, "cudaErrorSystemNotReady", "system not yet initialized"},
    {cudaErrorSystemDriverMismatch, "cudaErrorSystemDriverMismatch",
     "system has unsupported display driver / cuda driver combination"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {cudaErrorGraphExecUpdateFailure, "cudaErrorGraphExecUpdateFailure",
     "the graph update was not performed because it included changes which violated constraints specific to "
     "instantiated graph update"},
};

const char *cudaGetErrorName(cudaError_t code)
{
    for (const auto &e : errors) {
        if (e.code == code) {
            return e.name;
        }
    }
    return code == cudaErrorUnknown ? "cudaErrorUnknown" : "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t code)
{
    for (const auto &e : errors) {
        if (e.code == code) {
            return e.text;
        }
    }
    return code == cudaErrorUnknown ? "unknown error" : "unrecognized error code";
}

cudaError_t cudaGetLastError(void)
{
    Call call;
    const cudaError_t error = last;
    last = cudaSuccess;
    return broken() != cudaSuccess ? broken() : error;
}

cudaError_t cudaPeekAtLastError(void)
{
    Call call;
    return broken() != cudaSuccess ? broken() : last;
}

} // extern "C"
