/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Every op of the CPU backend, of both types, on every instruction set of this machine, against the reference: 1e-5 of
 * the largest element in float32, two roundings' worth in bfloat16 (what is rounded once is 2^-9 off at most; test
 * chains round more than once).
 */
#include "kernels_staged.h"
#include "kernels_test.h"

static kn_device *reference; /* of the type under test */
static double tolerance;

/* Calls f with a CPU device of every instruction set, and with its bfloat16 table as a float32 one. */
static void (*each_call)(kn_device *, const char *isa);

static void both_types(kn_device *cpu, const char *isa)
{
    kn_device *wide = kn_reference_new();
    reference = wide;
    tolerance = test_device_asked()->name ? test_device_asked()->tolerance : 1e-5;
    each_call(cpu, isa);
    kn_device *narrow = staged_device(cpu, KN_BF16);
    reference = staged_device(wide, KN_BF16);
    tolerance = test_device_asked()->name ? test_device_asked()->tolerance16 : 0x1p-7;
    if (narrow)
        each_call(narrow, isa);
    staged_device_free(reference);
    staged_device_free(narrow);
    kn_reference_free(wide);
}

static void each_type(void (*f)(kn_device *, const char *isa))
{
    each_call = f;
    each_isa(2, both_types);
}

/* --- matrix products --- */

static void check_linear(kn_device *cpu, size_t T, size_t out, size_t in)
{
    float *w = test_floats(out * in, 1, 1), *x = test_floats(T * in, 1, 2), *bias = test_floats(out, 1, 3);
    float *residual = test_floats(T * out, 1, 4), *dy = test_floats(T * out, 1, 5);
    float *y[2], *dx[2], *dw[2], *db[2];
    kn_device *device[2] = {cpu, reference};
    for (int i = 0; i < 2; i++) {
        const kn_ops *o = device[i]->ops;
        kn_matrix *m = o->matrix_new(device[i], out, in, true);
        assert_non_null(m);
        assert_int_equal(o->matrix_set(device[i], m, w), KN_OK);
        y[i] = test_memory(4 * T * out * sizeof(float));
        o->linear(device[i], y[i], x, m, NULL, NULL, T);
        o->linear(device[i], y[i] + T * out, x, m, bias, NULL, T);
        o->linear(device[i], y[i] + 2 * T * out, x, m, bias, residual, T);
        memcpy(y[i] + 3 * T * out, residual, T * out * sizeof(float));
        o->linear(device[i], y[i] + 3 * T * out, x, m, NULL, y[i] + 3 * T * out, T); /* in place */
        dx[i] = test_copy(x, T * in);
        o->linear_backward_input(device[i], dx[i], dy, m, T, false);
        o->linear_backward_input(device[i], dx[i], dy, m, T, true);
        dw[i] = test_copy(w, out * in);
        db[i] = test_copy(bias, out);
        o->linear_backward_weight(device[i], dw[i], db[i], dy, x, T, out, in, true);
        o->matrix_free(device[i], m);
    }
    assert_near("linear", y[0], y[1], 4 * T * out, tolerance);
    assert_near("linear_backward_input", dx[0], dx[1], T * in, tolerance);
    assert_near("linear_backward_weight", dw[0], dw[1], out * in, tolerance);
    assert_near("bias gradient", db[0], db[1], out, tolerance);
    for (int i = 0; i < 2; i++) { /* written over what is there: the bits of a sum onto zeros */
        float *onto = calloc(out * in + out, sizeof(*onto));
        const kn_ops *o = device[i]->ops;
        assert_non_null(onto);
        o->linear_backward_weight(device[i], onto, onto + out * in, dy, x, T, out, in, true);
        o->linear_backward_weight(device[i], dw[i], db[i], dy, x, T, out, in, false);
        assert_memory_equal(dw[i], onto, out * in * sizeof(*onto));
        assert_memory_equal(db[i], onto + out * in, out * sizeof(*onto));
        o->linear_backward_weight(device[i], dw[i], db[i], dy, x, 0, out, in, false);
        for (size_t k = 0; k < out * in; k++)
            assert_true(dw[i][k] == 0 && db[i][k / in] == 0);
        free(onto);
    }
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        free(dx[i]);
        free(dw[i]);
        free(db[i]);
    }
    free(w);
    free(x);
    free(bias);
    free(residual);
    free(dy);
}

