/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Pages of keys and values for generation. */
#include "attention.cuh"
#include "ptx.cuh"
#include "rows.cuh"

#include <stdlib.h>

namespace
{

enum { THREADS = 256 };

/* How write_places sees a row of qkv and a place of the cache: from element `skip` of the row on lie `heads` heads of
 * 2 · half elements. The first `turned` are turned; the first `own` stay in the row, the others go to the place. */
struct places {
    uint32_t width, skip, heads, half, turned, own;
};

/* N pairs a thread and turn. */
template <class E, int N>
__global__ void __launch_bounds__(THREADS)
    write_places(E *layer, E *qkv, const attend_step *step, kn_rotary rotary, places p)
{
    follow();
    const uint32_t t = blockIdx.x * blockDim.y + threadIdx.y, across = p.half / N;
    if (t >= step->written)
        return;
    const attend_written w = attend_list_of<attend_written>(step, step->at_written)[t];
    const size_t angle = (size_t)w.position * p.half;
    E *const row = qkv + (size_t)w.row * p.width + p.skip;
    E *const place = layer + (size_t)w.place * (p.heads - p.own) * 2 * p.half;
    for (uint32_t i = threadIdx.x; i < p.heads * across; i += blockDim.x) {
        const uint32_t head = i / across, at = i % across * N;
        E *from = row + (size_t)head * 2 * p.half + at;
        E *to = head < p.own ? from : place + (size_t)(head - p.own) * 2 * p.half + at;
        float a[N], b[N];
        row_load(a, from);
        row_load(b, from + p.half);
        if (head < p.turned) {
            float c[N], s[N];
            row_load(c, rotary.cos + angle + at);
            row_load(s, rotary.sin + angle + at);
#pragma unroll
            for (int k = 0; k < N; k++) {
                float pair[2];
                row_turn(pair, a[k], b[k], c[k], s[k]);
                a[k] = pair[0];
                b[k] = pair[1];
            }
        }
        row_store(to, a);
        row_store(to + p.half, b);
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
        const size_t counts = pages * a->heads * sizeof(*cache->arrived);
        cache->data = kn_cuda_alloc(c, layers * pages * page);
        cache->arrived = cache->data ? (uint32_t *)kn_cuda_alloc(c, counts) : NULL;
        if (cache->arrived)
            kn_cuda_clear(c, cache->arrived, counts);
        kn_cuda_end(c);
    }
    if (cache && !cache->arrived) {
        attend_cache_free(device, cache);
        return NULL;
    }
    return cache;
}

void attend_cache_free(kn_device *device, kn_cache *cache)
{
    kn_cuda *c = cache ? kn_cuda_begin(device) : NULL;
    if (c) {
        kn_cuda_free_memory(c, cache->data);
        kn_cuda_free_memory(c, cache->arrived);
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

template <class E>
void attend_cache_write(kn_cuda *c, E *layer, E *qkv, const kn_rotary &rotary, const attend_planned &v,
                        const attend_shape &a)
{
    const uint32_t turned = a.heads + a.kv_heads, keys = a.kv_heads * a.head_dim;
    /* without the embedding keys and values are one head, which needs no even head_dim */
    const places p = rotary.cos ? places{a.width, 0, turned + a.kv_heads, a.head_dim / 2, turned, a.heads}
                                : places{a.width, a.heads * a.head_dim, 1, keys, 0, 0};
    constexpr int N = wide<E>::N;
    const bool whole = p.half % N == 0 && p.width % N == 0 && p.skip % N == 0 && row_aligned(16, layer, qkv);
    const row_shape rows = row_shape_of(attend_grid(v.host->written), p.heads * (p.half / (whole ? N : 1)));
    if (c->status != KN_OK || v.host->written == 0)
        return;
    if (whole)
        KN_FOLLOW(c, (write_places<E, N>), rows.grid, rows.block, 0, layer, qkv, v.device, rotary, p);
    else
        KN_FOLLOW(c, (write_places<E, 1>), rows.grid, rows.block, 0, layer, qkv, v.device, rotary, p);
}

template void attend_cache_write<float>(kn_cuda *, float *, float *, const kn_rotary &, const attend_planned &,
                                        const attend_shape &);
template void attend_cache_write<bf16>(kn_cuda *, bf16 *, bf16 *, const kn_rotary &, const attend_planned &,
                                       const attend_shape &);
