/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Matrix products: y = x·Wᵀ, dx = dy·W, dW = dyᵀ·x. */
#include "reference.h"

#include <stdlib.h>
#include <string.h>

kn_matrix *REF(matrix_new)(kn_device *device, size_t out, size_t in, bool with_backward)
{
    if (out == 0 || in == 0)
        return NULL;
    kn_matrix *m = malloc(sizeof(*m));
    if (!m)
        return NULL;
    *m = (kn_matrix){.out = out, .in = in, .w = calloc(out * in, sizeof(E))};
    if (!m->w) {
        free(m);
        return NULL;
    }
    return m;
}

kn_matrix *REF(matrix_at)(kn_device *device, const void *w, size_t out, size_t in)
{
    kn_matrix *m = out > 0 && in > 0 ? malloc(sizeof(*m)) : NULL;
    if (m)
        *m = (kn_matrix){.out = out, .in = in, .w = (void *)(uintptr_t)w, .borrowed = true};
    return m;
}

int REF(matrix_set)(kn_device *device, kn_matrix *m, const float *w)
{
    for (size_t i = 0; i < m->out * m->in; i++)
        put(m->w, i, w[i]);
    return KN_OK;
}

void REF(matrix_free)(kn_device *device, kn_matrix *m)
{
    if (!m)
        return;
    if (!m->borrowed)
        free(m->w);
    free(m);
}

int REF(linear)(kn_device *device, void *y, const void *x, const kn_matrix *m, const float *bias, const void *residual,
                size_t T)
{
    for (size_t t = 0; t < T; t++)
        for (size_t o = 0; o < m->out; o++) {
            double sum = 0;
            for (size_t i = 0; i < m->in; i++)
                sum += (double)get(x, t * m->in + i) * get(m->w, o * m->in + i);
            if (bias)
                sum += bias[o];
            if (residual)
                sum += get(residual, t * m->out + o);
            put(y, t * m->out + o, sum);
        }
    return KN_OK;
}

int REF(linear_backward_input)(kn_device *device, void *dx, const void *dy, const kn_matrix *m, size_t T,
                               bool accumulate)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < m->in; i++) {
            double sum = accumulate ? get(dx, t * m->in + i) : 0;
            for (size_t o = 0; o < m->out; o++)
                sum += (double)get(dy, t * m->out + o) * get(m->w, o * m->in + i);
            put(dx, t * m->in + i, sum);
        }
    return KN_OK;
}

int REF(linear_backward_weight)(kn_device *device, float *dw, float *db, const void *dy, const void *x, size_t T,
                                size_t out, size_t in, bool accumulate)
{
    if (!accumulate)
        memset(dw, 0, out * in * sizeof(*dw));
    if (!accumulate && db)
        memset(db, 0, out * sizeof(*db));
    for (size_t t = 0; t < T; t++)
        for (size_t o = 0; o < out; o++) {
            const float d = get(dy, t * out + o);
            for (size_t i = 0; i < in; i++)
                dw[o * in + i] += d * get(x, t * in + i);
            if (db)
                db[o] += d;
        }
    return KN_OK;
}
