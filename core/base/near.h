/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The nearest right name to a mistyped one: "did you mean …?". */
#ifndef SL_NEAR_H
#define SL_NEAR_H

#include <stddef.h>

/* Damerau-Levenshtein distance (insert, delete, replace, swap neighbours), ASCII case ignored. Names of 64 bytes and
 * more count as far from everything. */
size_t sl_name_distance(const char *a, const char *b);

/* Keeps the best of the names offered one after another. Start from {.wanted = name}. */
typedef struct sl_near {
    const char *wanted;
    const char *best; /* NULL while none is near: at most a third of the longer name's letters differ, one at least */
    size_t distance;
} sl_near;
void sl_near_offer(sl_near *, const char *name);

#endif
