/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The trainer: what it takes, what it leaves out, the gradient it asks for, the steps it takes, what it reports. */
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

#define NEAR(value, expected) assert_true(fabs((value) - (expected)) <= 2e-6)
#define BETA                  0.3

static fake_models *models;
static sluice_model_ref start, base;

/* A trainer from version 1 against version 0, with a loss. */
struct training {
    fake_host *host, *loss;
    sluice_part part;
};

static int setup(void **state)
{
    models = fake_models_new();
    start = fake_ref(1);
    base = fake_ref(0);
    return 0;
}

static int teardown(void **state)
{
    fake_models_free(models);
    return 0;
}

static struct training open_training(const char *loss)
{
    struct training t = {fake_open("trainer", "trainer"), fake_open(loss, loss), {0}};
    t.host->models = &models->service;
    t.host->seed_value = 3;
    snprintf(t.host->publish_dir, sizeof t.host->publish_dir, "/new/version");
    fake_set_pointer(t.host, "model", &start);
    fake_set_pointer(t.host, "reference", &base);
    if (strcmp(loss, "sft") != 0)
        fake_set_number(t.loss, "beta", BETA);
    assert_int_equal(fake_start(t.loss), SLUICE_OK);
    fake_set_number(t.host, "lr", 0.1);
    fake_set_text(t.host, "schedule", "constant");
    fake_set_number(t.host, "warmup", 0);
    models->gradients = models->steps = models->scored = 0;
    models->gradient_not_finite = false;
    return t;
}

static int train(struct training *t)
{
    t->part = (sluice_part){t->loss->type, t->loss->self};
    fake_set_pointer(t->host, "loss", &t->part);
    return fake_run(t->host);
}

static void close_training(struct training *t)
{
    fake_close(t->host);
    fake_close(t->loss);
}

static sluice_record *pair(struct training *t, const char *id, const char *prompt, const char *chosen,
                           const char *rejected, double p, double weight)
{
    sluice_record *r = fake_record(t->host, id, prompt);
    fake_candidate(r, chosen, NULL, 0);
    fake_candidate(r, rejected, NULL, 0);
    sluice_pair x = {.chosen = 0, .rejected = 1, .p = p, .weight = weight, .margin = NAN};
    assert_int_equal(sluice_record_add_pair(r, &x), SLUICE_OK);
    return r;
}

static sluice_record *completion(struct training *t, const char *id, const char *prompt, const char *text)
{
    sluice_record *r = fake_record(t->host, id, prompt);
    fake_candidate(r, text, NULL, 0);
    return r;
}

static double sum_logp(int64_t version, const char *prompt, const char *text)
{
    uint32_t last = (unsigned char)prompt[strlen(prompt) - 1];
    double sum = 0;
    for (; *text; last = (unsigned char)*text++)
        sum += fake_logp(version, last, (unsigned char)*text);
    return sum + fake_logp(version, last, FAKE_STOP);
}

static double expected[FAKE_VOCABULARY][FAKE_VOCABULARY];

/* Adds d times the derivative of log pi(token | last) at version 1. */
static void add_token(uint32_t last, uint32_t token, double d)
{
    for (uint32_t j = 0; j < FAKE_VOCABULARY; j++)
        expected[last][j] += d * ((j == token) - exp(fake_logp(1, last, j)));
}

static void add_answer(const char *prompt, const char *text, double d)
{
    uint32_t last = (unsigned char)prompt[strlen(prompt) - 1];
    for (; *text; last = (unsigned char)*text++)
        add_token(last, (unsigned char)*text, d);
    add_token(last, FAKE_STOP, d);
}

static void assert_applied(void)
{
    for (size_t i = 0; i < FAKE_VOCABULARY; i++)
        for (size_t j = 0; j < FAKE_VOCABULARY; j++)
            NEAR(models->applied[i][j], expected[i][j]);
}

static const struct {
    const char *prompt, *chosen, *rejected;
    double p, weight;
} pairs[] = {{"q", "yes", "no", 1, 1}, {"who", "me", "you", 0.8, 0.5}, {"a", "b", "cd", 0.3, 2}};

