/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stage counts while its records go by, kept from time to time as a checkpoint: an interrupted run then goes on
 * counting where it was, to the bit. The stage's thread; errors through the host.
 */
#ifndef PLUGINS_COUNTS_H
#define PLUGINS_COUNTS_H

#include <sluice/host.h>

typedef struct counts_keeper {
    uint64_t records; /* that the last checkpoint covers; 0 = there is none */
    double saved_at;  /* monotonic seconds */
} counts_keeper;

/* Once, before the first record. *bytes: what an interrupted run had saved, malloc'ed; NULL when there is nothing. */
int counts_begin(counts_keeper *, const sluice_host *, void **bytes, size_t *size);
/* Is it time to save what was counted of so many records? */
bool counts_due(const counts_keeper *, uint64_t records);
int counts_save(counts_keeper *, const sluice_host *, uint64_t records, const void *bytes, size_t size);
/* That what was read cannot be. */
int counts_damaged(const sluice_host *);

#endif
