/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-kernels: how fast the ops are on this machine, in GFLOP/s (matrix products, attention) or nanoseconds an
 * element. Matrix products run by our own loops and by oneDNN (where built with it) in turns in one process, best of
 * many.
 *
 *   bench-kernels [THREADS]
 */
#include "config.h"
#include "kernels/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* With one thread its own time counts, so that a busy machine disturbs less. */
static clockid_t watch = CLOCK_THREAD_CPUTIME_ID;

static double now(void)
{
    struct timespec t;
    clock_gettime(watch, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *floats(size_t n)
{
    float *x = malloc(n * sizeof(float));
    uint32_t state = 1;
    for (size_t i = 0; x && i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) * 0x1p-23f - 1.0f;
    }
    if (!x)
        exit(1);
    return x;
}

/* One op of one shape, prepared. */
typedef struct task {
    kn_device *device;
    kn_matrix *m;
    size_t T, out, in, segments;
    float *a, *b, *c, *d, *lse, *x, *dx;
    uint32_t *token;
    kn_segment *segment;
    kn_attention shape;
    kn_choice *choice;
    kn_chosen *chosen;
} task;

typedef void (*action)(task *);

static double timed(action f, task *t, int calls)
{
    const double start = now();
    for (int i = 0; i < calls; i++)
        f(t);
    return (now() - start) / calls;
}

/* Seconds of a call: the fastest of many rounds, each of some calls and long enough for the clock, 0.15 s together. */
static double fastest(action f, task *t)
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

static void forward(task *t)
{
    t->device->ops->linear(t->device, t->c, t->a, t->m, NULL, NULL, t->T);
}

static void backward_input(task *t)
{
    t->device->ops->linear_backward_input(t->device, t->a, t->c, t->m, t->T, false);
}

static void backward_weight(task *t)
{
    t->device->ops->linear_backward_weight(t->device, t->b, NULL, t->c, t->a, t->T, t->out, t->in);
}

static void logprob(task *t)
{
    t->device->ops->logprob(t->device, t->d, t->lse, NULL, t->a, t->m, t->token, t->T);
}

static void logprob_backward(task *t)
{
    t->device->ops->logprob_backward(t->device, t->c, t->b, t->d, t->a, t->m, t->lse, t->token, t->T);
}

static void attention(task *t)
{
    t->device->ops->attention(t->device, t->c, t->lse, t->a, t->segment, t->segments, t->T, &t->shape);
}

static void attention_backward(task *t)
{
    t->device->ops->attention_backward(t->device, t->b, t->d, t->a, t->c, t->lse, t->segment, t->segments, t->T,
                                       &t->shape);
}

static void choose(task *t)
{
    t->device->ops->choose(t->device, t->chosen, t->a, t->choice, t->T, t->out);
}

static void swiglu(task *t)
{
    t->device->ops->swiglu(t->device, t->c, t->a, t->T, t->out);
}

static void swiglu_backward(task *t)
{
    t->device->ops->swiglu_backward(t->device, t->b, t->c, t->a, t->T, t->out);
}

static void rms_norm(task *t)
{
    t->device->ops->rms_norm(t->device, t->c, t->lse, t->a, t->b, t->T, t->in, 1e-5f);
}

static void rms_norm_backward(task *t)
{
    t->device->ops->rms_norm_backward(t->device, t->c, t->d, t->a, t->a, t->b, t->lse, t->T, t->in);
}

static void adamw(task *t)
{
    const kn_adamw a = {1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 10, 1};
    t->device->ops->adamw(t->device, t->a, t->b, t->c, t->d, t->out, &a);
}

static void nothing(void *arg, size_t begin, size_t end)
{
}

static void region(task *t)
{
    for (int i = 0; i < 100; i++)
        t->device->ops->parallel(t->device, t->T, 1, nothing, NULL);
}

/* --- matrix products ---------------------------------------------------------------------------------------------- */

typedef struct shape {
    const char *name;
    size_t out, in;
} shape;

static const shape shapes[] = {
    {"0.26M qkv", 128, 64},  {"0.26M out", 64, 64},  {"0.26M gate+up", 344, 64},  {"0.26M down", 64, 172},
    {"15M qkv", 864, 288},   {"15M out", 288, 288},  {"15M gate+up", 1536, 288},  {"15M down", 288, 768},
    {"135M qkv", 960, 576},  {"135M out", 576, 576}, {"135M gate+up", 3072, 576}, {"135M down", 576, 1536},
    {"512 cubed", 512, 512},
};

static void bench_products(kn_device *const *device, int devices)
{
    static const size_t rows[] = {1, 40, 256, 2048};
    static const action actions[] = {forward, backward_input, backward_weight};
    static const char *const names[] = {"forward", "input", "weight"};
    printf("%-14s %5s %5s %5s  %-8s", "layer", "T", "out", "in", "product");
    for (int i = 0; i < devices; i++)
        printf(" %10s", i == 0 ? "own" : "oneDNN");
    printf("   GFLOP/s\n");
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (size_t r = 0; r <= sizeof(rows) / sizeof(rows[0]); r++) {
            const size_t out = shapes[s].out, in = shapes[s].in;
            const size_t T = r < 4 ? rows[r] : 512;
            if ((r == 4) != (in == 512)) /* the cube has 512 rows */
                continue;
            task t[2];
            float *w = floats(out * in);
            for (int i = 0; i < devices; i++) {
                t[i] = (task){.device = device[i], .T = T, .out = out, .in = in};
                t[i].m = device[i]->ops->matrix_new(device[i], out, in, true);
                device[i]->ops->matrix_set(device[i], t[i].m, w);
                t[i].a = floats(T * in);
                t[i].b = floats(out * in);
                t[i].c = floats(T * out);
            }
            for (size_t a = 0; a < 3; a++) {
                printf("%-14s %5zu %5zu %5zu  %-8s", shapes[s].name, T, out, in, names[a]);
                for (int i = 0; i < (a == 2 ? 1 : devices); i++)
                    printf(" %10.1f", 2e-9 * (double)T * (double)out * (double)in / fastest(actions[a], &t[i]));
                printf("\n");
            }
            for (int i = 0; i < devices; i++) {
                device[i]->ops->matrix_free(device[i], t[i].m);
                free(t[i].a);
                free(t[i].b);
                free(t[i].c);
            }
            free(w);
        }
}

/* --- the rest ------------------------------------------------------------------------------------------------------
 */

static void bench_vocabulary(kn_device *device)
{
    static const shape heads[] = {{"0.26M head", 512, 64}, {"15M head", 32000, 288}, {"135M head", 49152, 576}};
    static const size_t rows[] = {1, 40, 256};
    printf("\n%-14s %5s %10s %10s %14s\n", "vocabulary", "T", "logprob", "backward", "choose");
    for (size_t s = 0; s < 3; s++)
        for (size_t r = 0; r < 3; r++) {
            const size_t T = rows[r], V = heads[s].out, d = heads[s].in;
            task t = {.device = device, .T = T, .out = V, .in = d};
            float *w = floats(V * d);
            t.m = device->ops->matrix_new(device, V, d, true);
            device->ops->matrix_set(device, t.m, w);
            t.a = floats(T * d);
            t.b = floats(V * d);
            t.c = floats(T * d);
            t.d = floats(T);
            t.lse = floats(T);
            t.token = calloc(T, sizeof(*t.token));
            const double flops = 2e-9 * (double)T * (double)V * (double)d, score = fastest(logprob, &t);
            const double back = fastest(logprob_backward, &t);
            free(t.a);
            t.a = floats(T * V);
            t.choice = calloc(T, sizeof(*t.choice));
            t.chosen = calloc(T, sizeof(*t.chosen));
            for (size_t i = 0; i < T; i++)
                t.choice[i] = (kn_choice){.temperature = 0.1f, .top_p = 1, .repetition_penalty = 1, .key = {i, 1}};
            const double plain = fastest(choose, &t);
            for (size_t i = 0; i < T; i++)
                t.choice[i].top_p = 0.9f, t.choice[i].top_k = 50;
            const double cut = fastest(choose, &t);
            printf("%-14s %5zu %10.1f %10.1f GFLOP/s %8.2f and, top-k 50 top-p .9, %.2f ns a logit\n", heads[s].name, T,
                   flops / score, 3 * flops / back, plain * 1e9 / (double)(T * V), cut * 1e9 / (double)(T * V));
            device->ops->matrix_free(device, t.m);
            free(w);
            free(t.a);
            free(t.b);
            free(t.c);
            free(t.d);
            free(t.lse);
            free(t.token);
            free(t.choice);
            free(t.chosen);
        }
}

static void bench_attention(kn_device *device)
{
    static const kn_attention a[] = {{8, 4, 8, 0, 0, 0.35f}, {6, 6, 48, 0, 0, 0.14f}, {9, 3, 64, 0, 0, 0.125f}};
    static const size_t lengths[] = {64, 256, 1024};
    printf("\n%-24s %7s %10s %10s   GFLOP/s of the causal half\n", "attention", "T", "forward", "backward");
    for (size_t s = 0; s < 3; s++)
        for (size_t l = 0; l < 3; l++) {
            const size_t L = lengths[l], segments = 2048 / L, T = segments * L;
            const size_t width = (a[s].heads + 2 * a[s].kv_heads) * a[s].head_dim, wide = a[s].heads * a[s].head_dim;
            task t = {.device = device, .T = T, .segments = segments, .shape = a[s]};
            t.segment = calloc(segments, sizeof(*t.segment));
            for (size_t i = 0; i < segments; i++)
                t.segment[i] = (kn_segment){i * L, L, 0, 0};
            t.a = floats(T * width);
            t.b = floats(T * width);
            t.c = floats(T * wide);
            t.d = floats(T * wide);
            t.lse = floats(T * a[s].heads);
            const double flops = 2e-9 * (double)T * (double)L * (double)wide;
            printf("%zu segments of %-10zu %7zu %10.1f", segments, L, T, flops / fastest(attention, &t));
            printf(" %10.1f   (%u heads of %u, %u shared)\n", 2.5 * flops / fastest(attention_backward, &t), a[s].heads,
                   a[s].head_dim, a[s].kv_heads);
            free(t.segment);
            free(t.a);
            free(t.b);
            free(t.c);
            free(t.d);
            free(t.lse);
        }
}

static void bench_rows(kn_device *device)
{
    static const struct {
        const char *name;
        action f;
        size_t T, n, elements;
    } ops[] = {
        {"swiglu", swiglu, 2048, 768, 2048 * 768},      {"swiglu_backward", swiglu_backward, 2048, 768, 2048 * 768},
        {"rms_norm", rms_norm, 2048, 288, 2048 * 288},  {"rms_norm_backward", rms_norm_backward, 2048, 288, 2048 * 288},
        {"swiglu, 40 rows", swiglu, 40, 172, 40 * 172}, {"rms_norm, 40 rows", rms_norm, 40, 64, 40 * 64},
        {"adamw", adamw, 1, 1 << 20, 1 << 20}};
    printf("\n%-20s ns an element\n", "rows");
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        const size_t n = ops[i].T * ops[i].n;
        task t = {.device = device, .T = ops[i].T, .out = ops[i].n, .in = ops[i].n};
        t.a = floats(2 * n);
        t.b = floats(2 * n);
        t.c = floats(2 * n);
        t.d = floats(2 * n);
        t.lse = floats(n);
        for (size_t k = 0; k < 2 * n && ops[i].f == adamw; k++)
            t.c[k] = 1;
        printf("%-20s %.3f\n", ops[i].name, fastest(ops[i].f, &t) * 1e9 / (double)ops[i].elements);
        free(t.a);
        free(t.b);
        free(t.c);
        free(t.d);
        free(t.lse);
    }
    task t = {.device = device, .T = (size_t)device->ops->threads(device)};
    printf("%-20s %.0f ns each\n", "parallel regions", fastest(region, &t) * 1e9 / 100);
}

int main(int argc, char **argv)
{
    const int threads = argc > 1 ? atoi(argv[1]) : 1;
    watch = threads > 1 ? CLOCK_MONOTONIC : watch;
    const char *why;
    kn_device *device[2];
    int devices = 0;
    static const char *const matmul[] = {"own", "onednn"};
    for (int i = 0; i < 2; i++) {
        setenv("SLUICE_CPU_MATMUL", matmul[i], 1);
        device[devices] = kn_cpu_new(threads, getenv("SLUICE_BENCH_ISA"), &why);
        if (device[devices]) {
            printf("%s, %d threads\n", device[devices]->ops->numerics(device[devices]), threads);
            devices++;
        } else {
            printf("no %s: %s\n", matmul[i], why);
        }
    }
    if (devices == 0)
        return 1;
    printf("\n");
    bench_products(device, devices);
    bench_vocabulary(device[0]);
    bench_attention(device[0]);
    bench_rows(device[0]);
    for (int i = 0; i < devices; i++)
        kn_cpu_free(device[i]);
    return 0;
}
