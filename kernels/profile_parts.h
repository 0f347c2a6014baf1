/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What profile.c and the two compilations of profile_ops.c share. */
#ifndef KN_PROFILE_PARTS_H
#define KN_PROFILE_PARTS_H

#include "kernels/profile.h"

#include <pthread.h>

/* The ops that are measured; the device's own (alloc, threads, …) and the freeing ones are passed on. */
/* clang-format off */
#define KN_PROFILED(X) \
    X(matrix_set) X(matrix_bias) X(linear) X(linear_backward_input) X(linear_backward_weight) X(rms_norm) \
    X(rms_norm_backward) X(rope) X(swiglu) X(swiglu_backward) X(embed) X(embed_backward) X(dropout) X(add) \
    X(axpy) X(attention) X(attention_backward) X(cache_copy_page) X(attention_cached) X(logprob) \
    X(logprob_backward) X(logits) X(choose) X(to_bf16) X(from_bf16) X(sum_squares_add) X(clip) X(adamw) \
    X(scatter_add) X(adamw_bf16) X(mean) X(slerp_dots_add) X(slerp) X(write) X(read) X(copy) X(clear) \
    X(step_end)
/* Those that the wrapped device may leave out. */
#define KN_PROFILE_MAYBE(X) X(matrix_at) X(matrix_bias) X(memory) X(refusal) X(step_begin) X(step_end)
/* clang-format on */

#define KN_PROFILE_NUMBER(op) KN_PROFILE_##op,
enum { KN_PROFILED(KN_PROFILE_NUMBER) KN_PROFILE_OPS };
#undef KN_PROFILE_NUMBER

typedef struct kn_profile {
    kn_device base;
    kn_device *inner;
    kn_ops ops[2]; /* [dtype] */
    pthread_mutex_t lock;
    void *word; /* read to wait for a device that works on after a call; NULL on one with host memory */
    kn_profile_row row[2][KN_PROFILE_OPS]; /* [dtype] */
} kn_profile;

double kn_profile_now(void);
void kn_profile_count(kn_profile *, kn_dtype, int op, double since, double flops, double bytes);
/* What the calling thread counts in between is counted as one step_end. */
void kn_profile_step_begin(kn_profile *, double since);
void kn_profile_step_end(kn_profile *, kn_dtype);

const kn_ops *kn_profile_ops_f32(void);
const kn_ops *kn_profile_ops_bf16(void);

#endif
