/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Reward models as plugins see them: the trainer's gradient with bradley-terry, the judge's scores, a judge's accuracy
 * on pairs; on a model small enough to work out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/fake_host.h"
#include "tests/fake_model.h"

#define NEAR(value, expected) assert_true(fabs((value) - (expected)) <= 1e-5)

static fake_models *models;
static sluice_model_ref refs[4];

static int setup(void **state)
{
    models = fake_models_new();
    models->head_outputs = 2;
    for (int64_t v = 0; v < 4; v++)
        refs[v] = fake_ref(v);
    return 0;
}

static int teardown(void **state)
{
    fake_models_free(models);
    return 0;
}

static void assert_says(const fake_host *f, const char *text)
{
    if (!strstr(f->error, text))
        fail_msg("\"%s\" does not say \"%s\"", f->error, text);
}

/* --- the trainer ----------------------------------------------------------------------------------------------------
 */

struct training {
    fake_host *host, *loss;
    sluice_part part;
};

static struct training open_training(const char *loss)
{
    struct training t = {fake_open("trainer", "trainer"), fake_open(loss, loss), {0}};
    t.host->models = &models->service;
    t.host->seed_value = 3;
    snprintf(t.host->publish_dir, sizeof t.host->publish_dir, "/new/version");
    fake_set_pointer(t.host, "model", &refs[1]);
    fake_set_number(t.host, "lr", 0.1);
    fake_set_text(t.host, "schedule", "constant");
    fake_set_number(t.host, "warmup", 0);
    return t;
}

static int train(struct training *t)
{
    assert_int_equal(fake_start(t->loss), SLUICE_OK);
    t->part = (sluice_part){t->loss->type, t->loss->self};
    fake_set_pointer(t->host, "loss", &t->part);
    return fake_run(t->host);
}

static void close_training(struct training *t)
{
    fake_close(t->host);
    fake_close(t->loss);
}

static const struct {
    const char *id, *chosen, *rejected;
    double p, weight, margin;
} pairs[] = {{"a", "yes", "no", 1, 1, 0}, {"b", "me", "you", 0.8, 0.5, 0.6}, {"c", "b", "cd", 0.3, 2, 0}};
#define PAIRS (sizeof pairs / sizeof *pairs)

static void add_pairs(fake_host *host)
{
    for (size_t i = 0; i < PAIRS; i++) {
        sluice_record *r = fake_record(host, pairs[i].id, "question");
        fake_candidate(r, pairs[i].chosen, NULL, 0);
        fake_candidate(r, pairs[i].rejected, NULL, 0);
        sluice_pair x = {.chosen = 0,
                         .rejected = 1,
                         .p = pairs[i].p,
                         .weight = pairs[i].weight,
                         .margin = pairs[i].margin > 0 ? pairs[i].margin : NAN};
        assert_int_equal(sluice_record_add_pair(r, &x), SLUICE_OK);
    }
}

static double expected[FAKE_VOCABULARY][FAKE_VOCABULARY];

static void add_answer(const char *text, uint32_t o, double d)
{
    for (; *text; text++)
        expected[(unsigned char)*text][o] += d;
    expected[FAKE_STOP][o] += d;
}

static double log_sigmoid(double x)
{
    return -log1p(exp(-x));
}

