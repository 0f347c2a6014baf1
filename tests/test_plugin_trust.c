/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Rank correlations, regularizers and the ranker: scipy's numbers, hand-made cases, composition. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "plugins/cream/rank_correlation.h"
#include "tests/fake_host.h"

#define NEAR(value, expected) assert_true(fabs((value) - (expected)) <= 1e-6)

static void scipy_gives_the_same(void **state)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/golden/ranks.txt", getenv("SLUICE_TEST_DATA"));
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t n, cases = 0;
    while (fscanf(file, "%zu", &n) == 1) {
        double v[64], x[16], y[16];
        assert_true(n <= 16);
        for (size_t i = 0; i < 2 * n + 3; i++)
            assert_int_equal(fscanf(file, "%lf", &v[i]), 1);
        memcpy(x, v, n * sizeof *x);
        memcpy(y, v + n, n * sizeof *y);
        const double got[3] = {rank_kendall_a(x, y, n), rank_kendall_b(x, y, n), rank_spearman(x, y, n)};
        for (size_t k = 0; k < 3; k++) {
            double expected = v[2 * n + k];
            assert_int_equal(isnan(got[k]), isnan(expected));
            if (!isnan(expected))
                assert_true(fabs(got[k] - expected) < 1e-12);
        }
        cases++;
    }
    fclose(file);
    assert_int_equal(cases, 144);
}

static void measures_by_hand(void **state)
{
    const double x[] = {3, 1, 2}, same[] = {30, 10, 20}, reversed[] = {1, 3, 2}, tied[] = {2, 2, 1}, flat[] = {1, 1, 1};
    double rank[3];
    NEAR(rank_kendall_a(x, same, 3), 1);
    NEAR(rank_kendall_a(x, reversed, 3), -1);
    NEAR(rank_kendall_a(x, tied, 3), 0); /* (0,1) tied, (0,2) agree, (1,2) differ */
    NEAR(rank_untied(x, tied, 3), 0);
    assert_true(isnan(rank_kendall_a(x, flat, 3)) && isnan(rank_kendall_b(flat, x, 3)) &&
                isnan(rank_spearman(x, flat, 3)));
    assert_true(isnan(rank_untied(x, flat, 3)) && isnan(rank_kendall_a(x, x, 1)));
    assert_true(rank_same_extremes(x, same, 3));
    assert_false(rank_same_extremes(x, reversed, 3));
    rank_ordinal(flat, 3, rank);
    assert_true(rank[0] == 1 && rank[1] == 2 && rank[2] == 3);
}

/* A record with candidates 0 … n-1, scores by two judges, and one pair. */
static sluice_record *judged(fake_host *f, const char *id, size_t n, const double *now, const double *before,
                             uint32_t chosen, uint32_t rejected)
{
    sluice_record *record = fake_record(f, id, "question");
    for (uint32_t i = 0; i < n; i++) {
        fake_candidate(record, NULL, &i, 1);
        fake_score(record, "now", i, now[i]);
        fake_score(record, "before", i, before[i]);
    }
    sluice_pair pair = {.chosen = chosen, .rejected = rejected, .p = 1, .weight = 1, .margin = NAN};
    if (chosen != rejected)
        assert_int_equal(sluice_record_add_pair(record, &pair), SLUICE_OK);
    return record;
}

static sluice_pair pair_of(const sluice_record *record, size_t index)
{
    sluice_pair pair;
    assert_int_equal(sluice_record_pair(record, index, &pair), SLUICE_OK);
    return pair;
}

static fake_host *cream(const char *measure, const char *scope, const char *ties, const char *map)
{
    fake_host *f = fake_open("cream", "cream");
    fake_set_text(f, "current", "now");
    fake_set_text(f, "previous", "before");
    fake_set_text(f, "measure", measure);
    fake_set_text(f, "scope", scope);
    fake_set_text(f, "ties", ties);
    fake_set_text(f, "map", map);
    return f;
}

static const double up[] = {1, 2, 3, 4}, down[] = {4, 3, 2, 1}, swapped[] = {1, 2, 4, 3}, flat[] = {0, 0, 0, 0};

static void cream_over_the_dataset(void **state)
{
    fake_host *f = cream("kendall", "dataset", "zero", "published");
    judged(f, "a", 4, up, up, 3, 0);      /* tau 1 */
    judged(f, "b", 4, up, swapped, 3, 0); /* tau 2/3 */
    judged(f, "c", 4, up, flat, 3, 0);    /* none: leaves C as it is */
    judged(f, "d", 4, down, up, 0, 0);    /* no pair: has no say, though the published code lets it */
    assert_int_equal(fake_run(f), SLUICE_OK);
    double c = (1 + 5.0 / 6) / 2;
    NEAR(fake_metric(f, "consistency"), c);
    NEAR(fake_metric(f, "tau"), 2 * c - 1);
    assert_true(fake_metric(f, "records") == 2 && fake_metric(f, "undefined") == 1 && fake_metric(f, "unpaired") == 1);
    assert_true(fake_metric(f, "reversed") == 0);
    for (size_t i = 0; i < 3; i++)
        NEAR(pair_of(f->output[i], 0).p, c);
    assert_string_equal(f->warning, "");
    fake_close(f);
}

