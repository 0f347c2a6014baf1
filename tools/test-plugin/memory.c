/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/test-plugin/memory.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS_FEATURE(address_sanitizer) || \
    HAS_FEATURE(thread_sanitizer) || HAS_FEATURE(memory_sanitizer) || !defined(__GLIBC__)
#define OURS 0
#else
#define OURS 1
#endif

static atomic_int freed_mode = TP_FREED_REUSED, fill_byte = -1;
static atomic_long blocks, shift;

bool tp_memory_ours(void)
{
    return OURS;
}

void tp_memory_set(enum tp_freed mode, int fill)
{
    atomic_store(&freed_mode, (int)mode);
    atomic_store(&fill_byte, fill);
}

long tp_memory_blocks(void)
{
    return atomic_load(&blocks);
}

void tp_clock_shift(long seconds)
{
    atomic_store(&shift, seconds);
}

#if OURS
enum { POISON = 0xDB };
/* Poisoned and kept memory is not given back, up to this much. */
#define MOST_HELD (256L << 20)
static atomic_long held;

/* glibc's own, under the names it exports for programs that stand before it. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);
void *memalign(size_t, size_t);

/* Everything below is for the plugin and the C library to find. */
#pragma GCC visibility push(default)

static void *note(void *block, bool fill)
{
    if (block == NULL)
        return NULL;
    const int byte = atomic_load_explicit(&fill_byte, memory_order_relaxed);
    atomic_fetch_add_explicit(&blocks, 1, memory_order_relaxed);
    if (fill && byte >= 0)
        memset(block, byte, malloc_usable_size(block));
    return block;
}

void *malloc(size_t size)
{
    return note(__libc_malloc(size), true);
}

void *calloc(size_t count, size_t size)
{
    return note(__libc_calloc(count, size), false);
}

void *memalign(size_t alignment, size_t size)
{
    return note(__libc_memalign(alignment, size), true);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *block = memalign(alignment, size);
    if (block != NULL)
        *out = block;
    return block != NULL ? 0 : ENOMEM;
}

void free(void *block)
{
    if (block == NULL)
        return;
    const size_t size = malloc_usable_size(block);
    const int mode = atomic_load_explicit(&freed_mode, memory_order_relaxed);
    atomic_fetch_sub_explicit(&blocks, 1, memory_order_relaxed);
    if (mode == TP_FREED_POISONED)
        memset(block, POISON, size);
    if (mode != TP_FREED_REUSED && atomic_fetch_add(&held, (long)size) < MOST_HELD)
        return;
    const int before = errno;
    __libc_free(block);
    errno = before;
}

void *realloc(void *block, size_t size)
{
    if (block == NULL)
        return malloc(size);
    if (size == 0) {
        free(block);
        return NULL;
    }
    if (atomic_load_explicit(&freed_mode, memory_order_relaxed) == TP_FREED_REUSED)
        return __libc_realloc(block, size);
    const size_t had = malloc_usable_size(block);
    void *fresh = malloc(size); /* always moves, so that whoever kept the old address notices */
    if (fresh == NULL)
        return NULL;
    memcpy(fresh, block, had < size ? had : size);
    free(block);
    return fresh;
}

int clock_gettime(clockid_t which, struct timespec *now)
{
    const int rc = (int)syscall(SYS_clock_gettime, which, now);
    if (rc == 0 && which == CLOCK_REALTIME)
        now->tv_sec += atomic_load_explicit(&shift, memory_order_relaxed);
    return rc;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec t;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    *now = (struct timeval){.tv_sec = t.tv_sec, .tv_usec = t.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *out)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out != NULL)
        *out = t.tv_sec;
    return t.tv_sec;
}
#pragma GCC visibility pop
#endif
