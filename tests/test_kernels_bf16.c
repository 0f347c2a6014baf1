/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * bfloat16: how numbers are rounded, and what an op of the bfloat16 table computes: to the bit what the float32 table
 * computes from the widened inputs, rounded once. That holds for the reference, matrix products included, and on every
 * instruction set for all ops but those products.
 */
#include "kernels/bf16.h"
#include "kernels_staged.h"
#include "kernels_test.h"

/* --- rounding --- */

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* The nearer of the two neighbours, by distance; ties to the even one. */
static uint16_t nearest(float x)
{
    const uint32_t bits = bits_of(x);
    const uint16_t low = (uint16_t)(bits >> 16), high = (uint16_t)(low + 1);
    if (isnan(x))
        return low | 0x40;
    if (isinf(x))
        return low;
    const double below = fabs((double)x - kn_widen(low));
    const double top = isinf(kn_widen(high)) ? 0x1p128 : fabs((double)kn_widen(high)); /* beyond the largest number */
    const double above = fabs(fabs((double)x) - top);
    return below < above || (below == above && low % 2 == 0) ? low : high;
}

static void test_narrow(void **state)
{
    static const uint32_t lows[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x1234};
    for (uint32_t upper = 0; upper < 0x10000; upper++)
        for (size_t i = 0; i < sizeof(lows) / sizeof(lows[0]); i++) {
            const float x = float_of(upper << 16 | lows[i]);
            if (kn_narrow(x) != nearest(x))
                fail_msg("%08x becomes %04x, expected %04x", bits_of(x), kn_narrow(x), nearest(x));
        }
    assert_int_equal(kn_narrow(float_of(0x7f7fffff)), 0x7f80); /* too large: infinity */
    assert_int_equal(kn_narrow(float_of(1)), 0);               /* the smallest denormal is nearer to 0 */
    assert_int_equal(kn_narrow(float_of(0x00018000)), 2);      /* denormals are kept, ties to even */
}

static void convert(kn_device *device, const char *isa)
{
    enum { N = 7 * 65536 + 5 };
    static const uint32_t lows[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x1234};
    float *x = test_memory(N * sizeof(float)), *back = test_memory(N * sizeof(float));
    uint16_t *y = test_memory(N * sizeof(*y));
    for (size_t i = 0; i < N; i++)
        x[i] = float_of((uint32_t)(i / 7) << 16 | lows[i % 7]);
    for (size_t n = N; n > N - 40; n -= 3) { /* every length of a last vector */
        memset(y, 0, N * sizeof(*y));
        assert_int_equal(device->ops->to_bf16(device, y, x + N - n, n), KN_OK);
        assert_int_equal(device->ops->from_bf16(device, back, y, n), KN_OK);
        for (size_t i = 0; i < n; i++) {
            if (y[i] != kn_narrow(x[N - n + i]))
                fail_msg("%s: %08x becomes %04x, expected %04x", isa, bits_of(x[N - n + i]), y[i],
                         kn_narrow(x[N - n + i]));
            assert_int_equal(bits_of(back[i]), (uint32_t)y[i] << 16);
        }
        for (size_t i = n; i < N; i++)
            assert_int_equal(y[i], 0);
    }
    free(x);
    free(back);
    free(y);
}

static void test_convert(void **state)
{
    each_isa(2, convert);
    kn_device *reference = kn_reference_new();
    convert(reference, "reference");
    kn_reference_free(reference);
}

/* --- one rounding: the bfloat16 op is the float32 op, rounded --- */

/* Random numbers that bfloat16 has. */
static float *rounded(size_t n, float scale, uint64_t seed)
{
    float *x = test_floats(n, scale, seed);
    bf16_round(x, n);
    return x;
}

/* a is what the bfloat16 table gave, b what the float32 table did. */
static void assert_rounded(const char *what, const float *a, float *b, size_t n)
{
    bf16_round(b, n);
    assert_same_bits(what, a, b, n);
}

