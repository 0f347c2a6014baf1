/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Pages of keys and values for generation. */
#include "element.h"
#include "ops.h"

#include <stdlib.h>

kn_cache *KE(cache_new)(kn_device *device, size_t layers, size_t pages, const kn_attention *a)
{
    if (a->heads == 0 || a->kv_heads == 0 || a->head_dim == 0 || a->heads % a->kv_heads != 0 || layers == 0 ||
        pages == 0 || pages > UINT32_MAX || layers > SIZE_MAX / 64 / pages)
        return NULL;
    const size_t page = a->kv_heads * kn_block_size(a);
    if (page > SIZE_MAX / 16 / layers / pages)
        return NULL;
    kn_cache *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    *c = (kn_cache){.layers = layers, .pages = pages, .shape = *a};
    c->bytes = layers * pages * page * sizeof(E);
    c->data = kn_memory_mapped(c->bytes);
    if (!c->data) {
        free(c);
        return NULL;
    }
    return c;
}

void KE(cache_free)(kn_device *device, kn_cache *c)
{
    if (!c)
        return;
    kn_memory_unmap(c->data, c->bytes);
    free(c);
}

int KE(cache_copy_page)(kn_device *device, kn_cache *c, uint32_t to, uint32_t from, size_t count)
{
    if (to >= c->pages || from >= c->pages || count > KN_PAGE)
        return KN_BAD_ARGUMENT;
    const size_t page = c->shape.kv_heads * kn_block_size(&c->shape);
    if (to != from && count > 0)
        for (size_t l = 0; l < c->layers; l++) /* positions beyond `count` come along and are never read */
            memcpy((E *)c->data + (l * c->pages + to) * page, (E *)c->data + (l * c->pages + from) * page,
                   page * sizeof(E));
    return KN_OK;
}
