/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of bfloat16, in every way this machine has of computing them: against float64 within the bound of float32
 * sums and one rounding; the same bits whatever the number of rows, their place, the threads and the cut of a batch;
 * the widened way has the same bits on all instruction sets with fused multiply-add.
 */
#include <stdbool.h>

#include "kernels/bf16.h"
#include "kernels_test.h"
#include "tests/amx_emulated.h"

static const struct {
    const char *isa, *wish;
} ways[] = {{"plain", "widened"}, {"avx2", "widened"}, {"neon", "widened"},   {"avx512", "widened"},
            {"avx512", "avx512"}, {"avx512", "amx"},   {"avx512", "emulated"}};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static kn_device *device_of(size_t way, int threads)
{
    const char *why = NULL;
    if (strcmp(ways[way].wish, "emulated") == 0)
        return amx_emulated_device(threads);
    setenv("SLUICE_CPU_BF16", ways[way].wish, 1);
    kn_device *device = kn_cpu_new(threads, ways[way].isa, &why);
    unsetenv("SLUICE_CPU_BF16");
    assert_true(device != NULL || why != NULL);
    return device;
}

static void each_way(int threads, void (*f)(kn_device *))
{
    for (size_t i = 0; i < WAYS; i++) {
        kn_device *device = device_of(i, threads);
        if (device) {
            f(device);
            kn_cpu_free(device);
        }
    }
}

static uint16_t *narrowed(float *x, size_t n)
{
    uint16_t *y = test_memory(n * sizeof(*y));
    for (size_t i = 0; i < n; i++)
        y[i] = kn_narrow(x[i]);
    return y;
}

static uint16_t *random_bf16(size_t n, float scale, uint64_t seed)
{
    float *x = test_floats(n, scale, seed);
    uint16_t *y = narrowed(x, n);
    free(x);
    return y;
}

/* One problem: W[out, in], x[T, in], dy[T, out], and what all ops make of them. */
typedef struct problem {
    size_t T, out, in;
    float *w, *bias;
    uint16_t *w16, *x, *dy, *residual;
    uint32_t *target;
    float *dlogprob;
} problem;

typedef struct answer {
    uint16_t *y, *plain, *dx, *more, *dh;
    float *dw, *db, *logits, *logprob, *lse, *entropy, *dw_head;
} answer;

static problem problem_new(size_t T, size_t out, size_t in)
{
    problem p = {.T = T, .out = out, .in = in, .w = test_floats(out * in, 0.5f, 1), .bias = test_floats(out, 1, 2)};
    p.w16 = narrowed(p.w, out * in);
    p.x = random_bf16(T * in, 1, 3);
    p.dy = random_bf16(T * out, 1, 4);
    p.residual = random_bf16(T * out, 2, 5);
    p.target = test_tokens(T, (uint32_t)out, 6);
    p.dlogprob = test_floats(T, 1, 7);
    return p;
}

static void problem_free(problem *p)
{
    free(p->w);
    free(p->bias);
    free(p->w16);
    free(p->x);
    free(p->dy);
    free(p->residual);
    free(p->target);
    free(p->dlogprob);
}

/* All ops, `cut` rows a call (0 = all at once). The first call writes the gradients over other numbers each time. */
static answer solve(kn_device *device, const problem *p, size_t cut)
{
    const kn_ops *o = device->ops_bf16;
    const size_t T = p->T, out = p->out, in = p->in;
    answer a = {.y = test_memory(T * out * 2),
                .plain = test_memory(T * out * 2),
                .dx = test_memory(T * in * 2),
                .more = random_bf16(T * in, 1, 8),
                .dh = test_memory(T * in * 2),
                .dw = test_floats(out * in, 1, 9 + cut),
                .db = test_floats(out, 1, 10 + cut),
                .logits = test_memory(T * out * 4),
                .logprob = test_memory(T * 4),
                .lse = test_memory(T * 4),
                .entropy = test_memory(T * 4),
                .dw_head = test_floats(out * in, 1, 11 + cut)};
    kn_matrix *m = o->matrix_new(device, out, in, true);
    assert_non_null(m);
    assert_int_equal(o->matrix_set(device, m, p->w), KN_OK);
    memcpy(a.y, p->residual, T * out * 2);
    for (size_t t = 0, n; t < T; t += n) {
        n = cut && cut < T - t ? cut : T - t;
        const uint16_t *x = p->x + t * in, *dy = p->dy + t * out;
        int bad = o->linear(device, a.y + t * out, x, m, p->bias, a.y + t * out, n);
        bad |= o->linear(device, a.plain + t * out, x, m, NULL, NULL, n);
        bad |= o->linear_backward_input(device, a.dx + t * in, dy, m, n, false);
        bad |= o->linear_backward_input(device, a.more + t * in, dy, m, n, true);
        bad |= o->linear_backward_weight(device, a.dw, a.db, dy, x, n, out, in, t > 0);
        bad |= o->logits(device, a.logits + t * out, x, m, n);
        bad |= o->logprob(device, a.logprob + t, a.lse + t, a.entropy + t, x, m, p->target + t, n, NULL);
        bad |= o->logprob_backward(device, a.dh + t * in, a.dw_head, p->dlogprob + t, x, m, a.lse + t, p->target + t, n,
                                   t > 0, NULL);
        assert_int_equal(bad, KN_OK);
    }
    o->matrix_free(device, m);
    return a;
}

