/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ops [--device cuda|cpu] [--type float32|bf16] [--quick] [--first] [--only PART]: every op of a device's table
 * against the scalar reference, as a table. Exits with 1 where one is too far off, with 77 where there is no such
 * device. --quick: small shapes alone. --first: ends with the first that is too far off. --parts: names the parts.
 */
#include "compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef GPU_TESTS_CUDA
#include "kernels/cuda/cuda.h"
#endif

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static const struct {
    const char *name;
    void (*run)(compare *);
    const char *logits; /* a device of its own, opened with this SLUICE_CUDA_LOGITS_BYTES */
} parts[] = {
    {"products", compare_products},
    {"vocabulary", compare_vocabulary},
    {"chunks", compare_chunks, "36000"},
    {"rows", compare_rows},
    {"optimizer", compare_optimizer},
    {"attention", compare_attention},
    {"generation", compare_generation},
    {"choose", compare_choose},
    {"merge", compare_merge},
};

static kn_device *device_of(const char *name, const char **why)
{
    *why = "this program was built without CUDA";
    if (strcmp(name, "cpu") == 0)
        return kn_cpu_new(0, NULL, why);
#ifdef GPU_TESTS_CUDA
    return kn_cuda_new(0, why);
#else
    return NULL;
#endif
}

static void device_end(kn_device *device, const char *name)
{
#ifdef GPU_TESTS_CUDA
    if (strcmp(name, "cuda") == 0)
        kn_cuda_free(device);
#endif
    if (strcmp(name, "cpu") == 0)
        kn_cpu_free(device);
}

/* A part on a device with settings of its own. */
static bool run_apart(compare *c, size_t part, const char *device)
{
    const side kept = c->side[DEVICE];
    const char *why = NULL;
    setenv("SLUICE_CUDA_LOGITS_BYTES", parts[part].logits, 1);
    c->side[DEVICE].device = device_of(device, &why);
    unsetenv("SLUICE_CUDA_LOGITS_BYTES");
    if (c->side[DEVICE].device) {
        kn_device *own = c->side[DEVICE].device;
        c->side[DEVICE].ops = c->type == KN_F32 ? own->ops : own->ops_bf16;
        parts[part].run(c);
        why = own->ops->error(own);
    }
    if (why)
        printf("the device failed in %s: %s\n", parts[part].name, why);
    if (c->side[DEVICE].device)
        device_end(c->side[DEVICE].device, device);
    c->side[DEVICE] = kept;
    return why == NULL;
}

/* One table of the device against the same of the reference. */
static bool run(compare *c, kn_dtype type, const char *device)
{
    c->type = type;
    for (int i = 0; i < SIDES; i++)
        c->side[i].ops = type == KN_F32 ? c->side[i].device->ops : c->side[i].device->ops_bf16;
    if (!c->side[DEVICE].ops)
        return true;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (c->only && !strstr(parts[i].name, c->only))
            continue;
        const double start = now();
        if (!parts[i].logits)
            parts[i].run(c);
        else if (!run_apart(c, i, device))
            return false;
        fprintf(stderr, "%s, %s: %.1f s\n", parts[i].name, type == KN_F32 ? "float32" : "bf16", now() - start);
        const char *why = c->side[DEVICE].ops->error(c->side[DEVICE].device);
        if (why) {
            printf("the device failed in %s: %s\n", parts[i].name, why);
            return false;
        }
    }
    return true;
}

static unsigned print(const compare *c)
{
    unsigned failures = 0;
    printf("| op | type | cases | worst / allowed | |\n| --- | --- | ---: | ---: | --- |\n");
    for (unsigned i = 0; i < c->finds; i++) {
        const finding *f = &c->found[i];
        printf("| %s | %s | %u | %.3f | %s%s |\n", f->op, f->type == KN_F32 ? "float32" : "bf16", f->cases, f->worst,
               f->failures ? "**wrong**: " : "ok", f->first);
        failures += f->failures;
    }
    printf("\n%u ops, %u wrong\n", c->finds, failures);
    return failures;
}

static int print_parts(void)
{
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        printf("%s\n", parts[i].name);
    return 0;
}

int main(int argc, char **argv)
{
    const char *name = "cuda", *type = NULL, *why = NULL;
    static compare c;
    bool usage = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--quick") == 0)
            c.quick = true;
        else if (strcmp(argv[i], "--first") == 0)
            c.first = true;
        else if (strcmp(argv[i], "--parts") == 0)
            return print_parts();
        else if (value && strcmp(argv[i], "--device") == 0)
            name = argv[++i];
        else if (value && strcmp(argv[i], "--type") == 0)
            type = argv[++i];
        else if (value && strcmp(argv[i], "--only") == 0)
            c.only = argv[++i];
        else
            usage = true;
    }
    if (usage || (type && strcmp(type, "float32") != 0 && strcmp(type, "bf16") != 0)) {
        fprintf(stderr,
                "usage: test_ops [--device cuda|cpu] [--type float32|bf16] [--quick] [--first] [--only PART]\n");
        return 2;
    }
    kn_device *device = device_of(name, &why);
    if (!device) {
        printf("skipped: no device \"%s\": %s\n", name, why);
        return 77;
    }
    c.side[DEVICE].device = device;
    c.side[REFERENCE].device = kn_reference_new();
    if (!c.side[REFERENCE].device)
        return 2;
    printf("%s\n\n", device->ops->numerics(device));
    bool works = true;
    if (!type || strcmp(type, "float32") == 0)
        works = run(&c, KN_F32, name);
    if (works && (!type || strcmp(type, "bf16") == 0))
        works = run(&c, KN_BF16, name);
    const bool right = print(&c) == 0 && works;
    kn_reference_free(c.side[REFERENCE].device);
    device_end(device, name);
    return right ? 0 : 1;
}
