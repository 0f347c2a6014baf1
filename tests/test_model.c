/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The forward pass: against PyTorch in float64, and against itself however a batch is cut. */
#include "tests/model_golden.h"
#include "tests/test_device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Logits of one sequence, row by row. */
static float *all_logits(kn_device *device, const golden *g, const sluice_span *sequence)
{
    const sm_config *c = &g->checkpoint->layout.config;
    sm_error error = {0};
    sm_network *network = golden_network(device, KN_F32, g);
    sm_workspace *w = sm_workspace_new(network, SM_KEEP_NOTHING);
    assert_non_null(w);
    const size_t T = sequence->count;
    assert_int_equal(sm_workspace_reserve(w, network, T, 0, &error), SM_OK);
    uint32_t *position = malloc(T * sizeof(*position));
    const kn_ops *ops = device->ops;
    const size_t bytes = T * c->vocab * sizeof(float);
    float *normed = ops->alloc(device, T * c->hidden * sizeof(float)), *on_device = ops->alloc(device, bytes);
    float *logits = malloc(bytes);
    assert_true(position && normed && on_device && logits);
    for (size_t t = 0; t < T; t++)
        position[t] = (uint32_t)t;
    const kn_segment segment = {.count = T};
    const sm_attending attending = {.segment = &segment, .segments = 1, .position = position};
    assert_int_equal(sm_forward(network, w, sequence->tokens, T, &attending, NULL, &error), SM_OK);
    assert_int_equal(ops->rms_norm(device, normed, NULL, w->x, network->norm, T, c->hidden, c->rms_eps), KN_OK);
    assert_int_equal(ops->logits(device, on_device, normed, network->head, T), KN_OK);
    assert_int_equal(ops->read(device, logits, on_device, bytes), KN_OK);
    free(position);
    ops->free(device, normed);
    ops->free(device, on_device);
    sm_workspace_free(w);
    sm_network_free(network);
    return logits;
}

static void logits_are_those_of_transformers(void **state)
{
    (void)state;
    for (const char *const *name = golden_models; *name; name++) {
        golden g;
        golden_load(&g, *name);
        const json_t *rows = json_object_get(g.json, "logits");
        const sluice_span sequence = golden_span(json_object_get(g.json, "sequence"));
        const size_t V = g.checkpoint->layout.config.vocab;
        for (int number = 0; number < GOLDEN_DEVICES; number++) {
            kn_device *device = golden_device(number, 2);
            if (!device)
                continue;
            float *logits = all_logits(device, &g, &sequence);
            double largest = 0, worst = 0;
            for (size_t t = 0; t < sequence.count; t++)
                for (size_t v = 0; v < V; v++) {
                    const double expected = json_number_value(json_array_get(json_array_get(rows, t), v));
                    largest = fmax(largest, fabs(expected));
                    worst = fmax(worst, fabs(expected - logits[t * V + v]));
                }
            if (!(worst <= 1e-4 * largest))
                fail_msg("%s, device %d: logits off by %g of %g", *name, number, worst, largest);
            free(logits);
            golden_device_free(number, device);
        }
        free((void *)(uintptr_t)sequence.tokens);
        golden_free(&g);
    }
}

static void log_probabilities_are_those_of_float64(void **state)
{
    (void)state;
    for (const char *const *name = golden_models; *name; name++) {
        golden g;
        golden_load(&g, *name);
        for (int number = 0; number < GOLDEN_DEVICES; number++) {
            kn_device *device = golden_device(number, 2);
            if (!device)
                continue;
            golden_score(device, KN_F32, &g, g.groups, g.group_count, g.logps);
            size_t k = 0;
            for (size_t i = 0; i < g.group_count; i++) {
                const json_t *lists = json_object_get(json_array_get(json_object_get(g.json, "groups"), i), "logps");
                for (size_t c = 0; c < g.groups[i].completion_count; c++, k++)
                    for (size_t t = 0; t < g.groups[i].completions[c].count; t++) {
                        const double expected = json_number_value(json_array_get(json_array_get(lists, c), t));
                        if (!(fabs(expected - g.logps[k][t]) <= 1e-5))
                            fail_msg("%s, device %d, group %zu, completion %zu, token %zu: %.9g instead of %.9g", *name,
                                     number, i, c, t, g.logps[k][t], expected);
                    }
            }
            golden_device_free(number, device);
        }
        golden_free(&g);
    }
}

static void score_one_by_one(kn_device *device, kn_dtype dtype, const golden *g)
{
    size_t k = g->completions;
    for (size_t i = g->group_count; i-- > 0;)
        for (size_t c = g->groups[i].completion_count; c-- > 0;) {
            sluice_group alone = g->groups[i];
            alone.completions += c;
            alone.completion_count = 1;
            golden_score(device, dtype, g, &alone, 1, &g->logps[--k]);
        }
}

