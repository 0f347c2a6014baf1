/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of the device: one stream-ordered pool with a limit, the scratch of ops, and who is asked to give memory back
 * before a request is refused.
 *
 * The pool keeps what is freed up to half of the device, so that a second process finds room after a large batch. When
 * a request finds no memory these give, in turn, and the request is made again after each: the scratch of no use now
 * and what the pool keeps; then those who registered with kn_cuda_on_pressure.
 */
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_GIVERS = 16, LEAST_SCRATCH = 1 << 20 };

/* Scratch is a list of blocks, filled from the first on. All ops use one stream, so the next op may use the same bytes.
 * An op that needed several blocks leaves one of their common size to the next. */
typedef struct block {
    struct block *next;
    char *at;
    size_t bytes, used;
} block;

struct kn_cuda_memory {
    size_t limit; /* 0 = none */
    size_t total; /* of the device */
    block *scratch;
    size_t wanted; /* the least size of the next block */
    struct {
        kn_cuda_gives gives;
        void *arg;
    } giver[MOST_GIVERS];
    unsigned givers;
    bool asking; /* givers are being asked */
};

static size_t chunks(size_t bytes)
{
    return (bytes + KN_CUDA_CHUNK - 1) / KN_CUDA_CHUNK * KN_CUDA_CHUNK;
}

static size_t figure(const kn_cuda *c, enum cudaMemPoolAttr which)
{
    uint64_t value = 0;
    return cudaMemPoolGetAttribute(c->pool, which, &value) == cudaSuccess ? (size_t)value : 0;
}

/* --- the pool -------------------------------------------------------------------------------------------------------
 */

/* SLUICE_CUDA_MEMORY: "24G", "512M" or "80%". */
static bool read_limit(size_t *limit, size_t total, const char **why)
{
    const char *wish = getenv("SLUICE_CUDA_MEMORY");
    char *end;
    *limit = 0;
    if (!wish || !*wish)
        return true;
    const double number = strtod(wish, &end);
    const double unit = strcmp(end, "G") == 0   ? (double)(1 << 30)
                        : strcmp(end, "M") == 0 ? (double)(1 << 20)
                        : strcmp(end, "%") == 0 ? (double)total / 100
                                                : 0;
    if (!(number > 0) || !(number * unit >= 1)) {
        *why = kn_cuda_say("SLUICE_CUDA_MEMORY=%.32s is no amount of memory; write 24G, 512M or 80%%", wish);
        return false;
    }
    *limit = number * unit < (double)total ? (size_t)(number * unit) : total;
    return true;
}

bool kn_cuda_memory_new(kn_cuda *c, const char **why)
{
    size_t free_bytes = 0, total = 0;
    c->memory = calloc(1, sizeof(*c->memory));
    if (!c->memory) {
        *why = "out of memory";
        return false;
    }
    const struct cudaMemPoolProps properties = {.allocType = cudaMemAllocationTypePinned,
                                                .location = {.type = cudaMemLocationTypeDevice, .id = c->ordinal}};
    cudaError_t error = cudaMemGetInfo(&free_bytes, &total);
    c->memory->total = total;
    if (error == cudaSuccess && !read_limit(&c->memory->limit, total, why))
        return false;
    if (error == cudaSuccess)
        error = cudaMemPoolCreate(&c->pool, &properties);
    uint64_t kept = total / 2;
    if (error == cudaSuccess)
        error = cudaMemPoolSetAttribute(c->pool, cudaMemPoolAttrReleaseThreshold, &kept);
    if (error != cudaSuccess)
        *why = kn_cuda_say("GPU %d gives no memory pool: %s", c->ordinal, cudaGetErrorString(error));
    return error == cudaSuccess;
}

size_t kn_cuda_allowed(const kn_cuda *c)
{
    return c->memory->limit > 0 ? c->memory->limit : c->memory->total;
}

static void scratch_free(kn_cuda *c, bool used_too)
{
    kn_cuda_flush(c);
    block **at = &c->memory->scratch;
    while (*at) {
        block *b = *at;
        if (b->used > 0 && !used_too) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        cudaFreeAsync(b->at, c->stream);
        free(b);
    }
}

void kn_cuda_memory_free(kn_cuda *c)
{
    if (!c->memory)
        return;
    scratch_free(c, true);
    if (c->pool) /* what the stream has still to free goes back when it comes to that */
        cudaMemPoolDestroy(c->pool);
    free(c->memory);
}

