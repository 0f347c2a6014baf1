/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The model runtime over a device whose memory the host cannot touch (far_device.h): everything it does, to the bit as
 * on the CPU; few waits; and a line where the device is full or breaks, at whatever call.
 */
#include "tests/model_golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/generate.h"
#include "model/head.h"
#include "model/train_state.h"
#include "tests/far_device.h"
#include "tests/folders.h"

/* --- what the runtime makes, one thing after the other, in one array of bytes
 * -----------------------------------------
 */

typedef struct trace {
    char *bytes;
    size_t size, capacity;
} trace;

static void note(trace *t, const void *bytes, size_t size)
{
    if (t->size + size > t->capacity) {
        t->capacity = 2 * (t->size + size);
        t->bytes = realloc(t->bytes, t->capacity);
        assert_non_null(t->bytes);
    }
    memcpy(t->bytes + t->size, bytes, size);
    t->size += size;
}

typedef struct job {
    kn_device *device;
    kn_dtype dtype;
    const golden *g;
    const char *name; /* of the model */
    char *folder;     /* for files */
    size_t handed_out;
    trace made;
    sm_error error;
} job;

/* --- scoring and sampling --- */

static int next(void *context, sluice_generate_prompt *out)
{
    job *j = context;
    while (j->handed_out < j->g->group_count && j->g->groups[j->handed_out].prompt.count == 0)
        j->handed_out++;
    if (j->handed_out == j->g->group_count)
        return SLUICE_END;
    const sluice_span *prompt = &j->g->groups[j->handed_out].prompt;
    *out = (sluice_generate_prompt){.tokens = prompt->tokens, .token_count = prompt->count, .key = j->handed_out};
    j->handed_out++;
    return SLUICE_OK;
}

static int keep(void *context, const sluice_generated *made)
{
    job *j = context;
    note(&j->made, made->tokens, made->token_count * sizeof(*made->tokens));
    note(&j->made, made->logprobs, made->token_count * sizeof(*made->logprobs));
    return SLUICE_OK;
}

/* Every third token is worth more; one answer ends early. */
static int hook(void *context, void *user, uint32_t candidate, const uint32_t *tokens, size_t count, float *logits)
{
    const job *j = context;
    for (uint32_t v = 0; v < j->g->checkpoint->layout.config.vocab; v += 3)
        logits[v] += 1;
    return candidate == 1 && count == 3 ? SLUICE_END : SLUICE_OK;
}

static int sample(job *j, const sm_network *network, sm_workspace *w, bool hooked)
{
    const sluice_generation generation = {.size = sizeof(generation),
                                          .candidates = 3,
                                          .max_tokens = 12,
                                          .temperature = 0.9,
                                          .top_p = 0.95,
                                          .repetition_penalty = 1.1,
                                          .slots = 4,
                                          .seed = 3,
                                          .context = j,
                                          .prompt = next,
                                          .hook = hooked ? hook : NULL,
                                          .done = keep};
    int result = 0;
    j->handed_out = 0;
    return sm_generate(network, w, NULL, NULL, 0, &generation, NULL, &result, &j->error);
}

static int score_and_sample(job *j)
{
    const golden *g = j->g;
    const sm_numbers numbers = sm_checkpoint_numbers(g->checkpoint);
    sm_network *network;
    int rc = sm_network_new(&network, j->device, j->dtype, &g->checkpoint->layout, &numbers, false, &j->error);
    if (rc != SM_OK)
        return rc;
    sm_workspace *w = sm_workspace_new(network, SM_KEEP_NOTHING);
    float **entropy = golden_room(g->groups, g->group_count);
    rc = sm_score(network, w, g->groups, g->group_count, g->logps, entropy, &j->error);
    for (size_t i = 0, k = 0; rc == SM_OK && i < g->group_count; i++)
        for (size_t c = 0; c < g->groups[i].completion_count; c++, k++) {
            note(&j->made, g->logps[k], g->groups[i].completions[c].count * sizeof(float));
            note(&j->made, entropy[k], g->groups[i].completions[c].count * sizeof(float));
        }
    for (int hooked = 0; rc == SM_OK && hooked < 2; hooked++)
        rc = sample(j, network, w, hooked);
    if (rc == SM_OK) /* once more, packed anew */
        rc = sm_network_refresh(network, &j->error);
    golden_room_free(entropy, g->completions);
    sm_workspace_free(w);
    sm_network_free(network);
    return rc;
}

