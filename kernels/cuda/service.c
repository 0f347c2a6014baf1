/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The plugin "cuda": the door through which the model runtime and stages reach the run's devices. */
#include "kernels/cuda/service.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

typedef struct backend {
    kn_backend door;
    pthread_mutex_t lock;
    struct one {
        kn_device *device; /* NULL before the first open and after the last close */
        unsigned opens;
        char why[512]; /* "" until it was refused */
    } one[KN_CUDA_DEVICES];
    char why[512]; /* why devices were not joined */
} backend;

static backend *backend_of(const kn_backend *door)
{
    return (backend *)((char *)(uintptr_t)door - offsetof(backend, door));
}

static size_t backend_count(const kn_backend *door)
{
    (void)door;
    const int count = kn_cuda_count();
    return count < KN_CUDA_DEVICES ? (size_t)count : KN_CUDA_DEVICES;
}

static kn_device *backend_open(const kn_backend *door, size_t number, const char **why)
{
    backend *b = backend_of(door);
    if (number >= KN_CUDA_DEVICES) {
        *why = "there are not so many GPUs";
        return NULL;
    }
    struct one *one = &b->one[number];
    pthread_mutex_lock(&b->lock);
    if (!one->device && !*one->why) {
        const char *reason = NULL;
        one->device = kn_cuda_new((int)number, &reason);
        if (!one->device)
            snprintf(one->why, sizeof(one->why), "%s", reason ? reason : "out of memory");
    }
    kn_device *device = one->device;
    one->opens += device != NULL;
    *why = device ? NULL : one->why;
    pthread_mutex_unlock(&b->lock);
    return device;
}

static void backend_close(const kn_backend *door, kn_device *device)
{
    backend *b = backend_of(door);
    if (!device)
        return;
    struct one *one = &b->one[((const kn_cuda *)device)->ordinal];
    pthread_mutex_lock(&b->lock);
    if (--one->opens == 0) {
        kn_cuda_free(one->device);
        one->device = NULL;
    }
    pthread_mutex_unlock(&b->lock);
}

static kn_collective *backend_join(const kn_backend *door, kn_device *const *devices, size_t count, const char **why)
{
    backend *b = backend_of(door);
    const char *reason = NULL;
    kn_collective *group = kn_nccl_join(devices, count, &reason);
    pthread_mutex_lock(&b->lock);
    if (!group)
        snprintf(b->why, sizeof(b->why), "%s", reason);
    pthread_mutex_unlock(&b->lock);
    *why = group ? NULL : b->why;
    return group;
}

static const char *backend_name(const kn_device *device)
{
    return ((const kn_cuda *)device)->name;
}

static void backend_joins(const kn_backend *door, char *text, size_t size)
{
    (void)door;
    kn_nccl_describe(text, size);
}

static const char *backend_note(kn_device *device)
{
    kn_cuda *c = (kn_cuda *)device;
    const char *note = kn_cuda_graphs_note(c);
    if (!note && kn_cuda_products_bare(c))
        note = "matrix products do without cuBLAS' workspace, and may be slower: there is little memory";
    return note;
}

static int init(void *self, const sluice_host *host)
{
    backend *b = self;
    b->door = (kn_backend){.size = sizeof(kn_backend),
                           .ops_size = sizeof(kn_ops),
                           .kind = "cuda",
                           .count = backend_count,
                           .open = backend_open,
                           .close = backend_close,
                           .name = backend_name,
                           .join = backend_join,
                           .joins = backend_joins,
                           .note = backend_note};
    pthread_mutex_init(&b->lock, NULL);
    return SLUICE_OK;
}

static void fini(void *self)
{
    backend *b = self;
    for (size_t i = 0; i < KN_CUDA_DEVICES; i++)
        kn_cuda_free(b->one[i].device);
    pthread_mutex_destroy(&b->lock);
}

static const void *get(void *self)
{
    return &((backend *)self)->door;
}

static const char *numerics(void *self)
{
    const kn_device *device = ((const backend *)self)->one[0].device;
    return device ? device->ops->numerics(device) : NULL;
}

static const sluice_param params[] = {SLUICE_PARAMS_END};

const sluice_service_class kn_cuda_backend_class = {
    SLUICE_SERVICE_CLASS("cuda-backend", "computes models on an NVIDIA GPU", backend, params),
    .base.init = init,
    .base.fini = fini,
    .base.doc =
        "The op table of the model runtime on the GPUs that CUDA_VISIBLE_DEVICES shows, the first alone unless the\n"
        "runtime's devices says otherwise. SLUICE_CUDA_MEMORY (24G, 80%) bounds the memory of each.",
    .service = KN_BACKEND_CUDA,
    .get = get,
    .numerics = numerics,
};

SLUICE_PLUGIN("cuda", "0.1.0", "Apache-2.0", &kn_cuda_backend_class.base, &kn_cuda_stage_class.base);