static void linear_isa(kn_device *cpu, const char *isa)
{
    static const size_t shapes[][2] = {{64, 64}, {1, 1}, {7, 3}, {33, 65}, {172, 64}, {64, 172}, {129, 31}, {288, 96}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (size_t t = 0; t < RAGGED_ROWS; t++)
            check_linear(cpu, ragged_rows[t], shapes[s][0], shapes[s][1]);
    check_linear(cpu, 700, 40, 50); /* deeper than what a weight gradient packs at a time */
}

static void test_linear(void **state)
{
    each_type(linear_isa);
}

/* --- rows --- */

static void check_rows(kn_device *cpu, size_t T, size_t d)
{
    kn_device *device[2] = {cpu, reference};
    float *x = test_floats(T * d, 2, 1), *w = test_floats(d, 1, 2), *dy = test_floats(T * d, 1, 3);
    float *y[2], *rstd[2], *dx[2], *dw[2], *drop[2], *table[2], *scattered[2];
    static const uint32_t next[11] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    uint32_t *token = test_tokens(T, 11, 4);
    uint64_t *row_id = test_memory(T * sizeof(*row_id)), key[2] = {7, 8};
    for (size_t t = 0; t < T; t++)
        row_id[t] = 1000 + t;
    for (int i = 0; i < 2; i++) {
        const kn_ops *o = device[i]->ops;
        y[i] = test_memory(T * d * sizeof(float));
        rstd[i] = test_memory(T * sizeof(float));
        o->rms_norm(device[i], y[i], rstd[i], x, w, T, d, 1e-5f);
        dx[i] = test_copy(dy, T * d);
        dw[i] = test_copy(w, d);
        o->rms_norm_backward(device[i], dx[i], dw[i], NULL, dy, x, w, rstd[i], T, d, true);
        drop[i] = test_copy(x, T * d);
        o->dropout(device[i], drop[i], T, d, 0.3f, key, row_id);
        o->add(device[i], drop[i], dy, T * d);
        o->axpy(device[i], drop[i], 0.7f, dy, T * d);
        table[i] = test_floats(11 * d, 1, 5);
        assert_int_equal(o->embed_backward(device[i], table[i], dy, token, T, d, 11), KN_OK);
        o->embed(device[i], dx[i], table[i], token, T, d);
        scattered[i] = test_floats(11 * d, 1, 6);
        assert_int_equal(o->scatter_add(device[i], scattered[i], dy, token, T, 11, d), KN_OK);
        assert_int_equal(o->scatter_add(device[i], scattered[i], dy, next, T < 11 ? T : 11, 11, d), KN_OK);
    }
    assert_near("rms_norm", y[0], y[1], T * d, tolerance);
    assert_near("rstd", rstd[0], rstd[1], T, tolerance);
    assert_near("rms_norm_backward dw", dw[0], dw[1], d, tolerance);
    for (int i = 0; i < 2; i++) {
        float *again = test_memory(T * d * sizeof(*again));
        device[i]->ops->rms_norm_backward(device[i], dx[i], dw[i], again, dy, x, w, rstd[i], T, d, false);
        assert_memory_equal(again, y[i], T * d * sizeof(*again));
        free(again);
    }

    assert_near("rms_norm_backward dw, written", dw[0], dw[1], d, tolerance);
    assert_near("dropout, add, axpy", drop[0], drop[1], T * d, tolerance);
    assert_near("embed_backward", table[0], table[1], 11 * d, tolerance);
    assert_near("embed", dx[0], dx[1], T * d, tolerance);
    assert_near("scatter_add", scattered[0], scattered[1], 11 * d, tolerance);
    for (int i = 0; i < 2; i++) {
        memcpy(dx[i], dy, T * d * sizeof(float));
        device[i]->ops->rms_norm_backward(device[i], dx[i], dw[i], NULL, dy, x, w, rstd[1], T, d, true);
    }
    assert_near("rms_norm_backward dx", dx[0], dx[1], T * d, tolerance);
    token[0] = 11;
    assert_int_equal(cpu->ops->embed_backward(cpu, table[0], dy, token, T, d, 11), KN_BAD_ARGUMENT);
    assert_int_equal(cpu->ops->scatter_add(cpu, scattered[0], dy, token, T, 11, d), KN_BAD_ARGUMENT);
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        free(rstd[i]);
        free(dx[i]);
        free(dw[i]);
        free(drop[i]);
        free(table[i]);
        free(scattered[i]);
    }
    free(x);
    free(w);
    free(dy);
    free(token);
    free(row_id);
}

