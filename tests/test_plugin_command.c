/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* judge-command: what a program may do wrong, and that no record is lost or judged twice whatever it does. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/fake_host.h"
#include "tests/folders.h"

static char program[4096];

static fake_host *judge(const char *mode, const char *number)
{
    static const char *items[3];
    fake_host *f = fake_open("judge-command", "judge-command");
    items[0] = program;
    items[1] = mode;
    items[2] = number;
    fake_set_bytes(f, "command", &(sluice_strings){items, number ? 3 : 2}, sizeof(sluice_strings));
    f->stage_name = "taste";
    return f;
}

/* Records r0, r1, … with two candidates each, of all kinds of text; now and then without any. */
static void fill(fake_host *f, size_t count)
{
    static const char *const texts[] = {"plain",
                                        "\"quoted\" \\ and\ttabs\nand lines",
                                        "Größe, 日本語, \xf0\x9f\x8e\xb2, \xe2\x80\xa8 and \xef\xbf\xbd",
                                        "",
                                        "\x01\x1f\x7f control",
                                        "{\"id\": \"r1\", \"scores\": [9]}"};
    for (size_t i = 0; i < count; i++) {
        char id[32], text[64];
        snprintf(id, sizeof id, "r%zu", i);
        sluice_record *r = fake_record(f, id, texts[i % 6]);
        snprintf(text, sizeof text, "answer %zu", i);
        fake_candidate(r, text, NULL, 0);
        fake_candidate(r, texts[(i + 1) % 6], NULL, 0);
        sluice_record_set_meta_json(r, "more", "{\"a\": [1, 2.5, null, \"\\u0000\"], \"b\": true}");
    }
}

/* All records as the stage left them, one line each. */
static char *everything(const fake_host *f)
{
    size_t size = 0;
    char *all = NULL;
    FILE *out = open_memstream(&all, &size);
    for (size_t i = 0; i < f->output_count; i++) {
        char *line = sluice_record_json(f->output[i]);
        fprintf(out, "%s\n", line);
        free(line);
    }
    fclose(out);
    return all;
}

static size_t open_descriptors(void)
{
    size_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count;
}

