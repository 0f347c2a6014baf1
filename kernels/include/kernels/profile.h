/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that measures another: its tables call the wrapped ones and count, per op and element type, calls, wall
 * time, floating-point operations and bytes. Results are those of the wrapped device, bit for bit. A step (step_begin)
 * stays whole: what it does is one row, "step_end", with the time from its beginning on.
 *
 * Matrices and caches made by one are not the other's. Used from several threads like any device; a call's time is its
 * own wall time, so times of calls that run side by side add up to more than passed.
 */
#ifndef KERNELS_PROFILE_H
#define KERNELS_PROFILE_H

#include "kernels/ops.h"

typedef struct kn_profile_row {
    const char *op; /* the field's name in kn_ops */
    kn_dtype dtype; /* of the table it was called in */
    uint64_t calls;
    double seconds;
    double flops; /* multiplications and additions of matrix products and attention, what the formula needs; 0 for
                     other ops */
    double bytes; /* weights, activations and gradients that a call must read and write, each once */
} kn_profile_row;

/* The wrapped device stays the caller's and must live longer. NULL when out of memory. */
kn_device *kn_profile_new(kn_device *wrapped);
void kn_profile_free(kn_device *profile);
enum { KN_PROFILE_ROWS = 80 }; /* always enough for both element types */
/* The ops that were called since the last reset, most time first. Writes at most `room` rows, gives their number. */
size_t kn_profile_read(kn_device *profile, kn_profile_row *rows, size_t room);
void kn_profile_reset(kn_device *profile);

#endif