static void rows_isa(kn_device *cpu, const char *isa)
{
    static const size_t widths[] = {1, 7, 16, 31, 64, 100, 288};
    for (size_t s = 0; s < sizeof(widths) / sizeof(widths[0]); s++)
        for (size_t t = 0; t < RAGGED_ROWS; t++)
            check_rows(cpu, ragged_rows[t], widths[s]);
}

static void test_rows(void **state)
{
    each_type(rows_isa);
}

static void check_rope(kn_device *cpu, size_t T, size_t heads, size_t hd)
{
    const size_t stride = (heads + 2) * hd, half = hd / 2, positions = 200;
    float *cos_t = test_memory(positions * half * sizeof(float)),
          *sin_t = test_memory(positions * half * sizeof(float));
    for (size_t p = 0; p < positions; p++)
        for (size_t i = 0; i < half; i++) {
            const double angle = (double)p * pow(10000, -2.0 * (double)i / (double)hd);
            cos_t[p * half + i] = (float)cos(angle);
            sin_t[p * half + i] = (float)sin(angle);
        }
    uint32_t *position = test_tokens(T, (uint32_t)positions, 3);
    float *start = test_floats(T * stride, 1, 1), *a = test_copy(start, T * stride), *b = test_copy(start, T * stride);
    assert_int_equal(cpu->ops->rope(cpu, a, stride, position, cos_t, sin_t, T, heads, hd, false), KN_OK);
    reference->ops->rope(reference, b, stride, position, cos_t, sin_t, T, heads, hd, false);
    assert_near("rope", a, b, T * stride, tolerance);
    cpu->ops->rope(cpu, a, stride, position, cos_t, sin_t, T, heads, hd, true);
    assert_near("rope and back", a, start, T * stride, tolerance);
    free(cos_t);
    free(sin_t);
    free(position);
    free(start);
    free(a);
    free(b);
}

static void rope_isa(kn_device *cpu, const char *isa)
{
    static const size_t head_dims[] = {2, 6, 8, 32, 50, 64};
    for (size_t s = 0; s < sizeof(head_dims) / sizeof(head_dims[0]); s++)
        for (size_t t = 0; t < RAGGED_ROWS; t++)
            check_rope(cpu, ragged_rows[t], 3, head_dims[s]);
}

static void test_rope(void **state)
{
    each_type(rope_isa);
}

static void check_swiglu(kn_device *cpu, size_t T, size_t f, float scale)
{
    float *x = test_floats(T * 2 * f, scale, 1), *dy = test_floats(T * f, 1, 2), *y[2], *dx[2];
    kn_device *device[2] = {cpu, reference};
    for (int i = 0; i < 2; i++) {
        y[i] = test_memory(T * f * sizeof(float));
        dx[i] = test_memory(T * 2 * f * sizeof(float));
        device[i]->ops->swiglu(device[i], y[i], x, T, f);
        float *again = test_memory(T * f * sizeof(*again));
        device[i]->ops->swiglu_backward(device[i], dx[i], again, dy, x, T, f);
        assert_memory_equal(again, y[i], T * f * sizeof(*again));
        free(again);
    }
    assert_near("swiglu", y[0], y[1], T * f, tolerance);
    assert_near("swiglu_backward", dx[0], dx[1], T * 2 * f, tolerance);
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        free(dx[i]);
    }
    free(x);
    free(dy);
}

