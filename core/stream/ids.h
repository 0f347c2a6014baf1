/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The ids of a stream, to notice one that comes twice: 64 bits of each, so that a false alarm among ten million records
 * has a chance of 3 in a million. */
#ifndef SL_IDS_H
#define SL_IDS_H

#include <sluice/abi.h>

/* Starts as {0}. */
typedef struct sl_ids {
    uint64_t *slots; /* 0 = empty */
    size_t count, capacity;
} sl_ids;

/* SLUICE_BAD_RECORD when it was there already. */
int sl_ids_add(sl_ids *, const char *id);
void sl_ids_free(sl_ids *);

#endif
