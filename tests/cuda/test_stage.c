/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The service "sluice.cuda/1" over the emulated runtime: a stage's stream and the models' take turns in the order
 * asked, whatever the order in which the device gets to them. The work of both is copies, and each round's numbers are
 * new, so that who comes too early or too late leaves another round's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emulate/control.h"
#include "kernels/cuda/service.h"

#include <sluice/cuda.h>

enum { N = 3000, ROUNDS = 8, BYTES = N * sizeof(float) };

static unsigned failures, complaints;

#define CHECK(condition)                                                                                   \
    do {                                                                                                   \
        if (!(condition)) {                                                                                \
            failures++;                                                                                    \
            printf("line %d, seed %llu: %s\n", __LINE__, (unsigned long long)emulate()->seed, #condition); \
        }                                                                                                  \
    } while (0)

/* --- a host, and a backend whose device is the test's ---------------------------------------------------------------
 */

static kn_device *device;

static kn_device *open_device(const kn_backend *backend, size_t number, const char **why)
{
    return device;
}

static void close_device(const kn_backend *backend, kn_device *d)
{
}

static const kn_backend backend = {
    .size = sizeof(kn_backend), .ops_size = sizeof(kn_ops), .open = open_device, .close = close_device};

static const void *find_service(const sluice_host *host, const char *id)
{
    return strcmp(id, KN_BACKEND_CUDA) == 0 ? &backend : NULL;
}

static void note_error(const sluice_host *host, const struct sluice_record *record, int code, const char *format,
                       va_list args)
{
    complaints++;
}

static void note_log(const sluice_host *host, int level, const char *format, va_list args)
{
    complaints += level == SLUICE_LOG_WARNING;
}

static const char *stage_name(const sluice_host *host)
{
    return "mine";
}

static const sluice_host_api api = {.size = sizeof(sluice_host_api),
                                    .verror = note_error,
                                    .vlog = note_log,
                                    .service = find_service,
                                    .stage_name = stage_name};
static const sluice_host host = {&api};

/* --- turns ----------------------------------------------------------------------------------------------------------
 */

static void fill(float *x, int round)
{
    for (int i = 0; i < N; i++)
        x[i] = (float)(i % 100 + 1000 * round);
}

static bool holds(const float *x, float factor, int round)
{
    for (int i = 0; i < N; i++)
        if (x[i] != factor * (float)(i % 100 + 1000 * round))
            return false;
    return true;
}

static bool copied(cudaStream_t stream, void *to, const void *from)
{
    return cudaMemcpyAsync(to, from, BYTES, cudaMemcpyDefault, stream) == cudaSuccess;
}

/* The models compute, the stage takes it between enter and leave, the models compute with what it left. */
static void turns(const sluice_cuda_service *cuda, sluice_cuda *gpu)
{
    static float numbers[N], got[N];
    const kn_ops *ops = device->ops;
    float *x = ops->alloc(device, BYTES), *sum = ops->alloc(device, BYTES), *mine = cuda->alloc(gpu, BYTES);
    float *pinned = cuda->alloc_host(gpu, BYTES);
    struct CUstream_st *stream;
    for (int round = 1; round <= ROUNDS; round++) {
        fill(numbers, round);
        CHECK(ops->write(device, x, numbers, BYTES) == KN_OK);
        CHECK(ops->add(device, x, x, N) == KN_OK);
        CHECK(cuda->enter(gpu, &stream) == SLUICE_OK);
        CHECK(copied(stream, mine, x) && copied(stream, pinned, x));
        CHECK(cuda->leave(gpu, cudaSuccess) == SLUICE_OK);
        CHECK(ops->clear(device, x, BYTES) == KN_OK);
        CHECK(ops->copy(device, sum, mine, BYTES) == KN_OK);
        CHECK(ops->read(device, got, sum, BYTES) == KN_OK);
        CHECK(holds(got, 2, round) && holds(pinned, 2, round));
    }
    cuda->free(gpu, mine);
    cuda->free_host(gpu, pinned);
    ops->free(device, x);
    ops->free(device, sum);
}

/* What is written goes after the stage's work so far and before what follows; what is read is the stage's last. */
static void transfers(const sluice_cuda_service *cuda, sluice_cuda *gpu)
{
    static float numbers[N], got[N];
    float *a = cuda->alloc(gpu, BYTES), *b = cuda->alloc(gpu, BYTES), *c = cuda->alloc(gpu, BYTES);
    struct CUstream_st *stream;
    for (int round = 1; round <= ROUNDS; round++) {
        fill(numbers, round);
        CHECK(cuda->write(gpu, a, numbers, BYTES) == SLUICE_OK);
        memset(numbers, 0, BYTES);
        CHECK(cuda->enter(gpu, &stream) == SLUICE_OK);
        CHECK(copied(stream, b, a));
        fill(numbers, -round);
        CHECK(cuda->write(gpu, a, numbers, BYTES) == SLUICE_OK); /* after b was made, though not left yet */
        CHECK(copied(stream, c, a));
        CHECK(cuda->read(gpu, got, b, BYTES) == SLUICE_OK);
        CHECK(holds(got, 1, round));
        CHECK(cuda->leave(gpu, cudaSuccess) == SLUICE_OK);
        CHECK(cuda->read(gpu, got, c, BYTES) == SLUICE_OK);
        CHECK(holds(got, 1, -round));
    }
    cuda->free(gpu, a);
    cuda->free(gpu, b);
    cuda->free(gpu, c);
}

/* Page-locked memory is given back when the stage's copies out of it are done; device memory in the stream's order. */
static void memory(const sluice_cuda_service *cuda, sluice_cuda *gpu)
{
    static float got[N];
    struct CUstream_st *stream;
    for (int round = 1; round <= ROUNDS; round++) {
        float *x = cuda->alloc(gpu, BYTES), *y = cuda->alloc(gpu, BYTES), *pinned = cuda->alloc_host(gpu, BYTES);
        fill(pinned, round);
        CHECK(cuda->enter(gpu, &stream) == SLUICE_OK);
        CHECK(copied(stream, x, pinned) && copied(stream, y, x));
        CHECK(cuda->leave(gpu, cudaSuccess) == SLUICE_OK);
        cuda->free_host(gpu, pinned);
        cuda->free(gpu, x);
        CHECK(cuda->read(gpu, got, y, BYTES) == SLUICE_OK);
        CHECK(holds(got, 1, round));
        cuda->free(gpu, y);
    }
}

/* cuBLAS works on the stage's stream, in a workspace from the pool. */
static void products(const sluice_cuda_service *cuda, sluice_cuda *gpu)
{
    static float numbers[64 * 64], got[64 * 64];
    struct CUstream_st *stream;
    struct cublasContext *blas;
    float *x = cuda->alloc(gpu, sizeof(numbers)), *y = cuda->alloc(gpu, sizeof(numbers));
    const float one = 1, zero = 0;
    for (int i = 0; i < 64 * 64; i++)
        numbers[i] = (float)(i % 7 == 0);
    CHECK(cuda->write(gpu, x, numbers, sizeof(numbers)) == SLUICE_OK);
    CHECK(cuda->enter(gpu, &stream) == SLUICE_OK);
    CHECK(cuda->cublas(gpu, &blas) == SLUICE_OK);
    CHECK(cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_N, 64, 64, 64, &one, x, 64, x, 64, &zero, y, 64) ==
          CUBLAS_STATUS_SUCCESS);
    CHECK(cuda->leave(gpu, cudaSuccess) == SLUICE_OK);
    CHECK(cuda->read(gpu, got, y, sizeof(got)) == SLUICE_OK);
    bool right = true;
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) {
            float sum = 0;
            for (int k = 0; k < 64; k++)
                sum += numbers[i * 64 + k] * numbers[k * 64 + j];
            right = right && got[i * 64 + j] == sum;
        }
    CHECK(right);
    cuda->free(gpu, x);
    cuda->free(gpu, y);
}

