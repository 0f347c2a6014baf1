/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The CUDA device: finds one that works or says why there is none, its context and stream, what an op begins and ends
 * with, and errors. */
#include "kernels/cuda/cuda.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *kn_cuda_say(const char *format, ...)
{
    static _Thread_local char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    return line;
}

/* --- errors ---------------------------------------------------------------------------------------------------------
 */

/* The last kernels asked of the device, newest first: with an error that shows up late, one of them is the culprit. */
static void add_asked(const kn_cuda *c, char *line, size_t size)
{
    const unsigned count = c->asked_count < KN_CUDA_ASKED ? c->asked_count : KN_CUDA_ASKED;
    size_t used = strlen(line);
    for (unsigned i = 0; i < count && used < size; i++) {
        const char *name = c->asked[(c->asked_count - 1 - i) % KN_CUDA_ASKED];
        const int n = snprintf(line + used, size - used, "%s%s", i == 0 ? "; asked last: " : ", ", name);
        used += n > 0 ? (size_t)n : 0;
    }
    if (count > 0 && !c->waits && used < size)
        snprintf(line + used, size - used, " (SLUICE_CUDA_WAIT=1 tells which)");
}

int kn_cuda_note(kn_cuda *c, cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return c->status;
    cudaGetLastError(); /* what is not lasting is not told twice */
    if (error == cudaErrorMemoryAllocation)
        return kn_cuda_refuse(c, KN_NO_MEMORY);
    if (!c->failed) {
        const size_t call = *what == '(' ? strlen(what) : strcspn(what, "("); /* KN_CUDA gives whole expressions */
        snprintf(c->error, sizeof(c->error), "GPU %d (%s) failed in %.*s: %s", c->ordinal, c->name, (int)call, what,
                 cudaGetErrorString(error));
        if (error == cudaErrorInvalidResourceHandle)
            snprintf(c->error + strlen(c->error), sizeof(c->error) - strlen(c->error),
                     ", which a plugin may have destroyed, as cudaDeviceReset does");
        if (error == cudaErrorECCUncorrectable)
            snprintf(c->error + strlen(c->error), sizeof(c->error) - strlen(c->error),
                     "; reset it (nvidia-smi -r -i %s) or replace it", c->bus);
        add_asked(c, c->error, sizeof(c->error));
        c->failed = true;
    }
    c->status = KN_DEVICE_FAILED;
    return c->status;
}

int kn_cuda_refuse(kn_cuda *c, int status)
{
    if (c->status == KN_OK)
        c->status = status;
    return c->status;
}

struct kn_cuda_name {
    struct kn_cuda_name *next;
    char text[];
};

const char *kn_cuda_keep_name(kn_cuda *c, const char *name)
{
    for (struct kn_cuda_name *n = c->names; n; n = n->next)
        if (strcmp(n->text, name) == 0)
            return n->text;
    struct kn_cuda_name *n = malloc(sizeof(*n) + strlen(name) + 1);
    if (!n) {
        kn_cuda_refuse(c, KN_NO_MEMORY);
        return NULL;
    }
    strcpy(n->text, name);
    n->next = c->names;
    c->names = n;
    return n->text;
}

kn_cuda *kn_cuda_begin(kn_device *device)
{
    kn_cuda *c = (kn_cuda *)device;
    pthread_mutex_lock(&c->lock);
    if (c->depth == 0) { /* an op within an op: memory given back under pressure */
        c->op++;
        c->status = KN_OK;
    }
    if (!c->failed)
        kn_cuda_note(c, cudaSetDevice(c->ordinal), "choosing the device");
    if (c->failed) {
        pthread_mutex_unlock(&c->lock);
        return NULL;
    }
    c->depth++;
    return c;
}

int kn_cuda_end(kn_cuda *c)
{
    if (--c->depth == 0)
        kn_cuda_scratch_end(c);
    const int status = c->status;
    pthread_mutex_unlock(&c->lock);
    return status;
}

/* --- ops of the device itself ---------------------------------------------------------------------------------------
 */

static const char *error(kn_device *device)
{
    const kn_cuda *c = (const kn_cuda *)device;
    return c->failed ? c->error : NULL;
}

static const char *numerics_f32(const kn_device *device)
{
    return ((const kn_cuda *)device)->numerics_f32;
}

static const char *numerics_bf16(const kn_device *device)
{
    return ((const kn_cuda *)device)->numerics_bf16;
}

/* Every row of a weight gradient is summed by itself, in row order, whatever the call. */
static size_t row_group(const kn_device *device)
{
    return 1;
}

static int threads(const kn_device *device)
{
    const kn_device *host = ((const kn_cuda *)device)->host;
    return host->ops->threads(host);
}

static int set_threads(kn_device *device, int n)
{
    kn_device *host = ((kn_cuda *)device)->host;
    return host->ops->set_threads(host, n);
}

static void parallel(kn_device *device, size_t n, size_t grain, kn_task task, void *arg)
{
    kn_device *host = ((kn_cuda *)device)->host;
    host->ops->parallel(host, n, grain, task, arg);
}

