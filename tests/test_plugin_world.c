/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The embedded world as its plugins give it: what is asked about questions, the judge's wording in its files, manners.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/fake_host.h"

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

/* A prompt file with its placeholders filled from meta, as "[role]\ncontent\n" turns. */
static void fill(const char *file, const sluice_record *r, char *out, size_t size)
{
    static const char *const places[][2] = {
        {"{prompt}", "question"}, {"{answer}", "shown"}, {"{a}", "a"}, {"{b}", "b"}};
    char path[512], text[1024];
    snprintf(path, sizeof path, "%s/prompts/%s", getenv("SLUICE_SOURCE"), file);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    size_t at = 0;
    for (const char *p = text; *p;) {
        size_t i = 0;
        while (i < 4 && strncmp(p, places[i][0], strlen(places[i][0])) != 0)
            i++;
        at += (size_t)(i < 4 ? snprintf(out + at, size - at, "%s", meta(r, places[i][1]))
                             : snprintf(out + at, size - at, "%c", *p));
        p += i < 4 ? strlen(places[i][0]) : 1;
        assert_true(at < size);
    }
}

static void conversation(const sluice_record *r, char *out, size_t size)
{
    const sluice_message *m;
    size_t n = sluice_record_messages(r, &m), at = 0;
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(out + at, size - at, "[%s]\n%s\n", m[i].role, m[i].content);
    assert_true(n > 0 && at < size);
}

static void prompt_files_ask_in_the_same_words(void **state)
{
    static const char *const kinds[][2] = {
        {"question", "embedded-question.txt"}, {"score", "embedded-score.txt"}, {"pairwise", "embedded-pairwise.txt"}};
    (void)state;
    for (size_t k = 0; k < 3; k++) {
        fake_host *f = tasks(kinds[k][0], "prompt");
        for (size_t i = 0; i < COUNT; i++) {
            char asked[512], filled[1024];
            conversation(f->output[i], asked, sizeof asked);
            fill(kinds[k][1], f->output[i], filled, sizeof filled);
            assert_string_equal(asked, filled);
        }
        fake_close(f);
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
