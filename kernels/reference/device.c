/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The reference backend's table and its device, which has nothing but the table. */
#include "reference.h"

#include <stdlib.h>

static const char *numerics(const kn_device *device)
{
    return "reference1-f32";
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

static const kn_ops reference_ops = {
    .size = sizeof(kn_ops),
    .numerics = numerics,
    .alloc = device_alloc,
    .free = device_free,
    .threads = threads,
    .set_threads = set_threads,
    .parallel = parallel,
    .matrix_new = kn_ref_matrix_new,
    .matrix_set = kn_ref_matrix_set,
    .matrix_free = kn_ref_matrix_free,
    .linear = kn_ref_linear,
    .linear_backward_input = kn_ref_linear_backward_input,
    .linear_backward_weight = kn_ref_linear_backward_weight,
    .rms_norm = kn_ref_rms_norm,
    .rms_norm_backward = kn_ref_rms_norm_backward,
    .rope = kn_ref_rope,
    .swiglu = kn_ref_swiglu,
    .swiglu_backward = kn_ref_swiglu_backward,
    .embed = kn_ref_embed,
    .embed_backward = kn_ref_embed_backward,
    .dropout = kn_ref_dropout,
    .add = kn_ref_add,
    .axpy = kn_ref_axpy,
    .attention = kn_ref_attention,
    .attention_backward = kn_ref_attention_backward,
    .cache_new = kn_ref_cache_new,
    .cache_free = kn_ref_cache_free,
    .cache_copy_page = kn_ref_cache_copy_page,
    .attention_cached = kn_ref_attention_cached,
    .logprob = kn_ref_logprob,
    .logprob_backward = kn_ref_logprob_backward,
    .logits = kn_ref_logits,
    .choose = kn_ref_choose,
    .sum_squares = kn_ref_sum_squares,
    .adamw = kn_ref_adamw,
};

kn_device *kn_reference_new(void)
{
    kn_device *device = malloc(sizeof(*device));
    if (device)
        device->ops = &reference_ops;
    return device;
}

void kn_reference_free(kn_device *device)
{
    free(device);
}
