/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * bfloat16 against float64, beside PyTorch's own bfloat16: log-probabilities, logits, gradients and three AdamW steps
 * of models whose weights bfloat16 holds exactly. tests/golden/make_bf16.py says what the files hold and makes the same
 * weights.
 */
#include "tests/model_golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/train.h"

#define SPREAD 1.25 /* root mean square errors, ours to PyTorch's, at most */

typedef struct exact {
    json_t *json;
    golden g; /* without a file of its own: groups, checkpoint and room */
    float *values;
    size_t samples, tokens; /* of all completions */
} exact;

static void path_of(char path[4096], const char *name, const char *rest)
{
    snprintf(path, 4096, "%s/golden/bf16/%s%s", getenv("SLUICE_TEST_DATA"), name, rest);
}

/* SplitMix64 (Steele, Lea and Flood 2014). */
static uint64_t next_of(uint64_t *seed)
{
    uint64_t z = *seed += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

static void fill(sm_checkpoint *c)
{
    for (size_t i = 0; i < c->layout.tensors; i++) {
        const sm_tensor *t = &c->layout.tensor[i];
        uint64_t seed = 1000 + i;
        const bool norm = t->rank == 1 && strstr(t->name, "norm.weight");
        for (size_t k = 0; k < t->count; k++) {
            const double raw = (double)(next_of(&seed) >> 56);
            c->params[t->offset + k] = (float)(norm ? 1 + floor((raw - 128) / 4) / 128 : (2 * raw - 255) / 1024);
        }
    }
}

static void read_values(exact *e, const char *name)
{
    char path[4096];
    path_of(path, name, ".bin");
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    const size_t bytes = (size_t)ftell(file);
    rewind(file);
    e->values = malloc(bytes);
    assert_non_null(e->values);
    assert_int_equal(fread(e->values, 1, bytes, file), bytes);
    fclose(file);
}

static void exact_load(exact *e, const char *name)
{
    char path[4096];
    sm_error error = {0};
    path_of(path, name, ".json");
    *e = (exact){.json = json_load_file(path, 0, NULL)};
    assert_non_null(e->json);
    e->samples = (size_t)json_integer_value(json_object_get(e->json, "samples"));
    path_of(path, name, "");
    if (sm_checkpoint_create(&e->g.checkpoint, path, 0, &error) != SM_OK)
        fail_msg("%s", error.text);
    fill(e->g.checkpoint);
    golden_groups(&e->g, json_object_get(e->json, "groups"));
    for (size_t i = 0; i < e->g.group_count; i++)
        for (size_t c = 0; c < e->g.groups[i].completion_count; c++)
            e->tokens += e->g.groups[i].completions[c].count;
    read_values(e, name);
}

static void exact_free(exact *e)
{
    json_decref(e->json);
    free(e->values);
    golden_free(&e->g);
}

/* Every stride-th of `count` numbers, as the script samples. */
static size_t stride_of(const exact *e, size_t count)
{
    return count / e->samples > 1 ? count / e->samples : 1;
}

static size_t sampled(const exact *e, size_t count)
{
    const size_t all = (count + stride_of(e, count) - 1) / stride_of(e, count);
    return all < e->samples ? all : e->samples;
}

/* The root mean square of ours − expected over the sample of `count` numbers. */
static double sampled_error(const exact *e, const float *ours, const float *expected, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < sampled(e, count); i++) {
        const double difference = (double)ours[i * stride_of(e, count)] - expected[i];
        sum += difference * difference;
    }
    return sqrt(sum / (double)sampled(e, count));
}

static void expect_within_spread(const char *name, int number, const char *what, double ours, double theirs)
{
    if (!(ours <= SPREAD * theirs))
        fail_msg("%s, device %d: %s is off by %g, PyTorch's by %g", name, number, what, ours, theirs);
}

/* Walks over every model on every device that computes bfloat16. */
static void each(void (*check)(const exact *e, const char *name, kn_device *device, int number))
{
    static const char *const names[] = {"grouped", "untied", "qwen2"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        exact e;
        exact_load(&e, names[i]);
        for (int number = 0; number < GOLDEN_DEVICES; number++) {
            kn_device *device = golden_device(number, 2);
            if (!device)
                continue;
            if (golden_last_dtype(device) == KN_BF16)
                check(&e, names[i], device, number);
            golden_device_free(number, device);
        }
        exact_free(&e);
    }
}

/* --- the forward pass -----------------------------------------------------------------------------------------------
 */

