/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the kernels share: random buffers, the devices of this machine, comparisons. */
#ifndef KERNELS_TEST_H
#define KERNELS_TEST_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <math.h>
#include <cmocka.h>

#include "kernels/ops.h"
#include "kernels_staged.h"
#include "sluice/random.h"
#include "test_device.h"

/* Sizes that are no multiple of any block of the kernels, and some that are. */
static const size_t ragged_rows[] = {1, 2, 3, 5, 13, 14, 15, 40, 64, 97, 130};
#define RAGGED_ROWS (sizeof(ragged_rows) / sizeof(ragged_rows[0]))

static inline void *test_memory(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p)
        abort();
    return p;
}

/* n numbers about -scale … scale, a function of seed alone. */
static inline float *test_floats(size_t n, float scale, uint64_t seed)
{
    float *x = test_memory(n * sizeof(float));
    const uint64_t key[2] = {seed, 0}, counter[2] = {0, 0};
    for (size_t i = 0; i < n; i++)
        x[i] = scale * (2 * sluice_uniform_float(sluice_random_item(key, counter, (uint32_t)i)) - 1);
    return x;
}

static inline float *test_copy(const float *x, size_t n)
{
    float *y = test_memory(n * sizeof(float));
    memcpy(y, x, n * sizeof(float));
    return y;
}

static inline uint32_t *test_tokens(size_t n, uint32_t vocab, uint64_t seed)
{
    uint32_t *x = test_memory(n * sizeof(*x));
    const uint64_t key[2] = {seed, 0}, counter[2] = {0, 0};
    for (size_t i = 0; i < n; i++)
        x[i] = sluice_random_item(key, counter, (uint32_t)i) % vocab;
    return x;
}

/* Fails where any |a - b| exceeds tolerance · (the largest |b| + tiny). */
static inline void assert_near(const char *what, const float *a, const float *b, size_t n, double tolerance)
{
    double largest = 1e-30;
    for (size_t i = 0; i < n; i++)
        largest = fabs((double)b[i]) > largest ? fabs((double)b[i]) : largest;
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - b[i]) <= tolerance * largest))
            fail_msg("%s: element %zu of %zu is %.9g, expected %.9g (largest %.3g)", what, i, n, (double)a[i],
                     (double)b[i], largest);
}

static inline void assert_same_bits(const char *what, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof(float)) != 0)
            fail_msg("%s: element %zu of %zu differs: %.9g and %.9g", what, i, n, (double)a[i], (double)b[i]);
}

/* Calls f with a CPU device of every instruction set this machine has, or with the device that is asked for
 * (test_device.h), for arrays in host memory. */
static inline void each_isa(int threads, void (*f)(kn_device *, const char *isa))
{
    if (test_device_asked()->name) {
        kn_device *device = test_device_new(threads), *staged = staged_device(device, KN_F32);
        f(staged, test_device_asked()->name);
        staged_device_free(staged);
        test_device_free(device);
        return;
    }
    static const char *const names[] = {"plain", "avx2", "avx512", "neon"};
    size_t found = 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *why = NULL;
        kn_device *cpu = kn_cpu_new(threads, names[i], &why);
        if (!cpu) {
            assert_non_null(why);
            continue;
        }
        found++;
        f(cpu, names[i]);
        kn_cpu_free(cpu);
    }
    assert_true(found > 0);
}

#endif
