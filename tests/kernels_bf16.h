/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A device for tests whose float32 table is another device's bfloat16 one: arrays are float32, what goes in is rounded,
 * what comes out widened. So a test written for float32 arrays tests either table.
 */
#ifndef KERNELS_BF16_TEST_H
#define KERNELS_BF16_TEST_H

#include "kernels/ops.h"

/* inner stays the caller's. Aborts when out of memory; NULL when inner computes no bfloat16. */
kn_device *bf16_device(kn_device *inner);
void bf16_device_free(kn_device *);
/* n float32 rounded to bfloat16 in place. */
void bf16_round(float *x, size_t n);

#endif
