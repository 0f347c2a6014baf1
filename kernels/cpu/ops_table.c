/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The op table of one instruction set and element type. */
#include "ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef KN_ELEMENT_BF16
#define KN_ELEMENT KN_BF16
#else
#define KN_ELEMENT KN_F32
#endif

static const char *numerics(const kn_device *device)
{
    return KN_ELEMENT == KN_F32 ? ((const kn_cpu *)device)->numerics : ((const kn_cpu *)device)->numerics_bf16;
}

/* Memory costs more here than a product. */
static size_t logits_kept(kn_device *device, const kn_matrix *m, size_t T)
{
    (void)device, (void)m, (void)T;
    return 0;
}

static size_t row_group(const kn_device *device)
{
    return KN_ELEMENT == KN_F32 ? 1 : ((const kn_cpu *)device)->way16->row_group;
}

static void *device_alloc(kn_device *device, size_t bytes)
{
    return kn_memory_new(bytes);
}

static void device_free(kn_device *device, void *p)
{
    free(p);
}

static int device_write(kn_device *device, void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        memcpy(to, from, bytes);
    return KN_OK;
}

static int device_clear(kn_device *device, void *p, size_t bytes)
{
    if (bytes > 0)
        memset(p, 0, bytes);
    return KN_OK;
}

static const char *device_error(kn_device *device)
{
    return NULL;
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
    .dtype = KN_ELEMENT,
    .numerics = numerics,
    .alloc = device_alloc,
    .free = device_free,
    .write = device_write,
    .read = device_write,
    .copy = device_write,
    .clear = device_clear,
    .error = device_error,
    .row_group = row_group,
    .threads = threads,
    .set_threads = set_threads,
    .parallel = parallel,
    .matrix_new = KE(matrix_new),
    .matrix_set = KE(matrix_set),
    .matrix_free = KE(matrix_free),
    .linear = KE(linear),
    .linear_backward_input = KE(linear_backward_input),
    .linear_backward_weight = KE(linear_backward_weight),
    .rms_norm = KE(rms_norm),
    .rms_norm_backward = KE(rms_norm_backward),
    .rope = KE(rope),
    .swiglu = KE(swiglu),
    .swiglu_backward = KE(swiglu_backward),
    .embed = KE(embed),
    .embed_backward = KE(embed_backward),
    .scatter_add = KE(scatter_add),
    .dropout = KE(dropout),
    .add = KE(add),
    .axpy = KE(axpy),
    .attention = KE(attention),
    .attention_backward = KE(attention_backward),
    .cache_new = KE(cache_new),
    .cache_free = KE(cache_free),
    .cache_copy_page = KE(cache_copy_page),
    .attention_cached = KE(attention_cached),
    .logprob = KN(logprob),
    .logprob_backward = KN(logprob_backward),
    .logits_kept = logits_kept,
    .logits = KN(logits),
    .choose = KN(choose),
    .to_bf16 = KN(to_bf16),
    .from_bf16 = KN(from_bf16),
    .sum_squares_add = KN(sum_squares_add),
    .clip = KN(clip),
    .adamw = KN(adamw),
    .adamw_bf16 = KN(adamw_bf16),
    .mean = KN(mean),
    .slerp_dots_add = KN(slerp_dots_add),
    .slerp = KN(slerp),
};

const kn_ops *KE(ops_table)(void)
{
    return &table;
}
