/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* judge-llm on a model small enough to work out by hand, and one that says what the test wants. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/fake_host.h"
#include "tests/fake_model.h"

#define NEAR(value, expected) assert_true(fabs((value) - (expected)) <= 1e-5)

static fake_models *models;
static sluice_model_ref ref;
static char file[64];

static int setup(void **state)
{
    models = fake_models_new();
    models->context = 2048;
    ref = fake_ref(1);
    snprintf(file, sizeof file, "/tmp/judge-prompt-XXXXXX");
    int fd = mkstemp(file);
    assert_true(fd >= 0);
    close(fd);
    return 0;
}

static int teardown(void **state)
{
    unlink(file);
    fake_models_free(models);
    return 0;
}

static void write_prompt(const char *text, size_t size)
{
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* A judge with a prompt of the test's; NULL = the mode's own. */
static fake_host *judge(const char *mode, const char *prompt)
{
    fake_host *f = fake_open("judge-llm", "judge-llm");
    f->models = &models->service;
    f->stage_name = "words";
    fake_set_pointer(f, "model", &ref);
    fake_set_text(f, "mode", mode);
    if (prompt) {
        write_prompt(prompt, strlen(prompt));
        fake_set_text(f, "prompt", file);
    }
    return f;
}

static float score_of(const fake_host *f, size_t candidate)
{
    const float *scores = sluice_record_scores(f->output[0], "words");
    return scores ? scores[candidate] : NAN;
}

/* The fake's P(first label) after the last byte of the question. */
static double first_of(const char *last, const char *first, const char *second)
{
    double sum[2] = {0, 0};
    const char *label[2] = {first, second};
    for (int i = 0; i < 2; i++) {
        uint32_t before = (unsigned char)last[strlen(last) - 1];
        for (const char *c = label[i]; *c; before = (unsigned char)*c++)
            sum[i] += fake_logp(1, before, (unsigned char)*c);
    }
    return 1 / (1 + exp(sum[1] - sum[0]));
}

/* ---- points in words */

/* What one answer of the judge is worth; NaN = nothing. */
static double said(const char *text)
{
    fake_host *f = judge("score", "{prompt} {answer}");
    models->says = &text;
    models->say_count = 1;
    fake_set_number(f, "samples", 1);
    fake_candidate(fake_record(f, "r", "q"), "x", NULL, 0);
    if (fake_run(f) != SLUICE_OK)
        fail_msg("%s", f->error);
    double score = score_of(f, 0);
    assert_true(fake_metric(f, "scored") == !isnan(score) && fake_metric(f, "unscored") == isnan(score));
    assert_true(fake_metric(f, "unparsed") + fake_metric(f, "out_of_range") == isnan(score));
    assert_true(isnan(score) == (f->warning[0] != 0));
    fake_close(f);
    return score;
}

static void numbers_that_count(void **state)
{
    NEAR(said("Good. Score: 4"), 4);
    NEAR(said("score:3.5 in all"), 3.5);
    NEAR(said("SCORE: 4/5"), 4);
    NEAR(said("Score: 4."), 4);
    NEAR(said("**Score:** **2**"), 2);
    NEAR(said("Score: <1>"), 1);
    NEAR(said("Score:\n0"), 0);
    NEAR(said("Score: 1 would be harsh. Score: 4"), 4); /* the last */
    NEAR(said("Score: 4. My Score: is final"), 4);      /* that a number follows */
    NEAR(said("…Score: 4 and then I go on and"), 4);    /* cut, after the number */
}

static void what_is_no_score(void **state)
{
    static const char *const nothing[] = {
        "",
        "4",
        "I like it",
        "Score:",
        "Score: four",
        "Score: 4th",
        "Score: 1e9",
        "Score: nan",
        "Score: 0x4",
        "Score: -1",
        "Score: 6",
        "Score: 5.01",
        "Score: 99999999999999999999999",
        "…Score: 4",
        "…Score: 4.",
        "Score: \xef\xbf\xbd",
        "Score: -",
        "Score: .5",
        "\"Score:\" and the number",
    };
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++)
        if (!isnan(said(nothing[i])))
            fail_msg("\"%s\" is a score", nothing[i]);
    char *much = malloc(1 << 20); /* too much: a megabyte, the number at its end counts */
    memset(much, 'S', 1 << 20);
    strcpy(much + (1 << 20) - 16, " Score: 3");
    NEAR(said(much), 3);
    free(much);
}