/* The mean over pairs and outputs, by hand; and however the batch is cut. */
static void gradient_of_rewards(void **state)
{
    const double center = 0.05;
    double loss = 0, chosen = 0, rejected = 0, squares = 0, correct = 0;
    memset(expected, 0, sizeof expected);
    for (size_t i = 0; i < PAIRS; i++) {
        double w = 0, l = 0;
        for (uint32_t o = 0; o < 2; o++) {
            const double a = fake_value(1, pairs[i].chosen, o), b = fake_value(1, pairs[i].rejected, o);
            const double x = a - b, m = pairs[i].margin, p = pairs[i].p, share = pairs[i].weight / 2 / PAIRS;
            const double d = -p / (1 + exp(x - m)) + (1 - p) / (1 + exp(-x - m));
            loss += share * (-p * log_sigmoid(x - m) - (1 - p) * log_sigmoid(-x - m) + center * (a + b) * (a + b));
            add_answer(pairs[i].chosen, o, share * (d + 2 * center * (a + b)));
            add_answer(pairs[i].rejected, o, share * (2 * center * (a + b) - d));
            w += a / 2;
            l += b / 2;
            squares += (a + b) * (a + b) / 2 / PAIRS;
        }
        chosen += w / PAIRS;
        rejected += l / PAIRS;
        correct += (w > l) / (double)PAIRS;
    }
    for (int cut = 0; cut < 2; cut++) {
        struct training t = open_training("bradley-terry");
        fake_set_number(t.loss, "center", center);
        fake_set_number(t.host, "micro_tokens", cut ? 1 : 2048);
        fake_set_number(t.host, "dropout", 0.1);
        add_pairs(t.host);
        models->gradients = 0;
        assert_int_equal(train(&t), SLUICE_OK);
        assert_int_equal(models->gradients, cut ? PAIRS : 1);
        for (size_t i = 0; i < FAKE_VOCABULARY; i++)
            for (size_t j = 0; j < FAKE_VOCABULARY; j++)
                NEAR(models->applied[i][j], expected[i][j]);
        NEAR(fake_step_metric(t.host, "loss", 1), loss);
        NEAR(fake_step_metric(t.host, "rewards/chosen", 1), chosen);
        NEAR(fake_step_metric(t.host, "rewards/rejected", 1), rejected);
        NEAR(fake_step_metric(t.host, "rewards/margins", 1), chosen - rejected);
        NEAR(fake_step_metric(t.host, "rewards/mean", 1), (chosen + rejected) / 2);
        NEAR(fake_step_metric(t.host, "rewards/center", 1), squares);
        NEAR(fake_step_metric(t.host, "rewards/accuracies", 1), correct);
        assert_true(isnan(fake_step_metric(t.host, "logps/chosen", 1)));
        assert_true(fake_metric(t.host, "weights_changed") > 0);
        assert_int_equal(t.host->publications, 1);
        close_training(&t);
    }
}

static void the_head_comes_from_where_it_is_said(void **state)
{
    struct training t = open_training("bradley-terry");
    fake_set_pointer(t.host, "start", &refs[3]);
    fake_set_pointer(t.host, "head_from", &refs[2]);
    fake_set_text(t.host, "freeze", "body");
    fake_set_number(t.host, "dropout", 0.2);
    fake_set_number(t.host, "recompute", 1);
    add_pairs(t.host);
    assert_int_equal(train(&t), SLUICE_OK);
    assert_int_equal(models->started, 3);
    assert_int_equal(models->head_from, 2);
    assert_int_equal(models->optimizer.head_outputs, 2); /* as that model has */
    assert_true(models->optimizer.freeze_body && models->optimizer.recompute);
    assert_true(models->optimizer.dropout == 0.2);
    close_training(&t);
    /* of a language model one, unless said otherwise */
    models->head_outputs = 0;
    for (uint32_t head = 0; head <= 3; head += 3) {
        struct training u = open_training("bradley-terry");
        fake_set_number(u.host, "head", head);
        add_pairs(u.host);
        assert_int_equal(train(&u), SLUICE_OK);
        assert_int_equal(models->started, 1);
        assert_int_equal(models->head_from, -1);
        assert_int_equal(models->optimizer.head_outputs, head ? head : 1);
        assert_false(models->optimizer.freeze_body);
        close_training(&u);
    }
    models->head_outputs = 2;
}

static void a_value_that_is_no_number_names_record_and_step(void **state)
{
    struct training t = open_training("bradley-terry");
    fake_set_pointer(t.host, "start", &refs[2]);
    fake_set_number(t.host, "batch", 1);
    add_pairs(t.host);
    models->broken = 2;
    assert_int_equal(train(&t), SLUICE_FAILED);
    models->broken = 0;
    assert_says(t.host, "step 1: the value of the chosen answer of record '");
    assert_int_equal(t.host->publications, 0);
    close_training(&t);
}

static void settings_of_reward_models_are_refused_elsewhere(void **state)
{
    static const char *const settings[] = {"head", "head_from", "freeze"};
    for (size_t i = 0; i < 3; i++) {
        struct training t = open_training("dpo");
        if (i == 0)
            fake_set_number(t.host, "head", 1);
        else if (i == 1)
            fake_set_pointer(t.host, "head_from", &refs[2]);
        else
            fake_set_text(t.host, "freeze", "body");
        add_pairs(t.host);
        assert_int_equal(train(&t), SLUICE_BAD_PARAMETER);
        assert_says(t.host, settings[i]);
        assert_says(t.host, "bradley-terry");
        close_training(&t);
    }
}

/* --- the judge ------------------------------------------------------------------------------------------------------
 */

