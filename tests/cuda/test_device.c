/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA device over the emulated runtime: what refuses to start says why, bytes go to the device and back whatever
 * the order of its work, memory ends with the numbers, steps become graphs, what stops working is named, and nothing is
 * left behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "emulate/control.h"
#include "kernels/cuda/cuda.h"

static int fresh(void **state)
{
    (void)state;
    unsetenv("SLUICE_CUDA_MEMORY");
    unsetenv("SLUICE_CUDA_WAIT");
    unsetenv("CUDA_VISIBLE_DEVICES");
    emulate_reset();
    return 0;
}

static kn_device *device_new(void)
{
    const char *why = NULL;
    kn_device *device = kn_cuda_new(0, &why);
    if (!device)
        fail_msg("%s", why);
    return device;
}

/* Frees it and looks at what is left. */
static void device_end(kn_device *device)
{
    kn_cuda_free(device);
    const emulate_counts left = emulate_count();
    assert_int_equal(left.allocations, 0);
    assert_int_equal(left.pinned, 0);
    assert_int_equal(left.streams, 0);
    assert_int_equal(left.events, 0);
    assert_int_equal(left.bytes, 0);
}

/* --- starting -------------------------------------------------------------------------------------------------------
 */

static void refused(int ordinal, const char *words)
{
    const char *why = NULL;
    kn_device *device = kn_cuda_new(ordinal, &why);
    assert_null(device);
    assert_non_null(why);
    if (!strstr(why, words) || strchr(why, '\n'))
        fail_msg("'%s' does not say '%s'", why, words);
}

static void what_cannot_start_says_why(void **state)
{
    emulate()->devices = 0;
    refused(0, "finds no GPU");
    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    refused(0, "CUDA_VISIBLE_DEVICES is empty");
    setenv("CUDA_VISIBLE_DEVICES", "7", 1);
    refused(0, "CUDA_VISIBLE_DEVICES=7 names no GPU");
    fresh(state);
    setenv("CUDA_VISIBLE_DEVICES", "0,0", 1);
    refused(0, "or one twice");
    fresh(state);
    emulate()->driver = 0;
    refused(0, "no NVIDIA driver");
    fresh(state);
    emulate()->driver = 12040;
    refused(0, "supports CUDA 12.4");
    fresh(state);
    emulate()->capability = 75;
    refused(0, "compute capability 7.5; 8.0 is needed");
    fresh(state);
    refused(3, "there is no GPU 3");
    fresh(state);
    emulate()->memory = 100000;
    refused(0, "GPU 0");
    fresh(state);
    emulate()->fail_pinned = 1;
    refused(0, "page-locked");
    fresh(state);
    setenv("SLUICE_CUDA_MEMORY", "lots", 1);
    refused(0, "write 24G, 512M or 80%");
    const emulate_counts left = emulate_count();
    assert_int_equal(left.allocations + left.pinned + left.streams + left.events, 0);
}

/* A value that says nothing is not taken for another, and empty is unset. */
static void settings_that_say_nothing_are_refused(void **state)
{
    static const struct {
        const char *name, *value, *words;
    } cases[] = {{"SLUICE_CUDA_WAIT", "yes", "SLUICE_CUDA_WAIT=yes is neither 0 nor 1"},
                 {"SLUICE_CUDA_INVARIANT", "2", "SLUICE_CUDA_INVARIANT=2 is neither 0 nor 1"},
                 {"SLUICE_CUDA_OVERLAP", "off", "SLUICE_CUDA_OVERLAP=off is neither 0 nor 1"},
                 {"SLUICE_CUDA_PRODUCTS", "Own", "write own or timed"},
                 {"SLUICE_CUDA_LOGITS_BYTES", "256M", "write digits"},
                 {"SLUICE_CUDA_LOGITS_BYTES", "-1", "write digits"},
                 {"SLUICE_CUDA_LOGITS_BYTES", "0", "write digits"},
                 {"SLUICE_CUDA_LOGITS_BYTES", "99999999999999999999", "write digits"}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        setenv(cases[i].name, cases[i].value, 1);
        refused(0, cases[i].words);
        setenv(cases[i].name, "", 1);
        device_end(device_new());
        unsetenv(cases[i].name);
    }
}

