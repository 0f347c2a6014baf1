/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * On which device tests run. Unset, the environment's SLUICE_TEST_DEVICE leaves it to the test (the reference and every
 * instruction set of this machine); else it is
 *
 *     far                  the CPU's, with memory that the host cannot touch (far_device.h)
 *     PATH/cuda.so         that of a backend's plugin (kernels/backend.h)
 *
 * A plugin that finds no device skips the program, with its reason.
 */
#ifndef TESTS_TEST_DEVICE_H
#define TESTS_TEST_DEVICE_H

#include "kernels/ops.h"

typedef struct test_device {
    const char *name;   /* "far", "cuda"; NULL when the variable is unset */
    double tolerance;   /* of what an op computes in float32, by the largest element */
    double tolerance16; /* likewise in bfloat16 */
    bool exact;         /* results do not depend on neighbours, cuts and threads; bfloat16 is float32 rounded once */
} test_device;

/* What was asked for. Ends the program where there is no such device. */
const test_device *test_device_asked(void);
/* Whether the tests' devices give one answer whatever the neighbours, cuts and threads (CUDA's where
 * SLUICE_CUDA_INVARIANT asks for it), and whether bfloat16 is float32 rounded once. */
bool test_device_one_answer(void);
bool test_device_exact(void);
/* The one asked for; each is freed. */
kn_device *test_device_new(int threads);
void test_device_free(kn_device *);

#endif
