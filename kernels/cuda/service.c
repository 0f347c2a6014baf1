/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The plugin "cuda": the door through which the model runtime and stages reach the run's one device. */
#include "kernels/cuda/service.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

typedef struct backend {
    kn_backend door;
    pthread_mutex_t lock;
    kn_device *device; /* NULL before the first open and after the last close */
    unsigned opens;
    char why[512]; /* "" until a device was refused */
} backend;

static kn_device *backend_open(const kn_backend *door, const char **why)
{
    backend *b = (backend *)((char *)(uintptr_t)door - offsetof(backend, door));
    pthread_mutex_lock(&b->lock);
    if (!b->device && !*b->why) {
        const char *reason = NULL;
        b->device = kn_cuda_new(0, &reason);
        if (!b->device)
            snprintf(b->why, sizeof(b->why), "%s", reason ? reason : "out of memory");
    }
    kn_device *device = b->device;
    b->opens += device != NULL;
    *why = device ? NULL : b->why;
    pthread_mutex_unlock(&b->lock);
    return device;
}

static void backend_close(const kn_backend *door, kn_device *device)
{
    backend *b = (backend *)((char *)(uintptr_t)door - offsetof(backend, door));
    if (!device)
        return;
    pthread_mutex_lock(&b->lock);
    if (--b->opens == 0) {
        kn_cuda_free(b->device);
        b->device = NULL;
    }
    pthread_mutex_unlock(&b->lock);
}

static const char *backend_name(const kn_device *device)
{
    return ((const kn_cuda *)device)->name;
}

static int init(void *self, const sluice_host *host)
{
    backend *b = self;
    b->door = (kn_backend){.size = sizeof(kn_backend),
                           .ops_size = sizeof(kn_ops),
                           .kind = "cuda",
                           .open = backend_open,
                           .close = backend_close,
                           .name = backend_name};
    pthread_mutex_init(&b->lock, NULL);
    return SLUICE_OK;
}

static void fini(void *self)
{
    backend *b = self;
    kn_cuda_free(b->device);
    pthread_mutex_destroy(&b->lock);
}

static const void *get(void *self)
{
    return &((backend *)self)->door;
}

static const char *numerics(void *self)
{
    const backend *b = self;
    return b->device ? b->device->ops->numerics(b->device) : NULL;
}

static const sluice_param params[] = {SLUICE_PARAMS_END};

const sluice_service_class kn_cuda_backend_class = {
    SLUICE_SERVICE_CLASS("cuda-backend", "computes models on an NVIDIA GPU", backend, params),
    .base.init = init,
    .base.fini = fini,
    .base.doc =
        "The op table of the model runtime on the first GPU that CUDA_VISIBLE_DEVICES shows. SLUICE_CUDA_MEMORY\n"
        "(24G, 80%) bounds its memory.",
    .service = KN_BACKEND_CUDA,
    .get = get,
    .numerics = numerics,
};

SLUICE_PLUGIN("cuda", "0.1.0", "Apache-2.0", &kn_cuda_backend_class.base, &kn_cuda_stage_class.base);
