/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * cuBLAS and cuBLASLt under their own names, opened at the first call.
 *
 * The two libraries take 170 MB and a tenth of a second to load, in each process that opens the plugin, with or without
 * a GPU. So the plugin does not link to them: what it calls is defined here, and asks the library whose version the
 * headers name. Where it is not to be had, every call answers CUBLAS_STATUS_NOT_INITIALIZED. Any thread.
 */
#define _GNU_SOURCE
#include <cublasLt.h>
#include <cublas_v2.h>
#include <dlfcn.h>
#include <pthread.h>

#define WORDS_(x)     #x
#define WORDS(x)      WORDS_(x)
#define LIBRARY(name) "lib" name ".so." WORDS(CUBLAS_VER_MAJOR)

static pthread_once_t lt_once = PTHREAD_ONCE_INIT, blas_once = PTHREAD_ONCE_INIT;
static void *lt_library, *blas_library;

static void open_lt(void)
{
    lt_library = dlopen(LIBRARY("cublasLt"), RTLD_NOW | RTLD_LOCAL);
}

static void open_blas(void)
{
    blas_library = dlopen(LIBRARY("cublas"), RTLD_NOW | RTLD_LOCAL);
}

static void *lt(const char *name)
{
    pthread_once(&lt_once, open_lt);
    return lt_library ? dlsym(lt_library, name) : NULL;
}

static void *blas(const char *name)
{
    pthread_once(&blas_once, open_blas);
    return blas_library ? dlsym(blas_library, name) : NULL;
}

/* The function `name` of this file: the library's, looked for once. Two threads that look at once find the same. */
#define FORWARD(library, type, absent, name, parameters, arguments)     \
    type name parameters                                                \
    {                                                                   \
        static __typeof__(&name) real;                                  \
        __typeof__(&name) f = __atomic_load_n(&real, __ATOMIC_RELAXED); \
        if (!f) {                                                       \
            f = (__typeof__(&name))library(#name);                      \
            __atomic_store_n(&real, f, __ATOMIC_RELAXED);               \
        }                                                               \
        return f ? f arguments : absent;                                \
    }
#define LT(name, parameters, arguments) \
    FORWARD(lt, cublasStatus_t, CUBLAS_STATUS_NOT_INITIALIZED, name, parameters, arguments)
#define BLAS(name, parameters, arguments) \
    FORWARD(blas, cublasStatus_t, CUBLAS_STATUS_NOT_INITIALIZED, name, parameters, arguments)

FORWARD(lt, size_t, 0, cublasLtGetVersion, (void), ())
LT(cublasLtCreate, (cublasLtHandle_t * handle), (handle))
LT(cublasLtDestroy, (cublasLtHandle_t handle), (handle))
LT(cublasLtMatmul,
   (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
    cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
    cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
    void *workspace, size_t bytes, cudaStream_t stream),
   (handle, desc, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algo, workspace, bytes, stream))
LT(cublasLtMatmulAlgoGetHeuristic,
   (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
    cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int wanted,
    cublasLtMatmulHeuristicResult_t results[], int *found),
   (handle, desc, a, b, c, d, preference, wanted, results, found))
LT(cublasLtMatmulDescCreate, (cublasLtMatmulDesc_t * desc, cublasComputeType_t compute, cudaDataType_t scale),
   (desc, compute, scale))
LT(cublasLtMatmulDescDestroy, (cublasLtMatmulDesc_t desc), (desc))
LT(cublasLtMatmulDescSetAttribute,
   (cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const void *value, size_t bytes),
   (desc, attribute, value, bytes))
LT(cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t * preference), (preference))
LT(cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t preference), (preference))
LT(cublasLtMatmulPreferenceSetAttribute,
   (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
    size_t bytes),
   (preference, attribute, value, bytes))
LT(cublasLtMatrixLayoutCreate,
   (cublasLtMatrixLayout_t * layout, cudaDataType type, uint64_t rows, uint64_t columns, int64_t stride),
   (layout, type, rows, columns, stride))
LT(cublasLtMatrixLayoutDestroy, (cublasLtMatrixLayout_t layout), (layout))
LT(cublasLtMatrixLayoutSetAttribute,
   (cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, const void *value, size_t bytes),
   (layout, attribute, value, bytes))

FORWARD(blas, const char *, "the library cannot be opened: " LIBRARY("cublas"), cublasGetStatusString,
        (cublasStatus_t status), (status))
BLAS(cublasCreate_v2, (cublasHandle_t * handle), (handle))
BLAS(cublasDestroy_v2, (cublasHandle_t handle), (handle))
BLAS(cublasSetStream_v2, (cublasHandle_t handle, cudaStream_t stream), (handle, stream))
BLAS(cublasSetWorkspace_v2, (cublasHandle_t handle, void *workspace, size_t bytes), (handle, workspace, bytes))