/* The mean over pairs of weight times cDPO, by hand; and however the batch is cut. */
static void gradient_of_pairs(void **state)
{
    double loss = 0, margins = 0, correct = 0;
    memset(expected, 0, sizeof expected);
    for (size_t i = 0; i < 3; i++) {
        double rw = sum_logp(1, pairs[i].prompt, pairs[i].chosen) - sum_logp(0, pairs[i].prompt, pairs[i].chosen);
        double rl = sum_logp(1, pairs[i].prompt, pairs[i].rejected) - sum_logp(0, pairs[i].prompt, pairs[i].rejected);
        double x = BETA * (rw - rl), p = pairs[i].p, w = pairs[i].weight;
        double d = BETA * (1 / (1 + exp(-x)) - p) * w / 3; /* sigma(x) - p: CREAM's derivative */
        add_answer(pairs[i].prompt, pairs[i].chosen, d);
        add_answer(pairs[i].prompt, pairs[i].rejected, -d);
        loss += w * (-p * log(1 / (1 + exp(-x))) - (1 - p) * log(1 / (1 + exp(x)))) / 3;
        margins += x / 3;
        correct += (x > 0) / 3.0;
    }
    for (int cut = 0; cut < 3; cut++) {
        const double micro[] = {1, 20, 100000};
        const size_t calls[] = {3, 2, 1};
        struct training t = open_training("dpo");
        fake_set_number(t.host, "micro_tokens", micro[cut]);
        for (size_t i = 0; i < 3; i++)
            pair(&t, (const char *[]){"a", "b", "c"}[i], pairs[i].prompt, pairs[i].chosen, pairs[i].rejected,
                 pairs[i].p, pairs[i].weight);
        assert_int_equal(train(&t), SLUICE_OK);
        assert_int_equal(models->gradients, calls[cut]);
        assert_int_equal(models->steps, 1);
        assert_applied();
        NEAR(fake_step_metric(t.host, "loss", 1), loss);
        NEAR(fake_metric(t.host, "train_loss"), loss);
        NEAR(fake_step_metric(t.host, "rewards/margins", 1), margins);
        NEAR(fake_step_metric(t.host, "rewards/accuracies", 1), correct);
        assert_true(fake_step_metric(t.host, "num_tokens", 1) ==
                    9 + 11 + 7); /* prompts, answers and their stop tokens */
        assert_true(fake_metric(t.host, "reference_computed") == 6 && models->scored == 6);
        assert_int_equal(t.host->publications, 1);
        assert_true(fake_metric(t.host, "weights_changed") > 0);
        close_training(&t);
    }
}

/* The mean over trained tokens; the prompt's count as prompt_weight says, but not the first. */
static void gradient_of_sequences(void **state)
{
    for (int with_prompt = 0; with_prompt < 2; with_prompt++) {
        double weight = with_prompt ? 0.5 : 0, tokens = 4 + 3 + weight * (1 + 2), loss = 0;
        memset(expected, 0, sizeof expected);
        add_answer("q", "yes", -1 / tokens);
        add_answer("ab", "no", -1 / tokens);
        add_token(FAKE_START, 'q', -weight / tokens);
        add_token(FAKE_START, 'a', -weight / tokens);
        add_token('a', 'b', -weight / tokens);
        loss = -(sum_logp(1, "q", "yes") + sum_logp(1, "ab", "no") +
                 weight * (fake_logp(1, FAKE_START, 'q') + fake_logp(1, FAKE_START, 'a') + fake_logp(1, 'a', 'b'))) /
               tokens;
        struct training t = open_training("sft");
        fake_set_number(t.host, "prompt_weight", weight);
        fake_set_number(t.host, "micro_tokens", 1);
        completion(&t, "a", "q", "yes");
        completion(&t, "b", "ab", "no");
        fake_record(t.host, "bare", "nothing to learn");
        assert_int_equal(train(&t), SLUICE_OK);
        assert_applied();
        NEAR(fake_step_metric(t.host, "loss", 1), loss);
        assert_true(fake_metric(t.host, "bare") == 1 && fake_metric(t.host, "examples") == 2);
        assert_true(isnan(fake_step_metric(t.host, "rewards/chosen", 1)));
        close_training(&t);
    }
    struct training t = open_training("dpo");
    fake_set_number(t.host, "prompt_weight", 0.5);
    assert_int_equal(train(&t), SLUICE_BAD_PARAMETER);
    close_training(&t);
}

