/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * NCCL under its own names, opened at the first call, as cublas.c does with cuBLAS: only a run on several GPUs needs
 * it. Where it is not to be had, every call answers ncclSystemError. Any thread.
 */
#ifdef KN_NCCL
#define _GNU_SOURCE
#include <dlfcn.h>
#include <nccl.h>
#include <pthread.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *library;

static void open_library(void)
{
    library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
}

static void *find(const char *name)
{
    pthread_once(&once, open_library);
    return library ? dlsym(library, name) : NULL;
}

/* The function `name` of this file: the library's, looked for once. Two threads that look at once find the same. */
#define FORWARD(type, absent, name, parameters, arguments)              \
    type name parameters                                                \
    {                                                                   \
        static __typeof__(&name) real;                                  \
        __typeof__(&name) f = __atomic_load_n(&real, __ATOMIC_RELAXED); \
        if (!f) {                                                       \
            f = (__typeof__(&name))find(#name);                         \
            __atomic_store_n(&real, f, __ATOMIC_RELAXED);               \
        }                                                               \
        return f ? f arguments : absent;                                \
    }
#define NCCL(name, parameters, arguments) FORWARD(ncclResult_t, ncclSystemError, name, parameters, arguments)

FORWARD(const char *, "the library cannot be opened: libnccl.so.2", ncclGetErrorString, (ncclResult_t result), (result))
NCCL(ncclGetVersion, (int *version), (version))
NCCL(ncclCommInitAll, (ncclComm_t * comms, int count, const int *devices), (comms, count, devices))
NCCL(ncclCommDestroy, (ncclComm_t comm), (comm))
NCCL(ncclCommAbort, (ncclComm_t comm), (comm))
NCCL(ncclCommGetAsyncError, (ncclComm_t comm, ncclResult_t *result), (comm, result))
ncclResult_t ncclGroupStart(void); /* nccl.h has it without a prototype */
ncclResult_t ncclGroupEnd(void);
NCCL(ncclGroupStart, (void), ())
NCCL(ncclGroupEnd, (void), ())
NCCL(ncclAllReduce,
     (const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
      cudaStream_t stream),
     (send, receive, count, type, op, comm, stream))
#else
typedef int no_nccl; /* a file is not empty */
#endif
