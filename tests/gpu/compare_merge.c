/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Merges, AdamW with bfloat16 moments, and rows of lengths and addresses that allow no wide loads. */
#include "compare.h"

#include <math.h>
#include <stdlib.h>

static void check_mean(compare *c, size_t n, size_t from_element)
{
    static const float weight[] = {0.2f, 0.5f, 0.3f};
    twin x[3], to[2];
    for (int i = 0; i < 3; i++)
        x[i] = twin_random(c, KN_F32, n + from_element, 1, 1 + (uint64_t)i);
    for (int i = 0; i < 2; i++)
        to[i] = twin_random(c, KN_F32, n, 1, 9);
    for (int s = 0; s < SIDES; s++) {
        const float *from[3];
        for (int i = 0; i < 3; i++)
            from[i] = (const float *)x[i].at[s] + from_element; /* may be no multiple of 16 bytes */
        kn_device *d = c->side[s].device;
        compare_ok(c, "mean", c->side[s].ops->mean(d, to[0].at[s], from, weight, 3, n));
        compare_ok(c, "mean", c->side[s].ops->mean(d, to[1].at[s], from, NULL, 3, n));
    }
    compare_twin(c, "mean", &to[0], WITHIN_NOTHING);
    compare_twin(c, "mean", &to[1], WITHIN_NOTHING);
    for (int i = 0; i < 3; i++)
        twin_free(c, &x[i]);
    for (int i = 0; i < 2; i++)
        twin_free(c, &to[i]);
}

static void check_slerp(compare *c, size_t n, bool with_base, double lambda, size_t from_element)
{
    twin base = twin_random(c, KN_F32, n + from_element, 1, 1), a = twin_random(c, KN_F32, n + from_element, 1, 2);
    twin b = twin_random(c, KN_F32, n + from_element, 1, 3), to = twin_random(c, KN_F32, n, 1, 4);
    for (int s = 0; s < SIDES; s++) {
        kn_device *d = c->side[s].device;
        const kn_ops *o = c->side[s].ops;
        double *dots = o->alloc(d, 3 * sizeof(*dots));
        const float *x = with_base ? (const float *)base.at[s] + from_element : NULL;
        const float *y = (const float *)a.at[s] + from_element, *z = (const float *)b.at[s] + from_element;
        compare_ok(c, "slerp", dots ? o->clear(d, dots, 3 * sizeof(*dots)) : KN_NO_MEMORY);
        compare_ok(c, "slerp_dots_add", o->slerp_dots_add(d, dots, x, y, z, n));
        compare_ok(c, "slerp", o->slerp(d, to.at[s], dots, x, y, z, lambda, n));
        o->free(d, dots);
    }
    compare_twin(c, "slerp", &to, WITHIN_F32);
    twin *const all[] = {&base, &a, &b, &to};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
}

/* The part from element `skip` on; the rest stays as it was. */
static void check_moments(compare *c, size_t n, size_t skip)
{
    static const uint64_t key[2] = {5, 6}, counter[2] = {UINT64_C(3) << 32, 0};
    twin w = twin_random(c, KN_F32, n, 1, 1), g = twin_random(c, KN_F32, n, 0.1f, 2);
    float *zero = calloc(n + 1, sizeof(*zero)), *moment[2][SIDES];
    twin m = twin_of(c, KN_BF16, zero, n), v = twin_of(c, KN_BF16, zero, n);
    twin rounded = twin_of(c, KN_BF16, zero, n), narrow = twin_of(c, KN_BF16, zero, n);
    for (int s = 0; s < SIDES; s++) {
        const kn_adamw a = {.lr = 1e-3f,
                            .beta1 = 0.9f,
                            .beta2 = 0.95f,
                            .eps = 1e-8f,
                            .weight_decay = 0.1f,
                            .step = 1,
                            .grad_scale = 0.5f,
                            .rounded = (uint16_t *)rounded.at[s] + skip};
        kn_device *d = c->side[s].device;
        compare_ok(c, "adamw_bf16",
                   c->side[s].ops->adamw_bf16(d, (float *)w.at[s] + skip, (uint16_t *)m.at[s] + skip,
                                              (uint16_t *)v.at[s] + skip, (float *)g.at[s] + skip, n - skip, &a, key,
                                              counter));
        compare_ok(c, "to_bf16",
                   c->side[s].ops->to_bf16(d, (uint16_t *)narrow.at[s] + skip, (float *)w.at[s] + skip, n - skip));
        moment[0][s] = twin_read(c, &m, s);
        moment[1][s] = twin_read(c, &v, s);
    }
    compare_twin(c, "adamw_bf16", &w, WITHIN_F32);
    compare_same(c, "adamw_bf16, rounded", &rounded, &narrow);
    size_t other = 0;
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < n; i++) {
            const float x = moment[k][DEVICE][i], y = moment[k][REFERENCE][i];
            other += x != y; /* a last digit of the unrounded number may tip the rounding, by one unit */
            compare_true(c, "adamw_bf16", fabsf(x - y) <= 0x1p-7f * fabsf(y), "moments are within a unit");
        }
    compare_true(c, "adamw_bf16", other * 1000 <= n + 1000, "moments round the same way");
    for (int k = 0; k < 2; k++)
        for (int s = 0; s < SIDES; s++)
            free(moment[k][s]);
    twin *const all[] = {&w, &g, &m, &v, &rounded, &narrow};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
    free(zero);
}

