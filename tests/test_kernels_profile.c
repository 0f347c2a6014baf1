/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The measuring device: it gives what the wrapped one gives, and counts it. */
#include "kernels/profile.h"
#include "kernels_staged.h"
#include "kernels_test.h"

enum { T = 20, OUT = 24, IN = 32, HEADS = 2, HEAD_DIM = 8, WIDTH = 3 * HEADS * HEAD_DIM };

static const kn_attention shape = {HEADS, HEADS, HEAD_DIM, 0, 0, 0.35f};

/* Some ops through a table of float32 arrays; what they give is written end to end. */
static size_t work(kn_device *d, float *to)
{
    const kn_segment s = {0, T, 0, 0};
    float *w = test_floats(OUT * IN, 1, 1), *x = test_floats(T * IN, 1, 2), *qkv = test_floats(T * WIDTH, 1, 3);
    const size_t wide = HEADS * HEAD_DIM;
    kn_matrix *m = d->ops->matrix_new(d, OUT, IN, true);
    assert_int_equal(d->ops->matrix_set(d, m, w), KN_OK);
    float *at = to;
    assert_int_equal(d->ops->linear(d, at, x, m, NULL, NULL, T), KN_OK);
    assert_int_equal(d->ops->linear_backward_input(d, at + T * OUT, at, m, T, false), KN_OK);
    at += T * (OUT + IN);
    assert_int_equal(d->ops->attention(d, at, NULL, qkv, &s, 1, T, &shape), KN_OK);
    at += T * wide;
    kn_cache *c = d->ops->cache_new(d, 1, 4, &shape);
    const uint32_t pages[] = {3, 1};
    const kn_cached_rows rows = {0, T, 0, pages};
    assert_int_equal(d->ops->attention_cached(d, at, qkv, c, 0, &rows, 1, T, NULL), KN_OK);
    d->ops->cache_free(d, c);
    d->ops->matrix_free(d, m);
    free(w);
    free(x);
    free(qkv);
    return (size_t)(at - to) + T * wide;
}

static const kn_profile_row *row_of(const kn_profile_row *rows, size_t n, const char *op, kn_dtype dtype)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(rows[i].op, op) == 0 && rows[i].dtype == dtype)
            return &rows[i];
    fail_msg("no row for %s", op);
    return NULL;
}

static void test_profile(void **state)
{
    kn_device *cpu = kn_cpu_new(2, NULL, NULL), *profile = kn_profile_new(cpu);
    kn_device *cpu16 = staged_device(cpu, KN_BF16), *profile16 = staged_device(profile, KN_BF16);
    assert_non_null(profile16);
    assert_string_equal(profile->ops->numerics(profile), cpu->ops->numerics(cpu));
    float *a = calloc(T * (OUT + IN + WIDTH), sizeof(float)), *b = calloc(T * (OUT + IN + WIDTH), sizeof(float));
    assert_same_bits("float32", a, b, (work(cpu, a), work(profile, b)));
    assert_same_bits("bfloat16", a, b, (work(cpu16, a), work(profile16, b)));
    kn_profile_row rows[KN_PROFILE_ROWS];
    const size_t n = kn_profile_read(profile, rows, KN_PROFILE_ROWS);
    assert_int_equal(n, 10); /* five ops, two types */
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(rows[i].calls, 1);
        assert_true(rows[i].seconds >= 0 && (i == 0 || rows[i].seconds <= rows[i - 1].seconds));
    }
    for (kn_dtype dtype = KN_F32; dtype <= KN_BF16; dtype++) {
        const double size = dtype == KN_F32 ? 4 : 2, pairs = T * (T + 1) / 2;
        const kn_profile_row *linear = row_of(rows, n, "linear", dtype);
        assert_true(linear->flops == 2.0 * T * OUT * IN);
        assert_true(linear->bytes == size * (OUT * IN + T * (OUT + IN)));
        assert_true(row_of(rows, n, "attention", dtype)->flops == 4 * pairs * HEADS * HEAD_DIM);
        assert_true(row_of(rows, n, "attention_cached", dtype)->flops == 4 * pairs * HEADS * HEAD_DIM);
        assert_true(row_of(rows, n, "matrix_set", dtype)->bytes == (4 + size) * OUT * IN);
    }
    assert_int_equal(kn_profile_read(profile, rows, 3), 3);
    kn_profile_reset(profile);
    assert_int_equal(kn_profile_read(profile, rows, KN_PROFILE_ROWS), 0);
    free(a);
    free(b);
    staged_device_free(cpu16);
    staged_device_free(profile16);
    kn_profile_free(profile);
    kn_cpu_free(cpu);
}

