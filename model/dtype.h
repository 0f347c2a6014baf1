/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Stored numbers: float32 to and from the 16-bit formats of weight files, rounded to nearest, ties to even. */
#ifndef MODEL_DTYPE_H
#define MODEL_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

/* Bytes of one element. */
size_t sm_dtype_size(kn_dtype dtype);

/* `from` holds count elements of `dtype`, in the byte order of the file (little-endian); for float32 it may be `to`.
 * False when one of them is not finite. */
bool sm_dtype_decode(float *to, const void *from, size_t count, kn_dtype dtype);

/* The inverse. False when a value is not finite, or does not stay so in `dtype`. */
bool sm_dtype_encode(void *to, const float *from, size_t count, kn_dtype dtype);

/* Whether all values are finite. */
bool sm_dtype_finite(const float *values, size_t count);

#endif