/* The published code pairs prompts with rates by position after leaving some prompts out, so that all that follow get
 * another's. */
static void cream_keeps_rates_with_their_records(void **state)
{
    fake_host *f = cream("kendall", "sample", "zero", "published");
    judged(f, "skipped", 4, up, flat, 3, 0);
    judged(f, "agrees", 4, up, up, 3, 0);
    judged(f, "differs", 4, up, down, 3, 0);
    assert_int_equal(fake_run(f), SLUICE_OK);
    NEAR(pair_of(f->output[0], 0).p, 1); /* no rate: as it was */
    NEAR(pair_of(f->output[1], 0).p, 1);
    NEAR(pair_of(f->output[2], 0).p, 0);
    assert_true(fake_metric(f, "reversed") == 1);
    fake_close(f);
}

/* The published top-order compares the ranks of the first and the last candidate, not the best and the worst. */
static void top_order_is_about_best_and_worst(void **state)
{
    const double now[] = {2, 4, 1, 3}, same_ends[] = {3, 4, 1, 2}, other_ends[] = {2, 1, 4, 3};
    const struct {
        const char *measure;
        const double *before;
        double c;
    } cases[] = {{"top-order", same_ends, 1},
                 {"top-order", other_ends, 0},
                 {"top-order-published", same_ends, 0},
                 {"top-order-published", other_ends, 1}};
    for (size_t i = 0; i < 4; i++) {
        fake_host *f = cream(cases[i].measure, "dataset", "zero", "published");
        judged(f, "a", 4, now, cases[i].before, 1, 2);
        assert_int_equal(fake_run(f), SLUICE_OK);
        NEAR(fake_metric(f, "consistency"), cases[i].c);
        fake_close(f);
    }
}

/* Ties broken by index count as agreement in the published code; elsewhere they do not. */
static void ties_are_no_agreement(void **state)
{
    const double now[] = {1, 1, 1, 2}, before[] = {1, 1, 1, 2};
    const double x[] = {1, 1, 2}, y[] = {2, 1, 1};
    const struct {
        const char *measure, *ties;
        double c;
    } cases[] = {
        {"kendall", "zero", (0.5 + 1) / 2}, {"kendall", "drop", 1}, {"kendall", "index", 1}, {"kendall-b", "zero", 1}};
    for (size_t i = 0; i < 4; i++) {
        fake_host *f = cream(cases[i].measure, "dataset", cases[i].ties, "published");
        judged(f, "a", 4, now, before, 3, 0);
        assert_int_equal(fake_run(f), SLUICE_OK);
        NEAR(fake_metric(f, "consistency"), cases[i].c);
        fake_close(f);
    }
    fake_host *f = cream("kendall", "dataset", "zero", "published");
    judged(f, "a", 3, x, y, 2, 0); /* one pair of three is untied on both sides, and differs */
    assert_int_equal(fake_run(f), SLUICE_OK);
    NEAR(fake_metric(f, "tau"), -1.0 / 3);
    fake_close(f);
}

static void cream_maps_and_warns(void **state)
{
    const struct {
        const char *map;
        double p;
        bool warns;
    } cases[] = {{"published", 0, true}, {"max-half", 0.5, false}, {"theory", 2.0 / 3, false}};
    for (size_t i = 0; i < 3; i++) {
        fake_host *f = cream("kendall", "dataset", "zero", cases[i].map);
        judged(f, "a", 4, up, down, 3, 0);
        assert_int_equal(fake_run(f), SLUICE_OK);
        NEAR(pair_of(f->output[0], 0).p, cases[i].p);
        NEAR(fake_metric(f, "trust"), cases[i].p);
        NEAR(fake_metric(f, "consistency"), 0);
        assert_int_equal(f->warning[0] != 0, cases[i].warns);
        fake_close(f);
    }
}

