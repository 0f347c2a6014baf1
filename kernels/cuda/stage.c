/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * "sluice.cuda/1": a stage's own stream in the run's context.
 *
 * A stage's stream and the runtime's are two queues of one device. enter makes the first wait for what the second was
 * asked so far, leave the other way round; the host waits for neither. Memory comes from the runtime's pool.
 */
#include <cublas_v2.h>

#include "kernels/cuda/service.h"

#include <sluice/cuda.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLAS_WORKSPACE = 32 << 20, /* what NVIDIA advises for compute capability 9.0; 4 MiB below */
    KEPT = 8
};

typedef struct service {
    sluice_cuda_service table;
    const kn_backend *backend;
    kn_device *device; /* held since somebody asked for its name, so that it is made once */
    /* The last handles closed: a use of one after its close is told of, and no crash. */
    _Atomic(sluice_cuda *) closed[KEPT];
    atomic_uint closed_count;
} service;

typedef struct held {
    void *p;
    size_t bytes;
    bool host;
} held;

struct sluice_cuda {
    service *from;
    const sluice_host *host;
    kn_cuda *c;
    cudaStream_t stream;
    cudaEvent_t turn;
    cublasHandle_t blas;
    void *workspace; /* of blas */
    bool inside, closed, misfreed;
    const char *label; /* "stage 'x'", the device's */
    held *held;
    size_t held_count, held_capacity;
};

/* --- errors ---------------------------------------------------------------------------------------------------------
 */

static int report(const sluice_cuda *g, int status)
{
    const char *why = NULL;
    switch (status) {
    case KN_OK:
        return SLUICE_OK;
    case KN_NO_MEMORY:
        why = g->c->base.ops->refusal(&g->c->base);
        return sluice_error(g->host, SLUICE_NO_MEMORY, "out of memory on the GPU%s%s; work in smaller turns",
                            why ? ": " : "", why ? why : "");
    default:
        why = g->c->base.ops->error(&g->c->base);
        return sluice_error(g->host, SLUICE_FAILED, "%s%s", why ? why : "a CUDA call was refused",
                            why ? "; run again to resume" : "");
    }
}

/* NULL where nothing can be asked of the device: refused says why. */
static kn_cuda *begin(const sluice_cuda *g)
{
    return g->closed ? NULL : kn_cuda_begin(&g->c->base);
}

static int refused(const sluice_cuda *g)
{
    return g->closed ? sluice_error(g->host, SLUICE_FAILED, "sluice.cuda/1 was used after its close")
                     : report(g, KN_DEVICE_FAILED);
}

/* What is asked of `later` from now on comes after what was asked of `earlier` so far. */
static void order(sluice_cuda *g, cudaStream_t earlier, cudaStream_t later)
{
    KN_CUDA(g->c, cudaEventRecord(g->turn, earlier));
    KN_CUDA(g->c, cudaStreamWaitEvent(later, g->turn, 0));
}

/* --- enter and leave ------------------------------------------------------------------------------------------------
 */

static int stage_enter(sluice_cuda *g, struct CUstream_st **stream)
{
    *stream = NULL;
    if (g->inside) {
        g->inside = false; /* told of once */
        return sluice_error(g->host, SLUICE_FAILED, "sluice_cuda_enter was called twice without sluice_cuda_leave");
    }
    if (!begin(g))
        return refused(g);
    order(g, g->c->stream, g->stream);
    const int status = kn_cuda_end(g->c);
    g->inside = status == KN_OK;
    if (g->inside)
        *stream = g->stream;
    return report(g, status);
}

/* Errors after which CUDA refuses everything else. Any other that is pending is a call that was refused. */
static bool is_lasting(cudaError_t error)
{
    return error == cudaErrorIllegalAddress || error == cudaErrorMisalignedAddress || error == cudaErrorLaunchFailure ||
           error == cudaErrorLaunchTimeout || error == cudaErrorECCUncorrectable;
}

