/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What is done to each row by itself: norm, rotary embedding, gated activation, embedding, dropout, sums. */
#include "reference.h"
#include "sluice/random.h"

#include <math.h>
#include <string.h>

/* Zhang & Sennrich 2019, "Root mean square layer normalization", eq. 4. */
int REF(rms_norm)(kn_device *device, void *y, float *rstd, const void *x, const float *w, size_t T, size_t d, float eps)
{
    for (size_t t = 0; t < T; t++) {
        double sum = 0;
        for (size_t i = 0; i < d; i++)
            sum += (double)get(x, t * d + i) * get(x, t * d + i);
        const float r = (float)(1.0 / sqrt(sum / (double)d + eps));
        for (size_t i = 0; i < d; i++)
            put(y, t * d + i, get(x, t * d + i) * r * w[i]);
        if (rstd)
            rstd[t] = r;
    }
    return KN_OK;
}

/* With r = 1/sqrt(mean(x²) + eps): dx = r·(w·dy) - x·r³·mean(w·dy·x), dw = Σ_t dy·x·r. */
int REF(rms_norm_backward)(kn_device *device, void *dx, float *dw, void *y, const void *dy, const void *x,
                           const float *w, const float *rstd, size_t T, size_t d, bool accumulate)
{
    if (!accumulate)
        memset(dw, 0, d * sizeof(*dw));
    for (size_t t = 0; t < T; t++) {
        const double r = rstd[t];
        double dot = 0;
        for (size_t i = 0; i < d; i++)
            dot += (double)w[i] * get(dy, t * d + i) * get(x, t * d + i);
        const double back = r * r * r * dot / (double)d;
        for (size_t i = 0; i < d; i++) {
            const float xi = get(x, t * d + i), dyi = get(dy, t * d + i);
            put(dx, t * d + i, get(dx, t * d + i) + (float)(r * w[i] * dyi - back * xi));
            dw[i] += dyi * (xi * rstd[t]);
            if (y)
                put(y, t * d + i, xi * rstd[t] * w[i]);
        }
    }
    return KN_OK;
}

/* Su et al. 2021, "RoFormer", eq. 34, in the half-split layout of Hugging Face's Llama. */
int REF(rope)(kn_device *device, void *x, size_t stride, const uint32_t *position, const float *cos, const float *sin,
              size_t T, size_t heads, size_t head_dim, bool inverse)
{
    const size_t half = head_dim / 2;
    if (head_dim % 2 != 0)
        return KN_BAD_ARGUMENT;
    for (size_t t = 0; t < T; t++)
        for (size_t h = 0; h < heads; h++) {
            E *v = (E *)x + t * stride + h * head_dim;
            for (size_t i = 0; i < half; i++) {
                const float c = cos[position[t] * half + i];
                const float s = inverse ? -sin[position[t] * half + i] : sin[position[t] * half + i];
                const float a = get(v, i), b = get(v, i + half);
                put(v, i, a * c - b * s);
                put(v, i + half, b * c + a * s);
            }
        }
    return KN_OK;
}

static double sigmoid(double x)
{
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

/* Shazeer 2020, "GLU variants improve transformer", eq. 6: silu(g)·u, silu(g) = g·σ(g). */
int REF(swiglu)(kn_device *device, void *y, const void *gate_up, size_t T, size_t f)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < f; i++) {
            const double g = get(gate_up, t * 2 * f + i), u = get(gate_up, t * 2 * f + f + i);
            put(y, t * f + i, g * sigmoid(g) * u);
        }
    return KN_OK;
}

/* d silu(g)/dg = σ(g)·(1 + g·(1 - σ(g))). */
int REF(swiglu_backward)(kn_device *device, void *dgate_up, void *y, const void *dy, const void *gate_up, size_t T,
                         size_t f)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < f; i++) {
            const double g = get(gate_up, t * 2 * f + i), u = get(gate_up, t * 2 * f + f + i), d = get(dy, t * f + i);
            const double s = sigmoid(g);
            put(dgate_up, t * 2 * f + i, d * u * s * (1 + g * (1 - s)));
            put(dgate_up, t * 2 * f + f + i, d * g * s);
            if (y)
                put(y, t * f + i, g * s * u);
        }
    return KN_OK;
}

int REF(embed)(kn_device *device, void *y, const void *table, const uint32_t *token, size_t T, size_t d)
{
    for (size_t t = 0; t < T; t++)
        memcpy((E *)y + t * d, at(table, token[t] * d), d * sizeof(E));
    return KN_OK;
}

int REF(embed_backward)(kn_device *device, float *dtable, const void *dy, const uint32_t *token, size_t T, size_t d,
                        size_t vocab)
{
    for (size_t t = 0; t < T; t++)
        if (token[t] >= vocab)
            return KN_BAD_ARGUMENT;
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < d; i++)
            dtable[token[t] * d + i] += get(dy, t * d + i);
    return KN_OK;
}

int REF(scatter_add)(kn_device *device, void *y, const void *x, const uint32_t *row, size_t S, size_t T, size_t d)
{
    for (size_t s = 0; s < S; s++)
        if (row[s] >= T)
            return KN_BAD_ARGUMENT;
    for (size_t s = 0; s < S; s++)
        for (size_t i = 0; i < d; i++)
            put(y, row[s] * d + i, get(y, row[s] * d + i) + get(x, s * d + i));
    return KN_OK;
}

/* Srivastava et al. 2014, inverted: kept elements are divided by 1 - rate. */
int REF(dropout)(kn_device *device, void *x, size_t T, size_t d, float rate, const uint64_t key[2],
                 const uint64_t *row_id)
{
    if (!(rate >= 0 && rate < 1))
        return KN_BAD_ARGUMENT;
    const float scale = 1 / (1 - rate);
    for (size_t t = 0; t < T; t++) {
        const uint64_t counter[2] = {0, row_id[t]};
        for (size_t i = 0; i < d; i++) {
            const float u = sluice_uniform_float(sluice_random_item(key, counter, (uint32_t)i));
            put(x, t * d + i, u < rate ? 0 : get(x, t * d + i) * scale);
        }
    }
    return KN_OK;
}

int REF(add)(kn_device *device, void *y, const void *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(y, i, get(y, i) + get(x, i));
    return KN_OK;
}

int REF(axpy)(kn_device *device, void *y, float a, const void *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(y, i, get(y, i) + a * get(x, i));
    return KN_OK;
}