static void swiglu_isa(kn_device *cpu, const char *isa)
{
    static const size_t widths[] = {1, 15, 64, 172};
    static const float scales[] = {0.01f, 3, 200}; /* to where exp overflows */
    for (size_t s = 0; s < 4; s++)
        for (size_t t = 0; t < RAGGED_ROWS; t++)
            for (size_t c = 0; c < 3; c++)
                check_swiglu(cpu, ragged_rows[t], widths[s], scales[c]);
}

static void test_swiglu(void **state)
{
    each_type(swiglu_isa);
}

/* --- attention --- */

static void check_attention(kn_device *cpu, const kn_attention *a, const kn_segment *s, size_t segments, size_t T,
                            float scale)
{
    const size_t width = (a->heads + 2 * a->kv_heads) * a->head_dim, wide = a->heads * a->head_dim;
    float *qkv = test_floats(T * width, scale, 1), *dout = test_floats(T * wide, 1, 2), *out[2], *lse[2], *dqkv[2];
    kn_device *device[2] = {cpu, reference};
    for (int i = 0; i < 2; i++) {
        out[i] = calloc(T * wide, sizeof(float));
        lse[i] = calloc(T * a->heads, sizeof(float));
        dqkv[i] = test_floats(T * width, 1, 9);
        assert_int_equal(device[i]->ops->attention(device[i], out[i], lse[i], qkv, s, segments, T, a), KN_OK);
        assert_int_equal(
            device[i]->ops->attention_backward(device[i], dqkv[i], dout, qkv, out[i], lse[i], s, segments, T, a),
            KN_OK);
    }
    assert_near("attention", out[0], out[1], T * wide, tolerance);
    assert_near("attention lse", lse[0], lse[1], T * a->heads, tolerance);
    assert_near("attention_backward", dqkv[0], dqkv[1], T * width, tolerance);
    for (int i = 0; i < 2; i++) {
        free(out[i]);
        free(lse[i]);
        free(dqkv[i]);
    }
    free(qkv);
    free(dout);
}

static void attention_isa(kn_device *cpu, const char *isa)
{
    static const kn_attention shapes[] = {
        {4, 4, 8, 0, 0, 0.35f},    {4, 2, 16, 0, 0, 0.25f}, {6, 2, 24, 0, 0, 0.2f},   {8, 1, 64, 0, 0, 0.125f},
        {3, 3, 7, 0, 0, 0.4f},     {4, 2, 16, 5, 0, 0.25f}, {4, 2, 16, 33, 0, 0.25f}, {2, 1, 80, 0, 3.0f, 0.1f},
        {2, 2, 33, 9, 2.0f, 0.2f}, {20, 1, 5, 0, 0, 0.4f},
    };
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (size_t t = 0; t < RAGGED_ROWS; t++) {
            const kn_segment one = {0, ragged_rows[t], 0, 0};
            check_attention(cpu, &shapes[s], &one, 1, ragged_rows[t], 1);
        }
        /* A prompt of 21 rows with three answers, another of 3 with two; rows 0 and 1 belong to nobody. */
        const kn_segment packed[] = {{2, 21, 0, 0}, {23, 17, 2, 21}, {40, 1, 2, 21},  {41, 33, 2, 21},
                                     {74, 3, 0, 0}, {77, 4, 74, 3},  {81, 16, 74, 3}, {97, 40, 0, 0}};
        check_attention(cpu, &shapes[s], packed, 8, 137, 1);
        check_attention(cpu, &shapes[s], packed, 8, 137, 8); /* sharp probabilities */
    }
    const kn_segment wrong = {0, 5, 0, 0};
    float none[4 * 12 * 8] = {0};
    assert_int_equal(cpu->ops->attention(cpu, none, NULL, none, &wrong, 1, 4, &shapes[0]), KN_BAD_ARGUMENT);
}

static void test_attention(void **state)
{
    each_type(attention_isa);
}

/* --- the vocabulary --- */

