/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The embedded world as its plugins give it: what is asked about questions, the judge's wording in its files, manners.
 */
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

#define COUNT 400

static void set_list(fake_host *f, const char *param, const char *const *items, size_t count)
{
    const sluice_strings list = {items, count};
    fake_set_bytes(f, param, &list, sizeof list);
}

static fake_host *tasks(const char *kind, const char *form)
{
    static const char *kinds[1]; /* read until the host is closed */
    fake_host *f = fake_open("tasks", "tasks");
    kinds[0] = kind;
    set_list(f, "kinds", kinds, 1);
    fake_set_text(f, "form", form);
    fake_set_number(f, "count", COUNT);
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_int_equal(f->output_count, COUNT);
    return f;
}

static const char *meta(const sluice_record *r, const char *key)
{
    const char *text = sluice_record_meta_text(r, key);
    return text ? text : "";
}

static const char *candidate(const sluice_record *r, size_t index)
{
    sluice_candidate c;
    assert_int_equal(sluice_record_candidate(r, index, &c), SLUICE_OK);
    return c.text;
}

/* What a judge is asked by the prompt file of a kind about the answers that a record shows, and what it makes of
 * `says`, the judge's reply in words (score). Returns the score of the answer shown, or of the first of two. */
static double judged(fake_models *models, const char *kind, const sluice_record *shown, const char *says)
{
    const sluice_model_ref ref = fake_ref(1);
    char path[512];
    bool words = strcmp(kind, "score") == 0, two = strcmp(kind, "pairwise") == 0;
    fake_host *f = fake_open("judge-llm", "judge-llm");
    f->models = &models->service;
    f->stage_name = "says";
    models->says = &says;
    models->say_count = 1;
    snprintf(path, sizeof path, "%s/prompts/embedded-%s.txt", getenv("SLUICE_SOURCE"), kind);
    fake_set_pointer(f, "model", &ref);
    fake_set_text(f, "mode", kind);
    fake_set_text(f, "prompt", path);
    if (words)
        fake_set_number(f, "samples", 1);
    if (two)
        fake_set_text(f, "orders", "first");
    sluice_record *r = fake_record(f, "0", meta(shown, "question"));
    fake_candidate(r, meta(shown, two ? "a" : "shown"), NULL, 0);
    if (two)
        fake_candidate(r, meta(shown, "b"), NULL, 0);
    if (fake_run(f) != SLUICE_OK)
        fail_msg("%s", f->error);
    double score = sluice_record_scores(f->output[0], "says")[0];
    fake_close(f);
    return score;
}

/* The fake's log pi of a label as the judge's whole reply. */
static double label_logp(const char *label)
{
    double sum = 0;
    uint32_t before = FAKE_START;
    for (const char *c = label; *c; before = (unsigned char)*c++)
        sum += fake_logp(1, before, (unsigned char)*c);
    return sum;
}

/* `models` was asked this conversation, turn for turn. */
static void assert_asked(const fake_models *models, const sluice_record *made)
{
    const sluice_message *m;
    size_t n = sluice_record_messages(made, &m), at = 0, role_at = 0;
    char text[512], roles[64];
    for (size_t i = 0; i < n; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "%s", m[i].content);
        role_at += (size_t)snprintf(roles + role_at, sizeof roles - role_at, "%s ", m[i].role);
    }
    assert_true(n > 0 && at < sizeof text && role_at < sizeof roles);
    assert_string_equal(models->asked, text);
    assert_string_equal(models->roles, roles);
}

/* The prompt files ask what the source trains on, and its replies mean to judge-llm what they mean to the source. */
static void prompt_files_ask_in_the_same_words(void **state)
{
    static const char *const kinds[] = {"question", "score", "pairwise"};
    (void)state;
    for (size_t k = 0; k < 3; k++) {
        fake_models *models = fake_models_new();
        fake_host *f = tasks(kinds[k], "preference");
        bool words = strcmp(kinds[k], "score") == 0, two = strcmp(kinds[k], "pairwise") == 0;
        models->context = 2048;
        models->has_template = true;
        for (size_t i = 0; i < COUNT; i += 8) {
            const sluice_record *made = f->output[i];
            const char *right = candidate(made, 0), *wrong = candidate(made, 1);
            double good = strcmp(right, "A") == 0; /* whether the reply speaks for the answer that is scored */
            if (!two)
                assert_int_equal(sluice_record_meta_number(made, "shown_right", &good), SLUICE_OK);
            double score = judged(models, kinds[k], made, right);
            double p = 1 / (1 + exp(label_logp(good ? wrong : right) - label_logp(good ? right : wrong)));
            assert_asked(models, made);
            assert_true(fabs(score - (words ? 5 * good : p)) < 1e-5);
        }
        fake_close(f);
        fake_models_free(models);
    }
}

