/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What several devices compute together: sums over all of them, for training on more than one.
 *
 *     kn_collective *group = backend->join(backend, devices, 2, &why);
 *     float *const gradient[] = {x, y};             one array a device, in its memory
 *     int kn = group->sum(group, gradient, n);      now each is x + y
 *
 * One call speaks for all devices, so none of them can be missing: what each of its members computes before it, it
 * waits for. When a device fails meanwhile, those that wait for it are let go, and the group is over: each later call
 * is KN_DEVICE_FAILED. Any thread may call; calls are serialized.
 */
#ifndef KERNELS_COLLECTIVE_H
#define KERNELS_COLLECTIVE_H

#include "kernels/ops.h"

typedef struct kn_collective {
    size_t size; /* sizeof(kn_collective) */
    size_t count;
    const char *name; /* who sums, as part of the numerics' name: "nccl2.28.9", "host" */
    const char *note; /* what a user should know of how it sums, in one line; NULL when there is nothing */
    /* x[d][n] of every device d becomes the sum over all, the same bits on each, and the same again for the same
     * numbers. Returns when it is done on all of them. */
    int (*sum)(struct kn_collective *, float *const *x, size_t n);
    /* One line on why the group is over, good as long as it; NULL while it works. */
    const char *(*error)(const struct kn_collective *);
    void (*free)(struct kn_collective *);
} kn_collective;

/* By the host, in the order of devices: for any kinds of device, which stay the caller's. The reference of the others.
 * NULL when out of memory. */
kn_collective *kn_collective_host(kn_device *const *devices, size_t count);

#endif