static void check_vocabulary(kn_device *cpu, size_t T, size_t vocab, size_t d, float scale)
{
    float *w = test_floats(vocab * d, scale, 1), *h = test_floats(T * d, 1, 2), *dl = test_floats(T, 1, 3);
    uint32_t *target = test_tokens(T, (uint32_t)vocab, 4);
    float *logprob[2], *lse[2], *entropy[2], *logits[2], *dh[2], *dw[2];
    kn_device *device[2] = {cpu, reference};
    for (int i = 0; i < 2; i++) {
        const kn_ops *o = device[i]->ops;
        kn_matrix *m = o->matrix_new(device[i], vocab, d, true);
        o->matrix_set(device[i], m, w);
        logprob[i] = test_memory(T * sizeof(float));
        lse[i] = test_memory(T * sizeof(float));
        entropy[i] = test_memory(T * sizeof(float));
        logits[i] = test_memory(T * vocab * sizeof(float));
        dh[i] = test_memory(T * d * sizeof(float));
        dw[i] = test_copy(w, vocab * d);
        assert_int_equal(o->logprob(device[i], logprob[i], lse[i], entropy[i], h, m, target, T, NULL), KN_OK);
        assert_int_equal(o->logits(device[i], logits[i], h, m, T), KN_OK);
        assert_int_equal(o->logprob_backward(device[i], dh[i], dw[i], dl, h, m, lse[i], target, T, true, NULL), KN_OK);
        const uint32_t beyond = (uint32_t)vocab;
        assert_int_equal(o->logprob(device[i], logprob[i], lse[i], NULL, h, m, &beyond, 1, NULL), KN_BAD_ARGUMENT);
        o->logprob(device[i], logprob[i], NULL, NULL, h, m, target, T, NULL);
        o->matrix_free(device[i], m);
    }
    assert_near("logprob", logprob[0], logprob[1], T, tolerance);
    assert_near("lse", lse[0], lse[1], T, tolerance);
    assert_near("entropy", entropy[0], entropy[1], T, tolerance);
    assert_near("logits", logits[0], logits[1], T * vocab, tolerance);
    assert_near("logprob_backward dh", dh[0], dh[1], T * d, tolerance);
    assert_near("logprob_backward dw", dw[0], dw[1], vocab * d, tolerance);
    for (int i = 0; i < 2; i++) {
        const kn_ops *o = device[i]->ops;
        kn_matrix *m = o->matrix_new(device[i], vocab, d, true);
        float *onto = calloc(vocab * d, sizeof(*onto));
        assert_true(m && onto);
        o->matrix_set(device[i], m, w);
        o->logprob_backward(device[i], dh[i], onto, dl, h, m, lse[1], target, T, true, NULL);
        o->logprob_backward(device[i], dh[i], dw[i], dl, h, m, lse[1], target, T, false, NULL);
        assert_memory_equal(dw[i], onto, vocab * d * sizeof(*onto));
        o->matrix_free(device[i], m);
        free(onto);
    }
    for (int i = 0; i < 2; i++) {
        free(logprob[i]);
        free(lse[i]);
        free(entropy[i]);
        free(logits[i]);
        free(dh[i]);
        free(dw[i]);
    }
    free(w);
    free(h);
    free(dl);
    free(target);
}

static void vocabulary_isa(kn_device *cpu, const char *isa)
{
    static const size_t shapes[][2] = {{512, 64}, {2, 3}, {257, 17}, {1100, 32}};
    for (size_t s = 0; s < 4; s++)
        for (size_t t = 0; t < RAGGED_ROWS; t += 2)
            check_vocabulary(cpu, ragged_rows[t], shapes[s][0], shapes[s][1], 1);
    check_vocabulary(cpu, 600, 300, 24, 1);
    check_vocabulary(cpu, 9, 700, 64, 30); /* probabilities that underflow */
}

static void test_vocabulary(void **state)
{
    each_type(vocabulary_isa);
}

/* --- the optimizer --- */

