/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Pages of keys and values. */
#include "reference.h"

#include <stdlib.h>
#include <string.h>

static size_t position_size(const kn_cache *c)
{
    return 2 * (size_t)c->shape.kv_heads * c->shape.head_dim;
}

E *REF(cache_at)(const kn_cache *c, size_t layer, uint32_t page, size_t at)
{
    return c->data + ((layer * c->pages + page) * KN_PAGE + at) * position_size(c);
}

kn_cache *REF(cache_new)(kn_device *device, size_t layers, size_t pages, const kn_attention *shape)
{
    if (!kn_ref_attention_ok(shape) || layers == 0 || pages == 0)
        return NULL;
    kn_cache *c = malloc(sizeof(*c));
    if (!c)
        return NULL;
    *c = (kn_cache){.layers = layers, .pages = pages, .shape = *shape};
    c->data = calloc(layers * pages * KN_PAGE, position_size(c) * sizeof(E));
    if (!c->data) {
        free(c);
        return NULL;
    }
    return c;
}

void REF(cache_free)(kn_device *device, kn_cache *c)
{
    if (!c)
        return;
    free(c->data);
    free(c);
}

int REF(cache_copy_page)(kn_device *device, kn_cache *c, uint32_t to, uint32_t from, size_t count)
{
    if (to >= c->pages || from >= c->pages || count > KN_PAGE)
        return KN_BAD_ARGUMENT;
    if (to == from)
        return KN_OK;
    for (size_t l = 0; l < c->layers; l++)
        memcpy(REF(cache_at)(c, l, to, 0), REF(cache_at)(c, l, from, 0), count * position_size(c) * sizeof(E));
    return KN_OK;
}
