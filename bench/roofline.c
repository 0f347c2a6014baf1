/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * roofline: how near each op comes to what the machine can do. The limits are measured first, in the same process: a
 * large copy and a large matrix product. An op's least time is the larger of its arithmetic over the product's rate and
 * its bytes (inputs read once, outputs written once) over the copy's; "of limit" is that over the time it took.
 *
 *   roofline [--device cuda|cpu] [--type float32|bf16] [--model tiny|0.5B|1.5B] [--tokens N] [--batch N] [--context N]
 *            [--seconds S] [--spread MIB] [--only PART] [--json FILE]
 *
 * Exits with 77 where there is no such device.
 */
#include "bench/roofline.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef ROOFLINE_CUDA
#include "kernels/cuda/cuda.h"
#endif

enum { GROUPS = 5 }; /* of calls; their median counts */

static const shape shapes[] = {
    {"tiny", 64, 5, 8, 4, 8, 172, 512},
    {"0.5B", 896, 24, 14, 2, 64, 4864, 151936},   /* Qwen2.5-0.5B */
    {"1.5B", 1536, 28, 12, 2, 128, 8960, 151936}, /* Qwen2.5-1.5B */
};

static void fail(const char *what)
{
    fprintf(stderr, "roofline: %s\n", what);
    exit(1);
}

double roofline_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- memory --- */

/* A block of random numbers, over and over. */
static area area_new(roofline *r, size_t n, size_t element)
{
    const kn_ops *o = r->ops;
    const size_t block = n < (size_t)1 << 20 ? n : (size_t)1 << 20;
    area a = {.bytes = (n * element + 255) / 256 * 256};
    a.slots = r->spread / a.bytes + 1;
    a.at = o->alloc(r->device, a.bytes * a.slots);
    float *x = malloc((block ? block : 1) * sizeof(*x)), *wide = o->alloc(r->device, (block + 1) * sizeof(*wide));
    if (!a.at || !x || !wide)
        fail("out of memory");
    uint32_t state = (uint32_t)n;
    for (size_t i = 0; i < block; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) * 0x1p-23f - 1.0f;
    }
    int status = o->write(r->device, wide, x, block * sizeof(float));
    if (status == KN_OK && element == sizeof(float))
        status = o->copy(r->device, a.at, wide, block * sizeof(float));
    else if (status == KN_OK)
        status = o->to_bf16(r->device, (uint16_t *)(void *)a.at, wide, block);
    const size_t all = a.bytes * a.slots;
    for (size_t done = block * element; done > 0 && done < all && status == KN_OK; done *= 2)
        status = o->copy(r->device, a.at + done, a.at, done < all - done ? done : all - done);
    o->free(r->device, wide);
    free(x);
    if (status != KN_OK)
        fail("cannot fill memory of the device");
    return a;
}

area area_elements(roofline *r, size_t n)
{
    return area_new(r, n, r->ops->dtype == KN_F32 ? sizeof(float) : sizeof(uint16_t));
}

area area_floats(roofline *r, size_t n)
{
    return area_new(r, n, sizeof(float));
}

void *area_at(const area *a, size_t call)
{
    return a->at + call % a->slots * a->bytes;
}

kn_matrix *job_matrix(const job *j, size_t call)
{
    return j->m[call % j->matrices];
}

void job_matrices(job *j, size_t out, size_t in)
{
    roofline *r = j->r;
    const size_t bytes = out * in * (r->ops->dtype == KN_F32 ? sizeof(float) : sizeof(uint16_t));
    const size_t wish = r->spread / bytes + 1;
    area w = area_floats(r, out * in);
    for (j->matrices = 0; j->matrices < wish && j->matrices < JOB_MATRICES; j->matrices++) {
        kn_matrix *m = r->ops->matrix_new(r->device, out, in, true);
        j->m[j->matrices] = m;
        if (!m || r->ops->matrix_set(r->device, m, (const float *)(const void *)w.at) != KN_OK)
            fail("out of memory");
    }
    r->ops->free(r->device, w.at);
}

static void job_free(job *j)
{
    roofline *r = j->r;
    for (int i = 0; i < JOB_AREAS; i++)
        r->ops->free(r->device, j->area[i].at);
    for (size_t i = 0; i < j->matrices; i++)
        r->ops->matrix_free(r->device, j->m[i]);
    if (j->cache)
        r->ops->cache_free(r->device, j->cache);
    free(j->segment);
    free(j->rows);
    free(j->index);
    free(j->choice);
    free(j->chosen);
}

