/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Weight averages of reward models: to first order the average's reward is the mean of the rewards (Ramé et al. 2024,
 * WARM, section 3.1 and eq. 5), and models that do not belong together are refused.
 */
#include "tests/model_golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/sluice.h>

#include "tests/folders.h"

extern const sluice_plugin sluice_plugin_entry;

enum { MEMBERS = 4, ANSWERS = 5, STEPS = 4 };

static char last_error[2000];

static void host_error(const sluice_host *host, const sluice_record *record, int code, const char *format, va_list args)
{
    (void)host, (void)record, (void)code;
    vsnprintf(last_error, sizeof last_error, format, args);
}

static void host_log(const sluice_host *host, int level, const char *format, va_list args)
{
    (void)host, (void)level, (void)format, (void)args;
}

/* No backend: the processor computes. */
static const void *host_service(const sluice_host *host, const char *id)
{
    (void)host;
    (void)id;
    return NULL;
}

static const sluice_host_api host_api = {
    .size = sizeof host_api, .verror = host_error, .vlog = host_log, .service = host_service};
static const sluice_host host = {&host_api};
static const sluice_model_service *service;
static void *state_of_service;

static int start(void **state)
{
    (void)state;
    const sluice_service_class *class = (const sluice_service_class *)(const void *)sluice_plugin_entry.classes[0];
    state_of_service = calloc(1, class->base.state_size);
    assert_non_null(state_of_service);
    *(int64_t *)((char *)state_of_service + class->base.params[0].offset) = 1; /* threads */
    assert_int_equal(class->base.init(state_of_service, &host), SLUICE_OK);
    service = class->get(state_of_service);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    const sluice_service_class *class = (const sluice_service_class *)(const void *)sluice_plugin_entry.classes[0];
    class->base.fini(state_of_service);
    free(state_of_service);
    return 0;
}

static sluice_model *opened(const char *path)
{
    const sluice_model_ref ref = {.slot = "reward", .path = path, .dtype = "float32", .text = "reward@0"};
    sluice_model *model;
    if (service->open(service, &host, &ref, &model) != SLUICE_OK)
        fail_msg("%s", last_error);
    return model;
}

/* A reward model in a new folder: a golden model's body under a random head of k outputs. */
static char *reward_model(const char *body_of, const char *folder, const char *name, uint32_t outputs)
{
    char *from = golden_path(body_of), *to = folder_path(folder, name);
    const sluice_optimizer optimizer = {
        .size = sizeof optimizer, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .seed = 7, .head_outputs = outputs};
    sluice_model *body = opened(from);
    sluice_training *training;
    if (service->train_begin(body, &optimizer, &training) != SLUICE_OK ||
        service->train_save(training, to) != SLUICE_OK)
        fail_msg("%s", last_error);
    service->train_end(training);
    service->close(body);
    free(from);
    return to;
}

/* Rewards of some answers. */
static void rewards(sluice_model *model, double out[ANSWERS])
{
    static const uint32_t prompt[] = {5, 6, 7},
                          answers[ANSWERS][3] = {{1, 2, 3}, {9, 8, 4}, {11, 3, 3}, {6, 12, 5}, {2, 2, 10}};
    sluice_span spans[ANSWERS];
    float values[ANSWERS], *rows[ANSWERS];
    for (size_t i = 0; i < ANSWERS; i++) {
        spans[i] = (sluice_span){answers[i], 3};
        rows[i] = &values[i];
    }
    const sluice_group group = {{prompt, 3}, spans, ANSWERS, 0};
    if (service->score_values(model, &group, 1, rows) != SLUICE_OK)
        fail_msg("%s", last_error);
    for (size_t i = 0; i < ANSWERS; i++)
        out[i] = (double)values[i];
}

/* θ0 + ε·d of a member, each element of d uniform with the size of its tensor's own weights. */
static void move(sluice_model *model, int member, float epsilon)
{
    sluice_tensor tensor;
    for (size_t t = 0; t < service->tensor_count(model); t++) {
        assert_int_equal(service->tensor(model, t, &tensor), SLUICE_OK);
        const sluice_draw place = {.seed = 11, .stage = t, .candidate = (uint64_t)member};
        uint64_t key[2], counter[2];
        double squares = 0;
        sluice_draw_place(&place, key, counter);
        for (size_t i = 0; i < tensor.count; i++)
            squares += (double)tensor.data[i] * tensor.data[i];
        const float size = (float)sqrt(squares / (double)tensor.count);
        for (size_t i = 0; i < tensor.count; i++)
            tensor.data[i] +=
                epsilon * size * (2 * sluice_uniform_float(sluice_random_item(key, counter, (uint32_t)i)) - 1);
    }
}