/* The same questions asked plainly, for their right answers. */
static fake_host *plain(void)
{
    return tasks("answer", "prompt");
}

static void judges_are_told_the_truth_half_and_half(void **state)
{
    (void)state;
    fake_host *p = plain(), *q = tasks("question", "completion"), *s = tasks("score", "preference"),
              *ab = tasks("pairwise", "completion");
    size_t right = 0, a_right = 0;
    for (size_t i = 0; i < COUNT; i++) {
        const char *answer = meta(p->output[i], "answer");
        bool is = strcmp(meta(q->output[i], "shown"), answer) == 0;
        double flag;
        right += is;
        assert_string_equal(candidate(q->output[i], 0), is ? "yes" : "no");
        assert_string_equal(meta(q->output[i], "answer"), is ? "yes" : "no");
        assert_int_equal(sluice_record_meta_number(q->output[i], "shown_right", &flag), SLUICE_OK);
        assert_true((flag != 0) == is);
        is = strcmp(meta(s->output[i], "shown"), answer) == 0;
        assert_string_equal(candidate(s->output[i], 0), is ? "Score: 5" : "Score: 0");
        assert_string_equal(candidate(s->output[i], 1), is ? "Score: 0" : "Score: 5");
        const char *a = meta(ab->output[i], "a"), *b = meta(ab->output[i], "b");
        bool first = strcmp(candidate(ab->output[i], 0), "A") == 0;
        a_right += first;
        assert_string_equal(first ? a : b, answer);
        assert_string_not_equal(a, b);
    }
    assert_in_range(right, COUNT / 2 - 50, COUNT / 2 + 50);
    assert_in_range(a_right, COUNT / 2 - 50, COUNT / 2 + 50);
    fake_close(p);
    fake_close(q);
    fake_close(s);
    fake_close(ab);
}

static void looking_again_keeps_what_was_right(void **state)
{
    (void)state;
    fake_host *p = plain(), *f = tasks("again", "completion");
    size_t kept = 0;
    for (size_t i = 0; i < COUNT; i++) {
        const char *answer = meta(p->output[i], "answer");
        assert_string_equal(candidate(f->output[i], 0), answer);
        kept += strcmp(meta(f->output[i], "shown"), answer) == 0;
        const sluice_message *m;
        assert_int_equal(sluice_record_messages(f->output[i], &m), 3);
        assert_string_equal(m[0].content, sluice_record_prompt(p->output[i]));
        assert_string_equal(m[1].role, "assistant");
    }
    assert_in_range(kept, COUNT / 2 - 50, COUNT / 2 + 50);
    fake_close(p);
    fake_close(f);
}

/* Every completion in a manner passes the verifier, every one in the opposite manner fails for its manner alone. */
static void manners_are_kept(void **state)
{
    (void)state;
    fake_host *f = tasks("manner", "preference");
    fake_host *v = fake_open("verifier", "verifier");
    fake_set_text(v, "check", "both");
    fake_set_text(v, "match", "words");
    v->stage_name = "checked";
    for (size_t i = 0; i < COUNT; i++) {
        char id[16];
        snprintf(id, sizeof id, "%zu", i);
        const sluice_record *made = f->output[i];
        sluice_record *r = fake_record(v, id, sluice_record_prompt(made));
        assert_int_equal(sluice_record_set_meta_text(r, "answer", meta(made, "answer")), SLUICE_OK);
        assert_int_equal(sluice_record_set_meta_text(r, "manner", meta(made, "manner")), SLUICE_OK);
        fake_candidate(r, candidate(made, 0), NULL, 0);
        fake_candidate(r, candidate(made, 1), NULL, 0);
    }
    assert_int_equal(fake_run(v), SLUICE_OK);
    for (size_t i = 0; i < COUNT; i++) {
        const float *scores = sluice_record_scores(v->output[i], "checked");
        assert_true(scores[0] == 1 && scores[1] == 0);
    }
    assert_true(fake_metric(v, "accuracy") == 1 && fake_metric(v, "adherence") == 0.5);
    fake_close(v);
    fake_close(f);
}

