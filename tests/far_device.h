/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A device for tests whose memory the host cannot touch: that of another device, seen through addresses that nothing
 * is mapped at.
 *
 * Each op checks that what the contract (kernels/ops.h) calls memory of the device lies within one live block of it, at
 * its full length, and that what it calls host memory does not; then it calls the wrapped device with the real
 * addresses, so results are the same to the bit. What breaks a rule ends the program with a line that names the op.
 * A block is full of ones, which are NaN, when it is given out. Calls are serialized.
 */
#ifndef TESTS_FAR_DEVICE_H
#define TESTS_FAR_DEVICE_H

#include "kernels/ops.h"

/* Wraps a device with host memory, which stays the caller's. NULL when out of memory. */
kn_device *far_device_new(kn_device *inner);
/* Ends the program if the runtime left a block behind. */
void far_device_free(kn_device *);
kn_device *far_device_inner(const kn_device *);

/* From the call after the next `calls` on, nothing works any more, as after an illegal address on a GPU. */
void far_device_break(kn_device *, size_t calls);
/* At most so many bytes are given out at a time; SIZE_MAX = as many as there are. */
void far_device_limit(kn_device *, size_t bytes);
/* Ops asked for so far; of them, those that waited for the device. */
size_t far_device_calls(const kn_device *);
size_t far_device_reads(const kn_device *);
/* Gradients of log-probabilities that were given the logits kept from the forward pass. */
size_t far_device_kept(const kn_device *);

#endif
