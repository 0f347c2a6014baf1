/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Reward models: transformers' values, PyTorch's steps with and without the body, the same bits however values are cut,
 * folders read and written, and what is refused. */
#include "tests/model_golden.h"
#include "tests/test_device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/head.h"
#include "model/train.h"
#include "tests/folders.h"

static const char *const bodies[] = {"grouped", "qwen2", NULL}; /* heads of 1 and of 3 outputs */

typedef struct reward {
    const char *name;
    json_t *json;
    sm_checkpoint *checkpoint;
    sluice_group *groups, *pairs;
    size_t group_count, pair_count, completions;
    uint32_t outputs;
} reward;

static sluice_group group_of(const json_t *prompt, const json_t *const *completions, size_t count, uint64_t key)
{
    sluice_span *spans = calloc(count, sizeof *spans);
    assert_non_null(spans);
    for (size_t c = 0; c < count; c++)
        spans[c] = golden_span(completions[c]);
    return (sluice_group){golden_span(prompt), spans, count, key};
}

static void reward_load(reward *r, const char *name)
{
    char file[200];
    snprintf(file, sizeof file, "model/%s/reward/reward.json", name);
    char *path = golden_path(file);
    json_error_t bad;
    *r = (reward){.name = name, .json = json_load_file(path, 0, &bad), .checkpoint = golden_folder(name, "reward")};
    if (!r->json)
        fail_msg("%s: %s", path, bad.text);
    free(path);
    r->outputs = (uint32_t)json_integer_value(json_object_get(r->json, "outputs"));
    const json_t *groups = json_object_get(r->json, "groups"), *pairs = json_object_get(r->json, "pairs");
    r->group_count = json_array_size(groups);
    r->pair_count = json_array_size(pairs);
    r->groups = calloc(r->group_count, sizeof *r->groups);
    r->pairs = calloc(r->pair_count, sizeof *r->pairs);
    assert_true(r->groups && r->pairs);
    for (size_t i = 0; i < r->group_count; i++) {
        const json_t *group = json_array_get(groups, i), *lists = json_object_get(group, "completions"), *items[8];
        const size_t count = json_array_size(lists);
        for (size_t c = 0; c < count; c++)
            items[c] = json_array_get(lists, c);
        r->groups[i] = group_of(json_object_get(group, "prompt"), items, count, 50 + i);
        r->completions += count;
    }
    for (size_t i = 0; i < r->pair_count; i++) {
        const json_t *pair = json_array_get(pairs, i);
        const json_t *items[] = {json_object_get(pair, "chosen"), json_object_get(pair, "rejected")};
        r->pairs[i] = group_of(json_object_get(pair, "prompt"), items, 2, 90 + i);
    }
}

static void groups_free(sluice_group *groups, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t c = 0; c < groups[i].completion_count; c++)
            free((void *)(uintptr_t)groups[i].completions[c].tokens);
        free((void *)(uintptr_t)groups[i].completions);
        free((void *)(uintptr_t)groups[i].prompt.tokens);
    }
    free(groups);
}

static void reward_free(reward *r)
{
    groups_free(r->groups, r->group_count);
    groups_free(r->pairs, r->pair_count);
    json_decref(r->json);
    sm_checkpoint_free(r->checkpoint);
}

/* Values of these groups, in calls of `cut` groups each; flat [completions, outputs]. */
static void score(kn_device *device, kn_dtype dtype, const reward *r, const sluice_group *groups, size_t count,
                  size_t cut, float *flat)
{
    sm_error error = {0};
    sm_network *network;
    const sm_numbers numbers = {.params = r->checkpoint->params};
    if (sm_network_new(&network, device, dtype, &r->checkpoint->layout, &numbers, false, &error) != SM_OK)
        fail_msg("%s", error.text);
    sm_workspace *workspace = sm_workspace_new(network, SM_KEEP_NOTHING);
    assert_non_null(workspace);
    for (size_t g = 0, c = 0; g < count; g += cut) {
        const size_t now = count - g < cut ? count - g : cut;
        float *values[64];
        size_t own = 0;
        for (size_t i = 0; i < now; i++)
            for (size_t k = 0; k < groups[g + i].completion_count; k++, own++)
                values[own] = flat + (c + own) * r->outputs;
        if (sm_score_values(network, workspace, groups + g, now, values, &error) != SM_OK)
            fail_msg("%s", error.text);
        c += own;
    }
    sm_workspace_free(workspace);
    sm_network_free(network);
}

