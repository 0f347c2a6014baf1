/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend for tests, in place of CUDA's: the CPU's device with memory that the host cannot touch. The environment's
 * FAR_BACKEND makes it worse: "refuse" opens no device, "old" was built with another op table, a number lets a device
 * break after so many calls: the first, or the one that FAR_BREAKS says. FAR_DEVICES is how many there are; FAR_JOIN
 * says how they are joined: "refuse" not at all, "wrong" so that the second gets another sum.
 */
#include <sluice/service.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "tests/far_device.h"

enum { MOST = 8 };

typedef struct backend {
    kn_backend door;
    struct one {
        kn_device *cpu, *device;
        unsigned opens;
    } one[MOST];
} backend;

static backend *of(const kn_backend *door)
{
    return (backend *)((char *)(uintptr_t)door - offsetof(backend, door));
}

static size_t number_of(const char *name, size_t otherwise)
{
    const char *text = getenv(name);
    return text ? (size_t)atoi(text) : otherwise;
}

static size_t backend_count(const kn_backend *door)
{
    return number_of("FAR_DEVICES", 1);
}

static kn_device *backend_open(const kn_backend *door, size_t number, const char **why)
{
    struct one *b = &of(door)->one[number];
    const char *wish = getenv("FAR_BACKEND");
    *why = "no driver, says a test";
    if (wish && strcmp(wish, "refuse") == 0)
        return NULL;
    if (!b->device) {
        b->cpu = kn_cpu_new(1, NULL, why);
        b->device = b->cpu ? far_device_new(b->cpu) : NULL;
        if (b->device && wish && atoi(wish) > 0 && number == number_of("FAR_BREAKS", 0))
            far_device_break(b->device, (size_t)atoi(wish));
    }
    b->opens += b->device != NULL;
    return b->device;
}

static void backend_close(const kn_backend *door, kn_device *device)
{
    struct one *b = of(door)->one;
    while (b->device != device)
        b++;
    if (--b->opens > 0)
        return;
    far_device_free(device);
    kn_cpu_free(b->cpu);
    b->cpu = b->device = NULL;
}

/* --- joined by the host --- */

static int (*right_sum)(kn_collective *, float *const *, size_t);
static kn_device *second;

static int wrong_sum(kn_collective *group, float *const *x, size_t n)
{
    const int kn = right_sum(group, x, n);
    return kn == KN_OK ? second->ops->axpy(second, x[1], 0.5f, x[1], n / 2) : kn;
}

static kn_collective *backend_join(const kn_backend *door, kn_device *const *devices, size_t count, const char **why)
{
    const char *wish = getenv("FAR_JOIN");
    *why = "they cannot be joined, says a test";
    if (wish && strcmp(wish, "refuse") == 0)
        return NULL;
    kn_collective *group = kn_collective_host(devices, count);
    if (group && wish && strcmp(wish, "wrong") == 0) {
        right_sum = group->sum;
        second = devices[1];
        group->sum = wrong_sum;
    }
    return group;
}

static void backend_joins(const kn_backend *door, char *text, size_t size)
{
    snprintf(text, size, "the host");
}

static const char *backend_name(const kn_device *device)
{
    return "of a test";
}

static int init(void *self, const sluice_host *host)
{
    const char *wish = getenv("FAR_BACKEND");
    ((backend *)self)->door = (kn_backend){.size = sizeof(kn_backend),
                                           .ops_size = sizeof(kn_ops) - (wish && strcmp(wish, "old") == 0 ? 8 : 0),
                                           .kind = "far",
                                           .count = backend_count,
                                           .open = backend_open,
                                           .close = backend_close,
                                           .name = backend_name,
                                           .join = backend_join,
                                           .joins = backend_joins};
    return SLUICE_OK;
}

static const void *get(void *self)
{
    return &((backend *)self)->door;
}

static const sluice_param params[] = {SLUICE_PARAMS_END};

static const sluice_service_class far_class = {
    SLUICE_SERVICE_CLASS("test/far-backend", "a device of tests, whose memory the host cannot touch", backend, params),
    .base.init = init,
    .service = KN_BACKEND_CUDA,
    .get = get,
};

SLUICE_PLUGIN("test-far-backend", "0.1.0", "Apache-2.0", &far_class.base);
