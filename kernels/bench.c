/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-kernels: how fast the ops are on this machine, in GFLOP/s (matrix products, attention) or nanoseconds an
 * element, of both element types in turns in one process, best of many; float32 products by oneDNN too, where built
 * with it.
 *
 *   bench-kernels [--type float32|bf16] [THREADS]
 *   bench-kernels --limits [THREADS]     what the machine can do at most
 *
 * SLUICE_BENCH_ISA names an instruction set.
 */
#include "config.h"
#include "bench.h"
#include "kernels/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static clockid_t watch = CLOCK_MONOTONIC;

void bench_watch(int threads)
{
    watch = threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(watch, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double timed(action f, task *t, int calls)
{
    const double start = now();
    for (int i = 0; i < calls; i++)
        f(t);
    return (now() - start) / calls;
}

/* Rounds of some calls, each long enough for the clock, 0.15 s together. */
double bench_fastest(action f, task *t)
{
    double best = timed(f, t, 1), spent = 0;
    const int calls = best < 50e-6 ? (int)(50e-6 / (best + 1e-9)) + 1 : 1;
    for (int i = 0; i < 400 && (spent < 0.15 || i < 3); i++) {
        const double took = timed(f, t, calls);
        best = took < best ? took : best;
        spent += took * calls;
    }
    return best;
}

float *bench_floats(size_t n)
{
    float *x = malloc((n ? n : 1) * sizeof(float));
    uint32_t state = 1;
    for (size_t i = 0; x && i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) * 0x1p-23f - 1.0f;
    }
    if (!x) {
        fprintf(stderr, "bench-kernels: out of memory\n");
        exit(1);
    }
    return x;
}

void *bench_elements(const contender *c, size_t n)
{
    float *x = bench_floats(n);
    if (c->ops->dtype == KN_BF16)
        c->ops->to_bf16(c->device, (uint16_t *)x, x, n); /* an element is narrowed behind where it is read */
    return x;
}

void bench_free(task *t)
{
    void *const all[] = {t->a, t->b, t->c, t->d, t->lse, t->cos, t->sin, t->token, t->rows, t->choice, t->chosen};
    if (t->m)
        t->o->matrix_free(t->device, t->m);
    if (t->cache)
        t->o->cache_free(t->device, t->cache);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
    free(t->segment);
    *t = (task){0};
}

static int print_limits(kn_device *device, kn_device *onednn)
{
    kn_limits l;
    if (kn_limits_measure(device, &l) != KN_OK) {
        fprintf(stderr, "bench-kernels: out of memory\n");
        return 1;
    }
    printf("float32 product, 2048 cubed   %8.1f GFLOP/s  (%s)\n", 1e-9 * l.f32, device->ops->numerics(device));
    if (onednn)
        printf("float32 product, 2048 cubed   %8.1f GFLOP/s  (%s)\n", 1e-9 * kn_limits_product(onednn, onednn->ops),
               onednn->ops->numerics(onednn));
    if (device->ops_bf16)
        printf("bfloat16 product, 2048 cubed  %8.1f GFLOP/s  (%s)\n", 1e-9 * l.bf16,
               device->ops_bf16->numerics(device));
    printf("memcpy, read and written      %8.1f GB/s\n", 1e-9 * l.copy);
    printf("reading memory                %8.1f GB/s\n", 1e-9 * l.read);
    return 0;
}

static kn_device *device_with(const char *matmul, int threads)
{
    const char *why;
    setenv("SLUICE_CPU_MATMUL", matmul, 1);
    kn_device *device = kn_cpu_new(threads, getenv("SLUICE_BENCH_ISA"), &why);
    if (!device)
        printf("no %s: %s\n", matmul, why);
    return device;
}

int main(int argc, char **argv)
{
    const char *type = NULL;
    bool limits = false;
    int threads = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--limits") == 0)
            limits = true;
        else if (strcmp(argv[i], "--type") == 0 && i + 1 < argc)
            type = argv[++i];
        else
            threads = atoi(argv[i]);
    }
    if (threads < 1 || (type && strcmp(type, "float32") != 0 && strcmp(type, "bf16") != 0)) {
        fprintf(stderr, "usage: bench-kernels [--limits] [--type float32|bf16] [THREADS]\n");
        return 2;
    }
    bench_watch(threads);
    kn_device *own = device_with("own", threads), *onednn = device_with("onednn", threads);
    if (!own)
        return 1;
    contender who[MOST_CONTENDERS];
    int n = 0;
    const bool f32 = !type || strcmp(type, "float32") == 0, bf16 = !type || strcmp(type, "bf16") == 0;
    if (f32)
        who[n++] = (contender){own, own->ops, "float32"};
    if (bf16)
        who[n++] = (contender){own, own->ops_bf16, "bfloat16"};
    for (int i = 0; i < n; i++)
        printf("%s: %s, %d threads\n", who[i].name, who[i].ops->numerics(own), threads);
    int status = 0;
    if (limits) {
        status = print_limits(own, onednn);
    } else {
        const int tables = n;
        if (onednn && f32)
            who[n++] = (contender){onednn, onednn->ops, "oneDNN f32"};
        bench_products(who, n);
        bench_vocabulary(who, tables);
        bench_attention(who, tables);
        bench_rows(who, tables);
    }
    kn_cpu_free(own);
    kn_cpu_free(onednn);
    return status;
}
