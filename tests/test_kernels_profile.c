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
    kn_profile_row rows[64];
    const size_t n = kn_profile_read(profile, rows, 64);
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
    assert_int_equal(kn_profile_read(profile, rows, 64), 0);
    free(a);
    free(b);
    staged_device_free(cpu16);
    staged_device_free(profile16);
    kn_profile_free(profile);
    kn_cpu_free(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_profile)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
