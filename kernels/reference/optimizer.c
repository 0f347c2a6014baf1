/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* AdamW (Loshchilov & Hutter 2019, algorithm 2, in PyTorch's order) and the sum that gradient clipping needs. */
#include "reference.h"
#include "sluice/random.h"

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

/* What does not depend on the element. */
typedef struct step {
    float scale, rate, root, keep; /* of the gradient, lr / (1 - β1^t), 1 / √(1 - β2^t), 1 - lr·decay */
} step;

static step step_of(const kn_adamw *a)
{
    const double correct1 = 1 - pow(a->beta1, (double)a->step), correct2 = 1 - pow(a->beta2, (double)a->step);
    return (step){a->scale_at ? a->grad_scale * *a->scale_at : a->grad_scale, (float)(a->lr / correct1),
                  (float)(1 / sqrt(correct2)), (float)(1 - (double)a->lr * a->weight_decay)};
}

static void update(float *w, float *m, float *v, float g, const kn_adamw *a, const step *s)
{
    const float gradient = g * s->scale;
    *m = *m + (1 - a->beta1) * (gradient - *m);
    *v = a->beta2 * *v + (1 - a->beta2) * (gradient * gradient);
    *w = *w * s->keep - s->rate * *m / (sqrtf(*v) * s->root + a->eps);
}

int kn_ref_adamw(kn_device *device, float *w, float *m, float *v, const float *g, size_t n, const kn_adamw *a)
{
    if (a->step == 0)
        return KN_BAD_ARGUMENT;
    const step s = step_of(a);
    if (a->scale_at && !isfinite(s.scale))
        return KN_OK;
    for (size_t i = 0; i < n; i++) {
        update(&w[i], &m[i], &v[i], g[i], a, &s);
        if (a->rounded)
            a->rounded[i] = kn_narrow(w[i]);
    }
    return KN_OK;
}

int kn_ref_adamw_bf16(kn_device *device, float *w, uint16_t *m, uint16_t *v, const float *g, size_t n,
                      const kn_adamw *a, const uint64_t key[2], const uint64_t counter[2])
{
    if (a->step == 0 || n > (uint64_t)1 << 32)
        return KN_BAD_ARGUMENT;
    const step s = step_of(a);
    if (a->scale_at && !isfinite(s.scale))
        return KN_OK;
    for (size_t i = 0; i < n; i++) {
        float mi = kn_widen(m[i]), vi = kn_widen(v[i]);
        update(&w[i], &mi, &vi, g[i], a, &s);
        const uint32_t random = sluice_random_item(key, counter, (uint32_t)i);
        m[i] = kn_narrow_random(mi, random);
        v[i] = kn_narrow_random(vi, random >> 16);
        if (a->rounded)
            a->rounded[i] = kn_narrow(w[i]);
    }
    return KN_OK;
}
