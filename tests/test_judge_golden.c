/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* judge-llm on the real model runtime: the probabilities of labels are those of transformers (golden/make_judge.py). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>
#include <sluice/service.h>

#include "tests/fake_host.h"

static fake_host *runtime;
static const sluice_model_service *service;
static json_t *golden;

static const char *golden_path(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/golden/judge/%s", getenv("SLUICE_TEST_DATA"), name);
    return path;
}

static int setup(void **state)
{
    runtime = fake_open("model", "model");
    const sluice_service_class *class = (const sluice_service_class *)(const void *)runtime->type;
    assert_int_equal(fake_start(runtime), SLUICE_OK);
    service = class->get(runtime->self);
    golden = json_load_file(golden_path("judge.json"), 0, NULL);
    assert_non_null(golden);
    return 0;
}

static int teardown(void **state)
{
    json_decref(golden);
    fake_close(runtime);
    return 0;
}

/* P(first label) by the class, for a candidate or for the first of two, in one order. */
static double judged(const char *folder, const json_t *test)
{
    sluice_model_ref ref = {.slot = "judge", .path = folder, .dtype = "float32", .text = "judge", .next = -1};
    const json_t *answers = json_object_get(test, "answers"), *labels = json_object_get(test, "labels");
    const char *names[2] = {json_string_value(json_array_get(labels, 0)), json_string_value(json_array_get(labels, 1))};
    const sluice_strings list = {names, 2};
    size_t count = json_array_size(answers);
    char file[4096];
    fake_host *f = fake_open("judge-llm", "judge-llm");
    f->models = service;
    snprintf(file, sizeof file, "%s", golden_path(json_string_value(json_object_get(test, "file"))));
    fake_set_pointer(f, "model", &ref);
    fake_set_text(f, "mode", count == 2 ? "pairwise" : "question");
    fake_set_text(f, "orders", "first");
    fake_set_text(f, "prompt", file);
    fake_set_bytes(f, "labels", &list, sizeof list);
    sluice_record *r = fake_record(f, "r", json_string_value(json_object_get(test, "prompt")));
    for (size_t i = 0; i < count; i++)
        fake_candidate(r, json_string_value(json_array_get(answers, i)), NULL, 0);
    if (fake_run(f) != SLUICE_OK)
        fail_msg("%s", f->error);
    const float *scores = sluice_record_scores(f->output[0], "judge-llm");
    assert_non_null(scores);
    double p = scores[0];
    if (count == 2)
        assert_true(fabs(scores[0] + scores[1] - 1) < 1e-6);
    fake_close(f);
    return p;
}

static void compare(const char *folder, const char *name)
{
    const json_t *cases = json_object_get(golden, name);
    assert_true(json_array_size(cases) > 0);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *test = json_array_get(cases, i);
        double expected = json_real_value(json_object_get(test, "first")), p = judged(folder, test);
        if (!(fabs(p - expected) < 1e-4))
            fail_msg("%s, case %zu: %.6f instead of %.6f", name, i, p, expected);
    }
}

static void labels_of_a_chat_model(void **state)
{
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", golden_path("model"));
    compare(folder, "model");
}

static void labels_of_a_plain_model(void **state)
{
    const char *stories = getenv("SLUICE_STORIES");
    if (!stories) {
        print_message("skipped: SLUICE_STORIES names no folder\n");
        skip();
    }
    compare(stories, "stories");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_of_a_chat_model),
        cmocka_unit_test(labels_of_a_plain_model),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
