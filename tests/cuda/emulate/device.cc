/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * The devices as programs see them. */
#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <set>

namespace emulate_cuda
{

static __thread int device;

/* How many CUDA_VISIBLE_DEVICES leaves: the list ends at the first that does not exist; a device named twice hides all.
 * `which` becomes the number of the one that is `ordinal` now. */
static int visible(int ordinal = -1, int *which = nullptr)
{
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (list == nullptr) {
        if (which != nullptr) {
            *which = ordinal;
        }
        return settings.devices;
    }
    int count = 0;
    std::set<long> named;
    while (*list != 0) {
        char *end;
        const long n = strtol(list, &end, 10);
        if (end == list || n < 0 || n >= settings.devices) {
            break;
        }
        if (!named.insert(n).second) {
            return 0;
        }
        if (count == ordinal && which != nullptr) {
            *which = (int)n;
        }
        count++;
        list = *end == ',' ? end + 1 : end;
        if (*end != ',') {
            break;
        }
    }
    return count;
}

static cudaError_t driver_error()
{
    if (settings.driver / 1000 < CUDART_VERSION / 1000) {
        return cudaErrorInsufficientDriver;
    }
    return visible() == 0 ? cudaErrorNoDevice : cudaSuccess;
}

int current_device()
{
    return device;
}

void choose_device(int ordinal)
{
    device = ordinal;
}

Card *card_of_device(int ordinal, cudaError_t *error)
{
    *error = driver_error();
    if (*error != cudaSuccess) {
        return nullptr;
    }
    if (ordinal < 0 || ordinal >= visible()) {
        *error = cudaErrorInvalidDevice;
        return nullptr;
    }
    if (rt.cards.empty()) {
        rt.cards.resize((size_t)visible());
    }
    Card *card = &rt.cards[(size_t)ordinal];
    if (!card->context) {
        if (settings.exclusive && Shared().others(ordinal) > 0) {
            *error = cudaErrorDevicesUnavailable;
            return nullptr;
        }
        if (!make_card(card, memory_of_device(ordinal))) {
            *error = cudaErrorMemoryAllocation;
            return nullptr;
        }
        card->context = true;
        card->legacy = new_stream(ordinal, false);
        card->pools.push_back(new CUmemPoolHandle_st{ordinal, 0, 0, 0, 0, 0, 0, {}});
        card->current_pool = card->pools[0];
        card->peers.resize(rt.cards.size());
        rt.counts.contexts++;
        tell_others(card);
    }
    return card;
}

size_t memory_of_device(int ordinal)
{
    return settings.small != 0 && ordinal == visible() - 1 ? settings.small : settings.memory;
}

int shared_most()
{
    switch (settings.capability) {
    case 80:
    case 87:
        return 163 * 1024;
    case 86:
    case 89:
    case 120:
        return 99 * 1024;
    case 90:
    case 100:
    case 103:
        return 227 * 1024;
    default:
        return settings.capability < 80 ? 64 * 1024 : 99 * 1024;
    }
}

} // namespace emulate_cuda

using namespace emulate_cuda;

