/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Choosing a token: χ² against the exact truncated distribution, greedy ties, penalties, refusals. */
#include "kernels_test.h"

#define DRAWS 6000

/* --- the exact distribution, by sorting --- */

typedef struct ranked {
    double logit;
    uint32_t token;
} ranked;

static int by_rank(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

static void exact(double *p, const float *logits, size_t V, const kn_choice *c)
{
    ranked *r = test_memory(V * sizeof(*r));
    char *penalized = calloc(V, 1);
    for (size_t v = 0; v < V; v++) {
        r[v] = (ranked){logits[v], (uint32_t)v};
        p[v] = 0;
    }
    for (size_t i = 0; i < c->seen_count; i++)
        if (!penalized[c->seen[i]]++)
            r[c->seen[i]].logit *=
                logits[c->seen[i]] > 0 ? 1 / (double)c->repetition_penalty : (double)c->repetition_penalty;
    for (size_t i = 0; i < c->banned_count; i++)
        r[c->banned[i]].logit = -INFINITY;
    for (size_t v = 0; v < V; v++)
        r[v].logit = (float)((float)r[v].logit / c->temperature); /* ties are those of float32 */
    qsort(r, V, sizeof(*r), by_rank);
    size_t n = c->top_k > 0 && c->top_k < V ? c->top_k : V;
    double total = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        total += exp(r[i].logit - r[0].logit);
    if (c->top_p < 1) {
        size_t kept = 0;
        while (sum < c->top_p * total)
            sum += exp(r[kept++].logit - r[0].logit);
        n = kept;
    }
    while (c->min_p > 0 && exp(r[n - 1].logit - r[0].logit) < c->min_p)
        n--;
    total = 0;
    for (size_t i = 0; i < n; i++)
        total += exp(r[i].logit - r[0].logit);
    for (size_t i = 0; i < n; i++)
        p[r[i].token] = exp(r[i].logit - r[0].logit) / total;
    free(r);
    free(penalized);
}

/* The 1 - 1e-6 quantile of χ² with k degrees of freedom (Wilson & Hilferty 1931). */
static double chi_square_limit(double k)
{
    const double z = 4.7534, t = 1 - 2 / (9 * k) + z * sqrt(2 / (9 * k));
    return k * t * t * t;
}

static void check_distribution(kn_device *device, const char *what, const float *logits, size_t V, kn_choice c)
{
    const size_t rows = 50;
    double *p = test_memory(V * sizeof(*p));
    size_t *count = calloc(V, sizeof(*count));
    float *copy = test_memory(rows * V * sizeof(float));
    kn_choice choice[50];
    kn_chosen chosen[50];
    exact(p, logits, V, &c);
    for (size_t at = 0; at < DRAWS; at += rows) {
        for (size_t i = 0; i < rows; i++) {
            memcpy(copy + i * V, logits, V * sizeof(float));
            choice[i] = c;
            const sluice_draw place = {
                .seed = 11, .record = 3, .purpose = SLUICE_PURPOSE_TOKEN, .position = (uint32_t)(at + i)};
            sluice_draw_place(&place, choice[i].key, choice[i].counter);
        }
        assert_int_equal(device->ops->choose(device, chosen, copy, choice, rows, V), KN_OK);
        for (size_t i = 0; i < rows; i++) {
            assert_true(chosen[i].token < V);
            if (p[chosen[i].token] <= 0)
                fail_msg("%s: token %u was cut and yet chosen", what, chosen[i].token);
            assert_true(fabs(chosen[i].kept_logprob - log(p[chosen[i].token])) < 1e-4);
            count[chosen[i].token]++;
        }
    }
    /* Cells of fewer than eight expected draws are pooled. */
    double statistic = 0, pooled = 0, pooled_count = 0, cells = 0;
    for (size_t v = 0; v < V; v++) {
        const double expected = p[v] * DRAWS;
        if (expected < 8) {
            pooled += expected;
            pooled_count += (double)count[v];
            continue;
        }
        statistic += ((double)count[v] - expected) * ((double)count[v] - expected) / expected;
        cells++;
    }
    if (pooled >= 8) {
        statistic += (pooled_count - pooled) * (pooled_count - pooled) / pooled;
        cells++;
    }
    if (cells > 1 && statistic > chi_square_limit(cells - 1))
        fail_msg("%s: chi-square %.1f with %.0f cells", what, statistic, cells);
    free(p);
    free(count);
    free(copy);
}

static void distribution_isa(kn_device *device, const char *isa)
{
    static const uint32_t seen[] = {3, 3, 5, 100}, banned[] = {0, 7};
    for (size_t size = 0; size < 3; size++) {
        const size_t V = (const size_t[]){9, 150, 701}[size];
        float *logits = test_floats(V, 3, 20 + size);
        for (size_t v = 4; v + 1 < V; v += 9)
            logits[v + 1] = logits[v]; /* ties */
        kn_choice c = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
        check_distribution(device, "plain", logits, V, c);
        c.temperature = 0.6f;
        check_distribution(device, "temperature", logits, V, c);
        c.top_k = 5;
        check_distribution(device, "top-k", logits, V, c);
        c.top_p = 0.7f;
        check_distribution(device, "top-k, top-p", logits, V, c);
        c.top_k = 0;
        check_distribution(device, "top-p", logits, V, c);
        c.top_p = 0.99f;
        check_distribution(device, "wide top-p", logits, V, c);
        c.top_p = 1;
        c.min_p = 0.1f;
        check_distribution(device, "min-p", logits, V, c);
        c.min_p = 0;
        c.repetition_penalty = 1.5f;
        c.seen = seen;
        c.seen_count = V > 100 ? 4 : 3;
        c.banned = banned;
        c.banned_count = 2;
        check_distribution(device, "penalty, bans", logits, V, c);
        c.top_k = 40, c.top_p = 0.95f, c.min_p = 0.02f;
        check_distribution(device, "all at once", logits, V, c);
        free(logits);
    }
}

static void test_distribution(void **state)
{
    each_isa(2, distribution_isa);
    kn_device *reference = kn_reference_new();
    distribution_isa(reference, "reference");
    kn_reference_free(reference);
}

/* --- ties, penalties, refusals --- */

static kn_chosen choose_one(kn_device *device, const float *logits, size_t V, const kn_choice *c, int expected)
{
    float *copy = test_copy(logits, V);
    kn_chosen chosen = {.token = UINT32_MAX};
    assert_int_equal(device->ops->choose(device, &chosen, copy, c, 1, V), expected);
    free(copy);
    return chosen;
}

static void corners_isa(kn_device *device, const char *isa)
{
    float logits[40];
    for (int i = 0; i < 40; i++)
        logits[i] = -1;
    logits[9] = logits[17] = logits[33] = 2;
    kn_choice c = {.temperature = 0, .top_p = 1, .repetition_penalty = 1};
    kn_chosen chosen = choose_one(device, logits, 40, &c, KN_OK);
    assert_int_equal(chosen.token, 9); /* the smallest of equals */
    assert_true(chosen.kept_logprob == 0);
    const double lse = 2 + log(3 + 37 * exp(-3));
    assert_true(fabs(chosen.logprob - (2 - lse)) < 1e-6);
    const uint32_t seen[] = {9, 9, 17};
    c.seen = seen, c.seen_count = 3, c.repetition_penalty = 1.25f;
    chosen = choose_one(device, logits, 40, &c, KN_OK);
    assert_int_equal(chosen.token, 33);
    c.repetition_penalty = 0.5f; /* once, however often it was seen: 4, not 8; and the recorded one is without it */
    logits[33] = 5;
    assert_int_equal(choose_one(device, logits, 40, &c, KN_OK).token, 33);
    logits[33] = 3.9f;
    chosen = choose_one(device, logits, 40, &c, KN_OK);
    assert_int_equal(chosen.token, 9);
    assert_true(fabs(chosen.logprob - (2 - (3.9 + log(1 + 2 * exp(-1.9) + 37 * exp(-4.9))))) < 1e-6);
    /* top-k among ties keeps the smaller ids; top-p keeps at least one */
    c = (kn_choice){.temperature = 1, .top_p = 1, .top_k = 2, .repetition_penalty = 1};
    logits[33] = 2;
    for (uint64_t i = 0; i < 200; i++) {
        c.key[0] = i;
        const uint32_t token = choose_one(device, logits, 40, &c, KN_OK).token;
        assert_true(token == 9 || token == 17);
    }
    c.top_k = 0, c.top_p = 1e-6f;
    assert_int_equal(choose_one(device, logits, 40, &c, KN_OK).token, 9);
    /* nothing left to choose; ids beyond the vocabulary are ignored; one allowed token is chosen */
    uint32_t all[41];
    for (uint32_t i = 0; i < 41; i++)
        all[i] = i;
    c = (kn_choice){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .banned = all, .banned_count = 41};
    choose_one(device, logits, 40, &c, KN_BAD_ARGUMENT);
    all[4] = 1000;
    assert_int_equal(choose_one(device, logits, 40, &c, KN_OK).token, 4);
    float broken[3] = {NAN, NAN, NAN};
    c.banned_count = 0;
    choose_one(device, broken, 3, &c, KN_BAD_ARGUMENT);
    broken[1] = 0;
    assert_int_equal(choose_one(device, broken, 3, &c, KN_OK).token, 1);
}

static void test_corners(void **state)
{
    each_isa(1, corners_isa);
    kn_device *reference = kn_reference_new();
    corners_isa(reference, "reference");
    kn_reference_free(reference);
}

/* The same draws as the reference's, but for ties that rounding decides; and a small change of logits changes few. */
static void agreement_isa(kn_device *device, const char *isa)
{
    enum { V = 3000, ROWS = 400 };
    kn_device *reference = kn_reference_new();
    size_t differ = 0, moved = 0;
    float *logits = test_floats(V, 8, 5), *nudge = test_floats(V, 0.01f, 6), *copy = test_memory(V * sizeof(float));
    for (uint64_t i = 0; i < ROWS; i++) {
        kn_choice c = {.temperature = 0.5f + (float)(i % 3) * 0.4f, .top_p = i % 2 ? 1 : 0.8f, .repetition_penalty = 1};
        c.top_k = i % 5 ? 0 : 100;
        c.key[0] = i;
        const kn_chosen a = choose_one(device, logits, V, &c, KN_OK), b = choose_one(reference, logits, V, &c, KN_OK);
        differ += a.token != b.token;
        for (size_t v = 0; v < V; v++)
            copy[v] = logits[v] + nudge[v];
        moved += choose_one(device, copy, V, &c, KN_OK).token != a.token;
    }
    assert_true(differ <= 1);
    assert_true(moved < ROWS / 25);
    free(logits);
    free(nudge);
    free(copy);
    kn_reference_free(reference);
}

/* Flat rows, of which thousands are kept, with and without many equal logits: the boundary and the mass within it are
 * the reference's. */
static void flat_isa(kn_device *device, const char *isa)
{
    enum { V = 5003, ROWS = 96 };
    kn_device *reference = kn_reference_new();
    float *logits = test_floats(V, 0.5f, 9), *equal = test_memory(V * sizeof(float));
    for (size_t v = 0; v < V; v++)
        equal[v] = rintf(logits[v] * 8) / 8;
    size_t differ = 0, ties = 0;
    for (uint64_t i = 0; i < ROWS; i++) {
        kn_choice c = {.temperature = i % 3 ? 1 : 0.7f, .top_p = i % 2 ? 0.9f : 1, .repetition_penalty = 1};
        c.top_k = i % 4 < 2 ? 0 : 900 + (uint32_t)i;
        c.min_p = i % 4 == 0 ? 0.6f : i % 8 == 1 ? 0.51f : 0;
        c.key[0] = i;
        const float *row = i % 5 ? logits : equal;
        const kn_chosen a = choose_one(device, row, V, &c, KN_OK), b = choose_one(reference, row, V, &c, KN_OK);
        differ += a.token != b.token;
        if (a.token != b.token)
            continue;
        const float apart = fabsf(a.kept_logprob - b.kept_logprob);
        ties += apart > 1e-5f; /* rounding decides about one token at the boundary */
        assert_true(apart < 1e-3f && fabsf(a.logprob - b.logprob) < 1e-4f);
    }
    assert_true(ties <= 2);
    assert_true(differ <= 1);
    free(logits);
    free(equal);
    kn_reference_free(reference);
}

static void test_flat(void **state)
{
    each_isa(1, flat_isa);
}

static void test_agreement(void **state)
{
    each_isa(1, agreement_isa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_distribution), cmocka_unit_test(test_corners),
                                       cmocka_unit_test(test_agreement), cmocka_unit_test(test_flat)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