static void cream_leaves_out_missing_scores(void **state)
{
    fake_host *f = cream("kendall", "dataset", "zero", "published");
    sluice_record *record = fake_record(f, "a", "q");
    for (uint32_t i = 0; i < 3; i++)
        fake_candidate(record, NULL, &i, 1);
    fake_score(record, "now", 0, 1);
    fake_score(record, "now", 1, 2);
    fake_score(record, "now", 2, 3);
    fake_score(record, "before", 0, 1);
    fake_score(record, "before", 2, 5);
    sluice_pair pair = {.chosen = 2, .rejected = 0, .p = 1, .weight = 1, .margin = NAN};
    sluice_record_add_pair(record, &pair);
    assert_int_equal(fake_run(f), SLUICE_OK);
    NEAR(fake_metric(f, "consistency"), 1);
    fake_close(f);

    f = cream("kendall", "dataset", "zero", "published");
    fake_set_text(f, "previous", "nobody");
    judged(f, "a", 4, up, up, 3, 0);
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    assert_non_null(strstr(f->error, "scores of both 'now' and 'nobody'"));
    fake_close(f);

    f = cream("kendall", "dataset", "zero", "published");
    judged(f, "a", 4, up, flat, 3, 0);
    assert_int_equal(fake_run(f), SLUICE_OK); /* no rate at all: nothing is changed, and it is said */
    NEAR(pair_of(f->output[0], 0).p, 1);
    assert_true(f->warning[0] != 0 && isnan(fake_metric(f, "consistency")));
    fake_close(f);
}

static double p_after(const char *object, const char *param, double value, double p)
{
    fake_host *f = fake_open(object, object);
    if (param)
        fake_set_number(f, param, value);
    sluice_record *record = judged(f, "a", 2, up, up, 1, 0);
    sluice_pair pair = {.chosen = 1, .rejected = 0, .p = p, .weight = 2, .margin = NAN};
    sluice_record_set_pair(record, 0, &pair);
    assert_int_equal(fake_run(f), SLUICE_OK);
    pair = pair_of(f->output[0], 0);
    assert_true(pair.weight == 2 && pair.chosen == 1 && pair.rejected == 0);
    fake_close(f);
    return pair.p;
}

static void regularizers_compose(void **state)
{
    NEAR(p_after("keep", NULL, 0, 0.7), 0.7);
    NEAR(p_after("label-smoothing", "epsilon", 0.1, 1), 0.9);
    NEAR(p_after("label-smoothing", "epsilon", 0.1, 0.9), 0.9 * 0.9 + 0.1 * 0.1); /* two in a row */
    NEAR(p_after("fixed", "c", 0.8, 0.9), 0.9 * 0.8 + 0.1 * 0.2);
    NEAR(p_after("random-label", "fraction", 0, 0.9), 0.9);
    NEAR(p_after("random-label", "fraction", 1, 0.9), 0.1);
}

static void random_labels_are_fair_and_repeat(void **state)
{
    double flipped[2] = {0};
    unsigned char labels[2][400];
    for (int run = 0; run < 2; run++) {
        fake_host *f = fake_open("random-label", "random-label");
        f->seed_value = 42;
        for (int i = 0; i < 400; i++) {
            char id[24];
            snprintf(id, sizeof id, "r%d", run ? 399 - i : i); /* the other way round: order does not matter */
            judged(f, id, 2, up, up, 1, 0);
        }
        fake_set_text(f, "truth", "now");
        assert_int_equal(fake_run(f), SLUICE_OK);
        NEAR(fake_metric(f, "label_accuracy"), 1 - fake_metric(f, "flipped"));
        flipped[run] = fake_metric(f, "flipped");
        for (int i = 0; i < 400; i++)
            labels[run][run ? 399 - i : i] = pair_of(f->output[i], 0).p > 0.5;
        fake_close(f);
    }
    assert_true(fabs(flipped[0] - 0.5) < 0.1); /* four standard errors */
    assert_memory_equal(labels[0], labels[1], 400);
}

/* ---- the ranker */

static fake_host *ranker(const char *pick, const char *ties)
{
    fake_host *f = fake_open("ranker", "ranker");
    fake_set_text(f, "by", "judge");
    fake_set_text(f, "pick", pick);
    fake_set_text(f, "ties", ties);
    return f;
}

/* Candidates with one token each (the given one), scores by 'judge', NaN = none. */
static sluice_record *answered(fake_host *f, const char *id, size_t n, const uint32_t *tokens, const double *scores)
{
    sluice_record *record = fake_record(f, id, "q");
    for (size_t i = 0; i < n; i++) {
        fake_candidate(record, NULL, &tokens[i], 1);
        if (!isnan(scores[i]))
            fake_score(record, "judge", i, scores[i]);
    }
    return record;
}

static const uint32_t distinct[] = {10, 11, 12, 13};

