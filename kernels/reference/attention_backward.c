/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient of attention, probabilities computed again from the kept log-sum-exp (Dao et al. 2022, "FlashAttention",
 * appendix B.4): with D = Σ dout·out, p = exp(s - lse), ds = p·(dout·v - D),
 *   dq += scale·ds·k,  dk += scale·ds·q,  dv += p·dout.
 */
#include "reference.h"

#include <math.h>
#include <stdlib.h>

/* Query row t (key position at) of head h; the gradients of all rows gather in float32. */
static void query_backward(float *dqkv, const E *dout, const E *qkv, const E *out, float lse, const kn_segment *s,
                           size_t i, size_t h, const kn_attention *a)
{
    const size_t hd = a->head_dim, width = (a->heads + 2 * (size_t)a->kv_heads) * hd, kv = h / (a->heads / a->kv_heads);
    const size_t t = s->row + i, at = s->prefix_count + i;
    const E *q = qkv + t * width + h * hd, *o = out + (t * a->heads + h) * hd, *d = dout + (t * a->heads + h) * hd;
    float *dq = dqkv + t * width + h * hd;
    double dot = 0;
    for (size_t e = 0; e < hd; e++)
        dot += (double)get(d, e) * get(o, e);
    for (size_t j = kn_ref_first_key(a, at); j <= at; j++) {
        const size_t row = kn_ref_key_row(s, j);
        const E *k = qkv + row * width + (a->heads + kv) * hd, *v = k + a->kv_heads * hd;
        float *dk = dqkv + row * width + (a->heads + kv) * hd, *dv = dk + a->kv_heads * hd;
        double score = 0, dp = 0, slope = 1;
        for (size_t e = 0; e < hd; e++) {
            score += (double)get(q, e) * get(k, e);
            dp += (double)get(d, e) * get(v, e);
        }
        score *= a->scale;
        if (a->softcap > 0) {
            const double th = tanh(score / a->softcap);
            score = a->softcap * th;
            slope = 1 - th * th;
        }
        const double p = exp(score - lse), ds = p * (dp - dot) * slope * a->scale;
        for (size_t e = 0; e < hd; e++) {
            dq[e] += (float)(ds * get(k, e));
            dk[e] += (float)(ds * get(q, e));
            dv[e] += (float)(p * get(d, e));
        }
    }
}

int REF(attention_backward)(kn_device *device, void *dqkv, const void *dout, const void *qkv, const void *out,
                            const float *lse, const kn_segment *segment, size_t segments, size_t T,
                            const kn_attention *a)
{
    if (!kn_ref_attention_ok(a) || !kn_ref_segments_ok(segment, segments, T))
        return KN_BAD_ARGUMENT;
    const size_t n = T * (a->heads + 2 * (size_t)a->kv_heads) * a->head_dim;
    float *sums = calloc(n ? n : 1, sizeof(*sums));
    if (!sums)
        return KN_NO_MEMORY;
    for (size_t s = 0; s < segments; s++)
        for (size_t i = 0; i < segment[s].count; i++)
            for (size_t h = 0; h < a->heads; h++)
                query_backward(sums, dout, qkv, out, lse[(segment[s].row + i) * a->heads + h], &segment[s], i, h, a);
    for (size_t i = 0; i < n; i++)
        put(dqkv, i, sums[i]);
    free(sums);
    return KN_OK;
}
