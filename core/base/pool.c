/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

enum { MAGAZINE = 64, POOL_MOST = 1024 };

typedef struct magazine {
    struct magazine *next;
    size_t count;
    void *blocks[MAGAZINE];
} magazine;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static magazine *full; /* under the lock */
static size_t full_count;

#ifdef __SANITIZE_ADDRESS__ /* which finds more when each block is malloc's */
static bool off = true;
#else
static bool off;
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static __thread magazine *mine;

static void empty(magazine *m)
{
    while (m->count > 0)
        free(m->blocks[--m->count]);
    free(m);
}

static void end_thread(void *last)
{
    mine = NULL;
    empty(last);
}

static void make_key(void)
{
    pthread_key_create(&key, end_thread);
}

static magazine *my_magazine(void)
{
    if (!mine && (mine = calloc(1, sizeof *mine))) {
        pthread_once(&once, make_key);
        pthread_setspecific(key, mine);
    }
    return mine;
}

/* An empty magazine for a full one; false when there is none. */
static magazine *exchange_empty(magazine *m)
{
    pthread_mutex_lock(&lock);
    magazine *found = full;
    if (found) {
        full = found->next;
        full_count--;
    }
    pthread_mutex_unlock(&lock);
    if (!found)
        return m;
    free(m);
    mine = found;
    pthread_setspecific(key, mine);
    return mine;
}

/* A full magazine for an empty one; the full one again when there are enough. */
static magazine *exchange_full(magazine *m)
{
    magazine *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return m;
    pthread_mutex_lock(&lock);
    const bool room = full_count < POOL_MOST / MAGAZINE;
    if (room) {
        m->next = full;
        full = m;
        full_count++;
    }
    pthread_mutex_unlock(&lock);
    if (!room) {
        free(fresh);
        return m;
    }
    mine = fresh;
    pthread_setspecific(key, mine);
    return mine;
}

void sl_pool_off(void)
{
    off = true;
}

void *sl_pool_take(void)
{
    magazine *m = off ? NULL : my_magazine();
    if (m && m->count == 0)
        m = exchange_empty(m);
    if (m && m->count > 0)
        return m->blocks[--m->count];
    return malloc(SL_POOL_SIZE);
}

void sl_pool_give(void *block)
{
    magazine *m = off ? NULL : my_magazine();
    if (m && m->count == MAGAZINE)
        m = exchange_full(m);
    if (m && m->count < MAGAZINE) {
        m->blocks[m->count++] = block;
        return;
    }
    free(block);
}
