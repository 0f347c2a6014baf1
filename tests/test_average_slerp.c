/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * WARP's merge (model/average.h) against float64 in numpy (tests/golden/make_slerp.py), the paper's invariants, and
 * what has no angle. On the reference and the processor; with EMULATED on the emulated GPU.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/average.h"
#include "model/checkpoint.h"
#include "tests/folders.h"

#ifdef EMULATED
#include "kernels/cuda/cuda.h"
#endif

static sm_error error;
static kn_device *devices[2];

static int open_devices(void **state)
{
    const char *why = "";
    (void)state;
#ifdef EMULATED
    devices[0] = kn_cuda_new(0, &why);
    devices[1] = kn_reference_new();
#else
    devices[0] = kn_cpu_new(2, NULL, &why);
    devices[1] = kn_reference_new();
#endif
    if (!devices[0])
        print_error("%s\n", why);
    return devices[0] && devices[1] ? 0 : -1;
}

static int close_devices(void **state)
{
    (void)state;
#ifdef EMULATED
    kn_cuda_free(devices[0]);
#else
    kn_cpu_free(devices[0]);
#endif
    kn_reference_free(devices[1]);
    return 0;
}

static char *golden(const char *name)
{
    char path[240];
    snprintf(path, sizeof path, "checkpoint/%s", name);
    return golden_path(path);
}

static sm_checkpoint *load(const char *dir)
{
    sm_checkpoint *checkpoint;
    if (sm_checkpoint_load(&checkpoint, dir, &error) != SM_OK || sm_checkpoint_params(checkpoint, &error) != SM_OK)
        fail_msg("%s", error.text);
    return checkpoint;
}

/* Three models of one shape, and a folder for more. */
typedef struct models {
    char *dir, *base_dir;
    sm_checkpoint *base, *second, *third;
    size_t count;
} models;

static models models_new(void)
{
    char *second = golden("second"), *third = golden("bf16-third");
    models m = {.dir = folder_new(), .base_dir = golden("tied"), .second = load(second), .third = load(third)};
    m.base = load(m.base_dir);
    m.count = m.base->layout.count;
    free(second);
    free(third);
    return m;
}

static void models_free(models *m)
{
    sm_checkpoint_free(m->base);
    sm_checkpoint_free(m->second);
    sm_checkpoint_free(m->third);
    free(m->base_dir);
    folder_remove(m->dir);
}

static char *save(const models *m, const char *name, const float *params)
{
    const sm_numbers numbers = {.params = params};
    char *to = folder_path(m->dir, name);
    if (sm_checkpoint_save(to, &m->base->layout, &numbers, KN_F32, m->base_dir, &error) != SM_OK)
        fail_msg("%s", error.text);
    return to;
}

static int merge(const models *m, kn_device *device, const char *const *dir, size_t count, double eta, char **to)
{
    static int number;
    char name[40];
    snprintf(name, sizeof name, "merged-%d", number++);
    *to = folder_path(m->dir, name);
    const sm_average average = {
        .method = SM_AVERAGE_SLERP, .dir = dir, .count = count, .mu = eta, .device = device, .dtype = KN_F32};
    return sm_average_write(*to, &average, &error);
}

/* The result's parameters, in new memory. */
static float *merged(const models *m, kn_device *device, const char *const *dir, size_t count, double eta)
{
    char *to;
    if (merge(m, device, dir, count, eta, &to) != SM_OK)
        fail_msg("%s", error.text);
    sm_checkpoint *result = load(to);
    assert_int_equal(result->layout.count, m->count);
    float *values = malloc(m->count * sizeof *values);
    assert_non_null(values);
    memcpy(values, result->params, m->count * sizeof *values);
    sm_checkpoint_free(result);
    free(to);
    return values;
}

/* Numbers of the golden models are of size 1: a few roundings of float32. */
static void assert_close(const float *got, const float *expected, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)got[i] - (double)expected[i]) <= 5e-7 * (1 + fabs((double)expected[i]))))
            fail_msg("number %zu is %.9g instead of %.9g", i, (double)got[i], (double)expected[i]);
}

