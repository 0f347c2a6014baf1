/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The small checkpoints of tests/golden/model and what make_model.py says of them. Failures end the test. */
#ifndef TESTS_MODEL_GOLDEN_H
#define TESTS_MODEL_GOLDEN_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "model/checkpoint.h"
#include "model/train.h"
#include "model/transformer.h"

extern const char *const golden_models[]; /* names, ends with NULL */

typedef struct golden {
    json_t *json; /* score.json */
    sm_checkpoint *checkpoint;
    sluice_group *groups;
    size_t group_count, completions;
    float **logps; /* [completions] room for what the model says */
} golden;

void golden_load(golden *, const char *name);
/* Fills groups and room from the JSON array `list`. */
void golden_groups(golden *, const json_t *list);
void golden_free(golden *);
/* A folder beside the model's own weights: "gradient", "sft", … */
sm_checkpoint *golden_folder(const char *name, const char *folder);

/* Groups from the JSON array `list` with prompt and completions; their arrays are malloc'ed. */
sluice_span golden_span(const json_t *list);
float **golden_room(const sluice_group *groups, size_t count);
void golden_room_free(float **room, size_t completions);

/* The golden model's network, packed from the flat array; without backward. */
sm_network *golden_network(kn_device *device, kn_dtype dtype, const golden *);

/* Log-probabilities by a network made for this call. */
void golden_score(kn_device *device, kn_dtype dtype, const golden *, const sluice_group *groups, size_t count,
                  float *const *logps);

/* A training's masters, and its gradient, as they are now: new memory. */
float *golden_params(sm_training *);
float *golden_gradients(sm_training *);

/* A loss for sm_training_gradient: minus the log-probability of all completions; the context is the golden. */
int golden_likelihood(void *context, const float *const *logps, float *const *d_logps);

/* ‖a − b‖ / ‖b‖ over a run of floats. */
double golden_difference(const float *a, const float *b, size_t count);

/* Devices by number: 0 the reference, then the CPU backend's instruction sets; when a device is asked for
 * (test_device.h) that one is number 1, and there is no other. NULL for one this machine lacks. */
#define GOLDEN_DEVICES 5
kn_device *golden_device(int number, int threads);
/* The last type the device computes in: loops run from KN_F32 to it. */
kn_dtype golden_last_dtype(const kn_device *device);
void golden_device_free(int number, kn_device *device);

#endif