static int stage_leave(sluice_cuda *g, int pending)
{
    if (!g->inside)
        return sluice_error(g->host, SLUICE_FAILED, "sluice_cuda_leave was called without sluice_cuda_enter");
    g->inside = false;
    if (!begin(g))
        return refused(g);
    cudaError_t error = (cudaError_t)pending;
    if (error == cudaSuccess) /* where the plugin has the same runtime, and did not say */
        error = cudaGetLastError();
    if (is_lasting(error))
        kn_cuda_note(g->c, error, g->label);
    order(g, g->stream, g->c->stream);
    kn_cuda_asked(g->c, g->label);
    const int status = kn_cuda_end(g->c);
    if (status == KN_OK && error != cudaSuccess)
        return sluice_error(g->host, SLUICE_FAILED,
                            "the plugin left a CUDA error pending: %s; check what each launch and call returns",
                            cudaGetErrorString(error));
    return report(g, status);
}

/* --- memory ---------------------------------------------------------------------------------------------------------
 */

static bool hold(sluice_cuda *g, void *p, size_t bytes, bool host)
{
    if (g->held_count == g->held_capacity) {
        const size_t capacity = 2 * g->held_capacity + 16;
        held *grown = realloc(g->held, capacity * sizeof(*grown));
        if (!grown)
            return false;
        g->held = grown;
        g->held_capacity = capacity;
    }
    g->held[g->held_count++] = (held){p, bytes, host};
    return true;
}

static bool let_go(sluice_cuda *g, const void *p, bool host)
{
    for (size_t i = g->held_count; i > 0; i--)
        if (g->held[i - 1].p == p && g->held[i - 1].host == host) {
            g->held[i - 1] = g->held[--g->held_count];
            return true;
        }
    return false;
}

static void *stage_alloc(sluice_cuda *g, size_t bytes)
{
    if (!begin(g)) {
        refused(g);
        return NULL;
    }
    void *p = kn_cuda_alloc(g->c, bytes);
    if (p)
        order(g, g->c->stream, g->stream);
    if (p && !hold(g, p, bytes, false)) {
        kn_cuda_free_memory(g->c, p);
        kn_cuda_refuse(g->c, KN_NO_MEMORY);
    }
    const int status = kn_cuda_end(g->c);
    report(g, status);
    return status == KN_OK ? p : NULL;
}

/* A call that returns nothing cannot fail its stage: a warning, once. */
static void warn_of_free(sluice_cuda *g)
{
    if (!g->misfreed)
        sluice_log(
            g->host, SLUICE_LOG_WARNING,
            "memory was freed that this stage did not get from sluice.cuda/1, or freed twice; it was left alone");
    g->misfreed = true;
}

/* The models' stream follows, so that it has the memory when it asks next. */
static void stage_free(sluice_cuda *g, void *p)
{
    if (!p || !begin(g))
        return;
    const bool ours = let_go(g, p, false);
    if (ours) {
        KN_CUDA(g->c, cudaFreeAsync(p, g->stream));
        order(g, g->stream, g->c->stream);
    }
    const int status = kn_cuda_end(g->c);
    if (!ours)
        warn_of_free(g);
    report(g, status);
}

