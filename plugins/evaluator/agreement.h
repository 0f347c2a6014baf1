/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* How often a judge prefers the answer that a pair's label prefers. */
#ifndef EVALUATOR_AGREEMENT_H
#define EVALUATOR_AGREEMENT_H

#include <stdio.h>
#include <sluice/host.h>
#include <sluice/record.h>

typedef struct agreement_count {
    char *name; /* "pair_accuracy/easy"; NULL = of all */
    uint64_t pairs;
    double right;
} agreement_count;

/* Starts as {0}. */
typedef struct agreement {
    agreement_count all, *groups; /* in the order in which they came */
    size_t group_count;
} agreement;

/* Adds the pairs of a record. A pair with p < 1/2 is labelled the other way round; p = 1/2 says nothing and is left
 * out. group names a meta field, or is NULL. */
int agreement_add(agreement *, const sluice_host *, const sluice_record *, const char *judge, const char *group);
/* One number a group. */
void agreement_report(const agreement *, const sluice_host *);
/* To and from a checkpoint. Into {0}; false when it is not whole. */
void agreement_write(const agreement *, FILE *);
bool agreement_read(agreement *, FILE *);
void agreement_free(agreement *);

#endif
