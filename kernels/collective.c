/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Sums over several devices by the host, a piece at a time. */
#include "kernels/collective.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 18 }; /* floats */

typedef struct host_group {
    kn_collective base;
    pthread_mutex_t lock;
    float *sum, *next; /* [PIECE] */
    char why[512];     /* "" while it works */
    kn_device *device[];
} host_group;

/* Notes what a device says, when it has failed. */
static int note(host_group *g, size_t d, int kn)
{
    const char *why = kn == KN_OK ? NULL : g->device[d]->ops->error(g->device[d]);
    if (why)
        snprintf(g->why, sizeof(g->why), "%s", why);
    return why ? KN_DEVICE_FAILED : kn;
}

static int sum_piece(host_group *g, float *const *x, size_t at, size_t n)
{
    int kn = KN_OK;
    for (size_t d = 0; kn == KN_OK && d < g->base.count; d++) {
        float *const to = d == 0 ? g->sum : g->next;
        kn = note(g, d, g->device[d]->ops->read(g->device[d], to, x[d] + at, n * sizeof(float)));
        for (size_t i = 0; kn == KN_OK && d > 0 && i < n; i++)
            g->sum[i] += g->next[i];
    }
    for (size_t d = 0; kn == KN_OK && d < g->base.count; d++)
        kn = note(g, d, g->device[d]->ops->write(g->device[d], x[d] + at, g->sum, n * sizeof(float)));
    return kn;
}

static int host_sum(kn_collective *base, float *const *x, size_t n)
{
    host_group *g = (host_group *)base;
    pthread_mutex_lock(&g->lock);
    int kn = *g->why ? KN_DEVICE_FAILED : KN_OK;
    for (size_t at = 0; kn == KN_OK && at < n; at += PIECE)
        kn = sum_piece(g, x, at, n - at < PIECE ? n - at : PIECE);
    pthread_mutex_unlock(&g->lock);
    return kn;
}

static const char *host_error(const kn_collective *base)
{
    const host_group *g = (const host_group *)base;
    return *g->why ? g->why : NULL;
}

static void host_free(kn_collective *base)
{
    host_group *g = (host_group *)base;
    pthread_mutex_destroy(&g->lock);
    free(g->sum);
    free(g->next);
    free(g);
}

kn_collective *kn_collective_host(kn_device *const *devices, size_t count)
{
    host_group *g = calloc(1, sizeof(*g) + count * sizeof(*devices));
    if (!g)
        return NULL;
    g->base = (kn_collective){.size = sizeof(g->base),
                              .count = count,
                              .name = "host",
                              .sum = host_sum,
                              .error = host_error,
                              .free = host_free};
    pthread_mutex_init(&g->lock, NULL);
    memcpy(g->device, devices, count * sizeof(*devices));
    g->sum = malloc(PIECE * sizeof(float));
    g->next = malloc(PIECE * sizeof(float));
    if (g->sum && g->next)
        return &g->base;
    host_free(&g->base);
    return NULL;
}