static void check_rows(kn_device *wide, kn_device *device, size_t T, size_t d)
{
    kn_device *both[2] = {device, wide};
    float *x = rounded(T * d, 2, 1), *dy = rounded(T * d, 1, 2), *table = rounded(7 * d, 1, 3);
    float *w = test_floats(d, 1, 4), *y[2], *dx[2], *dw[2], *rstd[2], *drop[2], *sum[2], *e[2], *de[2];
    uint32_t *token = test_tokens(T, 7, 5);
    uint64_t *row_id = test_memory(T * sizeof(*row_id));
    const uint64_t key[2] = {3, 4};
    for (size_t t = 0; t < T; t++)
        row_id[t] = 5 * t + 1;
    for (int i = 0; i < 2; i++) {
        const kn_ops *o = both[i]->ops;
        y[i] = test_memory(T * d * sizeof(float));
        e[i] = test_memory(T * d * sizeof(float));
        rstd[i] = test_memory(T * sizeof(float));
        dx[i] = test_copy(dy, T * d);
        drop[i] = test_copy(x, T * d);
        sum[i] = test_copy(x, T * d);
        dw[i] = test_copy(w, d);
        de[i] = test_copy(table, 7 * d);
        o->rms_norm(both[i], y[i], rstd[i], x, w, T, d, 1e-5f);
        o->rms_norm_backward(both[i], dx[i], dw[i], NULL, dy, x, w, rstd[i], T, d, true);
        o->dropout(both[i], drop[i], T, d, 0.3f, key, row_id);
        o->axpy(both[i], sum[i], 0.7f, dy, T * d);
        o->embed(both[i], e[i], table, token, T, d);
        o->embed_backward(both[i], de[i], dy, token, T, d, 7);
    }
    assert_rounded("rms_norm", y[0], y[1], T * d);
    assert_same_bits("rstd", rstd[0], rstd[1], T);
    assert_rounded("rms_norm_backward dx", dx[0], dx[1], T * d);
    assert_same_bits("rms_norm_backward dw", dw[0], dw[1], d);
    assert_rounded("dropout", drop[0], drop[1], T * d);
    assert_rounded("axpy", sum[0], sum[1], T * d);
    assert_rounded("embed", e[0], e[1], T * d);
    assert_same_bits("embed_backward", de[0], de[1], 7 * d);
    for (int i = 0; i < 2; i++) {
        memcpy(sum[i], x, T * d * sizeof(float));
        both[i]->ops->add(both[i], sum[i], dy, T * d);
    }
    assert_rounded("add", sum[0], sum[1], T * d);
    for (int i = 0; i < 2; i++) {
        float *all[] = {y[i], dx[i], dw[i], rstd[i], drop[i], sum[i], e[i], de[i]};
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++)
            free(all[k]);
    }
    free(x);
    free(dy);
    free(table);
    free(w);
    free(token);
    free(row_id);
}

static void check_gate(kn_device *wide, kn_device *device, size_t T, size_t f, float scale)
{
    kn_device *both[2] = {device, wide};
    float *x = rounded(T * 2 * f, scale, 1), *dy = rounded(T * f, 1, 2), *y[2], *dx[2];
    for (int i = 0; i < 2; i++) {
        y[i] = test_memory(T * f * sizeof(float));
        dx[i] = test_memory(T * 2 * f * sizeof(float));
        both[i]->ops->swiglu(both[i], y[i], x, T, f);
        both[i]->ops->swiglu_backward(both[i], dx[i], NULL, dy, x, T, f);
    }
    assert_rounded("swiglu", y[0], y[1], T * f);
    assert_rounded("swiglu_backward", dx[0], dx[1], T * 2 * f);
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        free(dx[i]);
    }
    free(x);
    free(dy);
}

static void check_rope(kn_device *wide, kn_device *device, size_t T, size_t head_dim)
{
    kn_device *both[2] = {device, wide};
    const size_t stride = 4 * head_dim;
    float *cos_t = test_floats(50 * head_dim / 2, 1, 1), *sin_t = test_floats(50 * head_dim / 2, 1, 2);
    float *x[2] = {rounded(T * stride, 1, 3), rounded(T * stride, 1, 3)};
    uint32_t *position = test_tokens(T, 50, 4);
    for (int inverse = 0; inverse < 2; inverse++) {
        for (int i = 0; i < 2; i++)
            both[i]->ops->rope(both[i], x[i], stride, position, cos_t, sin_t, T, 3, head_dim, inverse);
        assert_rounded("rope", x[0], x[1], T * stride);
    }
    free(cos_t);
    free(sin_t);
    free(x[0]);
    free(x[1]);
    free(position);
}

