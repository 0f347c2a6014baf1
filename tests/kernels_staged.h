/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A device for tests whose float32 table is another device's table of either type, over arrays of the host: what an op
 * takes is sent to the device (rounded where its type is bfloat16), what it gives is read back (widened). So a test
 * written for float32 arrays in host memory tests either table of any device.
 */
#ifndef KERNELS_STAGED_TEST_H
#define KERNELS_STAGED_TEST_H

#include "kernels/ops.h"

/* inner stays the caller's. Aborts when out of memory; NULL when inner does not compute in that type. A staged device
 * given as inner stands for its own. */
kn_device *staged_device(kn_device *inner, kn_dtype dtype);
void staged_device_free(kn_device *);
/* n float32 rounded to bfloat16 in place. */
void bf16_round(float *x, size_t n);

#endif
