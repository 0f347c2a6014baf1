/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* AdamW, and the sum of squares for clipping. */
#include "draw.h"
#include "ops.h"
#include "scalar.h"
#include "kernels/bf16.h"

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
    uint16_t *m16, *v16; /* instead of m and v */
    const float *g;
    size_t n, pieces;
    const kn_adamw *a;
    kn_draw draw;
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
        if (j->a->rounded)
            v_store_bf16(j->a->rounded + i, w);
    }
    if (i < to) {
        const size_t n = to - i;
        V w = v_load_n(j->w + i, n), m = v_load_n(j->m + i, n), v = v_load_n(j->v + i, n);
        adamw_step(j, &w, &m, &v, v_load_n(j->g + i, n));
        v_store_n(j->w + i, w, n);
        v_store_n(j->m + i, m, n);
        v_store_n(j->v + i, v, n);
        if (j->a->rounded)
            v_store_bf16_n(j->a->rounded + i, w, n);
    }
}

/* KN_OK: go on. */
static int adamw_begin(adamw_job *j, const kn_adamw *a)
{
    j->a = a;
    j->scale = a->scale_at ? a->grad_scale * *a->scale_at : a->grad_scale;
    j->rate = (float)(a->lr / (1 - kn_power(a->beta1, a->step)));
    j->root = (float)(1 / sqrt(1 - kn_power(a->beta2, a->step)));
    j->keep = (float)(1 - (double)a->lr * a->weight_decay);
    return a->step == 0 ? KN_BAD_ARGUMENT : KN_OK;
}

static bool adamw_skips(const adamw_job *j)
{
    return j->a->scale_at && !isfinite(j->scale);
}

int KN(adamw)(kn_device *device, float *w, float *m, float *v, const float *g, size_t n, const kn_adamw *a)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.7 * (double)n;
    adamw_job j = {.w = w, .m = m, .v = v, .g = g, .n = n, .pieces = kn_pieces(cpu, kn_ceil(n, 1024), cost)};
    const int status = adamw_begin(&j, a);
    if (status == KN_OK && !adamw_skips(&j))
        kn_run(cpu, j.pieces, cost, adamw_piece, &j);
    return status;
}

/* --- moments in bfloat16: sixty-four elements share sixteen counters --- */

static void adamw_block(const adamw_job *j, size_t at, size_t n)
{
    float w[64], g[64], m[64], v[64];
    uint32_t random[64];
    for (size_t i = 0; i < NW; i++) {
        VU word[4];
        draw_words(word, &j->draw, (VU)(vi_iota() + (int32_t)(at / 4 + i * VN)));
        for (size_t k = 0; k < 4; k++)
            memcpy(random + 16 * k + i * VN, &word[k], sizeof(word[k]));
    }
    for (size_t i = 0; i < 64; i++) {
        w[i] = i < n ? j->w[at + i] : 0;
        g[i] = i < n ? j->g[at + i] : 0;
        m[i] = i < n ? kn_widen(j->m16[at + i]) : 0;
        v[i] = i < n ? kn_widen(j->v16[at + i]) : 0;
    }
    for (size_t i = 0; i < 64; i += VN) {
        V wv = v_load(w + i), mv = v_load(m + i), vv = v_load(v + i);
        adamw_step(j, &wv, &mv, &vv, v_load(g + i));
        v_store(w + i, wv);
        v_store(m + i, mv);
        v_store(v + i, vv);
    }
    for (size_t i = 0; i < n; i++) {
        j->w[at + i] = w[i];
        j->m16[at + i] = kn_narrow_random(m[i], random[i]);
        j->v16[at + i] = kn_narrow_random(v[i], random[i] >> 16);
        if (j->a->rounded)
            j->a->rounded[at + i] = kn_narrow(w[i]);
    }
}

static void adamw_bf16_piece(void *arg, size_t index, unsigned worker)
{
    const adamw_job *j = arg;
    const size_t blocks = kn_ceil(j->n, 64);
    for (size_t b = kn_cut(blocks, j->pieces, index); b < kn_cut(blocks, j->pieces, index + 1); b++)
        adamw_block(j, b * 64, kn_min(64, j->n - b * 64));
}

int KN(adamw_bf16)(kn_device *device, float *w, uint16_t *m, uint16_t *v, const float *g, size_t n, const kn_adamw *a,
                   const uint64_t key[2], const uint64_t counter[2])
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (n > (uint64_t)1 << 32)
        return KN_BAD_ARGUMENT;
    const double cost = 2.0 * (double)n;
    adamw_job j = {.w = w,
                   .m16 = m,
                   .v16 = v,
                   .g = g,
                   .n = n,
                   .draw = kn_draw_of(key, counter),
                   .pieces = kn_pieces(cpu, kn_ceil(n, 1024), cost)};
    const int status = adamw_begin(&j, a);
    if (status == KN_OK && !adamw_skips(&j))
        kn_run(cpu, j.pieces, cost, adamw_bf16_piece, &j);
    return status;
}
