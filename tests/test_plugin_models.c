/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Sampler, implicit judge, evaluator and averager on a model small enough to work out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "plugins/evaluator/interval.h"
#include "tests/fake_host.h"
#include "tests/fake_model.h"

#define NEAR(value, expected) assert_true(fabs((value) - (expected)) <= 1e-5)

static fake_models *models;
static sluice_model_ref refs[4];

static int setup(void **state)
{
    models = fake_models_new();
    for (int64_t v = 0; v < 4; v++)
        refs[v] = fake_ref(v);
    return 0;
}

static int teardown(void **state)
{
    fake_models_free(models);
    return 0;
}

static fake_host *open_class(const char *id)
{
    fake_host *f = fake_open(id, id);
    f->models = &models->service;
    return f;
}

/* ---- sampler */

static fake_host *sampler(int n, int max_tokens)
{
    fake_host *f = open_class("sampler");
    fake_set_pointer(f, "model", &refs[1]);
    fake_set_number(f, "n", n);
    fake_set_number(f, "max_tokens", max_tokens);
    f->seed_value = 9;
    return f;
}

static void answers_come_whole_and_in_order(void **state)
{
    fake_host *f = sampler(4, 8);
    fake_set_number(f, "temperature", 0.8);
    fake_set_number(f, "top_p", 0.95);
    for (int i = 0; i < 7; i++) {
        char id[24];
        snprintf(id, sizeof id, "r%d", i);
        fake_record(f, id, "question");
    }
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_int_equal(f->output_count, 7);
    size_t tokens = 0;
    for (size_t i = 0; i < 7; i++) {
        sluice_record *r = f->output[i];
        size_t prompt;
        assert_int_equal(sluice_record_candidates(r), 4);
        assert_non_null(sluice_record_prompt_tokens(r, &prompt));
        assert_int_equal(prompt, 9);
        for (size_t c = 0; c < 4; c++) {
            sluice_candidate x;
            size_t count;
            assert_int_equal(sluice_record_candidate(r, c, &x), SLUICE_OK);
            const float *logps = sluice_record_logps(r, c, "policy@1", &count);
            assert_int_equal(count, x.token_count);
            assert_memory_equal(logps, x.logprobs, count * sizeof *logps);
            uint32_t last = 'n';
            for (uint32_t t = 0; t < x.token_count; last = x.tokens[t++])
                NEAR(x.logprobs[t], fake_logp(1, last, x.tokens[t]));
            assert_string_equal(x.tag, "t=0.8 top_p=0.95");
            assert_int_equal(x.finish == SLUICE_FINISH_STOP, last == FAKE_STOP);
            tokens += x.token_count;
        }
    }
    assert_true(fake_metric(f, "candidates") == 28 && fake_metric(f, "prompts") == 7);
    NEAR(fake_metric(f, "mean_length"), (double)tokens / 28);
    fake_close(f);
}

static void truncated_answers_by_rule(void **state)
{
    size_t kept[2] = {0};
    double truncated = 0;
    for (int drop = 0; drop < 2; drop++) {
        fake_host *f = sampler(16, 3);
        if (drop)
            fake_set_text(f, "truncated", "drop");
        fake_record(f, "a", "q");
        assert_int_equal(fake_run(f), SLUICE_OK);
        kept[drop] = sluice_record_candidates(f->output[0]);
        truncated = fake_metric(f, "truncated");
        fake_close(f);
    }
    assert_true(kept[0] == 16 && kept[1] < 16);
    NEAR(truncated, (16.0 - (double)kept[1]) / 16);
}

