/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* AdamW, and the sum of squares for clipping. */
#include "ops.h"
#include "scalar.h"
#include "vmath.h"

enum { BLOCK = 4096 }; /* elements whose squares are summed by lanes; blocks are added in order */

typedef struct squares_job {
    const float *x;
    double *sum;
    size_t n, pieces;
} squares_job;

static double squares(const float *x, size_t n)
{
    double lane[16] = {0};
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t l = 0; l < 16; l++)
            lane[l] += (double)x[i + l] * x[i + l];
    for (; i < n; i++)
        lane[i % 16] += (double)x[i] * x[i];
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

static void squares_piece(void *arg, size_t index, unsigned worker)
{
    const squares_job *j = arg;
    const size_t blocks = kn_ceil(j->n, BLOCK);
    for (size_t b = kn_cut(blocks, j->pieces, index); b < kn_cut(blocks, j->pieces, index + 1); b++)
        j->sum[b] = squares(j->x + b * BLOCK, kn_min(BLOCK, j->n - b * BLOCK));
}

int KN(sum_squares_add)(kn_device *device, double *sum, const float *x, size_t n)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.2 * (double)n;
    const size_t blocks = kn_ceil(n, BLOCK);
    squares_job j = {.x = x, .n = n, .pieces = kn_pieces(cpu, blocks, cost)};
    j.sum = kn_scratch_take(cpu, blocks * sizeof(double));
    if (!j.sum)
        return KN_NO_MEMORY;
    kn_run(cpu, j.pieces, cost, squares_piece, &j);
    double all = 0;
    for (size_t b = 0; b < blocks; b++)
        all += j.sum[b];
    *sum += all;
    kn_scratch_give(cpu, j.sum);
    return KN_OK;
}

int KN(clip)(kn_device *device, float *scale, const double *sum, double grad_scale, double max_norm)
{
    const double norm = sqrt(*sum) * fabs(grad_scale);
    if (!isfinite(norm))
        *scale = NAN;
    else
        *scale = (float)(max_norm > 0 && norm > max_norm ? grad_scale * (max_norm / (norm + 1e-6)) : grad_scale);
    return KN_OK;
}

typedef struct adamw_job {
    float *w, *m, *v;
    const float *g;
    size_t n, pieces;
    const kn_adamw *a;
    float scale;            /* of the gradient */
    float rate, root, keep; /* lr / (1 - β1^t), 1 / √(1 - β2^t), 1 - lr·decay */
} adamw_job;

KN_INLINE void adamw_step(const adamw_job *j, V *w, V *m, V *v, V g)
{
    const kn_adamw *a = j->a;
    g = g * v_set1(j->scale);
    *m = v_fma(v_set1(1 - a->beta1), g - *m, *m);
    *v = v_fma(v_set1(a->beta2), *v, v_set1(1 - a->beta2) * (g * g));
    const V down = v_fma(v_sqrt(*v), v_set1(j->root), v_set1(a->eps));
    *w = *w * v_set1(j->keep) - v_set1(j->rate) * *m / down;
}

static void adamw_piece(void *arg, size_t index, unsigned worker)
{
    const adamw_job *j = arg;
    const size_t blocks = kn_ceil(j->n, 16), to = kn_min(j->n, kn_cut(blocks, j->pieces, index + 1) * 16);
    size_t i = kn_cut(blocks, j->pieces, index) * 16;
    for (; i + VN <= to; i += VN) {
        V w = v_load(j->w + i), m = v_load(j->m + i), v = v_load(j->v + i);
        adamw_step(j, &w, &m, &v, v_load(j->g + i));
        v_store(j->w + i, w);
        v_store(j->m + i, m);
        v_store(j->v + i, v);
    }
    if (i < to) {
        const size_t n = to - i;
        V w = v_load_n(j->w + i, n), m = v_load_n(j->m + i, n), v = v_load_n(j->v + i, n);
        adamw_step(j, &w, &m, &v, v_load_n(j->g + i, n));
        v_store_n(j->w + i, w, n);
        v_store_n(j->m + i, m, n);
        v_store_n(j->v + i, v, n);
    }
}

int KN(adamw)(kn_device *device, float *w, float *m, float *v, const float *g, size_t n, const kn_adamw *a)
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (a->step == 0)
        return KN_BAD_ARGUMENT;
    const double cost = 0.7 * (double)n;
    adamw_job j = {.w = w, .m = m, .v = v, .g = g, .n = n, .a = a, .pieces = kn_pieces(cpu, kn_ceil(n, 1024), cost)};
    j.scale = a->scale_at ? a->grad_scale * *a->scale_at : a->grad_scale;
    if (a->scale_at && !isfinite(j.scale))
        return KN_OK;
    j.rate = (float)(a->lr / (1 - kn_power(a->beta1, a->step)));
    j.root = (float)(1 / sqrt(1 - kn_power(a->beta2, a->step)));
    j.keep = (float)(1 - (double)a->lr * a->weight_decay);
    kn_run(cpu, j.pieces, cost, adamw_piece, &j);
    return KN_OK;
}