static void check_attention(kn_device *wide, kn_device *device, const kn_attention *a, const kn_segment *s,
                            size_t segments, size_t T)
{
    kn_device *both[2] = {device, wide};
    const size_t width = (a->heads + 2 * a->kv_heads) * a->head_dim, n = T * a->heads * a->head_dim;
    float *qkv = rounded(T * width, 2, 1), *dout = rounded(n, 1, 2), *out[2], *lse[2], *dqkv[2];
    for (int i = 0; i < 2; i++) {
        out[i] = calloc(n, sizeof(float));
        lse[i] = calloc(T * a->heads, sizeof(float));
        dqkv[i] = rounded(T * width, 1, 3);
        both[i]->ops->attention(both[i], out[i], lse[i], qkv, s, segments, T, a);
    }
    assert_rounded("attention", out[0], out[1], n);
    assert_same_bits("attention lse", lse[0], lse[1], T * a->heads);
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            both[i]->ops->attention_backward(both[i], dqkv[i], dout, qkv, out[i], lse[i], s, segments, T, a), KN_OK);
    assert_rounded("attention_backward", dqkv[0], dqkv[1], T * width);
    for (int i = 0; i < 2; i++) {
        free(out[i]);
        free(lse[i]);
        free(dqkv[i]);
    }
    free(qkv);
    free(dout);
}

static void one_rounding(kn_device *wide, const char *isa)
{
    static const size_t widths[] = {1, 7, 16, 31, 64, 100, 288}, head_dims[] = {2, 6, 32, 50, 64};
    static const kn_attention shapes[] = {{4, 2, 16, 0, 0, 0.25f}, {8, 1, 64, 0, 0, 0.125f}, {3, 3, 7, 0, 0, 0.4f},
                                          {4, 2, 16, 5, 0, 0.25f}, {2, 1, 80, 0, 3, 0.1f},   {20, 1, 5, 0, 0, 0.4f}};
    /* A prompt of 21 rows with three answers, another of 3 with two; rows 0 and 1 belong to nobody. */
    static const kn_segment packed[] = {{2, 21, 0, 0}, {23, 17, 2, 21}, {40, 1, 2, 21},  {41, 33, 2, 21},
                                        {74, 3, 0, 0}, {77, 4, 74, 3},  {81, 16, 74, 3}, {97, 40, 0, 0}};
    kn_device *device = staged_device(wide, KN_BF16);
    assert_non_null(device);
    for (size_t t = 0; t < RAGGED_ROWS; t++) {
        const size_t T = ragged_rows[t];
        for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++) {
            check_rows(wide, device, T, widths[i]);
            check_gate(wide, device, T, widths[i], 3);
        }
        check_gate(wide, device, T, 33, 200); /* to where exp overflows */
        for (size_t i = 0; i < sizeof(head_dims) / sizeof(head_dims[0]); i++)
            check_rope(wide, device, T, head_dims[i]);
    }
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        check_attention(wide, device, &shapes[i], packed, 8, 137);
    staged_device_free(device);
}

static void test_one_rounding(void **state)
{
    if (!test_device_exact())
        skip();
    each_isa(2, one_rounding);
}

static void test_one_rounding_reference(void **state)
{
    kn_device *wide = kn_reference_new();
    one_rounding(wide, "reference");
    kn_reference_free(wide);
}

