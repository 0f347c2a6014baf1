/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The table at the end of a run and its sentence, from numbers as stages report them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/run/table.h"

static char *printed(const sl_table_entry *entries, size_t count)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    sl_table_print(entries, count, out);
    fclose(out);
    return text;
}

static void assert_prints(const sl_table_entry *entries, size_t count, const char *expected)
{
    char *text = printed(entries, count);
    assert_string_equal(text, expected);
    free(text);
}

#define NUMBERS(...)                                 \
    .numbers = (const sluice_number[]){__VA_ARGS__}, \
    .count = sizeof((const sluice_number[]){__VA_ARGS__}) / sizeof(sluice_number)
#define ACCURACY(x)                              \
    {"accuracy", x}, {"accuracy/low", x - 0.02}, \
    {                                            \
        "accuracy/high", x + 0.02                \
    }
#define EVAL(slot_, version_, phase_, iteration_, ...)                                                  \
    {                                                                                                   \
        .kind = SLUICE_EVALUATOR, .phase = phase_, .iteration = iteration_, .repeat = 2, .slot = slot_, \
        .version = version_, NUMBERS(__VA_ARGS__)                                                       \
    }
#define TRAIN(slot_, version_, phase_, iteration_, ...)                                                                \
    {                                                                                                                  \
        .kind = SLUICE_TRAINER, .stage = phase_, .phase = phase_, .iteration = iteration_, .repeat = 2, .slot = slot_, \
        .version = version_, .publishes = true, NUMBERS(__VA_ARGS__)                                                   \
    }
#define OTHER(kind_, phase_, iteration_, ...)                                                      \
    {                                                                                              \
        .kind = kind_, .phase = phase_, .iteration = iteration_, .repeat = 2, NUMBERS(__VA_ARGS__) \
    }
#define COUNT(a) (sizeof a / sizeof *a)

static void policy_beside_its_control(void **state)
{
    (void)state;
    const sl_table_entry entries[] = {
        EVAL("policy", 0, "start", 0, ACCURACY(0.58), {"mean_length", 5.25}),
        TRAIN("policy", 3, "later", 0, {"train_loss", 0.1}),
        OTHER(SLUICE_RANKER, "align", 0, {"label_accuracy", 0.9}, {"mean_length", 77}),
        OTHER(SLUICE_REGULARIZER, "align", 0, {"consistency", 0.8123}),
        TRAIN("policy", 1, "align", 0, {"rewards/accuracies", 0.75}, {"train_loss", 0.6}),
        EVAL("policy", 1, "align", 0, ACCURACY(0.62), {"kl", 0.0212}, {"mean_length", 5.5}),
        OTHER(SLUICE_REGULARIZER, "align", 1, {"consistency", 0.84}),
        TRAIN("policy", 2, "align", 1, {"rewards/accuracies", 0.8}),
        EVAL("policy", 2, "align", 1, ACCURACY(0.66), {"kl", 0.04}, {"mean_length", 5.5}),
        TRAIN("control", 1, "control", 0, {"rewards/accuracies", 0.5}),
        EVAL("control", 1, "control", 0, ACCURACY(0.55)),
        TRAIN("control", 2, "control", 1, {"rewards/accuracies", 0.51}),
        EVAL("control", 2, "control", 1, ACCURACY(0.51)),
    };
    assert_prints(
        entries, COUNT(entries),
        "\n"
        "version                accuracy (95 %)  label accuracy  consistency  KL to start  length  reward accuracy  "
        "control: accuracy (95 %)\n"
        "policy@0             58.0 [56.0, 60.0]               -            -            -     5.2                -  "
        "                       -\n"
        "policy@1  align 1/2  62.0 [60.0, 64.0]          90.0 %        0.812        0.021     5.5           75.0 %  "
        "       55.0 [53.0, 57.0]\n"
        "policy@2  align 2/2  66.0 [64.0, 68.0]               -        0.840        0.040     5.5           80.0 %  "
        "       51.0 [49.0, 53.0]\n"
        "\n"
        "Accuracy rose from 58.0 (policy@0) to 66.0 (policy@2), 8.0 points (their 95 % intervals do not overlap). "
        "control@2 ended at 51.0, 15.0 points below it (their 95 % intervals do not overlap).\n");
}

static void a_fall_is_called_a_fall(void **state)
{
    (void)state;
    const sl_table_entry entries[] = {
        EVAL("policy", 0, "start", 0, ACCURACY(0.58)),
        EVAL("policy", 1, "align", 0, ACCURACY(0.57)),
    };
    char *text = printed(entries, COUNT(entries));
    assert_non_null(strstr(
        text, "Accuracy fell from 58.0 (policy@0) to 57.0 (policy@1), 1.0 points (their 95 % intervals overlap)."));
    free(text);
}

