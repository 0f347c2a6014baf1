/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Attention's ops: what is refused, what is planned, and which kernels do it. */
#include "attention.cuh"
#include "rows.cuh"

namespace
{

/* Tensor cores take bf16 with rows of whole 16-byte pieces. */
bool on_tensor_cores(const float *, const attend_shape &)
{
    return false;
}

bool on_tensor_cores(const bf16 *, const attend_shape &a)
{
    return a.head_dim % 8 == 0;
}

template <class E> attend_keys packed_keys(const void *qkv, const attend_shape &a)
{
    attend_keys keys = {};
    keys.first = (const E *)qkv + (size_t)a.heads * a.head_dim;
    keys.stride = a.width;
    keys.values = a.kv_heads * a.head_dim;
    return keys;
}

void tiles(kn_cuda *c, bf16 *out, float *lse, const bf16 *qkv, const attend_keys &keys, const attend_queries &q,
           const attend_shape &a)
{
    if (on_tensor_cores(out, a))
        attend_bf16_tiles(c, out, lse, qkv, keys, q, a);
    else
        attend_plain_tiles(c, out, lse, qkv, keys, q, a);
}

void tiles(kn_cuda *c, float *out, float *lse, const float *qkv, const attend_keys &keys, const attend_queries &q,
           const attend_shape &a)
{
    attend_plain_tiles(c, out, lse, qkv, keys, q, a);
}

void parts(kn_cuda *c, bf16 *out, const attend_partial &partial, const bf16 *qkv, const attend_keys &keys,
           const kn_rotary &rotary, const attend_planned &v, const attend_shape &a)
{
    if (on_tensor_cores(out, a))
        attend_bf16_parts(c, out, partial, qkv, keys, rotary, v, a);
    else
        attend_plain_parts(c, out, partial, qkv, keys, v, a);
}

void parts(kn_cuda *c, float *out, const attend_partial &partial, const float *qkv, const attend_keys &keys,
           const kn_rotary &, const attend_planned &v, const attend_shape &a)
{
    attend_plain_parts(c, out, partial, qkv, keys, v, a);
}

void backward(kn_cuda *c, bf16 *dqkv, const bf16 *dout, const bf16 *qkv, const float *lse, const float *dots,
              const attend_keys &keys, const kn_segment *segment, size_t segments, const attend_shape &a)
{
    if (on_tensor_cores(qkv, a))
        attend_bf16_backward(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
    else
        attend_plain_backward(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
}

void backward(kn_cuda *c, float *dqkv, const float *dout, const float *qkv, const float *lse, const float *dots,
              const attend_keys &keys, const kn_segment *segment, size_t segments, const attend_shape &a)
{
    attend_plain_backward(c, dqkv, dout, qkv, lse, dots, keys, segment, segments, a);
}

template <class E> uint32_t members(const attend_shape &a)
{
    return on_tensor_cores((const E *)NULL, a) ? attend_bf16_members(a) : 0;
}

template <class E> uint32_t tile_rows(const attend_shape &a)
{
    return on_tensor_cores((const E *)NULL, a) ? attend_tile_rows(a.head_dim) : attend_plain_tile_rows(a.head_dim);
}

/* --- packed segments --- */

template <class E>
int attention(kn_device *device, void *out, float *lse, const void *qkv, const kn_segment *segment, size_t segments,
              size_t T, const kn_attention *shape)
{
    if (!attend_shape_ok(shape) || !attend_segments_ok(segment, segments, T))
        return KN_BAD_ARGUMENT;
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    const attend_shape a = attend_shape_of(c, shape, T);
    if (c->status == KN_OK && segments > 0) { /* a shape is asked about with none */
        const attend_queries q = attend_plan_segments(c, segment, segments, &a, tile_rows<E>(a));
        tiles(c, (E *)out, lse, (const E *)qkv, packed_keys<E>(qkv, a), q, a);
    }
    return kn_cuda_end(c);
}

template <class E>
int attention_backward(kn_device *device, void *dqkv, const void *dout, const void *qkv, const void *out,
                       const float *lse, const kn_segment *segment, size_t segments, size_t T,
                       const kn_attention *shape)
{
    if (!attend_shape_ok(shape) || !attend_segments_ok(segment, segments, T))
        return KN_BAD_ARGUMENT;
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    const attend_shape a = attend_shape_of(c, shape, T);
    size_t covered = 0;
    for (size_t i = 0; i < segments; i++)
        covered += segment[i].count;
    float *dots = (float *)kn_cuda_scratch(c, T * a.heads * sizeof(float));
    if (c->status == KN_OK && covered < T) /* rows of no segment */
        kn_cuda_clear(c, dqkv, T * a.width * sizeof(E));
    if (c->status == KN_OK && covered > 0) {
        attend_dots(c, dots, (const E *)dout, (const E *)out, T * a.heads, a.head_dim);
        backward(c, (E *)dqkv, (const E *)dout, (const E *)qkv, lse, dots, packed_keys<E>(qkv, a), segment, segments,
                 a);
    }
    return kn_cuda_end(c);
}

/* --- generation --- */

template <class E> kn_cache *cache_new(kn_device *device, size_t layers, size_t pages, const kn_attention *a)
{
    return attend_cache_new(device, sizeof(E) == 4 ? KN_F32 : KN_BF16, layers, pages, a);
}

template <class E>
int attention_cached(kn_device *device, void *out, void *qkv, kn_cache *cache, size_t layer, const kn_cached_rows *s,
                     size_t sequences, size_t T, const kn_rotary *given)
{
    const kn_rotary rotary = given ? *given : kn_rotary{NULL, NULL};
    if (layer >= cache->layers ||
        (given && (cache->shape.head_dim % 2 != 0 || !row_aligned(16, rotary.cos, rotary.sin))))
        return KN_BAD_ARGUMENT;
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    const attend_shape a = attend_shape_of(c, &cache->shape, T);
    if (c->status != KN_OK || attend_plan_step(c, cache, s, sequences, T, &a, tile_rows<E>(a), members<E>(a)) != KN_OK)
        return kn_cuda_end(c);
    const attend_step *const step = cache->step;
    const attend_planned v = {step, (const attend_step *)kn_cuda_upload(c, step, step->size)};
    E *const data = (E *)((char *)cache->data + layer * cache->pages * cache->page_bytes);
    attend_keys keys = {};
    keys.first = data;
    keys.values = a.kv_heads * a.head_dim;
    keys.stride = 2 * keys.values;
    attend_partial partial = {NULL, NULL, cache->arrived};
    if (step->slots > 0) {
        const size_t partials = (size_t)attend_grid(step->slots) * a.heads;
        partial.values = (float *)kn_cuda_scratch(c, partials * a.head_dim * sizeof(float));
        partial.figures = (float *)kn_cuda_scratch(c, partials * 2 * sizeof(float));
    }
    if (c->status != KN_OK)
        return kn_cuda_end(c);
    attend_cache_write(c, data, (E *)qkv, rotary, v, a);
    parts(c, (E *)out, partial, (const E *)qkv, keys, rotary, v, a);
    attend_queries many = {};
    many.tiles = step->tiles;
    many.rows = attend_list_at<attend_rows>(v.device, step->at_rows);
    many.tile = attend_list_at<attend_tile>(v.device, step->at_tiles);
    keys.pages = attend_list_at<uint32_t>(v.device, step->at_pages);
    tiles(c, (E *)out, NULL, (const E *)qkv, keys, many, a);
    return kn_cuda_end(c);
}

template <class E> void enter(kn_ops *ops)
{
    ops->attention = attention<E>;
    ops->attention_backward = attention_backward<E>;
    ops->cache_new = cache_new<E>;
    ops->cache_free = attend_cache_free;
    ops->cache_copy_page = attend_cache_copy_page;
    ops->attention_cached = attention_cached<E>;
}

} // namespace

void kn_cuda_attention_ops(kn_ops *f32, kn_ops *bf16_ops)
{
    enter<float>(f32);
    enter<bf16>(bf16_ops);
}
