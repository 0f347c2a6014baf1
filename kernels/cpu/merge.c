/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Models put together; the formulas stand in kernels/reference/merge.c. */
#include "ops.h"
#include "scalar.h"
#include "vec.h"

enum { BLOCK = 4096 }; /* elements whose products are summed by lanes; blocks are added in order */

typedef struct merge_job {
    float *to;
    const float *const *from;
    const float *weight, *base, *a, *b;
    double (*sum)[3];
    float share_a, share_b;
    size_t count, n, pieces;
} merge_job;

/* Plain loops, which the compiler turns into vector code; no product is contracted with the sum it goes into, since
 * they are in statements of their own. */
static void mean_block(const merge_job *j, size_t at, size_t n)
{
    float sum[BLOCK], share[BLOCK];
    for (size_t i = 0; i < j->count; i++) {
        const float *x = j->from[i] + at;
        const float w = j->weight ? j->weight[i] : 1;
        for (size_t k = 0; k < n; k++)
            share[k] = w * x[k];
        if (i == 0)
            memcpy(sum, share, n * sizeof(*sum));
        else
            for (size_t k = 0; k < n; k++)
                sum[k] += share[k];
    }
    for (size_t k = 0; k < n && !j->weight; k++)
        sum[k] /= (float)j->count;
    memcpy(j->to + at, sum, n * sizeof(*sum));
}

static void mean_piece(void *arg, size_t index, unsigned worker)
{
    const merge_job *j = arg;
    const size_t blocks = kn_ceil(j->n, BLOCK);
    for (size_t b = kn_cut(blocks, j->pieces, index); b < kn_cut(blocks, j->pieces, index + 1); b++)
        mean_block(j, b * BLOCK, kn_min(BLOCK, j->n - b * BLOCK));
}

int KN(mean)(kn_device *device, float *to, const float *const *from, const float *weight, size_t count, size_t n)
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (count == 0)
        return KN_BAD_ARGUMENT;
    const double cost = 0.2 * (double)n * (double)(count + 1);
    merge_job j = {.to = to, .from = from, .weight = weight, .count = count, .n = n};
    j.pieces = kn_pieces(cpu, kn_ceil(n, BLOCK), cost);
    kn_run(cpu, j.pieces, cost, mean_piece, &j);
    return KN_OK;
}

static void dots_block(double sum[3], const float *base, const float *a, const float *b, size_t n)
{
    double lane[3][8] = {{0}};
    for (size_t i = 0; i < n; i++) {
        const double from = base ? base[i] : 0, da = a[i] - from, db = b[i] - from;
        lane[0][i % 8] += da * da;
        lane[1][i % 8] += db * db;
        lane[2][i % 8] += da * db;
    }
    for (int k = 0; k < 3; k++) {
        for (int half = 4; half > 0; half /= 2)
            for (int l = 0; l < half; l++)
                lane[k][l] += lane[k][l + half];
        sum[k] = lane[k][0];
    }
}

static void dots_piece(void *arg, size_t index, unsigned worker)
{
    const merge_job *j = arg;
    const size_t blocks = kn_ceil(j->n, BLOCK);
    for (size_t b = kn_cut(blocks, j->pieces, index); b < kn_cut(blocks, j->pieces, index + 1); b++) {
        const size_t at = b * BLOCK;
        dots_block(j->sum[b], j->base ? j->base + at : NULL, j->a + at, j->b + at, kn_min(BLOCK, j->n - at));
    }
}

int KN(slerp_dots_add)(kn_device *device, double dots[3], const float *base, const float *a, const float *b, size_t n)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.5 * (double)n;
    const size_t blocks = kn_ceil(n, BLOCK);
    merge_job j = {.base = base, .a = a, .b = b, .n = n, .pieces = kn_pieces(cpu, blocks, cost)};
    j.sum = kn_scratch_take(cpu, blocks * sizeof(*j.sum));
    if (!j.sum)
        return KN_NO_MEMORY;
    kn_run(cpu, j.pieces, cost, dots_piece, &j);
    for (int k = 0; k < 3; k++) {
        double all = 0;
        for (size_t i = 0; i < blocks; i++)
            all += j.sum[i][k];
        dots[k] += all;
    }
    kn_scratch_give(cpu, j.sum);
    return KN_OK;
}

static void slerp_piece(void *arg, size_t index, unsigned worker)
{
    const merge_job *j = arg;
    const size_t blocks = kn_ceil(j->n, BLOCK), to = kn_min(j->n, kn_cut(blocks, j->pieces, index + 1) * BLOCK);
    const float *a = j->a, *b = j->b;
    for (size_t i = kn_cut(blocks, j->pieces, index) * BLOCK; i < to; i++) {
        const float from = j->base ? j->base[i] : 0;
        j->to[i] = from + (j->share_a * (a[i] - from) + j->share_b * (b[i] - from));
    }
}

int KN(slerp)(kn_device *device, float *to, const double dots[3], const float *base, const float *a, const float *b,
              double lambda, size_t n)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double norms = sqrt(dots[0]) * sqrt(dots[1]), cosine = norms > 0 ? dots[2] / norms : 1;
    const double angle = acos(fmin(fmax(cosine, -1), 1)), sine = sin(angle), cost = 0.3 * (double)n;
    merge_job j = {.to = to, .base = base, .a = a, .b = b, .n = n};
    j.share_a = (float)(sine < 1e-6 ? 1 - lambda : sin((1 - lambda) * angle) / sine);
    j.share_b = (float)(sine < 1e-6 ? lambda : sin(lambda * angle) / sine);
    j.pieces = kn_pieces(cpu, kn_ceil(n, BLOCK), cost);
    kn_run(cpu, j.pieces, cost, slerp_piece, &j);
    return KN_OK;
}