/* Without an evaluator the table tells of training; other slots that were trained less have tables of their own. */
static void training_alone(void **state)
{
    (void)state;
    const sl_table_entry entries[] = {
        TRAIN("policy", 1, "sft", 0, {"train_loss", 2.5}),
        TRAIN("policy", 2, "align", 0, {"train_loss", 0.25}),
        TRAIN("policy", 3, "align", 1, {"train_loss", 0.125}),
        TRAIN("reward", 1, "judge", 0, {"train_loss", 0.7}),
    };
    assert_prints(entries, COUNT(entries),
                  "\n"
                  "version              training loss\n"
                  "policy@1  sft 1/2           2.5000\n"
                  "policy@2  align 1/2         0.2500\n"
                  "policy@3  align 2/2         0.1250\n"
                  "\n"
                  "version              training loss\n"
                  "reward@1  judge 1/2         0.7000\n"
                  "\n"
                  "The training loss fell from 0.2500 (policy@2) to 0.1250 (policy@3), 0.1250.\n");
}

/* Losses of two trainings cannot be compared. */
static void other_losses_say_nothing(void **state)
{
    (void)state;
    const sl_table_entry entries[] = {
        TRAIN("policy", 1, "sft", 0, {"train_loss", 2.5}),
        TRAIN("policy", 2, "align", 0, {"train_loss", 0.25}),
    };
    char *text = printed(entries, COUNT(entries));
    assert_null(strstr(text, "fell"));
    free(text);
}

/* A stage that chose among versions says which. */
static void what_was_kept_is_said(void **state)
{
    (void)state;
    const sl_table_entry entries[] = {
        {.kind = SLUICE_AVERAGER,
         .stage = "best",
         .phase = "choose",
         .repeat = 1,
         .slot = "policy",
         .version = 4,
         .publishes = true,
         NUMBERS({"kept_version", 2}, {"kept_value", 0.625}, {"versions", 3})},
    };
    assert_prints(entries, 1, "\nbest: policy@4 is policy@2, the best of 3 versions (0.625).\n");
}

/* Numbers that are not finite are absent, samplers' and judges' are no columns, and nothing to tell prints nothing. */
static void what_is_absent_stays_absent(void **state)
{
    (void)state;
    const sl_table_entry entries[] = {
        OTHER(SLUICE_JUDGE, "align", 0, {"accuracy", 0.9}),
        OTHER(SLUICE_RANKER, "align", 0, {"pairs", 12}),
        TRAIN("policy", 1, "align", 0, {"train_loss", __builtin_nan("")}),
    };
    char *text = printed(entries, COUNT(entries));
    assert_null(strstr(text, "accuracy"));
    assert_null(strstr(text, "loss"));
    assert_non_null(strstr(text, "policy@1  align 1/2     12\n"));
    free(text);
    assert_prints(entries, 1, "");
    assert_prints(NULL, 0, "");
}

static void judges_have_a_table(void **state)
{
    (void)state;
    const sl_table_entry entries[] = {
        TRAIN("reward", 1, "fit", 0, {"train_loss", 0.5}),
        {.kind = SLUICE_EVALUATOR,
         .stage = "full",
         .phase = "judge",
         .repeat = 1,
         NUMBERS({"pairs_judged", 366}, {"pair_accuracy", 0.587}, {"pair_accuracy/low", 0.536},
                 {"pair_accuracy/high", 0.637}, {"pair_accuracy/add", 0.64})},
    };
    assert_prints(entries, COUNT(entries),
                  "\nversion            training loss\n"
                  "reward@1  fit 1/2         0.5000\n"
                  "\nevaluation   pairs  judge right (95 %)\n"
                  "full  judge    366   58.7 [53.6, 63.7]\n");
    assert_prints(entries + 1, 1,
                  "\nevaluation   pairs  judge right (95 %)\n"
                  "full  judge    366   58.7 [53.6, 63.7]\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policy_beside_its_control),
        cmocka_unit_test(a_fall_is_called_a_fall),
        cmocka_unit_test(training_alone),
        cmocka_unit_test(other_losses_say_nothing),
        cmocka_unit_test(what_was_kept_is_said),
        cmocka_unit_test(what_is_absent_stays_absent),
        cmocka_unit_test(judges_have_a_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
