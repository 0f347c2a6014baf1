/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend for tests, in place of CUDA's: the CPU's device with memory that the host cannot touch. The environment's
 * FAR_BACKEND makes it worse: "refuse" opens no device, "old" was built with another op table, a number lets the device
 * break after so many calls.
 */
#include <sluice/service.h>

#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "tests/far_device.h"

typedef struct backend {
    kn_backend door;
    kn_device *cpu, *device;
    unsigned opens;
} backend;

static backend *of(const kn_backend *door)
{
    return (backend *)((char *)(uintptr_t)door - offsetof(backend, door));
}

static kn_device *backend_open(const kn_backend *door, const char **why)
{
    backend *b = of(door);
    const char *wish = getenv("FAR_BACKEND");
    *why = "no driver, says a test";
    if (wish && strcmp(wish, "refuse") == 0)
        return NULL;
    if (!b->device) {
        b->cpu = kn_cpu_new(1, NULL, why);
        b->device = b->cpu ? far_device_new(b->cpu) : NULL;
        if (b->device && wish && atoi(wish) > 0)
            far_device_break(b->device, (size_t)atoi(wish));
    }
    b->opens += b->device != NULL;
    return b->device;
}

static void backend_close(const kn_backend *door, kn_device *device)
{
    backend *b = of(door);
    if (--b->opens > 0)
        return;
    far_device_free(device);
    kn_cpu_free(b->cpu);
    b->cpu = b->device = NULL;
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
                                           .open = backend_open,
                                           .close = backend_close,
                                           .name = backend_name};
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