static void assert_golden(const float *got, size_t count, const char *name)
{
    size_t length;
    char *path = golden(name);
    float *expected = (float *)(void *)file_read(path, &length);
    assert_int_equal(length, count * sizeof *expected);
    assert_close(got, expected, count);
    free(expected);
    free(path);
}

static void is_numpys(void **state)
{
    (void)state;
    models m = models_new();
    float *fourth = malloc(m.count * sizeof *fourth);
    assert_non_null(fourth);
    for (size_t i = 0; i < m.count; i++)
        fourth[i] = m.base->params[i] / 2 - m.second->params[i] / 4;
    char *second = golden("second"), *third = golden("bf16-third"), *last = save(&m, "fourth", fourth);
    const char *const all[] = {m.base_dir, second, third, last};
    for (int d = 0; d < 2; d++) {
        float *two = merged(&m, devices[d], all, 3, 1), *three = merged(&m, devices[d], all, 4, 0.3);
        assert_golden(two, m.count, "slerp-2.values");
        assert_golden(three, m.count, "slerp-3.values");
        free(two);
        free(three);
    }
    free(second);
    free(third);
    free(last);
    free(fourth);
    models_free(&m);
}

/* --- invariants: the paper's, of equal lengths ------------------------------------------------------------- */

enum { LAYERS = 4 }; /* of the golden models: the embedding, two layers, the last norm */

static void bounds(const sm_layout *layout, size_t begin[LAYERS + 1])
{
    assert_int_equal(layout->config.layers, 2);
    begin[0] = 0;
    begin[1] = layout->layer[0].attention_norm;
    begin[2] = layout->layer[1].attention_norm;
    begin[3] = layout->norm;
    begin[4] = layout->count;
}

static double dot(const float *base, const float *a, const float *b, size_t from, size_t to)
{
    double sum = 0;
    for (size_t i = from; i < to; i++)
        sum += ((double)a[i] - (double)base[i]) * ((double)b[i] - (double)base[i]);
    return sum;
}

/* base + difference of `from`, which gets length `length` in each layer. */
static float *of_length(const models *m, const float *from, const size_t begin[LAYERS + 1], double length)
{
    const float *base = m->base->params;
    float *out = malloc(m->count * sizeof *out);
    assert_non_null(out);
    for (int l = 0; l < LAYERS; l++) {
        const double share = length / sqrt(dot(base, from, from, begin[l], begin[l + 1]));
        for (size_t i = begin[l]; i < begin[l + 1]; i++)
            out[i] = (float)((double)base[i] + share * ((double)from[i] - (double)base[i]));
    }
    return out;
}

static void keeps_the_length(void **state)
{
    (void)state;
    models m = models_new();
    size_t begin[LAYERS + 1];
    bounds(&m.base->layout, begin);
    const double length = 3;
    float *a = of_length(&m, m.second->params, begin, length), *b = of_length(&m, m.third->params, begin, length);
    char *dir_a = save(&m, "a", a), *dir_b = save(&m, "b", b), *mean_dir = folder_path(m.dir, "mean");
    const char *const both[] = {m.base_dir, dir_a, dir_b};
    const sm_average straight = {.method = SM_AVERAGE_MEAN, .dir = both + 1, .count = 2, .dtype = KN_F32};
    assert_int_equal(sm_average_write(mean_dir, &straight, &error), SM_OK);
    sm_checkpoint *mean = load(mean_dir);
    const float *base = m.base->params;
    for (int d = 0; d < 2; d++) {
        float *turned = merged(&m, devices[d], both, 3, 1), *part = merged(&m, devices[d], both, 3, 0.3);
        for (int l = 0; l < LAYERS; l++) {
            const size_t from = begin[l], to = begin[l + 1];
            const double cosine = dot(base, a, b, from, to) / (length * length);
            const double shorter = length * sqrt(1 - 2 * (1 - cosine) * (0.5 - 0.25));
            assert_true(fabs(sqrt(dot(base, turned, turned, from, to)) / length - 1) < 1e-6);
            assert_true(fabs(sqrt(dot(base, part, part, from, to)) / (0.3 * length) - 1) < 2e-6);
            assert_true(fabs(sqrt(dot(base, mean->params, mean->params, from, to)) / shorter - 1) < 1e-6);
            assert_true(shorter < 0.95 * length); /* the two are far apart, so that this says something */
        }
        free(turned);
        free(part);
    }
    sm_checkpoint_free(mean);
    free(a);
    free(b);
    free(dir_a);
    free(dir_b);
    free(mean_dir);
    models_free(&m);
}

