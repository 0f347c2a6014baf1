/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What is done to each row by itself: norm, rotary embedding, gated activation, embedding, dropout, sums. */
#include "reference.h"
#include "sluice/random.h"

#include <math.h>
#include <string.h>

/* Zhang & Sennrich 2019, "Root mean square layer normalization", eq. 4. */
int kn_ref_rms_norm(kn_device *device, float *y, float *rstd, const float *x, const float *w, size_t T, size_t d,
                    float eps)
{
    for (size_t t = 0; t < T; t++) {
        const float *row = x + t * d;
        double sum = 0;
        for (size_t i = 0; i < d; i++)
            sum += (double)row[i] * row[i];
        const float r = (float)(1.0 / sqrt(sum / (double)d + eps));
        for (size_t i = 0; i < d; i++)
            y[t * d + i] = row[i] * r * w[i];
        if (rstd)
            rstd[t] = r;
    }
    return KN_OK;
}

/* With r = 1/sqrt(mean(x²) + eps): dx = r·(w·dy) - x·r³·mean(w·dy·x), dw = Σ_t dy·x·r. */
int kn_ref_rms_norm_backward(kn_device *device, float *dx, float *dw, const float *dy, const float *x, const float *w,
                             const float *rstd, size_t T, size_t d)
{
    for (size_t t = 0; t < T; t++) {
        const float *xr = x + t * d, *dyr = dy + t * d;
        const double r = rstd[t];
        double dot = 0;
        for (size_t i = 0; i < d; i++)
            dot += (double)w[i] * dyr[i] * xr[i];
        const double back = r * r * r * dot / (double)d;
        for (size_t i = 0; i < d; i++) {
            dx[t * d + i] += (float)(r * w[i] * dyr[i] - back * xr[i]);
            dw[i] += dyr[i] * (xr[i] * rstd[t]);
        }
    }
    return KN_OK;
}

/* Su et al. 2021, "RoFormer", eq. 34, in the half-split layout of Hugging Face's Llama. */
int kn_ref_rope(kn_device *device, float *x, size_t stride, const uint32_t *position, const float *cos,
                const float *sin, size_t T, size_t heads, size_t head_dim, bool inverse)
{
    const size_t half = head_dim / 2;
    if (head_dim % 2 != 0)
        return KN_BAD_ARGUMENT;
    for (size_t t = 0; t < T; t++)
        for (size_t h = 0; h < heads; h++) {
            float *v = x + t * stride + h * head_dim;
            for (size_t i = 0; i < half; i++) {
                const float c = cos[position[t] * half + i];
                const float s = inverse ? -sin[position[t] * half + i] : sin[position[t] * half + i];
                const float a = v[i], b = v[i + half];
                v[i] = a * c - b * s;
                v[i + half] = b * c + a * s;
            }
        }
    return KN_OK;
}

static double sigmoid(double x)
{
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

/* Shazeer 2020, "GLU variants improve transformer", eq. 6: silu(g)·u, silu(g) = g·σ(g). */
int kn_ref_swiglu(kn_device *device, float *y, const float *gate_up, size_t T, size_t f)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < f; i++) {
            const double g = gate_up[t * 2 * f + i], u = gate_up[t * 2 * f + f + i];
            y[t * f + i] = (float)(g * sigmoid(g) * u);
        }
    return KN_OK;
}

/* d silu(g)/dg = σ(g)·(1 + g·(1 - σ(g))). */
int kn_ref_swiglu_backward(kn_device *device, float *dgate_up, const float *dy, const float *gate_up, size_t T,
                           size_t f)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < f; i++) {
            const double g = gate_up[t * 2 * f + i], u = gate_up[t * 2 * f + f + i], d = dy[t * f + i];
            const double s = sigmoid(g);
            dgate_up[t * 2 * f + i] = (float)(d * u * s * (1 + g * (1 - s)));
            dgate_up[t * 2 * f + f + i] = (float)(d * g * s);
        }
    return KN_OK;
}

int kn_ref_embed(kn_device *device, float *y, const float *table, const uint32_t *token, size_t T, size_t d)
{
    for (size_t t = 0; t < T; t++)
        memcpy(y + t * d, table + token[t] * d, d * sizeof(float));
    return KN_OK;
}

int kn_ref_embed_backward(kn_device *device, float *dtable, const float *dy, const uint32_t *token, size_t T, size_t d,
                          size_t vocab)
{
    for (size_t t = 0; t < T; t++)
        if (token[t] >= vocab)
            return KN_BAD_ARGUMENT;
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < d; i++)
            dtable[token[t] * d + i] += dy[t * d + i];
    return KN_OK;
}

/* Srivastava et al. 2014, inverted: kept elements are divided by 1 - rate. */
int kn_ref_dropout(kn_device *device, float *x, size_t T, size_t d, float rate, const uint64_t key[2],
                   const uint64_t *row_id)
{
    if (!(rate >= 0 && rate < 1))
        return KN_BAD_ARGUMENT;
    const float scale = 1 / (1 - rate);
    for (size_t t = 0; t < T; t++) {
        const uint64_t counter[2] = {0, row_id[t]};
        for (size_t i = 0; i < d; i++) {
            const float u = sluice_uniform_float(sluice_random_item(key, counter, (uint32_t)i));
            x[t * d + i] = u < rate ? 0 : x[t * d + i] * scale;
        }
    }
    return KN_OK;
}

int kn_ref_add(kn_device *device, float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
    return KN_OK;
}

int kn_ref_axpy(kn_device *device, float *y, float a, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
    return KN_OK;
}
