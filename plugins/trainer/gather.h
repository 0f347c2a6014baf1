/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * From the input's records to training examples: token ids, limits, the reference's log-probabilities.
 *
 * A loss on pairs takes every pair. A loss on sequences takes the chosen answers of a record that has pairs (each
 * once), and every candidate of one that has none.
 */
#ifndef TRAINER_GATHER_H
#define TRAINER_GATHER_H

#include <sluice/loss.h>
#include "plugins/common/answers.h"
#include "plugins/trainer/examples.h"

enum too_long { TOO_LONG_ERROR, TOO_LONG_SKIP, TOO_LONG_LEFT };
enum truncated { TRUNCATED_KEEP, TRUNCATED_DROP };

typedef struct gather {
    /* set by the caller */
    const sluice_host *host;
    const sluice_loss_class *loss;
    const answers_model *policy;
    const answers_model *reference; /* NULL when the loss needs none */
    double prompt_weight;
    bool raw;
    int too_long, truncated;
    /* what came */
    uint64_t records, bare; /* records; those that gave no example */
    uint64_t identical, weightless, truncated_count, too_long_count, cut,
        empty;                /* examples left out, or (cut) shortened */
    uint64_t found, computed; /* answers whose reference log-probabilities were there, or had to be computed */
} gather;

/* Reads the whole input. */
int gather_examples(gather *, examples *);

#endif
