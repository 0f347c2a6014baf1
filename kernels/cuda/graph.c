/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked of the stream, at once or as a step.
 *
 * A decoding step launches some hundred small kernels, each of which costs the host more time than the device. Between
 * step_begin and step_end calls are therefore written down with their arguments. At the end, or where the host must see
 * a result, the list is compared with those of earlier steps: a list that comes for the second time is captured into a
 * CUDA graph, and from then on one launch does the whole. A list that is new is carried out call by call. Since lists
 * are compared to the byte, a graph does exactly what its calls would have done.
 *
 * Uploads of a step get addresses by their order, so that a new token at the same place is another content and not
 * another call; they are sent in one piece before the calls.
 */
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GRAPHS = 32,         /* kept, the longest unused is given up first */
    SEEN = 64,           /* hashes of lists that came once */
    REFUSALS = 4,        /* lists that CUDA made no graph of, after which none is tried */
    STEP_BYTES = 1 << 20 /* of uploads; a step with more is carried out as it comes */
};

/* One call of a list: this, then the argument bytes, then room up to a multiple of 16. */
typedef struct call {
    kn_cuda_run run;
    const char *what;
    size_t bytes, room;
} call;

typedef struct list {
    char *at;
    size_t bytes, capacity, calls;
} list;

typedef struct graph {
    cudaGraphExec_t ready; /* NULL = free */
    list list;
    uint64_t hash, last_use;
} graph;

typedef struct sent {
    size_t at, bytes;
} sent;

struct kn_cuda_graphs {
    bool open; /* between step_begin and step_end, which holds the lock */
    list list;
    graph graph[GRAPHS];
    uint64_t seen[SEEN], seen_count, uses;
    uint64_t refused[REFUSALS]; /* hashes */
    size_t refused_count;
    char note[256]; /* about the first */

    char *area;    /* of the step's uploads on the device */
    char *host[2]; /* what goes there, page-locked: of this step and of the one before */
    cudaEvent_t copied[2];
    unsigned now;
    size_t used, copied_to; /* bytes of host[now] filled and sent */
    sent sent[64];
    size_t sent_count;
};

void kn_cuda_asked(kn_cuda *c, const char *what)
{
    c->asked[c->asked_count++ % KN_CUDA_ASKED] = what;
    if (c->waits)
        kn_cuda_note(c, cudaStreamSynchronize(c->stream), what);
}

/* --- lists ----------------------------------------------------------------------------------------------------------
 */

static bool append(list *l, const call *head, const void *with)
{
    const size_t needed = l->bytes + sizeof(*head) + head->room;
    if (needed > l->capacity) {
        const size_t capacity = needed * 2 > 1 << 16 ? needed * 2 : 1 << 16;
        char *grown = realloc(l->at, capacity);
        if (!grown)
            return false;
        l->at = grown;
        l->capacity = capacity;
    }
    char *to = l->at + l->bytes;
    memcpy(to, head, sizeof(*head));
    memcpy(to + sizeof(*head), with, head->bytes);
    memset(to + sizeof(*head) + head->bytes, 0, head->room - head->bytes);
    l->bytes = needed;
    l->calls++;
    return true;
}