static void values_are_those_of_transformers(void **state)
{
    (void)state;
    for (const char *const *name = bodies; *name; name++) {
        reward r;
        reward_load(&r, *name);
        assert_int_equal(r.checkpoint->layout.config.outputs, r.outputs);
        float flat[64], expected[64];
        size_t n = 0;
        for (size_t g = 0; g < r.group_count; g++) {
            const json_t *lists = json_object_get(json_array_get(json_object_get(r.json, "groups"), g), "values");
            for (size_t c = 0; c < r.groups[g].completion_count; c++)
                for (size_t o = 0; o < r.outputs; o++)
                    expected[n++] = (float)json_number_value(json_array_get(json_array_get(lists, c), o));
        }
        for (int number = 0; number < GOLDEN_DEVICES; number++) {
            kn_device *device = golden_device(number, 2);
            if (!device)
                continue;
            score(device, KN_F32, &r, r.groups, r.group_count, r.group_count, flat);
            const double off = golden_difference(flat, expected, n);
            if (!(off <= 1e-5))
                fail_msg("%s, device %d: values are off by %g", *name, number, off);
            if (device->ops_bf16) {
                score(device, KN_BF16, &r, r.groups, r.group_count, r.group_count, flat);
                const double rounded = golden_difference(flat, expected, n);
                if (!(rounded <= 0.05)) /* 8 bits of mantissa through some ten roundings a layer */
                    fail_msg("%s, device %d: bfloat16 values are off by %g", *name, number, rounded);
            }
            golden_device_free(number, device);
        }
        reward_free(&r);
    }
}

static void values_are_the_same_to_the_bit_however_they_are_cut(void **state)
{
    (void)state;
    if (!test_device_one_answer())
        skip();
    for (const char *const *name = bodies; *name; name++) {
        reward r;
        reward_load(&r, *name);
        kn_device *one = golden_device(1, 1), *two = golden_device(1, 2);
        for (kn_dtype dtype = KN_F32; dtype <= golden_last_dtype(one); dtype++) {
            float whole[64], cut[64];
            score(one, dtype, &r, r.groups, r.group_count, r.group_count, whole);
            for (size_t size = 1; size < r.group_count; size++) {
                score(size % 2 ? two : one, dtype, &r, r.groups, r.group_count, size, cut);
                assert_memory_equal(whole, cut, r.completions * r.outputs * sizeof *whole);
            }
            /* alone, the last one first */
            for (size_t g = r.group_count, c = r.completions; g-- > 0;)
                for (size_t k = r.groups[g].completion_count; k-- > 0;) {
                    const sluice_group alone = {r.groups[g].prompt, &r.groups[g].completions[k], 1, 0};
                    c--;
                    score(one, dtype, &r, &alone, 1, 1, cut);
                    assert_memory_equal(whole + c * r.outputs, cut, r.outputs * sizeof *whole);
                }
        }
        golden_device_free(1, one);
        golden_device_free(1, two);
        reward_free(&r);
    }
}

/* --- training -------------------------------------------------------------------------------------------------------
 */

static sm_training *begin(kn_device *device, const sm_layout *layout, const float *params, const float *head,
                          const sluice_optimizer *optimizer)
{
    sm_error error = {0};
    sm_training *t;
    const sm_numbers numbers = {.params = params};
    if (sm_training_new_reward(&t, device, KN_F32, layout, &numbers, head, optimizer, &error) != SM_OK)
        fail_msg("%s", error.text);
    return t;
}

static void add_values(sm_training *t, const sluice_group *groups, size_t count, sm_derivative derivative,
                       void *context)
{
    sm_error error = {0};
    int result = 0;
    if (sm_training_gradient(t, groups, count, derivative, context, &result, &error) != SM_OK)
        fail_msg("%s", error.text);
}

/* The pairs [from, from + count) of the golden file. */
typedef struct pairs {
    const reward *r;
    size_t from, count;
} pairs;

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* d/dx of -log σ(x - margin) */
static double slope(double x, double margin)
{
    return -1 / (1 + exp(x - margin));
}

