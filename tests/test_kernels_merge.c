/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Merges and AdamW with bfloat16 moments: against the reference, what SLERP keeps, what stochastic rounding promises.
 */
#include "kernels_test.h"

#include "kernels/bf16.h"

static kn_device *reference;

static const size_t sizes[] = {0, 1, 17, 4096, 70001};

/* --- means --- */

static void mean_isa(kn_device *cpu, const char *isa)
{
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        const size_t n = sizes[s];
        float *x[3] = {test_floats(n, 1, 1), test_floats(n, 1, 2), test_floats(n, 1, 3)};
        float *a = test_memory(n * sizeof(float)), *b = test_memory(n * sizeof(float));
        static const float weight[] = {0.2f, 0.5f, 0.3f};
        for (size_t count = 1; count <= 3; count++)
            for (int weighted = 0; weighted < 2; weighted++) {
                const float *const *from = (const float *const *)x;
                assert_int_equal(cpu->ops->mean(cpu, a, from, weighted ? weight : NULL, count, n), KN_OK);
                assert_int_equal(reference->ops->mean(reference, b, from, weighted ? weight : NULL, count, n), KN_OK);
                assert_same_bits("mean", a, b, n);
            }
        assert_int_equal(cpu->ops->mean(cpu, a, (const float *const *)x, weight, 0, n), KN_BAD_ARGUMENT);
        for (int i = 0; i < 3; i++)
            free(x[i]);
        free(a);
        free(b);
    }
}

/* --- SLERP --- */

static double slerped(kn_device *d, float *to, const float *base, const float *a, const float *b, double lambda,
                      size_t n)
{
    double dots[3] = {0}, norm = 0;
    const size_t first = n / 3; /* in two calls, as a layer of two tensors */
    assert_int_equal(d->ops->slerp_dots_add(d, dots, base, a, b, first), KN_OK);
    assert_int_equal(d->ops->slerp_dots_add(d, dots, base ? base + first : NULL, a + first, b + first, n - first),
                     KN_OK);
    assert_int_equal(d->ops->slerp(d, to, dots, base, a, b, lambda, n), KN_OK);
    for (size_t i = 0; i < n; i++)
        norm += pow((double)to[i] - (base ? base[i] : 0), 2);
    return sqrt(norm);
}

static void slerp_isa(kn_device *cpu, const char *isa)
{
    for (size_t s = 1; s < sizeof(sizes) / sizeof(sizes[0]); s++)
        for (int with_base = 0; with_base < 2; with_base++) {
            const size_t n = sizes[s];
            float *base = with_base ? test_floats(n, 1, 3) : NULL, *a = test_floats(n, 1, 1), *b = test_floats(n, 1, 2);
            float *x = test_memory(n * sizeof(float)), *y = test_memory(n * sizeof(float));
            for (int l = 0; l <= 4; l++) {
                slerped(cpu, x, base, a, b, l / 4.0, n);
                slerped(reference, y, base, a, b, l / 4.0, n);
                assert_near("slerp", x, y, n, 1e-5);
                if (l == 0 || l == 4)
                    assert_near("an end", x, l == 0 ? a : b, n, 1e-6);
            }
            slerped(cpu, x, base, a, a, 0.3, n); /* no angle between the two */
            assert_near("no angle", x, a, n, 1e-6);
            if (with_base) { /* one that did not move */
                slerped(cpu, x, base, base, b, 0.25, n);
                for (size_t i = 0; i < n; i++)
                    y[i] = 0.75f * base[i] + 0.25f * b[i];
                assert_near("straight", x, y, n, 1e-6);
            } else if (n > 1) { /* equal norms stay */
                double na = 0, nb = 0;
                for (size_t i = 0; i < n; i++) {
                    na += (double)a[i] * a[i];
                    nb += (double)b[i] * b[i];
                }
                for (size_t i = 0; i < n; i++)
                    b[i] *= (float)sqrt(na / nb);
                assert_true(fabs(slerped(cpu, x, NULL, a, b, 0.4, n) / sqrt(na) - 1) < 1e-5);
            }
            free(base);
            free(a);
            free(b);
            free(x);
            free(y);
        }
}

/* --- bfloat16 moments --- */

static void adamw_isa(kn_device *cpu, const char *isa)
{
    static const uint64_t key[2] = {5, 6}, counter[2] = {UINT64_C(3) << 32, 0};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        const size_t n = sizes[s];
        float *g = test_floats(n, 0.1f, 2), *w[2];
        uint16_t *m[2], *v[2], *rounded = calloc(n + 1, sizeof(*rounded));
        kn_device *device[2] = {cpu, reference};
        for (int i = 0; i < 2; i++) {
            w[i] = test_floats(n, 1, 1);
            m[i] = calloc(n + 1, sizeof(uint16_t));
            v[i] = calloc(n + 1, sizeof(uint16_t));
            const kn_adamw a = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1, 0.5f, NULL, rounded};
            assert_int_equal(device[i]->ops->adamw_bf16(device[i], w[i], m[i], v[i], g, n, &a, key, counter), KN_OK);
            for (size_t k = 0; k < n; k++)
                assert_int_equal(rounded[k], kn_narrow(w[i][k]));
            const float nan = NAN;
            const kn_adamw skipped = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 2, 0.5f, &nan, NULL}, none = {.step = 0};
            assert_int_equal(device[i]->ops->adamw_bf16(device[i], w[i], m[i], v[i], g, n, &skipped, key, counter),
                             KN_OK);
            assert_int_equal(device[i]->ops->adamw_bf16(device[i], w[i], m[i], v[i], g, n, &none, key, counter),
                             KN_BAD_ARGUMENT);
        }
        free(rounded);
        assert_near("adamw_bf16", w[0], w[1], n, 1e-6);
        size_t other = 0; /* a last digit of the unrounded number may tip the rounding */
        double drift = 0, size = 0;
        for (size_t i = 0; i < n; i++) {
            assert_true(abs(m[0][i] - m[1][i]) <= 1 && abs(v[0][i] - v[1][i]) <= 1);
            other += m[0][i] != m[1][i] || v[0][i] != v[1][i];
            const double exact = 0.1f * (0.5f * g[i]);
            drift += kn_widen(m[0][i]) - exact;
            size += fabs(exact);
        }
        assert_true((double)other <= 1 + 1e-3 * (double)n);
        assert_true(n < 4096 || fabs(drift) < 1e-4 * size); /* rounding is up as often as it should be */
        for (int i = 0; i < 2; i++) {
            free(w[i]);
            free(m[i]);
            free(v[i]);
        }
        free(g);
    }
}

static void on_all(void (*f)(kn_device *, const char *isa))
{
    reference = kn_reference_new();
    each_isa(2, f);
    kn_reference_free(reference);
}

static void test_mean(void **state)
{
    on_all(mean_isa);
}

static void test_slerp(void **state)
{
    on_all(slerp_isa);
}

static void test_adamw_bf16(void **state)
{
    on_all(adamw_isa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mean), cmocka_unit_test(test_slerp),
                                       cmocka_unit_test(test_adamw_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