static void mean_over_samples_that_can_be_read(void **state)
{
    static const char *const says[] = {"Score: 4", "no idea", "Score: 1", "Score: 9"};
    fake_host *f = judge("score", NULL);
    models->says = says;
    models->say_count = 4;
    fake_set_number(f, "samples", 4);
    sluice_record *r = fake_record(f, "r", "What is it?");
    fake_candidate(r, "yes", NULL, 0);
    fake_candidate(r, "no", NULL, 0);
    fake_candidate(r, "yes", NULL, 0); /* judged with the first */
    assert_int_equal(fake_run(f), SLUICE_OK);
    NEAR(score_of(f, 0), 2.5);
    NEAR(score_of(f, 1), 2.5);
    NEAR(score_of(f, 2), 2.5);
    assert_true(models->said == 8 && fake_metric(f, "samples") == 8);
    assert_true(fake_metric(f, "unparsed") == 2 && fake_metric(f, "out_of_range") == 2);
    assert_non_null(strstr(models->asked, "What is it?"));
    assert_non_null(strstr(models->asked, "<answer>\nyes\n</answer>"));
    fake_close(f);
}

static void the_answer_begun_counts_with_it(void **state)
{
    static const char *const says[] = {" 3"};
    for (int chat = 0; chat < 2; chat++) {
        fake_host *f = judge("score", "[user]\n{prompt}\n{answer}\n\n[assistant]\nScore:\n");
        models->has_template = chat;
        models->says = says;
        models->say_count = 1;
        fake_candidate(fake_record(f, "r", "q"), "x", NULL, 0);
        assert_int_equal(fake_run(f), SLUICE_OK);
        NEAR(score_of(f, 0), 3);
        assert_string_equal(models->asked, chat ? "q\nxScore:" : "q\nx\nScore:");
        fake_close(f);
    }
}

/* ---- labels */

static void a_question_about_one_answer(void **state)
{
    fake_host *f = judge("question", "{prompt} {answer}");
    sluice_record *r = fake_record(f, "r", "q");
    fake_candidate(r, "x", NULL, 0);
    fake_candidate(r, "yz", NULL, 0);
    assert_int_equal(fake_run(f), SLUICE_OK);
    NEAR(score_of(f, 0), first_of("x", "yes", "no"));
    NEAR(score_of(f, 1), first_of("z", "yes", "no"));
    NEAR(fake_metric(f, "first_label"), (score_of(f, 0) + score_of(f, 1)) / 2);
    assert_true(fake_metric(f, "compared") == 2 && fake_metric(f, "mean_score") > 0);
    fake_close(f);
}

/* The fake sees the byte before its answer alone: the second answer's last. */
static void each_against_each(void **state)
{
    static const char *const text[] = {"x", "y", "z", "x"};
    for (int both = 0; both < 2; both++) {
        fake_host *f = judge("pairwise", "{a}{b}");
        fake_set_text(f, "orders", both ? "both" : "first");
        sluice_record *r = fake_record(f, "r", "q");
        for (int i = 0; i < 4; i++)
            fake_candidate(r, text[i], NULL, 0);
        models->scored = 0;
        assert_int_equal(fake_run(f), SLUICE_OK);
        double p[3][3];
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++) {
                double forth = first_of(text[j], "A", "B"), back = first_of(text[i], "A", "B");
                p[i][j] = both ? (forth + 1 - back) / 2 : i < j ? forth : 1 - back;
            }
        NEAR(score_of(f, 0), (p[0][1] + p[0][2] + 0.5) / 3); /* its twin draws */
        NEAR(score_of(f, 1), (p[1][0] + p[1][2] + p[1][0]) / 3);
        NEAR(score_of(f, 2), (p[2][0] + p[2][1] + p[2][0]) / 3);
        NEAR(score_of(f, 3), score_of(f, 0));
        assert_int_equal(models->scored, both ? 12 : 6); /* two labels a question; equal answers ask once */
        fake_close(f);
    }
}