static void *stage_alloc_host(sluice_cuda *g, size_t bytes)
{
    void *p = NULL;
    if (!begin(g)) {
        refused(g);
        return NULL;
    }
    const cudaError_t error = cudaHostAlloc(&p, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
    const bool kept = error == cudaSuccess && hold(g, p, bytes, true);
    if (error == cudaSuccess && !kept)
        cudaFreeHost(p);
    if (error != cudaErrorMemoryAllocation)
        kn_cuda_note(g->c, error, g->label);
    const int status = kn_cuda_end(g->c);
    if (status != KN_OK)
        report(g, status);
    else if (!kept)
        sluice_error(g->host, SLUICE_NO_MEMORY, "no page-locked memory of %zu bytes is left", bytes);
    return kept ? p : NULL;
}

static void stage_free_host(sluice_cuda *g, void *p)
{
    if (!p || !begin(g))
        return;
    const bool ours = let_go(g, p, true);
    if (ours) {
        KN_CUDA(g->c, cudaStreamSynchronize(g->stream));
        KN_CUDA(g->c, cudaFreeHost(p));
    }
    const int status = kn_cuda_end(g->c);
    if (!ours)
        warn_of_free(g);
    report(g, status);
}

static int stage_write(sluice_cuda *g, void *to, const void *from, size_t bytes)
{
    if (!begin(g))
        return refused(g);
    order(g, g->stream, g->c->stream);
    kn_cuda_write(g->c, to, from, bytes);
    order(g, g->c->stream, g->stream);
    return report(g, kn_cuda_end(g->c));
}

static int stage_read(sluice_cuda *g, void *to, const void *from, size_t bytes)
{
    if (!begin(g))
        return refused(g);
    order(g, g->stream, g->c->stream);
    kn_cuda_asked(g->c, g->label);
    kn_cuda_read(g->c, to, from, bytes);
    return report(g, kn_cuda_end(g->c));
}

static int stage_memory(sluice_cuda *g, sluice_device_memory *out)
{
    kn_memory_use m = {0};
    if (g->closed)
        return refused(g);
    const int status = g->c->base.ops->memory(&g->c->base, &m);
    const sluice_device_memory all = {.size = out->size,
                                      .used = m.used,
                                      .high = m.high,
                                      .reserved = m.reserved,
                                      .free = m.free,
                                      .total = m.total,
                                      .limit = m.limit};
    memcpy(out, &all, out->size < sizeof(all) ? out->size : sizeof(all));
    return report(g, status);
}

/* --- the rest -------------------------------------------------------------------------------------------------------
 */

static int stage_info(sluice_cuda *g, sluice_cuda_info *out)
{
    const kn_cuda *c = g->c;
    if (g->closed)
        return refused(g);
    const sluice_cuda_info all = {.size = out->size,
                                  .ordinal = c->ordinal,
                                  .capability = c->capability,
                                  .multiprocessors = c->multiprocessors,
                                  .shared_most = c->shared_most,
                                  .name = c->name};
    memcpy(out, &all, out->size < sizeof(all) ? out->size : sizeof(all));
    return SLUICE_OK;
}

static int stage_cublas_lt(sluice_cuda *g, struct cublasLtContext **out)
{
    *out = g->closed ? NULL : g->c->lt;
    return g->closed ? refused(g) : SLUICE_OK;
}

static int stage_cublas(sluice_cuda *g, struct cublasContext **out)
{
    *out = g->closed ? NULL : g->blas;
    if (*out)
        return SLUICE_OK;
    if (!begin(g))
        return refused(g);
    const size_t bytes = g->c->capability >= 90 ? BLAS_WORKSPACE : BLAS_WORKSPACE / 8;
    g->workspace = kn_cuda_alloc(g->c, bytes);
    if (g->workspace)
        order(g, g->c->stream, g->stream);
    cublasStatus_t blas = g->workspace ? cublasCreate(&g->blas) : CUBLAS_STATUS_ALLOC_FAILED;
    if (blas == CUBLAS_STATUS_SUCCESS)
        blas = cublasSetStream(g->blas, g->stream);
    if (blas == CUBLAS_STATUS_SUCCESS)
        blas = cublasSetWorkspace(g->blas, g->workspace, bytes);
    const int status = kn_cuda_end(g->c);
    if (status != KN_OK)
        return report(g, status);
    if (blas != CUBLAS_STATUS_SUCCESS)
        return sluice_error(g->host, SLUICE_FAILED, "cuBLAS cannot start: %s", cublasGetStatusString(blas));
    *out = g->blas;
    return SLUICE_OK;
}

static void let_device_go(sluice_cuda *g)
{
    g->from->backend->close(g->from->backend, &g->c->base);
    free(g->held);
    g->held = NULL;
    g->closed = true;
    service *s = g->from;
    free(atomic_exchange(&s->closed[atomic_fetch_add(&s->closed_count, 1) % KEPT], g));
}

static void stage_close(sluice_cuda *g)
{
    size_t bytes = 0;
    if (!g)
        return;
    if (g->closed) {
        sluice_log(g->host, SLUICE_LOG_WARNING, "sluice.cuda/1 was closed twice");
        return;
    }
    if (!begin(g)) { /* what a device held that has failed is gone with it */
        let_device_go(g);
        return;
    }
    KN_CUDA(g->c, cudaStreamSynchronize(g->stream));
    for (size_t i = 0; i < g->held_count; i++) {
        bytes += g->held[i].bytes;
        KN_CUDA(g->c, g->held[i].host ? cudaFreeHost(g->held[i].p) : cudaFreeAsync(g->held[i].p, g->stream));
    }
    if (g->blas)
        cublasDestroy(g->blas);
    if (g->workspace)
        KN_CUDA(g->c, cudaFreeAsync(g->workspace, g->stream));
    order(g, g->stream, g->c->stream);
    KN_CUDA(g->c, cudaEventDestroy(g->turn));
    KN_CUDA(g->c, cudaStreamDestroy(g->stream));
    report(g, kn_cuda_end(g->c));
    if (g->inside)
        sluice_log(g->host, SLUICE_LOG_WARNING,
                   "the last sluice_cuda_enter had no sluice_cuda_leave: errors of its launches went unseen");
    if (g->held_count > 0)
        sluice_log(g->host, SLUICE_LOG_WARNING, "%zu bytes of GPU or page-locked memory in %zu pieces were not freed",
                   bytes, g->held_count);
    let_device_go(g);
}

static int stage_open(const sluice_cuda_service *table, const sluice_host *host, sluice_cuda **out)
{
    service *s = (service *)((uintptr_t)table - offsetof(service, table));
    const char *why = NULL;
    char label[128];
    *out = NULL;
    kn_device *device = s->backend->open(s->backend, 0, &why);
    if (!device)
        return sluice_error(host, SLUICE_UNSUPPORTED, "no GPU: %s", why);
    sluice_cuda *g = calloc(1, sizeof(*g));
    if (!g) {
        s->backend->close(s->backend, device);
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    }
    *g = (sluice_cuda){.from = s, .host = host, .c = (kn_cuda *)device};
    int status = KN_DEVICE_FAILED;
    if (begin(g)) {
        snprintf(label, sizeof(label), "stage '%.100s'", sluice_stage_name(host));
        g->label = kn_cuda_keep_name(g->c, label);
        KN_CUDA(g->c, cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking));
        KN_CUDA(g->c, cudaEventCreateWithFlags(&g->turn, cudaEventDisableTiming));
        status = kn_cuda_end(g->c);
    }
    if (status == KN_OK) {
        *out = g;
        return SLUICE_OK;
    }
    const int rc = report(g, status);
    s->backend->close(s->backend, device);
    free(g);
    return rc;
}