static int bradley_terry(void *context, const float *const *values, float *const *d_values)
{
    const pairs *p = context;
    const double center = number(p->r->json, "center");
    for (size_t i = 0; i < p->count; i++) {
        const json_t *pair = json_array_get(json_object_get(p->r->json, "pairs"), p->from + i);
        const double trust = number(pair, "p"), margin = number(pair, "margin");
        const double share = number(pair, "weight") / (double)p->r->pair_count / p->r->outputs;
        for (uint32_t o = 0; o < p->r->outputs; o++) {
            const double w = values[2 * i][o], l = values[2 * i + 1][o];
            const double d = trust * slope(w - l, margin) - (1 - trust) * slope(l - w, margin);
            d_values[2 * i][o] = (float)(share * (d + 2 * center * (w + l)));
            d_values[2 * i + 1][o] = (float)(share * (2 * center * (w + l) - d));
        }
    }
    return 0;
}

static sluice_optimizer golden_optimizer(const reward *r, bool frozen)
{
    return (sluice_optimizer){.size = sizeof(sluice_optimizer),
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .epsilon = 1e-8,
                              .weight_decay = number(r->json, "decay"),
                              .max_grad_norm = number(r->json, "clip"),
                              .head_outputs = r->outputs,
                              .freeze_body = frozen};
}

static sm_training *three_steps(kn_device *device, const reward *r, bool frozen, bool recompute)
{
    sluice_optimizer optimizer = golden_optimizer(r, frozen);
    optimizer.recompute = recompute;
    const sm_layout *layout = &r->checkpoint->layout;
    sm_training *t = begin(device, layout, r->checkpoint->params, r->checkpoint->params + layout->score, &optimizer);
    for (int step = 0; step < (int)number(r->json, "steps"); step++) {
        sm_error error = {0};
        sluice_step_info info;
        pairs all = {r, 0, r->pair_count};
        add_values(t, r->pairs, r->pair_count, bradley_terry, &all);
        assert_int_equal(sm_training_step(t, number(r->json, "lr"), 1, &info, &error), SM_OK);
        assert_false(info.skipped);
    }
    return t;
}

static void three_steps_are_those_of_float64(void **state)
{
    (void)state;
    for (const char *const *name = bodies; *name; name++) {
        reward r;
        reward_load(&r, *name);
        sm_checkpoint *expected = golden_folder(*name, "reward-steps");
        const sm_layout *layout = &r.checkpoint->layout;
        for (int device_number = 0; device_number < GOLDEN_DEVICES; device_number++) {
            kn_device *device = golden_device(device_number, 2);
            if (!device)
                continue;
            for (int recompute = 0; recompute < 2; recompute++) {
                sm_training *t = three_steps(device, &r, false, recompute);
                float *change = golden_params(t);
                for (size_t i = 0; i < layout->count; i++)
                    change[i] -= r.checkpoint->params[i];
                for (size_t i = 0; i < layout->tensors; i++) {
                    const sm_tensor *tensor = &layout->tensor[i];
                    const double off =
                        golden_difference(change + tensor->offset, expected->params + tensor->offset, tensor->count);
                    if (!(off < 1e-4))
                        fail_msg("%s, device %d: %s is off by %g", *name, device_number, tensor->name, off);
                }
                free(change);
                sm_training_free(t);
            }
            golden_device_free(device_number, device);
        }
        sm_checkpoint_free(expected);
        reward_free(&r);
    }
}

static void a_frozen_body_stays_and_its_head_learns_as_in_float64(void **state)
{
    (void)state;
    for (const char *const *name = bodies; *name; name++) {
        reward r;
        reward_load(&r, *name);
        const sm_layout *layout = &r.checkpoint->layout;
        const json_t *list = json_object_get(r.json, "frozen");
        const size_t count = json_array_size(list), body = sm_body_count(layout);
        assert_int_equal(count, layout->count - body);
        kn_device *device = golden_device(1, 2);
        sm_training *t = three_steps(device, &r, true, false);
        float *params = golden_params(t);
        assert_memory_equal(params, r.checkpoint->params, body * sizeof *params);
        float change[64], expected[64];
        for (size_t i = 0; i < count; i++) {
            change[i] = params[body + i] - r.checkpoint->params[body + i];
            expected[i] = (float)json_number_value(json_array_get(list, i));
        }
        const double off = golden_difference(change, expected, count);
        if (!(off < 1e-4))
            fail_msg("%s: the head is off by %g", *name, off);
        double distance, squares = 0;
        sm_error error;
        const sm_numbers numbers = {.params = r.checkpoint->params};
        assert_int_equal(sm_training_distance(t, &numbers, &distance, &error), SM_OK);
        for (size_t i = 0; i < count; i++)
            squares += (double)change[i] * change[i];
        assert_true(fabs(distance / sqrt(squares) - 1) < 1e-6);
        free(params);
        sm_training_free(t);
        golden_device_free(1, device);
        reward_free(&r);
    }
}