static void answer_free(answer *a)
{
    free(a->y);
    free(a->plain);
    free(a->dx);
    free(a->more);
    free(a->dh);
    free(a->dw);
    free(a->db);
    free(a->logits);
    free(a->logprob);
    free(a->lse);
    free(a->entropy);
    free(a->dw_head);
}

/* --- against float64 --- */

/* |got - want| ≤ steps·2⁻²⁴·size, for a sum of `steps` terms whose absolute values sum to size; `rounded` adds half a
 * unit of bfloat16. */
static void check(const char *what, double got, double want, double size, size_t steps, bool rounded)
{
    const double bound = (double)(steps + 2) * size * 0x1p-24 + (rounded ? fabs(want) * 0x1p-8 * 1.01 : 0) + 1e-30;
    if (!(fabs(got - want) <= bound))
        fail_msg("%s: %.9g, expected %.9g within %.3g", what, got, want, bound);
}

/* Gradients of logits: float64 from the op's own lse, rounded as the op rounds them up to a few float32 units: so the
 * products are compared with a bound that has one unit of bfloat16 more. */
static void check_vocabulary(const problem *p, const answer *a)
{
    const size_t T = p->T, out = p->out, in = p->in;
    double *d = test_memory(T * out * sizeof(double));
    for (size_t t = 0; t < T; t++) {
        double max = -INFINITY, sum = 0, moment = 0;
        for (size_t v = 0; v < out; v++)
            max = fmax(max, a->logits[t * out + v]);
        for (size_t v = 0; v < out; v++) {
            const double l = a->logits[t * out + v] - max;
            sum += exp(l);
            moment += exp(l) * l;
        }
        const double lse = max + log(sum);
        check("lse", a->lse[t], lse, fabs(lse) + 1, 8, false);
        check("logprob", a->logprob[t], a->logits[t * out + p->target[t]] - lse, fabs(lse) + 20, 8, false);
        check("entropy", a->entropy[t], log(sum) - moment / sum, 20, 8, false);
        for (size_t v = 0; v < out; v++)
            d[t * out + v] = p->dlogprob[t] * ((v == p->target[t]) - exp(a->logits[t * out + v] - lse));
    }
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < in; i++) {
            double want = 0, size = 0;
            for (size_t v = 0; v < out; v++) {
                const double term = d[t * out + v] * kn_widen(p->w16[v * in + i]);
                want += term;
                size += fabs(term);
            }
            const double got = kn_widen(a->dh[t * in + i]), bound = size * 0x1.1p-8 + fabs(want) * 0x1p-8;
            if (!(fabs(got - want) <= bound))
                fail_msg("dh: %.9g, expected %.9g within %.3g", got, want, bound);
        }
    for (size_t v = 0; v < out; v++)
        for (size_t i = 0; i < in; i++) {
            double want = 0, size = 0;
            for (size_t t = 0; t < T; t++) {
                const double term = d[t * out + v] * kn_widen(p->x[t * in + i]);
                want += term;
                size += fabs(term);
            }
            if (!(fabs(a->dw_head[v * in + i] - want) <= size * 0x1.1p-8))
                fail_msg("dw of the vocabulary: %.9g, expected %.9g", (double)a->dw_head[v * in + i], want);
        }
    free(d);
}