/* --- time --- */

/* Waits for all that was asked. */
static void settle(job *j)
{
    char byte;
    for (int i = 0; i < JOB_AREAS; i++)
        if (j->area[i].at) {
            j->r->ops->read(j->r->device, &byte, j->area[i].at, 1);
            return;
        }
}

static double time_calls(job *j, job_run run, size_t *call, size_t calls)
{
    const double start = roofline_now();
    for (size_t i = 0; i < calls; i++)
        run(j, (*call)++);
    settle(j);
    return (roofline_now() - start) / (double)calls;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double roofline_median(double *took, size_t count)
{
    qsort(took, count, sizeof(*took), by_value);
    return took[count / 2];
}

static double time_of(job *j, job_run run)
{
    size_t call = 0;
    double took[GROUPS];
    time_calls(j, run, &call, 2); /* what is made at first use */
    const double once = time_calls(j, run, &call, 1), most = j->r->seconds / GROUPS;
    const size_t calls = once < most ? (size_t)(most / once) + 1 : 1;
    for (int g = 0; g < GROUPS; g++)
        took[g] = time_calls(j, run, &call, calls);
    return roofline_median(took, GROUPS);
}

double roofline_print(roofline *r, const char *name, double took, double flops, double bytes, int status)
{
    const double peak = r->ops->dtype == KN_F32 ? r->limits.f32 : r->limits.bf16;
    const double compute = flops / peak, move = bytes / r->limits.copy, least = compute > move ? compute : move;
    if (status != KN_OK)
        fprintf(stderr, "roofline: %s refused: status %d\n", name, status);
    printf("%-28s %11.1f %10.4g %10.4g %9.4g %9.4g %7.1f %%  %s%s\n", name, 1e6 * took, 1e-9 * flops, 1e-6 * bytes,
           1e-12 * flops / took, 1e-9 * bytes / took, 100 * least / took, compute > move ? "arithmetic" : "memory",
           status == KN_OK ? "" : "  REFUSED");
    if (r->json)
        fprintf(r->json,
                "%s\n  {\"model\": \"%s\", \"op\": \"%s\", \"seconds\": %.9g, \"flops\": %.6g, \"bytes\": %.6g, "
                "\"of_limit\": %.4f, \"bound\": \"%s\", \"status\": %d}",
                r->started ? "," : "", r->shape->name, name, took, flops, bytes, least / took,
                compute > move ? "arithmetic" : "memory", status);
    r->started = true;
    return least;
}

void job_measure(job *j, const char *name, job_run run, double flops, double bytes, double times, bool decoding)
{
    roofline *r = j->r;
    const double took = time_of(j, run), least = roofline_print(r, name, took, flops, bytes, j->status);
    if (decoding) {
        r->decode += times * took;
        r->decode_least += times * least;
    } else {
        r->step += times * took;
        r->step_least += times * least;
    }
    job_free(j);
}

/* --- the program --- */

static void run_shape(roofline *r)
{
    const shape *s = r->shape;
    const double matrices = (double)s->layers * (double)(s->hidden * (s->heads + 2 * s->kv_heads) * s->head_dim +
                                                         s->heads * s->head_dim * s->hidden + 3 * s->hidden * s->ffn) +
                            (double)s->vocab * (double)s->hidden;
    const double peak = r->ops->dtype == KN_F32 ? r->limits.f32 : r->limits.bf16;
    r->step = r->step_least = r->decode = r->decode_least = 0;
    printf("\n%s, %zu tokens; decoding %zu sequences after %zu\n", s->name, r->tokens, r->batch, r->context);
    printf("%-28s %11s %10s %10s %9s %9s %9s\n", "op", "µs", "GFLOP", "MB", "TFLOP/s", "GB/s", "of limit");
    roofline_training(r);
    roofline_decoding(r);
    roofline_step(r);
    if (r->only)
        return;
    const double rate = 6 * matrices * (double)r->tokens / r->step;
    printf("%-28s %11.1f µs, %.1f %% of its ops' limits; 6ND: %.1f TFLOP/s, %.1f %% of the product\n",
           "a training step's ops", 1e6 * r->step, 100 * r->step_least / r->step, 1e-12 * rate, 100 * rate / peak);
    printf("%-28s %11.1f µs, %.1f %% of its ops' limits; %.0f tokens/s\n", "a decoding step's ops", 1e6 * r->decode,
           100 * r->decode_least / r->decode, (double)r->batch / r->decode);
    if (r->json)
        fprintf(r->json,
                ",\n  {\"model\": \"%s\", \"op\": \"a training step's ops\", \"seconds\": %.9g, \"of_limit\": %.4f, "
                "\"rate_6nd\": %.6g, \"of_product\": %.4f},\n  {\"model\": \"%s\", \"op\": \"a decoding step's ops\", "
                "\"seconds\": %.9g, \"of_limit\": %.4f}",
                s->name, r->step, r->step_least / r->step, rate, rate / peak, s->name, r->decode,
                r->decode_least / r->decode);
}

static kn_device *device_of(const char *name, const char **why)
{
    *why = "this program was built without CUDA";
    if (strcmp(name, "cpu") == 0)
        return kn_cpu_new(0, NULL, why);
#ifdef ROOFLINE_CUDA
    return kn_cuda_new(0, why);
#else
    return NULL;
#endif
}

static int usage(void)
{
    fprintf(stderr, "usage: roofline [--device cuda|cpu] [--type float32|bf16] [--model tiny|0.5B|1.5B] [--tokens N]\n"
                    "                [--batch N] [--context N] [--seconds S] [--spread MIB] [--only PART]\n"
                    "                [--json FILE]\n");
    return 2;
}

int main(int argc, char **argv)
{
    const char *name = "cuda", *type = "bf16", *model = NULL, *json = NULL, *why = NULL;
    roofline r = {.tokens = 2048, .batch = 256, .context = 512, .seconds = 0.1};
    double spread = 0;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            return usage();
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--device") == 0)
            name = value;
        else if (strcmp(argv[i], "--type") == 0)
            type = value;
        else if (strcmp(argv[i], "--model") == 0)
            model = value;
        else if (strcmp(argv[i], "--tokens") == 0)
            r.tokens = strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--batch") == 0)
            r.batch = strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--context") == 0)
            r.context = strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            r.seconds = strtod(value, NULL);
        else if (strcmp(argv[i], "--spread") == 0)
            spread = strtod(value, NULL);
        else if (strcmp(argv[i], "--only") == 0)
            r.only = value;
        else if (strcmp(argv[i], "--json") == 0)
            json = value;
        else
            return usage();
    }
    if (r.tokens < 1 || r.batch < 1 || (strcmp(type, "float32") != 0 && strcmp(type, "bf16") != 0))
        return usage();
    r.device = device_of(name, &why);
    if (!r.device) {
        printf("skipped: no device \"%s\": %s\n", name, why);
        return 77;
    }
    r.ops = strcmp(type, "float32") == 0 ? r.device->ops : r.device->ops_bf16;
    if (!r.ops)
        fail("the device computes no bfloat16");
    r.spread = spread > 0 ? (size_t)(spread * 1048576) : (size_t)(r.device->host_memory ? 48 : 256) << 20;
    if (kn_limits_measure(r.device, &r.limits) != KN_OK)
        fail("cannot measure the device's limits");
    printf("%s\nlimits: product %.4g TFLOP/s in float32, %.4g in bfloat16; copy %.1f GB/s read and written\n",
           r.ops->numerics(r.device), 1e-12 * r.limits.f32, 1e-12 * r.limits.bf16, 1e-9 * r.limits.copy);
    r.json = json ? fopen(json, "w") : NULL;
    if (json && !r.json)
        fail("cannot write the JSON file");
    if (r.json)
        fprintf(r.json,
                "{\"numerics\": \"%s\", \"tokens\": %zu, \"batch\": %zu, \"context\": %zu,\n \"limits\": "
                "{\"product_f32\": %.6g, \"product_bf16\": %.6g, \"copy\": %.6g},\n \"ops\": [",
                r.ops->numerics(r.device), r.tokens, r.batch, r.context, r.limits.f32, r.limits.bf16, r.limits.copy);
    size_t found = 0;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        if (model ? strcmp(model, shapes[i].name) == 0 : i > 0) {
            r.shape = &shapes[i];
            run_shape(&r);
            found++;
        }
    if (r.json) {
        fprintf(r.json, "\n]}\n");
        if (fclose(r.json) != 0)
            fail("cannot write the JSON file");
    }
    const char *error = r.ops->error(r.device);
    if (error)
        fprintf(stderr, "roofline: %s\n", error);
#ifdef ROOFLINE_CUDA
    if (strcmp(name, "cuda") == 0)
        kn_cuda_free(r.device);
#endif
    if (strcmp(name, "cpu") == 0)
        kn_cpu_free(r.device);
    return error ? 1 : found == 0 ? usage() : 0;
}