/* A network of a flat array, which changes. */
static int score_what_changes(job *j)
{
    const golden *g = j->g;
    const size_t count = g->checkpoint->layout.count;
    float *params = malloc(count * sizeof(*params));
    assert_non_null(params);
    memcpy(params, g->checkpoint->params, count * sizeof(*params));
    const sm_numbers numbers = {.params = params};
    sm_network *network;
    int rc = sm_network_new(&network, j->device, j->dtype, &g->checkpoint->layout, &numbers, false, &j->error);
    sm_workspace *w = rc == SM_OK ? sm_workspace_new(network, SM_KEEP_NOTHING) : NULL;
    for (int i = 0; rc == SM_OK && i < 2; i++) {
        rc = sm_score(network, w, g->groups, g->group_count, g->logps, NULL, &j->error);
        note(&j->made, g->logps[0], g->groups[0].completions[0].count * sizeof(float));
        for (size_t k = 0; k < count; k++)
            params[k] *= 1.125f;
        if (rc == SM_OK)
            rc = sm_network_refresh(network, &j->error);
    }
    sm_workspace_free(w);
    sm_network_free(network);
    free(params);
    return rc;
}

/* --- training --- */

static int slopes(void *context, const float *const *logps, float *const *d_logps)
{
    const golden *g = context;
    for (size_t i = 0, k = 0; i < g->group_count; i++)
        for (size_t c = 0; c < g->groups[i].completion_count; c++, k++)
            for (size_t t = 0; t < g->groups[i].completions[c].count; t++)
                d_logps[k][t] = (c % 2 ? 1.0f : -0.5f) / (1 + logps[k][t] * logps[k][t]);
    return 0;
}

static int value_slopes(void *context, const float *const *values, float *const *d_values)
{
    const golden *g = context;
    for (size_t k = 0; k < g->completions; k++)
        for (size_t o = 0; o < 2; o++)
            d_values[k][o] = (k % 2 ? 0.7f : -0.3f) + 0.1f * values[k][o];
    return 0;
}

static int note_training(job *j, sm_training *t)
{
    const size_t count = sm_training_layout(t)->count;
    const sm_numbers numbers = sm_training_params(t);
    float *params = calloc(count, sizeof(*params)), *gradients = calloc(count, sizeof(*gradients));
    assert_true(params && gradients);
    int rc = sm_numbers_read(&numbers, 0, count, params, &j->error);
    if (rc == SM_OK)
        rc = sm_training_gradients(t, gradients, &j->error);
    note(&j->made, params, count * sizeof(*params));
    note(&j->made, gradients, count * sizeof(*gradients));
    free(params);
    free(gradients);
    return rc;
}

static int step(job *j, sm_training *t, double lr)
{
    sluice_step_info info;
    const int rc = sm_training_step(t, lr, 0.5, &info, &j->error);
    if (rc == SM_OK) {
        note(&j->made, &info.grad_norm, sizeof(info.grad_norm));
        note(&j->made, &info.clipped, sizeof(info.clipped));
        note(&j->made, &info.skipped, sizeof(info.skipped));
    }
    return rc;
}

static int gradient(job *j, sm_training *t)
{
    int result = 0;
    return sm_training_gradient(t, j->g->groups, j->g->group_count, slopes, (void *)(uintptr_t)j->g, &result,
                                &j->error);
}

static int values(job *j, sm_training *t)
{
    int result = 0;
    return sm_training_gradient(t, j->g->groups, j->g->group_count, value_slopes, (void *)(uintptr_t)j->g, &result,
                                &j->error);
}

