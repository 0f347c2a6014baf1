/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * From host memory to the device and back.
 *
 * Small arrays (token ids, positions, page tables) go through a ring of page-locked memory with a twin of the same
 * layout on the device, so that what was sent is known: given again with the same content, as in every layer, it is
 * found by its hash, compared, and not sent. Large ones go through a second ring in pieces, each copied by the device
 * while the host fills or empties the next.
 *
 * A ring is cut into segments. An event marks what the device still had to copy when the last piece was laid into one;
 * the segment is laid into again only when that is over.
 */
#include "kernels/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

enum {
    SEGMENTS = 4,
    SMALL_SEGMENT = 512 << 10,
    LARGE_SEGMENT = 4 << 20,
    SMALL_MOST = 128 << 10, /* larger arrays are not remembered */
    ENTRIES = 1024          /* a power of two */
};

typedef struct ring {
    char *host; /* SEGMENTS · segment bytes, page-locked */
    size_t segment;
    unsigned now; /* the segment being filled */
    size_t used;  /* bytes of it */
    cudaEvent_t copied[SEGMENTS];
    bool waited_for[SEGMENTS]; /* the event was recorded */
} ring;

typedef struct entry {
    uint64_t hash;
    size_t at, bytes; /* in the small ring; bytes 0 = none */
} entry;

struct kn_cuda_uploads {
    ring small, large;
    char *twin;                 /* of small.host, on the device */
    entry entry[ENTRIES];       /* by hash; a newer one takes an older one's place */
    uint64_t last_op[SEGMENTS]; /* the last op that was given a pointer into the twin's segment */
};

/* --- rings ----------------------------------------------------------------------------------------------------------
 */

static cudaError_t ring_new(ring *r, size_t segment)
{
    r->segment = segment;
    cudaError_t error = cudaHostAlloc((void **)&r->host, SEGMENTS * segment, cudaHostAllocDefault);
    for (int i = 0; error == cudaSuccess && i < SEGMENTS; i++)
        error = cudaEventCreateWithFlags(&r->copied[i], cudaEventDisableTiming);
    return error;
}

static void ring_free(ring *r)
{
    for (int i = 0; i < SEGMENTS; i++)
        if (r->copied[i])
            cudaEventDestroy(r->copied[i]);
    if (r->host)
        cudaFreeHost(r->host);
}

static unsigned ring_next(const ring *r)
{
    return (r->now + 1) % SEGMENTS;
}

/* Leaves the segment in use and waits until the next one is free. */
static void ring_turn(kn_cuda *c, ring *r)
{
    KN_CUDA(c, cudaEventRecord(r->copied[r->now], c->stream));
    r->waited_for[r->now] = true;
    r->now = ring_next(r);
    r->used = 0;
    if (r->waited_for[r->now])
        KN_CUDA(c, cudaEventSynchronize(r->copied[r->now]));
}

/* --- large arrays ---------------------------------------------------------------------------------------------------
 */

int kn_cuda_write(kn_cuda *c, void *device, const void *host, size_t bytes)
{
    ring *r = &c->uploads->large;
    char *to = device;
    const char *from = host;
    while (bytes > 0 && c->status == KN_OK) {
        if (r->used == r->segment)
            ring_turn(c, r);
        if (c->status != KN_OK)
            break;
        const size_t room = r->segment - r->used, piece = bytes < room ? bytes : room;
        char *staged = r->host + r->now * r->segment + r->used;
        memcpy(staged, from, piece);
        kn_cuda_flush(c);
        kn_cuda_timeline_before(c);
        KN_CUDA(c, cudaMemcpyAsync(to, staged, piece, cudaMemcpyHostToDevice, c->stream));
        kn_cuda_timeline_after(c, "sending");
        r->used += (piece + 63) / 64 * 64;
        to += piece;
        from += piece;
        bytes -= piece;
    }
    return c->status;
}

/* One piece is on its way while the one before is copied out. Pieces are whole segments: the ring is turned first. */
int kn_cuda_read(kn_cuda *c, void *host, const void *device, size_t bytes)
{
    ring *r = &c->uploads->large;
    char *to = host;
    const char *from = device;
    const size_t pieces = (bytes + r->segment - 1) / r->segment;
    unsigned segment[2] = {0, 0};
    for (size_t i = 0; i <= pieces && bytes > 0 && c->status == KN_OK; i++) {
        if (i < pieces) {
            const size_t piece = i + 1 < pieces ? r->segment : bytes - i * r->segment;
            ring_turn(c, r);
            segment[i % 2] = r->now;
            kn_cuda_flush(c);
            kn_cuda_timeline_before(c);
            KN_CUDA(c, cudaMemcpyAsync(r->host + r->now * r->segment, from + i * r->segment, piece,
                                       cudaMemcpyDeviceToHost, c->stream));
            kn_cuda_timeline_after(c, "reading");
            KN_CUDA(c, cudaEventRecord(r->copied[r->now], c->stream));
            r->used = r->segment;
        }
        if (i > 0) {
            const size_t piece = i < pieces ? r->segment : bytes - (i - 1) * r->segment;
            const unsigned s = segment[(i - 1) % 2];
            KN_CUDA(c, cudaEventSynchronize(r->copied[s]));
            if (c->status == KN_OK)
                memcpy(to + (i - 1) * r->segment, r->host + s * r->segment, piece);
        }
    }
    if (bytes == 0)
        KN_CUDA(c, cudaStreamSynchronize(c->stream));
    kn_cuda_timeline_read(c);
    return c->status;
}