static void device_ops(kn_ops *f32, kn_ops *bf16)
{
    *f32 = (kn_ops){.size = sizeof(kn_ops),
                    .dtype = KN_F32,
                    .numerics = numerics_f32,
                    .error = error,
                    .row_group = row_group,
                    .threads = threads,
                    .set_threads = set_threads,
                    .parallel = parallel};
    *bf16 = *f32;
    bf16->dtype = KN_BF16;
    bf16->numerics = numerics_bf16;
}

/* --- finding one ----------------------------------------------------------------------------------------------------
 */

/* What to do about an error before there is a device. */
static const char *say_no_device(cudaError_t error, const kn_cuda *c)
{
    const int ordinal = c->ordinal;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    int driver = 0;
    switch (error) {
    case cudaErrorInsufficientDriver: /* also when there is none at all */
        if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
            return "there is no NVIDIA driver; install one, until nvidia-smi shows the GPU";
        return kn_cuda_say("the NVIDIA driver supports CUDA %d.%d, and this backend was built with %d.%d: update the "
                           "driver, or build with the older toolkit",
                           driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    case cudaErrorNoDevice:
        if (visible && !*visible)
            return "CUDA_VISIBLE_DEVICES is empty, which hides every GPU; unset it or name one";
        if (visible)
            return kn_cuda_say(
                "CUDA_VISIBLE_DEVICES=%.64s names no GPU of this machine, or one twice; nvidia-smi -L lists them",
                visible);
        return "the NVIDIA driver finds no GPU; nvidia-smi shows whether it is there";
    case cudaErrorInvalidDevice:
        return kn_cuda_say("there is no GPU %d%s", ordinal,
                           visible ? "; CUDA_VISIBLE_DEVICES hides some and renumbers the rest" : "");
    case cudaErrorDevicesUnavailable:
        return kn_cuda_say("GPU %d is taken by another process (exclusive compute mode); wait for it, or let several "
                           "use it: nvidia-smi -i %s -c DEFAULT",
                           ordinal, c->bus);
    case cudaErrorMemoryAllocation:
        return kn_cuda_say("GPU %d has no memory left, not even for a context; nvidia-smi shows who uses it", ordinal);
    case cudaErrorSystemDriverMismatch:
        return "the NVIDIA driver's library and kernel module are of different versions; reboot, or load the new "
               "module";
    case cudaErrorECCUncorrectable:
        return kn_cuda_say("GPU %d has an uncorrectable memory error; reset it (nvidia-smi -r -i %s) or replace it",
                           ordinal, c->bus);
    default:
        return kn_cuda_say("GPU %d cannot be used: %s", ordinal, cudaGetErrorString(error));
    }
}

static cudaError_t attribute(int *value, enum cudaDeviceAttr which, int ordinal)
{
    return cudaDeviceGetAttribute(value, which, ordinal);
}

/* "NVIDIA H100 80GB HBM3" as part of a name: "H100-80GB-HBM3". */
static void plain_name(char *to, size_t size, const char *name)
{
    size_t used = 0;
    if (strncmp(name, "NVIDIA ", 7) == 0)
        name += 7;
    for (; *name && used + 1 < size; name++)
        to[used++] = isalnum((unsigned char)*name) ? *name : '-';
    to[used] = '\0';
}

/* The device chosen, its context made, its properties read. */
static const char *open_context(kn_cuda *c)
{
    int count = 0, major = 0, minor = 0, pools = 0, shared = 0, l2 = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count == 0)
        error = cudaErrorNoDevice;
    if (error == cudaSuccess && (c->ordinal < 0 || c->ordinal >= count))
        error = cudaErrorInvalidDevice;
    if (error != cudaSuccess || cudaDeviceGetPCIBusId(c->bus, sizeof(c->bus), c->ordinal) != cudaSuccess)
        snprintf(c->bus, sizeof(c->bus), "%d", c->ordinal);
    struct cudaDeviceProp properties;
    if (error == cudaSuccess)
        error = cudaGetDeviceProperties(&properties, c->ordinal);
    if (error == cudaSuccess) {
        snprintf(c->name, sizeof(c->name), "%.127s", properties.name);
        error = attribute(&major, cudaDevAttrComputeCapabilityMajor, c->ordinal);
    }
    if (error == cudaSuccess)
        error = attribute(&minor, cudaDevAttrComputeCapabilityMinor, c->ordinal);
    if (error == cudaSuccess && major < 8)
        return kn_cuda_say("GPU %d (%s) has compute capability %d.%d; 8.0 is needed (Ampere or newer)", c->ordinal,
                           c->name, major, minor);
    if (error == cudaSuccess)
        error = attribute(&c->multiprocessors, cudaDevAttrMultiProcessorCount, c->ordinal);
    if (error == cudaSuccess)
        error = attribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, c->ordinal);
    if (error == cudaSuccess)
        error = attribute(&l2, cudaDevAttrL2CacheSize, c->ordinal);
    if (error == cudaSuccess)
        error = attribute(&pools, cudaDevAttrMemoryPoolsSupported, c->ordinal);
    if (error == cudaSuccess && !pools)
        return kn_cuda_say("GPU %d (%s) has no stream-ordered memory, as some virtual GPUs", c->ordinal, c->name);
    c->capability = 10 * major + minor;
    c->shared_most = (size_t)shared;
    c->l2_bytes = (size_t)l2;
    if (error == cudaSuccess)
        error = cudaSetDevice(c->ordinal);
    if (error == cudaSuccess)
        error = cudaFree(NULL); /* makes the primary context */
    if (error == cudaSuccess)
        error = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    c->overlaps = error == cudaSuccess && c->settings.overlaps && kn_cuda_overlaps(c->capability);
    cudaGetLastError();
    return error == cudaSuccess ? NULL : say_no_device(error, c);
}