/* The state in a file, the file noted, taken over by a training that begins. */
static int suspend_and_resume(job *j, sm_training *t, sm_training *fresh)
{
    char *path = folder_path(j->folder, "state");
    size_t size = 0;
    unlink(path);
    int rc = sm_training_suspend(t, path, &j->error);
    if (rc == SM_OK) {
        char *bytes = file_read(path, &size);
        note(&j->made, bytes, size);
        free(bytes);
        rc = sm_training_resume(fresh, path, &j->error);
    }
    free(path);
    return rc;
}

/* As a published folder, of which the weights are noted. */
static int publish(job *j, sm_training *t)
{
    char below[200];
    snprintf(below, sizeof(below), "model/%s", j->name);
    char *to = folder_path(j->folder, "published"), *source = golden_path(below), *file;
    const sm_numbers numbers = sm_training_params(t);
    size_t size = 0;
    const int rc = sm_checkpoint_save(to, sm_training_layout(t), &numbers, KN_F32, source, &j->error);
    if (rc == SM_OK) {
        char *bytes = file_read(file = folder_path(to, "model.safetensors"), &size);
        note(&j->made, bytes, size);
        free(bytes);
        free(file);
        folder_remove(to);
    } else {
        free(to);
    }
    free(source);
    return rc;
}

static const sluice_optimizer optimizer = {.size = sizeof(optimizer),
                                           .beta1 = 0.9,
                                           .beta2 = 0.999,
                                           .epsilon = 1e-8,
                                           .weight_decay = 0.1,
                                           .max_grad_norm = 0.5,
                                           .dropout = 0.1,
                                           .seed = 4};

static int begin(job *j, bool recompute, sm_training **t)
{
    const sm_numbers numbers = sm_checkpoint_numbers(j->g->checkpoint);
    sluice_optimizer o = optimizer;
    o.recompute = recompute;
    return sm_training_new(t, j->device, j->dtype, &j->g->checkpoint->layout, &numbers, &o, &j->error);
}

static int train(job *j)
{
    const golden *g = j->g;
    const sm_numbers numbers = sm_checkpoint_numbers(g->checkpoint);
    sm_training *t, *fresh = NULL;
    double distance = 0;
    int rc = begin(j, false, &t);
    for (int i = 0; rc == SM_OK && i < 2; i++)
        if ((rc = gradient(j, t)) == SM_OK)
            rc = step(j, t, 1e-2);
    if (rc == SM_OK && (rc = begin(j, true, &fresh)) == SM_OK)
        rc = suspend_and_resume(j, t, fresh);
    if (rc == SM_OK && (rc = gradient(j, fresh)) == SM_OK &&
        (rc = sm_training_score(fresh, g->groups, g->group_count, g->logps, &j->error)) == SM_OK)
        rc = step(j, fresh, 1e-2);
    if (rc == SM_OK && (rc = sm_training_distance(fresh, &numbers, &distance, &j->error)) == SM_OK) {
        note(&j->made, &distance, sizeof(distance));
        note(&j->made, g->logps[0], g->groups[0].completions[0].count * sizeof(float));
        if ((rc = note_training(j, fresh)) == SM_OK)
            rc = publish(j, fresh);
    }
    sm_training_free(fresh);
    sm_training_free(t);
    return rc;
}

