/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Logits, log-probabilities and their gradient, one row of logits at a time. */
#include "reference.h"

#include <math.h>
#include <stdlib.h>

double kn_ref_lse(const float *logits, size_t vocab)
{
    double max = -INFINITY, sum = 0;
    for (size_t v = 0; v < vocab; v++)
        max = logits[v] > max ? logits[v] : max;
    for (size_t v = 0; v < vocab; v++)
        sum += exp(logits[v] - max);
    return max + log(sum);
}

int kn_ref_logits(kn_device *device, float *logits, const float *h, const kn_matrix *m, size_t T)
{
    return kn_ref_linear(device, logits, h, m, NULL, NULL, T);
}

int kn_ref_logprob(kn_device *device, float *logprob, float *lse, float *entropy, const float *h, const kn_matrix *m,
                   const uint32_t *target, size_t T)
{
    for (size_t t = 0; t < T; t++)
        if (target[t] >= m->out)
            return KN_BAD_ARGUMENT;
    float *logits = malloc(m->out * sizeof(float));
    if (!logits)
        return KN_NO_MEMORY;
    for (size_t t = 0; t < T; t++) {
        kn_ref_linear(device, logits, h + t * m->in, m, NULL, NULL, 1);
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
int kn_ref_logprob_backward(kn_device *device, float *dh, float *dw, const float *dlogprob, const float *h,
                            const kn_matrix *m, const float *lse, const uint32_t *target, size_t T)
{
    for (size_t t = 0; t < T; t++)
        if (target[t] >= m->out)
            return KN_BAD_ARGUMENT;
    float *logits = malloc(m->out * sizeof(float));
    if (!logits)
        return KN_NO_MEMORY;
    for (size_t t = 0; t < T; t++) {
        kn_ref_linear(device, logits, h + t * m->in, m, NULL, NULL, 1);
        for (size_t v = 0; v < m->out; v++)
            logits[v] = (float)(dlogprob[t] * ((v == target[t]) - exp((double)logits[v] - lse[t])));
        kn_ref_linear_backward_input(device, dh + t * m->in, logits, m, 1, false);
        kn_ref_linear_backward_weight(device, dw, NULL, logits, h + t * m->in, 1, m->out, m->in);
    }
    free(logits);
    return KN_OK;
}
