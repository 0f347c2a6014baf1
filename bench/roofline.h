/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the files of roofline share: one op of one shape, prepared, with what it must move and compute at least. */
#ifndef BENCH_ROOFLINE_H
#define BENCH_ROOFLINE_H

#include <stdio.h>

#include "kernels/limits.h"
#include "kernels/ops.h"

typedef struct shape {
    const char *name;
    size_t hidden, layers, heads, kv_heads, head_dim, ffn, vocab;
} shape;

typedef struct roofline {
    kn_device *device;
    const kn_ops *ops; /* of the type that is measured */
    kn_limits limits;
    const shape *shape;
    size_t tokens, batch, context; /* of a step; sequences and keys of a decoding step */
    size_t spread;                 /* bytes that calls go round in, so that a cache does not hold them */
    double seconds;                /* each op is timed for */
    const char *only;
    FILE *json;
    bool started; /* the JSON array has an element */
    double step, step_least, decode, decode_least;
} roofline;

/* An array of device memory in some copies; each call takes the next. */
typedef struct area {
    char *at;
    size_t bytes, slots;
} area;

enum { JOB_AREAS = 7, JOB_MATRICES = 8 };

typedef struct job {
    roofline *r;
    area area[JOB_AREAS];
    kn_matrix *m[JOB_MATRICES];
    size_t matrices;
    size_t T, out, in; /* of products; rows and width elsewhere */
    kn_attention attention;
    kn_segment *segment;
    kn_cached_rows *rows;
    kn_cache *cache;
    size_t segments;
    uint32_t *index;
    kn_choice *choice;
    kn_chosen *chosen;
    int status;
} job;

typedef void (*job_run)(job *, size_t call);

/* Areas of elements of the table's type or of float32, filled with random numbers. */
area area_elements(roofline *, size_t n);
area area_floats(roofline *, size_t n);
void *area_at(const area *, size_t call);
kn_matrix *job_matrix(const job *, size_t call);
void job_matrices(job *, size_t out, size_t in);

/* Times a job, prints its line and frees what it holds. times: how often a step does it (0 = no part of one);
 * `decoding` says of which. */
void job_measure(job *, const char *name, job_run run, double flops, double bytes, double times, bool decoding);

double roofline_now(void);
double roofline_median(double *took, size_t count);
/* Prints a row and returns the least time. */
double roofline_print(roofline *, const char *name, double took, double flops, double bytes, int status);

void roofline_training(roofline *);
void roofline_decoding(roofline *);
void roofline_step(roofline *);

#endif