/* Many groups, so that micro-batches are cut somewhere; then the same one completion at a time, backwards, on one, two
 * and three threads: every float must be the same. */
static void scores_are_the_same_to_the_bit_however_they_are_cut(void **state)
{
    (void)state;
    if (!test_device_one_answer())
        skip();
    enum { TIMES = 60 };
    golden g;
    golden_load(&g, "wide-heads");
    const size_t count = g.group_count * TIMES;
    sluice_group *many = malloc(count * sizeof(*many));
    assert_non_null(many);
    for (size_t i = 0; i < count; i++)
        many[i] = g.groups[i % g.group_count];
    float **all = golden_room(many, count);
    for (int number = 0; number < GOLDEN_DEVICES; number++) {
        kn_device *device = golden_device(number, 1);
        if (!device)
            continue;
        for (kn_dtype dtype = KN_F32; dtype <= golden_last_dtype(device); dtype++) {
            golden_score(device, dtype, &g, many, count, all);
            for (int threads = 1; threads <= 3; threads++) {
                device->ops->set_threads(device, threads);
                score_one_by_one(device, dtype, &g);
                for (size_t j = 0; j < g.completions * TIMES; j++) {
                    const sluice_group *group = g.groups;
                    size_t c = j % g.completions;
                    while (c >= group->completion_count)
                        c -= group++->completion_count;
                    assert_memory_equal(all[j], g.logps[j % g.completions],
                                        group->completions[c].count * sizeof(float));
                }
            }
        }
        golden_device_free(number, device);
    }
    golden_room_free(all, g.completions * TIMES);
    free(many);
    golden_free(&g);
}

static void what_cannot_be_scored_is_refused(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    kn_device *device = golden_device(1, 1);
    sm_error error = {0};
    sm_network *network = golden_network(device, KN_F32, &g);
    sm_workspace *w = sm_workspace_new(network, SM_KEEP_NOTHING);
    uint32_t tokens[65] = {0};
    float room[65], *logps = room;
    const sluice_span completion = {tokens, 60};
    sluice_group group = {{tokens, 5}, &completion, 1, 0};
    assert_int_equal(sm_score(network, w, &group, 1, &logps, NULL, &error), SM_BAD_ARGUMENT);
    assert_non_null(strstr(error.text, "65"));
    assert_non_null(strstr(error.text, "64"));
    group.prompt.count = 4; /* exactly the context */
    assert_int_equal(sm_score(network, w, &group, 1, &logps, NULL, &error), SM_OK);
    tokens[3] = 80;
    assert_int_equal(sm_score(network, w, &group, 1, &logps, NULL, &error), SM_BAD_ARGUMENT);
    assert_non_null(strstr(error.text, "80"));
    /* nothing to score is no error */
    group.completion_count = 0;
    assert_int_equal(sm_score(network, w, &group, 1, &logps, NULL, &error), SM_BAD_ARGUMENT);
    tokens[3] = 0;
    assert_int_equal(sm_score(network, w, &group, 1, &logps, NULL, &error), SM_OK);
    assert_int_equal(sm_score(network, w, &group, 0, NULL, NULL, &error), SM_OK);
    sm_workspace_free(w);
    sm_network_free(network);
    golden_device_free(1, device);
    golden_free(&g);
}

/* -Σ p log p from the logits, in float64. */
static void entropy_is_that_of_the_logits(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    kn_device *device = golden_device(1, 2);
    const size_t V = g.checkpoint->layout.config.vocab;
    sm_error error = {0};
    sm_network *network = golden_network(device, KN_F32, &g);
    sm_workspace *w = sm_workspace_new(network, SM_KEEP_NOTHING);
    float **entropy = golden_room(g.groups, g.group_count);
    assert_int_equal(sm_score(network, w, g.groups, g.group_count, g.logps, entropy, &error), SM_OK);
    const sluice_span sequence = golden_span(json_object_get(g.json, "sequence"));
    float *logits = all_logits(device, &g, &sequence);
    for (size_t i = 0; i < g.groups[0].completions[0].count; i++) {
        const float *row = logits + (g.groups[0].prompt.count + i - 1) * V;
        double total = 0, sum = 0;
        for (size_t v = 0; v < V; v++)
            total += exp(row[v]);
        for (size_t v = 0; v < V; v++)
            sum -= exp(row[v]) / total * (row[v] - log(total));
        assert_true(fabs(sum - entropy[0][i]) < 1e-4);
    }
    free(logits);
    free((void *)(uintptr_t)sequence.tokens);
    golden_room_free(entropy, g.completions);
    sm_workspace_free(w);
    sm_network_free(network);
    golden_device_free(1, device);
    golden_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_transformers),
        cmocka_unit_test(log_probabilities_are_those_of_float64),
        cmocka_unit_test(scores_are_the_same_to_the_bit_however_they_are_cut),
        cmocka_unit_test(what_cannot_be_scored_is_refused),
        cmocka_unit_test(entropy_is_that_of_the_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