/* The gradient of the vocabulary is summed chunk by chunk. */
static void numerics_tell_how_many_logits_are_summed_at_once(void **state)
{
    static const struct {
        const char *memory, *logits, *part;
    } cases[] = {{"", "", "-logits134217728-"},
                 {"3G", "", "-logits67108864-"},
                 {"2G", "", "-logits67108864-"},
                 {"", "36000", "-logits36000-"}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        setenv("SLUICE_CUDA_MEMORY", cases[i].memory, 1);
        setenv("SLUICE_CUDA_LOGITS_BYTES", cases[i].logits, 1);
        kn_device *device = device_new();
        const char *told[] = {device->ops->numerics(device), device->ops_bf16->numerics(device)};
        for (int k = 0; k < 2; k++)
            if (!strstr(told[k], cases[i].part))
                fail_msg("'%s' does not say '%s'", told[k], cases[i].part);
        device_end(device);
    }
    unsetenv("SLUICE_CUDA_LOGITS_BYTES");
    unsetenv("SLUICE_CUDA_MEMORY");
}

static void one_context_for_several_devices_of_a_process(void **state)
{
    (void)state;
    kn_device *a = device_new(), *b = device_new();
    assert_int_equal(emulate_count().contexts, 1);
    assert_string_equal(a->ops->numerics(a), b->ops->numerics(b));
    assert_null(a->ops->error(a));
    kn_cuda_free(a);
    device_end(b);
}

/* --- bytes ----------------------------------------------------------------------------------------------------------
 */

static void bytes_come_back(void **state)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, (4 << 20) - 1, 4 << 20, (4 << 20) + 7, 19 << 20};
    /* the last is more than the ring holds */
    for (uint64_t seed = 0; seed < 4; seed++) {
        fresh(state);
        emulate()->seed = seed;
        kn_device *device = device_new();
        const kn_ops *ops = device->ops;
        for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
            const size_t n = sizes[s];
            unsigned char *from = malloc(n + 1), *to = malloc(n + 1);
            unsigned char *x = ops->alloc(device, n), *y = ops->alloc(device, n + 8);
            assert_non_null(x);
            assert_non_null(y);
            for (size_t i = 0; i < n; i++)
                from[i] = (unsigned char)(i * 2654435761u >> 13);
            assert_int_equal(ops->write(device, x, from, n), KN_OK);
            memset(to, 1, n + 1);
            if (n > 0)
                memset(from, 0, n); /* the caller's array is the caller's again */
            assert_int_equal(ops->clear(device, y, n + 8), KN_OK);
            assert_int_equal(ops->copy(device, y, x, n), KN_OK);
            ops->free(device, x);
            assert_int_equal(ops->read(device, to, y, n), KN_OK);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(to[i], (unsigned char)(i * 2654435761u >> 13));
            assert_int_equal(to[n], 1);
            ops->free(device, y);
            free(from);
            free(to);
        }
        device_end(device);
    }
}

