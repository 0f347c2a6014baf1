/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Batches of numbers for losses. */
#ifndef TP_LOSS_H
#define TP_LOSS_H

#include "tools/test-plugin/subject.h"

enum { TP_LOSS_HEADS = 2 };

/* One batch in memory of its own, with room for what the loss answers. */
typedef struct tp_batch {
    size_t count, tokens; /* pairs or sequences; tokens over all sequences */
    sluice_pairs pairs;
    sluice_pair_grads pair_grads;
    sluice_token_batch sequences;
    sluice_token_grads token_grads;
    /* the same, writable */
    sluice_answer *chosen, *rejected;
    double *chosen_value, *rejected_value, *policy;
} tp_batch;

/* How large log-ratios are. */
enum tp_size { TP_SIZE_USUAL, TP_SIZE_LARGE, TP_SIZE_INFINITE, TP_SIZE_NAN };

/* Items first … first+count-1 of the endless row of examples that `seed` gives. NULL when out of memory. */
tp_batch *tp_batch_new(const sluice_loss_class *, uint64_t seed, size_t first, size_t count, enum tp_size);
void tp_batch_free(tp_batch *);
int tp_batch_call(const sluice_loss_class *, void *self, tp_batch *);

#endif