static void average_is_the_ensemble_to_first_order(void **state)
{
    (void)state;
    char *folder = folder_new(), *origin = reward_model("model/grouped", folder, "origin", 1);
    sluice_model *start_model = opened(origin);
    double apart[STEPS], moved[STEPS], at_start[ANSWERS];
    rewards(start_model, at_start);
    for (int step = 0; step < STEPS; step++) {
        const float epsilon = 0.1f / (float)(1 << step);
        char *paths[MEMBERS], name[32];
        double mean[ANSWERS] = {0}, own[ANSWERS], averaged[ANSWERS];
        apart[step] = moved[step] = 0;
        for (int m = 0; m < MEMBERS; m++) {
            sluice_model *member;
            snprintf(name, sizeof name, "member-%d-%d", step, m);
            paths[m] = folder_path(folder, name);
            assert_int_equal(service->copy(start_model, &member), SLUICE_OK);
            move(member, m, epsilon);
            assert_int_equal(service->save(member, paths[m]), SLUICE_OK);
            rewards(member, own);
            for (size_t i = 0; i < ANSWERS; i++) {
                mean[i] += own[i] / MEMBERS;
                moved[step] += fabs(own[i] - at_start[i]);
            }
            service->close(member);
        }
        snprintf(name, sizeof name, "average-%d", step);
        char *to = folder_path(folder, name);
        if (service->merge(service, &host, SLUICE_MERGE_MEAN, (const char *const *)paths, NULL, MEMBERS, to,
                           "float32") != SLUICE_OK)
            fail_msg("%s", last_error);
        sluice_model *average = opened(to);
        rewards(average, averaged);
        service->close(average);
        for (size_t i = 0; i < ANSWERS; i++)
            apart[step] += fabs(averaged[i] - mean[i]);
        free(to);
        for (int m = 0; m < MEMBERS; m++)
            free(paths[m]);
    }
    /* Halving ε halves what a member moved, and quarters what parts the average from the ensemble. */
    for (int step = 1; step < STEPS; step++) {
        const double linear = log2(moved[step - 1] / moved[step]), square = log2(apart[step - 1] / apart[step]);
        print_message("epsilon %g: slope of a member's change %.2f, of average against ensemble %.2f\n",
                      0.1 / (1 << step), linear, square);
        assert_true(linear > 0.85 && linear < 1.15);
        assert_true(square > 1.7 && square < 2.3);
    }
    assert_true(apart[STEPS - 1] < 0.1 * moved[STEPS - 1]);
    service->close(start_model);
    free(origin);
    folder_remove(folder);
}

static void refused(const char *a, const char *b, const char *to, const char *words)
{
    const char *const both[] = {a, b};
    last_error[0] = '\0';
    if (service->merge(service, &host, SLUICE_MERGE_MEAN, both, NULL, 2, to, "float32") >= 0 ||
        !strstr(last_error, words))
        fail_msg("'%s' instead of '%s'", last_error, words);
}

static void strangers_are_refused(void **state)
{
    (void)state;
    char *folder = folder_new(), *language = golden_path("model/grouped"), *to = folder_path(folder, "average");
    char *one = reward_model("model/grouped", folder, "one", 1), *two = reward_model("model/grouped", folder, "two", 2);
    char *other = reward_model("model/wide-heads", folder, "other", 1);
    refused(one, two, to, "number of a reward model's outputs is 1 in");
    refused(one, language, to, "number of a reward model's outputs is 1 in");
    refused(one, other, to, other);
    assert_int_equal(folder_count(folder), 3); /* and nothing was left behind */
    free(language);
    free(one);
    free(two);
    free(other);
    free(to);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(average_is_the_ensemble_to_first_order),
        cmocka_unit_test(strangers_are_refused),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