/* Arrays of indices through many ops: several times what the ring holds, and the last again and again. */
static void index_arrays_are_sent_once_and_never_overwritten_too_early(void **state)
{
    enum { ROWS = 700, D = 4, VOCAB = 50, TIMES = 3000 };
    for (uint64_t seed = 0; seed < 3; seed++) {
        fresh(state);
        emulate()->seed = seed;
        kn_device *device = device_new();
        const kn_ops *ops = device->ops;
        static float table[VOCAB][D], out[ROWS][D], wanted[ROWS];
        uint32_t token[ROWS];
        float *t = ops->alloc(device, sizeof(table)), *y = ops->alloc(device, sizeof(out)),
              *sum = ops->alloc(device, sizeof(out));
        memset(wanted, 0, sizeof(wanted));
        for (int v = 0; v < VOCAB; v++)
            for (int k = 0; k < D; k++)
                table[v][k] = (float)(10 * v + k);
        assert_int_equal(ops->write(device, t, table, sizeof(table)), KN_OK);
        assert_int_equal(ops->clear(device, sum, sizeof(out)), KN_OK);
        for (uint32_t time = 0; time < TIMES; time++) { /* no two alike; whole numbers, whose sums are exact */
            for (uint32_t r = 0; r < ROWS; r++) {
                token[r] = ((r + 1) * (time + 1) * 2654435761u >> 16) % VOCAB;
                wanted[r] += (float)(10 * token[r] + 1);
            }
            assert_int_equal(ops->embed(device, y, t, token, ROWS, D), KN_OK);
            assert_int_equal(ops->add(device, sum, y, ROWS * D), KN_OK);
        }
        assert_int_equal(ops->read(device, out, sum, sizeof(out)), KN_OK);
        for (int r = 0; r < ROWS; r++)
            assert_true(out[r][1] == wanted[r]);
        const uint64_t before = emulate_count().copies;
        for (int time = 0; time < 20; time++)
            assert_int_equal(ops->embed(device, y, t, token, ROWS, D), KN_OK);
        assert_true(emulate_count().copies - before <= 1);
        assert_int_equal(emulate_count().pageable, 0);
        ops->free(device, t);
        ops->free(device, y);
        ops->free(device, sum);
        device_end(device);
    }
}

/* --- memory ---------------------------------------------------------------------------------------------------------
 */

typedef struct hoard {
    kn_device *device;
    void *kept;
    int asked;
} hoard;

static bool give(void *arg, size_t bytes)
{
    hoard *h = arg;
    assert_true(bytes > 0);
    h->asked++;
    h->device->ops->free(h->device, h->kept);
    const bool gave = h->kept != NULL;
    h->kept = NULL;
    return gave;
}

static void memory_ends_with_the_numbers(void **state)
{
    (void)state;
    setenv("SLUICE_CUDA_MEMORY", "32M", 1);
    kn_device *device = device_new();
    const kn_ops *ops = device->ops;
    kn_memory_use use;
    assert_null(ops->refusal(device));
    hoard h = {.device = device, .kept = ops->alloc(device, 12 << 20)};
    assert_non_null(h.kept);
    assert_int_equal(kn_cuda_on_pressure(device, give, &h), KN_OK);
    assert_int_equal(ops->memory(device, &use), KN_OK);
    assert_int_equal(use.limit, 32 << 20);
    assert_true(use.used >= 12 << 20 && use.high >= use.used && use.reserved >= use.used && use.total > use.limit);

    void *first = ops->alloc(device, 24 << 20); /* together too much: the hoard gives */
    assert_non_null(first);
    assert_int_equal(h.asked, 1);
    assert_null(h.kept);
    assert_null(ops->alloc(device, 20 << 20));
    assert_int_equal(h.asked, 2);
    assert_non_null(strstr(ops->refusal(device), "20.0 MiB asked for"));
    assert_non_null(strstr(ops->refusal(device), "SLUICE_CUDA_MEMORY allows 32.0 MiB"));
    assert_null(ops->alloc(device, SIZE_MAX));
    assert_null(ops->error(device)); /* a refusal is no failure */
    void *second = ops->alloc(device, 1 << 20);
    assert_non_null(second);
    kn_cuda_no_pressure(device, give, &h);
    ops->free(device, first);
    ops->free(device, second);
    ops->free(device, NULL);
    device_end(device);
}

static void a_full_device_refuses_and_goes_on(void **state)
{
    (void)state;
    emulate()->memory = 64 << 20;
    kn_device *device = device_new();
    const kn_ops *ops = device->ops;
    void *held[64];
    size_t n = 0;
    while (n < 64 && (held[n] = ops->alloc(device, 4 << 20)))
        n++;
    assert_true(n > 8 && n < 16);
    assert_non_null(strstr(ops->refusal(device), "of 64.0 MiB free on GPU 0"));
    ops->free(device, held[--n]);
    held[n] = ops->alloc(device, 4 << 20); /* what was freed is there again */
    assert_non_null(held[n]);
    for (size_t i = 0; i <= n; i++)
        ops->free(device, held[i]);
    emulate()->fail_allocation = 1; /* the first try fails, and the second finds memory */
    void *p = ops->alloc(device, 1 << 20);
    assert_non_null(p);
    ops->free(device, p);
    device_end(device);
}

