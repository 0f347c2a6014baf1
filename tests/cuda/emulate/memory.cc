/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * The runtime's functions for memory: of the device at once and in stream order, pinned memory of the host, pools. */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

using namespace emulate_cuda;

extern "C" {

/* ---- device memory at once ---- */

cudaError_t cudaMalloc(void **p, size_t size)
{
    EMULATE_BEGIN();
    cudaError_t error;
    Card *card = card_of_device(current_device(), &error);
    if (card == nullptr || (error = forbid_in_capture()) != cudaSuccess) {
        return answer(error);
    }
    if (p == nullptr) {
        return answer(cudaErrorInvalidValue);
    }
    *p = nullptr;
    if (size == 0) {
        return cudaSuccess;
    }
    *p = take(card, current_device(), size, nullptr);
    if (*p == nullptr) { /* frees that are still queued may make room */
        run_all();
        *p = take(card, current_device(), size, nullptr);
    }
    return answer(*p != nullptr ? broken() : cudaErrorMemoryAllocation);
}

/* The start of a live block, not being freed already. */
static Block *owned(void *p, const char *by)
{
    size_t at = 1;
    Block *b = block_of(p, &at);
    if (b == nullptr || at != 0 || b->freeing) {
        fault("%s of %p, which %s", by, p,
              b == nullptr ? "is no block of device memory that is alive"
              : at != 0    ? "is inside a block"
                           : "is freed already");
        return nullptr;
    }
    return b;
}

cudaError_t cudaFree(void *p)
{
    EMULATE_BEGIN();
    cudaError_t error;
    if (card_of_device(current_device(), &error) == nullptr || (error = forbid_in_capture()) != cudaSuccess) {
        return answer(error);
    }
    if (p == nullptr) {
        return cudaSuccess;
    }
    if (owned(p, "cudaFree") == nullptr) {
        return answer(cudaErrorInvalidValue);
    }
    run_all(); /* it waits for the device */
    give(p);
    return answer(broken());
}

/* ---- pinned host memory ---- */

static cudaError_t pin(void **p, size_t size)
{
    cudaError_t error;
    if (card_of_device(current_device(), &error) == nullptr) {
        return error;
    }
    *p = nullptr;
    if (out_of_luck(&settings.fail_pinned)) {
        return cudaErrorMemoryAllocation;
    }
    if (size != 0) {
        if (posix_memalign(p, 4096, size) != 0) {
            *p = nullptr;
            return cudaErrorMemoryAllocation;
        }
        memset(*p, 0xff, size);
        rt.pinned[static_cast<char *>(*p)] = {size, false};
    }
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **p, size_t size, unsigned int)
{
    EMULATE_BEGIN();
    const cudaError_t error = forbid_in_capture();
    return answer(error != cudaSuccess ? error : pin(p, size));
}

cudaError_t cudaMallocHost(void **p, size_t size)
{
    return cudaHostAlloc(p, size, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *p)
{
    EMULATE_BEGIN();
    if (p == nullptr) {
        return cudaSuccess;
    }
    auto found = rt.pinned.find(static_cast<char *>(p));
    if (found == rt.pinned.end() || found->second.second) {
        fault("cudaFreeHost of %p, which cudaHostAlloc did not give", p);
        return answer(cudaErrorInvalidValue);
    }
    rt.pinned.erase(found); /* that it waits for the device is promised nowhere */
    free(p);
    return answer(broken());
}

cudaError_t cudaHostRegister(void *p, size_t size, unsigned int)
{
    EMULATE_BEGIN();
    int device;
    if (where(p, &device) == PINNED) {
        return answer(cudaErrorHostMemoryAlreadyRegistered);
    }
    rt.pinned[static_cast<char *>(p)] = {size, true};
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *p)
{
    EMULATE_BEGIN();
    auto found = rt.pinned.find(static_cast<char *>(p));
    if (found == rt.pinned.end() || !found->second.second) {
        return answer(cudaErrorHostMemoryNotRegistered);
    }
    run_all();
    rt.pinned.erase(found);
    return answer(broken());
}

cudaError_t cudaHostGetDevicePointer(void **p, void *host, unsigned int)
{
    EMULATE_BEGIN();
    int device;
    if (where(host, &device) != PINNED) {
        return answer(cudaErrorInvalidValue);
    }
    *p = host;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *p)
{
    EMULATE_BEGIN();
    const Where place = where(p, &attributes->device);
    void *mutable_p = const_cast<void *>(p);
    attributes->type = place == DEVICE   ? cudaMemoryTypeDevice
                       : place == PINNED ? cudaMemoryTypeHost
                                         : cudaMemoryTypeUnregistered;
    attributes->devicePointer = place != PAGEABLE ? mutable_p : nullptr;
    attributes->hostPointer = place != DEVICE ? mutable_p : nullptr;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    EMULATE_BEGIN();
    cudaError_t error;
    const Card *card = card_of_device(current_device(), &error);
    if (card == nullptr) {
        return answer(error);
    }
    *total = memory_of_device(current_device());
    *free_bytes = unused(card);
    for (const cudaMemPool_t pool : card->pools) { /* what pools keep is not free for others */
        const size_t kept = pool->reserved - pool->used;
        *free_bytes -= kept < *free_bytes ? kept : *free_bytes;
    }
    return cudaSuccess;
}

/* ---- pools ---- */

cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const cudaMemPoolProps *props)
{
    EMULATE_BEGIN();
    cudaError_t error;
    if (props->allocType != cudaMemAllocationTypePinned || props->location.type != cudaMemLocationTypeDevice) {
        return answer(cudaErrorInvalidValue);
    }
    Card *card = card_of_device(props->location.id, &error);
    if (card == nullptr) {
        return answer(error);
    }
    *pool = new CUmemPoolHandle_st{props->location.id, props->maxSize, 0, 0, 0, 0, 0, {}};
    card->pools.push_back(*pool);
    return cudaSuccess;
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool)
{
    EMULATE_BEGIN();
    run_all();
    Card &card = rt.cards[(size_t)pool->device];
    if (pool == card.pools[0]) {
        return answer(cudaErrorInvalidValue);
    }
    if (pool->used != 0) {
        fault("cudaMemPoolDestroy of a pool with %zu bytes still in use", pool->used);
        return answer(cudaErrorInvalidValue);
    }
    if (card.current_pool == pool) {
        card.current_pool = card.pools[0];
    }
    for (auto &freed : card.quarantine) {
        freed.second.pool = nullptr;
    }
    for (size_t i = 0; i < card.pools.size(); i++) {
        if (card.pools[i] == pool) {
            card.pools.erase(card.pools.begin() + (long)i);
            break;
        }
    }
    delete pool;
    return answer(broken());
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void *value)
{
    EMULATE_BEGIN();
    switch (attribute) {
    case cudaMemPoolReuseFollowEventDependencies:
    case cudaMemPoolReuseAllowOpportunistic:
    case cudaMemPoolReuseAllowInternalDependencies:
        return cudaSuccess;
    case cudaMemPoolAttrReleaseThreshold:
        pool->threshold = (size_t) * static_cast<uint64_t *>(value);
        return cudaSuccess;
    case cudaMemPoolAttrReservedMemHigh:
    case cudaMemPoolAttrUsedMemHigh:
        if (*static_cast<uint64_t *>(value) != 0) {
            return answer(cudaErrorInvalidValue);
        }
        (attribute == cudaMemPoolAttrUsedMemHigh ? pool->used_high : pool->reserved_high) =
            attribute == cudaMemPoolAttrUsedMemHigh ? pool->used : pool->reserved;
        return cudaSuccess;
    default:
        return answer(cudaErrorInvalidValue);
    }
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void *value)
{
    EMULATE_BEGIN();
    uint64_t *bytes = static_cast<uint64_t *>(value);
    switch (attribute) {
    case cudaMemPoolAttrReleaseThreshold:
        *bytes = pool->threshold;
        return cudaSuccess;
    case cudaMemPoolAttrReservedMemCurrent:
        *bytes = pool->reserved;
        return cudaSuccess;
    case cudaMemPoolAttrReservedMemHigh:
        *bytes = pool->reserved_high;
        return cudaSuccess;
    case cudaMemPoolAttrUsedMemCurrent:
        *bytes = pool->used;
        return cudaSuccess;
    case cudaMemPoolAttrUsedMemHigh:
        *bytes = pool->used_high;
        return cudaSuccess;
    default:
        *static_cast<int *>(value) = 1;
        return cudaSuccess;
    }
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep)
{
    EMULATE_BEGIN();
    pool->reserved = pool->used > keep ? pool->used : keep < pool->reserved ? keep : pool->reserved;
    tell_others(&rt.cards[(size_t)pool->device]);
    return cudaSuccess;
}

cudaError_t cudaMemPoolSetAccess(cudaMemPool_t pool, const cudaMemAccessDesc *access, size_t count)
{
    EMULATE_BEGIN();
    for (size_t i = 0; i < count; i++) {
        cudaError_t error;
        if (card_of_device(access[i].location.id, &error) == nullptr) {
            return answer(error);
        }
        if (access[i].location.type != cudaMemLocationTypeDevice ||
            (access[i].location.id == pool->device && access[i].flags != cudaMemAccessFlagsProtReadWrite)) {
            return answer(cudaErrorInvalidValue);
        }
        if (settings.closed == pool->device && access[i].location.id != pool->device) {
            return answer(cudaErrorNotSupported);
        }
        pool->open_to.resize(rt.cards.size());
        pool->open_to[(size_t)access[i].location.id] = access[i].flags == cudaMemAccessFlagsProtReadWrite;
    }
    return cudaSuccess;
}

static cudaError_t pool_of(cudaMemPool_t *pool, int device, bool first)
{
    cudaError_t error;
    const Card *card = card_of_device(device, &error);
    if (card != nullptr) {
        *pool = first ? card->pools[0] : card->current_pool;
    }
    return error;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device)
{
    EMULATE_BEGIN();
    return answer(pool_of(pool, device, true));
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t *pool, int device)
{
    EMULATE_BEGIN();
    return answer(pool_of(pool, device, false));
}

cudaError_t cudaDeviceSetMemPool(int device, cudaMemPool_t pool)
{
    EMULATE_BEGIN();
    cudaError_t error;
    Card *card = card_of_device(device, &error);
    if (card != nullptr) {
        card->current_pool = pool;
    }
    return answer(error);
}

cudaError_t cudaMallocFromPoolAsync(void **p, size_t size, cudaMemPool_t pool, cudaStream_t handle)
{
    EMULATE_BEGIN();
    const std::shared_ptr<Stream> stream = stream_of(handle);
    if (stream == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    Card &card = rt.cards[(size_t)pool->device];
    *p = nullptr;
    if (size == 0) {
        return cudaSuccess;
    }
    *p = take(&card, pool->device, size, pool);
    if (*p == nullptr && stream->capture == nullptr) { /* what this stream frees may be used again at once */
        run_until(stream, stream->issued);
        *p = take(&card, pool->device, size, pool);
    }
    if (*p == nullptr) {
        return answer(broken() != cudaSuccess ? broken() : cudaErrorMemoryAllocation);
    }
    size_t at;
    Block *b = block_of(*p, &at);
    b->async = true;
    const void *address = *p;
    const size_t bytes = size;
    const bool captured = stream->capture != nullptr;
    if (!captured) {
        b->born = Point{stream, stream->issued + 1};
    }
    return answer(enqueue(stream, Work{"an allocation",
                                       [address, bytes, captured] {
                                           if (captured) { /* every launch of the graph gives it anew */
                                               memset(inside(address), 0xff, bytes);
                                           }
                                       },
                                       {}}));
}

cudaError_t cudaMallocAsync(void **p, size_t size, cudaStream_t handle)
{
    EMULATE_BEGIN();
    const std::shared_ptr<Stream> stream = stream_of(handle);
    if (stream == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    return cudaMallocFromPoolAsync(p, size, rt.cards[(size_t)stream->device].current_pool, handle);
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t handle)
{
    EMULATE_BEGIN();
    const std::shared_ptr<Stream> stream = stream_of(handle);
    if (stream == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    if (p == nullptr) {
        return cudaSuccess;
    }
    Block *b = owned(p, "cudaFreeAsync");
    if (b == nullptr) {
        return answer(cudaErrorInvalidValue);
    }
    if (stream->capture != nullptr) {
        return answer(capture_free(stream, p));
    }
    const bool waits = !b->async; /* memory of cudaMalloc; the block may be gone once it is asked for */
    b->freeing = true;
    const cudaError_t error = enqueue(stream, Work{"a free", [p] { give(p); }, {}});
    if (waits) {
        run_until(stream, stream->issued);
    }
    return answer(error);
}

} // extern "C"