static void sequences_of_pairs_are_the_chosen(void **state)
{
    struct training t = open_training("sft");
    sluice_record *r = pair(&t, "a", "q", "yes", "no", 1, 1);
    fake_candidate(r, "perhaps", NULL, 0);
    sluice_pair again = {.chosen = 0, .rejected = 2, .p = 1, .weight = 1, .margin = NAN};
    assert_int_equal(sluice_record_add_pair(r, &again), SLUICE_OK);
    assert_int_equal(train(&t), SLUICE_OK);
    assert_true(fake_metric(t.host, "examples") == 1);
    memset(expected, 0, sizeof expected);
    add_answer("q", "yes", -0.25);
    assert_applied();
    close_training(&t);
}

static void segments_that_are_not_trained(void **state)
{
    struct training t = open_training("sft");
    sluice_record *r = fake_record(t.host, "a", "q");
    const uint32_t tokens[] = {'x', 'y', 'z', FAKE_STOP};
    const sluice_segment segments[] = {{"assistant", 0, 1, true}, {"tool", 1, 3, false}, {"assistant", 3, 4, true}};
    fake_candidate(r, "xyz", tokens, 4);
    assert_int_equal(sluice_record_set_segments(r, 0, segments, 3), SLUICE_OK);
    assert_int_equal(train(&t), SLUICE_OK);
    memset(expected, 0, sizeof expected);
    add_token('q', 'x', -0.5);
    add_token('z', FAKE_STOP, -0.5);
    assert_applied();
    close_training(&t);
}

static void what_is_left_out_is_counted(void **state)
{
    char words[80];
    memset(words, 'w', sizeof words);
    words[60] = 0;
    struct training t = open_training("dpo");
    fake_set_text(t.host, "too_long", "skip");
    fake_set_text(t.host, "truncated", "drop");
    pair(&t, "good", "q", "yes", "no", 1, 1);
    pair(&t, "same", "q", "yes", "yes", 1, 1);
    pair(&t, "light", "q", "yes", "no", 1, 0);
    pair(&t, "long", words, "yes", "no", 1, 1);
    fake_record(t.host, "bare", "q");
    sluice_record *r = pair(&t, "cut off", "q", "yes", "no", 1, 1);
    sluice_candidate x;
    const uint32_t tokens[] = {'y', 'e'};
    assert_int_equal(sluice_record_candidate(r, 0, &x), SLUICE_OK);
    x.tokens = tokens;
    x.token_count = 2;
    x.finish = SLUICE_FINISH_LENGTH;
    assert_int_equal(sluice_record_set_candidate(r, 0, &x), SLUICE_OK);
    r = pair(&t, "empty", "q", "yes", "no", 1, 1);
    assert_int_equal(sluice_record_candidate(r, 1, &x), SLUICE_OK);
    x.tokens = tokens;
    x.token_count = 0;
    assert_int_equal(sluice_record_set_candidate(r, 1, &x), SLUICE_OK);
    assert_int_equal(train(&t), SLUICE_OK);
    assert_true(fake_metric(t.host, "examples") == 1 && fake_metric(t.host, "identical") == 1);
    assert_true(fake_metric(t.host, "weightless") == 1 && fake_metric(t.host, "too_long") == 1);
    assert_true(fake_metric(t.host, "truncated") == 1 && fake_metric(t.host, "empty") == 1 &&
                fake_metric(t.host, "bare") == 6);
    close_training(&t);

    t = open_training("dpo"); /* nothing left: a failure, not an empty training */
    pair(&t, "same", "q", "yes", "yes", 1, 1);
    fake_record(t.host, "bare", "q");
    assert_int_equal(train(&t), SLUICE_BAD_RECORD);
    assert_non_null(strstr(t.host->error, "no pairs reached the trainer"));
    assert_non_null(strstr(t.host->error, "1 identical"));
    assert_int_equal(t.host->publications, 0);
    close_training(&t);

    t = open_training("dpo");
    completion(&t, "bare", "q", "a");
    assert_int_equal(train(&t), SLUICE_BAD_RECORD);
    assert_non_null(strstr(t.host->error, "put a ranker before it"));
    close_training(&t);
}

