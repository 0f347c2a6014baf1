/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the far device's table of either type (far_ops.h) is made of. */
#ifndef TESTS_FAR_PARTS_H
#define TESTS_FAR_PARTS_H

#include <pthread.h>

#include "kernels/ops.h"

enum { FAR_BLOCKS = 4096 };

typedef struct far_block {
    size_t at, bytes; /* in the region */
} far_block;

typedef struct far_device {
    kn_device base;
    kn_device *inner;
    char *away; /* the region's addresses as they are given out; nothing is mapped there */
    char *here; /* where it really is */
    pthread_mutex_t lock;
    far_block block[FAR_BLOCKS]; /* live, by address */
    size_t blocks, used, limit;
    size_t calls, reads, kept;
    size_t left; /* calls until it breaks */
    char numerics[2][120];
    kn_ops table[2]; /* float32, bfloat16 */
} far_device;

/* What this device gives out as kn_matrix and kn_cache: the wrapped one's, and its shape. */
typedef struct far_matrix {
    kn_matrix *inner;
    size_t out, in;
} far_matrix;

typedef struct far_cache {
    kn_cache *inner;
    size_t layers, pages;
    kn_attention shape;
} far_cache;

/* The real address of device memory [p, p + bytes), and of what may be NULL. */
void *far_memory(const far_device *, const char *op, const void *p, size_t bytes);
/* Checks that host memory [p, p + bytes) is none of the device's; gives it back. */
const void *far_host(const far_device *, const char *op, const void *p, size_t bytes);

/* Ends the program unless `kept` are the logits of these rows; then spoils it. */
void far_compare_kept(far_device *, const char *op, float *kept, const kn_ops *inner, const void *h, const kn_matrix *,
                      size_t rows, size_t vocab);

/* Around each op: the lock, and whether the device still works. */
bool far_begin(far_device *, bool waits);
int far_end(far_device *, int status); /* gives the status back */

#endif
