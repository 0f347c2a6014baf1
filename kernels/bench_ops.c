/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The tables of bench-kernels. */
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void heads(const contender *who, int n)
{
    for (int i = 0; i < n; i++)
        printf(" %10s", who[i].name);
}

static task task_of(const contender *c, size_t T, size_t out, size_t in)
{
    return (task){.device = c->device, .o = c->ops, .T = T, .out = out, .in = in};
}

/* --- matrix products --- */

static void forward(task *t)
{
    t->o->linear(t->device, t->c, t->a, t->m, NULL, NULL, t->T);
}

static void backward_input(task *t)
{
    t->o->linear_backward_input(t->device, t->a, t->c, t->m, t->T, false);
}

static void backward_weight(task *t)
{
    t->o->linear_backward_weight(t->device, t->b, NULL, t->c, t->a, t->T, t->out, t->in, true);
}

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

void bench_products(const contender *who, int contenders)
{
    static const size_t rows[] = {1, 40, 256, 2048};
    static const action actions[] = {forward, backward_input, backward_weight};
    static const char *const names[] = {"forward", "input", "weight"};
    printf("\n%-14s %5s %5s %5s  %-8s", "layer", "T", "out", "in", "product");
    heads(who, contenders);
    printf("   GFLOP/s\n");
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (size_t r = 0; r <= sizeof(rows) / sizeof(rows[0]); r++) {
            const size_t out = shapes[s].out, in = shapes[s].in;
            const size_t T = r < 4 ? rows[r] : 512;
            if ((r == 4) != (in == 512)) /* the cube has 512 rows */
                continue;
            task t[MOST_CONTENDERS];
            float *w = bench_floats(out * in);
            for (int i = 0; i < contenders; i++) {
                t[i] = task_of(&who[i], T, out, in);
                t[i].m = who[i].ops->matrix_new(who[i].device, out, in, true);
                who[i].ops->matrix_set(who[i].device, t[i].m, w);
                t[i].a = bench_elements(&who[i], T * in);
                t[i].b = bench_floats(out * in);
                t[i].c = bench_elements(&who[i], T * out);
            }
            for (size_t a = 0; a < 3; a++) {
                printf("%-14s %5zu %5zu %5zu  %-8s", shapes[s].name, T, out, in, names[a]);
                for (int i = 0; i < contenders; i++)
                    printf(" %10.1f", 2e-9 * (double)T * (double)out * (double)in / bench_fastest(actions[a], &t[i]));
                printf("\n");
            }
            for (int i = 0; i < contenders; i++)
                bench_free(&t[i]);
            free(w);
        }
}

/* --- the vocabulary --- */

static void logprob(task *t)
{
    t->o->logprob(t->device, t->d, t->lse, NULL, t->a, t->m, t->token, t->T, NULL);
}

static void logprob_backward(task *t)
{
    t->o->logprob_backward(t->device, t->c, t->b, t->d, t->a, t->m, t->lse, t->token, t->T, true, NULL);
}

static void choose(task *t)
{
    t->o->choose(t->device, t->chosen, t->b, t->choice, t->T, t->out);
}

void bench_vocabulary(const contender *who, int contenders)
{
    static const shape models[] = {{"0.26M head", 512, 64}, {"15M head", 32000, 288}, {"135M head", 49152, 576}};
    static const size_t rows[] = {1, 40, 256};
    printf("\n%-14s %5s  %-10s", "vocabulary", "T", "");
    heads(who, contenders);
    printf("   GFLOP/s; choose, with top-k 50 and top-p 0.9: ns a logit\n");
    for (size_t s = 0; s < 3; s++)
        for (size_t r = 0; r < 3; r++) {
            const size_t T = rows[r], V = models[s].out, d = models[s].in;
            const double flops = 2e-9 * (double)T * (double)V * (double)d;
            task t[MOST_CONTENDERS];
            float *w = bench_floats(V * d);
            for (int i = 0; i < contenders; i++) {
                t[i] = task_of(&who[i], T, V, d);
                t[i].m = who[i].ops->matrix_new(who[i].device, V, d, true);
                who[i].ops->matrix_set(who[i].device, t[i].m, w);
                t[i].a = bench_elements(&who[i], T * d);
                t[i].b = bench_floats(V * (T > d ? T : d));
                t[i].c = bench_elements(&who[i], T * d);
                t[i].d = bench_floats(T);
                t[i].lse = bench_floats(T);
                t[i].token = calloc(T, sizeof(*t[i].token));
                t[i].choice = calloc(T, sizeof(*t[i].choice));
                t[i].chosen = calloc(T, sizeof(*t[i].chosen));
            }
            printf("%-14s %5zu  %-10s", models[s].name, T, "logprob");
            for (int i = 0; i < contenders; i++)
                printf(" %10.1f", flops / bench_fastest(logprob, &t[i]));
            printf("\n%-14s %5zu  %-10s", models[s].name, T, "backward");
            for (int i = 0; i < contenders; i++)
                printf(" %10.1f", 3 * flops / bench_fastest(logprob_backward, &t[i]));
            for (int cut = 0; cut < 2; cut++) {
                printf("\n%-14s %5zu  %-10s", models[s].name, T, cut ? "choose top" : "choose");
                for (int i = 0; i < contenders; i++) {
                    free(t[i].b);
                    t[i].b = bench_floats(T * V);
                    for (size_t k = 0; k < T; k++)
                        t[i].choice[k] = (kn_choice){.temperature = 0.1f,
                                                     .top_p = cut ? 0.9f : 1,
                                                     .top_k = cut ? 50 : 0,
                                                     .repetition_penalty = 1,
                                                     .key = {k, 1}};
                    printf(" %10.2f", bench_fastest(choose, &t[i]) * 1e9 / (double)(T * V));
                }
            }
            printf("\n");
            for (int i = 0; i < contenders; i++)
                bench_free(&t[i]);
            free(w);
        }
}