/* Σ ± value, and the values as they were seen. */
static int signed_sum(void *context, const float *const *values, float *const *d_values)
{
    double *sum = context;
    for (size_t c = 0; c < 2; c++) {
        d_values[c][0] = c ? -1.5f : 1;
        *sum += d_values[c][0] * (double)values[c][0];
    }
    return 0;
}

static double loss_along(kn_device *device, const reward *r, const float *direction, double along, float *gradient)
{
    const sm_layout *layout = &r->checkpoint->layout;
    sluice_optimizer optimizer = golden_optimizer(r, false);
    optimizer.dropout = 0.2;
    float *params = malloc(layout->count * sizeof *params);
    assert_non_null(params);
    for (size_t i = 0; i < layout->count; i++)
        params[i] = (float)(r->checkpoint->params[i] + (direction ? along * direction[i] : 0));
    sm_training *t = begin(device, layout, params, params + layout->score, &optimizer);
    sm_error error;
    double sum = 0;
    add_values(t, r->pairs, 1, signed_sum, &sum);
    if (gradient)
        assert_int_equal(sm_training_gradients(t, gradient, &error), SM_OK);
    sm_training_free(t);
    free(params);
    return sum;
}

/* Along the gradient's own direction the sum must climb as steeply as the gradient is long. */
static void the_gradient_is_that_of_the_dropped_model(void **state)
{
    (void)state;
    reward r;
    reward_load(&r, "grouped");
    kn_device *device = golden_device(1, 2);
    const size_t count = r.checkpoint->layout.count;
    float *gradient = malloc(count * sizeof *gradient);
    assert_non_null(gradient);
    loss_along(device, &r, NULL, 0, gradient);
    double squares = 0;
    for (size_t i = 0; i < count; i++)
        squares += (double)gradient[i] * gradient[i];
    const double length = sqrt(squares), small = 1e-3 / length;
    const double climb =
        (loss_along(device, &r, gradient, small, NULL) - loss_along(device, &r, gradient, -small, NULL)) /
        (2 * small * length);
    if (!(fabs(climb / length - 1) < 0.01))
        fail_msg("the sum climbs by %g where the gradient says %g", climb, length);
    free(gradient);
    golden_device_free(1, device);
    reward_free(&r);
}

static void gradients_are_the_same_to_the_bit_however_they_are_cut(void **state)
{
    (void)state;
    if (!test_device_one_answer())
        skip();
    reward r;
    reward_load(&r, "qwen2");
    kn_device *one = golden_device(1, 1), *two = golden_device(1, 2);
    const sm_layout *layout = &r.checkpoint->layout;
    const float *params = r.checkpoint->params;
    const sluice_optimizer optimizer = golden_optimizer(&r, false);
    sm_training *whole = begin(one, layout, params, params + layout->score, &optimizer);
    sm_training *cut = begin(two, layout, params, params + layout->score, &optimizer);
    pairs all = {&r, 0, r.pair_count};
    add_values(whole, r.pairs, r.pair_count, bradley_terry, &all);
    for (size_t i = 0; i < r.pair_count; i++) {
        pairs single = {&r, i, 1};
        add_values(cut, r.pairs + i, 1, bradley_terry, &single);
    }
    float *of_whole = golden_gradients(whole), *of_cut = golden_gradients(cut);
    assert_memory_equal(of_whole, of_cut, layout->count * sizeof(float));
    free(of_whole);
    free(of_cut);
    sm_training_free(whole);
    sm_training_free(cut);
    golden_device_free(1, one);
    golden_device_free(1, two);
    reward_free(&r);
}

/* --- folders --------------------------------------------------------------------------------------------------------
 */

