/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradients of the reference by finite differences. The loss is Σ c·y with fixed random c, summed in float64; an input
 * is moved by ±h and the slope compared with what the backward op says. Outputs are rounded to float32, so a slope is
 * good to about 1e-7·|loss terms|/h, and the tolerance is a fraction of the largest slope.
 */
#include "kernels_test.h"

static kn_device *device;
static const double h = 4e-3, tolerance = 2e-3;

static int setup(void **state)
{
    device = kn_reference_new();
    return device ? 0 : -1;
}

static int teardown(void **state)
{
    kn_reference_free(device);
    return 0;
}

static double weighted(const float *c, const float *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)c[i] * y[i];
    return sum;
}

typedef double (*loss)(void *);

/* Moves each of the n inputs in turn and compares the loss's slopes with `gradient`. */
static void check_slopes(const char *what, float *input, const float *gradient, size_t n, loss f, void *arg)
{
    float *slope = test_memory(n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        const float at = input[i], up = (float)(at + h), down = (float)(at - h);
        input[i] = up;
        const double high = f(arg);
        input[i] = down;
        const double low = f(arg);
        input[i] = at;
        slope[i] = (float)((high - low) / ((double)up - down));
    }
    assert_near(what, gradient, slope, n, tolerance);
    free(slope);
}

/* --- matrix products --- */

typedef struct linear_case {
    float w[5 * 7], x[3 * 7], bias[5], c[3 * 5], y[3 * 5];
} linear_case;

static double linear_loss(void *arg)
{
    linear_case *l = arg;
    kn_matrix *m = device->ops->matrix_new(device, 5, 7, true);
    device->ops->matrix_set(device, m, l->w);
    device->ops->linear(device, l->y, l->x, m, l->bias, NULL, 3);
    device->ops->matrix_free(device, m);
    return weighted(l->c, l->y, 15);
}

static void fill(float *x, size_t n, float scale, uint64_t seed)
{
    float *from = test_floats(n, scale, seed);
    memcpy(x, from, n * sizeof(float));
    free(from);
}

static void test_linear(void **state)
{
    linear_case l;
    float dx[21], dw[35] = {0}, db[5] = {0};
    fill(l.w, 35, 1, 1);
    fill(l.x, 21, 1, 2);
    fill(l.bias, 5, 1, 3);
    fill(l.c, 15, 1, 4);
    kn_matrix *m = device->ops->matrix_new(device, 5, 7, true);
    device->ops->matrix_set(device, m, l.w);
    device->ops->linear_backward_input(device, dx, l.c, m, 3, false);
    device->ops->linear_backward_weight(device, dw, db, l.c, l.x, 3, 5, 7, true);
    device->ops->matrix_free(device, m);
    check_slopes("linear: dx", l.x, dx, 21, linear_loss, &l);
    check_slopes("linear: dw", l.w, dw, 35, linear_loss, &l);
    check_slopes("linear: db", l.bias, db, 5, linear_loss, &l);
}

/* --- rows --- */

typedef struct norm_case {
    float x[4 * 9], w[9], c[4 * 9], y[4 * 9], rstd[4];
} norm_case;

static double norm_loss(void *arg)
{
    norm_case *n = arg;
    device->ops->rms_norm(device, n->y, n->rstd, n->x, n->w, 4, 9, 1e-5f);
    return weighted(n->c, n->y, 36);
}

static void test_rms_norm(void **state)
{
    norm_case n;
    float dx[36] = {0}, dw[9] = {0};
    fill(n.x, 36, 1, 1);
    fill(n.w, 9, 1, 2);
    fill(n.c, 36, 1, 3);
    norm_loss(&n);
    device->ops->rms_norm_backward(device, dx, dw, NULL, n.c, n.x, n.w, n.rstd, 4, 9, true);
    check_slopes("rms_norm: dx", n.x, dx, 36, norm_loss, &n);
    check_slopes("rms_norm: dw", n.w, dw, 9, norm_loss, &n);
}

typedef struct gate_case {
    float x[3 * 10], c[3 * 5], y[3 * 5];
} gate_case;

static double gate_loss(void *arg)
{
    gate_case *g = arg;
    device->ops->swiglu(device, g->y, g->x, 3, 5);
    return weighted(g->c, g->y, 15);
}

static void test_swiglu(void **state)
{
    gate_case g;
    float dx[30];
    fill(g.x, 30, 3, 1);
    fill(g.c, 15, 1, 2);
    device->ops->swiglu_backward(device, dx, NULL, g.c, g.x, 3, 5);
    check_slopes("swiglu", g.x, dx, 30, gate_loss, &g);
}

typedef struct rope_case {
    float x[2 * 12], c[2 * 12], cos[8 * 3], sin[8 * 3];
    uint32_t position[2];
} rope_case;

static double rope_loss(void *arg)
{
    rope_case *r = arg;
    float y[24];
    memcpy(y, r->x, sizeof(y));
    device->ops->rope(device, y, 12, r->position, r->cos, r->sin, 2, 2, 6, false);
    return weighted(r->c, y, 24);
}

static void test_rope(void **state)
{
    rope_case r = {.position = {3, 7}};
    for (int i = 0; i < 24; i++) {
        r.cos[i] = (float)cos(0.37 * i);
        r.sin[i] = (float)sin(0.37 * i);
    }
    fill(r.x, 24, 1, 1);
    fill(r.c, 24, 1, 2);
    float dx[24];
    memcpy(dx, r.c, sizeof(dx));
    device->ops->rope(device, dx, 12, r.position, r.cos, r.sin, 2, 2, 6, true);
    check_slopes("rope", r.x, dx, 24, rope_loss, &r);
}

