/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "test_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "far_device.h"
#include "kernels/backend.h"

enum { SKIPPED = 77, BROKEN = 99 }; /* as automake reads them */

static const test_device known[] = {
    {"far", 1e-5, 0x1p-7, true},
    {"cuda", 1e-5, 0x1p-7, false},
};

/* Of a plugin; open as long as the program runs. */
static const kn_backend *backend;

static void refuse(int code, const char *what, const char *why)
{
    fprintf(stderr, "SLUICE_TEST_DEVICE=%s: %s\n", what, why);
    exit(code);
}

const test_device *test_device_asked(void)
{
    static const test_device none;
    const char *wish = getenv("SLUICE_TEST_DEVICE");
    if (!wish || !*wish)
        return &none;
    if (strchr(wish, '/') && !backend) {
        const char *why;
        if (!(backend = kn_backend_load(wish, &why)))
            refuse(SKIPPED, wish, why);
    }
    const char *name = backend ? backend->kind : wish;
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (strcmp(known[i].name, name) == 0)
            return &known[i];
    refuse(BROKEN, wish, "there is no such device; it is far, or the path of a backend's plugin");
    return NULL;
}

bool test_device_exact(void)
{
    const test_device *d = test_device_asked();
    return !d->name || d->exact;
}

bool test_device_one_answer(void)
{
    const char *invariant = getenv("SLUICE_CUDA_INVARIANT");
    return test_device_exact() || (invariant && strcmp(invariant, "1") == 0);
}

kn_device *test_device_new(int threads)
{
    const char *why = "out of memory";
    kn_device *device = NULL;
    test_device_asked();
    if (backend) {
        device = backend->open(backend, 0, &why);
    } else {
        kn_device *cpu = kn_cpu_new(threads, NULL, &why);
        device = cpu ? far_device_new(cpu) : NULL;
    }
    if (!device)
        refuse(SKIPPED, getenv("SLUICE_TEST_DEVICE"), why);
    return device;
}

void test_device_free(kn_device *device)
{
    if (!device)
        return;
    if (backend) {
        backend->close(backend, device);
        return;
    }
    kn_device *cpu = far_device_inner(device);
    far_device_free(device);
    kn_cpu_free(cpu);
}