static uint64_t hash_of(const list *l)
{
    uint64_t hash = 0x9e3779b97f4a7c15u ^ l->bytes;
    for (size_t i = 0; i < l->bytes; i += 8) {
        uint64_t word;
        memcpy(&word, l->at + i, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }
    return hash;
}

static cudaError_t carry_out(kn_cuda *c, kn_cuda_run run, const void *with, const char *what)
{
    kn_cuda_timeline_before(c);
    const cudaError_t error = run(with, c->stream);
    if (error == cudaSuccess) {
        kn_cuda_timeline_after(c, what);
        kn_cuda_asked(c, what);
    }
    return error;
}

/* Carries out each call, as a capture or in earnest. */
static cudaError_t run_list(kn_cuda *c, const list *l, bool in_earnest)
{
    cudaError_t error = cudaSuccess;
    const char *what = NULL;
    for (size_t i = 0; i < l->bytes && error == cudaSuccess && c->status == KN_OK;) {
        const call *head = (const call *)(l->at + i);
        what = head->what;
        error = in_earnest ? carry_out(c, head->run, l->at + i + sizeof(*head), what)
                           : head->run(l->at + i + sizeof(*head), c->stream);
        i += sizeof(*head) + head->room;
    }
    if (in_earnest && error != cudaSuccess)
        kn_cuda_note(c, error, what);
    return error;
}

/* --- graphs ---------------------------------------------------------------------------------------------------------
 */

static void graph_drop(graph *g)
{
    if (g->ready)
        cudaGraphExecDestroy(g->ready);
    free(g->list.at);
    *g = (graph){0};
}

static graph *graph_find(kn_cuda_graphs *s, uint64_t hash)
{
    for (int i = 0; i < GRAPHS; i++) {
        const list *l = &s->graph[i].list;
        if (s->graph[i].ready && s->graph[i].hash == hash && l->bytes == s->list.bytes &&
            memcmp(l->at, s->list.at, l->bytes) == 0)
            return &s->graph[i];
    }
    return NULL;
}

static bool was_seen(kn_cuda_graphs *s, uint64_t hash)
{
    for (int i = 0; i < SEEN; i++)
        if (s->seen[i] == hash)
            return true;
    s->seen[s->seen_count++ % SEEN] = hash;
    return false;
}

/* A capture costs more than the calls, so a list that was refused is not tried again. */
static bool may_capture(const kn_cuda_graphs *s, uint64_t hash)
{
    for (size_t i = 0; i < s->refused_count; i++)
        if (s->refused[i] == hash)
            return false;
    return s->refused_count < REFUSALS;
}

static void note_refusal(kn_cuda_graphs *s, uint64_t hash, cudaError_t error)
{
    if (s->refused_count == 0)
        snprintf(s->note, sizeof(s->note),
                 "decoding steps are launched call by call, which may be slower: CUDA makes no graph of them (%.100s)",
                 cudaGetErrorString(error));
    s->refused[s->refused_count++] = hash;
}

const char *kn_cuda_graphs_note(kn_cuda *c)
{
    pthread_mutex_lock(&c->lock);
    const char *note = c->graphs->refused_count > 0 ? c->graphs->note : NULL;
    pthread_mutex_unlock(&c->lock);
    return note;
}

/* A graph of the list, in the place of the longest unused; NULL when CUDA makes none, and nothing was carried out. */
static graph *graph_new(kn_cuda *c, uint64_t hash)
{
    kn_cuda_graphs *s = c->graphs;
    graph *g = &s->graph[0];
    cudaGraph_t captured = NULL;
    for (int i = 1; i < GRAPHS && g->ready; i++)
        if (!s->graph[i].ready || s->graph[i].last_use < g->last_use)
            g = &s->graph[i];
    graph_drop(g);
    g->list.at = malloc(s->list.bytes);
    if (!g->list.at)
        return NULL;
    cudaError_t error = cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal);
    if (error == cudaSuccess) {
        const cudaError_t within = run_list(c, &s->list, false);
        error = cudaStreamEndCapture(c->stream, &captured);
        error = within != cudaSuccess ? within : error;
    }
    if (error == cudaSuccess)
        error = cudaGraphInstantiate(&g->ready, captured, 0);
    if (captured)
        cudaGraphDestroy(captured);
    if (error != cudaSuccess) {
        cudaGetLastError();
        if (error != cudaErrorMemoryAllocation) /* of which there may be more the next time */
            note_refusal(s, hash, error);
        g->ready = NULL;
        graph_drop(g);
        return NULL;
    }
    memcpy(g->list.at, s->list.at, s->list.bytes);
    g->list.bytes = s->list.bytes;
    g->hash = hash;
    return g;
}