/* What decides the bits: the device's kind, the library that multiplies, and how many logits a gradient of the
 * vocabulary is summed by. */
static void name_numerics(kn_cuda *c)
{
    char name[64];
    const size_t version = cublasLtGetVersion();
    plain_name(name, sizeof(name), c->name);
    snprintf(c->numerics_f32, sizeof(c->numerics_f32), "cuda-sm%d-%s-cublas%zu%s-logits%zu-own2-f32", c->capability,
             name, version, kn_cuda_products_mode(c), c->logits_bytes);
    snprintf(c->numerics_bf16, sizeof(c->numerics_bf16), "cuda-sm%d-%s-cublas%zu%s-logits%zu-own2-bf16", c->capability,
             name, version, kn_cuda_products_mode(c), c->logits_bytes);
}

static const char *open_rest(kn_cuda *c)
{
    const char *why = NULL;
    c->host = kn_cpu_new(0, "plain", &why);
    if (!c->host)
        return why;
    if (!kn_cuda_timeline_new(c, &why) || !kn_cuda_memory_new(c, &why) || !kn_cuda_uploads_new(c, &why) ||
        !kn_cuda_graphs_new(c, &why) || !kn_cuda_products_new(c, &why))
        return why;
    c->logits_bytes = kn_cuda_logits_bytes(c);
    if (cublasLtCreate(&c->lt) != CUBLAS_STATUS_SUCCESS)
        return kn_cuda_say("cuBLAS cannot start on GPU %d (%s): no memory, or its libraries, of the CUDA that this "
                           "backend was built with, are not found",
                           c->ordinal, c->name);
    return NULL;
}

kn_device *kn_cuda_new(int ordinal, const char **why)
{
    const char *unheard;
    why = why ? why : &unheard;
    kn_cuda *c = calloc(1, sizeof(*c));
    *why = "out of memory";
    if (!c)
        return NULL;
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&c->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    c->ordinal = ordinal;
    *why = kn_cuda_read_settings(&c->settings);
    c->waits = c->settings.waits;
    if (!*why)
        *why = open_context(c);
    if (!*why)
        *why = open_rest(c);
    if (*why) {
        kn_cuda_free(&c->base);
        return NULL;
    }
    name_numerics(c);
    device_ops(&c->f32, &c->bf16);
    kn_cuda_memory_ops(&c->f32, &c->bf16);
    kn_cuda_rows_ops(&c->f32, &c->bf16);
    kn_cuda_optimizer_ops(&c->f32, &c->bf16);
    kn_cuda_choose_ops(&c->f32, &c->bf16);
    kn_cuda_attention_ops(&c->f32, &c->bf16);
    kn_cuda_linear_ops(&c->f32, &c->bf16);
    kn_cuda_vocabulary_ops(&c->f32, &c->bf16);
    kn_cuda_graph_ops(&c->f32, &c->bf16);
    c->base.ops = &c->f32;
    c->base.ops_bf16 = &c->bf16;
    return &c->base;
}

int kn_cuda_count(void)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess)
        count = 0;
    cudaGetLastError();
    return count;
}

/* Not for a device that failed: the runtime takes nothing back from it, and where a plugin has reset it the handles are
 * no more. Its process ends. */
static void give_back(kn_cuda *c)
{
    cudaSetDevice(c->ordinal);
    if (c->stream)
        cudaStreamSynchronize(c->stream);
    kn_cuda_timeline_free(c);
    kn_cuda_graphs_free(c);
    kn_cuda_products_free(c);
    if (c->lt)
        cublasLtDestroy(c->lt);
    kn_cuda_uploads_free(c);
    kn_cuda_memory_free(c);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    cudaGetLastError();
}

void kn_cuda_free(kn_device *device)
{
    kn_cuda *c = (kn_cuda *)device;
    if (!c)
        return;
    if (!c->failed)
        give_back(c);
    else
        kn_cuda_timeline_free(c);
    if (c->host)
        kn_cpu_free(c->host);
    for (struct kn_cuda_name *n = c->names, *next; n; n = next) {
        next = n->next;
        free(n);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}
