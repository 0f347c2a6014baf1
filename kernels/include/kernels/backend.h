/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The door by which the model runtime opens a device that is another plugin's: a service of the host, asked for by the
 * backend's id. It is no public interface; both sides are built from one source.
 *
 *     const kn_backend *backend = sluice_service(host, KN_BACKEND_CUDA);
 *     kn_device *device = backend && kn_backend_fits(backend) ? backend->open(backend, 0, &why) : NULL;
 */
#ifndef KERNELS_BACKEND_H
#define KERNELS_BACKEND_H

#include "kernels/collective.h"

#define KN_BACKEND_CUDA "sluice.backend.cuda/1"

typedef struct kn_backend {
    size_t size;      /* sizeof(kn_backend) */
    size_t ops_size;  /* sizeof(kn_ops) */
    const char *kind; /* "cuda" */
    /* How many devices there are; 0 when none works. */
    size_t (*count)(const struct kn_backend *);
    /* One object a device and run, made by the first who asks for this number; every open is closed once. NULL and one
     * line in *why (good as long as the backend) when that one does not work; asked again, it gives the same answer.
     * Any thread. */
    kn_device *(*open)(const struct kn_backend *, size_t number, const char **why);
    void (*close)(const struct kn_backend *, kn_device *);
    /* As its maker calls it. */
    const char *(*name)(const kn_device *);
    /* Joins open devices, which outlive what comes of it. NULL and one line in *why (good until the next) when they
     * cannot be joined. */
    kn_collective *(*join)(const struct kn_backend *, kn_device *const *devices, size_t count, const char **why);
    /* What would join them, or why nothing can, in a few words. */
    void (*joins)(const struct kn_backend *, char *text, size_t size);
    /* What a user should know of an open device, in a line without its name; NULL when there is nothing. Another line
     * (another address) where sampling has shown more. */
    const char *(*note)(kn_device *);
} kn_backend;

/* For programs without a host (timing, tests): a plugin's backend, which stays as long as the program. NULL and one
 * line in *why. One thread. */
const kn_backend *kn_backend_load(const char *path, const char **why);

/* Whether both were built with the same op table. */
static inline bool kn_backend_fits(const kn_backend *backend)
{
    return backend->size == sizeof(kn_backend) && backend->ops_size == sizeof(kn_ops);
}

#endif