static void a_head_on_a_language_models_body_is_saved_as_transformers_wants_it(void **state)
{
    (void)state;
    sm_error error = {0};
    sm_checkpoint *language = golden_folder("grouped", ""), *again;
    kn_device *device = golden_device(1, 1);
    const sluice_optimizer optimizer = {.size = sizeof optimizer, .head_outputs = 2, .seed = 5};
    sm_training *t = begin(device, &language->layout, language->params, NULL, &optimizer);
    const sm_layout *layout = sm_training_layout(t);
    double squares = 0;
    float *params = golden_params(t);
    for (size_t i = layout->score; i < layout->count; i++)
        squares += (double)params[i] * params[i];
    const double deviation = sqrt(squares / (double)(layout->count - layout->score));
    if (!(deviation > 0.014 && deviation < 0.026)) /* 64 numbers from N(0, 0.02²): standard error 0.0018 */
        fail_msg("the new head has the deviation %g", deviation);

    char *folder = folder_new(), *to = folder_path(folder, "reward"), *source = golden_path("model/grouped"), *file;
    const sm_numbers numbers = sm_training_params(t);
    if (sm_checkpoint_save(to, layout, &numbers, KN_F32, source, &error) != SM_OK ||
        sm_checkpoint_load(&again, to, &error) != SM_OK)
        fail_msg("%s", error.text);
    assert_int_equal(again->layout.config.outputs, 2);
    assert_memory_equal(again->params, params, layout->count * sizeof(float));
    free(params);
    json_t *config = json_load_file(file = folder_path(to, "config.json"), 0, NULL);
    assert_string_equal(json_string_value(json_array_get(json_object_get(config, "architectures"), 0)),
                        "LlamaForSequenceClassification");
    assert_string_equal(json_string_value(json_object_get(json_object_get(config, "id2label"), "1")), "LABEL_1");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(config, "label2id"), "LABEL_1")), 1);
    assert_string_equal(json_string_value(json_object_get(config, "problem_type")), "regression");
    json_decref(config);
    free(file);
    free(source);
    free(to);
    folder_remove(folder);
    sm_checkpoint_free(again);
    sm_checkpoint_free(language);
    sm_training_free(t);
    golden_device_free(1, device);
}

static void configs_say_how_many_outputs(void **state)
{
    (void)state;
    static const char common[] = "\"model_type\": \"llama\", \"hidden_size\": 8, \"intermediate_size\": 8, "
                                 "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"vocab_size\": 9, "
                                 "\"eos_token_id\": 4, \"pad_token_id\": 4";
    static const struct {
        const char *fields;
        uint32_t outputs; /* UINT32_MAX: refused */
    } cases[] = {
        {"\"architectures\": [\"LlamaForCausalLM\"]", 0},
        {"\"architectures\": [\"LlamaForSequenceClassification\"]", 2}, /* transformers' default is not written */
        {"\"architectures\": [\"LlamaForSequenceClassification\"], \"id2label\": {\"0\": \"a\"}", 1},
        {"\"architectures\": [\"LlamaForSequenceClassification\"], \"num_labels\": 5", 5},
        {"\"architectures\": [\"LlamaForSequenceClassification\"], \"num_labels\": 0", UINT32_MAX},
        {"\"architectures\": [\"LlamaForSequenceClassification\"], \"id2label\": {}", UINT32_MAX},
        {"\"architectures\": [\"LlamaForSequenceClassification\"], \"id2label\": [\"a\"]", UINT32_MAX},
        {"\"architectures\": [\"MistralForSequenceClassification\"]", UINT32_MAX}, /* of another body */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[800];
        sm_config config;
        sm_error error;
        snprintf(text, sizeof text, "{%s, %s}", common, cases[i].fields);
        const int rc = sm_config_parse(&config, "config.json", text, strlen(text), NULL, NULL, 0, &error);
        if (cases[i].outputs == UINT32_MAX) {
            assert_int_not_equal(rc, SM_OK);
            assert_non_null(strstr(error.text, "config.json: "));
            continue;
        }
        assert_int_equal(rc, SM_OK);
        assert_int_equal(config.outputs, cases[i].outputs);
        /* As a reward model of three outputs: its padding would hide the end of an answer. */
        config.outputs = 3;
        size_t length;
        char *headed = sm_config_with_head(text, strlen(text), &config, &length);
        assert_non_null(headed);
        assert_non_null(strstr(headed, "\"pad_token_id\": null"));
        assert_int_equal(sm_config_parse(&config, "config.json", headed, length, NULL, NULL, 0, &error), SM_OK);
        assert_int_equal(config.outputs, 3);
        /* Once it is one, nothing changes any more. */
        size_t same_length;
        char *same = sm_config_with_head(headed, length, &config, &same_length);
        assert_non_null(same);
        assert_int_equal(same_length, length);
        assert_memory_equal(same, headed, length);
        free(same);
        free(headed);
    }
}

