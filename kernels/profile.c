/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The measuring device: its counters, and how they are read. */
#include "profile_parts.h"

#include <stdlib.h>
#include <time.h>

#define NAME(op) #op,
static const char *const names[] = {KN_PROFILED(NAME)};
#undef NAME
_Static_assert(2 * KN_PROFILE_OPS <= KN_PROFILE_ROWS, "both element types have room");

double kn_profile_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The step that the calling thread is in. */
static _Thread_local struct step {
    const kn_profile *of;
    double since, flops, bytes;
} step;

void kn_profile_step_begin(kn_profile *p, double since)
{
    step = (struct step){.of = p, .since = since};
}

void kn_profile_step_end(kn_profile *p, kn_dtype dtype)
{
    const struct step whole = step;
    step.of = NULL;
    kn_profile_count(p, dtype, KN_PROFILE_step_end, whole.since, whole.flops, whole.bytes);
}

void kn_profile_count(kn_profile *p, kn_dtype dtype, int op, double since, double flops, double bytes)
{
    uint32_t word;
    if (step.of == p) { /* to wait for each op would take the step apart */
        step.flops += flops;
        step.bytes += bytes;
        return;
    }
    if (p->word)
        p->inner->ops->read(p->inner, &word, p->word, sizeof(word));
    const double seconds = kn_profile_now() - since;
    pthread_mutex_lock(&p->lock);
    kn_profile_row *row = &p->row[dtype][op];
    row->calls++;
    row->seconds += seconds;
    row->flops += flops;
    row->bytes += bytes;
    pthread_mutex_unlock(&p->lock);
}

void kn_profile_reset(kn_device *device)
{
    kn_profile *p = (kn_profile *)device;
    pthread_mutex_lock(&p->lock);
    for (int d = 0; d < 2; d++)
        for (int i = 0; i < KN_PROFILE_OPS; i++)
            p->row[d][i] = (kn_profile_row){.op = names[i], .dtype = d == 0 ? KN_F32 : KN_BF16};
    pthread_mutex_unlock(&p->lock);
}

static int by_seconds(const void *a, const void *b)
{
    const kn_profile_row *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

size_t kn_profile_read(kn_device *device, kn_profile_row *rows, size_t room)
{
    kn_profile *p = (kn_profile *)device;
    kn_profile_row all[2 * KN_PROFILE_OPS];
    size_t n = 0;
    pthread_mutex_lock(&p->lock);
    for (int d = 0; d < 2; d++)
        for (int i = 0; i < KN_PROFILE_OPS; i++)
            if (p->row[d][i].calls > 0)
                all[n++] = p->row[d][i];
    pthread_mutex_unlock(&p->lock);
    qsort(all, n, sizeof(*all), by_seconds);
    n = n < room ? n : room;
    for (size_t i = 0; i < n; i++)
        rows[i] = all[i];
    return n;
}

#define LEAVE_OUT(op)               \
    if (!inner[i] || !inner[i]->op) \
        p->ops[i].op = NULL;

kn_device *kn_profile_new(kn_device *wrapped)
{
    kn_profile *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    const kn_ops *const inner[] = {wrapped->ops, wrapped->ops_bf16};
    p->ops[0] = *kn_profile_ops_f32();
    p->ops[1] = *kn_profile_ops_bf16();
    for (int i = 0; i < 2; i++) {
        KN_PROFILE_MAYBE(LEAVE_OUT)
    }
    p->base.ops = &p->ops[0];
    p->base.ops_bf16 = wrapped->ops_bf16 ? &p->ops[1] : NULL;
    p->base.host_memory = wrapped->host_memory;
    p->base.one_answer = wrapped->one_answer;
    p->inner = wrapped;
    if (!wrapped->host_memory && !(p->word = wrapped->ops->alloc(wrapped, sizeof(uint32_t)))) {
        free(p);
        return NULL;
    }
    pthread_mutex_init(&p->lock, NULL);
    kn_profile_reset(&p->base);
    return &p->base;
}

void kn_profile_free(kn_device *device)
{
    kn_profile *p = (kn_profile *)device;
    if (!p)
        return;
    if (p->word)
        p->inner->ops->free(p->inner, p->word);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
