/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Pages of keys and values for generation. */
#include "attention.cuh"

#include <stdlib.h>

namespace
{

enum { THREADS = 256 };

/* Pieces of type V; a row of qkv has `width` of them, its keys and values are `both` from `skip` on. */
template <class V>
__global__ void __launch_bounds__(THREADS)
    write_places(V *layer, const V *qkv, const attend_step *step, uint32_t width, uint32_t skip, uint32_t both)
{
    const uint32_t *const places = attend_list_of<uint32_t>(step, step->at_written);
    const size_t n = (size_t)step->written * both, all = (size_t)gridDim.x * THREADS;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += all) {
        const size_t r = i / both, e = i % both;
        layer[places[2 * r + 1] * (size_t)both + e] = qkv[places[2 * r] * (size_t)width + skip + e];
    }
}

/* One layer a blockIdx.y; sizes in pieces of 16 bytes. */
__global__ void __launch_bounds__(THREADS)
    copy_page(uint4 *data, size_t layer, size_t page, uint32_t to, uint32_t from, size_t count)
{
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < count)
        data[blockIdx.y * layer + to * page + i] = data[blockIdx.y * layer + from * page + i];
}

size_t element_size(kn_dtype dtype)
{
    return dtype == KN_F32 ? 4 : 2;
}

} // namespace

kn_cache *attend_cache_new(kn_device *device, kn_dtype dtype, size_t layers, size_t pages, const kn_attention *a)
{
    if (!attend_shape_ok(a) || layers == 0 || layers > 65535 || pages == 0 || pages > ATTEND_MOST / KN_PAGE ||
        a->head_dim > ATTEND_HEAD_DIM_MOST || a->heads > ATTEND_MOST / ATTEND_HEAD_DIM_MOST / 4)
        return NULL;
    const size_t page = 2 * (size_t)a->kv_heads * a->head_dim * KN_PAGE * element_size(dtype);
    if (page > SIZE_MAX / 2 / layers / pages)
        return NULL;
    kn_cache *cache = (kn_cache *)calloc(1, sizeof(*cache));
    kn_cuda *c = cache ? kn_cuda_begin(device) : NULL;
    if (c) {
        cache->layers = layers;
        cache->pages = pages;
        cache->shape = *a;
        cache->page_bytes = page;
        cache->data = kn_cuda_alloc(c, layers * pages * page);
        kn_cuda_end(c);
    }
    if (cache && !cache->data) {
        free(cache);
        return NULL;
    }
    return cache;
}

void attend_cache_free(kn_device *device, kn_cache *cache)
{
    kn_cuda *c = cache ? kn_cuda_begin(device) : NULL;
    if (c) {
        kn_cuda_free_memory(c, cache->data);
        kn_cuda_end(c);
    }
    if (cache)
        free(cache->step);
    free(cache);
}

int attend_cache_copy_page(kn_device *device, kn_cache *cache, uint32_t to, uint32_t from, size_t count)
{
    if (to >= cache->pages || from >= cache->pages || count > KN_PAGE)
        return KN_BAD_ARGUMENT;
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    const size_t page = cache->page_bytes / sizeof(uint4);
    const size_t pieces = (page * count + KN_PAGE - 1) / KN_PAGE; /* what comes along is never read */
    if (to != from && pieces > 0)
        KN_LAUNCH(c, copy_page, dim3((unsigned)((pieces + THREADS - 1) / THREADS), (unsigned)cache->layers),
                  dim3(THREADS), 0, (uint4 *)cache->data, cache->pages * page, page, to, from, pieces);
    return kn_cuda_end(c);
}

void attend_cache_write(kn_cuda *c, void *layer, const void *qkv, const attend_planned &v, const attend_shape &a,
                        size_t element)
{
    const size_t piece = a.head_dim * element % sizeof(uint4) == 0 ? sizeof(uint4) : sizeof(uint16_t);
    const uint32_t unit = (uint32_t)(a.head_dim * element / piece), both = 2 * a.kv_heads * unit;
    const uint32_t width = a.heads * unit + both, skip = a.heads * unit;
    const size_t blocks = ((size_t)attend_grid(v.host->written) * both + THREADS - 1) / THREADS;
    const dim3 grid((unsigned)(blocks < 4096 ? blocks : 4096));
    if (c->status != KN_OK || v.host->written == 0)
        return;
    if (piece == sizeof(uint4))
        KN_LAUNCH(c, write_places<uint4>, grid, dim3(THREADS), 0, (uint4 *)layer, (const uint4 *)qkv, v.device, width,
                  skip, both);
    else
        KN_LAUNCH(c, write_places<uint16_t>, grid, dim3(THREADS), 0, (uint16_t *)layer, (const uint16_t *)qkv, v.device,
                  width, skip, both);
}
