/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Judges combined, and the best of n: formulas against numbers made by hand and by counting all subsets. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "plugins/best-of-n/expected.h"
#include "plugins/judge-combine/combine.h"
#include "tests/fake_host.h"

#define NEAR(value, expected) assert_true(fabs((value) - (expected)) <= 1e-9)

static void scales_by_hand(void **state)
{
    const double scores[] = {2, NAN, 4, 4, 6}, flat[] = {3, 3}, one[] = {7};
    double out[5];
    combine_normalize(COMBINE_PROMPT, scores, 5, out);
    NEAR(out[0], -sqrt(2)); /* mean 4, variance (4 + 0 + 0 + 4) / 4 */
    assert_true(isnan(out[1]));
    NEAR(out[2], 0);
    NEAR(out[4], sqrt(2));
    combine_normalize(COMBINE_RANK, scores, 5, out);
    NEAR(out[0], 0);
    assert_true(isnan(out[1]));
    NEAR(out[2], 0.5);
    NEAR(out[4], 1);
    combine_normalize(COMBINE_PROMPT, flat, 2, out);
    assert_true(out[0] == 0 && out[1] == 0);
    combine_normalize(COMBINE_RANK, one, 1, out);
    assert_true(out[0] == 0.5);
    combine_normalize(COMBINE_RAW, scores, 5, out);
    assert_true(out[4] == 6 && isnan(out[1]));
}

static void methods_by_hand(void **state)
{
    const double scores[] = {1, 5, NAN, /* first judge */
                             3, 1, 2 /* second */};
    const double weights[] = {2, -0.5};
    size_t order[3];
    double out[3];
    combine_rule rule = {.method = COMBINE_SUM, .weights = weights};
    combine_scores(&rule, scores, 2, 3, order, out);
    NEAR(out[0], 0.5);
    NEAR(out[1], 9.5);
    assert_true(isnan(out[2]));
    rule.skip_missing = true;
    combine_scores(&rule, scores, 2, 3, order, out);
    NEAR(out[2], -0.5 * 2 * 2.5 / 0.5);
    rule.method = COMBINE_MIN;
    combine_scores(&rule, scores, 2, 3, order, out);
    assert_true(out[0] == 1 && out[1] == 1 && out[2] == 2);
    rule.method = COMBINE_MEAN_STD;
    rule.penalty = 0.5;
    combine_scores(&rule, scores, 2, 3, order, out);
    NEAR(out[0], 2 - 0.5 * 1);
    NEAR(out[1], 3 - 0.5 * 2);
    NEAR(out[2], 2);
}

static void the_first_judge_decides(void **state)
{
    const double scores[] = {1,  3, 2.9, 3, NAN, /* first */
                             10, 1, 2,   1, 5 /* second */};
    size_t order[5];
    double out[5];
    combine_rule rule = {.method = COMBINE_LEXICOGRAPHIC};
    combine_scores(&rule, scores, 2, 5, order, out);
    NEAR(out[0], 0); /* 1 and 3 tie at the top: each above two, half of the other */
    NEAR(out[1], 2.5 / 3);
    NEAR(out[2], 1.0 / 3);
    NEAR(out[3], 2.5 / 3);
    assert_true(isnan(out[4]));
    rule.tolerance = 0.2; /* 2.9 now ties with 3, and the second judge prefers it */
    combine_scores(&rule, scores, 2, 5, order, out);
    NEAR(out[2], 1);
    NEAR(out[1], 1.5 / 3);
    NEAR(out[3], 1.5 / 3);
    rule.skip_missing = true; /* the one without the first judge's score comes last */
    combine_scores(&rule, scores, 2, 5, order, out);
    NEAR(out[4], 0);
    NEAR(out[0], 1.0 / 4);
    combine_scores(&rule, scores, 2, 0, order, out);
    combine_scores(&rule, scores + 4, 1, 1, order, out);
    assert_true(isnan(out[0]));
}

static fake_host *combiner(const char *method)
{
    static const char *const names[] = {"a", "b/clear"};
    fake_host *f = fake_open("judge-combine", "judge-combine");
    f->stage_name = "both";
    fake_set_bytes(f, "judges", &(sluice_strings){names, 2}, sizeof(sluice_strings));
    fake_set_text(f, "method", method);
    return f;
}

static void records_get_the_combined_score(void **state)
{
    fake_host *f = combiner("weighted-sum");
    sluice_record *r = fake_record(f, "r", "q");
    for (int i = 0; i < 3; i++) {
        fake_candidate(r, "x", NULL, 0);
        fake_score(r, "a", (size_t)i, i);
        if (i > 0)
            fake_score(r, "b/clear", (size_t)i, 10);
    }
    fake_record(f, "empty", "q");
    assert_int_equal(fake_run(f), SLUICE_OK);
    const float *s = sluice_record_scores(f->output[0], "both");
    assert_true(isnan(s[0]) && s[1] == 11 && s[2] == 12);
    assert_true(fake_metric(f, "scored") == 2 && fake_metric(f, "absent") == 1 && fake_metric(f, "mean_score") == 11.5);
    fake_close(f);

    f = combiner("min");
    r = fake_record(f, "r", "q");
    fake_candidate(r, "x", NULL, 0);
    fake_score(r, "a", 0, 1);
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    assert_non_null(strstr(f->error, "no record has a score of 'b/clear'"));
    fake_close(f);

    static const double weights[] = {1, 2, 3};
    f = combiner("weighted-sum");
    fake_set_bytes(f, "weights", &(sluice_doubles){weights, 3}, sizeof(sluice_doubles));
    assert_int_equal(fake_start(f), SLUICE_BAD_PARAMETER);
    assert_non_null(strstr(f->error, "there are 2 judges and 3 weights"));
    fake_close(f);
    f = combiner("min");
    fake_set_bytes(f, "weights", &(sluice_doubles){weights, 2}, sizeof(sluice_doubles));
    assert_int_equal(fake_start(f), SLUICE_BAD_PARAMETER);
    fake_close(f);
}