static int init(void *self, const sluice_host *host)
{
    service *s = self;
    s->backend = sluice_service(host, KN_BACKEND_CUDA);
    if (!s->backend)
        return sluice_error(host, SLUICE_FAILED, "the CUDA backend cannot start; 'sluice env' says why");
    s->table = (sluice_cuda_service){.size = sizeof(sluice_cuda_service),
                                     .open = stage_open,
                                     .close = stage_close,
                                     .info = stage_info,
                                     .memory = stage_memory,
                                     .enter = stage_enter,
                                     .leave = stage_leave,
                                     .alloc = stage_alloc,
                                     .free = stage_free,
                                     .alloc_host = stage_alloc_host,
                                     .free_host = stage_free_host,
                                     .write = stage_write,
                                     .read = stage_read,
                                     .cublas_lt = stage_cublas_lt,
                                     .cublas = stage_cublas};
    return SLUICE_OK;
}

static void fini(void *self)
{
    service *s = self;
    for (int i = 0; i < KEPT; i++)
        free(s->closed[i]);
    if (s->device)
        s->backend->close(s->backend, s->device);
}

static const void *get(void *self)
{
    return &((service *)self)->table;
}

static const char *numerics(void *self)
{
    service *s = self;
    const char *why;
    if (!s->device)
        s->device = s->backend->open(s->backend, 0, &why);
    return s->device ? s->device->ops->numerics(s->device) : NULL;
}

static const sluice_param params[] = {SLUICE_PARAMS_END};

const sluice_service_class kn_cuda_stage_class = {
    SLUICE_SERVICE_CLASS("cuda", "a plugin's own CUDA kernels in the run's one context", service, params),
    .base.init = init,
    .base.fini = fini,
    .base.doc = "A stream for each stage, ordered with the models' work, memory from the shared pool, cuBLAS handles.",
    .service = SLUICE_CUDA_SERVICE,
    .get = get,
    .numerics = numerics,
};