static void send_uploads(kn_cuda *c)
{
    kn_cuda_graphs *s = c->graphs;
    if (s->used == s->copied_to)
        return;
    kn_cuda_timeline_before(c);
    kn_cuda_note(c,
                 cudaMemcpyAsync(s->area + s->copied_to, s->host[s->now] + s->copied_to, s->used - s->copied_to,
                                 cudaMemcpyHostToDevice, c->stream),
                 "sending a step's arrays");
    kn_cuda_timeline_after(c, "sending a step's arrays");
    kn_cuda_note(c, cudaEventRecord(s->copied[s->now], c->stream), "sending a step's arrays");
    s->copied_to = s->used;
}

void kn_cuda_flush(kn_cuda *c)
{
    kn_cuda_graphs *s = c->graphs;
    if (!c->stepping || s->list.calls == 0)
        return;
    c->stepping = false; /* what is called here is called in earnest */
    send_uploads(c);
    const uint64_t hash = hash_of(&s->list);
    graph *g = c->status == KN_OK ? graph_find(s, hash) : NULL;
    if (!g && c->status == KN_OK && !c->waits && may_capture(s, hash) && was_seen(s, hash))
        g = graph_new(c, hash);
    if (g) {
        g->last_use = ++s->uses;
        kn_cuda_timeline_before(c);
        const cudaError_t error = cudaGraphLaunch(g->ready, c->stream);
        if (error == cudaSuccess) {
            kn_cuda_timeline_after(c, "a decoding step");
            kn_cuda_asked(c, "a decoding step");
        } else
            kn_cuda_note(c, error, "a decoding step");
    } else if (c->status == KN_OK) {
        run_list(c, &s->list, true);
    }
    s->list.bytes = s->list.calls = 0;
    c->stepping = true;
}

/* --- what is asked --------------------------------------------------------------------------------------------------
 */

void kn_cuda_ask(kn_cuda *c, kn_cuda_run run, const void *with, size_t bytes, const char *what)
{
    const call head = {run, what, bytes, (bytes + 15) / 16 * 16};
    if (c->status != KN_OK || (c->stepping && append(&c->graphs->list, &head, with)))
        return;
    kn_cuda_flush(c);
    const cudaError_t error = carry_out(c, run, with, what);
    if (error != cudaSuccess)
        kn_cuda_note(c, error, what);
}

typedef struct movement {
    void *to;
    const void *from;
    size_t bytes;
} movement;

static cudaError_t run_clear(const void *with, cudaStream_t stream)
{
    const movement *m = with;
    return cudaMemsetAsync(m->to, 0, m->bytes, stream);
}

static cudaError_t run_copy(const void *with, cudaStream_t stream)
{
    const movement *m = with;
    return cudaMemcpyAsync(m->to, m->from, m->bytes, cudaMemcpyDeviceToDevice, stream);
}

void kn_cuda_clear(kn_cuda *c, void *device, size_t bytes)
{
    const movement m = {device, NULL, bytes};
    if (bytes > 0)
        kn_cuda_ask(c, run_clear, &m, sizeof(m), "clearing memory");
}

void kn_cuda_copy(kn_cuda *c, void *to, const void *from, size_t bytes)
{
    const movement m = {to, from, bytes};
    if (bytes > 0)
        kn_cuda_ask(c, run_copy, &m, sizeof(m), "copying memory");
}

const void *kn_cuda_step_upload(kn_cuda *c, const void *host, size_t bytes)
{
    kn_cuda_graphs *s = c->graphs;
    for (size_t i = 0; i < s->sent_count; i++)
        if (s->sent[i].bytes == bytes && memcmp(s->host[s->now] + s->sent[i].at, host, bytes) == 0)
            return s->area + s->sent[i].at;
    const size_t at = s->used, end = at + (bytes + KN_CUDA_CHUNK - 1) / KN_CUDA_CHUNK * KN_CUDA_CHUNK;
    if (bytes == 0 || bytes > STEP_BYTES || end > STEP_BYTES || s->sent_count == sizeof(s->sent) / sizeof(*s->sent)) {
        kn_cuda_flush(c);
        c->stepping = false; /* until the next step: what is sent otherwise has no fixed address */
        return NULL;
    }
    memcpy(s->host[s->now] + at, host, bytes);
    s->sent[s->sent_count++] = (sent){at, bytes};
    s->used = end;
    return s->area + at;
}

