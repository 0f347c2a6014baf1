/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the device's time goes, and whether the host keeps it busy: SLUICE_CUDA_TIMELINE=FILE.
 *
 * Each call on the models' stream lies between two events. What they say is added up by the call's name, and the time
 * between two calls by why there was any: the host had read a result and could not go on before; the device had
 * finished before the host asked for more, which is a host too slow; or neither, which is what the device needs from
 * one to the next. Events are read when the ring of them comes round, and at the end, so nothing is waited for
 * meanwhile, but kernels do not overlap.
 *
 * Under the device's lock throughout, but for making and unmaking.
 */
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SPANS = 1024, /* calls whose events were not read yet */
    NAMES = 512,
    TRIALS = 15
};

typedef enum reason { AFTER_READ, HOST_LATE, BETWEEN, REASONS } reason;

typedef struct span {
    cudaEvent_t before, after;
    const char *what;
    reason gap; /* to the call before */
} span;

typedef struct row {
    const char *what;
    uint64_t count;
    double ms, most;
} row;

struct kn_cuda_timeline {
    char *path, *unfinished;
    span span[SPANS];
    uint64_t asked, read;
    bool host_read; /* since the last call */
    bool broken;    /* an event said nothing; what was read before stays true */
    double empty;   /* ms between two events with nothing between them */
    row row[NAMES + 1];
    size_t rows;
    double gap_ms[REASONS];
    uint64_t gaps[REASONS];
};

static void add(kn_cuda_timeline *t, const char *what, double ms)
{
    size_t i = 0;
    while (i < t->rows && t->row[i].what != what && strcmp(t->row[i].what, what) != 0)
        i++;
    if (i == NAMES)
        what = "others";
    if (i == t->rows)
        t->row[t->rows++].what = what;
    t->row[i].count++;
    t->row[i].ms += ms;
    if (ms > t->row[i].most)
        t->row[i].most = ms;
}

static bool elapsed(kn_cuda_timeline *t, double *ms, cudaEvent_t from, cudaEvent_t to)
{
    float f = 0;
    if (t->broken || cudaEventElapsedTime(&f, from, to) != cudaSuccess) {
        cudaGetLastError();
        t->broken = true;
        return false;
    }
    *ms = (double)f;
    return true;
}

/* Reads the oldest calls' events until `left` calls are unread. */
static void read_spans(kn_cuda_timeline *t, uint64_t left)
{
    if (t->asked > left && t->read < t->asked - left &&
        cudaEventSynchronize(t->span[(t->asked - left - 1) % SPANS].after) != cudaSuccess)
        t->broken = true;
    for (; t->asked - t->read > left; t->read++) {
        const span *s = &t->span[t->read % SPANS];
        double ms = 0;
        if (t->read > 0 && elapsed(t, &ms, t->span[(t->read - 1) % SPANS].after, s->before) && ms > t->empty) {
            t->gaps[s->gap]++;
            t->gap_ms[s->gap] += ms - t->empty;
        }
        if (elapsed(t, &ms, s->before, s->after))
            add(t, s->what, ms);
    }
}

void kn_cuda_timeline_before(kn_cuda *c)
{
    kn_cuda_timeline *t = c->timeline;
    if (!t || t->broken)
        return;
    if (t->asked - t->read == SPANS - 1) /* the last one read is the next one's neighbour */
        read_spans(t, SPANS / 2);
    span *s = &t->span[t->asked % SPANS];
    s->gap = t->host_read ? AFTER_READ : BETWEEN;
    if (t->asked > 0 && !t->host_read) {
        const cudaError_t done = cudaEventQuery(t->span[(t->asked - 1) % SPANS].after);
        if (done == cudaSuccess)
            s->gap = HOST_LATE;
        else if (done == cudaErrorNotReady)
            cudaGetLastError(); /* which is no error of a later call */
    }
    t->host_read = false;
    t->broken = cudaEventRecord(s->before, c->stream) != cudaSuccess;
}

void kn_cuda_timeline_after(kn_cuda *c, const char *what)
{
    kn_cuda_timeline *t = c->timeline;
    if (!t || t->broken)
        return;
    span *s = &t->span[t->asked % SPANS];
    s->what = what;
    t->broken = cudaEventRecord(s->after, c->stream) != cudaSuccess;
    t->asked += !t->broken;
}

void kn_cuda_timeline_read(kn_cuda *c)
{
    if (c->timeline)
        c->timeline->host_read = true;
}

/* --- what is written ------------------------------------------------------------------------------------------------
 */

