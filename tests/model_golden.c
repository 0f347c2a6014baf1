/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tests/model_golden.h"
#include "tests/test_device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const golden_models[] = {"grouped", "wide-heads", "qwen2", NULL};

static void golden_path(char *path, size_t size, const char *name, const char *rest)
{
    const char *data = getenv("SLUICE_TEST_DATA");
    assert_non_null(data);
    snprintf(path, size, "%s/golden/model/%s/%s", data, name, rest);
}

sm_checkpoint *golden_folder(const char *name, const char *folder)
{
    char path[4096];
    sm_error error = {0};
    sm_checkpoint *checkpoint;
    golden_path(path, sizeof(path), name, folder);
    if (sm_checkpoint_load(&checkpoint, path, &error) != SM_OK)
        fail_msg("%s", error.text);
    return checkpoint;
}

sluice_span golden_span(const json_t *list)
{
    const size_t count = json_array_size(list);
    uint32_t *tokens = malloc((count + 1) * sizeof(*tokens));
    assert_non_null(tokens);
    for (size_t i = 0; i < count; i++)
        tokens[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    return (sluice_span){tokens, count};
}

float **golden_room(const sluice_group *groups, size_t count)
{
    size_t completions = 0, k = 0;
    for (size_t g = 0; g < count; g++)
        completions += groups[g].completion_count;
    float **room = calloc(completions + 1, sizeof(*room));
    assert_non_null(room);
    for (size_t g = 0; g < count; g++)
        for (size_t c = 0; c < groups[g].completion_count; c++)
            assert_non_null(room[k++] = calloc(groups[g].completions[c].count + 1, sizeof(float)));
    return room;
}

void golden_room_free(float **room, size_t completions)
{
    for (size_t k = 0; k < completions; k++)
        free(room[k]);
    free(room);
}

void golden_groups(golden *g, const json_t *list)
{
    g->group_count = json_array_size(list);
    g->groups = calloc(g->group_count, sizeof(*g->groups));
    assert_non_null(g->groups);
    for (size_t i = 0; i < g->group_count; i++) {
        const json_t *group = json_array_get(list, i), *completions = json_object_get(group, "completions");
        const size_t count = json_array_size(completions);
        sluice_span *spans = calloc(count, sizeof(*spans));
        assert_non_null(spans);
        for (size_t c = 0; c < count; c++)
            spans[c] = golden_span(json_array_get(completions, c));
        g->groups[i] = (sluice_group){golden_span(json_object_get(group, "prompt")), spans, count, 1000 + i};
        g->completions += count;
    }
    g->logps = golden_room(g->groups, g->group_count);
}

void golden_load(golden *g, const char *name)
{
    char path[4096];
    json_error_t bad;
    golden_path(path, sizeof(path), name, "score.json");
    *g = (golden){.json = json_load_file(path, 0, &bad), .checkpoint = golden_folder(name, "")};
    if (!g->json)
        fail_msg("%s:%d: %s", path, bad.line, bad.text);
    golden_groups(g, json_object_get(g->json, "groups"));
}

void golden_free(golden *g)
{
    for (size_t i = 0; i < g->group_count; i++) {
        for (size_t c = 0; c < g->groups[i].completion_count; c++)
            free((void *)(uintptr_t)g->groups[i].completions[c].tokens);
        free((void *)(uintptr_t)g->groups[i].completions);
        free((void *)(uintptr_t)g->groups[i].prompt.tokens);
    }
    free(g->groups);
    golden_room_free(g->logps, g->completions);
    json_decref(g->json);
    sm_checkpoint_free(g->checkpoint);
}

sm_network *golden_network(kn_device *device, kn_dtype dtype, const golden *g)
{
    sm_error error = {0};
    sm_network *network;
    const sm_numbers numbers = {.params = g->checkpoint->params};
    if (sm_network_new(&network, device, dtype, &g->checkpoint->layout, &numbers, false, &error) != SM_OK)
        fail_msg("%s", error.text);
    return network;
}

void golden_score(kn_device *device, kn_dtype dtype, const golden *g, const sluice_group *groups, size_t count,
                  float *const *logps)
{
    sm_error error = {0};
    sm_network *network = golden_network(device, dtype, g);
    sm_workspace *workspace = sm_workspace_new(network, SM_KEEP_NOTHING);
    assert_non_null(workspace);
    if (sm_score(network, workspace, groups, count, logps, NULL, &error) != SM_OK)
        fail_msg("%s", error.text);
    sm_workspace_free(workspace);
    sm_network_free(network);
}

float *golden_params(sm_training *t)
{
    const size_t count = sm_training_layout(t)->count;
    const sm_numbers numbers = sm_training_params(t);
    sm_error error;
    float *params = malloc(count * sizeof(*params));
    assert_non_null(params);
    if (sm_numbers_read(&numbers, 0, count, params, &error) != SM_OK)
        fail_msg("%s", error.text);
    return params;
}

float *golden_gradients(sm_training *t)
{
    sm_error error;
    float *gradients = calloc(sm_training_layout(t)->count, sizeof(*gradients));
    assert_non_null(gradients);
    if (sm_training_gradients(t, gradients, &error) != SM_OK)
        fail_msg("%s", error.text);
    return gradients;
}

double golden_difference(const float *a, const float *b, size_t count)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return size > 0 ? sqrt(difference / size) : sqrt(difference);
}

kn_device *golden_device(int number, int threads)
{
    static const char *const isa[GOLDEN_DEVICES - 1] = {"plain", "avx2", "avx512", "neon"};
    const char *why = NULL;
    if (test_device_asked()->name)
        return number == 1 ? test_device_new(threads) : NULL;
    return number == 0 ? kn_reference_new() : kn_cpu_new(threads, isa[number - 1], &why);
}

void golden_device_free(int number, kn_device *device)
{
    if (test_device_asked()->name) {
        test_device_free(device);
        return;
    }
    if (number == 0)
        kn_reference_free(device);
    else
        kn_cpu_free(device);
}

kn_dtype golden_last_dtype(const kn_device *device)
{
    return device->ops_bf16 ? KN_BF16 : KN_F32;
}

int golden_likelihood(void *context, const float *const *logps, float *const *d_logps)
{
    const golden *g = context;
    (void)logps;
    size_t k = 0;
    for (size_t i = 0; i < g->group_count; i++)
        for (size_t c = 0; c < g->groups[i].completion_count; c++, k++)
            for (size_t t = 0; t < g->groups[i].completions[c].count; t++)
                d_logps[k][t] = -1;
    return 0;
}