static void long_prompts_by_rule(void **state)
{
    static const char text[] = "a prompt of some sixty characters that leaves no room at all";
    const char *const rules[] = {"error", "skip", "left"};
    for (int i = 0; i < 3; i++) {
        fake_host *f = sampler(1, 20);
        size_t count = 0;
        fake_set_text(f, "too_long", rules[i]);
        fake_record(f, "long", text);
        fake_record(f, "short", "q");
        int rc = fake_run(f);
        assert_int_equal(rc, i == 0 ? SLUICE_BAD_RECORD : SLUICE_OK);
        if (i == 0)
            assert_non_null(strstr(f->error, "61 tokens"));
        if (i == 1)
            assert_true(f->output_count == 1 && fake_metric(f, "skipped") == 1);
        for (size_t r = 0; i == 2 && r < 2; r++)
            if (strcmp(sluice_record_id(f->output[r]), "long") == 0) {
                const uint32_t *tokens = sluice_record_prompt_tokens(f->output[r], &count);
                assert_true(count == 44 && tokens[0] == FAKE_START && tokens[43] == 'l');
            }
        fake_close(f);
    }
    fake_host *f = sampler(1, 64);
    assert_int_equal(fake_start(f), SLUICE_BAD_PARAMETER);
    fake_close(f);
    f = sampler(3, 8);
    fake_set_number(f, "temperature", 0);
    assert_int_equal(fake_start(f), SLUICE_OK);
    assert_non_null(strstr(f->warning, "same answer"));
    fake_close(f);
}

static void no_service_is_said(void **state)
{
    fake_host *f = sampler(1, 8);
    f->models = NULL;
    assert_int_equal(fake_start(f), SLUICE_BAD_PLUGIN);
    assert_non_null(strstr(f->error, "sluice.model/1"));
    fake_close(f);
}

/* ---- judge */

static double sum_logp(int64_t version, uint32_t last, const char *text)
{
    double sum = 0;
    for (; *text; last = (unsigned char)*text++)
        sum += fake_logp(version, last, (unsigned char)*text);
    return sum + fake_logp(version, last, FAKE_STOP);
}

static fake_host *judge(int64_t model, int64_t reference)
{
    fake_host *f = open_class("judge-implicit");
    fake_set_pointer(f, "model", &refs[model]);
    fake_set_pointer(f, "reference", &refs[reference]);
    f->stage_name = "now";
    return f;
}

static float score_of(const fake_host *f, size_t record, size_t candidate)
{
    const float *scores = sluice_record_scores(f->output[record], f->stage_name);
    assert_non_null(scores);
    return scores[candidate];
}

static void implicit_reward(void **state)
{
    fake_host *f = judge(2, 0);
    sluice_record *r = fake_record(f, "a", "q");
    fake_candidate(r, "yes", NULL, 0);
    fake_candidate(r, "no", NULL, 0);
    fake_candidate(r, "", (uint32_t[]){0}, 0);
    fake_record(f, "none", "q");
    models->scored = 0;
    assert_int_equal(fake_run(f), SLUICE_OK);
    NEAR(score_of(f, 0, 0), sum_logp(2, 'q', "yes") - sum_logp(0, 'q', "yes"));
    NEAR(score_of(f, 0, 1), sum_logp(2, 'q', "no") - sum_logp(0, 'q', "no"));
    size_t count;
    assert_non_null(sluice_record_logps(f->output[0], 0, "policy@2", &count));
    assert_int_equal(count, 4);
    fake_host *again = judge(1, 0); /* the reference's are there already */
    again->input = calloc(1, sizeof *again->input);
    again->input[0] = f->output[0];
    again->input_count = 1;
    f->output[0] = NULL;
    models->scored = 0;
    again->stage_name = "before";
    assert_int_equal(fake_run(again), SLUICE_OK);
    assert_int_equal(models->scored, fake_metric(again, "computed"));
    assert_true(fake_metric(again, "found") == fake_metric(again, "computed"));
    NEAR(score_of(again, 0, 0), sum_logp(1, 'q', "yes") - sum_logp(0, 'q', "yes"));
    fake_close(again);
    fake_close(f);
}

static void a_reference_reads_the_models_tokens(void **state)
{
    fake_host *stages[] = {judge(0, 2), open_class("evaluator")};
    fake_set_pointer(stages[1], "model", &refs[0]);
    fake_set_pointer(stages[1], "reference", &refs[2]);
    models->other_tokens = 2;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(fake_start(stages[i]), SLUICE_BAD_MODEL);
        assert_non_null(strstr(stages[i]->error, "policy@0 and the reference policy@2 have different tokenizers"));
        fake_close(stages[i]);
    }
    models->other_tokens = 0;
}

