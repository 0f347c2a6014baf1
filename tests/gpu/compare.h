/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares a device's op table with the scalar reference, op by op, without a test library: what tests/gpu runs on
 * hardware, and make check on the emulated device.
 *
 * A `twin` is one array held by both devices with the same content. An op is asked of both sides, then what it wrote is
 * read back and compared.
 */
#ifndef GPU_COMPARE_H
#define GPU_COMPARE_H

#include "kernels/ops.h"

enum { DEVICE, REFERENCE, SIDES };

typedef struct side {
    kn_device *device;
    const kn_ops *ops; /* of the type at hand */
} side;

/* How far from the reference an op may be. */
typedef enum limit {
    WITHIN_SUM,      /* 1e-5 of the largest element in float32, 2^-7 in bfloat16: what is rounded once */
    WITHIN_F32,      /* 1e-5 of the largest in both tables: results in float32 of exact inputs */
    WITHIN_ROUNDING, /* two units in the last place, element by element; in float32 as above */
    WITHIN_NOTHING   /* the same bits */
} limit;

typedef struct finding {
    const char *op;
    kn_dtype type;
    unsigned cases, failures;
    double worst; /* error over what is allowed */
    char first[160];
} finding;

typedef struct compare {
    side side[SIDES];
    kn_dtype type;
    bool quick;       /* small shapes alone: for emulation */
    bool first;       /* ends the program where something is wrong */
    const char *only; /* a part of an op's name, or NULL */
    finding found[160];
    unsigned finds;
} compare;

typedef struct twin {
    void *at[SIDES];
    size_t n;
    kn_dtype type;
} twin;

/* n numbers about -scale … scale, a function of seed alone, rounded to the type. */
twin twin_random(compare *, kn_dtype type, size_t n, float scale, uint64_t seed);
twin twin_of(compare *, kn_dtype type, const float *values, size_t n);
void twin_free(compare *, twin *);
/* Matrices of both sides with the same weights. */
void matrices_new(compare *, kn_matrix *m[SIDES], size_t out, size_t in, float scale, uint64_t seed);
void matrices_free(compare *, kn_matrix *m[SIDES]);
/* What the device's side holds, widened; malloc. */
float *twin_read(compare *, const twin *, int which);

/* Notes whether both sides hold the same. `op` lives as long as the program. */
void compare_twin(compare *, const char *op, const twin *, limit);
/* Notes whether each side holds the same bits in both. */
void compare_same(compare *, const char *op, const twin *, const twin *);
void compare_host(compare *, const char *op, const float *device, const float *reference, size_t n, double tolerance);
/* Notes that something holds, or does not. */
void compare_true(compare *, const char *op, bool holds, const char *what);
#define compare_ok(c, op, call) compare_true((c), (op), (call) == KN_OK, #call)

void *compare_memory(size_t bytes);
uint32_t *compare_tokens(size_t n, uint32_t below, uint64_t seed);

/* The parts; each asks compare->type alone. */
void compare_products(compare *);
void compare_vocabulary(compare *);
void compare_chunks(compare *);
void compare_rows(compare *);
void compare_optimizer(compare *);
void compare_attention(compare *);
void compare_generation(compare *);
void compare_choose(compare *);
void compare_merge(compare *);

#endif