/* --- the ops --------------------------------------------------------------------------------------------------------
 */

static int step_begin(kn_device *device)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    kn_cuda_graphs *s = c->graphs;
    if (s->open) {
        kn_cuda_refuse(c, KN_BAD_ARGUMENT);
        return kn_cuda_end(c);
    }
    s->now = !s->now;
    KN_CUDA(c, cudaEventSynchronize(s->copied[s->now])); /* of the step before the last */
    const int status = kn_cuda_end(c);
    if (status != KN_OK)
        return status;
    pthread_mutex_lock(&c->lock); /* until step_end */
    s->used = s->copied_to = s->sent_count = 0;
    s->open = c->stepping = true;
    return KN_OK;
}

static int step_end(kn_device *device)
{
    kn_cuda *c = (kn_cuda *)device;
    int status = KN_DEVICE_FAILED;
    if (kn_cuda_begin(device)) {
        kn_cuda_flush(c);
        c->stepping = false;
        status = kn_cuda_end(c);
    }
    c->stepping = c->graphs->open = false;
    c->graphs->list.bytes = c->graphs->list.calls = 0;
    pthread_mutex_unlock(&c->lock);
    return status;
}

void kn_cuda_graph_ops(kn_ops *f32, kn_ops *bf16)
{
    kn_ops *const both[] = {f32, bf16};
    for (int i = 0; i < 2; i++) {
        both[i]->step_begin = step_begin;
        both[i]->step_end = step_end;
    }
}

/* --- making and unmaking --------------------------------------------------------------------------------------------
 */

/* Graphs hold memory of the device beside the pool. */
static bool give(void *arg, size_t bytes)
{
    kn_cuda_graphs *s = ((kn_cuda *)arg)->graphs;
    bool gave = false;
    for (int i = 0; i < GRAPHS; i++) {
        gave |= s->graph[i].ready != NULL;
        graph_drop(&s->graph[i]);
    }
    return gave;
}

bool kn_cuda_graphs_new(kn_cuda *c, const char **why)
{
    kn_cuda_graphs *s = c->graphs = calloc(1, sizeof(*s));
    if (!s) {
        *why = "out of memory";
        return false;
    }
    s->area = kn_cuda_alloc(c, STEP_BYTES);
    if (!s->area) {
        *why = kn_cuda_say_full(c, "decoding steps");
        return false;
    }
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < 2 && error == cudaSuccess; i++) {
        error = cudaHostAlloc((void **)&s->host[i], STEP_BYTES, cudaHostAllocDefault);
        if (error == cudaSuccess)
            error = cudaEventCreateWithFlags(&s->copied[i], cudaEventDisableTiming);
    }
    if (error != cudaSuccess) {
        *why = kn_cuda_say("no page-locked memory of the host for decoding steps on GPU %d: %s", c->ordinal,
                           cudaGetErrorString(error));
        return false;
    }
    return kn_cuda_on_pressure(&c->base, give, c) == KN_OK;
}

void kn_cuda_graphs_free(kn_cuda *c)
{
    kn_cuda_graphs *s = c->graphs;
    if (!s)
        return;
    for (int i = 0; i < GRAPHS; i++)
        graph_drop(&s->graph[i]);
    for (int i = 0; i < 2; i++) {
        if (s->copied[i])
            cudaEventDestroy(s->copied[i]);
        if (s->host[i])
            cudaFreeHost(s->host[i]);
    }
    if (s->area)
        cudaFreeAsync(s->area, c->stream);
    free(s->list.at);
    free(s);
}
