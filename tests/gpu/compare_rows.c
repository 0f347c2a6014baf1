/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Norms, rotary embedding, gates, embedding, dropout, sums, conversions and the optimizer, against the reference. */
#include "compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void check_rows(compare *c, size_t T, size_t d)
{
    const size_t vocab = 11;
    twin x = twin_random(c, c->type, T * d, 2, 1), w = twin_random(c, KN_F32, d, 1, 2);
    twin dy = twin_random(c, c->type, T * d, 1, 3), y = twin_random(c, c->type, T * d, 1, 4);
    twin rstd = twin_random(c, KN_F32, T, 1, 5), dx = twin_random(c, c->type, T * d, 1, 6);
    twin dw = twin_random(c, KN_F32, d, 1, 7), drop = twin_random(c, c->type, T * d, 2, 8);
    twin table = twin_random(c, c->type, vocab * d, 1, 9), taken = twin_random(c, c->type, T * d, 1, 10);
    twin dtable = twin_random(c, KN_F32, vocab * d, 1, 11), scattered = twin_random(c, c->type, vocab * d, 1, 12);
    twin again = twin_random(c, c->type, T * d, 1, 14);
    uint32_t *token = compare_tokens(T, (uint32_t)vocab, 13);
    uint64_t *row_id = compare_memory(T * sizeof(*row_id));
    const uint64_t key[2] = {7, 8};
    for (size_t t = 0; t < T; t++)
        row_id[t] = 1000 + t;
    for (int i = 0; i < SIDES; i++) {
        kn_device *v = c->side[i].device;
        const kn_ops *o = c->side[i].ops;
        compare_ok(c, "rms_norm", o->rms_norm(v, y.at[i], rstd.at[i], x.at[i], w.at[i], T, d, 1e-5f));
        compare_ok(
            c, "rms_norm_backward",
            o->rms_norm_backward(v, dx.at[i], dw.at[i], NULL, dy.at[i], x.at[i], w.at[i], rstd.at[i], T, d, true));
        compare_ok(c, "dropout", o->dropout(v, drop.at[i], T, d, 0.3f, key, row_id));
        compare_ok(c, "embed", o->embed(v, taken.at[i], table.at[i], token, T, d));
        compare_ok(c, "embed_backward", o->embed_backward(v, dtable.at[i], dy.at[i], token, T, d, vocab));
        compare_ok(c, "scatter_add", o->scatter_add(v, scattered.at[i], dy.at[i], token, T < 6 ? T : 6, vocab, d));
    }
    compare_twin(c, "rms_norm", &y, WITHIN_ROUNDING);
    compare_twin(c, "rms_norm, rstd", &rstd, WITHIN_F32);
    compare_twin(c, "rms_norm_backward, dx", &dx, WITHIN_SUM);
    compare_twin(c, "rms_norm_backward, dw", &dw, WITHIN_F32);
    for (int i = 0; i < SIDES; i++)
        compare_ok(c, "rms_norm_backward",
                   c->side[i].ops->rms_norm_backward(c->side[i].device, dx.at[i], dw.at[i], again.at[i], dy.at[i],
                                                     x.at[i], w.at[i], rstd.at[i], T, d, false));
    compare_twin(c, "rms_norm_backward, dx again", &dx, WITHIN_SUM);
    compare_twin(c, "rms_norm_backward, dw, written", &dw, WITHIN_F32);
    compare_same(c, "rms_norm_backward, the norm again", &again, &y);
    compare_twin(c, "dropout", &drop, WITHIN_ROUNDING);
    compare_twin(c, "embed", &taken, WITHIN_NOTHING);
    compare_twin(c, "embed_backward", &dtable, WITHIN_F32);
    compare_twin(c, "scatter_add", &scattered, WITHIN_SUM);
    for (int i = 0; i < SIDES; i++) {
        kn_device *v = c->side[i].device;
        const kn_ops *o = c->side[i].ops;
        compare_ok(c, "add", o->add(v, y.at[i], x.at[i], T * d));
        compare_ok(c, "axpy", o->axpy(v, drop.at[i], 0.7f, dy.at[i], T * d));
    }
    compare_twin(c, "add", &y, WITHIN_SUM); /* of two numbers that were compared before */
    compare_twin(c, "axpy", &drop, WITHIN_SUM);
    const side *s = &c->side[DEVICE];
    token[0] = (uint32_t)vocab;
    compare_true(c, "embed_backward",
                 s->ops->embed_backward(s->device, dtable.at[DEVICE], dy.at[DEVICE], token, T, d, vocab) ==
                     KN_BAD_ARGUMENT,
                 "a token beyond the vocabulary is refused");
    twin *const all[] = {&x, &w, &dy, &y, &rstd, &dx, &dw, &drop, &table, &taken, &dtable, &scattered, &again};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
    free(token);
    free(row_id);
}

