/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/stream/ids.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* The slot where a hash is or belongs. */
static uint64_t *slot_of(uint64_t *slots, size_t capacity, uint64_t hash)
{
    size_t i = hash & (capacity - 1);
    while (slots[i] && slots[i] != hash)
        i = (i + 1) & (capacity - 1);
    return &slots[i];
}

static int grow(sl_ids *ids)
{
    const size_t capacity = ids->capacity ? ids->capacity * 2 : 1024;
    uint64_t *slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return SLUICE_NO_MEMORY;
    for (size_t i = 0; i < ids->capacity; i++)
        if (ids->slots[i])
            *slot_of(slots, capacity, ids->slots[i]) = ids->slots[i];
    free(ids->slots);
    ids->slots = slots;
    ids->capacity = capacity;
    return SLUICE_OK;
}

int sl_ids_add(sl_ids *ids, const char *id)
{
    if (ids->count >= ids->capacity / 4 * 3) {
        int rc = grow(ids);
        if (rc < 0)
            return rc;
    }
    const uint64_t sum = XXH3_64bits(id, strlen(id)), hash = sum ? sum : 1;
    uint64_t *slot = slot_of(ids->slots, ids->capacity, hash);
    if (*slot)
        return SLUICE_BAD_RECORD;
    *slot = hash;
    ids->count++;
    return SLUICE_OK;
}

void sl_ids_free(sl_ids *ids)
{
    free(ids->slots);
    *ids = (sl_ids){0};
}
