/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the files of bench-kernels share: who is compared, and how a call is timed. */
#ifndef KN_BENCH_H
#define KN_BENCH_H

#include "kernels/ops.h"

/* One of those compared: a table of a device. */
typedef struct contender {
    kn_device *device;
    const kn_ops *ops;
    const char *name; /* a column's head */
} contender;

enum { MOST_CONTENDERS = 3 };

/* One op of one shape, prepared. Buffers a, b, c, d hold elements of the table's type or float32, as the op asks. */
typedef struct task {
    kn_device *device;
    const kn_ops *o;
    kn_matrix *m;
    kn_cache *cache;
    size_t T, out, in, segments;
    void *a, *b, *c, *d;
    float *lse, *cos, *sin;
    uint32_t *token;
    kn_segment *segment;
    kn_cached_rows *rows;
    kn_attention shape;
    kn_choice *choice;
    kn_chosen *chosen;
} task;

typedef void (*action)(task *);

/* Seconds of a call: the fastest of many. */
double bench_fastest(action f, task *t);
/* With one thread its own time counts, so that a busy machine disturbs less; with several, the wall's. */
void bench_watch(int threads);
/* n random numbers of -1 … 1; exits when out of memory. */
float *bench_floats(size_t n);
void *bench_elements(const contender *, size_t n);
void bench_free(task *);

void bench_products(const contender *, int contenders);
void bench_vocabulary(const contender *, int contenders);
void bench_attention(const contender *, int contenders);
void bench_rows(const contender *, int contenders);

#endif