/* An op on the inside of an array: its address is no multiple of 16 bytes. */
static void check_inside(compare *c, size_t n)
{
    const size_t size = c->type == KN_F32 ? 4 : 2;
    twin x = twin_random(c, c->type, n + 1, 2, 1), y = twin_random(c, c->type, n + 1, 1, 2);
    twin z = twin_random(c, c->type, n + 1, 1, 3), w = twin_random(c, KN_F32, n, 1, 4);
    for (int s = 0; s < SIDES; s++) {
        kn_device *d = c->side[s].device;
        const kn_ops *o = c->side[s].ops;
        const void *from = (const char *)x.at[s] + size;
        compare_ok(c, "add", o->add(d, (char *)y.at[s] + size, from, n));
        compare_ok(c, "rms_norm", o->rms_norm(d, (char *)z.at[s] + size, NULL, from, w.at[s], 1, n, 1e-5f));
    }
    compare_twin(c, "add", &y, WITHIN_ROUNDING);
    compare_twin(c, "rms_norm", &z, WITHIN_ROUNDING);
    twin *const all[] = {&x, &y, &z, &w};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
}

/* Rows so long that a block does not hold them. */
static void check_long(compare *c, size_t T, size_t d)
{
    twin x = twin_random(c, c->type, T * d, 2, 1), dy = twin_random(c, c->type, T * d, 1, 2);
    twin w = twin_random(c, KN_F32, d, 1, 3), y = twin_random(c, c->type, T * d, 1, 4);
    twin rstd = twin_random(c, KN_F32, T, 1, 5), dx = twin_random(c, c->type, T * d, 1, 6);
    twin dw = twin_random(c, KN_F32, d, 1, 7);
    for (int s = 0; s < SIDES; s++) {
        kn_device *v = c->side[s].device;
        const kn_ops *o = c->side[s].ops;
        compare_ok(c, "rms_norm", o->rms_norm(v, y.at[s], rstd.at[s], x.at[s], w.at[s], T, d, 1e-5f));
        compare_ok(
            c, "rms_norm_backward",
            o->rms_norm_backward(v, dx.at[s], dw.at[s], NULL, dy.at[s], x.at[s], w.at[s], rstd.at[s], T, d, true));
    }
    compare_twin(c, "rms_norm", &y, WITHIN_ROUNDING);
    compare_twin(c, "rms_norm_backward, dx", &dx, WITHIN_SUM);
    compare_twin(c, "rms_norm_backward, dw", &dw, WITHIN_F32);
    twin *const all[] = {&x, &dy, &w, &y, &rstd, &dx, &dw};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
}

/* Nothing to do is done, and no address is looked at: more than the contract asks, so only of devices of their own. */
static void check_nothing(compare *c)
{
    const side *s = &c->side[DEVICE];
    if (s->device->host_memory)
        return;
    const uint64_t key[2] = {0, 0};
    const kn_adamw a = {.step = 1};
    const float *const from[1] = {NULL};
    kn_device *d = s->device;
    const kn_ops *o = s->ops;
    compare_ok(c, "rms_norm", o->rms_norm(d, NULL, NULL, NULL, NULL, 0, 64, 1e-5f));
    compare_ok(c, "rms_norm_backward", o->rms_norm_backward(d, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 64, true));
    compare_ok(c, "rope", o->rope(d, NULL, 64, NULL, NULL, NULL, 0, 1, 64, false));
    compare_ok(c, "swiglu", o->swiglu(d, NULL, NULL, 0, 64));
    compare_ok(c, "swiglu_backward", o->swiglu_backward(d, NULL, NULL, NULL, NULL, 0, 64));
    compare_ok(c, "embed", o->embed(d, NULL, NULL, NULL, 0, 64));
    compare_ok(c, "embed_backward", o->embed_backward(d, NULL, NULL, NULL, 0, 64, 10));
    compare_ok(c, "scatter_add", o->scatter_add(d, NULL, NULL, NULL, 0, 0, 64));
    compare_ok(c, "dropout", o->dropout(d, NULL, 0, 64, 0.5f, key, NULL));
    compare_ok(c, "add", o->add(d, NULL, NULL, 0));
    compare_ok(c, "to_bf16", o->to_bf16(d, NULL, NULL, 0));
    compare_ok(c, "from_bf16", o->from_bf16(d, NULL, NULL, 0));
    compare_ok(c, "adamw", o->adamw(d, NULL, NULL, NULL, NULL, 0, &a));
    compare_ok(c, "adamw_bf16", o->adamw_bf16(d, NULL, NULL, NULL, NULL, 0, &a, key, key));
    compare_ok(c, "sum_squares_add", o->sum_squares_add(d, NULL, NULL, 0));
    compare_ok(c, "mean", o->mean(d, NULL, from, NULL, 1, 0));
    compare_ok(c, "slerp", o->slerp(d, NULL, NULL, NULL, NULL, NULL, 0.5, 0));
}

void compare_merge(compare *c)
{
    static const size_t sizes[] = {1, 17, 4099, 70001};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        check_mean(c, sizes[s], s % 2);
        for (int l = 0; l < 3; l++)
            check_slerp(c, sizes[s], l % 2, l / 3.0 + 0.1, (s + (size_t)l) % 2);
        check_moments(c, sizes[s], 0);
        check_inside(c, sizes[s]);
        check_moments(c, sizes[s], 1);
    }
    check_long(c, 7, 9000);
    check_long(c, 5, 16640);
    check_long(c, 3, 4101);
    check_nothing(c);
}
