/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The op table of one instruction set. */
#include "ops.h"

#include <math.h>
#include <stdlib.h>

static const char *numerics(const kn_device *device)
{
    return ((const kn_cpu *)device)->numerics;
}

static const char *numerics_bf16(const kn_device *device)
{
    return ((const kn_cpu *)device)->numerics_bf16;
}

static void *device_alloc(kn_device *device, size_t bytes)
{
    return kn_memory(bytes);
}

static void device_free(kn_device *device, void *p)
{
    free(p);
}

static int threads(const kn_device *device)
{
    return (int)kn_threads((const kn_cpu *)device);
}

static int set_threads(kn_device *device, int n)
{
    return kn_pool_resize(((kn_cpu *)device)->pool, n);
}

typedef struct task_job {
    kn_task task;
    void *arg;
    size_t n, grain;
} task_job;

static void task_piece(void *arg, size_t index, unsigned worker)
{
    const task_job *j = arg;
    j->task(j->arg, index * j->grain, kn_min(j->n, (index + 1) * j->grain));
}

static void parallel(kn_device *device, size_t n, size_t grain, kn_task task, void *arg)
{
    if (n == 0)
        return;
    const task_job j = {task, arg, n, grain > 0 ? grain : 1};
    kn_run((kn_cpu *)device, kn_ceil(n, j.grain), INFINITY, task_piece, (void *)&j);
}

static const kn_ops table = {
    .size = sizeof(kn_ops),
    .dtype = KN_F32,
    .numerics = numerics,
    .alloc = device_alloc,
    .free = device_free,
    .threads = threads,
    .set_threads = set_threads,
    .parallel = parallel,
    .matrix_new = KN(matrix_new),
    .matrix_set = KN(matrix_set),
    .matrix_free = KN(matrix_free),
    .linear = KN(linear),
    .linear_backward_input = KN(linear_backward_input),
    .linear_backward_weight = KN(linear_backward_weight),
    .rms_norm = KN(rms_norm),
    .rms_norm_backward = KN(rms_norm_backward),
    .rope = KN(rope),
    .swiglu = KN(swiglu),
    .swiglu_backward = KN(swiglu_backward),
    .embed = KN(embed),
    .embed_backward = KN(embed_backward),
    .dropout = KN(dropout),
    .add = KN(add),
    .axpy = KN(axpy),
    .attention = KN(attention),
    .attention_backward = KN(attention_backward),
    .cache_new = KN(cache_new),
    .cache_free = KN(cache_free),
    .cache_copy_page = KN(cache_copy_page),
    .attention_cached = KN(attention_cached),
    .logprob = KN(logprob),
    .logprob_backward = KN(logprob_backward),
    .logits = KN(logits),
    .choose = KN(choose),
    .to_bf16 = KN(to_bf16),
    .from_bf16 = KN(from_bf16),
    .sum_squares = KN(sum_squares),
    .adamw = KN(adamw),
};

const kn_ops *KN(ops_table)(void)
{
    return &table;
}

/* The products of bfloat16, and what the two types share. */
static const kn_ops table_bf16 = {
    .size = sizeof(kn_ops),
    .dtype = KN_BF16,
    .numerics = numerics_bf16,
    .alloc = device_alloc,
    .free = device_free,
    .threads = threads,
    .set_threads = set_threads,
    .parallel = parallel,
    .matrix_new = KN(matrix_new_bf16),
    .matrix_set = KN(matrix_set_bf16),
    .matrix_free = KN(matrix_free_bf16),
    .linear = KN(linear_bf16),
    .linear_backward_input = KN(linear_backward_input_bf16),
    .linear_backward_weight = KN(linear_backward_weight_bf16),
    .logprob = KN(logprob),
    .logprob_backward = KN(logprob_backward),
    .logits = KN(logits),
    .choose = KN(choose),
    .to_bf16 = KN(to_bf16),
    .from_bf16 = KN(from_bf16),
    .sum_squares = KN(sum_squares),
    .adamw = KN(adamw),
};

const kn_ops *KN(ops_table_bf16)(void)
{
    return &table_bf16;
}
