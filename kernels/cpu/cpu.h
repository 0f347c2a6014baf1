/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU backend, the part that is compiled once: the device, its pool of threads, its scratch memory, the tables of
 * each instruction set. Everything else in this folder is compiled once per instruction set (see vec.h) and offered as
 * one kn_ops table.
 */
#ifndef KN_CPU_H
#define KN_CPU_H

#include "kernels/ops.h"

typedef struct kn_pool kn_pool;
typedef struct kn_scratch kn_scratch;

typedef struct kn_cpu {
    kn_device base;
    kn_pool *pool;
    kn_scratch *scratch;
    struct kn_onednn *onednn;     /* NULL unless asked for: see onednn.h */
    const struct kn_way16 *way16; /* who multiplies bfloat16: see gemm_bf16.h */
    const char *isa;
    char numerics[96], numerics_bf16[96];
} kn_cpu;

/* --- threads (pool.c) --- */

/* One piece of a parallel region: index among its pieces, worker below kn_threads. */
typedef void (*kn_piece)(void *arg, size_t index, unsigned worker);

kn_pool *kn_pool_new(int threads);
void kn_pool_free(kn_pool *);
int kn_pool_threads(const kn_pool *);
int kn_pool_resize(kn_pool *, int threads);
/* Processors this process may use: affinity mask and cgroup quota. */
int kn_processors(void);

/* Runs piece for every index below n; returns when all are done. `cost` is the whole region's work in nanoseconds of
 * one thread, roughly: small regions run on the calling thread alone, as do regions entered while another thread has
 * the pool (so a caller never waits for a stranger's work) and regions within regions. */
void kn_run(kn_cpu *, size_t n, double cost, kn_piece piece, void *arg);
/* Into how many pieces to cut work of that cost that could be cut into `most`: 1 when it is too small to share. */
size_t kn_pieces(const kn_cpu *, size_t most, double cost);
static inline unsigned kn_threads(const kn_cpu *cpu)
{
    return (unsigned)kn_pool_threads(cpu->pool);
}
/* The bounds of piece i when n things are cut into `pieces` nearly equal runs. */
static inline size_t kn_cut(size_t n, size_t pieces, size_t i)
{
    return n / pieces * i + (n % pieces * i) / pieces;
}
static inline size_t kn_ceil(size_t a, size_t b)
{
    return (a + b - 1) / b;
}
static inline size_t kn_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* --- memory (memory.c) --- */

/* 64-byte aligned; large blocks in huge pages where the system gives them. Freed with free(). */
void *kn_memory_new(size_t bytes);
/* Zeros, that take no memory before they are touched; a cache for the longest prompts costs what it holds. */
void *kn_memory_mapped(size_t bytes);
void kn_memory_unmap(void *, size_t bytes);
/* A block for the length of one call, kept for the next. NULL when out of memory. */
void *kn_scratch_take(kn_cpu *, size_t bytes);
void kn_scratch_give(kn_cpu *, void *);
kn_scratch *kn_scratch_new(void);
void kn_scratch_free(kn_scratch *);

/* --- the tables of each instruction set (ops_table.c) --- */

const kn_ops *kn_ops_table_plain(void);
const kn_ops *kn_ops_table_avx2(void);
const kn_ops *kn_ops_table_avx512(void);
const kn_ops *kn_ops_table_neon(void);
const kn_ops *kn_ops_table_bf16_plain(void);
const kn_ops *kn_ops_table_bf16_avx2(void);
const kn_ops *kn_ops_table_bf16_avx512(void);
const kn_ops *kn_ops_table_bf16_neon(void);

#endif
