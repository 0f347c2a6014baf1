/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The reference backend's table of one element type. */
#include "reference.h"

#include <stdlib.h>
#include <string.h>

static const char *numerics(const kn_device *device)
{
    return ELEMENT == KN_BF16 ? "reference1-bf16" : "reference1-f32";
}

static size_t logits_kept(kn_device *device, const kn_matrix *m, size_t T)
{
    (void)device, (void)m, (void)T;
    return 0;
}

static size_t row_group(const kn_device *device)
{
    return 1;
}

static void *device_alloc(kn_device *device, size_t bytes)
{
    void *p = NULL;
    return posix_memalign(&p, 64, bytes ? bytes : 1) == 0 ? p : NULL;
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
    return 1;
}

static int set_threads(kn_device *device, int n)
{
    return n < 0 ? KN_BAD_ARGUMENT : KN_OK;
}

static void parallel(kn_device *device, size_t n, size_t grain, kn_task task, void *arg)
{
    if (n > 0)
        task(arg, 0, n);
}

static const kn_ops table = {
    .size = sizeof(kn_ops),
    .dtype = ELEMENT,
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
    .matrix_new = REF(matrix_new),
    .matrix_at = REF(matrix_at),
    .matrix_set = REF(matrix_set),
    .matrix_free = REF(matrix_free),
    .linear = REF(linear),
    .linear_backward_input = REF(linear_backward_input),
    .linear_backward_weight = REF(linear_backward_weight),
    .rms_norm = REF(rms_norm),
    .rms_norm_backward = REF(rms_norm_backward),
    .rope = REF(rope),
    .swiglu = REF(swiglu),
    .swiglu_backward = REF(swiglu_backward),
    .embed = REF(embed),
    .embed_backward = REF(embed_backward),
    .scatter_add = REF(scatter_add),
    .dropout = REF(dropout),
    .add = REF(add),
    .axpy = REF(axpy),
    .attention = REF(attention),
    .attention_backward = REF(attention_backward),
    .cache_new = REF(cache_new),
    .cache_free = REF(cache_free),
    .cache_copy_page = REF(cache_copy_page),
    .attention_cached = REF(attention_cached),
    .logprob = REF(logprob),
    .logprob_backward = REF(logprob_backward),
    .logits_kept = logits_kept,
    .logits = REF(logits),
    .choose = kn_ref_choose,
    .to_bf16 = kn_ref_to_bf16,
    .from_bf16 = kn_ref_from_bf16,
    .sum_squares_add = kn_ref_sum_squares_add,
    .clip = kn_ref_clip,
    .adamw = kn_ref_adamw,
    .adamw_bf16 = kn_ref_adamw_bf16,
    .mean = kn_ref_mean,
    .slerp_dots_add = kn_ref_slerp_dots_add,
    .slerp = kn_ref_slerp,
};

const kn_ops *REF(ops_table)(void)
{
    return &table;
}