typedef struct dropout_case {
    float x[5 * 7], c[5 * 7];
} dropout_case;

static const uint64_t dropout_key[2] = {5, 6}, dropout_rows[5] = {9, 8, 7, 6, 5};

static double dropout_loss(void *arg)
{
    dropout_case *d = arg;
    float y[35];
    memcpy(y, d->x, sizeof(y));
    device->ops->dropout(device, y, 5, 7, 0.4f, dropout_key, dropout_rows);
    return weighted(d->c, y, 35);
}

static void test_dropout(void **state)
{
    dropout_case d;
    float dx[35];
    fill(d.x, 35, 1, 1);
    fill(d.c, 35, 1, 2);
    memcpy(dx, d.c, sizeof(dx));
    device->ops->dropout(device, dx, 5, 7, 0.4f, dropout_key, dropout_rows);
    check_slopes("dropout", d.x, dx, 35, dropout_loss, &d);
}

typedef struct embed_case {
    float table[6 * 4], c[5 * 4], y[5 * 4];
    uint32_t token[5];
} embed_case;

static double embed_loss(void *arg)
{
    embed_case *e = arg;
    device->ops->embed(device, e->y, e->table, e->token, 5, 4);
    return weighted(e->c, e->y, 20);
}

static void test_embed(void **state)
{
    embed_case e = {.token = {1, 5, 1, 0, 1}};
    float dtable[24] = {0};
    fill(e.table, 24, 1, 1);
    fill(e.c, 20, 1, 2);
    assert_int_equal(device->ops->embed_backward(device, dtable, e.c, e.token, 5, 4, 6), KN_OK);
    check_slopes("embed", e.table, dtable, 24, embed_loss, &e);
}

/* --- attention --- */

typedef struct attention_case {
    kn_attention shape;
    const kn_segment *segment;
    size_t segments, T, wide;
    float *qkv, *c, *out, *lse;
} attention_case;

static double attention_loss(void *arg)
{
    attention_case *a = arg;
    device->ops->attention(device, a->out, a->lse, a->qkv, a->segment, a->segments, a->T, &a->shape);
    return weighted(a->c, a->out, a->T * a->wide);
}

static void test_attention(void **state)
{
    static const kn_segment segments[] = {{0, 4, 0, 0}, {4, 3, 0, 4}, {7, 5, 0, 4}, {12, 2, 0, 0}};
    static const kn_attention shapes[] = {{4, 2, 4, 0, 0, 0.5f}, {2, 2, 5, 3, 0, 0.4f}, {2, 1, 4, 0, 1.5f, 0.7f}};
    for (size_t s = 0; s < 3; s++) {
        attention_case a = {.shape = shapes[s], .segment = segments, .segments = 4, .T = 14};
        const size_t width = (shapes[s].heads + 2 * shapes[s].kv_heads) * shapes[s].head_dim;
        a.wide = shapes[s].heads * shapes[s].head_dim;
        a.qkv = test_floats(a.T * width, 1, 1);
        a.c = test_floats(a.T * a.wide, 1, 2);
        a.out = test_memory(a.T * a.wide * sizeof(float));
        a.lse = test_memory(a.T * shapes[s].heads * sizeof(float));
        float *dqkv = test_memory(a.T * width * sizeof(float));
        attention_loss(&a);
        device->ops->attention_backward(device, dqkv, a.c, a.qkv, a.out, a.lse, segments, 4, a.T, &a.shape);
        check_slopes("attention", a.qkv, dqkv, a.T * width, attention_loss, &a);
        free(a.qkv);
        free(a.c);
        free(a.out);
        free(a.lse);
        free(dqkv);
    }
}

/* --- log-probabilities --- */

typedef struct logprob_case {
    float w[11 * 6], h[4 * 6], c[4], y[4], lse[4];
    uint32_t target[4];
} logprob_case;

static double logprob_loss(void *arg)
{
    logprob_case *l = arg;
    kn_matrix *m = device->ops->matrix_new(device, 11, 6, true);
    device->ops->matrix_set(device, m, l->w);
    device->ops->logprob(device, l->y, l->lse, NULL, l->h, m, l->target, 4, NULL);
    device->ops->matrix_free(device, m);
    return weighted(l->c, l->y, 4);
}

static void test_logprob(void **state)
{
    logprob_case l = {.target = {0, 10, 3, 3}};
    float dh[24], dw[66] = {0};
    fill(l.w, 66, 1, 1);
    fill(l.h, 24, 1, 2);
    fill(l.c, 4, 1, 3);
    logprob_loss(&l);
    kn_matrix *m = device->ops->matrix_new(device, 11, 6, true);
    device->ops->matrix_set(device, m, l.w);
    device->ops->logprob_backward(device, dh, dw, l.c, l.h, m, l.lse, l.target, 4, true, NULL);
    device->ops->matrix_free(device, m);
    check_slopes("logprob: dh", l.h, dh, 24, logprob_loss, &l);
    check_slopes("logprob: dw", l.w, dw, 66, logprob_loss, &l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),    cmocka_unit_test(test_rms_norm), cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_rope),      cmocka_unit_test(test_dropout),  cmocka_unit_test(test_embed),
        cmocka_unit_test(test_attention), cmocka_unit_test(test_logprob),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
