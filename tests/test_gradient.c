/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Where a gradient begins and ends: steps leave nothing to each other; and the next pass is one of the new weights. */
#include "tests/model_golden.h"
#include "tests/test_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/train.h"

static sm_error error;

static sm_training *begin(kn_device *device, kn_dtype dtype, const golden *g, const float *params, uint64_t moment_bits)
{
    const sluice_optimizer optimizer = {.size = sizeof(optimizer),
                                        .beta1 = 0.9,
                                        .beta2 = 0.999,
                                        .epsilon = 1e-8,
                                        .seed = 7,
                                        .moment_bits = moment_bits};
    const sm_numbers numbers = {.params = params};
    sm_training *t;
    if (sm_training_new(&t, device, dtype, &g->checkpoint->layout, &numbers, &optimizer, &error) != SM_OK)
        fail_msg("%s", error.text);
    return t;
}

static void add_gradient(sm_training *t, golden *g)
{
    int result;
    if (sm_training_gradient(t, g->groups, g->group_count, golden_likelihood, g, &result, &error) != SM_OK)
        fail_msg("%s", error.text);
}

static float *gathered(sm_training *t)
{
    assert_int_equal(sm_training_gather(t, &error), SM_OK);
    return golden_gradients(t);
}

/* The first pass of a step writes over what the last one left, whatever may lie there; a step without a pass has no
 * gradient; what was gathered is counted once. */
static void expect_nothing_left_of_the_last_step(kn_device *device, kn_dtype dtype, golden *g)
{
    const size_t count = g->checkpoint->layout.count;
    sm_training *t = begin(device, dtype, g, g->checkpoint->params, 32);
    sluice_step_info info;
    float *gradient[3];
    for (int i = 0; i < 2; i++) {
        add_gradient(t, g);
        gradient[i] = gathered(t);
        assert_int_equal(sm_training_step(t, 0, 1, &info, &error), SM_OK);
        assert_true(info.grad_norm > 0);
    }
    assert_memory_equal(gradient[0], gradient[1], count * sizeof(float));
    assert_int_equal(sm_training_step(t, 0, 1, &info, &error), SM_OK);
    assert_true(info.grad_norm == 0);
    gradient[2] = golden_gradients(t);
    for (size_t i = 0; i < count; i++)
        assert_true(gradient[2][i] == 0);
    free(gradient[2]);
    for (int i = 0; i < 2; i++) {
        add_gradient(t, g);
        gradient[2] = gathered(t);
        for (size_t k = 0; k < count; k++)
            gradient[2][k] /= (float)(i + 1);
        const double off = golden_difference(gradient[2], gradient[0], count);
        if (!(off <= 1e-5))
            fail_msg("the gradient is off by %g after %d passes", off, i + 1);
        free(gradient[2]);
    }
    free(gradient[0]);
    free(gradient[1]);
    sm_training_free(t);
}

/* On every device, in every type, of every model. */
static void each(void (*check)(kn_device *, kn_dtype, golden *))
{
    for (const char *const *name = golden_models; *name; name++) {
        golden g;
        golden_load(&g, *name);
        for (int number = 0; number < GOLDEN_DEVICES; number++) {
            kn_device *device = golden_device(number, 2);
            for (kn_dtype dtype = KN_F32; device && dtype <= golden_last_dtype(device); dtype++)
                check(device, dtype, &g);
            if (device)
                golden_device_free(number, device);
        }
        golden_free(&g);
    }
}

enum { MOST = 64 }; /* tokens of a completion */

/* Log-probabilities [completions][MOST]. */
static float *scores(sm_training *t, const golden *g, size_t completions)
{
    float *flat = calloc(completions * MOST, sizeof(*flat)), **logps = malloc(completions * sizeof(*logps));
    assert_true(flat && logps);
    for (size_t i = 0; i < completions; i++)
        logps[i] = flat + i * MOST;
    if (sm_training_score(t, g->groups, g->group_count, logps, &error) != SM_OK)
        fail_msg("%s", error.text);
    free(logps);
    return flat;
}

/* After a step the passes compute with the new weights: a training that begins from them says the same to the bit. */
static void expect_the_new_weights(kn_device *device, kn_dtype dtype, golden *g, uint64_t moment_bits)
{
    size_t completions = 0;
    for (size_t i = 0; i < g->group_count; i++)
        for (size_t c = 0; c < g->groups[i].completion_count; c++, completions++)
            assert_true(g->groups[i].completions[c].count <= MOST);
    sm_training *t = begin(device, dtype, g, g->checkpoint->params, moment_bits);
    float *before = scores(t, g, completions);
    for (int i = 0; i < 2; i++) {
        sluice_step_info info;
        add_gradient(t, g);
        if (sm_training_step(t, 1e-2, 1, &info, &error) != SM_OK)
            fail_msg("%s", error.text);
    }
    float *params = golden_params(t), *after = scores(t, g, completions);
    sm_training *again = begin(device, dtype, g, params, moment_bits);
    float *anew = scores(again, g, completions);
    assert_memory_not_equal(before, after, completions * MOST * sizeof(*after));
    assert_memory_equal(anew, after, completions * MOST * sizeof(*after));
    sm_training_free(t);
    sm_training_free(again);
    free(before);
    free(after);
    free(anew);
    free(params);
}

static void nothing_is_left_of_the_last_step(void **state)
{
    (void)state;
    each(expect_nothing_left_of_the_last_step);
}

static void wide_moments(kn_device *device, kn_dtype dtype, golden *g)
{
    expect_the_new_weights(device, dtype, g, 32);
}

static void narrow_moments(kn_device *device, kn_dtype dtype, golden *g)
{
    expect_the_new_weights(device, dtype, g, 16);
}

static void passes_follow_the_weights(void **state)
{
    (void)state;
    each(wide_moments);
    each(narrow_moments);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_left_of_the_last_step),
                                       cmocka_unit_test(passes_follow_the_weights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
