/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The machine's limits, measured. */
#include "kernels/limits.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 5 };
static const size_t block = (size_t)256 << 20; /* bytes: beyond any cache */
static const size_t grain = (size_t)1 << 20;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Waits for what the device was asked to do to this memory. */
static void settle(kn_device *d, const void *at)
{
    uint64_t word;
    d->ops->read(d, &word, at, sizeof(word));
}

/* A number of -0.5 … 0.5 by place. */
static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(i % 251) / 251 - 0.5f;
}

double kn_limits_product(kn_device *d, const kn_ops *o)
{
    const size_t side = d->host_memory ? 2048 : 8192, n = side * side;
    float *host = malloc(n * sizeof(float)), *w = o->alloc(d, n * sizeof(float));
    void *x = o->alloc(d, n * sizeof(float)), *y = o->alloc(d, n * sizeof(float));
    kn_matrix *m = o->matrix_new(d, side, side, false);
    double best = 0;
    if (host && w && x && y && m) {
        fill(host, n);
        o->write(d, w, host, n * sizeof(float));
        o->matrix_set(d, m, w);
        if (o->dtype == KN_BF16)
            o->to_bf16(d, x, w, n);
        else
            o->copy(d, x, w, n * sizeof(float));
        for (int i = 0; i <= ROUNDS; i++) { /* the first chooses how */
            settle(d, x);
            const double start = now();
            const int status = o->linear(d, y, x, m, NULL, NULL, side);
            settle(d, y);
            const double rate = 2.0 * (double)n * (double)side / (now() - start);
            best = status == KN_OK && rate > best ? rate : best;
        }
    }
    o->matrix_free(d, m);
    o->free(d, w);
    o->free(d, x);
    o->free(d, y);
    free(host);
    return best;
}

/* Bytes a second, read and written, of a copy within the device's own memory. */
static int measure_copy(kn_device *d, kn_limits *l)
{
    const size_t bytes = (size_t)1 << 30;
    enum { COPIES = 8 }; /* at once: the device, not the asking, is measured */
    char *to = d->ops->alloc(d, bytes), *from = d->ops->alloc(d, bytes);
    const bool ok = to && from && d->ops->clear(d, from, bytes) == KN_OK;
    l->copy = 0;
    for (int i = 0; ok && i <= ROUNDS; i++) {
        settle(d, from);
        const double start = now();
        for (int k = 0; k < COPIES; k++)
            d->ops->copy(d, to, from, bytes);
        settle(d, to);
        const double rate = 2.0 * COPIES * (double)bytes / (now() - start);
        l->copy = rate > l->copy ? rate : l->copy;
    }
    l->read = l->copy;
    d->ops->free(d, to);
    d->ops->free(d, from);
    return ok ? KN_OK : KN_NO_MEMORY;
}

typedef struct transfer {
    char *to;
    const char *from;
    uint64_t *sum; /* one a grain, so that reading has an effect */
} transfer;

static void copy_task(void *arg, size_t begin, size_t end)
{
    const transfer *t = arg;
    for (size_t i = begin; i < end; i++)
        memcpy(t->to + i * grain, t->from + i * grain, grain);
}

typedef uint64_t pair __attribute__((vector_size(16)));

static void read_task(void *arg, size_t begin, size_t end)
{
    const transfer *t = arg;
    for (size_t i = begin; i < end; i++) {
        const pair *from = (const pair *)(const void *)(t->from + i * grain);
        pair a = {0}, b = {0}, c = {0}, d = {0};
        for (size_t k = 0; k < grain / sizeof(pair); k += 4) {
            a ^= from[k];
            b ^= from[k + 1];
            c ^= from[k + 2];
            d ^= from[k + 3];
        }
        a ^= b ^ c ^ d;
        t->sum[i] = a[0] ^ a[1];
    }
}

static double rate_of(kn_device *d, kn_task task, transfer *t, double bytes)
{
    double best = 0;
    for (int i = 0; i < ROUNDS; i++) {
        const double start = now();
        d->ops->parallel(d, block / grain, 1, task, t);
        const double rate = bytes / (now() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

/* The same of host memory, by the device's threads, and of reading alone. */
static int measure_memory(kn_device *d, kn_limits *l)
{
    char *to = d->ops->alloc(d, block), *from = d->ops->alloc(d, block);
    uint64_t *sum = d->ops->alloc(d, block / grain * sizeof(*sum));
    const bool ok = to && from && sum;
    if (ok) {
        memset(from, 1, block);
        transfer t = {to, from, sum};
        l->copy = rate_of(d, copy_task, &t, 2.0 * (double)block);
        l->read = rate_of(d, read_task, &t, (double)block);
    }
    d->ops->free(d, to);
    d->ops->free(d, from);
    d->ops->free(d, sum);
    return ok ? KN_OK : KN_NO_MEMORY;
}

int kn_limits_measure(kn_device *d, kn_limits *l)
{
    const bool ok = (d->host_memory ? measure_memory(d, l) : measure_copy(d, l)) == KN_OK;
    l->f32 = ok ? kn_limits_product(d, d->ops) : 0;
    l->bf16 = ok && d->ops_bf16 ? kn_limits_product(d, d->ops_bf16) : 0;
    return l->f32 > 0 && (l->bf16 > 0 || !d->ops_bf16) ? KN_OK : KN_NO_MEMORY;
}
