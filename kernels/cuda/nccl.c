/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums over several GPUs of this machine by NCCL.
 *
 * All ranks are this process's, and one thread calls for all of them within one group, so no rank can be missing. Each
 * GPU's part is asked of its own stream, behind what it computes. What can go wrong then is a GPU that fails, or the
 * links between them: the others' parts would never end. So the wait is a poll of all of them, of NCCL's own errors and
 * of the clock, and on any trouble all communicators are aborted, which ends the parts that wait.
 */
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef KN_NCCL
#include <nccl.h>

enum {
    LEAST_VERSION = 21800, /* 2.18: the first for the GPUs and toolkits that this backend is for */
    PATIENCE = 600         /* seconds that a sum may take, what is computed before it included */
};

typedef struct group {
    kn_collective base;
    pthread_mutex_t lock;
    char name[48];
    char note[256];
    char why[640]; /* "" while it works */
    struct member {
        kn_cuda *c;
        ncclComm_t comm; /* NULL after an abort */
        cudaEvent_t done;
    } member[];
} group;

static const char *version_text(char text[32], int version)
{
    snprintf(text, 32, "%d.%d.%d", version / 10000, version % 10000 / 100, version % 100);
    return text;
}

static int library_version(void)
{
    int version = 0;
    return ncclGetVersion(&version) == ncclSuccess ? version : 0;
}

void kn_nccl_describe(char *text, size_t size)
{
    char number[32];
    const int version = library_version();
    if (version == 0)
        snprintf(text, size, "no NCCL: libnccl.so.2 cannot be opened");
    else
        snprintf(text, size, "NCCL %s%s", version_text(number, version),
                 version < LEAST_VERSION ? ", too old: 2.18 is needed" : "");
}

/* --- the end of a group ---------------------------------------------------------------------------------------------
 */

/* The parts that wait end, whatever they hold; the group is over. */
static int give_up(group *g, const char *format, const char *what)
{
    if (!*g->why)
        snprintf(g->why, sizeof(g->why), format, what);
    for (size_t i = 0; i < g->base.count; i++) {
        cudaSetDevice(g->member[i].c->ordinal);
        if (g->member[i].comm)
            ncclCommAbort(g->member[i].comm);
        g->member[i].comm = NULL;
    }
    cudaGetLastError();
    return KN_DEVICE_FAILED;
}

/* What a GPU answers to a call of the group. */
static int note(group *g, size_t i, cudaError_t error)
{
    kn_cuda *c = g->member[i].c;
    if (error == cudaSuccess || error == cudaErrorNotReady)
        return KN_OK;
    if (kn_cuda_begin(&c->base)) {
        kn_cuda_note(c, error, "a sum over GPUs");
        kn_cuda_end(c);
    }
    return give_up(g, "%s", c->failed ? c->error : "out of memory in a sum over GPUs");
}

/* --- a sum ----------------------------------------------------------------------------------------------------------
 */