static void compare(const problem *p, const answer *a)
{
    const size_t T = p->T, out = p->out, in = p->in;
    for (size_t t = 0; t < T; t++)
        for (size_t o = 0; o < out; o++) {
            double want = 0, size = 0;
            for (size_t k = 0; k < in; k++) {
                const double term = (double)kn_widen(p->x[t * in + k]) * kn_widen(p->w16[o * in + k]);
                want += term;
                size += fabs(term);
            }
            const double extra = (double)p->bias[o] + kn_widen(p->residual[t * out + o]);
            check("logits", a->logits[t * out + o], want, size, in, false);
            check("linear", kn_widen(a->plain[t * out + o]), want, size, in, true);
            check("linear with bias and residual", kn_widen(a->y[t * out + o]), want + extra, size + fabs(extra) + 3,
                  in, true);
        }
    uint16_t *before = random_bf16(T * in, 1, 8);
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < in; i++) {
            double want = 0, size = 0;
            for (size_t o = 0; o < out; o++) {
                const double term = (double)kn_widen(p->dy[t * out + o]) * kn_widen(p->w16[o * in + i]);
                want += term;
                size += fabs(term);
            }
            check("dx", kn_widen(a->dx[t * in + i]), want, size, out, true);
            check("dx added to", kn_widen(a->more[t * in + i]), want + kn_widen(before[t * in + i]), size + 1, out,
                  true);
        }
    free(before);
    for (size_t o = 0; o < out; o++) {
        double db = 0, db_size = 0;
        for (size_t t = 0; t < T; t++) {
            db += kn_widen(p->dy[t * out + o]);
            db_size += fabs((double)kn_widen(p->dy[t * out + o]));
        }
        check("db", a->db[o], db, db_size, T, false);
        for (size_t i = 0; i < in; i++) {
            double want = 0, size = 0;
            for (size_t t = 0; t < T; t++) {
                const double term = (double)kn_widen(p->dy[t * out + o]) * kn_widen(p->x[t * in + i]);
                want += term;
                size += fabs(term);
            }
            check("dw", a->dw[o * in + i], want, size, T, false);
        }
    }
    check_vocabulary(p, a);
}

static void compare_shapes(kn_device *device)
{
    static const size_t shape[][3] = {{1, 1, 1},    {2, 3, 5},      {3, 16, 2},   {5, 17, 31},
                                      {7, 33, 64},  {14, 48, 33},   {15, 31, 96}, {40, 65, 97},
                                      {29, 530, 7}, {6, 100, 1024}, {97, 20, 130}};
    for (size_t i = 0; i < sizeof(shape) / sizeof(shape[0]); i++) {
        problem p = problem_new(shape[i][0], shape[i][1], shape[i][2]);
        answer a = solve(device, &p, 0);
        compare(&p, &a);
        answer_free(&a);
        problem_free(&p);
    }
}

static void test_float64(void **state)
{
    each_way(1, compare_shapes);
    each_way(3, compare_shapes);
}

/* --- one answer --- */

static void assert_same(const char *what, const void *a, const void *b, size_t bytes)
{
    if (memcmp(a, b, bytes) != 0)
        fail_msg("%s: other bits", what);
}

static void assert_same_answer(const problem *p, const answer *a, const answer *b)
{
    const size_t T = p->T, out = p->out, in = p->in;
    assert_same("linear", a->plain, b->plain, T * out * 2);
    assert_same("linear with bias and residual", a->y, b->y, T * out * 2);
    assert_same("dx", a->dx, b->dx, T * in * 2);
    assert_same("dx added to", a->more, b->more, T * in * 2);
    assert_same("dw", a->dw, b->dw, out * in * 4);
    assert_same("db", a->db, b->db, out * 4);
    assert_same("logits", a->logits, b->logits, T * out * 4);
    assert_same("logprob", a->logprob, b->logprob, T * 4);
    assert_same("entropy", a->entropy, b->entropy, T * 4);
    assert_same("dh", a->dh, b->dh, T * in * 2);
    assert_same("dw of the vocabulary", a->dw_head, b->dw_head, out * in * 4);
}

static const size_t invariant_shape[][3] = {{33, 70, 50}, {530, 40, 37}, {19, 1100, 1024}, {9, 300, 2048}};

/* A cut falls after a whole group of rows. */
static void test_cuts_and_threads(void **state)
{
    static const size_t groups[] = {0, 1, 2, 7, 15, 256};
    for (size_t way = 0; way < WAYS; way++)
        for (size_t i = 0; i < sizeof(invariant_shape) / sizeof(invariant_shape[0]); i++) {
            kn_device *one = device_of(way, 1), *three = device_of(way, 3);
            if (!one)
                break;
            problem p = problem_new(invariant_shape[i][0], invariant_shape[i][1], invariant_shape[i][2]);
            answer whole = solve(one, &p, 0);
            for (size_t c = 0; c < 2 * sizeof(groups) / sizeof(groups[0]); c++) {
                const size_t cut = groups[c / 2] * one->ops_bf16->row_group(one);
                answer other = solve(c % 2 ? three : one, &p, cut);
                assert_same_answer(&p, &whole, &other);
                answer_free(&other);
            }
            answer_free(&whole);
            problem_free(&p);
            kn_cpu_free(one);
            kn_cpu_free(three);
        }
}