static int train_reward(job *j, bool frozen)
{
    const golden *g = j->g;
    const sm_numbers numbers = sm_checkpoint_numbers(g->checkpoint);
    sluice_optimizer o = optimizer;
    o.head_outputs = 2;
    o.freeze_body = frozen;
    sm_training *t;
    float **rewards = calloc(g->completions, sizeof(*rewards));
    assert_non_null(rewards);
    for (size_t k = 0; k < g->completions; k++)
        rewards[k] = calloc(2, sizeof(float));
    int rc = sm_training_new_reward(&t, j->device, j->dtype, &g->checkpoint->layout, &numbers, NULL, &o, &j->error);
    for (int i = 0; rc == SM_OK && i < 2; i++)
        if ((rc = values(j, t)) == SM_OK && (rc = values(j, t)) == SM_OK)
            rc = step(j, t, 1e-2);
    if (rc == SM_OK)
        rc = sm_training_score_values(t, g->groups, g->group_count, rewards, &j->error);
    for (size_t k = 0; k < g->completions; k++) {
        note(&j->made, rewards[k], 2 * sizeof(float));
        free(rewards[k]);
    }
    if (rc == SM_OK)
        rc = note_training(j, t);
    free(rewards);
    sm_training_free(t);
    return rc;
}

static int everything(job *j)
{
    int rc = score_and_sample(j);
    if (rc == SM_OK)
        rc = score_what_changes(j);
    if (rc == SM_OK)
        rc = train(j);
    for (int frozen = 0; rc == SM_OK && frozen < 2; frozen++)
        rc = train_reward(j, frozen);
    return rc;
}

/* --- tests ----------------------------------------------------------------------------------------------------------
 */

static void a_far_device_gives_the_same_bits(void **state)
{
    for (const char *const *name = golden_models; *name; name++)
        for (kn_dtype dtype = KN_F32; dtype <= KN_BF16; dtype++) {
            golden g;
            golden_load(&g, *name);
            kn_device *cpu = kn_cpu_new(1, NULL, NULL), *far = far_device_new(cpu);
            char *folder = folder_new();
            job near_job = {cpu, dtype, &g, *name, folder}, far_job = {far, dtype, &g, *name, folder};
            if (everything(&near_job) != SM_OK)
                fail_msg("%s", near_job.error.text);
            if (everything(&far_job) != SM_OK)
                fail_msg("%s", far_job.error.text);
            assert_int_equal(near_job.made.size, far_job.made.size);
            assert_memory_equal(near_job.made.bytes, far_job.made.bytes, near_job.made.size);
            free(near_job.made.bytes);
            free(far_job.made.bytes);
            folder_remove(folder);
            far_device_free(far);
            kn_cpu_free(cpu);
            golden_free(&g);
        }
}

/* What waits for the device: one read of log-probabilities, and one of a step's norm. */
static void a_step_waits_twice(void **state)
{
    golden g;
    golden_load(&g, "grouped");
    kn_device *cpu = kn_cpu_new(1, NULL, NULL), *far = far_device_new(cpu);
    job j = {far, KN_F32, &g, "grouped", NULL};
    sm_training *t;
    assert_int_equal(begin(&j, false, &t), SM_OK);
    for (int i = 0; i < 2; i++) {
        const size_t before = far_device_reads(far);
        assert_int_equal(gradient(&j, t), SM_OK);
        assert_int_equal(far_device_reads(far) - before, 1);
        assert_int_equal(step(&j, t, 1e-2), SM_OK);
        assert_int_equal(far_device_reads(far) - before, 2);
        assert_int_equal(far_device_kept(far), i + 1);
    }
    sm_training_free(t);
    free(j.made.bytes);
    far_device_free(far);
    kn_cpu_free(cpu);
    golden_free(&g);
}

/* Two steps on a device with so much memory: what they made, and how many gradients took logits that were kept. */
static int limited(const golden *g, kn_device *cpu, size_t limit, trace *made, size_t *kept)
{
    kn_device *far = far_device_new(cpu);
    job j = {far, KN_F32, g, "grouped", NULL};
    far_device_limit(far, limit);
    sm_training *t;
    int rc = begin(&j, false, &t);
    for (int i = 0; rc == SM_OK && i < 2; i++)
        if ((rc = gradient(&j, t)) == SM_OK)
            rc = step(&j, t, 1e-2);
    if (rc == SM_OK)
        rc = note_training(&j, t);
    sm_training_free(t);
    *made = j.made;
    *kept = far_device_kept(far);
    far_device_free(far);
    return rc;
}