static void opponents_are_limited(void **state)
{
    fake_host *f = judge("pairwise", "{a}{b}");
    fake_set_number(f, "opponents", 4);
    sluice_record *r = fake_record(f, "r", "q");
    for (int i = 0; i < 12; i++)
        fake_candidate(r, (char[]){(char)('a' + i), 0}, NULL, 0);
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_true(fake_metric(f, "compared") == 12 * 4 && fake_metric(f, "scored") == 12);
    fake_close(f);
}

static sluice_record *with_pair(fake_host *f, const char *chosen, const char *rejected, double p)
{
    sluice_record *r = fake_record(f, chosen, "q");
    fake_candidate(r, chosen, NULL, 0);
    fake_candidate(r, rejected, NULL, 0);
    const sluice_pair pair = {.chosen = 0, .rejected = 1, .p = p, .weight = 0.5, .margin = 2};
    assert_int_equal(sluice_record_add_pair(r, &pair), SLUICE_OK);
    return r;
}

static void trust_of_pairs(void **state)
{
    static const char *const rules[] = {"soft", "flip", "hard"};
    double forth = first_of("y", "A", "B"), back = first_of("x", "A", "B"), q = (forth + 1 - back) / 2;
    for (int i = 0; i < 3; i++) {
        fake_host *f = judge("pairs", "{a}{b}");
        fake_set_text(f, "label", rules[i]);
        with_pair(f, "x", "y", 1);
        with_pair(f, "y", "x", 0.9);
        fake_record(f, "none", "q");
        assert_int_equal(fake_run(f), SLUICE_OK);
        double against = q < 0.5 ? q : 1 - q;
        for (int k = 0; k < 2; k++) {
            sluice_pair pair;
            double q_here = k == 0 ? q : 1 - q, p = k == 0 ? q : 0.9 * q_here + 0.1 * (1 - q_here);
            assert_int_equal(sluice_record_pair(f->output[k], 0, &pair), SLUICE_OK);
            bool turned = i > 0 && p < 0.5;
            assert_true(pair.chosen == turned && pair.weight == 0.5 && pair.margin == (turned ? -2 : 2));
            NEAR(pair.p, i == 2 ? 1 : turned ? 1 - p : p);
            assert_null(sluice_record_scores(f->output[k], "words"));
        }
        assert_true(fake_metric(f, "pairs") == 2 && against < 0.5);
        NEAR(fake_metric(f, "against"), 0.5);
        NEAR(fake_metric(f, "mean_p"), 0.5);
        fake_close(f);
    }
    fake_host *f = judge("pairs", NULL);
    fake_record(f, "none", "q");
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_non_null(strstr(f->warning, "put a ranker before"));
    fake_close(f);
}

/* ---- the prompt's file */

static void refused(const char *mode, const char *text, size_t size, const char *says)
{
    char expected[200];
    fake_host *f = judge(mode, "");
    write_prompt(text, size);
    assert_int_equal(fake_start(f), SLUICE_BAD_PARAMETER);
    snprintf(expected, sizeof expected, "%s:%s", file, says);
    if (strncmp(f->error, expected, strlen(expected)) != 0)
        fail_msg("%s instead of %s", f->error, expected);
    fake_close(f);
}