static void best_against_worst(void **state)
{
    fake_host *f = ranker("best-worst", "drop");
    fake_set_number(f, "margin", 1);
    fake_set_text(f, "truth", "verifier");
    sluice_record *a = answered(f, "a", 4, distinct, (double[]){2, NAN, 5, -1});
    fake_score(a, "verifier", 2, 1);
    fake_score(a, "verifier", 3, 0);
    sluice_record *b = answered(f, "b", 2, distinct, (double[]){1, 2});
    fake_score(b, "verifier", 0, 1);
    fake_score(b, "verifier", 1, 0);
    answered(f, "c", 3, distinct, (double[]){1, 0, 1});
    answered(f, "d", 2, distinct, (double[]){7, 7});
    answered(f, "e", 2, (uint32_t[]){5, 5}, (double[]){1, 2});
    answered(f, "f", 1, distinct, (double[]){1});
    answered(f, "g", 0, distinct, NULL);
    assert_int_equal(fake_run(f), SLUICE_OK);
    sluice_pair pair = pair_of(f->output[0], 0);
    assert_true(pair.chosen == 2 && pair.rejected == 3 && pair.p == 1 && pair.weight == 1);
    NEAR(pair.margin, 6);
    const uint32_t *ranks = sluice_record_ranking(f->output[0], "judge");
    assert_true(ranks[0] == 1 && ranks[1] == UINT32_MAX && ranks[2] == 0 && ranks[3] == 2);
    ranks = sluice_record_ranking(f->output[2], "judge");
    assert_true(ranks[0] == 0 && ranks[1] == 2 && ranks[2] == 0);
    assert_true(fake_metric(f, "pairs") == 3 && fake_metric(f, "ties") == 1 && fake_metric(f, "identical") == 1);
    assert_true(fake_metric(f, "unpaired") == 4 && fake_metric(f, "records") == 7);
    NEAR(fake_metric(f, "label_accuracy"), 0.5);
    NEAR(fake_metric(f, "label_coverage"), 2.0 / 3);
    fake_close(f);
}

static void ties_by_rule(void **state)
{
    fake_host *f = ranker("best-worst", "keep");
    answered(f, "a", 2, distinct, (double[]){7, 7});
    assert_int_equal(fake_run(f), SLUICE_OK);
    NEAR(pair_of(f->output[0], 0).p, 0.5);
    fake_close(f);
    f = ranker("best-worst", "first");
    answered(f, "a", 2, distinct, (double[]){7, 7});
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_true(pair_of(f->output[0], 0).chosen == 0 && pair_of(f->output[0], 0).p == 1);
    fake_close(f);
}

static void all_pairs_and_random_ones(void **state)
{
    fake_host *f = ranker("all-pairs", "drop");
    answered(f, "a", 4, distinct, (double[]){1, 2, 2, 3});
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_int_equal(sluice_record_pairs(f->output[0]), 5);
    for (size_t i = 0; i < 5; i++) {
        sluice_pair pair = pair_of(f->output[0], i);
        const float *scores = sluice_record_scores(f->output[0], "judge");
        assert_true(scores[pair.chosen] > scores[pair.rejected]);
    }
    fake_close(f);

    f = ranker("best-random", "drop");
    int met[4] = {0};
    for (int i = 0; i < 200; i++) {
        char id[24];
        snprintf(id, sizeof id, "r%d", i);
        answered(f, id, 4, distinct, (double[]){1, 9, 2, 9});
    }
    assert_int_equal(fake_run(f), SLUICE_OK);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(pair_of(f->output[i], 0).chosen, 1);
        met[pair_of(f->output[i], 0).rejected]++;
    }
    assert_true(met[0] > 60 && met[2] > 60 && met[1] == 0 && met[3] == 0);
    fake_close(f);
}

static void ranker_needs_its_judge(void **state)
{
    fake_host *f = ranker("best-worst", "drop");
    sluice_record *record = fake_record(f, "a", "q");
    fake_candidate(record, "x", NULL, 0);
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    assert_non_null(strstr(f->error, "no record has scores of 'judge'"));
    fake_close(f);
    f = ranker("best-worst", "drop"); /* of some it may have nothing to say */
    fake_candidate(fake_record(f, "a", "q"), "x", NULL, 0);
    record = fake_record(f, "b", "q");
    for (uint32_t i = 0; i < 2; i++) {
        fake_candidate(record, i ? "x" : "y", NULL, 0);
        fake_score(record, "judge", i, i);
    }
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_true(fake_metric(f, "pairs") == 1 && fake_metric(f, "unpaired") == 1);
    fake_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scipy_gives_the_same),
        cmocka_unit_test(measures_by_hand),
        cmocka_unit_test(cream_over_the_dataset),
        cmocka_unit_test(cream_keeps_rates_with_their_records),
        cmocka_unit_test(top_order_is_about_best_and_worst),
        cmocka_unit_test(ties_are_no_agreement),
        cmocka_unit_test(cream_maps_and_warns),
        cmocka_unit_test(cream_leaves_out_missing_scores),
        cmocka_unit_test(regularizers_compose),
        cmocka_unit_test(random_labels_are_fair_and_repeat),
        cmocka_unit_test(best_against_worst),
        cmocka_unit_test(ties_by_rule),
        cmocka_unit_test(all_pairs_and_random_ones),
        cmocka_unit_test(ranker_needs_its_judge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
