/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* sluice/random.h: known answers, ranges, independence of places. */
#include "kernels_test.h"

/* From the known-answer file of Random123 (tests/kat_vectors, philox4x32 10). */
static void test_known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < 3; i++) {
        uint32_t out[4];
        sluice_philox4x32(known[i].key, known[i].counter, out);
        assert_memory_equal(out, known[i].out, sizeof(out));
    }
}

static void test_ranges(void **state)
{
    assert_true(sluice_uniform_float(0) > 0 && sluice_uniform_float(0) < 1e-9f);
    assert_true(sluice_uniform_float(UINT32_MAX) < 1);
    assert_true(sluice_uniform_double(0, 0) > 0 && sluice_uniform_double(UINT32_MAX, UINT32_MAX) < 1);
    assert_int_equal(sluice_uniform_below(0, 0, 7), 0);
    assert_int_equal(sluice_uniform_below(UINT32_MAX, UINT32_MAX, 7), 6);
    assert_int_equal(sluice_uniform_below(UINT32_MAX, UINT32_MAX, UINT64_MAX), UINT64_MAX - 1);
    assert_int_equal(sluice_uniform_below(0x80000000u, 0, UINT64_C(1) << 40), UINT64_C(1) << 39);
}

/* Every part of a place matters, and items of one place do not repeat. */
static void test_places(void **state)
{
    const sluice_draw base = {1, 2, 3, 4, 5, 6, SLUICE_PURPOSE_TOKEN, 7};
    uint32_t first[9];
    for (int field = 0; field < 9; field++) {
        sluice_draw d = base;
        uint64_t *part[] = {&d.seed, &d.stage, &d.iteration, &d.step, &d.record, &d.candidate, &d.purpose};
        if (field < 7)
            ++*part[field];
        else if (field == 7)
            d.position++;
        uint64_t key[2], counter[2];
        sluice_draw_place(&d, key, counter);
        assert_int_equal(counter[0] & 0xffffffff, 0);
        first[field] = sluice_random_item(key, counter, 0);
        for (int other = 0; other < field; other++)
            assert_int_not_equal(first[field], first[other]);
    }
    uint64_t key[2], counter[2];
    sluice_draw_place(&base, key, counter);
    for (uint32_t i = 0; i < 300; i++)
        for (uint32_t k = 0; k < i; k++)
            assert_int_not_equal(sluice_random_item(key, counter, i), sluice_random_item(key, counter, k));
    assert_int_not_equal(sluice_random_name("a", 1), sluice_random_name("b", 1));
    assert_int_not_equal(sluice_random_name("", 0), sluice_random_name("\0", 1));
}

/* Mean and variance of a hundred thousand draws, within five standard errors. */
static void test_moments(void **state)
{
    const uint64_t key[2] = {42, 43}, counter[2] = {0, 9};
    const size_t n = 100000;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        const double u = sluice_uniform_float(sluice_random_item(key, counter, (uint32_t)i));
        sum += u;
        squares += (u - 0.5) * (u - 0.5);
    }
    assert_true(fabs(sum / (double)n - 0.5) < 5 * sqrt(1.0 / 12 / (double)n));
    assert_true(fabs(squares / (double)n - 1.0 / 12) < 5 * sqrt(1.0 / 180 / (double)n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known_answers), cmocka_unit_test(test_ranges),
                                       cmocka_unit_test(test_places), cmocka_unit_test(test_moments)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