/* The least memory with which two steps succeed, or with which they keep their logits as well. */
static size_t least(const golden *g, kn_device *cpu, bool keeping)
{
    size_t without = 0, with = (size_t)64 << 20, kept;
    while (with - without > 1) {
        const size_t limit = without + (with - without) / 2;
        trace made;
        const int rc = limited(g, cpu, limit, &made, &kept);
        free(made.bytes);
        *(rc == SM_OK && (kept == 2 || !keeping) ? &with : &without) = limit;
    }
    return with;
}

/* Where there is no memory for logits, or for what lies beside them, they are made again: the same bits. */
static void logits_are_kept_where_there_is_memory(void **state)
{
    golden g;
    golden_load(&g, "grouped");
    kn_device *cpu = kn_cpu_new(1, NULL, NULL);
    const size_t enough = least(&g, cpu, false), keeping = least(&g, cpu, true);
    assert_true(enough < keeping);
    const size_t limit[] = {SIZE_MAX, keeping, keeping - 1, enough};
    trace made[4];
    for (int i = 0; i < 4; i++) {
        size_t kept;
        assert_int_equal(limited(&g, cpu, limit[i], &made[i], &kept), SM_OK);
        assert_true(i < 2 ? kept == 2 : kept < 2);
        assert_int_equal(made[i].size, made[0].size);
        assert_memory_equal(made[i].bytes, made[0].bytes, made[0].size);
    }
    for (int i = 0; i < 4; i++)
        free(made[i].bytes);
    kn_cpu_free(cpu);
    golden_free(&g);
}

/* Everything with a device prepared by `spoil`; calls made and the status. */
static int spoiled(const golden *g, void (*spoil)(kn_device *, size_t), size_t amount, size_t *calls, sm_error *error)
{
    kn_device *cpu = kn_cpu_new(1, NULL, NULL), *far = far_device_new(cpu);
    char *folder = folder_new();
    job j = {far, KN_F32, g, "grouped", folder};
    spoil(far, amount);
    const int rc = everything(&j);
    *calls = far_device_calls(far);
    *error = j.error;
    free(j.made.bytes);
    folder_remove(folder);
    far_device_free(far); /* nothing was left behind */
    kn_cpu_free(cpu);
    return rc;
}

static void a_device_that_breaks_is_told_of_whenever_it_does(void **state)
{
    golden g;
    golden_load(&g, "grouped");
    size_t all, calls;
    sm_error error;
    assert_int_equal(spoiled(&g, far_device_break, SIZE_MAX, &all, &error), SM_OK);
    for (size_t i = 0; i < 150; i++) { /* close to each other at the start, where things are made */
        const size_t at = i < 75 ? i : 75 + (all - 75) * (i - 75) / 75;
        if (spoiled(&g, far_device_break, at, &calls, &error) != SM_DEVICE)
            fail_msg("broken at call %zu of %zu: status %d, %s", at, all, error.code, error.text);
        assert_non_null(strstr(error.text, "stopped working"));
        assert_non_null(strstr(error.text, "made up by a test"));
    }
    golden_free(&g);
}

static void a_device_without_memory_is_told_of(void **state)
{
    golden g;
    golden_load(&g, "grouped");
    size_t calls;
    sm_error error;
    for (size_t limit = 0; limit < 400000; limit += 10000) {
        if (spoiled(&g, far_device_limit, limit, &calls, &error) != SM_NO_MEMORY)
            fail_msg("%zu bytes: status %d, %s", limit, error.code, error.text);
        assert_non_null(strstr(error.text, "out of memory"));
    }
    assert_int_equal(spoiled(&g, far_device_limit, (size_t)64 << 20, &calls, &error), SM_OK);
    golden_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_far_device_gives_the_same_bits),
        cmocka_unit_test(a_step_waits_twice),
        cmocka_unit_test(logits_are_kept_where_there_is_memory),
        cmocka_unit_test(a_device_that_breaks_is_told_of_whenever_it_does),
        cmocka_unit_test(a_device_without_memory_is_told_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