static void check_rope(compare *c, size_t T, size_t heads, size_t head_dim)
{
    const size_t stride = (heads + 2) * head_dim, half = head_dim / 2, positions = 200;
    float *table[2] = {compare_memory(positions * half * sizeof(float)),
                       compare_memory(positions * half * sizeof(float))};
    for (size_t p = 0; p < positions; p++)
        for (size_t i = 0; i < half; i++) {
            const double angle = (double)p * pow(10000, -2.0 * (double)i / (double)head_dim);
            table[0][p * half + i] = (float)cos(angle);
            table[1][p * half + i] = (float)sin(angle);
        }
    uint32_t *position = compare_tokens(T, (uint32_t)positions, 1);
    twin cosine = twin_of(c, KN_F32, table[0], positions * half), sine = twin_of(c, KN_F32, table[1], positions * half);
    twin forth = twin_random(c, c->type, T * stride, 1, 2), back = twin_random(c, c->type, T * stride, 1, 3);
    for (int i = 0; i < SIDES; i++) {
        kn_device *v = c->side[i].device;
        const kn_ops *o = c->side[i].ops;
        compare_ok(c, "rope",
                   o->rope(v, forth.at[i], stride, position, cosine.at[i], sine.at[i], T, heads, head_dim, false));
        compare_ok(c, "rope",
                   o->rope(v, back.at[i], stride, position, cosine.at[i], sine.at[i], T, heads, head_dim, true));
    }
    compare_twin(c, "rope", &forth, WITHIN_SUM);
    compare_twin(c, "rope, inverse", &back, WITHIN_SUM);
    twin *const all[] = {&cosine, &sine, &forth, &back};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
    free(table[0]);
    free(table[1]);
    free(position);
}

static void check_swiglu(compare *c, size_t T, size_t f, float scale)
{
    twin x = twin_random(c, c->type, T * 2 * f, scale, 1), dy = twin_random(c, c->type, T * f, 1, 2);
    twin y = twin_random(c, c->type, T * f, 1, 3), dx = twin_random(c, c->type, T * 2 * f, 1, 4);
    twin plain = twin_random(c, c->type, T * 2 * f, 1, 5), again = twin_random(c, c->type, T * f, 1, 6);
    for (int i = 0; i < SIDES; i++) {
        kn_device *v = c->side[i].device;
        const kn_ops *o = c->side[i].ops;
        compare_ok(c, "swiglu", o->swiglu(v, y.at[i], x.at[i], T, f));
        compare_ok(c, "swiglu_backward", o->swiglu_backward(v, dx.at[i], again.at[i], dy.at[i], x.at[i], T, f));
        compare_ok(c, "swiglu_backward", o->swiglu_backward(v, plain.at[i], NULL, dy.at[i], x.at[i], T, f));
    }
    compare_twin(c, "swiglu", &y, WITHIN_SUM);
    compare_twin(c, "swiglu_backward", &dx, WITHIN_SUM);
    compare_same(c, "swiglu_backward, alone", &plain, &dx);
    compare_same(c, "swiglu_backward, the gate again", &again, &y);
    twin *const all[] = {&x, &dy, &y, &dx, &plain, &again};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
}

/* The part of an array of float or bf16 from its element `skip` on: with 1, no vector's address is aligned. */
static float *floats_at(const twin *t, int which, size_t skip)
{
    return (float *)t->at[which] + skip;
}

static uint16_t *halves_at(const twin *t, int which, size_t skip)
{
    return (uint16_t *)t->at[which] + skip;
}

static void check_conversion(compare *c, size_t n, size_t skip)
{
    twin wide = twin_random(c, KN_F32, n, 100, 1), narrow = twin_random(c, KN_BF16, n, 1, 2);
    twin back = twin_random(c, KN_F32, n, 1, 3);
    for (int i = 0; i < SIDES; i++) {
        kn_device *v = c->side[i].device;
        const kn_ops *o = c->side[i].ops;
        compare_ok(c, "to_bf16", o->to_bf16(v, halves_at(&narrow, i, skip), floats_at(&wide, i, skip), n - skip));
        compare_ok(c, "from_bf16", o->from_bf16(v, floats_at(&back, i, skip), halves_at(&narrow, i, skip), n - skip));
    }
    compare_twin(c, "to_bf16", &narrow, WITHIN_NOTHING);
    compare_twin(c, "from_bf16", &back, WITHIN_NOTHING);
    twin *const all[] = {&wide, &narrow, &back};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
}