/* --- steps ----------------------------------------------------------------------------------------------------------
 */

enum { STEP_ROWS = 8, STEP_D = 64 };

static void step(kn_device *device, bool whole, float *y, const float *table, float *sum, uint32_t token)
{
    const kn_ops *ops = device->ops;
    uint32_t tokens[STEP_ROWS];
    for (uint32_t r = 0; r < STEP_ROWS; r++)
        tokens[r] = (token + r) % STEP_ROWS;
    if (whole)
        assert_int_equal(ops->step_begin(device), KN_OK);
    assert_int_equal(ops->embed(device, y, table, tokens, STEP_ROWS, STEP_D), KN_OK);
    for (int layer = 0; layer < 5; layer++)
        assert_int_equal(ops->axpy(device, sum, 0.5f, y, STEP_ROWS * STEP_D), KN_OK);
    if (whole)
        assert_int_equal(ops->step_end(device), KN_OK);
}

static void steps_become_graphs_and_compute_the_same(void **state)
{
    static float table[STEP_ROWS * STEP_D], got[STEP_ROWS * STEP_D], wanted[STEP_ROWS * STEP_D];
    for (size_t i = 0; i < STEP_ROWS * STEP_D; i++)
        table[i] = (float)(i % 37);
    for (uint64_t seed = 0; seed < 4; seed++) {
        fresh(state);
        emulate()->seed = seed;
        kn_device *device = device_new();
        const kn_ops *ops = device->ops;
        float *t = ops->alloc(device, sizeof(table)), *y = ops->alloc(device, sizeof(table)),
              *sum = ops->alloc(device, sizeof(table)), *other = ops->alloc(device, sizeof(table));
        ops->write(device, t, table, sizeof(table));
        ops->clear(device, sum, sizeof(table));
        ops->clear(device, other, sizeof(table));
        uint64_t launches = 0;
        for (uint32_t i = 0; i < 12; i++) {
            const emulate_counts before = emulate_count();
            step(device, true, y, t, sum, i);
            if (i >= 2) { /* once as it came, once as the graph that was made of it */
                assert_int_equal(emulate_count().graph_launches - before.graph_launches, 1);
                assert_int_equal(emulate_count().launches, before.launches);
            }
            launches += emulate_count().graph_launches - before.graph_launches;
            step(device, false, y, t, other, i);
            if (i == 6) { /* another address: another step */
                float *moved = ops->alloc(device, sizeof(table));
                step(device, true, moved, t, sum, i);
                step(device, false, moved, t, other, i);
                ops->free(device, moved);
            }
        }
        assert_int_equal(launches, 11);
        assert_int_equal(ops->read(device, got, sum, sizeof(got)), KN_OK);
        assert_int_equal(ops->read(device, wanted, other, sizeof(wanted)), KN_OK);
        assert_memory_equal(got, wanted, sizeof(got));
        ops->free(device, t);
        ops->free(device, y);
        ops->free(device, sum);
        ops->free(device, other);
        device_end(device);
    }
}