/* With versions 1 … count as members. */
static fake_host *judge(size_t count)
{
    static const sluice_model_ref *members[3];
    static sluice_models list;
    fake_host *f = fake_open("judge-reward-model", "judge-reward-model");
    f->models = &models->service;
    f->stage_name = "reward";
    for (size_t i = 0; i < count; i++)
        members[i] = &refs[i + 1];
    list = (sluice_models){members, count};
    fake_set_bytes(f, "models", &list, sizeof list);
    return f;
}

static const char *const texts[] = {"yes", "no", "perhaps"};

static sluice_record *asked(fake_host *f, const char *id)
{
    sluice_record *r = fake_record(f, id, "question");
    for (size_t i = 0; i < 3; i++)
        fake_candidate(r, texts[i], NULL, 0);
    return r;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void scores_are_combined_by_rule(void **state)
{
    static const char *const rules[] = {"mean", "min", "median", "lower"};
    for (size_t rule = 0; rule < 4; rule++)
        for (size_t count = 1; count <= 3; count++) {
            fake_host *f = judge(count);
            fake_set_text(f, "combine", rules[rule]);
            fake_set_number(f, "penalty", 0.7);
            fake_set_number(f, "members", 1);
            asked(f, "a");
            asked(f, "b");
            assert_int_equal(fake_run(f), SLUICE_OK);
            for (size_t r = 0; r < 2; r++)
                for (size_t c = 0; c < 3; c++) {
                    double values[6], mean = 0, squares = 0;
                    const size_t n = 2 * count;
                    for (size_t o = 0; o < n; o++) {
                        char name[24];
                        snprintf(name, sizeof name, "reward/%zu", o);
                        values[o] = fake_value(1 + (int64_t)o / 2, texts[c], o % 2);
                        NEAR(sluice_record_scores(f->output[r], name)[c], values[o]);
                        mean += values[o] / (double)n;
                    }
                    for (size_t o = 0; o < n; o++)
                        squares += (values[o] - mean) * (values[o] - mean) / (double)n;
                    qsort(values, n, sizeof *values, ascending);
                    const double wanted[] = {mean, values[0], (values[n / 2 - 1] + values[n / 2]) / 2,
                                             mean - 0.7 * sqrt(squares)};
                    NEAR(sluice_record_scores(f->output[r], "reward")[c], wanted[rule]);
                }
            assert_true(fake_metric(f, "scored") == 6 && fake_metric(f, "skipped") == 0);
            assert_true(fake_metric(f, "spread") > 0);
            fake_close(f);
        }
}

static void empty_and_overlong_answers_have_no_score(void **state)
{
    for (int skip = 0; skip < 2; skip++) {
        fake_host *f = judge(1);
        if (skip)
            fake_set_text(f, "too_long", "skip");
        sluice_record *r = asked(f, "a");
        fake_candidate(r, "an answer that is far too long for a context of sixty-four tokens", NULL, 0);
        const uint32_t none = 0;
        fake_candidate(r, "", &none, 0);
        const int rc = fake_run(f);
        if (!skip) {
            assert_int_equal(rc, SLUICE_BAD_RECORD);
            assert_says(f, "candidate 3 has");
        } else {
            assert_int_equal(rc, SLUICE_OK);
            const float *scores = sluice_record_scores(f->output[0], "reward");
            assert_true(isnan(scores[3]) && !isnan(scores[2]));
            assert_true(fake_metric(f, "scored") + fake_metric(f, "skipped") == 5);
            assert_true(fake_metric(f, "skipped") >= 1);
        }
        fake_close(f);
    }
}

static void models_that_cannot_judge_are_refused(void **state)
{
    fake_host *f = judge(1);
    models->head_outputs = 0;
    assert_int_equal(fake_start(f), SLUICE_BAD_MODEL);
    models->head_outputs = 2;
    assert_says(f, "policy@1 is a language model without a reward head");
    fake_close(f);

    f = judge(3);
    models->other_template = 2;
    assert_int_equal(fake_start(f), SLUICE_BAD_MODEL);
    models->other_template = 0;
    assert_says(f, "policy@1 and policy@2 have different chat templates");
    fake_close(f);

    f = judge(2);
    asked(f, "a");
    models->broken = 2;
    assert_int_equal(fake_run(f), SLUICE_BAD_MODEL);
    models->broken = 0;
    assert_says(f, "output 2 of the reward model is");
    fake_close(f);

    f = judge(1); /* tokens that a model wrote with another vocabulary */
    const uint32_t tokens[] = {'n', FAKE_VOCABULARY + 7};
    const float logprobs[] = {-1, -2};
    const sluice_candidate sample = {.text = "n",
                                     .tokens = tokens,
                                     .logprobs = logprobs,
                                     .token_count = 2,
                                     .finish = SLUICE_FINISH_STOP,
                                     .parent = -1};
    assert_int_equal(sluice_record_add_candidate(fake_record(f, "a", "question"), &sample), SLUICE_OK);
    assert_int_equal(fake_run(f), SLUICE_BAD_MODEL);
    assert_says(f, "tokenizer of the model that answered");
    fake_close(f);

    f = judge(1); /* with another tokenizer, which reads the first answer alike */
    const uint32_t last[] = {'m'};
    const sluice_candidate alike = {.text = "n",
                                    .tokens = tokens,
                                    .logprobs = logprobs,
                                    .token_count = 1,
                                    .parent = -1},
                           other = {.text = "n", .tokens = last, .logprobs = logprobs, .token_count = 1, .parent = -1};
    sluice_record *r = fake_record(f, "b", "question");
    assert_int_equal(sluice_record_add_candidate(r, &alike), SLUICE_OK);
    assert_int_equal(sluice_record_add_candidate(r, &other), SLUICE_OK);
    assert_int_equal(fake_run(f), SLUICE_BAD_MODEL);
    assert_says(f, "the tokens of candidate 1 mean another text");
    fake_close(f);
}

/* --- how often a judge agrees with pairs ----------------------------------------------------------------------------
 */

static fake_host *evaluator(const char *group)
{
    fake_host *f = fake_open("evaluator", "evaluator");
    f->models = &models->service;
    fake_set_text(f, "judge", "reward");
    if (group)
        fake_set_text(f, "group", group);
    return f;
}

static sluice_record *scored_pair(fake_host *f, const char *id, double chosen, double rejected, double p,
                                  const char *kind)
{
    sluice_record *r = fake_record(f, id, "question");
    fake_candidate(r, "yes", NULL, 0);
    fake_candidate(r, "no", NULL, 0);
    if (!isnan(chosen))
        fake_score(r, "reward", 0, chosen);
    fake_score(r, "reward", 1, rejected);
    const sluice_pair pair = {.chosen = 0, .rejected = 1, .p = p, .weight = 1, .margin = NAN};
    assert_int_equal(sluice_record_add_pair(r, &pair), SLUICE_OK);
    if (kind)
        assert_int_equal(sluice_record_set_meta_text(r, "kind", kind), SLUICE_OK);
    return r;
}

static void accuracy_on_pairs(void **state)
{
    fake_host *f = evaluator("kind");
    scored_pair(f, "a", 2, 1, 1, "easy");
    scored_pair(f, "b", 1, 2, 1, "easy");
    scored_pair(f, "c", 1, 1, 0.9, "hard"); /* a tie: half */
    scored_pair(f, "d", 1, 2, 0.2, "hard"); /* labelled the other way round */
    scored_pair(f, "e", 1, 2, 0.5, "hard"); /* says nothing */
    scored_pair(f, "f", NAN, 2, 1, "easy"); /* not judged */
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_true(fake_metric(f, "pairs_judged") == 4);
    NEAR(fake_metric(f, "pair_accuracy"), 2.5 / 4);
    NEAR(fake_metric(f, "pair_accuracy/easy"), 0.5);
    NEAR(fake_metric(f, "pair_accuracy/hard"), 0.75);
    assert_true(fake_metric(f, "pair_accuracy/low") < 2.5 / 4 && fake_metric(f, "pair_accuracy/high") > 2.5 / 4);
    fake_close(f);

    f = evaluator("kind");
    scored_pair(f, "a", 2, 1, 1, NULL);
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    assert_says(f, "the meta field 'kind', which group names, is missing");
    fake_close(f);

    f = evaluator(NULL);
    asked(f, "a");
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    assert_says(f, "no pair has scores of 'reward'");
    fake_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradient_of_rewards),
        cmocka_unit_test(the_head_comes_from_where_it_is_said),
        cmocka_unit_test(a_value_that_is_no_number_names_record_and_step),
        cmocka_unit_test(settings_of_reward_models_are_refused_elsewhere),
        cmocka_unit_test(scores_are_combined_by_rule),
        cmocka_unit_test(empty_and_overlong_answers_have_no_score),
        cmocka_unit_test(models_that_cannot_judge_are_refused),
        cmocka_unit_test(accuracy_on_pairs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