static void no_child_is_left(void)
{
    assert_true(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

static void scores_are_the_programs(void **state)
{
    fake_host *f = judge("good", NULL);
    fill(f, 200);
    fake_record(f, "bare", "nothing to judge");
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_int_equal(f->output_count, 201);
    const float *s = sluice_record_scores(f->output[0], "taste");
    assert_non_null(s);
    assert_true(s[0] == 8 + 'a' / 256.0f);
    assert_true(fake_metric(f, "records") == 201 && fake_metric(f, "scored") == 400);
    assert_true(fake_metric(f, "absent") == 0 && fake_metric(f, "refused") == 0);
    fake_close(f);
    no_child_is_left();
}

/* The sizes at which lines no longer fit into a pipe. */
static void large_questions_pass(void **state)
{
    fake_host *f = judge("good", NULL);
    size_t size = 3 << 20;
    char *text = malloc(size + 1);
    memset(text, 'x', size);
    text[size] = '\0';
    for (int i = 0; i < 5; i++) {
        char id[16];
        snprintf(id, sizeof id, "big%d", i);
        fake_candidate(fake_record(f, id, "?"), text, NULL, 0);
    }
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_true(sluice_record_scores(f->output[4], "taste")[0] == (float)((double)size + 'x' / 256.0));
    fake_close(f);
    free(text);
}

static void deaths_lose_and_repeat_nothing(void **state)
{
    fake_host *f = judge("good", NULL);
    fill(f, 150);
    assert_int_equal(fake_run(f), SLUICE_OK);
    char *undisturbed = everything(f);
    fake_close(f);
    size_t descriptors = open_descriptors(), disturbed = 0;
    for (int seed = 0; seed < 10; seed++) {
        char percent[8];
        snprintf(percent, sizeof percent, "%d", 3 + seed % 8);
        f = judge("random", percent);
        fake_set_number(f, "restarts", 30);
        fake_set_number(f, "window", 1 << seed % 7);
        fake_set_number(f, "timeout", 20);
        fill(f, 150);
        assert_int_equal(fake_run(f), SLUICE_OK);
        char *got = everything(f);
        assert_string_equal(got, undisturbed);
        disturbed += strstr(f->warning, "started again") != NULL;
        free(got);
        fake_close(f);
        no_child_is_left();
    }
    assert_true(disturbed > 0);
    assert_int_equal(open_descriptors(), descriptors);
    free(undisturbed);
}

static void order_and_end_are_free(void **state)
{
    static const char *const modes[] = {"pairs", "blank", "stderr", "at", "descriptors", "sour"};
    fake_host *f = judge("good", NULL);
    fill(f, 40);
    assert_int_equal(fake_run(f), SLUICE_OK);
    char *undisturbed = everything(f);
    fake_close(f);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        f = judge(modes[i], "9");
        fill(f, 40);
        assert_int_equal(fake_run(f), SLUICE_OK);
        char *got = everything(f);
        assert_string_equal(got, undisturbed);
        free(got);
        fake_close(f);
    }
    free(undisturbed);
    no_child_is_left();
}

/* MODE ends the stage with an error that says WORDS. */
static void stops(const char *mode, const char *words)
{
    fake_host *f = judge(mode, NULL);
    fake_set_number(f, "timeout", 0.3);
    fill(f, 12);
    int rc = fake_run(f);
    if (rc >= 0 || !strstr(f->error, words))
        fail_msg("%s: %d, '%s' instead of '%s'", mode, rc, f->error, words);
    fake_close(f);
    no_child_is_left();
}

static void nonsense_is_refused_with_its_words(void **state)
{
    stops("chatter", "printed 'Loading model …' where an answer was expected; print messages to stderr");
    stops("nan", "NaN and Infinity are no scores; write null");
    stops("string", "gave candidate 0 a score that is no number");
    stops("huge", "gave candidate 0 a score that is too large");
    stops("few", "gave 1 score for 2 candidates; write one number or null a candidate");
    stops("nothing", "which has neither \"scores\" nor \"error\"");
    stops("nobody", "answered 'nobody', which it was not asked, or has answered already; print one line a question");
    stops("twice", "has answered already");
    stops("anonymous", "an answer without the \"id\"");
    stops("number", "printed '42' where");
    stops("nested", "no list; write one number or null a candidate");
    stops("flood", "printed a line of more than 4 MiB");
    stops("refuse", "refused this record: no such colour; on_error = \"drop\"");
}

static void the_record_to_blame_is_named(void **state)
{
    stops("culprit", "did not answer for this record in 3 attempts: it ended with exit status 4; its last words: "
                     "KeyError: 'seven'");
    stops("hang", "in 3 attempts: it gave no answer for 0.3 seconds (timeout; does it flush what it prints?)");
    stops("deaf", "in 3 attempts: it gave no answer for 0.3 seconds");
    stops("dead",
          "in 3 attempts: it ended with exit status 9; what it said is in log.txt, and once it is mended the same "
          "command goes on");
}

static void no_program_is_an_error(void **state)
{
    static const char *const nowhere[] = {"there-is-no-such-program", ""};
    fake_host *f = fake_open("judge-command", "judge-command");
    assert_int_equal(fake_start(f), SLUICE_BAD_PARAMETER);
    assert_non_null(strstr(f->error, "there is no program; set command"));
    fake_close(f);
    f = fake_open("judge-command", "judge-command");
    fake_set_bytes(f, "command", &(sluice_strings){nowhere, 1}, sizeof(sluice_strings));
    fill(f, 3);
    assert_int_equal(fake_run(f), SLUICE_FAILED);
    assert_non_null(strstr(f->error, "cannot run 'there-is-no-such-program': No such file or directory"));
    fake_close(f);
    f = fake_open("judge-command", "judge-command");
    fake_set_bytes(f, "command", &(sluice_strings){nowhere + 1, 1}, sizeof(sluice_strings));
    assert_int_equal(fake_start(f), SLUICE_BAD_PARAMETER);
    fake_close(f);
}

static void absent_named_and_refused(void **state)
{
    fake_host *f = judge("null", NULL);
    fill(f, 3);
    assert_int_equal(fake_run(f), SLUICE_OK);
    const float *s = sluice_record_scores(f->output[1], "taste");
    assert_true(isnan(s[0]) && s[1] == 2);
    assert_true(fake_metric(f, "absent") == 3 && fake_metric(f, "mean_score") == 2);
    fake_close(f);

    f = judge("big", NULL);
    fill(f, 3);
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_true(sluice_record_scores(f->output[1], "taste")[0] == 1e30f);
    fake_close(f);

    f = judge("nulls", NULL);
    fill(f, 3);
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_null(sluice_record_scores(f->output[1], "taste"));
    assert_non_null(strstr(f->warning, "gave null for all candidates of 3 records"));
    fake_close(f);

    f = judge("named", NULL);
    fill(f, 3);
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_true(sluice_record_scores(f->output[2], "taste/clear")[1] == 2);
    assert_true(sluice_record_scores(f->output[2], "taste/short")[1] == -3.5f);
    assert_true(isnan(sluice_record_scores(f->output[2], "taste/short")[0]));
    assert_null(sluice_record_scores(f->output[2], "taste"));
    fake_close(f);

    f = judge("refuse", NULL);
    fake_set_text(f, "on_error", "drop");
    fill(f, 6);
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_int_equal(f->output_count, 5);
    assert_string_equal(sluice_record_id(f->output[3]), "r4");
    assert_true(fake_metric(f, "refused") == 1);
    fake_close(f);
}

/* The script is the program, or follows it; either way nothing is searched for in PATH. */
static void scripts_run(void **state)
{
    char text[4200], *folder = folder_new(), *path = folder_path(folder, "taste.sh");
    snprintf(text, sizeof text, "#!/bin/sh\nexec '%s' \"$@\"\n", program);
    file_write(folder, "taste.sh", text, strlen(text));
    assert_int_equal(chmod(path, 0755), 0);
    static const char *const shell[] = {"sh"}, *const arguments[] = {"null"};
    for (int with_shell = 0; with_shell < 2; with_shell++) {
        fake_host *f = fake_open("judge-command", "judge-command");
        f->stage_name = "taste";
        if (with_shell)
            fake_set_bytes(f, "command", &(sluice_strings){shell, 1}, sizeof(sluice_strings));
        fake_set_text(f, "script", path);
        fake_set_bytes(f, "arguments", &(sluice_strings){arguments, 1}, sizeof(sluice_strings));
        fill(f, 3);
        assert_int_equal(fake_run(f), SLUICE_OK);
        assert_true(fake_metric(f, "absent") == 3);
        fake_close(f);
    }
    free(path);
    folder_remove(folder);
}

static void a_cancelled_run_leaves_nobody(void **state)
{
    fake_host *f = judge("deaf", NULL);
    fill(f, 3);
    f->cancel_after = 4;
    assert_int_equal(fake_run(f), SLUICE_CANCELLED);
    fake_close(f);
    no_child_is_left();
}

/* A program's own children go with it. */
static void grandchildren_go_too(void **state)
{
    char *folder = folder_new(), here[4096];
    long pid = 0;
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(folder), 0);
    fake_host *f = judge("orphan", "3");
    fake_set_number(f, "timeout", 1);
    fill(f, 6);
    assert_int_equal(fake_run(f), SLUICE_OK);
    fake_close(f);
    FILE *file = fopen("orphan.pid", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld", &pid), 1);
    fclose(file);
    for (int i = 0; i < 200 && kill((pid_t)pid, 0) == 0; i++) { /* whoever adopted it has to collect it */
        char stat[64], line[512] = "";
        snprintf(stat, sizeof stat, "/proc/%ld/stat", pid);
        FILE *proc = fopen(stat, "r");
        bool gone = !proc || !fgets(line, sizeof line, proc) || strstr(line, ") Z ");
        if (proc)
            fclose(proc);
        if (gone)
            break;
        assert_true(i < 199);
        usleep(10000);
    }
    assert_int_equal(chdir(here), 0);
    folder_remove(folder);
}

/* A program that stays when nothing more will come is killed, and what it gave counts. */
static void one_that_stays_is_killed(void **state)
{
    fake_host *f = judge("stays", NULL);
    fake_set_number(f, "timeout", 0.2);
    fill(f, 3);
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_non_null(strstr(f->warning, "does not end when its stdin is closed"));
    fake_close(f);
    no_child_is_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_the_programs),
        cmocka_unit_test(large_questions_pass),
        cmocka_unit_test(deaths_lose_and_repeat_nothing),
        cmocka_unit_test(order_and_end_are_free),
        cmocka_unit_test(nonsense_is_refused_with_its_words),
        cmocka_unit_test(the_record_to_blame_is_named),
        cmocka_unit_test(no_program_is_an_error),
        cmocka_unit_test(absent_named_and_refused),
        cmocka_unit_test(scripts_run),
        cmocka_unit_test(a_cancelled_run_leaves_nobody),
        cmocka_unit_test(grandchildren_go_too),
        cmocka_unit_test(one_that_stays_is_killed),
    };
    snprintf(program, sizeof program, "%s/tests/judge_program", getenv("SLUICE_BUILD"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
