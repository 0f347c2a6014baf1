/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient of one batch, in as many micro-batches as memory asks for. What comes out does not depend on how it is
 * cut: the loss and the numbers are summed example by example, and the runtime's sums know no micro-batch.
 */
#ifndef TRAINER_BATCH_H
#define TRAINER_BATCH_H

#include <sluice/loss.h>
#include <sluice/model.h>
#include "plugins/trainer/examples.h"

/* Sums over examples; means are taken when they are reported. */
typedef struct batch_sums {
    double loss;    /* weight times loss */
    double divisor; /* what loss and gradient are divided by: pairs, sequences, or trained tokens */
    uint64_t examples, tokens;
    double chosen_reward, rejected_reward, correct; /* pairs */
    double chosen_logp, rejected_logp;
    double center; /* of a reward model: (r_chosen + r_rejected)², mean over its outputs */
} batch_sums;

typedef struct batch {
    /* set by the caller */
    const sluice_host *host;
    const sluice_model_service *service;
    sluice_training *training;
    const sluice_part *loss;
    const examples *examples;
    size_t micro_tokens;
    uint32_t heads; /* outputs of the reward model that is trained; 0 = a language model */
    /* room for a micro-batch, grown as needed */
    example *x;
    sluice_group *groups;
    sluice_span *spans;
    size_t room;
    double *numbers;
    size_t number_room;
    size_t *offsets;
    /* of the micro-batch in hand */
    size_t count;
    uint64_t step;
    double progress;
    batch_sums *sums;
} batch;

/* Adds the gradient of the examples `order[0 … count)` and their sums. step (from 1) is for messages. */
int batch_gradient(batch *, const uint32_t *order, size_t count, uint64_t step, double progress, batch_sums *);
/* The sums alone, under the weights as they are now and without dropout. */
int batch_measure(batch *, const uint32_t *order, size_t count, uint64_t step, double progress, batch_sums *);
/* Frees the room. */
void batch_free(batch *);

#endif
