/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * The emulated runtime: what it does right, and which mistakes of host code it finds. */
#include "test_emulator.h"

#include <string.h>

#include <cublasLt.h>

#include "kernels/cuda/launch.cuh"

enum { SEEDS = 8 };

static __global__ void set(float *o, int n, float value)
{
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += (int)(gridDim.x * blockDim.x)) {
        o[i] = value;
    }
}

static __global__ void add_one(float *o, const float *in, int n)
{
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += (int)(gridDim.x * blockDim.x)) {
        o[i] = in[i] + 1;
    }
}

static __global__ void set_at(float *o, ptrdiff_t offset)
{
    o[offset] = 1;
}

struct Pair {
    int n;
    float *p;
};

static __global__ void set_pair(Pair pair)
{
    pair.p[threadIdx.x % (unsigned)pair.n] = 1;
}

static cudaStream_t stream()
{
    cudaStream_t s;
    DONE(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    return s;
}

static float *floats(size_t n)
{
    float *p;
    DONE(cudaMalloc(&p, n * sizeof(float)));
    return p;
}

static float *pinned(size_t n)
{
    void *p;
    DONE(cudaHostAlloc(&p, n * sizeof(float), cudaHostAllocDefault));
    return static_cast<float *>(p);
}

static float first(const float *p)
{
    float v = -1;
    DONE(cudaMemcpy(&v, p, sizeof v, cudaMemcpyDeviceToHost));
    return v;
}

/* ---- memory ---- */

static void mixed_up_pointers()
{
    dies("the host touches device memory", [] { floats(100)[3] = 1; });
    dies("byte 12 of a block of 400", [] { floats(100)[3] = 1; });
    dies("the host touches device memory", [] { /* after a kernel, too */
                                                float *p = floats(100);
                                                DONE(kn_launch(false, set, 1, 32, 0, nullptr, p, 100, 1.0f));
                                                DONE(cudaDeviceSynchronize());
                                                printf("%f\n", p[0]);
    });
    dies("argument 1 points to host memory", [] {
        static float host[32];
        kn_launch(false, set, 1, 32, 0, nullptr, host, 32, 1.0f);
    });
    dies("argument 1 points to host memory", [] {
        const Pair pair = {4, new float[4]};
        kn_launch(false, set_pair, 1, 32, 0, nullptr, pair);
    });
    float *p = floats(4), *host = pinned(4), plain[4] = {};
    CHECK(cudaMemcpy(p, plain, 16, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(plain, host, 16, cudaMemcpyDeviceToDevice) == cudaErrorInvalidValue);
    DONE(kn_launch(false, set, 1, 32, 0, nullptr, host, 4, 2.0f)); /* pinned memory is the device's as well */
    DONE(cudaDeviceSynchronize());
    CHECK(host[3] == 2);
}

#ifndef EMULATE_ASAN /* which ends the process by itself */
static void beside_blocks()
{
    dies("wrote beside a block of 400 bytes", [] {
        DONE(kn_launch(false, set, 1, 32, 0, nullptr, floats(100), 101, 1.0f));
        cudaDeviceSynchronize();
    });
    dies("set, launched at", [] {
        DONE(kn_launch(false, set, 1, 32, 0, nullptr, floats(100), 120, 1.0f));
        cudaDeviceSynchronize();
    });
    dies("was written to after it was freed", [] {
        float *p = floats(1 << 20), *other = floats(64);
        DONE(cudaFree(p));
        DONE(kn_launch(false, set_at, 1, 32, 0, nullptr, other, p + 100 - other));
        for (int i = 0; i < 20; i++) { /* until the block is taken into use again */
            DONE(cudaFree(floats(1 << 20)));
        }
    });
}
#endif

static void copies_beyond()
{
    dies("a copy writes to bytes 0 to 404 of a block of 400", [] {
        static float host[128];
        cudaMemcpy(floats(100), host, 404, cudaMemcpyHostToDevice);
    });
    dies("a memset writes to", [] {
        cudaMemset(floats(100), 0, 401);
        cudaDeviceSynchronize();
    });
}

static void freed_memory()
{
    dies("a block that was freed before", [] {
        cudaStream_t s = stream();
        void *p;
        DONE(cudaMallocAsync(&p, 400, s));
        DONE(cudaFreeAsync(p, s));
        DONE(kn_launch(false, set, 1, 32, 0, s, (float *)p, 100, 1.0f));
        cudaStreamSynchronize(s);
    });
    dies("is freed already", [] {
        cudaStream_t s = stream();
        void *p;
        DONE(cudaMallocAsync(&p, 400, s));
        DONE(cudaFreeAsync(p, s));
        cudaFreeAsync(p, s);
    });
    dies("is inside a block", [] { cudaFree(floats(100) + 1); });
    dies("which cudaHostAlloc did not give", [] { cudaFreeHost(malloc(4)); });
    dies("page-locked memory", [] {
        cudaStream_t s = stream();
        void *pinned;
        DONE(cudaHostAlloc(&pinned, 400, 0));
        DONE(cudaMemcpyAsync(floats(100), pinned, 400, cudaMemcpyHostToDevice, s));
        DONE(cudaFreeHost(pinned));
        cudaStreamSynchronize(s);
    });
    dies("another stream allocates", [] {
        cudaStream_t s = stream(), t = stream();
        void *p;
        DONE(cudaMallocAsync(&p, 400, s));
        DONE(kn_launch(false, set, 1, 32, 0, t, (float *)p, 100, 1.0f));
        cudaStreamSynchronize(t);
    });
    float *p = floats(8), v; /* new memory is no number */
    v = first(p);
    CHECK(v != v);
}

static void out_of_memory()
{
    emulate()->memory = 8 << 20;
    size_t free_bytes, total;
    void *p, *q;
    DONE(cudaMemGetInfo(&free_bytes, &total));
    CHECK(total == 8 << 20 && free_bytes < total);
    CHECK(cudaMalloc(&p, 16 << 20) == cudaErrorMemoryAllocation && p == nullptr);
    CHECK(cudaPeekAtLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaErrorMemoryAllocation);
    CHECK(cudaGetLastError() == cudaSuccess);
    cudaStream_t s = stream();
    for (int i = 0; i < 10; i++) { /* what the stream frees is there again */
        DONE(cudaMallocAsync(&p, 6 << 20, s));
        DONE(cudaFreeAsync(p, s));
    }
    DONE(cudaMallocAsync(&p, 6 << 20, s));
    CHECK(cudaMallocAsync(&q, 6 << 20, s) == cudaErrorMemoryAllocation);
    DONE(cudaFreeAsync(p, s));
    DONE(cudaStreamSynchronize(s));
    emulate()->fail_allocation = 2;
    DONE(cudaMalloc(&p, 100));
    DONE(cudaFree(p));
    emulate()->refusals = 3; /* both tries of the second call, and the first of the third */
    emulate()->fail_allocation = 2;
    DONE(cudaMallocAsync(&p, 100, s));
    CHECK(cudaMallocAsync(&q, 100, s) == cudaErrorMemoryAllocation);
    DONE(cudaMallocAsync(&q, 100, s));
    DONE(cudaFreeAsync(p, s));
    DONE(cudaFreeAsync(q, s));
    DONE(cudaStreamSynchronize(s));
    emulate()->refusals = 0;
    emulate()->fail_allocation = 1;
    for (int i = 0; i < 5; i++) {
        CHECK(cudaMalloc(&p, 100) == cudaErrorMemoryAllocation);
    }
    emulate()->fail_allocation = 0;
    DONE(cudaMalloc(&p, 100));
    emulate()->fail_pinned = 1;
    CHECK(cudaHostAlloc(&q, 100, 0) == cudaErrorMemoryAllocation);
    DONE(cudaHostAlloc(&q, 100, 0));
    DONE(cudaFreeHost(q));
    DONE(cudaFree(p));
    CHECK(emulate_count().allocations == 0 && emulate_count().bytes == 0 && emulate_count().pinned == 0);
}

static void pools()
{
    cudaMemPoolProps props = {};
    props.allocType = cudaMemAllocationTypePinned;
    props.location.type = cudaMemLocationTypeDevice;
    props.maxSize = 1 << 20;
    cudaMemPool_t pool;
    cudaStream_t s = stream();
    DONE(cudaMemPoolCreate(&pool, &props));
    uint64_t n = ~0ull;
    DONE(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &n));
    void *p, *q;
    DONE(cudaMallocFromPoolAsync(&p, 512 << 10, pool, s));
    CHECK(cudaMallocFromPoolAsync(&q, 600 << 10, pool, s) == cudaErrorMemoryAllocation);
    DONE(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &n));
    CHECK(n == 512 << 10);
    DONE(cudaFreeAsync(p, s));
    DONE(cudaStreamSynchronize(s));
    DONE(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &n));
    CHECK(n == 0);
    DONE(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &n));
    CHECK(n == 512 << 10);
    DONE(cudaMemPoolTrimTo(pool, 0));
    DONE(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &n));
    CHECK(n == 0);
    DONE(cudaMemPoolDestroy(pool));
}