/* Asks every stream for its part, and notes its end. */
static int ask(group *g, float *const *x, size_t n)
{
    size_t entered = 0;
    int kn = KN_OK;
    for (; kn == KN_OK && entered < g->base.count; entered++) { /* all devices, in one order */
        kn_cuda *c = g->member[entered].c;
        if (!kn_cuda_begin(&c->base)) {
            kn = give_up(g, "%s", c->error);
            break;
        }
        if (c->stepping)
            kn_cuda_flush(c);
    }
    ncclResult_t result = kn == KN_OK ? ncclGroupStart() : ncclSuccess;
    for (size_t i = 0; kn == KN_OK && result == ncclSuccess && i < g->base.count; i++)
        result = ncclAllReduce(x[i], x[i], n, ncclFloat32, ncclSum, g->member[i].comm, g->member[i].c->stream);
    if (kn == KN_OK) {
        const ncclResult_t end = ncclGroupEnd();
        result = result == ncclSuccess ? end : result;
    }
    for (size_t i = 0; kn == KN_OK && result == ncclSuccess && i < g->base.count; i++) {
        kn_cuda *c = g->member[i].c;
        c->asked[c->asked_count++ % KN_CUDA_ASKED] = "a sum over GPUs"; /* never waited for alone */
        cudaSetDevice(c->ordinal);
        kn = note(g, i, cudaEventRecord(g->member[i].done, c->stream));
    }
    while (entered-- > 0)
        kn_cuda_end(g->member[entered].c);
    return kn == KN_OK && result != ncclSuccess ? give_up(g, "NCCL refuses a sum: %s", ncclGetErrorString(result)) : kn;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int wait(group *g)
{
    const double begin = seconds();
    for (size_t i = 0; i < g->base.count;) {
        cudaSetDevice(g->member[i].c->ordinal);
        const cudaError_t error = cudaEventQuery(g->member[i].done);
        if (error == cudaSuccess) {
            i++;
            continue;
        }
        /* Whoever failed may be another one. */
        for (size_t k = 0; k < g->base.count; k++) {
            ncclResult_t result = ncclSuccess;
            cudaSetDevice(g->member[k].c->ordinal);
            const int kn = note(g, k, k == i ? error : cudaEventQuery(g->member[k].done));
            if (kn != KN_OK)
                return kn;
            if (ncclCommGetAsyncError(g->member[k].comm, &result) != ncclSuccess || result != ncclSuccess)
                return give_up(g, "NCCL failed in a sum over GPUs: %s; NCCL_DEBUG=INFO tells more",
                               ncclGetErrorString(result));
        }
        if (seconds() - begin > PATIENCE)
            return give_up(g, "%s",
                           "a sum over GPUs did not end in ten minutes; NCCL_DEBUG=INFO tells what it waits "
                           "for, and NCCL_P2P_DISABLE=1 helps where GPUs cannot reach each other");
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    cudaGetLastError(); /* cudaErrorNotReady */
    return KN_OK;
}

static int group_sum(kn_collective *base, float *const *x, size_t n)
{
    group *g = (group *)base;
    pthread_mutex_lock(&g->lock);
    int kn = *g->why ? KN_DEVICE_FAILED : KN_OK;
    if (kn == KN_OK && n > 0 && (kn = ask(g, x, n)) == KN_OK)
        kn = wait(g);
    pthread_mutex_unlock(&g->lock);
    return kn;
}

static const char *group_error(const kn_collective *base)
{
    const group *g = (const group *)base;
    return *g->why ? g->why : NULL;
}

/* --- making and unmaking --------------------------------------------------------------------------------------------
 */

static void group_free(kn_collective *base)
{
    group *g = (group *)base;
    for (size_t i = 0; i < g->base.count; i++) {
        cudaSetDevice(g->member[i].c->ordinal);
        if (g->member[i].comm)
            ncclCommDestroy(g->member[i].comm);
        if (g->member[i].done)
            cudaEventDestroy(g->member[i].done);
    }
    cudaGetLastError();
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* All of one kind: sums in blocks of other numbers would leave the replicas of a model with other bits. */
static const char *differ(kn_device *const *devices, size_t count)
{
    const kn_cuda *first = (const kn_cuda *)devices[0];
    for (size_t i = 1; i < count; i++) {
        const kn_cuda *c = (const kn_cuda *)devices[i];
        if (strcmp(c->numerics_f32, first->numerics_f32) != 0 || c->multiprocessors != first->multiprocessors)
            return kn_cuda_say("GPU %d is of another kind (%s) than GPU %d (%s); name some of one kind with "
                               "CUDA_VISIBLE_DEVICES",
                               c->ordinal, c->name, first->ordinal, first->name);
    }
    return NULL;
}

/* Where GPUs of one process reach each other, NCCL writes to the others' arrays as they lie. Memory of a pool is its
 * own GPU's alone until the pool says otherwise. */
static cudaError_t open_pool(const kn_cuda *c, const kn_cuda *to)
{
    const struct cudaMemAccessDesc access = {.location = {.type = cudaMemLocationTypeDevice, .id = to->ordinal},
                                             .flags = cudaMemAccessFlagsProtReadWrite};
    int reaches = 0;
    const cudaError_t error = cudaDeviceCanAccessPeer(&reaches, to->ordinal, c->ordinal);
    return error == cudaSuccess && reaches ? cudaMemPoolSetAccess(c->pool, &access, 1) : error;
}

/* The error of a GPU that no longer works, which none of its calls lives down. */
static cudaError_t lasting(const group *g)
{
    cudaError_t error = cudaSuccess;
    cudaGetLastError();
    for (size_t i = 0; error == cudaSuccess && i < g->base.count; i++) {
        error = cudaSetDevice(g->member[i].c->ordinal);
        if (error == cudaSuccess && (error = cudaStreamQuery(g->member[i].c->stream)) == cudaErrorNotReady)
            error = cudaSuccess;
    }
    cudaGetLastError();
    return error;
}

/* Where a pool stays closed NCCL shall copy through buffers of its own. It is told by its variable, which it reads when
 * it makes the first communicator of the process. */
static const char *open_pools(group *g)
{
    const char *buffers = getenv("NCCL_P2P_DIRECT_DISABLE");
    cudaError_t error = cudaSuccess;
    char closed[160] = "";
    if (buffers && strtol(buffers, NULL, 0) != 0)
        return NULL;
    for (size_t i = 0; i < g->base.count; i++)
        for (size_t k = 0; k < g->base.count && error == cudaSuccess; k++)
            if (k != i && (error = open_pool(g->member[i].c, g->member[k].c)) != cudaSuccess)
                snprintf(closed, sizeof(closed), "GPU %d's memory cannot be opened to GPU %d (%.100s)",
                         g->member[i].c->ordinal, g->member[k].c->ordinal, cudaGetErrorString(error));
    if (error == cudaSuccess)
        return NULL;
    if ((error = lasting(g)) != cudaSuccess)
        return kn_cuda_say("%zu GPUs cannot be joined: %s", g->base.count, cudaGetErrorString(error));
    if (buffers && *buffers)
        return kn_cuda_say("%s, and NCCL_P2P_DIRECT_DISABLE=%.32s has NCCL write there; unset it", closed, buffers);
    if (setenv("NCCL_P2P_DIRECT_DISABLE", "1", 1) != 0)
        return "out of memory";
    snprintf(g->note, sizeof(g->note), "sums over GPUs go through buffers of NCCL, which may be slower: %s", closed);
    g->base.note = g->note;
    return NULL;
}

static const char *make(group *g, kn_device *const *devices)
{
    ncclComm_t comms[KN_CUDA_DEVICES] = {0};
    int ordinals[KN_CUDA_DEVICES];
    char text[96];
    kn_nccl_describe(text, sizeof(text));
    if (library_version() < LEAST_VERSION)
        return kn_cuda_say("several GPUs train together by NCCL, and there is %s; install libnccl2, or set "
                           "LD_LIBRARY_PATH to where it is",
                           text);
    for (size_t i = 0; i < g->base.count; i++) {
        g->member[i].c = (kn_cuda *)devices[i];
        ordinals[i] = g->member[i].c->ordinal;
    }
    const char *why = differ(devices, g->base.count);
    why = why ? why : open_pools(g);
    if (why)
        return why;
    const ncclResult_t result = ncclCommInitAll(comms, (int)g->base.count, ordinals);
    if (result != ncclSuccess)
        return kn_cuda_say("%s cannot join %zu GPUs: %s; NCCL_DEBUG=INFO tells more", text, g->base.count,
                           ncclGetErrorString(result));
    for (size_t i = 0; i < g->base.count; i++)
        g->member[i].comm = comms[i];
    cudaError_t error = cudaSuccess;
    for (size_t i = 0; error == cudaSuccess && i < g->base.count; i++) {
        error = cudaSetDevice(ordinals[i]);
        if (error == cudaSuccess)
            error = cudaEventCreateWithFlags(&g->member[i].done, cudaEventDisableTiming);
    }
    return error == cudaSuccess
               ? NULL
               : kn_cuda_say("%zu GPUs cannot be joined: %s", g->base.count, cudaGetErrorString(error));
}

kn_collective *kn_nccl_join(kn_device *const *devices, size_t count, const char **why)
{
    char number[32];
    group *g = calloc(1, sizeof(*g) + count * sizeof(g->member[0]));
    *why = "out of memory";
    if (!g)
        return NULL;
    pthread_mutex_init(&g->lock, NULL);
    g->base = (kn_collective){.size = sizeof(g->base),
                              .count = count,
                              .name = g->name,
                              .sum = group_sum,
                              .error = group_error,
                              .free = group_free};
    *why = make(g, devices);
    if (!*why) {
        snprintf(g->name, sizeof(g->name), "nccl%s", version_text(number, library_version()));
        return &g->base;
    }
    for (size_t i = 0; i < count; i++)
        g->member[i].c = (kn_cuda *)devices[i];
    group_free(&g->base);
    return NULL;
}

#else

void kn_nccl_describe(char *text, size_t size)
{
    snprintf(text, size, "no NCCL: the backend was built without nccl.h");
}

kn_collective *kn_nccl_join(kn_device *const *devices, size_t count, const char **why)
{
    (void)devices;
    *why = kn_cuda_say("%zu GPUs train together by NCCL, and this backend was built without its header; install "
                       "libnccl-dev and build anew",
                       count);
    return NULL;
}

#endif