static int by_time(const void *a, const void *b)
{
    const double x = ((const row *)a)->ms, y = ((const row *)b)->ms;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void print(FILE *f, const kn_cuda *c, kn_cuda_timeline *t)
{
    static const char *const reasons[] = {"after a result that the host read", "the host asked too late",
                                          "from one call to the next"};
    double busy = 0, all = 0;
    for (size_t i = 0; i < t->rows; i++)
        busy += t->row[i].ms;
    all = busy;
    for (int i = 0; i < REASONS; i++)
        all += t->gap_ms[i];
    const double percent = all > 0 ? 100 / all : 0;
    qsort(t->row, t->rows, sizeof(*t->row), by_time);
    fprintf(f, "GPU %d (%s): %llu calls, %.3f ms from the first to the last%s\n", c->ordinal, c->name,
            (unsigned long long)t->read, all, t->broken ? ", as far as events could be read" : "");
    fprintf(f, "%-48s %10s %12s %7s %10s %10s\n", "", "calls", "ms", "%", "µs each", "µs at most");
    fprintf(f, "%-48s %10llu %12.3f %7.2f %10.2f\n", "at work", (unsigned long long)t->read, busy, percent * busy,
            t->read > 0 ? 1e3 * busy / (double)t->read : 0);
    for (int i = 0; i < REASONS; i++)
        fprintf(f, "idle: %-42s %10llu %12.3f %7.2f %10.2f\n", reasons[i], (unsigned long long)t->gaps[i], t->gap_ms[i],
                percent * t->gap_ms[i], t->gaps[i] > 0 ? 1e3 * t->gap_ms[i] / (double)t->gaps[i] : 0);
    fprintf(f, "\n");
    for (size_t i = 0; i < t->rows; i++) {
        const char *what = t->row[i].what + (*t->row[i].what == '('); /* instances of templates lie in parentheses */
        const int length = (int)strlen(what) - (what != t->row[i].what);
        fprintf(f, "%-48.*s %10llu %12.3f %7.2f %10.2f %10.2f\n", length, what, (unsigned long long)t->row[i].count,
                t->row[i].ms, percent * t->row[i].ms, 1e3 * t->row[i].ms / (double)t->row[i].count,
                1e3 * t->row[i].most);
    }
    fprintf(f, "\nOne event after another takes %.2f µs, which the calls' times hold and the idle ones do not.\n",
            1e3 * t->empty);
}

static void write_file(const kn_cuda *c, kn_cuda_timeline *t)
{
    FILE *f = fopen(t->unfinished, "w");
    bool ok = f != NULL;
    if (f) {
        print(f, c, t);
        ok = fflush(f) == 0 && !ferror(f) && fsync(fileno(f)) == 0;
        ok = fclose(f) == 0 && ok && rename(t->unfinished, t->path) == 0;
    }
    if (!ok) {
        unlink(t->unfinished);
        fprintf(stderr, "sluice: SLUICE_CUDA_TIMELINE: cannot write %s; name a file in a folder with room\n", t->path);
    }
}

/* --- making and unmaking --------------------------------------------------------------------------------------------
 */

static int ascending(const void *a, const void *b)
{
    return -by_time(&(row){.ms = *(const double *)a}, &(row){.ms = *(const double *)b});
}

/* The median of some tries. */
static void measure_empty(kn_cuda *c, kn_cuda_timeline *t)
{
    double ms[TRIALS] = {0};
    for (int i = 0; i < TRIALS; i++) {
        const span *s = &t->span[i];
        t->broken |=
            cudaEventRecord(s->before, c->stream) != cudaSuccess || cudaEventRecord(s->after, c->stream) != cudaSuccess;
    }
    t->broken |= cudaStreamSynchronize(c->stream) != cudaSuccess;
    for (int i = 0; i < TRIALS; i++)
        elapsed(t, &ms[i], t->span[i].before, t->span[i].after);
    qsort(ms, TRIALS, sizeof(*ms), ascending);
    t->empty = ms[TRIALS / 2];
}

/* FILE, and FILE.1, FILE.2 … for further GPUs. */
static bool name_files(kn_cuda_timeline *t, const char *wish, int ordinal)
{
    const size_t room = strlen(wish) + 32;
    t->path = malloc(room);
    t->unfinished = malloc(room);
    if (!t->path || !t->unfinished)
        return false;
    const int n = snprintf(t->path, room, "%s", wish);
    if (ordinal > 0)
        snprintf(t->path + n, room - (size_t)n, ".%d", ordinal);
    snprintf(t->unfinished, room, "%s.part", t->path);
    return true;
}

bool kn_cuda_timeline_new(kn_cuda *c, const char **why)
{
    const char *wish = getenv("SLUICE_CUDA_TIMELINE");
    if (!wish || !*wish)
        return true;
    kn_cuda_timeline *t = c->timeline = calloc(1, sizeof(*t));
    if (!t || !name_files(t, wish, c->ordinal)) {
        *why = "out of memory";
        return false;
    }
    FILE *f = fopen(t->unfinished, "w"); /* better now than after the run */
    if (!f) {
        *why =
            kn_cuda_say("SLUICE_CUDA_TIMELINE=%.200s cannot be written; name a file in a folder that is there", wish);
        return false;
    }
    fclose(f);
    unlink(t->unfinished);
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < SPANS && error == cudaSuccess; i++)
        if ((error = cudaEventCreate(&t->span[i].before)) == cudaSuccess)
            error = cudaEventCreate(&t->span[i].after);
    if (error != cudaSuccess) {
        *why = kn_cuda_say("no events for SLUICE_CUDA_TIMELINE on GPU %d: %s", c->ordinal, cudaGetErrorString(error));
        return false;
    }
    measure_empty(c, t);
    return true;
}

void kn_cuda_timeline_free(kn_cuda *c)
{
    kn_cuda_timeline *t = c->timeline;
    if (!t)
        return;
    c->timeline = NULL;
    if (c->failed)
        t->broken = true;
    else
        read_spans(t, 0);
    if (t->asked > 0)
        write_file(c, t);
    for (int i = 0; i < SPANS && !c->failed; i++) {
        if (t->span[i].before)
            cudaEventDestroy(t->span[i].before);
        if (t->span[i].after)
            cudaEventDestroy(t->span[i].after);
    }
    free(t->path);
    free(t->unfinished);
    free(t);
}
