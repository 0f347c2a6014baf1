/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A validation split: examples that are measured after each epoch and never trained on. */
#ifndef TRAINER_VALIDATE_H
#define TRAINER_VALIDATE_H

#include "plugins/trainer/batch.h"

/* Puts the indices of all examples into `members`: those to train on first, in their order, then the share that is held
 * out, chosen by the record's id and the seed, so that answers of one record stay together. Returns how many to train
 * on. */
size_t validate_split(const examples *, uint64_t seed, double share, uint32_t *members);

/* What best_by names; also the order of its choices. */
enum validate_by { BY_LOSS, BY_ACCURACY, BY_MARGIN, BY_CHOSEN, BY_COUNT };

/* Measures the held-out examples and reports their means at this step. values: by enum validate_by; NaN where the loss
 * is not on pairs. */
int validate(batch *, const uint32_t *order, size_t count, uint64_t step, double progress, double values[BY_COUNT]);

/* Is one better than the other by this number? A value that is not finite is never better. */
bool validate_better(int by, const double *values, const double *than);

/* Removes the files of weights that a better epoch replaces. */
void validate_forget(const char *folder);

#endif
