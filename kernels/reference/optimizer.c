/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* AdamW (Loshchilov & Hutter 2019, algorithm 2, in PyTorch's order) and the sum that gradient clipping needs. */
#include "reference.h"

#include <math.h>

int kn_ref_sum_squares_add(kn_device *device, double *sum, const float *x, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += (double)x[i] * x[i];
    *sum += s;
    return KN_OK;
}

/* Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", algorithm 1. */
int kn_ref_clip(kn_device *device, float *scale, const double *sum, double grad_scale, double max_norm)
{
    const double norm = sqrt(*sum) * fabs(grad_scale);
    if (!isfinite(norm))
        *scale = NAN;
    else
        *scale = (float)(max_norm > 0 && norm > max_norm ? grad_scale * (max_norm / (norm + 1e-6)) : grad_scale);
    return KN_OK;
}

int kn_ref_adamw(kn_device *device, float *w, float *m, float *v, const float *g, size_t n, const kn_adamw *a)
{
    if (a->step == 0)
        return KN_BAD_ARGUMENT;
    const float scale = a->scale_at ? a->grad_scale * *a->scale_at : a->grad_scale;
    if (a->scale_at && !isfinite(scale))
        return KN_OK;
    const double correct1 = 1 - pow(a->beta1, (double)a->step), correct2 = 1 - pow(a->beta2, (double)a->step);
    const float rate = (float)(a->lr / correct1), root = (float)(1 / sqrt(correct2));
    const float keep = (float)(1 - (double)a->lr * a->weight_decay);
    for (size_t i = 0; i < n; i++) {
        const float gradient = g[i] * scale;
        m[i] = m[i] + (1 - a->beta1) * (gradient - m[i]);
        v[i] = a->beta2 * v[i] + (1 - a->beta2) * (gradient * gradient);
        w[i] = w[i] * keep - rate * m[i] / (sqrtf(v[i]) * root + a->eps);
    }
    return KN_OK;
}
