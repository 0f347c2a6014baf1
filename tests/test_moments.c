/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* AdamW with bfloat16 moments: half the memory, the expected value of float32's, and a training that goes on to the
 * bit. */
#include "tests/model_golden.h"
#include "tests/test_device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/bf16.h"
#include "model/train_state.h"
#include "tests/folders.h"

static sm_error error;

static sm_training *begin(kn_device *device, const golden *g, uint64_t moment_bits, uint64_t seed)
{
    const sluice_optimizer optimizer = {.size = sizeof(optimizer),
                                        .beta1 = 0.9,
                                        .beta2 = 0.999,
                                        .epsilon = 1e-8,
                                        .weight_decay = 0.1,
                                        .max_grad_norm = 1,
                                        .seed = seed,
                                        .moment_bits = moment_bits};
    const sm_numbers numbers = {.params = g->checkpoint->params};
    sm_training *t;
    if (sm_training_new(&t, device, KN_F32, &g->checkpoint->layout, &numbers, &optimizer, &error) != SM_OK)
        fail_msg("%s", error.text);
    return t;
}

static void step(sm_training *t, golden *g, int steps)
{
    sluice_step_info info;
    int result;
    for (int i = 0; i < steps; i++)
        if (sm_training_gradient(t, g->groups, g->group_count, golden_likelihood, g, &result, &error) != SM_OK ||
            sm_training_step(t, 1e-3, 0.25, &info, &error) != SM_OK)
            fail_msg("%s", error.text);
}

static void *from_device(const sm_training_parts *p, const void *array, size_t bytes)
{
    void *out = malloc(bytes);
    assert_non_null(out);
    if (sm_device_read(p->device, out, array, bytes, &error) != SM_OK)
        fail_msg("%s", error.text);
    return out;
}

/* Parameters and both moments. */
static void assert_same(sm_training *a, sm_training *b)
{
    const sm_training_parts p = sm_training_take_apart(a), q = sm_training_take_apart(b);
    const void *of_a[] = {p.params, p.moment, p.square}, *of_b[] = {q.params, q.moment, q.square};
    assert_int_equal(p.count, q.count);
    assert_int_equal(p.moment_bytes, q.moment_bytes);
    for (int i = 0; i < 3; i++) {
        const size_t bytes = p.count * (i == 0 ? sizeof(float) : p.moment_bytes);
        void *x = from_device(&p, of_a[i], bytes), *y = from_device(&q, of_b[i], bytes);
        assert_memory_equal(x, y, bytes);
        free(x);
        free(y);
    }
    assert_int_equal(*p.updates, *q.updates);
    assert_int_equal(*p.steps, *q.steps);
}

static void a_training_goes_on_to_the_bit(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    char *folder = folder_new(), *path = folder_path(folder, "bf16"), *wide = folder_path(folder, "float32");
    for (int number = 0; number < GOLDEN_DEVICES; number++) {
        kn_device *device = golden_device(number, 2);
        if (!device)
            continue;
        sm_training *whole = begin(device, &g, 16, 3), *fresh = begin(device, &g, 16, 3),
                    *other = begin(device, &g, 32, 3);
        const sm_training_parts p = sm_training_take_apart(whole);
        struct stat narrow, full;
        step(whole, &g, 3);
        step(other, &g, 3);
        assert_int_equal(sm_training_suspend(whole, path, &error), SM_OK);
        assert_int_equal(sm_training_suspend(other, wide, &error), SM_OK);
        assert_true(stat(path, &narrow) == 0 && stat(wide, &full) == 0);
        assert_int_equal(full.st_size - narrow.st_size, 4 * p.count);
        assert_int_equal(sm_training_resume(fresh, path, &error), SM_OK);
        step(whole, &g, 2);
        step(fresh, &g, 2);
        assert_same(whole, fresh);
        /* A file with moments of the other kind is no state of this training, and changes nothing. */
        assert_int_equal(sm_training_resume(fresh, wide, &error), SM_FORMAT);
        assert_int_equal(sm_training_resume(other, path, &error), SM_FORMAT);
        assert_same(whole, fresh);
        sm_training_free(whole);
        sm_training_free(fresh);
        sm_training_free(other);
        unlink(path);
        unlink(wide);
        golden_device_free(number, device);
    }
    free(path);
    free(wide);
    folder_remove(folder);
    golden_free(&g);
}

