/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool: workers that spin for some microseconds after each region and then sleep, so that the many small regions of
 * a small model cost about a microsecond each and an idle pool costs nothing.
 *
 * One word, `claim`, holds a region's generation, its number of pieces and the next piece to take. Whoever swaps it for
 * the next value owns that piece; and since the region cannot end before that piece is done, piece and arg are safe to
 * read after the swap. A worker that wakes late finds nothing to take and is not waited for.
 */
#include "config.h"
#include "cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SPINS = 1500, BITS = 20, MOST_THREADS = 256 };
#define MASK ((UINT64_C(1) << BITS) - 1)

/* Below this a region is not worth sharing: about three times what waking a spinning worker costs. */
static const double share_ns = 6000;

typedef struct worker {
    pthread_t thread;
    kn_pool *pool;
    unsigned index;
} worker;

struct kn_pool {
    pthread_mutex_t owner;  /* held for a region, and while resizing */
    _Atomic uint64_t claim; /* generation << 40 | pieces << 20 | next */
    _Atomic uint32_t left;  /* pieces not done */
    kn_piece piece;
    void *arg;
    size_t n, step; /* each claimed piece is `step` of the caller's */
    pthread_mutex_t sleep;
    pthread_cond_t wake;
    _Atomic int sleepers;
    _Atomic bool stop;
    _Atomic int threads;
    worker *workers;
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool has_work(uint64_t claim)
{
    return (claim & MASK) < ((claim >> BITS) & MASK);
}

/* Takes pieces until none is left to take. */
static void work(kn_pool *pool, unsigned index)
{
    uint64_t c = atomic_load_explicit(&pool->claim, memory_order_acquire);
    while (has_work(c)) {
        if (!atomic_compare_exchange_weak_explicit(&pool->claim, &c, c + 1, memory_order_acq_rel, memory_order_acquire))
            continue;
        const size_t begin = (size_t)(c & MASK) * pool->step, end = kn_min(begin + pool->step, pool->n);
        for (size_t i = begin; i < end; i++)
            pool->piece(pool->arg, i, index);
        atomic_fetch_sub_explicit(&pool->left, 1, memory_order_release);
        c = atomic_load_explicit(&pool->claim, memory_order_acquire);
    }
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    kn_pool *pool = w->pool;
    while (!atomic_load(&pool->stop)) {
        int spins = 0;
        while (!has_work(atomic_load_explicit(&pool->claim, memory_order_relaxed)) && spins < SPINS) {
            relax();
            spins++;
        }
        if (spins == SPINS) {
            pthread_mutex_lock(&pool->sleep);
            atomic_fetch_add(&pool->sleepers, 1);
            while (!has_work(atomic_load(&pool->claim)) && !atomic_load(&pool->stop))
                pthread_cond_wait(&pool->wake, &pool->sleep);
            atomic_fetch_sub(&pool->sleepers, 1);
            pthread_mutex_unlock(&pool->sleep);
        }
        work(pool, w->index);
    }
    return NULL;
}

static void workers_stop(kn_pool *pool)
{
    const int threads = atomic_load(&pool->threads);
    atomic_store(&pool->stop, true);
    pthread_mutex_lock(&pool->sleep);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->sleep);
    for (int i = 0; i < threads - 1; i++)
        pthread_join(pool->workers[i].thread, NULL);
    free(pool->workers);
    pool->workers = NULL;
    atomic_store(&pool->threads, 1);
    atomic_store(&pool->stop, false);
}

/* Starts as many workers as the system gives; fewer is no error. */
static void workers_start(kn_pool *pool, int threads)
{
    pool->workers = threads > 1 ? calloc((size_t)threads - 1, sizeof(worker)) : NULL;
    int started = 0;
    while (pool->workers && started < threads - 1) {
        worker *w = &pool->workers[started];
        *w = (worker){.pool = pool, .index = (unsigned)started + 1};
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0)
            break;
        started++;
    }
    atomic_store(&pool->threads, started + 1);
}

kn_pool *kn_pool_new(int threads)
{
    kn_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return NULL;
    pthread_mutex_init(&pool->owner, NULL);
    pthread_mutex_init(&pool->sleep, NULL);
    pthread_cond_init(&pool->wake, NULL);
    atomic_store(&pool->threads, 1);
    kn_pool_resize(pool, threads);
    return pool;
}

void kn_pool_free(kn_pool *pool)
{
    if (!pool)
        return;
    workers_stop(pool);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->sleep);
    pthread_mutex_destroy(&pool->owner);
    free(pool);
}

int kn_pool_threads(const kn_pool *pool)
{
    return atomic_load_explicit(&pool->threads, memory_order_relaxed);
}

int kn_pool_resize(kn_pool *pool, int threads)
{
    if (threads < 0)
        return KN_BAD_ARGUMENT;
    threads = threads == 0 ? kn_processors() : threads;
    threads = threads > MOST_THREADS ? MOST_THREADS : threads;
    pthread_mutex_lock(&pool->owner);
    workers_stop(pool);
    workers_start(pool, threads);
    pthread_mutex_unlock(&pool->owner);
    return KN_OK;
}

size_t kn_pieces(const kn_cpu *cpu, size_t most, double cost)
{
    const size_t threads = kn_threads(cpu);
    if (threads == 1 || cost < share_ns)
        return 1;
    const size_t worth = (size_t)(cost / (share_ns / 2)), want = kn_min(worth, 4 * threads);
    return want < most ? want : most > 0 ? most : 1;
}

void kn_run(kn_cpu *cpu, size_t n, double cost, kn_piece piece, void *arg)
{
    kn_pool *pool = cpu->pool;
    if (n < 2 || cost < share_ns || kn_threads(cpu) == 1 || pthread_mutex_trylock(&pool->owner) != 0) {
        for (size_t i = 0; i < n; i++)
            piece(arg, i, 0);
        return;
    }
    const size_t step = kn_ceil(n, MASK), claims = kn_ceil(n, step);
    const uint64_t generation = (atomic_load_explicit(&pool->claim, memory_order_relaxed) >> (2 * BITS)) + 1;
    pool->piece = piece;
    pool->arg = arg;
    pool->n = n;
    pool->step = step;
    atomic_store_explicit(&pool->left, (uint32_t)claims, memory_order_relaxed);
    atomic_store(&pool->claim, generation << (2 * BITS) | (uint64_t)claims << BITS);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->sleep);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->sleep);
    }
    work(pool, 0);
    for (int spins = 0; atomic_load_explicit(&pool->left, memory_order_acquire) > 0; spins++) {
        if (spins < SPINS)
            relax();
        else
            sched_yield();
    }
    pthread_mutex_unlock(&pool->owner);
}

int kn_processors(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = CPU_COUNT(&set);
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r"); /* a container's share: "quota period" or "max period" */
    if (f) {
        long quota, period;
        if (fscanf(f, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0 && quota / period < n)
            n = quota / period;
        fclose(f);
    }
#endif
    return n < 1 ? 1 : n > MOST_THREADS ? MOST_THREADS : (int)n;
}