static void optimizer_isa(kn_device *cpu, const char *isa)
{
    static const size_t sizes[] = {1, 17, 4096, 70001};
    for (size_t s = 0; s < 4; s++) {
        const size_t n = sizes[s];
        float *w[2], *m[2], *v[2], *g = test_floats(n, 0.1f, 2);
        kn_device *device[2] = {cpu, reference};
        uint16_t *rounded[2], *narrow = calloc(n, sizeof(*narrow));
        double sum[2];
        float scale[2][4];
        for (int i = 0; i < 2; i++) {
            const kn_ops *const o = device[i]->ops;
            w[i] = test_floats(n, 1, 1);
            m[i] = calloc(n, sizeof(float));
            v[i] = calloc(n, sizeof(float));
            rounded[i] = calloc(n, sizeof(uint16_t));
            for (uint64_t step = 1; step <= 3; step++) {
                const kn_adamw a = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, step, 0.5f, NULL, step == 3 ? rounded[i] : NULL};
                assert_int_equal(device[i]->ops->adamw(device[i], w[i], m[i], v[i], g, n, &a), KN_OK);
            }
            sum[i] = 0.25;
            assert_int_equal(o->sum_squares_add(device[i], &sum[i], g, n), KN_OK);
            const double infinite = INFINITY;
            o->clip(device[i], &scale[i][0], &sum[i], -0.5, 0);
            o->clip(device[i], &scale[i][1], &sum[i], -0.5, 1e6);
            o->clip(device[i], &scale[i][2], &sum[i], -0.5, 0.1);
            o->clip(device[i], &scale[i][3], &infinite, -0.5, 0.1);
            for (int k = 2; k < 4; k++) { /* clipped, and not applied at all */
                const kn_adamw a = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 4, 0.7f, &scale[i][k], rounded[i]};
                assert_int_equal(o->adamw(device[i], w[i], m[i], v[i], g, n, &a), KN_OK);
            }
        }
        for (int i = 0; i < 2; i++) {
            assert_int_equal(reference->ops->to_bf16(reference, narrow, w[i], n), KN_OK);
            assert_memory_equal(rounded[i], narrow, n * sizeof(*narrow));
            free(rounded[i]);
        }
        free(narrow);
        assert_near("adamw", w[0], w[1], n, 1e-6);
        assert_near("adamw m", m[0], m[1], n, 1e-6);
        assert_near("adamw v", v[0], v[1], n, 1e-6);
        assert_true(fabs(sum[0] - sum[1]) <= 1e-12 * sum[1]);
        for (int i = 0; i < 2; i++) {
            const double norm = sqrt(sum[i]) * 0.5;
            assert_true(scale[i][0] == -0.5f && scale[i][1] == -0.5f && isnan(scale[i][3]));
            assert_true(norm > 0.1 && scale[i][2] == (float)(-0.5 * (0.1 / (norm + 1e-6))));
        }
        for (int i = 0; i < 2; i++) {
            free(w[i]);
            free(m[i]);
            free(v[i]);
        }
        free(g);
    }
}

static void test_optimizer(void **state)
{
    reference = kn_reference_new();
    each_isa(2, optimizer_isa);
    kn_reference_free(reference);
}

/* --- what a device refuses --- */

static void test_refusals(void **state)
{
    const char *why = NULL;
    assert_null(kn_cpu_new(1, "mmx", &why));
    assert_non_null(why);
    setenv("SLUICE_CPU_MATMUL", "abacus", 1);
    assert_null(kn_cpu_new(1, NULL, &why));
    assert_non_null(strstr(why, "SLUICE_CPU_MATMUL"));
    unsetenv("SLUICE_CPU_MATMUL");
    kn_device *cpu = kn_cpu_new(0, NULL, NULL);
    assert_non_null(cpu);
    assert_true(cpu->ops->threads(cpu) >= 1);
    assert_null(cpu->ops->matrix_new(cpu, SIZE_MAX / 4, 8, false));
    kn_matrix *forward = cpu->ops->matrix_new(cpu, 4, 4, false);
    float x[4] = {0};
    assert_int_equal(cpu->ops->linear_backward_input(cpu, x, x, forward, 1, false), KN_BAD_ARGUMENT);
    cpu->ops->matrix_free(cpu, forward);
    assert_int_equal(cpu->ops->set_threads(cpu, -1), KN_BAD_ARGUMENT);
    assert_int_equal(cpu->ops->set_threads(cpu, 3), KN_OK);
    assert_int_equal(cpu->ops->threads(cpu), 3);
    kn_cpu_free(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),    cmocka_unit_test(test_rows),      cmocka_unit_test(test_rope),
        cmocka_unit_test(test_swiglu),    cmocka_unit_test(test_attention), cmocka_unit_test(test_vocabulary),
        cmocka_unit_test(test_optimizer), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