/* A stage that goes while its work is still to be done, and leaves memory behind. */
static void left_behind(const sluice_cuda_service *cuda, sluice_cuda *gpu)
{
    struct CUstream_st *stream;
    float *x = cuda->alloc(gpu, BYTES), *pinned = cuda->alloc_host(gpu, BYTES);
    fill(pinned, 1);
    CHECK(cuda->enter(gpu, &stream) == SLUICE_OK);
    for (int i = 0; i < 5; i++)
        CHECK(copied(stream, x, pinned) && copied(stream, pinned, x));
    CHECK(cuda->leave(gpu, cudaSuccess) == SLUICE_OK);
}

/* What plugins get wrong: each is told of, and none harms the others. */
static void misuse(const sluice_cuda_service *cuda)
{
    sluice_cuda *gpu = NULL;
    struct CUstream_st *stream;
    sluice_device_memory all = {.size = sizeof(all)};
    int foreign;
    CHECK(cuda->open(cuda, &host, &gpu) == SLUICE_OK);
    complaints = 0;
    void *x = cuda->alloc(gpu, BYTES);
    cuda->free(gpu, &foreign);
    CHECK(complaints == 1);
    cuda->free(gpu, x);
    cuda->free(gpu, x);
    cuda->free_host(gpu, x);
    CHECK(complaints == 1); /* once a stage */
    CHECK(cuda->leave(gpu, cudaSuccess) == SLUICE_FAILED && complaints == 2);
    CHECK(cuda->enter(gpu, &stream) == SLUICE_OK);
    CHECK(cuda->enter(gpu, &stream) == SLUICE_FAILED && complaints == 3);
    CHECK(cuda->enter(gpu, &stream) == SLUICE_OK);
    cuda->close(gpu); /* without a leave */
    CHECK(complaints == 4);
    cuda->close(gpu);
    CHECK(complaints == 5);
    CHECK(cuda->enter(gpu, &stream) == SLUICE_FAILED && cuda->alloc(gpu, 1) == NULL &&
          cuda->memory(gpu, &all) == SLUICE_FAILED && complaints == 8);
}