static void one_version_scores_likelihood(void **state)
{
    const char *const rules[] = {"likelihood-mean", "likelihood-sum", "error"};
    for (int k = 0; k < 6; k++) {
        int i = k % 3;
        fake_host *f = judge(1, 1);
        if (k >= 3)
            fake_set_pointer(f, "reference", NULL);
        fake_set_text(f, "same", rules[i]);
        fake_candidate(fake_record(f, "a", "q"), "yes", NULL, 0);
        int rc = fake_run(f);
        assert_int_equal(rc, i == 2 ? SLUICE_BAD_PARAMETER : SLUICE_OK);
        if (i < 2)
            NEAR(score_of(f, 0, 0), sum_logp(1, 'q', "yes") / (i == 0 ? 4 : 1));
        fake_close(f);
    }
    fake_host *f = judge(2, 0);
    fake_set_text(f, "normalize", "length");
    fake_candidate(fake_record(f, "a", "q"), "yes", NULL, 0);
    assert_int_equal(fake_run(f), SLUICE_OK);
    NEAR(score_of(f, 0, 0), (sum_logp(2, 'q', "yes") - sum_logp(0, 'q', "yes")) / 4);
    fake_close(f);
}

static void long_answers_have_no_score(void **state)
{
    char text[80];
    memset(text, 'x', sizeof text);
    text[70] = 0;
    for (int skip = 0; skip < 2; skip++) {
        fake_host *f = judge(2, 0);
        if (skip)
            fake_set_text(f, "too_long", "skip");
        sluice_record *r = fake_record(f, "a", "q");
        fake_candidate(r, text, NULL, 0);
        fake_candidate(r, "ok", NULL, 0);
        assert_int_equal(fake_run(f), skip ? SLUICE_OK : SLUICE_BAD_RECORD);
        if (skip)
            assert_true(isnan(score_of(f, 0, 0)) && !isnan(score_of(f, 0, 1)) && fake_metric(f, "skipped") == 1);
        fake_close(f);
    }
}

/* ---- evaluator */

static void evaluation(void **state)
{
    fake_host *f = open_class("evaluator");
    fake_set_text(f, "truth", "checked");
    fake_set_pointer(f, "model", &refs[2]);
    fake_set_pointer(f, "reference", &refs[0]);
    const double marks[3][2] = {{1, 1}, {1, 0}, {0, 0}};
    double logp = 0, ratio = 0;
    for (int i = 0; i < 3; i++) {
        char id[24];
        snprintf(id, sizeof id, "r%d", i);
        sluice_record *r = fake_record(f, id, "q");
        const char *const texts[] = {"yes", "no"};
        for (size_t c = 0; c < 2; c++) {
            fake_candidate(r, texts[c], NULL, 0);
            fake_score(r, "checked", c, marks[i][c]);
            logp += sum_logp(2, 'q', texts[c]);
            ratio += sum_logp(2, 'q', texts[c]) - sum_logp(0, 'q', texts[c]);
        }
        sluice_pair pair = {.chosen = 0, .rejected = 1, .p = 0.2, .weight = 1, .margin = NAN}; /* reversed */
        assert_int_equal(sluice_record_add_pair(r, &pair), SLUICE_OK);
    }
    fake_record(f, "bare", "q");
    assert_int_equal(fake_run(f), SLUICE_OK);
    NEAR(fake_metric(f, "accuracy"), 0.5);
    double low, high;
    interval_wilson(0.5, 3, &low, &high); /* question means 1, 1/2, 0: variance 1/4, worth 3 trials */
    NEAR(fake_metric(f, "accuracy/low"), low);
    NEAR(fake_metric(f, "accuracy/high"), high);
    assert_true(fake_metric(f, "questions") == 3 && fake_metric(f, "label_accuracy") == 0);
    NEAR(fake_metric(f, "kl"), ratio / 6);
    NEAR(fake_metric(f, "kl/token"), ratio / 21);
    assert_true(fabs(fake_metric(f, "perplexity") / exp(-logp / 21) - 1) < 1e-5);
    NEAR(fake_metric(f, "mean_length"), 3.5);
    fake_close(f);

    f = open_class("evaluator");
    fake_set_text(f, "truth", "now");
    sluice_record *r = fake_record(f, "a", "q");
    fake_candidate(r, "yes", NULL, 0);
    fake_score(r, "now", 0, -3);
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    assert_non_null(strstr(f->error, "let truth name a verifier"));
    fake_close(f);

    f = open_class("evaluator");
    fake_record(f, "bare", "q");
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    fake_close(f);
}