/* The mean over all subsets of `taken` items, by going through them. */
static void by_counting(const struct expected_item *items, size_t n, size_t taken, double *best, double *oracle)
{
    double subsets = 0;
    *best = *oracle = 0;
    for (uint32_t set = 0; set < 1u << n; set++) {
        if ((size_t)__builtin_popcount(set) != taken)
            continue;
        double top = -INFINITY, truth = 0, ties = 0, most = -INFINITY;
        for (size_t i = 0; i < n; i++) {
            if (!(set >> i & 1))
                continue;
            most = fmax(most, items[i].truth);
            if (items[i].score > top)
                top = items[i].score, truth = 0, ties = 0;
            if (items[i].score == top)
                truth += items[i].truth, ties++;
        }
        *best += truth / ties;
        *oracle += most;
        subsets++;
    }
    *best /= subsets;
    *oracle /= subsets;
}

static void expectations_equal_all_subsets(void **state)
{
    unsigned x = 1;
    for (int round = 0; round < 40; round++) {
        struct expected_item items[9];
        size_t n = 1 + (size_t)round % 9;
        for (size_t i = 0; i < n; i++) {
            x = x * 1103515245 + 12345;
            unsigned score = x >> 16 & 3;
            items[i] = (struct expected_item){score == 0 ? -INFINITY : score, (double)(x >> 20 & 1), (uint32_t)i};
            if (round % 2)
                items[i].truth = (double)(x >> 20 & 7) / 7;
        }
        expected_sort(items, n);
        for (size_t taken = 1; taken <= n; taken++) {
            double best, oracle;
            by_counting(items, n, taken, &best, &oracle);
            NEAR(expected_best(items, n, taken), best);
            NEAR(expected_oracle(items, n, taken), oracle);
        }
    }
}

static void the_best_stay(void **state)
{
    static const double scores[] = {1, 3, 3, NAN, 2}, truth[] = {1, 0, 1, 1, 0};
    fake_host *f = fake_open("best-of-n", "best-of-n");
    fake_set_text(f, "by", "taste");
    fake_set_text(f, "truth", "right");
    fake_set_number(f, "keep", 2);
    for (int k = 0; k < 2; k++) {
        sluice_record *r = fake_record(f, k ? "b" : "a", "q");
        for (size_t i = 0; i < 5; i++) {
            char text[8];
            snprintf(text, sizeof text, "%zu", i);
            fake_candidate(r, text, NULL, 0);
            if (!isnan(scores[i]))
                fake_score(r, "taste", i, scores[i]);
            if (k == 0 || i > 0)
                fake_score(r, "right", i, truth[i]);
        }
    }
    assert_int_equal(fake_run(f), SLUICE_OK);
    for (int k = 0; k < 2; k++) {
        sluice_candidate c;
        assert_int_equal(sluice_record_candidates(f->output[k]), 2);
        sluice_record_candidate(f->output[k], 0, &c);
        assert_string_equal(c.text, "1"); /* of equal ones the earlier */
        sluice_record_candidate(f->output[k], 1, &c);
        assert_string_equal(c.text, "2");
    }
    assert_true(fake_metric(f, "records") == 2 && fake_metric(f, "candidates") == 10 && fake_metric(f, "known") == 1);
    assert_true(fake_metric(f, "accuracy") == 0);
    NEAR(fake_step_metric(f, "best_of", 1), 0.6);
    NEAR(fake_step_metric(f, "oracle", 1), 0.6);
    NEAR(fake_step_metric(f, "best_of", 5), 0.5);
    NEAR(fake_step_metric(f, "oracle", 4), 1);
    NEAR(fake_step_metric(f, "kl", 4), log(4) - 0.75);
    fake_close(f);

    f = fake_open("best-of-n", "best-of-n");
    fake_set_text(f, "by", "taste");
    fake_candidate(fake_record(f, "a", "q"), "x", NULL, 0);
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    assert_non_null(strstr(f->error, "no record has scores of 'taste'"));
    fake_close(f);

    f = fake_open("best-of-n", "best-of-n"); /* a record for which the judge had no score at all */
    fake_set_text(f, "by", "taste");
    sluice_record *bare = fake_record(f, "a", "q"), *judged = fake_record(f, "b", "q");
    fake_candidate(bare, "x", NULL, 0);
    fake_candidate(judged, "x", NULL, 0);
    assert_int_equal(sluice_record_set_score(judged, "taste", 0, 1), SLUICE_OK);
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_int_equal(sluice_record_candidates(bare), 0);
    assert_int_equal(sluice_record_candidates(judged), 1);
    fake_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales_by_hand),
        cmocka_unit_test(methods_by_hand),
        cmocka_unit_test(the_first_judge_decides),
        cmocka_unit_test(records_get_the_combined_score),
        cmocka_unit_test(expectations_equal_all_subsets),
        cmocka_unit_test(the_best_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
