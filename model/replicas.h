/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Training on several devices at once: a replica of the model on each, records dealt out, gradients summed once a step.
 *
 * Each record goes to the device that has the fewest tokens of this step so far, so which records a device sums does
 * not depend on how a batch was cut. The caller's loss sees all records of a call together, on the caller's thread, as
 * on one device. After the sum every replica has the same gradient and takes the same step, so they stay equal to the
 * bit; before a model is saved that is checked. With one device nothing is dealt and no thread is made.
 *
 * One object belongs to one thread at a time; devices and layout are borrowed.
 */
#ifndef MODEL_REPLICAS_H
#define MODEL_REPLICAS_H

#include "kernels/collective.h"
#include "model/train.h"

enum { SM_MOST_DEVICES = 64 };

typedef struct sm_devices {
    kn_device *const *device;
    size_t count;
    kn_collective *together; /* sums over them; NULL where there is one */
} sm_devices;

typedef struct sm_replicas sm_replicas;

/* As sm_training_new; with optimizer->head_outputs as sm_training_new_reward. */
int sm_replicas_new(sm_replicas **out, const sm_devices *devices, kn_dtype dtype, const sm_layout *layout,
                    const sm_numbers *numbers, const float *head, const sluice_optimizer *optimizer, sm_error *error);
void sm_replicas_free(sm_replicas *replicas);

/* As their namesakes of train.h. */
int sm_replicas_gradient(sm_replicas *replicas, const sluice_group *groups, size_t count, sm_derivative derivative,
                         void *context, int *result, sm_error *error);
int sm_replicas_step(sm_replicas *replicas, double lr, double grad_scale, sluice_step_info *info, sm_error *error);
/* Log-probabilities, or a reward model's values: outputs[k] is the k-th completion's array over all groups. */
int sm_replicas_score(sm_replicas *replicas, const sluice_group *groups, size_t count, float *const *outputs,
                      sm_error *error);
int sm_replicas_resume(sm_replicas *replicas, const char *path, sm_error *error);

/* SM_DEVICE when the replicas are not equal to the bit: one of the devices, or what is between them, is at fault. */
int sm_replicas_compare(sm_replicas *replicas, sm_error *error);
/* That of the first device, which stands for all of them: to read from, save and suspend. */
sm_training *sm_replicas_first(sm_replicas *replicas);

#endif
