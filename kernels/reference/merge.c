/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Models put together, element by element: weighted means, and SLERP of differences (Shoemake 1985, "Animating rotation
 * with quaternion curves", §3.3; of task vectors: Ramé et al. 2024, "WARP", §3.2). */
#include "reference.h"

#include <math.h>

int kn_ref_mean(kn_device *device, float *to, const float *const *from, const float *weight, size_t count, size_t n)
{
    if (count == 0)
        return KN_BAD_ARGUMENT;
    for (size_t k = 0; k < n; k++) {
        float sum = weight ? weight[0] * from[0][k] : from[0][k];
        for (size_t i = 1; i < count; i++) {
            const float share = weight ? weight[i] * from[i][k] : from[i][k];
            sum += share;
        }
        to[k] = weight ? sum : sum / (float)count;
    }
    return KN_OK;
}

static double difference(const float *x, const float *base, size_t i)
{
    return (double)x[i] - (base ? base[i] : 0);
}

int kn_ref_slerp_dots_add(kn_device *device, double dots[3], const float *base, const float *a, const float *b,
                          size_t n)
{
    double sum[3] = {0};
    for (size_t i = 0; i < n; i++) {
        const double da = difference(a, base, i), db = difference(b, base, i);
        sum[0] += da * da;
        sum[1] += db * db;
        sum[2] += da * db;
    }
    for (int k = 0; k < 3; k++)
        dots[k] += sum[k];
    return KN_OK;
}

int kn_ref_slerp(kn_device *device, float *to, const double dots[3], const float *base, const float *a, const float *b,
                 double lambda, size_t n)
{
    const double norms = sqrt(dots[0]) * sqrt(dots[1]), cosine = norms > 0 ? dots[2] / norms : 1;
    const double angle = acos(fmin(fmax(cosine, -1), 1)), sine = sin(angle);
    const double share_a = sine < 1e-6 ? 1 - lambda : sin((1 - lambda) * angle) / sine;
    const double share_b = sine < 1e-6 ? lambda : sin(lambda * angle) / sine;
    for (size_t i = 0; i < n; i++)
        to[i] = (float)((base ? base[i] : 0) + share_a * difference(a, base, i) + share_b * difference(b, base, i));
    return KN_OK;
}
