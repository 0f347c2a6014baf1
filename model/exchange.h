/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What passes between the two halves of a gradient: each completion's log-probabilities or values, and what the
 * caller's loss derives them to. */
#ifndef MODEL_EXCHANGE_H
#define MODEL_EXCHANGE_H

#include <sluice/model.h>

#include "model/error.h"

typedef struct sm_exchange {
    float **outputs, **derivatives; /* [completions], over all groups in order; zeros at first */
    float *memory;
} sm_exchange;

/* width: numbers a completion; 0 = one a token. Freed in any case. */
int sm_exchange_new(sm_exchange *exchange, const sluice_group *groups, size_t count, size_t width, sm_error *error);
void sm_exchange_free(sm_exchange *exchange);

#endif