/* To the bit what the instructions are defined to do. */
static void test_amx_definition(void **state)
{
    kn_device *device = amx_emulated_device(2);
    if (!device) {
        print_message("skipped: no AVX-512\n");
        return;
    }
    static const size_t shape[][3] = {{1, 1, 1},   {15, 17, 31}, {16, 16, 32},  {17, 15, 33},   {31, 33, 64},
                                      {32, 32, 1}, {33, 48, 95}, {49, 100, 97}, {70, 31, 1024}, {5, 300, 2048}};
    for (size_t i = 0; i < sizeof(shape) / sizeof(shape[0]); i++) {
        const size_t T = shape[i][0], out = shape[i][1], in = shape[i][2];
        problem p = problem_new(T, out, in);
        answer a = solve(device, &p, 0);
        float *want = test_memory(T * out * sizeof(float));
        amx_define(want, p.x, p.w16, T, out, in);
        assert_same_bits("logits", a.logits, want, T * out);
        free(want);
        answer_free(&a);
        problem_free(&p);
    }
    kn_cpu_free(device);
}

/* Each row alone gives what it gives among others. */
static void rows_alone(kn_device *device)
{
    const kn_ops *o = device->ops_bf16;
    problem p = problem_new(45, 90, 70);
    answer a = solve(device, &p, 0);
    kn_matrix *m = o->matrix_new(device, p.out, p.in, true);
    o->matrix_set(device, m, p.w);
    uint16_t *y = test_memory(p.out * 2), *dx = test_memory(p.in * 2);
    for (size_t t = 0; t < p.T; t++) {
        float logprob, entropy;
        assert_int_equal(o->linear(device, y, p.x + t * p.in, m, NULL, NULL, 1), KN_OK);
        assert_int_equal(o->linear_backward_input(device, dx, p.dy + t * p.out, m, 1, false), KN_OK);
        assert_int_equal(o->logprob(device, &logprob, NULL, &entropy, p.x + t * p.in, m, p.target + t, 1, NULL), KN_OK);
        assert_same("a row of linear alone", y, a.plain + t * p.out, p.out * 2);
        assert_same("a row of dx alone", dx, a.dx + t * p.in, p.in * 2);
        assert_same("a row's logprob alone", &logprob, a.logprob + t, 4);
        assert_same("a row's entropy alone", &entropy, a.entropy + t, 4);
    }
    free(y);
    free(dx);
    o->matrix_free(device, m);
    answer_free(&a);
    problem_free(&p);
}

static void test_rows_alone(void **state)
{
    each_way(2, rows_alone);
}

static void test_widened_same_bits(void **state)
{
    problem p = problem_new(31, 77, 45);
    answer first;
    bool any = false;
    for (size_t way = 0; way < WAYS; way++) {
        kn_device *device = strcmp(ways[way].wish, "widened") == 0 ? device_of(way, 2) : NULL;
        if (!device)
            continue;
        if (strcmp(device->ops_bf16->numerics(device), "cpu-fma-own1-bf16") == 0) {
            answer a = solve(device, &p, 0);
            if (any) {
                assert_same_answer(&p, &first, &a);
                answer_free(&a);
            } else {
                first = a;
                any = true;
            }
        }
        kn_cpu_free(device);
    }
    if (any)
        answer_free(&first);
    problem_free(&p);
}

/* --- choosing --- */

static void test_wish(void **state)
{
    const char *why = NULL;
    setenv("SLUICE_CPU_BF16", "fast", 1);
    assert_null(kn_cpu_new(1, NULL, &why));
    assert_non_null(why);
    setenv("SLUICE_CPU_BF16", "avx512", 1);
    why = NULL;
    assert_null(kn_cpu_new(1, "plain", &why));
    assert_non_null(why);
    unsetenv("SLUICE_CPU_BF16");
}

static void backward_refused(kn_device *device)
{
    const kn_ops *o = device->ops_bf16;
    kn_matrix *m = o->matrix_new(device, 4, 4, false);
    uint16_t x[4] = {0};
    assert_int_equal(o->linear_backward_input(device, x, x, m, 1, false), KN_BAD_ARGUMENT);
    assert_int_equal(o->linear(device, x, x, m, NULL, NULL, 0), KN_OK);
    o->matrix_free(device, m);
}

static void test_backward_refused(void **state)
{
    each_way(1, backward_refused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float64),          cmocka_unit_test(test_cuts_and_threads),
        cmocka_unit_test(test_rows_alone),       cmocka_unit_test(test_widened_same_bits),
        cmocka_unit_test(test_amx_definition),   cmocka_unit_test(test_wish),
        cmocka_unit_test(test_backward_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