void compare_rows(compare *c)
{
    static const size_t rows[] = {1, 5, 40, 97}, widths[] = {1, 7, 64, 100, 288}, heads[] = {2, 8, 50, 64, 128};
    for (size_t t = 0; t < sizeof(rows) / sizeof(rows[0]); t++) {
        for (size_t s = 0; s < sizeof(widths) / sizeof(widths[0]); s++)
            check_rows(c, rows[t], widths[s]);
        for (size_t s = 0; s < sizeof(heads) / sizeof(heads[0]); s++)
            check_rope(c, rows[t], 3, heads[s]);
        static const float scales[] = {0.01f, 3, 200}; /* to where exp overflows */
        for (size_t s = 0; s < 3; s++)
            check_swiglu(c, rows[t], widths[s + 1], scales[s]);
    }
    check_conversion(c, 1003, 0);
    check_conversion(c, 1003, 1);
    if (!c->quick) {
        check_rows(c, 700, 896);
        check_rows(c, 300, 4864);
        check_swiglu(c, 700, 4864, 3);
        check_rope(c, 700, 14, 64);
        check_conversion(c, 1000001, 0);
    }
}

/* --- the optimizer --- */

static void check_optimizer(compare *c, size_t n, size_t skip)
{
    float *zero = calloc(n ? n : 1, sizeof(*zero));
    twin w = twin_random(c, KN_F32, n, 1, 1), g = twin_random(c, KN_F32, n, 0.1f, 2);
    twin m = twin_of(c, KN_F32, zero, n), v = twin_of(c, KN_F32, zero, n), scale = twin_of(c, KN_F32, zero, 1);
    twin rounded = twin_of(c, KN_BF16, zero, n), narrow = twin_of(c, KN_BF16, zero, n);
    double sum[SIDES];
    for (int i = 0; i < SIDES; i++) {
        kn_device *d = c->side[i].device;
        const kn_ops *o = c->side[i].ops;
        double *total = o->alloc(d, sizeof(*total)), start = 0.25;
        compare_ok(c, "adamw", total ? KN_OK : KN_NO_MEMORY);
        for (uint64_t step = 1; step <= 3; step++) {
            const kn_adamw a = {.lr = 1e-3f,
                                .beta1 = 0.9f,
                                .beta2 = 0.95f,
                                .eps = 1e-8f,
                                .weight_decay = 0.1f,
                                .step = step,
                                .grad_scale = 0.5f};
            compare_ok(c, "adamw",
                       o->adamw(d, floats_at(&w, i, skip), floats_at(&m, i, skip), floats_at(&v, i, skip),
                                floats_at(&g, i, skip), n - skip, &a));
        }
        o->write(d, total, &start, sizeof(start));
        compare_ok(c, "sum_squares_add", o->sum_squares_add(d, total, floats_at(&g, i, skip), n - skip));
        compare_ok(c, "clip", o->clip(d, scale.at[i], total, -0.5, 0.1));
        o->read(d, &sum[i], total, sizeof(*total));
        const kn_adamw clipped = {.lr = 1e-3f,
                                  .beta1 = 0.9f,
                                  .beta2 = 0.95f,
                                  .eps = 1e-8f,
                                  .step = 4,
                                  .grad_scale = 0.7f,
                                  .scale_at = scale.at[i],
                                  .rounded = (uint16_t *)rounded.at[i] + skip};
        compare_ok(c, "adamw",
                   o->adamw(d, floats_at(&w, i, skip), floats_at(&m, i, skip), floats_at(&v, i, skip),
                            floats_at(&g, i, skip), n - skip, &clipped));
        compare_ok(c, "to_bf16", o->to_bf16(d, (uint16_t *)narrow.at[i] + skip, floats_at(&w, i, skip), n - skip));
        o->free(d, total);
    }
    compare_true(c, "sum_squares_add", fabs(sum[0] - sum[1]) <= 1e-12 * sum[1], "the sum is within 1e-12");
    compare_twin(c, "clip", &scale, WITHIN_F32);
    compare_twin(c, "adamw", &w, WITHIN_F32);
    compare_same(c, "adamw, rounded", &rounded, &narrow);
    compare_twin(c, "adamw, first moment", &m, WITHIN_F32);
    compare_twin(c, "adamw, second moment", &v, WITHIN_F32);
    twin *const all[] = {&w, &g, &m, &v, &scale, &rounded, &narrow};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
    free(zero);
}

void compare_optimizer(compare *c)
{
    static const size_t sizes[] = {1, 17, 4096, 70001};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        check_optimizer(c, sizes[s], 0);
    }
    check_optimizer(c, 4097, 1);
    if (!c->quick)
        check_optimizer(c, 5000003, 0);
}
