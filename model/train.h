/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Training: float32 masters, a gradient that accumulates over calls, AdamW. In bfloat16 the passes run on masters
 * rounded once a step; gradients of weights and masters stay float32, moments too unless the optimizer's moment_bits is
 * 16.
 *
 * One object belongs to one thread at a time. It copies the parameters it starts from and borrows device and layout.
 */
#ifndef MODEL_TRAIN_H
#define MODEL_TRAIN_H

#include "model/transformer.h"

typedef struct sm_training sm_training;

/* dtype: KN_F32, or KN_BF16 where the device has a table of it. The numbers are read once. */
int sm_training_new(sm_training **out, kn_device *device, kn_dtype dtype, const sm_layout *layout,
                    const sm_numbers *numbers, const sluice_optimizer *optimizer, sm_error *error);
/* A reward model: the body of `layout` under a head of optimizer->head_outputs, which starts from `head`, or random
 * when that is NULL. With optimizer->freeze_body only the head has a gradient and moves; dropout does not apply. */
int sm_training_new_reward(sm_training **out, kn_device *device, kn_dtype dtype, const sm_layout *layout,
                           const sm_numbers *numbers, const float *head, const sluice_optimizer *optimizer,
                           sm_error *error);
void sm_training_free(sm_training *training);

typedef int (*sm_derivative)(void *context, const float *const *logps, float *const *d_logps);

/* Adds the gradient of these groups, as sluice_model_service.train_gradient says; of a reward model as train_values
 * does. When `derivative` returns a negative result, SM_CALLER is returned, *result holds it, and the gradient is as
 * before the call. */
int sm_training_gradient(sm_training *training, const sluice_group *groups, size_t count, sm_derivative derivative,
                         void *context, int *result, sm_error *error);
/* Its two halves, for who derives in between: outputs[k] is the k-th completion's array over all groups, of its
 * log-probabilities or values, and derivatives[k] what they are derived to. The second takes the groups of the first.
 */
int sm_training_forward(sm_training *training, const sluice_group *groups, size_t count, float *const *outputs,
                        sm_error *error);
int sm_training_backward(sm_training *training, const sluice_group *groups, size_t count, float *const *derivatives,
                         sm_error *error);
/* One update with the gradient times grad_scale; clears the gradient. */
int sm_training_step(sm_training *training, double lr, double grad_scale, sluice_step_info *info, sm_error *error);
/* Log-probabilities under the weights as they are now, without dropout. */
int sm_training_score(sm_training *training, const sluice_group *groups, size_t count, float *const *logps,
                      sm_error *error);

/* The same of a reward model's values: [outputs] a completion. */
int sm_training_score_values(sm_training *training, const sluice_group *groups, size_t count, float *const *values,
                             sm_error *error);

/* What is trained: for a reward model another layout than it began from. */
const sm_layout *sm_training_layout(const sm_training *training);
/* ‖weights now − weights at the start‖; numbers are those that training began from. */
int sm_training_distance(const sm_training *training, const sm_numbers *numbers, double *out, sm_error *error);

/* The masters as they are when they are read: borrowed, good as long as the training and its thread's. */
sm_numbers sm_training_params(sm_training *training);
/* The gradient since the last step, laid out as params (of a frozen body: the head's alone), into host memory; for a
 * tied model it holds both uses of the embedding only after sm_training_gather. */
int sm_training_gradients(sm_training *training, float *to, sm_error *error);

/* Adds the output matrix's part of a tied model's gradient to the embedding's. Called by step. */
int sm_training_gather(sm_training *training, sm_error *error);

/* What a training is made of between two steps, for train_state.c. Borrowed; arrays are memory of the device. */
typedef struct sm_training_parts {
    kn_device *device;
    float *params;   /* those that are trained */
    float *gradient; /* theirs, whole after sm_training_gather */
    void *moment, *square;
    size_t moment_bytes; /* of an element of these two */
    size_t count, first; /* how many, and which is the first of params' layout */
    uint64_t *updates, *steps;
} sm_training_parts;
sm_training_parts sm_training_take_apart(sm_training *training);
/* After the parts were changed. */
int sm_training_refresh(sm_training *training, sm_error *error);

#endif