/* --- attention --- */

static void attention(task *t)
{
    t->o->attention(t->device, t->c, t->lse, t->a, t->segment, t->segments, t->T, &t->shape);
}

static void attention_backward(task *t)
{
    t->o->attention_backward(t->device, t->b, t->d, t->a, t->c, t->lse, t->segment, t->segments, t->T, &t->shape);
}

static void attention_cached(task *t)
{
    t->o->attention_cached(t->device, t->c, t->a, t->cache, 0, t->rows, t->segments, t->T, NULL);
}

static const kn_attention attentions[] = {{8, 4, 8, 0, 0, 0.35f}, {6, 6, 48, 0, 0, 0.14f}, {9, 3, 64, 0, 0, 0.125f}};

static void bench_packed(const contender *who, int contenders, const kn_attention *a, size_t L, size_t segments)
{
    const size_t T = segments * L, width = (a->heads + 2 * a->kv_heads) * a->head_dim, wide = a->heads * a->head_dim;
    const double flops = 2e-9 * (double)T * (double)L * (double)wide;
    task t[MOST_CONTENDERS];
    for (int i = 0; i < contenders; i++) {
        t[i] = task_of(&who[i], T, 0, 0);
        t[i].shape = *a;
        t[i].segments = segments;
        t[i].segment = calloc(segments, sizeof(*t[i].segment));
        for (size_t s = 0; s < segments; s++)
            t[i].segment[s] = (kn_segment){s * L, L, 0, 0};
        t[i].a = bench_elements(&who[i], T * width);
        t[i].b = bench_elements(&who[i], T * width);
        t[i].c = bench_elements(&who[i], T * wide);
        t[i].d = bench_elements(&who[i], T * wide);
        t[i].lse = bench_floats(T * a->heads);
    }
    static const action actions[] = {attention, attention_backward};
    for (int b = 0; b < 2; b++) {
        printf("%2u heads of %2u, %u shared  %3zu × %-4zu  %-9s", a->heads, a->head_dim, a->kv_heads, segments, L,
               b ? "backward" : "forward");
        for (int i = 0; i < contenders; i++)
            printf(" %10.1f", (b ? 2.5 : 1) * flops / bench_fastest(actions[b], &t[i]));
        printf("\n");
    }
    for (int i = 0; i < contenders; i++)
        bench_free(&t[i]);
}

/* 40 sequences that each add a token to `keys` others. */
static void bench_decode(const contender *who, int contenders, const kn_attention *a, size_t keys)
{
    enum { SEQUENCES = 40 };
    const size_t width = (a->heads + 2 * a->kv_heads) * a->head_dim, wide = a->heads * a->head_dim;
    const size_t pages = (keys + KN_PAGE) / KN_PAGE;
    printf("%2u heads of %2u, %u shared   40 × %-4zu  %-9s", a->heads, a->head_dim, a->kv_heads, keys, "a token");
    for (int i = 0; i < contenders; i++) {
        task t = task_of(&who[i], SEQUENCES, 0, 0);
        t.cache = t.o->cache_new(t.device, 1, SEQUENCES * pages, a);
        t.rows = calloc(SEQUENCES, sizeof(*t.rows));
        t.token = calloc(SEQUENCES * pages, sizeof(*t.token));
        t.segments = SEQUENCES;
        for (size_t p = 0; p < SEQUENCES * pages; p++)
            t.token[p] = (uint32_t)p;
        for (size_t s = 0; s < SEQUENCES; s++)
            t.rows[s] = (kn_cached_rows){s, 1, keys, t.token + s * pages};
        t.a = bench_elements(&who[i], SEQUENCES * width);
        t.c = bench_elements(&who[i], SEQUENCES * wide);
        printf(" %10.1f", 4e-9 * SEQUENCES * (double)(keys + 1) * (double)wide / bench_fastest(attention_cached, &t));
        bench_free(&t);
    }
    printf("\n");
}