/* --- no angle ----------------------------------------------------------------------------------------------------- */

static void without_an_angle_it_is_straight(void **state)
{
    (void)state;
    models m = models_new();
    const float *base = m.base->params, *second = m.second->params;
    float *expected = malloc(m.count * sizeof *expected), *other = malloc(m.count * sizeof *other);
    assert_true(expected && other);
    for (size_t i = 0; i < m.count; i++)
        other[i] = (float)(2 * (double)base[i] - (double)second[i]);
    char *dir = golden("second"), *opposite = save(&m, "opposite", other);
    const char *const same[] = {m.base_dir, dir, dir, dir}, *const still[] = {m.base_dir, m.base_dir, m.base_dir};
    const char *const half[] = {m.base_dir, dir, m.base_dir}, *const back[] = {m.base_dir, dir, opposite};
    for (int d = 0; d < 2; d++) {
        float *got = merged(&m, devices[d], same, 4, 1); /* parallel */
        assert_close(got, second, m.count);
        free(got);
        got = merged(&m, devices[d], same, 2, 0.25); /* one model */
        for (size_t i = 0; i < m.count; i++)
            expected[i] = (float)(0.75 * (double)base[i] + 0.25 * (double)second[i]);
        assert_close(got, expected, m.count);
        free(got);
        got = merged(&m, devices[d], half, 3, 1); /* one did not move */
        for (size_t i = 0; i < m.count; i++)
            expected[i] = (float)(0.5 * (double)base[i] + 0.5 * (double)second[i]);
        assert_close(got, expected, m.count);
        free(got);
        got = merged(&m, devices[d], back, 3, 1); /* opposite: they cancel */
        assert_close(got, base, m.count);
        free(got);
        got = merged(&m, devices[d], still, 3, 1); /* nobody moved: to the bit */
        assert_memory_equal(got, base, m.count * sizeof *got);
        free(got);
    }
    free(dir);
    free(opposite);
    free(expected);
    free(other);
    models_free(&m);
}

static void assert_refused(const models *m, const char *const *dir, size_t count, double eta, int code,
                           const char *words)
{
    char *to;
    assert_int_equal(merge(m, devices[0], dir, count, eta, &to), code);
    if (!strstr(error.text, words))
        fail_msg("'%s' instead of '%s'", error.text, words);
    free(to);
}

static void refuses(void **state)
{
    (void)state;
    models m = models_new();
    char *second = golden("second"), *untied = golden("untied");
    const char *const good[] = {m.base_dir, second}, *const other[] = {m.base_dir, second, untied};
    assert_refused(&m, good, 1, 1, SM_BAD_ARGUMENT, "a base and at least one model");
    assert_refused(&m, good, 2, 1.5, SM_BAD_ARGUMENT, "eta is 1.5");
    assert_refused(&m, good, 2, NAN, SM_BAD_ARGUMENT, "eta is");
    assert_refused(&m, other, 3, 1, SM_MISMATCH, "head_dim is 6");
    assert_int_equal(folder_count(m.dir), 0); /* and nothing was left behind */
    free(second);
    free(untied);
    models_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_numpys),
        cmocka_unit_test(keeps_the_length),
        cmocka_unit_test(without_an_angle_it_is_straight),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