/* Steps of which CUDA makes no graph: each list is tried once, a fourth is the last, and the results are the calls'. */
static void refused_graphs_are_not_asked_for_again(void **state)
{
    (void)state;
    static float table[STEP_ROWS * STEP_D], got[2][STEP_ROWS * STEP_D];
    for (size_t i = 0; i < STEP_ROWS * STEP_D; i++)
        table[i] = (float)(i % 37);
    kn_device *device = device_new();
    kn_cuda *c = (kn_cuda *)device;
    const kn_ops *ops = device->ops;
    float *t = ops->alloc(device, sizeof(table)), *sum[2], *y[6];
    ops->write(device, t, table, sizeof(table));
    for (int i = 0; i < 6; i++)
        y[i] = ops->alloc(device, sizeof(table));
    for (int whole = 0; whole < 2; whole++) {
        sum[whole] = ops->alloc(device, sizeof(table));
        ops->clear(device, sum[whole], sizeof(table));
    }
    for (int list = 0; list < 6; list++) {
        emulate()->refuse_graph = list == 0  ? cudaErrorMemoryAllocation
                                  : list < 3 ? cudaErrorStreamCaptureUnsupported
                                  : list < 5 ? cudaErrorNotSupported
                                             : 0;
        const uint64_t before = emulate_count().captures;
        for (uint32_t i = 0; i < 10; i++)
            for (int whole = 0; whole < 2; whole++)
                step(device, whole == 1, y[list], t, sum[whole], i);
        const uint64_t tried = emulate_count().captures - before;
        assert_int_equal(tried, list == 0 ? 9 : list < 5 ? 1 : 0); /* memory may be there the next time */
        assert_int_equal(kn_cuda_graphs_note(c) != NULL, list > 0);
    }
    assert_int_equal(emulate_count().graph_launches, 0);
    assert_non_null(strstr(kn_cuda_graphs_note(c), "(operation not permitted when stream is capturing)"));
    assert_null(ops->error(device));
    for (int whole = 0; whole < 2; whole++)
        assert_int_equal(ops->read(device, got[whole], sum[whole], sizeof(got[whole])), KN_OK);
    assert_memory_equal(got[0], got[1], sizeof(got[0]));
    for (int i = 0; i < 6; i++)
        ops->free(device, y[i]);
    ops->free(device, sum[0]);
    ops->free(device, sum[1]);
    ops->free(device, t);
    device_end(device);
}

/* A result that is read, memory that is freed and a large array within a step: all in the order asked. */
static void a_step_may_be_interrupted(void **state)
{
    (void)state;
    static float one[100], got[100];
    kn_device *device = device_new();
    const kn_ops *ops = device->ops;
    float *x = ops->alloc(device, sizeof(one));
    for (int i = 0; i < 100; i++)
        one[i] = 1;
    for (int time = 0; time < 5; time++) {
        assert_int_equal(ops->step_begin(device), KN_OK);
        assert_int_equal(ops->step_begin(device), KN_BAD_ARGUMENT); /* not twice */
        float *y = ops->alloc(device, sizeof(one));
        ops->write(device, y, one, sizeof(one));
        ops->clear(device, x, sizeof(one));
        ops->add(device, x, y, 100);
        ops->read(device, got, x, sizeof(got));
        assert_true(got[99] == 1);
        ops->add(device, x, y, 100);
        ops->free(device, y);
        ops->add(device, x, x, 50);
        assert_int_equal(ops->step_end(device), KN_OK);
        ops->read(device, got, x, sizeof(got));
        assert_true(got[0] == 4 && got[99] == 2);
    }
    ops->free(device, x);
    device_end(device);
}

/* --- the end --------------------------------------------------------------------------------------------------------
 */

/* What was asked and not yet done is done before the memory it goes through is given back. */
static void a_device_is_freed_in_the_middle_of_its_work(void **state)
{
    static float numbers[3 << 20];
    for (uint64_t seed = 0; seed < 4; seed++) {
        fresh(state);
        emulate()->seed = seed;
        kn_device *device = device_new();
        const kn_ops *ops = device->ops;
        float *x = ops->alloc(device, sizeof(numbers));
        for (int i = 0; i < 3; i++) { /* the third time a graph */
            assert_int_equal(ops->step_begin(device), KN_OK);
            assert_int_equal(ops->embed(device, x, x, (const uint32_t[]){0, 1, 0}, 3, 64), KN_OK);
            assert_int_equal(ops->step_end(device), KN_OK);
        }
        assert_int_equal(ops->write(device, x, numbers, sizeof(numbers)), KN_OK);
        ops->free(device, x);
        device_end(device);
        assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
        assert_string_equal(emulate_fault(), "");
    }
}

