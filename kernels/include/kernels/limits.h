/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine can do at most, as far as this backend reaches: what the time of an op is to be measured against.
 * Takes some seconds, and half a gigabyte of memory while it lasts; two of a device that has its own.
 */
#ifndef KERNELS_LIMITS_H
#define KERNELS_LIMITS_H

#include "kernels/ops.h"

typedef struct kn_limits {
    double f32, bf16; /* flops a second of products of 2048 × 2048 matrices (8192 × 8192 on a device with memory of its
                         own) by the device's two tables; bf16 0 where it has none */
    double copy;      /* bytes a second, read and written ones together, of memcpy by all threads, or within the
                         device's memory */
    double read;      /* bytes a second of reading memory by all threads; of a device's own: as `copy` */
} kn_limits;

/* Measures on the device's threads. KN_OK or KN_NO_MEMORY. */
int kn_limits_measure(kn_device *, kn_limits *);
/* The product's share alone: flops a second of the table `ops` of the device, 0 when out of memory. */
double kn_limits_product(kn_device *, const kn_ops *ops);

#endif