/* The reference's products; the fast ones are held against it in test_kernels_ops.c. */
static void test_reference_products(void **state)
{
    enum { T = 9, OUT = 13, IN = 11 };
    kn_device *wide = kn_reference_new(), *device = staged_device(wide, KN_BF16), *both[2] = {device, wide};
    float *w = rounded(OUT * IN, 1, 1), *x = rounded(T * IN, 1, 2), *dy = rounded(T * OUT, 1, 3),
          *bias = test_floats(OUT, 1, 4);
    float *dl = test_floats(T, 1, 5), *y[2], *dx[2], *dw[2], *lp[2], *dh[2];
    uint32_t *target = test_tokens(T, OUT, 6);
    for (int i = 0; i < 2; i++) {
        const kn_ops *o = both[i]->ops;
        kn_matrix *m = o->matrix_new(both[i], OUT, IN, true);
        o->matrix_set(both[i], m, w);
        y[i] = test_copy(dy, T * OUT);
        dx[i] = test_copy(x, T * IN);
        dh[i] = test_memory(T * IN * sizeof(float));
        dw[i] = test_copy(w, OUT * IN);
        lp[i] = test_memory(3 * T * sizeof(float));
        o->linear(both[i], y[i], x, m, bias, y[i], T);
        o->linear_backward_input(both[i], dx[i], dy, m, T, true);
        o->linear_backward_weight(both[i], dw[i], NULL, dy, x, T, OUT, IN, true);
        o->logprob(both[i], lp[i], lp[i] + T, lp[i] + 2 * T, x, m, target, T, NULL);
        o->logprob_backward(both[i], dh[i], dw[i], dl, x, m, lp[i] + T, target, T, true, NULL);
        o->matrix_free(both[i], m);
    }
    assert_rounded("linear", y[0], y[1], T * OUT);
    assert_rounded("linear_backward_input", dx[0], dx[1], T * IN);
    assert_rounded("logprob_backward dh", dh[0], dh[1], T * IN);
    assert_same_bits("dw", dw[0], dw[1], OUT * IN);
    assert_same_bits("logprob, lse, entropy", lp[0], lp[1], 3 * T);
    for (int i = 0; i < 2; i++) {
        float *all[] = {y[i], dx[i], dw[i], lp[i], dh[i]};
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++)
            free(all[k]);
    }
    free(w);
    free(x);
    free(dy);
    free(bias);
    free(dl);
    free(target);
    staged_device_free(device);
    kn_reference_free(wide);
}

/* --- a long sequence's gradient, shared by threads --- */

static void shared(kn_device *cpu, const char *isa)
{
    static const kn_attention shapes[] = {{6, 2, 32, 0, 0, 0.2f}, {2, 1, 64, 100, 2, 0.1f}};
    static const kn_segment s[] = {{0, 301, 0, 0}, {301, 150, 0, 300}, {451, 5, 0, 0}};
    const size_t T = 456;
    kn_device *narrow = staged_device(cpu, KN_BF16), *both[2] = {cpu, narrow};
    for (size_t i = 0; i < 4; i++) {
        kn_device *device = both[i % 2];
        const kn_attention *a = &shapes[i / 2];
        const size_t width = (a->heads + 2 * a->kv_heads) * a->head_dim, n = T * a->heads * a->head_dim;
        float *qkv = rounded(T * width, 1, 1), *dout = rounded(n, 1, 2), *out = test_memory(n * sizeof(float));
        float *lse = test_memory(T * a->heads * sizeof(float)), *first = NULL;
        for (int threads = 1; threads <= 5; threads += 2) {
            cpu->ops->set_threads(cpu, threads);
            device->ops->attention(device, out, lse, qkv, s, 3, T, a);
            float *dqkv = test_memory(T * width * sizeof(float));
            assert_int_equal(device->ops->attention_backward(device, dqkv, dout, qkv, out, lse, s, 3, T, a), KN_OK);
            if (first)
                assert_same_bits("attention_backward by several threads", dqkv, first, T * width);
            free(threads > 1 ? dqkv : NULL);
            first = threads > 1 ? first : dqkv;
        }
        free(first);
        free(qkv);
        free(dout);
        free(out);
        free(lse);
    }
    staged_device_free(narrow);
}

static void test_shared(void **state)
{
    if (!test_device_exact())
        skip();
    each_isa(1, shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_narrow),       cmocka_unit_test(test_convert),
        cmocka_unit_test(test_one_rounding), cmocka_unit_test(test_one_rounding_reference),
        cmocka_unit_test(test_shared),       cmocka_unit_test(test_reference_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