static void intervals(void **state)
{
    double low, high;
    interval_wilson(0.8, 10, &low, &high); /* statsmodels: proportion_confint(8, 10, method="wilson") */
    NEAR(low, 0.490162);
    NEAR(high, 0.943318);
    interval_by_question(1, 1, 50, &low, &high); /* no spread over questions says nothing */
    assert_true(low > 0.9 && low < 1 && high == 1);
    double least = low;
    interval_by_question(0.5, 0.25 + 0.0625 * 0.99, 100, &low, &high); /* variance 1/16: worth 400 trials */
    interval_wilson(0.5, 400, &least, &high);
    NEAR(low, least);
}

/* ---- averager */

static void averages(void **state)
{
    const sluice_model_ref *list[] = {&refs[1], &refs[2]};
    const sluice_models both = {list, 2}, one = {list, 1};
    const double weights[] = {0.25, 0.75};
    const sluice_doubles two_weights = {weights, 2}, one_weight = {weights, 1};
    const struct {
        const char *method;
        const sluice_models *models;
        const sluice_doubles *weights;
        const sluice_model_ref *base;
        double eta;
        int rc;
        size_t merged;
        double weight;
    } cases[] = {{"mean", &both, NULL, NULL, 1, SLUICE_OK, 2, NAN},
                 {"weighted", &both, &two_weights, NULL, 1, SLUICE_OK, 2, 0.25},
                 {"running", &both, NULL, NULL, 1, SLUICE_OK, 2, 0.5},
                 {"slerp", &both, NULL, NULL, 0.3, SLUICE_OK, 3, 0.3}, /* the base is the slot's newest */
                 {"slerp", &both, NULL, &refs[0], 1, SLUICE_OK, 3, 1},
                 {"mean", &one, NULL, NULL, 1, SLUICE_BAD_PARAMETER, 0, NAN},
                 {"slerp", &one, NULL, NULL, 1, SLUICE_BAD_PARAMETER, 0, NAN},
                 {"weighted", &both, &one_weight, NULL, 1, SLUICE_BAD_PARAMETER, 0, NAN},
                 {"slerp", &both, &two_weights, NULL, 1, SLUICE_BAD_PARAMETER, 0, NAN},
                 {"mean", &both, NULL, &refs[0], 1, SLUICE_BAD_PARAMETER, 0, NAN},
                 {"running", &both, NULL, NULL, 0.3, SLUICE_BAD_PARAMETER, 0, NAN},
                 {"mean", &both, &two_weights, NULL, 1, SLUICE_BAD_PARAMETER, 0, NAN}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake_host *f = open_class("averager");
        fake_set_pointer(f, "model", &refs[2]);
        fake_set_text(f, "method", cases[i].method);
        fake_set_number(f, "rate", 0.5);
        fake_set_number(f, "eta", cases[i].eta);
        if (cases[i].base)
            fake_set_pointer(f, "base", cases[i].base);
        fake_set_bytes(f, "models", cases[i].models, sizeof *cases[i].models);
        if (cases[i].weights)
            fake_set_bytes(f, "weights", cases[i].weights, sizeof *cases[i].weights);
        assert_int_equal(fake_run(f), cases[i].rc);
        assert_int_equal(f->publications, cases[i].rc == SLUICE_OK);
        if (cases[i].rc == SLUICE_OK && strcmp(cases[i].method, "mean") != 0)
            assert_true(models->merged_weight == cases[i].weight && models->merged == cases[i].merged);
        fake_close(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_whole_and_in_order),
        cmocka_unit_test(truncated_answers_by_rule),
        cmocka_unit_test(long_prompts_by_rule),
        cmocka_unit_test(no_service_is_said),
        cmocka_unit_test(implicit_reward),
        cmocka_unit_test(a_reference_reads_the_models_tokens),
        cmocka_unit_test(one_version_scores_likelihood),
        cmocka_unit_test(long_answers_have_no_score),
        cmocka_unit_test(evaluation),
        cmocka_unit_test(intervals),
        cmocka_unit_test(averages),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