static void check_forward(const exact *e, const char *name, kn_device *device, int number)
{
    const sm_config *c = &e->g.checkpoint->layout.config;
    const json_t *errors = json_object_get(e->json, "errors");
    sm_network *n = golden_network(device, KN_BF16, &e->g);
    sm_workspace *w = sm_workspace_new(n, SM_KEEP_NOTHING);
    sm_pack pack = {0};
    sm_error error = {0};
    for (size_t i = 0; i < e->g.group_count; i++)
        assert_int_equal(
            sm_pack_add(&pack, &e->g.groups[i], 0, e->g.groups[i].completion_count, c->vocab, c->max_positions, &error),
            SM_OK);
    assert_int_equal(pack.scored, e->tokens);
    assert_int_equal(sm_forward_pack(n, w, &pack, NULL, false, &error), SM_OK);
    const exact all = {.samples = e->tokens};
    expect_within_spread(name, number, "the log-probabilities",
                         sampled_error(&all, w->host_logprob, e->values, e->tokens),
                         json_number_value(json_object_get(errors, "logps")));
    const size_t bytes = e->tokens * c->vocab * sizeof(float);
    float *logits = malloc(bytes), *on_device = n->ops->alloc(device, bytes);
    assert_true(logits && on_device);
    assert_int_equal(n->ops->logits(device, on_device, w->scored_normed, n->head, e->tokens), KN_OK);
    assert_int_equal(n->ops->read(device, logits, on_device, bytes), KN_OK);
    n->ops->free(device, on_device);
    expect_within_spread(name, number, "the logits",
                         sampled_error(e, logits, e->values + e->tokens, e->tokens * c->vocab),
                         json_number_value(json_object_get(errors, "logits")));
    free(logits);
    sm_pack_free(&pack);
    sm_workspace_free(w);
    sm_network_free(n);
}

static void log_probabilities_and_logits_are_as_near_as_pytorchs(void **state)
{
    (void)state;
    each(check_forward);
}

/* --- gradients and steps --------------------------------------------------------------------------------------------
 */

static int weights_derivative(void *context, const float *const *logps, float *const *d_logps)
{
    const exact *e = context;
    size_t k = 0;
    (void)logps;
    for (size_t i = 0; i < e->g.group_count; i++) {
        const json_t *lists = json_object_get(json_array_get(json_object_get(e->json, "groups"), i), "weights");
        for (size_t c = 0; c < e->g.groups[i].completion_count; c++, k++)
            for (size_t t = 0; t < e->g.groups[i].completions[c].count; t++)
                d_logps[k][t] = (float)json_number_value(json_array_get(json_array_get(lists, c), t));
    }
    return 0;
}

static sm_training *begin(const exact *e, kn_device *device)
{
    const sluice_optimizer optimizer = {.size = sizeof(optimizer),
                                        .beta1 = 0.9,
                                        .beta2 = 0.999,
                                        .epsilon = json_number_value(json_object_get(e->json, "epsilon")),
                                        .weight_decay = json_number_value(json_object_get(e->json, "decay"))};
    const sm_numbers numbers = {.params = e->g.checkpoint->params};
    sm_training *t;
    sm_error error = {0};
    if (sm_training_new(&t, device, KN_BF16, &e->g.checkpoint->layout, &numbers, &optimizer, &error) != SM_OK)
        fail_msg("%s", error.text);
    return t;
}

static void add_gradient(const exact *e, sm_training *t)
{
    sm_error error = {0};
    int result = 0;
    if (sm_training_gradient(t, e->g.groups, e->g.group_count, weights_derivative, (void *)(uintptr_t)e, &result,
                             &error) != SM_OK)
        fail_msg("%s", error.text);
}

/* Every tensor of `ours`; `expected` walks over the file's values. */
static void check_tensors(const exact *e, const char *name, int number, const char *kind, const float *ours,
                          const float **expected)
{
    const sm_layout *layout = &e->g.checkpoint->layout;
    const json_t *errors = json_object_get(json_object_get(e->json, "errors"), kind);
    for (size_t i = 0; i < layout->tensors; i++) {
        const sm_tensor *t = &layout->tensor[i];
        char what[120];
        snprintf(what, sizeof(what), "the %s of %s", kind, t->name);
        expect_within_spread(name, number, what, sampled_error(e, ours + t->offset, *expected, t->count),
                             json_number_value(json_object_get(errors, t->name)));
        *expected += sampled(e, t->count);
    }
}

static void check_training(const exact *e, const char *name, kn_device *device, int number)
{
    const sm_layout *layout = &e->g.checkpoint->layout;
    const float *expected = e->values + e->tokens + sampled(e, e->tokens * layout->config.vocab);
    const double lr = json_number_value(json_object_get(e->json, "lr"));
    sm_training *t = begin(e, device);
    sm_error error = {0};
    for (int step = 0; step < json_integer_value(json_object_get(e->json, "steps")); step++) {
        sluice_step_info info;
        add_gradient(e, t);
        assert_int_equal(sm_training_gather(t, &error), SM_OK);
        float *gradient = golden_gradients(t);
        if (step == 0)
            check_tensors(e, name, number, "gradient", gradient, &expected);
        free(gradient);
        assert_int_equal(sm_training_step(t, lr, 1, &info, &error), SM_OK);
    }
    float *change = golden_params(t);
    for (size_t i = 0; i < layout->count; i++)
        change[i] -= e->g.checkpoint->params[i];
    check_tensors(e, name, number, "change", change, &expected);
    free(change);
    sm_training_free(t);
}

static void gradients_and_steps_are_as_near_as_pytorchs(void **state)
{
    (void)state;
    each(check_training);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_probabilities_and_logits_are_as_near_as_pytorchs),
        cmocka_unit_test(gradients_and_steps_are_as_near_as_pytorchs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