static cudaError_t ask(kn_cuda *c, void **p, size_t bytes)
{
    const size_t limit = c->memory->limit;
    if (limit > 0 && (bytes > limit || figure(c, cudaMemPoolAttrUsedMemCurrent) > limit - bytes))
        return cudaErrorMemoryAllocation;
    const cudaError_t error = cudaMallocFromPoolAsync(p, bytes, c->pool, c->stream);
    if (error == cudaErrorMemoryAllocation)
        cudaGetLastError(); /* it shall not be taken for a later call's */
    return error;
}

/* Frees are in order with the work on the stream: only when it is done does the device have the bytes back. */
static void trim(kn_cuda *c)
{
    KN_CUDA(c, cudaStreamSynchronize(c->stream));
    KN_CUDA(c, cudaMemPoolTrimTo(c->pool, 0));
}

static bool ask_givers(kn_cuda *c, size_t bytes)
{
    kn_cuda_memory *m = c->memory;
    bool gave = false;
    if (m->asking)
        return false;
    m->asking = true;
    for (unsigned i = 0; i < m->givers; i++)
        gave |= m->giver[i].gives(m->giver[i].arg, bytes);
    m->asking = false;
    return gave;
}

/* "1.5 GiB" */
static const char *amount(char text[16], size_t bytes)
{
    if (bytes >= (size_t)1 << 30)
        snprintf(text, 16, "%.1f GiB", (double)bytes / (double)(1 << 30));
    else if (bytes >= (size_t)1 << 20)
        snprintf(text, 16, "%.1f MiB", (double)bytes / (double)(1 << 20));
    else
        snprintf(text, 16, "%zu bytes", bytes);
    return text;
}

static void refuse(kn_cuda *c, size_t bytes)
{
    kn_memory_use f = {0};
    char asked[16], used[16], unused[16], total[16], limit[16];
    f.used = figure(c, cudaMemPoolAttrUsedMemCurrent);
    if (cudaMemGetInfo(&f.free, &f.total) != cudaSuccess)
        cudaGetLastError();
    snprintf(c->refusal, sizeof(c->refusal), "%s asked for, %s in use by this run, %s of %s free on GPU %d%s%s",
             amount(asked, bytes), amount(used, f.used), amount(unused, f.free), amount(total, f.total), c->ordinal,
             c->memory->limit ? ", SLUICE_CUDA_MEMORY allows " : "",
             c->memory->limit ? amount(limit, c->memory->limit) : "");
    kn_cuda_refuse(c, KN_NO_MEMORY);
}

void *kn_cuda_alloc(kn_cuda *c, size_t bytes)
{
    void *p = NULL;
    if (c->status != KN_OK)
        return NULL;
    if (bytes > SIZE_MAX - KN_CUDA_CHUNK) {
        refuse(c, bytes);
        return NULL;
    }
    bytes = chunks(bytes > 0 ? bytes : 1);
    cudaError_t error = ask(c, &p, bytes);
    if (error == cudaErrorMemoryAllocation) {
        scratch_free(c, false);
        trim(c);
        error = ask(c, &p, bytes);
    }
    if (error == cudaErrorMemoryAllocation && ask_givers(c, bytes)) {
        trim(c);
        error = ask(c, &p, bytes);
    }
    if (c->status != KN_OK) /* waiting found an error of earlier work */
        return NULL;
    if (error == cudaErrorMemoryAllocation)
        refuse(c, bytes);
    else if (error != cudaSuccess)
        kn_cuda_note(c, error, "allocating memory");
    return error == cudaSuccess ? p : NULL;
}

const char *kn_cuda_say_full(const kn_cuda *c, const char *what)
{
    return kn_cuda_say("no memory for %s: %s; nvidia-smi shows who uses it", what, c->failed ? c->error : c->refusal);
}

void kn_cuda_free_memory(kn_cuda *c, void *p)
{
    if (!p || c->failed)
        return;
    kn_cuda_flush(c);
    const cudaError_t error = cudaFreeAsync(p, c->stream);
    if (error != cudaSuccess)
        kn_cuda_note(c, error, "freeing memory");
}

int kn_cuda_on_pressure(kn_device *device, kn_cuda_gives gives, void *arg)
{
    kn_cuda *c = (kn_cuda *)device;
    kn_cuda_memory *m = c->memory;
    pthread_mutex_lock(&c->lock);
    const bool room = m->givers < MOST_GIVERS;
    if (room) {
        m->giver[m->givers].gives = gives;
        m->giver[m->givers++].arg = arg;
    }
    pthread_mutex_unlock(&c->lock);
    return room ? KN_OK : KN_NO_MEMORY;
}