static void prompts_that_are_wrong(void **state)
{
#define REFUSED(mode, text, says) refused(mode, text, sizeof(text) - 1, says)
    REFUSED("score", "", "1: there is no text");
    REFUSED("score", " \n\n\t\n", "1: there is no text");
    REFUSED("score", "Judge {prompt}.\n", "1: {answer} stands nowhere");
    REFUSED("pairwise", "\n\n{prompt} {a}\n", "3: {b} stands nowhere");
    REFUSED("pairwise", "{a}\n{b}\n{answer}", "3: there is no '{answer}' here, only {prompt}, {a} and {b}");
    REFUSED("question", "{answer}\n{a}", "2: there is no '{a}' here, only {prompt} and {answer}");
    REFUSED("score", "{answer} { prompt }", "1: there is no '{ prompt }'");
    REFUSED("score", "{answer}\n{prompt", "2: '{' has no '}'");
    REFUSED("score", "{answer}\n{prompt\n}", "2: '{' has no '}'");
    REFUSED("score", "{answer}\n\n}", "3: '}' has no '{'");
    REFUSED("score", "[user]\n{answer}\n[judge]\nx", "3: there is no section '[judge]'");
    REFUSED("score", "[system]\n\n\n[user]\n{answer}", "1: section [system] is empty");
    REFUSED("score", "Hello\n[user]\n{answer}", "1: text before the first section");
    REFUSED("score", "[assistant]\n{answer}", "1: {answer} stands in the last section");
    REFUSED("score", "[system]\n{answer}", "1: there is no [user] section");
    REFUSED("score", "[user]\n{prompt}\n[assistant]\n{answer}", "3: {answer} stands in the last section");
    REFUSED("score", "{answer}\n\0", "2: this is no UTF-8 text");
    REFUSED("score", "\x89PNG\r\n\x1a\n{answer}", "1: this is no UTF-8 text");
    REFUSED("score", "{answer}\n\n\xc3(", "3: this is no UTF-8 text");
    fake_host *f = judge("score", NULL);
    fake_set_text(f, "prompt", "/no/such/prompt.txt");
    assert_int_equal(fake_start(f), SLUICE_IO);
    assert_non_null(strstr(f->error, "/no/such/prompt.txt cannot be read"));
    fake_close(f);
}

static void prompts_as_they_are_read(void **state)
{
    fake_host *f =
        judge("question", "\xef\xbb\xbf[system]\r\n{{JSON}} }}\r\n\r\n[user]\r\n [user]\r\n{answer}{prompt}{answer}");
    sluice_record *r = fake_record(f, "r", NULL);
    const sluice_message messages[] = {{"user", "one {a}"}, {"assistant", "two"}};
    assert_int_equal(sluice_record_set_messages(r, messages, 2), SLUICE_OK);
    fake_candidate(r, "{prompt}", NULL, 0); /* what a record brings is not filled again */
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_string_equal(models->asked, "{JSON} }\n [user]\n{prompt}user: one {a}\n\nassistant: two{prompt}");
    fake_close(f);
}

/* ---- what is wrong with the judge */

static void too_long_by_rule(void **state)
{
    static const char *const rules[] = {"error", "skip", "left"};
    for (int i = 0; i < 3; i++) {
        fake_host *f = judge("question", "{prompt}|{answer}");
        models->context = 40;
        fake_set_text(f, "too_long", rules[i]);
        sluice_record *r = fake_record(f, "r", "äöü a question of more than forty bytes, as one sees");
        fake_candidate(r, "x", NULL, 0);
        fake_candidate(r, "an answer that is far too long by itself already", NULL, 0);
        assert_int_equal(fake_run(f), i == 0 ? SLUICE_BAD_RECORD : SLUICE_OK);
        if (i == 0)
            assert_non_null(strstr(f->error, "more than its context of 40"));
        else
            assert_true(fake_metric(f, "unscored") == 2 - (i == 2) && fake_metric(f, "skipped") == 2 - (i == 2));
        if (i == 2) {
            assert_true(fake_metric(f, "cut") == 1 && isnan(score_of(f, 1)) && !isnan(score_of(f, 0)));
            assert_string_equal(models->asked, "more than forty bytes, as one sees|x"); /* the end of it */
            assert_int_equal(strlen(models->asked) + 1 + 3, 40);                        /* start, "yes" */
        }
        fake_close(f);
    }
}

