/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The service "sluice.device/1": the device that the models of this run compute on, whichever it is, for plugins that
 * multiply large matrices. What is written against it runs on the processor and on a GPU.
 *
 *     const sluice_device_service *devices = sluice_service(host, SLUICE_DEVICE_SERVICE);
 *     sluice_device *device;
 *     int rc = devices->open(devices, host, &device);
 *     float *x = devices->alloc(device, n * sizeof(*x));
 *
 * Two memories. What alloc gives belongs to the device: the host may touch it only where info says `host_memory`; it
 * goes in with write and comes out with read. Every other pointer is host memory. Numbers are float32, matrices
 * row-major and dense.
 *
 * Order. What is asked happens in the order in which it was asked; read and sum_squares wait for all that was asked
 * before. Host memory is borrowed for the call.
 *
 * Any thread may call; one handle is used from one thread at a time. Errors: NULL or a negative sluice_result, the
 * reason already reported through the `host` given to open. SLUICE_NO_MEMORY changed nothing: ask for less, in turns.
 */
#ifndef SLUICE_DEVICE_H
#define SLUICE_DEVICE_H

#include <sluice/abi.h>
#include <sluice/host.h>

#define SLUICE_DEVICE_SERVICE "sluice.device/1"

typedef struct sluice_device sluice_device; /* one stage's use of the device */

typedef struct sluice_device_info {
    uint32_t size;        /* set by the caller */
    const char *kind;     /* "cpu" or "cuda" */
    const char *name;     /* as its maker calls it */
    const char *numerics; /* what decides the bits: part of every content key */
    bool host_memory;     /* memory of the device is host memory */
    const char *reason;   /* why it is the processor where a GPU was looked for, in one line; NULL otherwise */
    uint32_t count;       /* such devices that there are, whether used or not */
    const char *together; /* what would sum over several, or why nothing can; NULL where there are no several */
} sluice_device_info;

/* Bytes. */
typedef struct sluice_device_memory {
    uint32_t size;       /* set by the caller */
    uint64_t used, high; /* by this run: now, and at most so far */
    uint64_t reserved;   /* held by this run, used or not */
    uint64_t free;       /* of the device, whoever uses it */
    uint64_t total;
    uint64_t limit; /* this run takes no more; 0 = all there is */
} sluice_device_memory;

/* How the factors of y[m, n] lie: NT: a[m, k] · b[n, k]ᵀ; NN: a[m, k] · b[k, n]; TN: a[k, m]ᵀ · b[k, n]. */
enum sluice_layout { SLUICE_NT = 0, SLUICE_NN = 1, SLUICE_TN = 2 };

typedef struct sluice_device_service {
    uint32_t size;

    int (*open)(const struct sluice_device_service *, const sluice_host *, sluice_device **);
    /* Frees what was not freed, with a warning. NULL is no matter. */
    void (*close)(sluice_device *);
    int (*info)(sluice_device *, sluice_device_info *); /* strings live as long as the run */
    int (*memory)(sluice_device *, sluice_device_memory *);

    void *(*alloc)(sluice_device *, size_t bytes); /* aligned to 64 bytes at least, not cleared */
    void (*free)(sluice_device *, void *);         /* NULL is no matter */
    int (*write)(sluice_device *, void *to, const void *from, size_t bytes);
    int (*read)(sluice_device *, void *to, const void *from, size_t bytes);
    int (*copy)(sluice_device *, void *to, const void *from, size_t bytes); /* within the device; no overlap */
    int (*clear)(sluice_device *, void *, size_t bytes);

    /* y[m, n] = the product, or += when `accumulate`. y is neither factor. */
    int (*product)(sluice_device *, int layout, float *y, const float *a, const float *b, size_t m, size_t n, size_t k,
                   bool accumulate);
    /* y[i] += a · x[i] */
    int (*axpy)(sluice_device *, float *y, float a, const float *x, size_t n);
    /* y[t] = x[t] / |x[t]| for the rows of x[rows, columns]: the product of two such matrices is a table of cosines.
     * A row of zeros stays one. y may be x. */
    int (*unit_rows)(sluice_device *, float *y, const float *x, size_t rows, size_t columns);
    /* *sum (host memory) = Σ x[i]², summed in one fixed order in float64. */
    int (*sum_squares)(sluice_device *, double *sum, const float *x, size_t n);
} sluice_device_service;

#endif
