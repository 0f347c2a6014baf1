/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Logits, log-probabilities and their gradient, one row of logits at a time. */
#include "reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void logits_row(float *logits, const E *h, const kn_matrix *m)
{
    for (size_t v = 0; v < m->out; v++) {
        double sum = 0;
        for (size_t i = 0; i < m->in; i++)
            sum += (double)get(h, i) * get(m->w, v * m->in + i);
        logits[v] = (float)sum;
    }
}

int REF(logits)(kn_device *device, float *logits, const void *h, const kn_matrix *m, size_t T)
{
    for (size_t t = 0; t < T; t++)
        logits_row(logits + t * m->out, at(h, t * m->in), m);
    return KN_OK;
}

int REF(logprob)(kn_device *device, float *logprob, float *lse, float *entropy, const void *h, const kn_matrix *m,
                 const uint32_t *target, size_t T, float *kept)
{
    (void)kept; /* logits_kept gives 0 */
    for (size_t t = 0; t < T; t++)
        if (target[t] >= m->out)
            return KN_BAD_ARGUMENT;
    float *logits = malloc(m->out * sizeof(float));
    if (!logits)
        return KN_NO_MEMORY;
    for (size_t t = 0; t < T; t++) {
        logits_row(logits, at(h, t * m->in), m);
        const double total = kn_ref_lse(logits, m->out);
        logprob[t] = (float)(logits[target[t]] - total);
        if (lse)
            lse[t] = (float)total;
        if (entropy) {
            double sum = 0; /* -Σ p·log p */
            for (size_t v = 0; v < m->out; v++) {
                const double p = exp(logits[v] - total);
                sum += p > 0 ? p * (total - logits[v]) : 0;
            }
            entropy[t] = (float)sum;
        }
    }
    free(logits);
    return KN_OK;
}

/* d logprob/d logit[v] = [v = target] - p(v). */
int REF(logprob_backward)(kn_device *device, void *dh, float *dw, const float *dlogprob, const void *h,
                          const kn_matrix *m, const float *lse, const uint32_t *target, size_t T, bool accumulate,
                          float *kept)
{
    (void)kept;
    for (size_t t = 0; t < T; t++)
        if (target[t] >= m->out)
            return KN_BAD_ARGUMENT;
    float *logits = malloc(m->out * sizeof(float));
    if (!logits)
        return KN_NO_MEMORY;
    if (!accumulate)
        memset(dw, 0, m->out * m->in * sizeof(*dw));
    for (size_t t = 0; t < T; t++) {
        logits_row(logits, at(h, t * m->in), m);
        for (size_t v = 0; v < m->out; v++)
            logits[v] = (float)(dlogprob[t] * ((v == target[t]) - exp((double)logits[v] - lse[t])));
        for (size_t i = 0; i < m->in; i++) {
            double sum = 0;
            for (size_t v = 0; v < m->out; v++)
                sum += (double)logits[v] * get(m->w, v * m->in + i);
            put(dh, t * m->in + i, sum);
        }
        for (size_t v = 0; v < m->out; v++)
            for (size_t i = 0; i < m->in; i++)
                dw[v * m->in + i] += logits[v] * get(h, t * m->in + i);
    }
    free(logits);
    return KN_OK;
}
