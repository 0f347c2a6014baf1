/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Aligned memory, and scratch blocks that live from call to call so that no op maps and clears pages each time. */
#include "cpu.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { ALIGN = 64, HUGE = 2 << 20 };

void *kn_memory_new(size_t bytes)
{
    void *p = NULL;
    const bool large = bytes >= 2 * (size_t)HUGE;
    if (bytes > SIZE_MAX - HUGE || posix_memalign(&p, large ? HUGE : ALIGN, bytes ? bytes : 1) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (large)
        madvise(p, bytes, MADV_HUGEPAGE); /* saves address-translation misses on weights; a refusal is no error */
#endif
    return p;
}

void *kn_memory_mapped(size_t bytes)
{
    void *p = bytes > 0 ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    if (p == MAP_FAILED)
        return NULL;
#ifdef MADV_HUGEPAGE
    madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

void kn_memory_unmap(void *p, size_t bytes)
{
    munmap(p, bytes);
}

typedef struct block {
    struct block *next;
    size_t bytes;
} block;

struct kn_scratch {
    pthread_mutex_t lock;
    block *free;
};

kn_scratch *kn_scratch_new(void)
{
    kn_scratch *s = calloc(1, sizeof(*s));
    if (s)
        pthread_mutex_init(&s->lock, NULL);
    return s;
}

void kn_scratch_free(kn_scratch *s)
{
    if (!s)
        return;
    while (s->free) {
        block *b = s->free;
        s->free = b->next;
        free(b);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* One block for each thread that is inside a call; a block grows to the most that was ever asked of it. */
void *kn_scratch_take(kn_cpu *cpu, size_t bytes)
{
    kn_scratch *s = cpu->scratch;
    pthread_mutex_lock(&s->lock);
    block *b = s->free;
    if (b)
        s->free = b->next;
    pthread_mutex_unlock(&s->lock);
    if (b && b->bytes < bytes) {
        free(b);
        b = NULL;
    }
    if (!b) {
        if (bytes > SIZE_MAX / 2 || !(b = kn_memory_new(ALIGN + bytes)))
            return NULL;
        b->bytes = bytes;
    }
    return (char *)b + ALIGN;
}

void kn_scratch_give(kn_cpu *cpu, void *p)
{
    if (!p)
        return;
    kn_scratch *s = cpu->scratch;
    block *b = (block *)((char *)p - ALIGN);
    pthread_mutex_lock(&s->lock);
    b->next = s->free;
    s->free = b;
    pthread_mutex_unlock(&s->lock);
}
