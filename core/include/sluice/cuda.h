/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The service "sluice.cuda/1": a plugin's own CUDA kernels in the run's one context. NULL from sluice_service where no
 * such backend is installed; open says why where there is no GPU that works.
 *
 *     const sluice_cuda_service *cuda = sluice_service(host, SLUICE_CUDA_SERVICE);    // in init
 *     sluice_cuda *gpu;
 *     int rc = cuda->open(cuda, host, &gpu);
 *
 *     rc = sluice_cuda_enter(cuda, gpu, &stream);                                     // in process
 *     if (rc == SLUICE_OK) {
 *         kernel<<<grid, block, 0, stream>>>(...);
 *         rc = sluice_cuda_leave(cuda, gpu, cudaGetLastError());
 *     }
 *
 *     cuda->close(gpu);                                                               // in fini
 *
 * Between enter and leave the calling thread's current device is the run's, and the stage's stream stands after all
 * that models computed so far. leave makes what models compute from then on stand after the stage's work, waits for
 * nothing, and takes the error it is given (a launch with a block too large) as this stage's. The stream and the
 * handles of cuBLAS are used between the two only; alloc, free, write and read outside too.
 *
 * Rules. Never cudaDeviceReset, cudaSetDevice, or a context of your own. Memory comes from alloc, so that it is counted
 * and others are asked to make room; none from cudaMalloc. CUDA's runtime may be linked in statically. A class that
 * uses this service sets the traits SLUICE_USES_DEVICE, SLUICE_USES_CUDA and SLUICE_IN_PROCESS: the GPU is then part of
 * its content key, and `check` refuses `isolate` for it.
 *
 * A handle belongs to one stage and is used from its thread. Errors: NULL or a negative sluice_result, the reason
 * already reported through the `host` given to open. SLUICE_NO_MEMORY changed nothing: work in smaller turns. After an
 * illegal address the device has failed for everybody: the run ends with the name of the stage, keeps all that is
 * finished, and can be resumed. With SLUICE_CUDA_WAIT=1 in the environment leave waits, so that it is the right stage.
 *
 * The types are those of cuda_runtime.h, cublas_v2.h and cublasLt.h, which need not be included.
 */
#ifndef SLUICE_CUDA_H
#define SLUICE_CUDA_H

#include <sluice/abi.h>
#include <sluice/device.h>
#include <sluice/host.h>

#define SLUICE_CUDA_SERVICE "sluice.cuda/1"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;     /* *: cudaStream_t */
struct cublasContext;   /* *: cublasHandle_t */
struct cublasLtContext; /* *: cublasLtHandle_t */

typedef struct sluice_cuda sluice_cuda; /* one stage's use of the GPU */

typedef struct sluice_cuda_info {
    uint32_t size;      /* set by the caller */
    int32_t ordinal;    /* as the CUDA runtime counts */
    int32_t capability; /* 10 · major + minor: 90 on an H100 */
    int32_t multiprocessors;
    uint64_t shared_most; /* bytes of shared memory a block may ask for */
    const char *name;     /* as the driver says; lives as long as the run */
} sluice_cuda_info;

typedef struct sluice_cuda_service {
    uint32_t size;

    int (*open)(const struct sluice_cuda_service *, const sluice_host *, sluice_cuda **);
    /* Waits for the stage's work, and frees what was not freed, with a warning. NULL is no matter. */
    void (*close)(sluice_cuda *);
    int (*info)(sluice_cuda *, sluice_cuda_info *);
    int (*memory)(sluice_cuda *, sluice_device_memory *);

    int (*enter)(sluice_cuda *, struct CUstream_st **stream);
    /* error: the plugin's own cudaGetLastError, a cudaError_t; 0 = none. */
    int (*leave)(sluice_cuda *, int error);

    /* Memory of the device from the run's pool, aligned to 256 bytes, not cleared; good for what is asked of the
     * stage's stream from now on, until free, which waits for nothing. */
    void *(*alloc)(sluice_cuda *, size_t bytes);
    void (*free)(sluice_cuda *, void *); /* NULL is no matter */
    /* Page-locked memory of the host. free_host waits for the stage's stream. */
    void *(*alloc_host)(sluice_cuda *, size_t bytes);
    void (*free_host)(sluice_cuda *, void *);
    /* On the stage's stream. Host memory may be of any kind and change as soon as these return; read waits. */
    int (*write)(sluice_cuda *, void *to, const void *from, size_t bytes);
    int (*read)(sluice_cuda *, void *to, const void *from, size_t bytes);

    /* The run's cuBLASLt handle, and this stage's cuBLAS handle, bound to its stream, made when first asked for. */
    int (*cublas_lt)(sluice_cuda *, struct cublasLtContext **);
    int (*cublas)(sluice_cuda *, struct cublasContext **);
} sluice_cuda_service;

static inline int sluice_cuda_enter(const sluice_cuda_service *service, sluice_cuda *gpu, struct CUstream_st **stream)
{
    return service->enter(gpu, stream);
}

/* `error` is what cudaGetLastError gave after the launches. */
static inline int sluice_cuda_leave(const sluice_cuda_service *service, sluice_cuda *gpu, int error)
{
    return service->leave(gpu, error);
}

#ifdef __cplusplus
}
#endif

#endif