void kn_cuda_no_pressure(kn_device *device, kn_cuda_gives gives, void *arg)
{
    kn_cuda *c = (kn_cuda *)device;
    kn_cuda_memory *m = c->memory;
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < m->givers; i++)
        if (m->giver[i].gives == gives && m->giver[i].arg == arg) {
            m->giver[i] = m->giver[--m->givers];
            break;
        }
    pthread_mutex_unlock(&c->lock);
}

/* --- scratch --------------------------------------------------------------------------------------------------------
 */

void *kn_cuda_scratch(kn_cuda *c, size_t bytes)
{
    kn_cuda_memory *m = c->memory;
    block **at = &m->scratch;
    if (c->status != KN_OK)
        return NULL;
    if (bytes > SIZE_MAX / 2) {
        refuse(c, bytes);
        return NULL;
    }
    bytes = chunks(bytes > 0 ? bytes : 1);
    while (*at && (*at)->bytes - (*at)->used < bytes)
        at = &(*at)->next;
    if (!*at) {
        const size_t generous = bytes > m->wanted ? bytes : m->wanted;
        block *b = calloc(1, sizeof(*b));
        if (!b) {
            kn_cuda_refuse(c, KN_NO_MEMORY);
            return NULL;
        }
        b->bytes = generous > LEAST_SCRATCH ? generous : LEAST_SCRATCH;
        b->at = kn_cuda_alloc(c, b->bytes);
        if (!b->at) {
            free(b);
            return NULL;
        }
        for (at = &m->scratch; *at;) /* what pressure left of the list */
            at = &(*at)->next;
        *at = b;
    }
    void *p = (*at)->at + (*at)->used;
    (*at)->used += bytes;
    return p;
}

void kn_cuda_scratch_end(kn_cuda *c)
{
    kn_cuda_memory *m = c->memory;
    size_t used = 0;
    for (block *b = m->scratch; b; b = b->next) {
        used += b->used;
        b->used = 0;
    }
    if (!m->scratch || !m->scratch->next || c->failed)
        return;
    m->wanted = used;
    scratch_free(c, false);
}

/* --- ops ------------------------------------------------------------------------------------------------------------
 */

static void *alloc(kn_device *device, size_t bytes)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return NULL;
    void *p = kn_cuda_alloc(c, bytes);
    kn_cuda_end(c);
    return p;
}

static void release(kn_device *device, void *p)
{
    kn_cuda *c = p ? kn_cuda_begin(device) : NULL;
    if (c == NULL)
        return;
    kn_cuda_free_memory(c, p);
    kn_cuda_end(c);
}

static int write_memory(kn_device *device, void *to, const void *from, size_t bytes)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    kn_cuda_write(c, to, from, bytes);
    return kn_cuda_end(c);
}

static int read_memory(kn_device *device, void *to, const void *from, size_t bytes)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    kn_cuda_read(c, to, from, bytes);
    return kn_cuda_end(c);
}

static int copy_memory(kn_device *device, void *to, const void *from, size_t bytes)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    kn_cuda_copy(c, to, from, bytes);
    return kn_cuda_end(c);
}

static int clear_memory(kn_device *device, void *p, size_t bytes)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    kn_cuda_clear(c, p, bytes);
    return kn_cuda_end(c);
}

static int memory_figures(kn_device *device, kn_memory_use *f)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    *f = (kn_memory_use){.used = figure(c, cudaMemPoolAttrUsedMemCurrent),
                         .high = figure(c, cudaMemPoolAttrUsedMemHigh),
                         .reserved = figure(c, cudaMemPoolAttrReservedMemCurrent),
                         .limit = c->memory->limit};
    KN_CUDA(c, cudaMemGetInfo(&f->free, &f->total));
    return kn_cuda_end(c);
}

static const char *refusal(kn_device *device)
{
    const kn_cuda *c = (const kn_cuda *)device;
    return *c->refusal ? c->refusal : NULL;
}

void kn_cuda_memory_ops(kn_ops *f32, kn_ops *bf16)
{
    kn_ops *const both[] = {f32, bf16};
    for (int i = 0; i < 2; i++) {
        both[i]->alloc = alloc;
        both[i]->free = release;
        both[i]->write = write_memory;
        both[i]->read = read_memory;
        both[i]->copy = copy_memory;
        both[i]->clear = clear_memory;
        both[i]->memory = memory_figures;
        both[i]->refusal = refusal;
    }
}