/* --- what a device may leave out --- */

static kn_ops rich;
static unsigned begun, ended;
static double bias_sum;

static int step_begin(kn_device *d)
{
    begun++;
    return begun > 2 ? KN_DEVICE_FAILED : KN_OK;
}

static int step_end(kn_device *d)
{
    ended++;
    return KN_OK;
}

static int memory(kn_device *d, kn_memory_use *use)
{
    *use = (kn_memory_use){.used = 7};
    return KN_OK;
}

static const char *refusal(kn_device *d)
{
    return "none left";
}

static int matrix_bias(kn_device *d, kn_matrix *m, const float *bias)
{
    float w[OUT * IN] = {0}, y[OUT] = {0}, x[IN] = {0};
    assert_int_equal(d->ops->matrix_set(d, m, w), KN_OK); /* it is the device's own matrix */
    assert_int_equal(d->ops->linear(d, y, x, m, bias, NULL, 1), KN_OK);
    bias_sum = (double)y[0] + (double)y[OUT - 1];
    return KN_OK;
}

static void test_what_may_be_left_out(void **state)
{
    (void)state;
    kn_device *cpu = kn_cpu_new(1, NULL, NULL), *plain = kn_profile_new(cpu);
    assert_null(plain->ops->step_begin);
    assert_null(plain->ops->step_end);
    assert_null(plain->ops->memory);
    assert_null(plain->ops->refusal);
    assert_null(plain->ops->matrix_bias);
    kn_profile_free(plain);

    const kn_ops *own = cpu->ops;
    rich = *own;
    rich.step_begin = step_begin;
    rich.step_end = step_end;
    rich.memory = memory;
    rich.refusal = refusal;
    rich.matrix_bias = matrix_bias;
    cpu->ops = &rich;
    kn_device *d = kn_profile_new(cpu);
    kn_memory_use use;
    assert_int_equal(d->ops->memory(d, &use), KN_OK);
    assert_int_equal(use.used, 7);
    assert_string_equal(d->ops->refusal(d), "none left");
    kn_matrix *m = d->ops->matrix_new(d, OUT, IN, false);
    float *bias = test_floats(OUT, 1, 1), x[64] = {0};
    assert_int_equal(d->ops->matrix_bias(d, m, bias), KN_OK);
    assert_true(bias_sum == (double)bias[0] + (double)bias[OUT - 1]);

    /* What a step does is one row; what comes before and after, or when none begins, is counted by itself. */
    kn_profile_row rows[KN_PROFILE_ROWS];
    kn_profile_reset(d);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(d->ops->step_begin(d), i < 2 ? KN_OK : KN_DEVICE_FAILED);
        d->ops->add(d, x, x, 64);
        d->ops->linear(d, x, x + 32, m, NULL, NULL, 1);
        if (i < 2)
            assert_int_equal(d->ops->step_end(d), KN_OK);
    }
    assert_int_equal(begun, 3);
    assert_int_equal(ended, 2);
    const size_t n = kn_profile_read(d, rows, KN_PROFILE_ROWS);
    assert_int_equal(n, 3);
    const kn_profile_row *step = row_of(rows, n, "step_end", KN_F32), *add = row_of(rows, n, "add", KN_F32),
                         *linear = row_of(rows, n, "linear", KN_F32);
    assert_int_equal(step->calls, 2);
    assert_int_equal(add->calls, 1);
    assert_int_equal(linear->calls, 1);
    assert_true(step->flops == 2 * linear->flops && step->bytes == 2 * (add->bytes + linear->bytes));
    d->ops->matrix_free(d, m);
    free(bias);
    kn_profile_free(d);
    cpu->ops = own;
    kn_cpu_free(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_profile), cmocka_unit_test(test_what_may_be_left_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