/* --- failures -------------------------------------------------------------------------------------------------------
 */

static void what_stops_working_is_named_and_stays(void **state)
{
    static const struct {
        bool waits, steps;
        const char *words;
    } cases[] = {{false, false, "asked last"}, {true, false, "failed in (map_kernel"}, {false, true, "GPU 0"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        fresh(state);
        setenv("SLUICE_CUDA_WAIT", cases[i].waits ? "1" : "0", 1);
        kn_device *device = device_new();
        const kn_ops *ops = device->ops;
        float *x = ops->alloc(device, 400), got[100];
        ops->clear(device, x, 400);
        emulate()->fail_launch = 1;
        int status = KN_OK;
        if (cases[i].steps)
            assert_int_equal(ops->step_begin(device), KN_OK);
        ops->add(device, x, x, 100);
        status = ops->read(device, got, x, i == 0 ? 0 : 400); /* nothing to read: it waits all the same */
        if (cases[i].steps)
            ops->step_end(device);
        assert_int_equal(status, KN_DEVICE_FAILED);
        assert_non_null(ops->error(device));
        if (!strstr(ops->error(device), cases[i].words))
            fail_msg("'%s' does not say '%s'", ops->error(device), cases[i].words);
        assert_int_equal(ops->add(device, x, x, 100), KN_DEVICE_FAILED);
        assert_null(ops->alloc(device, 100));
        ops->free(device, x);
        kn_cuda_free(device); /* what the device held is gone with it */
    }
}

/* nvidia-smi does not count as CUDA_VISIBLE_DEVICES does: the GPU to reset is named by where it is. */
static void the_gpu_to_reset_is_named_by_its_place(void **state)
{
    (void)state;
    emulate()->devices = 3;
    setenv("CUDA_VISIBLE_DEVICES", "2,1", 1);
    for (int visible = 0; visible < 2; visible++) {
        const char *why = NULL,
                   *words = visible == 0 ? "nvidia-smi -r -i 0000:03:00.0)" : "nvidia-smi -r -i 0000:02:00.0)";
        kn_device *device = kn_cuda_new(visible, &why);
        assert_non_null(device);
        float *x = device->ops->alloc(device, 400), got[100];
        emulate()->fail_launch = 1;
        emulate()->launch_error = cudaErrorECCUncorrectable;
        device->ops->add(device, x, x, 100);
        assert_int_equal(device->ops->read(device, got, x, 400), KN_DEVICE_FAILED);
        if (!strstr(device->ops->error(device), words))
            fail_msg("'%s' does not say '%s'", device->ops->error(device), words);
        device->ops->free(device, x);
        kn_cuda_free(device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_cannot_start_says_why, fresh),
        cmocka_unit_test_setup(settings_that_say_nothing_are_refused, fresh),
        cmocka_unit_test_setup(numerics_tell_how_many_logits_are_summed_at_once, fresh),
        cmocka_unit_test_setup(one_context_for_several_devices_of_a_process, fresh),
        cmocka_unit_test_setup(bytes_come_back, fresh),
        cmocka_unit_test_setup(index_arrays_are_sent_once_and_never_overwritten_too_early, fresh),
        cmocka_unit_test_setup(memory_ends_with_the_numbers, fresh),
        cmocka_unit_test_setup(a_full_device_refuses_and_goes_on, fresh),
        cmocka_unit_test_setup(steps_become_graphs_and_compute_the_same, fresh),
        cmocka_unit_test_setup(refused_graphs_are_not_asked_for_again, fresh),
        cmocka_unit_test_setup(a_step_may_be_interrupted, fresh),
        cmocka_unit_test_setup(a_device_is_freed_in_the_middle_of_its_work, fresh),
        cmocka_unit_test_setup(what_stops_working_is_named_and_stays, fresh),
        cmocka_unit_test_setup(the_gpu_to_reset_is_named_by_its_place, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