static double verdict(const char *check, const char *match, const char *manner, const char *answer, const char *text)
{
    fake_host *v = fake_open("verifier", "verifier");
    fake_set_text(v, "check", check);
    fake_set_text(v, "match", match);
    v->stage_name = "checked";
    sluice_record *r = fake_record(v, "0", "?");
    if (answer)
        assert_int_equal(sluice_record_set_meta_text(r, "answer", answer), SLUICE_OK);
    assert_int_equal(sluice_record_set_meta_text(r, "manner", manner), SLUICE_OK);
    fake_candidate(r, text, NULL, 0);
    assert_int_equal(fake_run(v), SLUICE_OK);
    double score = sluice_record_scores(v->output[0], "checked")[0];
    fake_close(v);
    return score;
}

static void words_are_whole(void **state)
{
    (void)state;
    assert_true(verdict("answer", "words", "", "t", "Thank you, it is t.") == 1);
    assert_true(verdict("answer", "words", "", "t", "Thank you, it is s.") == 0);
    assert_true(verdict("answer", "words", "", "7", "It is 17.") == 0);
    assert_true(verdict("answer", "words", "", "7", "7") == 1);
    assert_true(verdict("answer", "words", "", "7", "") == 0);
    assert_true(verdict("manner", "exact", "polite", NULL, "Thanks!") == 1);
    assert_true(verdict("manner", "exact", "polite", NULL, "Please, silly.") == 0);
    assert_true(verdict("manner", "exact", "rude", NULL, "A foolproof answer.") == 0);
    assert_true(verdict("manner", "exact", "brief", NULL, "") == 0);
    assert_true(verdict("manner", "exact", "long", NULL, "one two three four five") == 0);
    assert_true(verdict("manner", "exact", "long", NULL, "One two three four five. ") == 1);
    assert_true(verdict("both", "words", "long", "six", "One two three four five.") == 0);
}

static void named_twice_comes_twice_as_often(void **state)
{
    (void)state;
    const char *families[] = {"copy", "copy", "add"};
    size_t copies = 0;
    fake_host *f = fake_open("tasks", "tasks");
    set_list(f, "families", families, 3);
    fake_set_number(f, "count", COUNT);
    assert_int_equal(fake_run(f), SLUICE_OK);
    for (size_t i = 0; i < COUNT; i++)
        copies += strcmp(meta(f->output[i], "family"), "copy") == 0;
    assert_in_range(copies, 2 * COUNT / 3 - 50, 2 * COUNT / 3 + 50);
    fake_close(f);
}

static void mistakes_are_said(void **state)
{
    (void)state;
    const char *odd[] = {"answer", "qestion"};
    fake_host *f = fake_open("tasks", "tasks");
    set_list(f, "kinds", odd, 2);
    assert_int_equal(fake_start(f), SLUICE_BAD_PARAMETER);
    assert_non_null(strstr(f->error, "there is no 'qestion'; use answer, question, score, pairwise, again, manner"));
    fake_close(f);
    f = fake_open("verifier", "verifier");
    fake_set_text(f, "check", "manner");
    fake_candidate(fake_record(f, "0", "?"), "1", NULL, 0);
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    assert_non_null(strstr(f->error, "there is no text 'manner' in meta"));
    fake_close(f);
    f = fake_open("verifier", "verifier");
    fake_set_text(f, "check", "manner");
    sluice_record *r = fake_record(f, "0", "?");
    fake_candidate(r, "1", NULL, 0);
    assert_int_equal(sluice_record_set_meta_text(r, "manner", "kind"), SLUICE_OK);
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    assert_non_null(strstr(f->error, "there is no manner 'kind'; polite, rude, brief, long are known"));
    fake_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompt_files_ask_in_the_same_words),
        cmocka_unit_test(judges_are_told_the_truth_half_and_half),
        cmocka_unit_test(looking_again_keeps_what_was_right),
        cmocka_unit_test(manners_are_kept),
        cmocka_unit_test(words_are_whole),
        cmocka_unit_test(named_twice_comes_twice_as_often),
        cmocka_unit_test(mistakes_are_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