/* Memory that a stage gave back, at work or by its close, is there for the models. */
static void given_back(const sluice_cuda_service *cuda)
{
    sluice_cuda *gpu = NULL;
    const size_t most = emulate()->memory / 4 * 3;
    CHECK(cuda->open(cuda, &host, &gpu) == SLUICE_OK);
    for (int round = 0; round < 2; round++) {
        void *mine = cuda->alloc(gpu, most);
        CHECK(mine);
        if (round == 0)
            cuda->free(gpu, mine);
        else
            cuda->close(gpu);
        void *models = device->ops->alloc(device, most);
        CHECK(models);
        device->ops->free(device, models);
    }
}

static const sluice_cuda_service *service_of(void *self)
{
    const sluice_service_class *type = &kn_cuda_stage_class;
    if (type->base.init(self, &host) != SLUICE_OK)
        return NULL;
    return type->get(self);
}

static void run(uint64_t seed)
{
    static void (*const parts[])(const sluice_cuda_service *, sluice_cuda *) = {turns, transfers, memory, products,
                                                                                left_behind};
    const char *why = NULL;
    emulate_reset();
    emulate()->seed = seed;
    void *self = calloc(1, kn_cuda_stage_class.base.state_size);
    const sluice_cuda_service *cuda = service_of(self);
    device = kn_cuda_new(0, &why);
    CHECK(cuda && device);
    for (size_t i = 0; cuda && device && i < sizeof(parts) / sizeof(*parts); i++) {
        sluice_cuda *gpu = NULL, *beside = NULL; /* another stage's stream, so that there is more than one order */
        CHECK(cuda->open(cuda, &host, &gpu) == SLUICE_OK && cuda->open(cuda, &host, &beside) == SLUICE_OK);
        complaints = 0;
        parts[i](cuda, gpu);
        CHECK(complaints == 0);
        cuda->close(beside);
        CHECK(complaints == 0);
        cuda->close(gpu);
        CHECK(complaints == (parts[i] == left_behind)); /* memory that was not freed */
    }
    if (cuda && device) {
        misuse(cuda);
        given_back(cuda);
    }
    if (cuda)
        kn_cuda_stage_class.base.fini(self);
    kn_cuda_free(device);
    free(self);
    const emulate_counts left = emulate_count();
    CHECK(left.allocations == 0 && left.pinned == 0 && left.streams == 0 && left.events == 0);
    CHECK(*emulate_fault() == '\0');
}

int main(int argc, char **argv)
{
    for (uint64_t seed = 0; seed < 8; seed++)
        run(seed);
    if (failures)
        printf("%u failures\n", failures);
    return failures ? 1 : 0;
}