/* ---- order ---- */

/* Two streams, the second to follow the first: with the event, without. */
static bool second_stream_sees(bool event)
{
    cudaStream_t s = stream(), t = stream();
    cudaEvent_t e;
    DONE(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    float *a = floats(64), *b = floats(64), v = 0;
    DONE(kn_launch(false, set, 1, 32, 0, s, a, 64, 1.0f));
    DONE(cudaEventRecord(e, s));
    if (event) {
        DONE(cudaStreamWaitEvent(t, e, 0));
    }
    DONE(kn_launch(false, add_one, 1, 32, 0, t, b, a, 64));
    DONE(cudaMemcpyAsync(&v, b, sizeof v, cudaMemcpyDeviceToHost, t));
    DONE(cudaEventDestroy(e));
    DONE(cudaStreamDestroy(s));
    DONE(cudaStreamDestroy(t));
    return v == 2;
}

static void missing_events()
{
    CHECK(found_in(SEEDS, [] { return !second_stream_sees(true); }) == 0);
    CHECK(found_in(SEEDS, [] { return !second_stream_sees(false); }) >= 3);
}

/* A staging buffer that is filled again before, or after, the first copy is known to be over. */
static bool staging(bool wait)
{
    cudaStream_t s = stream();
    float *host = pinned(4), *a = floats(4), *b = floats(4);
    host[0] = 1;
    DONE(cudaMemcpyAsync(a, host, 16, cudaMemcpyHostToDevice, s));
    if (wait) {
        DONE(cudaStreamSynchronize(s));
    }
    host[0] = 2;
    DONE(cudaMemcpyAsync(b, host, 16, cudaMemcpyHostToDevice, s));
    DONE(cudaStreamSynchronize(s));
    return first(a) == 1 && first(b) == 2;
}

/* A result that is read before, or after, it has come. */
static bool result(bool wait)
{
    cudaStream_t s = stream();
    float *host = pinned(4), *a = floats(4);
    DONE(kn_launch(false, set, 1, 32, 0, s, a, 4, 5.0f));
    DONE(cudaMemcpyAsync(host, a, 16, cudaMemcpyDeviceToHost, s));
    if (wait) {
        DONE(cudaStreamSynchronize(s));
    }
    return host[2] == 5;
}

static void missing_synchronizations()
{
    CHECK(found_in(SEEDS, [] { return !staging(true) || !result(true); }) == 0);
    CHECK(found_in(SEEDS, [] { return !staging(false); }) >= 3);
    CHECK(found_in(SEEDS, [] { return !result(false); }) >= 3);
}

static void default_stream()
{
    CHECK(found_in(SEEDS, [] { /* it is in step with streams that block, and with no others */
                               cudaStream_t s;
                               DONE(cudaStreamCreate(&s));
                               float *a = floats(4);
                               DONE(kn_launch(false, set, 1, 32, 0, s, a, 4, 5.0f));
                               const bool seen = first(a) == 5;
                               DONE(kn_launch(false, set, 1, 32, 0, nullptr, a, 4, 6.0f));
                               DONE(kn_launch(false, add_one, 1, 32, 0, s, a, a, 4));
                               DONE(cudaStreamSynchronize(s));
                               return !seen || first(a) != 7;
          }) == 0);
}

static void events()
{
    cudaEvent_t a, b;
    DONE(cudaEventCreate(&a));
    DONE(cudaEventCreate(&b));
    DONE(cudaEventQuery(a)); /* never recorded */
    DONE(cudaEventRecord(a, nullptr));
    DONE(kn_launch(false, set, 64, 256, 0, nullptr, floats(1 << 16), 1 << 16, 1.0f));
    DONE(cudaEventRecord(b, nullptr));
    CHECK(cudaEventQuery(b) == cudaErrorNotReady);
    DONE(cudaEventSynchronize(b));
    DONE(cudaEventQuery(b));
    float milliseconds = -1;
    DONE(cudaEventElapsedTime(&milliseconds, a, b));
    CHECK(milliseconds > 0);
    DONE(cudaEventDestroy(a));
    DONE(cudaEventDestroy(b));
    cudaStream_t s = stream();
    int called = 0;
    DONE(cudaLaunchHostFunc(
        s, [](void *p) { ++*static_cast<int *>(p); }, &called));
    CHECK(called == 0 && cudaStreamQuery(s) != cudaErrorInvalidValue);
    DONE(cudaStreamSynchronize(s));
    CHECK(called == 1);
}

/* ---- graphs ---- */

static void graphs()
{
    CHECK(found_in(SEEDS, [] {
              cudaStream_t s = stream(), t = stream();
              cudaEvent_t fork, join;
              DONE(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
              DONE(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
              float *a = floats(4), *b = floats(4), *c = floats(4);
              cudaGraph_t graph;
              cudaGraphExec_t exec;
              DONE(cudaMemset(a, 0, 16));
              DONE(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
              DONE(kn_launch(false, add_one, 1, 32, 0, s, a, a, 4));
              DONE(cudaEventRecord(fork, s));
              DONE(cudaStreamWaitEvent(t, fork, 0));
              DONE(kn_launch(false, add_one, 1, 32, 0, t, b, a, 4));
              DONE(cudaEventRecord(join, t));
              DONE(kn_launch(false, add_one, 1, 32, 0, s, c, a, 4));
              DONE(cudaStreamWaitEvent(s, join, 0));
              DONE(kn_launch(false, add_one, 1, 32, 0, s, c, b, 4));
              DONE(cudaStreamEndCapture(s, &graph));
              DONE(cudaGraphInstantiate(&exec, graph, 0));
              DONE(cudaGraphDestroy(graph));
              const bool ran_early = first(a) != 0;
              for (int i = 0; i < 3; i++) {
                  DONE(cudaGraphLaunch(exec, s));
              }
              DONE(cudaGraphExecDestroy(exec)); /* what was launched goes on */
              DONE(cudaStreamSynchronize(s));
              return ran_early || first(a) != 3 || first(b) != 4 || first(c) != 5;
          }) == 0);
}

static void captures_refused()
{
    cudaStream_t s = stream(), t = stream();
    cudaEvent_t e;
    cudaGraph_t graph;
    void *p;
    DONE(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    DONE(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    CHECK(cudaMalloc(&p, 100) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(s, &graph) == cudaErrorStreamCaptureInvalidated && graph == nullptr);
    DONE(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    CHECK(cudaStreamSynchronize(s) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(s, &graph) == cudaErrorStreamCaptureInvalidated);
    DONE(cudaStreamBeginCapture(s, cudaStreamCaptureModeRelaxed));
    DONE(cudaEventRecord(e, s));
    DONE(cudaStreamWaitEvent(t, e, 0));
    DONE(kn_launch(false, set, 1, 32, 0, t, floats(4), 4, 1.0f));
    CHECK(cudaStreamEndCapture(s, &graph) == cudaErrorStreamCaptureUnjoined);
    DONE(cudaEventRecord(e, t));
    DONE(cudaStreamBeginCapture(s, cudaStreamCaptureModeRelaxed));
    CHECK(cudaStreamWaitEvent(s, e, 0) == cudaErrorStreamCaptureIsolation);
    DONE(cudaStreamEndCapture(s, &graph));
    DONE(cudaGraphDestroy(graph));
    CHECK(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed) == cudaErrorStreamCaptureUnsupported);
    DONE(cudaDeviceSynchronize());
}

static void graphs_updated()
{
    cudaStream_t s = stream();
    cudaGraph_t graph[3];
    cudaGraphExec_t exec;
    cudaGraphExecUpdateResultInfo info;
    float *a = floats(4);
    for (int i = 0; i < 3; i++) {
        DONE(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
        DONE(kn_launch(false, set, 1, 32, 0, s, a, 4, (float)i));
        if (i == 2) {
            DONE(cudaMemsetAsync(a, 0, 16, s));
        }
        DONE(cudaStreamEndCapture(s, &graph[i]));
    }
    DONE(cudaGraphInstantiate(&exec, graph[0], 0));
    DONE(cudaGraphExecUpdate(exec, graph[1], &info));
    DONE(cudaGraphLaunch(exec, s));
    DONE(cudaStreamSynchronize(s));
    CHECK(first(a) == 1);
    CHECK(cudaGraphExecUpdate(exec, graph[2], &info) == cudaErrorGraphExecUpdateFailure);
    CHECK(info.result == cudaGraphExecUpdateErrorTopologyChanged);
    DONE(cudaGraphExecDestroy(exec));
    for (cudaGraph_t g : graph) {
        DONE(cudaGraphDestroy(g));
    }
}

/* ---- devices and their failures ---- */

static void no_device()
{
    int n;
    void *p;
    emulate()->driver = 0;
    CHECK(cudaGetDeviceCount(&n) == cudaErrorInsufficientDriver && n == 0);
    emulate()->driver = 12040;
    CHECK(cudaGetDeviceCount(&n) == cudaErrorInsufficientDriver && cudaDriverGetVersion(&n) == 0 && n == 12040);
    CHECK(cudaMalloc(&p, 4) == cudaErrorInsufficientDriver);
    emulate_reset();
    emulate()->devices = 0;
    CHECK(cudaGetDeviceCount(&n) == cudaErrorNoDevice && cudaSetDevice(0) == cudaErrorNoDevice);
    emulate_reset();
    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    CHECK(cudaGetDeviceCount(&n) == cudaErrorNoDevice);
    setenv("CUDA_VISIBLE_DEVICES", "3", 1);
    CHECK(cudaGetDeviceCount(&n) == cudaErrorNoDevice);
    emulate()->devices = 4;
    DONE(cudaGetDeviceCount(&n));
    CHECK(n == 1);
    unsetenv("CUDA_VISIBLE_DEVICES");
    emulate_reset();
    emulate()->capability = 75;
    CHECK(kn_launch(false, set, 1, 32, 0, nullptr, floats(4), 4, 1.0f) == cudaErrorNoKernelImageForDevice);
}

static void sticky_errors()
{
    emulate()->fail_launch = 2;
    emulate()->launch_error = cudaErrorECCUncorrectable;
    float *a = floats(4);
    void *p;
    DONE(kn_launch(false, set, 1, 32, 0, nullptr, a, 4, 1.0f));
    DONE(cudaDeviceSynchronize());
    DONE(kn_launch(false, set, 1, 32, 0, nullptr, a, 4, 1.0f)); /* fails only when it runs */
    CHECK(cudaDeviceSynchronize() == cudaErrorECCUncorrectable);
    CHECK(cudaMalloc(&p, 4) == cudaErrorECCUncorrectable && cudaGetLastError() == cudaErrorECCUncorrectable);
    CHECK(cudaGetLastError() == cudaErrorECCUncorrectable);
    CHECK(strcmp(cudaGetErrorName(cudaErrorECCUncorrectable), "cudaErrorECCUncorrectable") == 0);
    DONE(cudaDeviceReset());
    DONE(cudaMalloc(&p, 4));
}

static void devices()
{
    emulate()->devices = 2;
    DONE(cudaSetDevice(0));
    float *a = floats(4);
    cudaPointerAttributes attributes;
    DONE(cudaSetDevice(0));
    CHECK(emulate_count().contexts == 1);
    DONE(cudaPointerGetAttributes(&attributes, a + 1));
    CHECK(attributes.type == cudaMemoryTypeDevice && attributes.device == 0);
    DONE(cudaSetDevice(1));
    CHECK(emulate_count().contexts == 2 && cudaSetDevice(2) == cudaErrorInvalidDevice);
    emulate()->fatal = false;
    CHECK(kn_launch(false, set, 1, 32, 0, nullptr, a, 4, 1.0f) != cudaSuccess && fault_says("memory of device 0"));
    emulate_reset();
    emulate()->devices = 2;
    a = floats(4);
    DONE(cudaSetDevice(1));
    DONE(cudaDeviceEnablePeerAccess(0, 0));
    DONE(kn_launch(false, set, 1, 32, 0, nullptr, a, 4, 3.0f));
    DONE(cudaDeviceSynchronize());
    CHECK(first(a) == 3);
    DONE(cudaSetDevice(0));
}

/* ---- products ---- */

/* d = alpha · op(a) · op(b) + beta · c of ragged shapes, column-major, against the definition. */
static void product(cublasOperation_t ta, cublasOperation_t tb, bool bf16, int epilogue)
{
    enum { M = 21, N = 18, K = 13, LD = 24 };
    float a[LD * LD], b[LD * LD], c[LD * N], d[LD * N], bias[LD], got[LD];
    uint16_t a16[LD * LD], b16[LD * LD];
    for (int i = 0; i < LD * LD; i++) {
        a[i] = (float)(i * 7 % 11) - 5;
        b[i] = (float)(i * 5 % 9) - 4;
        a16[i] = __float2bfloat16_rn(a[i]).bits;
        b16[i] = __float2bfloat16_rn(b[i]).bits;
    }
    for (int i = 0; i < LD * N; i++) {
        c[i] = (float)(i % 5);
    }
    for (int i = 0; i < LD; i++) {
        bias[i] = (float)i;
    }
    float *da = floats(LD * LD), *db = floats(LD * LD), *dc = floats(LD * N), *dd = floats(LD * N), *dbias = floats(LD);
    void *workspace;
    DONE(cudaMalloc(&workspace, 1 << 20));
    DONE(cudaMemcpy(da, bf16 ? (void *)a16 : a, bf16 ? sizeof a16 : sizeof a, cudaMemcpyHostToDevice));
    DONE(cudaMemcpy(db, bf16 ? (void *)b16 : b, bf16 ? sizeof b16 : sizeof b, cudaMemcpyHostToDevice));
    DONE(cudaMemcpy(dc, c, sizeof c, cudaMemcpyHostToDevice));
    DONE(cudaMemcpy(dbias, bias, sizeof bias, cudaMemcpyHostToDevice));
    const cudaDataType type = bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const int32_t ops[2] = {ta, tb};
    const uint32_t how = (uint32_t)epilogue;
    const int32_t bias_type = CUDA_R_32F;
    const uint64_t most = 1 << 20;
    const float alpha = 0.5f, beta = 2;
    cublasLtHandle_t lt;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t la, lb, lc;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t best;
    int count;
    CHECK(cublasLtCreate(&lt) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &ops[0], 4);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSB, &ops[1], 4);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &how, 4);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &dbias, sizeof dbias);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type, 4);
    cublasLtMatrixLayoutCreate(&la, type, ta == CUBLAS_OP_N ? M : K, ta == CUBLAS_OP_N ? K : M, LD);
    cublasLtMatrixLayoutCreate(&lb, type, tb == CUBLAS_OP_N ? K : N, tb == CUBLAS_OP_N ? N : K, LD);
    cublasLtMatrixLayoutCreate(&lc, CUDA_R_32F, M, N, LD);
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most);
    CHECK(cublasLtMatmulAlgoGetHeuristic(lt, desc, la, lb, lc, lc, preference, 1, &best, &count) ==
              CUBLAS_STATUS_SUCCESS &&
          count == 1 && best.workspaceSize > 0);
    CHECK(cublasLtMatmul(lt, desc, &alpha, da, la, db, lb, &beta, dc, lc, dd, lc, &best.algo, workspace, 16, nullptr) ==
          CUBLAS_STATUS_INVALID_VALUE); /* less workspace than the algorithm wants */
    CHECK(cublasLtMatmul(lt, desc, &alpha, da, la, db, lb, &beta, dc, lc, dd, lc, &best.algo, workspace, 1 << 20,
                         nullptr) == CUBLAS_STATUS_SUCCESS);
    DONE(cudaMemcpy(d, dd, sizeof d, cudaMemcpyDeviceToHost));
    DONE(cudaMemcpy(got, dbias, sizeof got, cudaMemcpyDeviceToHost));
    for (int j = 0; j < N; j++) {
        float gradient = 0;
        for (int k = 0; k < K; k++) {
            gradient += tb == CUBLAS_OP_N ? b[k + LD * j] : b[j + LD * k];
        }
        CHECK(epilogue != CUBLASLT_EPILOGUE_BGRADB || got[j] == gradient);
        for (int i = 0; i < M; i++) {
            float sum = 0;
            for (int k = 0; k < K; k++) {
                sum += (ta == CUBLAS_OP_N ? a[i + LD * k] : a[k + LD * i]) *
                       (tb == CUBLAS_OP_N ? b[k + LD * j] : b[j + LD * k]);
            }
            sum = 0.5f * sum + 2 * c[i + LD * j] + (epilogue == CUBLASLT_EPILOGUE_BIAS ? bias[i] : 0);
            CHECK(d[i + LD * j] == sum);
        }
    }
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatrixLayoutDestroy(la);
    cublasLtMatrixLayoutDestroy(lb);
    cublasLtMatrixLayoutDestroy(lc);
    cublasLtMatmulDescDestroy(desc);
    cublasLtDestroy(lt);
}

static void products()
{
    for (int i = 0; i < 8; i++) {
        product(i & 1 ? CUBLAS_OP_T : CUBLAS_OP_N, i & 2 ? CUBLAS_OP_T : CUBLAS_OP_N, (i & 4) != 0,
                CUBLASLT_EPILOGUE_DEFAULT);
    }
    product(CUBLAS_OP_T, CUBLAS_OP_N, true, CUBLASLT_EPILOGUE_BIAS);
    product(CUBLAS_OP_N, CUBLAS_OP_T, false, CUBLASLT_EPILOGUE_BGRADB);
}

const Case runtime_cases[] = {
    {"host and device pointers mixed up", mixed_up_pointers},
#ifndef EMULATE_ASAN
    {"writes beside blocks", beside_blocks},
#endif
    {"copies beyond blocks", copies_beyond},
    {"freed memory", freed_memory},
    {"out of memory", out_of_memory},
    {"pools", pools},
    {"missing events", missing_events},
    {"missing synchronizations", missing_synchronizations},
    {"the default stream", default_stream},
    {"events", events},
    {"graphs", graphs},
    {"captures refused", captures_refused},
    {"graphs updated", graphs_updated},
    {"no device", no_device},
    {"sticky errors", sticky_errors},
    {"devices", devices},
    {"products", products},
    {NULL, NULL},
};