/* --- small arrays ---------------------------------------------------------------------------------------------------
 */

/* Not for keeping: a wrong guess costs a comparison. */
static uint64_t hash_of(const void *data, size_t bytes)
{
    const unsigned char *at = data;
    uint64_t hash = 0x9e3779b97f4a7c15u ^ bytes;
    for (; bytes >= 8; at += 8, bytes -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }
    for (; bytes > 0; at++, bytes--)
        hash = (hash ^ *at) * 0xff51afd7ed558ccdu;
    return hash ^ hash >> 29;
}

static void forget_segment(kn_cuda_uploads *u, unsigned segment)
{
    for (size_t i = 0; i < ENTRIES; i++)
        if (u->entry[i].at / SMALL_SEGMENT == segment)
            u->entry[i].bytes = 0;
}

/* A place in the small ring, or NULL when only one is left that this op itself was given a pointer into. */
static char *small_place(kn_cuda *c, size_t bytes)
{
    kn_cuda_uploads *u = c->uploads;
    ring *r = &u->small;
    if (r->used + bytes > r->segment) {
        if (u->last_op[ring_next(r)] == c->op)
            return NULL;
        ring_turn(c, r);
        forget_segment(u, r->now);
    }
    char *place = r->host + r->now * r->segment + r->used;
    r->used += bytes;
    return place;
}

static const void *upload_small(kn_cuda *c, const void *host, size_t bytes)
{
    kn_cuda_uploads *u = c->uploads;
    const uint64_t hash = hash_of(host, bytes);
    entry *e = &u->entry[hash & (ENTRIES - 1)];
    if (e->bytes != bytes || e->hash != hash || memcmp(u->small.host + e->at, host, bytes) != 0) {
        char *place = small_place(c, (bytes + KN_CUDA_CHUNK - 1) / KN_CUDA_CHUNK * KN_CUDA_CHUNK);
        if (!place || c->status != KN_OK)
            return NULL;
        memcpy(place, host, bytes);
        *e = (entry){.hash = hash, .at = (size_t)(place - u->small.host), .bytes = bytes};
        kn_cuda_flush(c);
        kn_cuda_timeline_before(c);
        KN_CUDA(c, cudaMemcpyAsync(u->twin + e->at, place, bytes, cudaMemcpyHostToDevice, c->stream));
        kn_cuda_timeline_after(c, "sending arrays of indices");
    }
    u->last_op[e->at / SMALL_SEGMENT] = c->op;
    return u->twin + e->at;
}

const void *kn_cuda_upload(kn_cuda *c, const void *host, size_t bytes)
{
    if (c->status != KN_OK)
        return NULL;
    const void *p = c->stepping ? kn_cuda_step_upload(c, host, bytes) : NULL;
    if (!p && bytes > 0 && bytes <= SMALL_MOST)
        p = upload_small(c, host, bytes);
    if (!p && c->status == KN_OK) {
        void *whole = kn_cuda_scratch(c, bytes);
        kn_cuda_write(c, whole, host, bytes);
        p = whole;
    }
    return c->status == KN_OK ? p : NULL;
}

/* --- making and unmaking --------------------------------------------------------------------------------------------
 */

bool kn_cuda_uploads_new(kn_cuda *c, const char **why)
{
    kn_cuda_uploads *u = c->uploads = calloc(1, sizeof(*u));
    if (!u) {
        *why = "out of memory";
        return false;
    }
    cudaError_t error = ring_new(&u->small, SMALL_SEGMENT);
    if (error == cudaSuccess)
        error = ring_new(&u->large, LARGE_SEGMENT);
    if (error != cudaSuccess) {
        *why = kn_cuda_say("no page-locked memory of the host for transfers to GPU %d: %s", c->ordinal,
                           cudaGetErrorString(error));
        return false;
    }
    u->twin = kn_cuda_alloc(c, SEGMENTS * (size_t)SMALL_SEGMENT);
    *why = u->twin ? NULL : kn_cuda_say_full(c, "transfers");
    return u->twin != NULL;
}

void kn_cuda_uploads_free(kn_cuda *c)
{
    kn_cuda_uploads *u = c->uploads;
    if (!u)
        return;
    if (u->twin)
        cudaFreeAsync(u->twin, c->stream);
    ring_free(&u->small);
    ring_free(&u->large);
    free(u);
}