void bench_attention(const contender *who, int contenders)
{
    printf("\n%-36s %-9s", "attention", "");
    heads(who, contenders);
    printf("   GFLOP/s of the causal half\n");
    for (size_t s = 0; s < 3; s++)
        for (size_t L = 64; L <= 1024; L *= 4)
            bench_packed(who, contenders, &attentions[s], L, 2048 / L);
    bench_packed(who, contenders, &attentions[2], 1024, 1);
    for (size_t s = 0; s < 3; s++)
        for (size_t keys = 64; keys <= 1024; keys *= 4)
            bench_decode(who, contenders, &attentions[s], keys);
}

/* --- rows --- */

static void swiglu(task *t)
{
    t->o->swiglu(t->device, t->c, t->a, t->T, t->in);
}

static void swiglu_backward(task *t)
{
    t->o->swiglu_backward(t->device, t->b, NULL, t->c, t->a, t->T, t->in);
}

static void rms_norm(task *t)
{
    t->o->rms_norm(t->device, t->c, t->lse, t->a, t->cos, t->T, t->in, 1e-5f);
}

static void rms_norm_backward(task *t)
{
    t->o->rms_norm_backward(t->device, t->c, t->sin, NULL, t->a, t->a, t->cos, t->lse, t->T, t->in, true);
}

/* Heads of 64. */
static void rope(task *t)
{
    t->o->rope(t->device, t->a, t->in, t->token, t->cos, t->sin, t->T, t->in / 64, 64, false);
}

static void add(task *t)
{
    t->o->add(t->device, t->c, t->a, t->T * t->in);
}

static void dropout(task *t)
{
    static const uint64_t key[2] = {1, 2};
    t->o->dropout(t->device, t->a, t->T, t->in, 1e-9f, key, (const uint64_t *)t->d);
}

static void adamw(task *t)
{
    const kn_adamw a = {1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 10, 1, NULL};
    const size_t n = t->T * t->in;
    float *x = t->d;
    t->o->adamw(t->device, x, x + n, x + 2 * n, x + 3 * n, n, &a);
}

static void nothing(void *arg, size_t begin, size_t end)
{
}

static void region(task *t)
{
    for (int i = 0; i < 100; i++)
        t->o->parallel(t->device, t->T, 1, nothing, NULL);
}

void bench_rows(const contender *who, int contenders)
{
    static const struct {
        const char *name;
        action f;
        size_t T, n;
    } ops[] = {{"swiglu", swiglu, 2048, 1536},
               {"swiglu_backward", swiglu_backward, 2048, 1536},
               {"rms_norm", rms_norm, 2048, 576},
               {"rms_norm_backward", rms_norm_backward, 2048, 576},
               {"rope", rope, 2048, 768},
               {"add", add, 2048, 576},
               {"dropout", dropout, 2048, 576},
               {"swiglu, 40 rows", swiglu, 40, 172},
               {"rms_norm, 40 rows", rms_norm, 40, 64},
               {"adamw", adamw, 64, 16384}};
    printf("\n%-20s", "rows");
    heads(who, contenders);
    printf("   ns an element\n");
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        const size_t n = ops[i].T * ops[i].n;
        printf("%-20s", ops[i].name);
        for (int k = 0; k < contenders; k++) {
            task t = task_of(&who[k], ops[i].T, 0, ops[i].n);
            t.a = bench_elements(&who[k], 2 * n);
            t.b = bench_elements(&who[k], 2 * n);
            t.c = bench_elements(&who[k], n);
            t.d = bench_floats(ops[i].f == adamw ? 4 * n : 2 * ops[i].T);
            for (size_t x = 2 * n; x < 3 * n && ops[i].f == adamw; x++)
                ((float *)t.d)[x] = 1; /* second moments are positive */
            t.lse = bench_floats(ops[i].T);
            t.cos = bench_floats(n);
            t.sin = bench_floats(n);
            t.token = calloc(ops[i].T, sizeof(*t.token));
            for (size_t x = 0; x < ops[i].T; x++)
                t.token[x] = (uint32_t)x;
            printf(" %10.3f", bench_fastest(ops[i].f, &t) * 1e9 / (double)n);
            bench_free(&t);
        }
        printf("\n");
    }
    task t = task_of(who, (size_t)who->ops->threads(who->device), 0, 0);
    printf("%-20s %10.0f ns each\n", "parallel regions", bench_fastest(region, &t) * 1e9 / 100);
}