/* A prompt that no tokenizer takes is too long like any other. */
static void endless_prompts_by_rule(void **state)
{
    const size_t size = (size_t)65 << 20;
    char *endless = malloc(size + 1);
    assert_non_null(endless);
    memset(endless, 'x', size);
    endless[size] = '\0';
    for (int left = 0; left < 2; left++) {
        fake_host *f = judge("question", "{prompt}|{answer}");
        models->context = 40;
        fake_set_text(f, "too_long", left ? "left" : "skip");
        fake_candidate(fake_record(f, "r", endless), "x", NULL, 0);
        if (fake_run(f) != SLUICE_OK)
            fail_msg("%s", f->error);
        assert_true(fake_metric(f, "skipped") == !left && fake_metric(f, left ? "scored" : "unscored") == 1);
        fake_close(f);
    }
    free(endless);
}

static void judges_that_cannot_judge(void **state)
{
    fake_host *f = judge("question", NULL);
    models->no_tokenizer = true;
    assert_int_equal(fake_start(f), SLUICE_BAD_MODEL);
    assert_non_null(strstr(f->error, "has no tokenizer"));
    fake_close(f);
    models->no_tokenizer = false;
    models->head_outputs = 1;
    f = judge("question", NULL);
    assert_int_equal(fake_start(f), SLUICE_BAD_MODEL);
    assert_non_null(strstr(f->error, "judge-reward-model"));
    fake_close(f);
    models->head_outputs = 0;
    models->score_not_finite = true;
    f = judge("question", NULL);
    fake_candidate(fake_record(f, "r", "q"), "x", NULL, 0);
    assert_int_equal(fake_run(f), SLUICE_BAD_MODEL);
    assert_non_null(strstr(f->error, "nan"));
    fake_close(f);
    models->score_not_finite = false;
    f = judge("score", NULL);
    fake_set_number(f, "max_tokens", 2048);
    assert_int_equal(fake_start(f), SLUICE_BAD_PARAMETER);
    assert_non_null(strstr(f->error, "lower max_tokens"));
    fake_close(f);
    f = judge("score", NULL);
    fake_candidate(fake_record(f, "r", NULL), "x", NULL, 0);
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    assert_non_null(strstr(f->error, "no prompt as text"));
    fake_close(f);
    f = judge("score", NULL);
    fake_candidate(fake_record(f, "r", "q"), NULL, (const uint32_t[]){5}, 1);
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    assert_non_null(strstr(f->error, "candidate 0 has no text"));
    fake_close(f);
}

static void labels_that_do_not_differ(void **state)
{
    static const struct {
        const char *items[3];
        size_t count;
        const char *says;
    } wrong[] = {{{"A", "A"}, 2, "are the same tokens"},
                 {{"A", "AB"}, 2, "begin with the same tokens"},
                 {{"A", ""}, 2, "'' has no token"},
                 {{"A"}, 1, "1 are given"},
                 {{"A", "B", "C"}, 3, "3 are given"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const sluice_strings labels = {wrong[i].items, wrong[i].count};
        fake_host *f = judge("pairwise", NULL);
        fake_set_bytes(f, "labels", &labels, sizeof labels);
        assert_int_equal(fake_start(f), SLUICE_BAD_PARAMETER);
        assert_non_null(strstr(f->error, wrong[i].says));
        fake_close(f);
    }
    fake_host *f = judge("score", NULL);
    fake_set_text(f, "marker", "");
    assert_int_equal(fake_start(f), SLUICE_BAD_PARAMETER);
    fake_close(f);
    f = judge("score", NULL);
    fake_set_number(f, "lowest", 5);
    assert_int_equal(fake_start(f), SLUICE_BAD_PARAMETER);
    fake_close(f);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(numbers_that_count),
        TEST(what_is_no_score),
        TEST(mean_over_samples_that_can_be_read),
        TEST(the_answer_begun_counts_with_it),
        TEST(a_question_about_one_answer),
        TEST(each_against_each),
        TEST(opponents_are_limited),
        TEST(trust_of_pairs),
        TEST(prompts_that_are_wrong),
        TEST(prompts_as_they_are_read),
        TEST(too_long_by_rule),
        TEST(endless_prompts_by_rule),
        TEST(judges_that_cannot_judge),
        TEST(labels_that_do_not_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