/* How far the mean over seeds is from float32, in units of the last place of bfloat16, as a root mean square. */
static double off_by(const uint16_t *const *narrow, const float *wide, size_t seeds, size_t count)
{
    double squares = 0;
    size_t counted = 0;
    for (size_t i = 0; i < count; i++) {
        double mean = 0;
        int exponent;
        if (wide[i] == 0)
            continue;
        for (size_t s = 0; s < seeds; s++)
            mean += (double)kn_widen(narrow[s][i]) / (double)seeds;
        frexp((double)wide[i], &exponent);
        const double units = (mean - (double)wide[i]) / ldexp(1, exponent - 8);
        squares += units * units;
        counted++;
    }
    assert_true(counted > count / 2);
    return sqrt(squares / (double)counted);
}

/* Rounded to the nearest, each would be off by 1/sqrt(12) = 0.29 units whatever the number of seeds; drawn, the mean of
 * 64 is off by sqrt(1/6 / 64) = 0.051. The second step adds what the first one's rounding left. */
static void the_expected_value_is_float32s(void **state)
{
    enum { SEEDS = 64 };
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    kn_device *device = golden_device(0, 2);
    if (!device)
        skip();
    sm_training *wide = begin(device, &g, 0, 0);
    uint16_t *moment[SEEDS], *square[SEEDS];
    step(wide, &g, 1);
    const sm_training_parts p = sm_training_take_apart(wide);
    for (uint64_t s = 0; s < SEEDS; s++) {
        sm_training *t = begin(device, &g, 16, s);
        step(t, &g, 1);
        const sm_training_parts q = sm_training_take_apart(t);
        moment[s] = from_device(&q, q.moment, q.count * sizeof(uint16_t));
        square[s] = from_device(&q, q.square, q.count * sizeof(uint16_t));
        sm_training_free(t);
    }
    float *m = from_device(&p, p.moment, p.count * sizeof(float)),
          *v = from_device(&p, p.square, p.count * sizeof(float));
    const double off_m = off_by((const uint16_t *const *)moment, m, SEEDS, p.count);
    const double off_v = off_by((const uint16_t *const *)square, v, SEEDS, p.count);
    print_message("the mean of %d is off by %.3f and %.3f units\n", SEEDS, off_m, off_v);
    assert_true(off_m < 0.065 && off_v < 0.065);
    for (int s = 0; s < SEEDS; s++) {
        free(moment[s]);
        free(square[s]);
    }
    free(m);
    free(v);
    sm_training_free(wide);
    golden_device_free(0, device);
    golden_free(&g);
}

/* Rounded to the nearest, v would stop once a step adds less than half a unit: after some 250 steps at the latest. With
 * a gradient that stays, v is g^2 (1 - 0.999^t). */
static void small_changes_count(void **state)
{
    enum { N = 4096, STEPS = 1500 };
    (void)state;
    kn_device *device = golden_device(0, 2);
    if (!device)
        skip();
    const kn_ops *ops = device->ops;
    float *host = calloc(N, sizeof(*host)), *w = ops->alloc(device, N * sizeof(*w)),
          *gradient = ops->alloc(device, N * sizeof(*w));
    uint16_t *m = ops->alloc(device, N * sizeof(*m)), *v = ops->alloc(device, N * sizeof(*v)),
             *narrow = calloc(N, sizeof(*narrow));
    assert_true(host && w && gradient && m && v && narrow);
    for (size_t i = 0; i < N; i++)
        host[i] = 1;
    assert_int_equal(ops->write(device, gradient, host, N * sizeof(*host)), KN_OK);
    assert_int_equal(ops->clear(device, w, N * sizeof(*w)) | ops->clear(device, m, N * sizeof(*m)) |
                         ops->clear(device, v, N * sizeof(*v)),
                     KN_OK);
    for (uint64_t t = 1; t <= STEPS; t++) {
        const kn_adamw a = {.lr = 0, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .step = t, .grad_scale = 1};
        const uint64_t key[2] = {1, t}, counter[2] = {0, 0};
        assert_int_equal(ops->adamw_bf16(device, w, m, v, gradient, N, &a, key, counter), KN_OK);
    }
    assert_int_equal(ops->read(device, narrow, v, N * sizeof(*narrow)), KN_OK);
    double mean = 0;
    for (size_t i = 0; i < N; i++)
        mean += (double)kn_widen(narrow[i]) / N;
    const double expected = 1 - pow((double)0.999f, STEPS);
    print_message("after %d steps v is %.4f, expected %.4f\n", STEPS, mean, expected);
    assert_true(fabs(mean / expected - 1) < 2e-3);
    ops->free(device, w);
    ops->free(device, gradient);
    ops->free(device, m);
    ops->free(device, v);
    free(host);
    free(narrow);
    golden_device_free(0, device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_training_goes_on_to_the_bit),
        cmocka_unit_test(the_expected_value_is_float32s),
        cmocka_unit_test(small_changes_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
