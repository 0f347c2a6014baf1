/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Matrix products: y = x·Wᵀ, dx = dy·W, dW = dyᵀ·x. */
#include "reference.h"

#include <stdlib.h>
#include <string.h>

kn_matrix *kn_ref_matrix_new(kn_device *device, kn_dtype dtype, size_t out, size_t in, bool with_backward)
{
    if (dtype != KN_F32 || out == 0 || in == 0)
        return NULL;
    kn_matrix *m = malloc(sizeof(*m));
    if (!m)
        return NULL;
    *m = (kn_matrix){.out = out, .in = in, .w = calloc(out * in, sizeof(float))};
    if (!m->w) {
        free(m);
        return NULL;
    }
    return m;
}

int kn_ref_matrix_set(kn_device *device, kn_matrix *m, const float *w)
{
    memcpy(m->w, w, m->out * m->in * sizeof(float));
    return KN_OK;
}

void kn_ref_matrix_free(kn_device *device, kn_matrix *m)
{
    if (!m)
        return;
    free(m->w);
    free(m);
}

int kn_ref_linear(kn_device *device, float *y, const float *x, const kn_matrix *m, const float *bias,
                  const float *residual, size_t T)
{
    for (size_t t = 0; t < T; t++)
        for (size_t o = 0; o < m->out; o++) {
            double sum = 0;
            for (size_t i = 0; i < m->in; i++)
                sum += (double)x[t * m->in + i] * m->w[o * m->in + i];
            if (bias)
                sum += bias[o];
            if (residual)
                sum += residual[t * m->out + o];
            y[t * m->out + o] = (float)sum;
        }
    return KN_OK;
}

int kn_ref_linear_backward_input(kn_device *device, float *dx, const float *dy, const kn_matrix *m, size_t T,
                                 bool accumulate)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < m->in; i++) {
            double sum = accumulate ? dx[t * m->in + i] : 0;
            for (size_t o = 0; o < m->out; o++)
                sum += (double)dy[t * m->out + o] * m->w[o * m->in + i];
            dx[t * m->in + i] = (float)sum;
        }
    return KN_OK;
}

int kn_ref_linear_backward_weight(kn_device *device, float *dw, float *db, const float *dy, const float *x, size_t T,
                                  size_t out, size_t in)
{
    for (size_t t = 0; t < T; t++)
        for (size_t o = 0; o < out; o++) {
            const float d = dy[t * out + o];
            for (size_t i = 0; i < in; i++)
                dw[o * in + i] += d * x[t * in + i];
            if (db)
                db[o] += d;
        }
    return KN_OK;
}