static void long_prompts_are_cut_on_the_left(void **state)
{
    char words[80];
    memset(words, 'w', sizeof words);
    strcpy(words + 65, "q");
    for (int left = 0; left < 2; left++) {
        struct training t = open_training("dpo");
        if (left)
            fake_set_text(t.host, "too_long", "left");
        pair(&t, "long", words, "yes", "no", 1, 1);
        assert_int_equal(train(&t), left ? SLUICE_OK : SLUICE_BAD_RECORD);
        if (!left)
            assert_non_null(strstr(t.host->error, "71 tokens"));
        if (left) {
            assert_true(fake_metric(t.host, "cut") == 1 && fake_step_metric(t.host, "num_tokens", 1) == 64 + 3);
        }
        close_training(&t);
    }
}

/* Log-probabilities of the reference that stand in the record are taken. */
static void reference_is_asked_once(void **state)
{
    struct training t = open_training("dpo");
    sluice_record *r = fake_record(t.host, "a", "q");
    const uint32_t tokens[2][2] = {{'x', FAKE_STOP}, {'y', FAKE_STOP}};
    for (size_t i = 0; i < 2; i++) {
        fake_candidate(r, "?", tokens[i], 2);
        const float logps[] = {i ? -2.0f : -1.0f, -0.5f};
        assert_int_equal(sluice_record_set_logps(r, i, "policy@0", logps, 2), SLUICE_OK);
    }
    sluice_pair x = {.chosen = 0, .rejected = 1, .p = 1, .weight = 1, .margin = NAN};
    assert_int_equal(sluice_record_add_pair(r, &x), SLUICE_OK);
    assert_int_equal(train(&t), SLUICE_OK);
    assert_true(models->scored == 0 && fake_metric(t.host, "reference_found") == 2);
    double policy = fake_logp(1, 'q', 'x') + fake_logp(1, 'x', FAKE_STOP);
    NEAR(fake_step_metric(t.host, "rewards/chosen", 1), BETA * (policy + 1.5));
    NEAR(fake_step_metric(t.host, "logps/chosen", 1), policy);
    close_training(&t);

    t = open_training("dpo"); /* and one answer in two pairs is asked for once */
    r = pair(&t, "a", "q", "yes", "no", 1, 1);
    fake_candidate(r, "perhaps", NULL, 0);
    x = (sluice_pair){.chosen = 0, .rejected = 2, .p = 1, .weight = 1, .margin = NAN};
    assert_int_equal(sluice_record_add_pair(r, &x), SLUICE_OK);
    assert_int_equal(train(&t), SLUICE_OK);
    assert_true(models->scored == 3 && fake_metric(t.host, "examples") == 2);
    close_training(&t);
}

static void learning_rates(void **state)
{
    const struct {
        const char *schedule;
        double at[5]; /* of 5 steps, the first two warming up */
    } cases[] = {{"constant", {0.5, 1, 1, 1, 1}},
                 {"linear", {0.5, 1, 1, 2.0 / 3, 1.0 / 3}},
                 {"cosine", {0.5, 1, 1, 0.75, 0.25}}};
    for (size_t i = 0; i < 3; i++) {
        struct training t = open_training("sft");
        fake_set_text(t.host, "schedule", cases[i].schedule);
        fake_set_number(t.host, "warmup", 0.4);
        fake_set_number(t.host, "batch", 2);
        fake_set_number(t.host, "lr", 1);
        for (int k = 0; k < 9; k++) {
            char id[24];
            snprintf(id, sizeof id, "r%d", k);
            completion(&t, id, "q", "yes");
        }
        assert_int_equal(train(&t), SLUICE_OK);
        assert_true(fake_metric(t.host, "steps") == 5);
        for (int s = 0; s < 5; s++)
            NEAR(fake_step_metric(t.host, "learning_rate", s + 1), cases[i].at[s]);
        NEAR(fake_step_metric(t.host, "epoch", 5), 1);
        close_training(&t);
    }
}

