/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The reference backend's device, which has nothing but its tables, and what does not depend on the element type. */
#include "reference.h"

#include <math.h>
#include <stdlib.h>

bool kn_ref_attention_ok(const kn_attention *a)
{
    return a->heads > 0 && a->kv_heads > 0 && a->head_dim > 0 && a->heads % a->kv_heads == 0 && a->softcap >= 0;
}

bool kn_ref_segments_ok(const kn_segment *s, size_t segments, size_t T)
{
    for (size_t i = 0; i < segments; i++) {
        if (s[i].row > T || s[i].count > T - s[i].row)
            return false;
        if (s[i].prefix_count > 0 && (s[i].prefix > T || s[i].prefix_count > T - s[i].prefix))
            return false;
    }
    return true;
}

double kn_ref_lse(const float *logits, size_t vocab)
{
    double max = -INFINITY, sum = 0;
    for (size_t v = 0; v < vocab; v++)
        max = logits[v] > max ? logits[v] : max;
    for (size_t v = 0; v < vocab; v++)
        sum += exp(logits[v] - max);
    return max + log(sum);
}

kn_device *kn_reference_new(void)
{
    kn_device *device = calloc(1, sizeof(*device));
    if (device)
        *device = (kn_device){
            .ops = kn_ref_ops_table(), .ops_bf16 = kn_ref_bf16_ops_table(), .host_memory = true, .one_answer = true};
    return device;
}

void kn_reference_free(kn_device *device)
{
    free(device);
}
