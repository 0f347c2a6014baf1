/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Training: float32 masters, a gradient that accumulates over calls, AdamW.
 *
 * One object belongs to one thread at a time. It copies the parameters it starts from and borrows device and layout.
 */
#ifndef MODEL_TRAIN_H
#define MODEL_TRAIN_H

#include "model/transformer.h"

typedef struct sm_training sm_training;

int sm_training_new(sm_training **out, kn_device *device, const sm_layout *layout, const float *params,
                    const sluice_optimizer *optimizer, sm_error *error);
void sm_training_free(sm_training *training);

typedef int (*sm_derivative)(void *context, const float *const *logps, float *const *d_logps);

/* Adds the gradient of these groups, as sluice_model_service.train_gradient says. When `derivative` returns a negative
 * result, SM_CALLER is returned, *result holds it, and the gradient is as before the call. */
int sm_training_gradient(sm_training *training, const sluice_group *groups, size_t count, sm_derivative derivative,
                         void *context, int *result, sm_error *error);
/* One update with the gradient times grad_scale; clears the gradient. */
int sm_training_step(sm_training *training, double lr, double grad_scale, sluice_step_info *info, sm_error *error);
/* Log-probabilities under the weights as they are now, without dropout. */
int sm_training_score(sm_training *training, const sluice_group *groups, size_t count, float *const *logps,
                      sm_error *error);

/* The masters, and the gradient since the last step, laid out as params. Borrowed; for a tied model the gradient holds
 * both uses of the embedding only after sm_training_gather. */
const float *sm_training_params(const sm_training *training);
const float *sm_training_gradients(const sm_training *training);

/* Adds the output matrix's part of a tied model's gradient to the embedding's. Called by step. */
int sm_training_gather(sm_training *training, sm_error *error);

#endif