static void epochs_shuffle_and_repeat(void **state)
{
    static double saved[2][FAKE_VOCABULARY][FAKE_VOCABULARY];
    double loss[3] = {0};
    for (int run = 0; run < 3; run++) {
        struct training t = open_training("sft");
        t.host->seed_value = run < 2 ? 3 : 4;
        fake_set_number(t.host, "epochs", 3);
        fake_set_number(t.host, "batch", 4);
        fake_set_number(t.host, "log_every", 4);
        fake_set_number(t.host, "lr", 0.5);
        for (int k = 0; k < 10; k++) {
            char id[24], text[8];
            snprintf(id, sizeof id, "r%d", k);
            snprintf(text, sizeof text, "%c%c", 'a' + k, 'k' + k);
            completion(&t, id, "q", text);
        }
        assert_int_equal(train(&t), SLUICE_OK);
        assert_int_equal(models->steps, 9); /* 3 batches an epoch, the last of 2 */
        assert_true(isnan(fake_step_metric(t.host, "loss", 3)) && !isnan(fake_step_metric(t.host, "loss", 4)) &&
                    !isnan(fake_step_metric(t.host, "loss", 9)));
        loss[run] = fake_step_metric(t.host, "loss", 4);
        if (run < 2)
            memcpy(saved[run], models->saved, sizeof saved[run]);
        close_training(&t);
    }
    assert_memory_equal(saved[0], saved[1], sizeof saved[0]);
    assert_true(loss[0] == loss[1] && loss[0] != loss[2]);
}

static void trouble_is_said(void **state)
{
    struct training t = open_training("dpo");
    pair(&t, "a", "q", "yes", "no", 1, 1);
    models->gradient_not_finite = true;
    assert_int_equal(train(&t), SLUICE_FAILED);
    assert_non_null(strstr(t.host->error, "no step had a finite gradient"));
    assert_int_equal(t.host->publications, 0);
    close_training(&t);

    t = open_training("dpo");
    fake_set_number(t.host, "lr", 0);
    pair(&t, "a", "q", "yes", "no", 1, 1);
    assert_int_equal(train(&t), SLUICE_OK);
    assert_non_null(strstr(t.host->warning, "changed no weight"));
    assert_true(fake_metric(t.host, "weights_changed") == 0);
    close_training(&t);
}

/* Not set, the reference is the version training starts from: every reward is 0 at the first step. */
static void reference_defaults_to_the_start(void **state)
{
    struct training t = open_training("dpo");
    fake_set_pointer(t.host, "reference", NULL);
    pair(&t, "a", "q", "yes", "no", 1, 1);
    assert_int_equal(train(&t), SLUICE_OK);
    NEAR(fake_step_metric(t.host, "rewards/margins", 1), 0);
    NEAR(fake_step_metric(t.host, "loss", 1), log(2));
    close_training(&t);
}

static void a_reference_reads_the_models_tokens(void **state)
{
    struct training t = open_training("dpo");
    models->other_tokens = 1; /* the policy's */
    pair(&t, "a", "q", "yes", "no", 1, 1);
    assert_int_equal(train(&t), SLUICE_BAD_MODEL);
    assert_non_null(strstr(t.host->error, "have different tokenizers; a reference scores the model's own tokens"));
    models->other_tokens = 0;
    close_training(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradient_of_pairs),
        cmocka_unit_test(gradient_of_sequences),
        cmocka_unit_test(sequences_of_pairs_are_the_chosen),
        cmocka_unit_test(segments_that_are_not_trained),
        cmocka_unit_test(what_is_left_out_is_counted),
        cmocka_unit_test(long_prompts_are_cut_on_the_left),
        cmocka_unit_test(reference_is_asked_once),
        cmocka_unit_test(learning_rates),
        cmocka_unit_test(epochs_shuffle_and_repeat),
        cmocka_unit_test(trouble_is_said),
        cmocka_unit_test(reference_defaults_to_the_start),
        cmocka_unit_test(a_reference_reads_the_models_tokens),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