/* A copy of the golden reward model with one text of its config.json replaced. */
static char *damaged(const char *from, const char *to)
{
    char *folder = folder_new(), *source = golden_path("model/grouped/reward"), *file;
    folder_copy(source, folder);
    size_t length;
    char *text = file_read(file = folder_path(folder, "config.json"), &length), *at = strstr(text, from);
    assert_non_null(at);
    char *changed = malloc(length + strlen(to) + 1);
    assert_non_null(changed);
    const size_t before = (size_t)(at - text);
    snprintf(changed, length + strlen(to) + 1, "%.*s%s%s", (int)before, text, to, at + strlen(from));
    file_write(folder, "config.json", changed, strlen(changed));
    free(changed);
    free(text);
    free(file);
    free(source);
    return folder;
}

static void folders_that_are_no_reward_model_are_refused_in_a_line(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"\"0\": \"LABEL_0\"", "\"0\": \"a\", \"1\": \"b\"",
         "score.weight has shape [1, 32]; config.json asks for [2, 32]"},
        {"\"hidden_size\": 32", "\"hidden_size\": 48", "config.json asks for"},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "model.layers.2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = damaged(cases[i].from, cases[i].to);
        sm_checkpoint *checkpoint;
        sm_error error = {0};
        assert_int_not_equal(sm_checkpoint_load(&checkpoint, folder, &error), SM_OK);
        if (!strstr(error.text, cases[i].says))
            fail_msg("\"%s\" does not say \"%s\"", error.text, cases[i].says);
        folder_remove(folder);
    }
    /* a language model whose config claims a head */
    char *folder = folder_new(), *source = golden_path("model/grouped"), *file;
    folder_copy(source, folder);
    size_t length;
    char *text = file_read(file = folder_path(folder, "config.json"), &length);
    sm_config config = {.outputs = 1};
    sm_error error = {0};
    assert_int_equal(sm_config_read(&config, source, &error), SM_OK);
    config.outputs = 1;
    char *headed = sm_config_with_head(text, length, &config, &length);
    file_write(folder, "config.json", headed, length);
    sm_checkpoint *checkpoint;
    assert_int_not_equal(sm_checkpoint_load(&checkpoint, folder, &error), SM_OK);
    assert_non_null(strstr(error.text, "its head, tensor score.weight of shape [1, 32], is missing"));
    free(headed);
    free(text);
    free(file);
    free(source);
    folder_remove(folder);
}

static void an_answer_without_any_token_has_no_value(void **state)
{
    (void)state;
    reward r;
    reward_load(&r, "grouped");
    kn_device *device = golden_device(1, 1);
    sm_network *network;
    sm_error error = {0};
    const sm_numbers numbers = {.params = r.checkpoint->params};
    assert_int_equal(sm_network_new(&network, device, KN_F32, &r.checkpoint->layout, &numbers, false, &error), SM_OK);
    sm_workspace *workspace = sm_workspace_new(network, SM_KEEP_NOTHING);
    const sluice_span nothing = {NULL, 0};
    const sluice_group empty = {nothing, &nothing, 1, 0};
    float value, *values[] = {&value};
    assert_int_not_equal(sm_score_values(network, workspace, &empty, 1, values, &error), SM_OK);
    assert_non_null(strstr(error.text, "has no value"));
    sm_workspace_free(workspace);
    sm_network_free(network);
    golden_device_free(1, device);
    reward_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_those_of_transformers),
        cmocka_unit_test(values_are_the_same_to_the_bit_however_they_are_cut),
        cmocka_unit_test(three_steps_are_those_of_float64),
        cmocka_unit_test(a_frozen_body_stays_and_its_head_learns_as_in_float64),
        cmocka_unit_test(the_gradient_is_that_of_the_dropped_model),
        cmocka_unit_test(gradients_are_the_same_to_the_bit_however_they_are_cut),
        cmocka_unit_test(a_head_on_a_language_models_body_is_saved_as_transformers_wants_it),
        cmocka_unit_test(configs_say_how_many_outputs),
        cmocka_unit_test(folders_that_are_no_reward_model_are_refused_in_a_line),
        cmocka_unit_test(an_answer_without_any_token_has_no_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