extern "C" {

cudaError_t cudaDriverGetVersion(int *version)
{
    Call call;
    *version = settings.driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    Call call;
    const cudaError_t error = driver_error();
    *count = error == cudaSuccess ? visible() : 0;
    return answer(error);
}

cudaError_t cudaGetDevice(int *ordinal)
{
    EMULATE_BEGIN();
    const cudaError_t error = driver_error();
    if (error == cudaSuccess) {
        *ordinal = device;
    }
    return answer(error);
}

cudaError_t cudaSetDevice(int ordinal)
{
    Call call;
    cudaError_t error = broken(ordinal);
    if (error != cudaSuccess) { /* it is the thread's, and each call to it fails */
        device = ordinal;
        return answer(error);
    }
    if (card_of_device(ordinal, &error) != nullptr) {
        device = ordinal;
    }
    return answer(error);
}

cudaError_t cudaInitDevice(int ordinal, unsigned int, unsigned int)
{
    EMULATE_BEGIN();
    cudaError_t error;
    card_of_device(ordinal, &error);
    return answer(error);
}

cudaError_t cudaSetDeviceFlags(unsigned int)
{
    EMULATE_BEGIN();
    return answer(driver_error());
}

static bool known_device(int ordinal, cudaError_t *error)
{
    *error = driver_error();
    if (*error == cudaSuccess && (ordinal < 0 || ordinal >= visible())) {
        *error = cudaErrorInvalidDevice;
    }
    return *error == cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int ordinal)
{
    Call call;
    cudaError_t error;
    if (!known_device(ordinal, &error)) {
        return answer(error);
    }
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name,
             settings.other > 0 && ordinal >= settings.other ? "another device" : "emulated device");
    snprintf(p->uuid.bytes, sizeof p->uuid.bytes, "emulated%d", ordinal & 15);
    p->totalGlobalMem = memory_of_device(ordinal);
    p->sharedMemPerBlock = 48 * 1024;
    p->sharedMemPerBlockOptin = (size_t)shared_most();
    p->sharedMemPerMultiprocessor = (size_t)shared_most() + 1024;
    p->reservedSharedMemPerBlock = 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = MAX_THREADS;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = MAX_THREADS;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 65536;
    p->major = settings.capability / 10;
    p->minor = settings.capability % 10;
    p->multiProcessorCount = settings.multiprocessors;
    p->canMapHostMemory = p->concurrentKernels = p->unifiedAddressing = p->memoryPoolsSupported = 1;
    p->asyncEngineCount = 2;
    p->pciBusID = ordinal + 1;
    p->memoryBusWidth = 5120;
    p->l2CacheSize = 50 << 20;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxBlocksPerMultiProcessor = 32;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int ordinal)
{
    Call call;
    cudaError_t error;
    if (!known_device(ordinal, &error)) {
        return answer(error);
    }
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = MAX_THREADS;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = 48 * 1024;
        break;
    case cudaDevAttrWarpSize:
        *value = 32;
        break;
    case cudaDevAttrClockRate:
        *value = 1980000;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = settings.multiprocessors;
        break;
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrMemoryPoolsSupported:
        *value = 1;
        break;
    case cudaDevAttrEccEnabled:
        *value = 0;
        break;
    case cudaDevAttrMemoryClockRate:
        *value = 2619000;
        break;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = 5120;
        break;
    case cudaDevAttrL2CacheSize:
        *value = 50 << 20;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = 2048;
        break;
    case cudaDevAttrAsyncEngineCount:
        *value = 2;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = settings.capability / 10;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = settings.capability % 10;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = shared_most() + 1024;
        break;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
        *value = 65536;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = shared_most();
        break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
        *value = 32;
        break;
    default:
        return answer(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int size, int ordinal)
{
    Call call;
    cudaError_t error;
    int which = 0;
    if (known_device(ordinal, &error)) {
        visible(ordinal, &which);
        snprintf(id, (size_t)size, "0000:%02x:00.0", which + 1);
    }
    return answer(error);
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int ordinal, int peer)
{
    EMULATE_BEGIN();
    cudaError_t error;
    if (known_device(ordinal, &error) && known_device(peer, &error)) {
        *can = ordinal != peer;
    }
    return answer(error);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned int flags)
{
    EMULATE_BEGIN();
    cudaError_t error;
    Card *mine = card_of_device(device, &error);
    if (mine == nullptr || !known_device(peer, &error)) {
        return answer(error);
    }
    if (flags != 0 || peer == device) {
        return answer(cudaErrorInvalidValue);
    }
    if (mine->peers[(size_t)peer]) {
        return answer(cudaErrorPeerAccessAlreadyEnabled);
    }
    mine->peers[(size_t)peer] = true;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    EMULATE_BEGIN();
    cudaError_t error;
    if (card_of_device(device, &error) == nullptr || (error = forbid_in_capture()) != cudaSuccess) {
        return answer(error);
    }
    rt.counts.waits++;
    run_all();
    release_kept(device);
    return answer(broken());
}

cudaError_t cudaDeviceReset(void)
{
    Call call;
    const emulate_settings keep = settings;
    const int contexts = rt.counts.contexts;
    const int current = device;
    emulate_reset();
    settings = keep;
    rt.counts.contexts = contexts;
    device = current;
    return cudaSuccess;
}

} // extern "C"
