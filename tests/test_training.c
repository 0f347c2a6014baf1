/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Gradients against autograd, three AdamW steps of SFT, DPO and IPO against float64, and the same bits however a batch
 * is cut. */
#include "tests/model_golden.h"
#include "tests/test_device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/train.h"
#include "tests/amx_emulated.h"

static const sluice_optimizer plain_optimizer = {
    .size = sizeof(sluice_optimizer), .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .seed = 7};

static sm_training *begin_in(kn_device *device, kn_dtype dtype, const golden *g, const float *params,
                             const sluice_optimizer *optimizer)
{
    sm_error error = {0};
    sm_training *t;
    const sm_numbers numbers = {.params = params ? params : g->checkpoint->params};
    if (sm_training_new(&t, device, dtype, &g->checkpoint->layout, &numbers, optimizer, &error))
        fail_msg("%s", error.text);
    return t;
}

static sm_training *begin(kn_device *device, const golden *g, const float *params, const sluice_optimizer *optimizer)
{
    return begin_in(device, KN_F32, g, params, optimizer);
}

static void add_gradient(sm_training *t, const sluice_group *groups, size_t count, sm_derivative derivative,
                         void *context)
{
    sm_error error = {0};
    int result = 0;
    if (sm_training_gradient(t, groups, count, derivative, context, &result, &error) != SM_OK)
        fail_msg("%s", error.text);
}

/* --- the gradient ---------------------------------------------------------------------------------------------------
 */

/* The golden file's Σ c_t log p_t. `at` walks over the groups when they are given in several calls. */
typedef struct weighted_sum {
    const golden *g;
    size_t group, count;
} weighted_sum;

static int weighted_sum_derivative(void *context, const float *const *logps, float *const *d_logps)
{
    const weighted_sum *w = context;
    size_t k = 0;
    (void)logps;
    for (size_t i = w->group; i < w->group + w->count; i++) {
        const size_t from = i % w->g->group_count;
        const json_t *lists = json_object_get(json_array_get(json_object_get(w->g->json, "groups"), from), "weights");
        for (size_t c = 0; c < w->g->groups[from].completion_count; c++, k++)
            for (size_t t = 0; t < w->g->groups[from].completions[c].count; t++)
                d_logps[k][t] = (float)json_number_value(json_array_get(json_array_get(lists, c), t));
    }
    return 0;
}

/* The largest relative error of any tensor, its name in *worst. */
static double worst_tensor(const sm_layout *layout, const float *ours, const float *theirs, const char **worst)
{
    double largest = 0;
    for (size_t i = 0; i < layout->tensors; i++) {
        const sm_tensor *t = &layout->tensor[i];
        const double error = golden_difference(ours + t->offset, theirs + t->offset, t->count);
        if (!(error <= largest)) {
            largest = error;
            *worst = t->name;
        }
    }
    return largest;
}

static void the_gradient_is_that_of_autograd(void **state)
{
    (void)state;
    for (const char *const *name = golden_models; *name; name++) {
        golden g;
        golden_load(&g, *name);
        sm_checkpoint *expected = golden_folder(*name, "gradient");
        for (int number = 0; number < GOLDEN_DEVICES; number++) {
            kn_device *device = golden_device(number, 2);
            if (!device)
                continue;
            sm_training *t = begin(device, &g, NULL, &plain_optimizer);
            weighted_sum sum = {&g, 0, g.group_count};
            sm_error error;
            const char *worst = "";
            add_gradient(t, g.groups, g.group_count, weighted_sum_derivative, &sum);
            assert_int_equal(sm_training_gather(t, &error), SM_OK);
            float *gradient = golden_gradients(t);
            const double off = worst_tensor(&g.checkpoint->layout, gradient, expected->params, &worst);
            free(gradient);
            if (!(off <= 1e-4))
                fail_msg("%s, device %d: %s is off by %g", *name, number, worst, off);
            sm_training_free(t);
            golden_device_free(number, device);
        }
        sm_checkpoint_free(expected);
        golden_free(&g);
    }
}

/* Σ c_t log p_t as the training pass saw it. */
typedef struct seen_sum {
    weighted_sum sum;
    double loss;
} seen_sum;

static int seen_sum_derivative(void *context, const float *const *logps, float *const *d_logps)
{
    seen_sum *s = context;
    const golden *g = s->sum.g;
    size_t k = 0;
    weighted_sum_derivative(&s->sum, logps, d_logps);
    for (size_t i = 0; i < g->group_count; i++)
        for (size_t c = 0; c < g->groups[i].completion_count; c++, k++)
            for (size_t t = 0; t < g->groups[i].completions[c].count; t++)
                s->loss += (double)d_logps[k][t] * logps[k][t];
    return 0;
}

/* Loss at params + along·direction with the first step's dropout masks; the gradient there in `gradient` if given. */
static double loss_under_dropout(kn_device *device, const golden *g, const float *direction, double along,
                                 float *gradient)
{
    const size_t count = g->checkpoint->layout.count;
    sluice_optimizer optimizer = plain_optimizer;
    sm_error error;
    optimizer.dropout = 0.2;
    float *params = malloc(count * sizeof(float));
    assert_non_null(params);
    for (size_t i = 0; i < count; i++)
        params[i] = (float)(g->checkpoint->params[i] + (direction ? along * direction[i] : 0));
    sm_training *t = begin(device, g, params, &optimizer);
    seen_sum s = {{g, 0, g->group_count}, 0};
    add_gradient(t, g->groups, g->group_count, seen_sum_derivative, &s);
    assert_int_equal(sm_training_gather(t, &error), SM_OK);
    if (gradient)
        assert_int_equal(sm_training_gradients(t, gradient, &error), SM_OK);
    sm_training_free(t);
    free(params);
    return s.loss;
}

/* Along the gradient's own direction the loss must climb as steeply as the gradient is long. */
static void the_gradient_under_dropout_is_that_of_the_dropped_model(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    kn_device *device = golden_device(1, 2);
    const size_t count = g.checkpoint->layout.count;
    float *gradient = malloc(count * sizeof(float));
    assert_non_null(gradient);
    loss_under_dropout(device, &g, NULL, 0, gradient);
    double squares = 0;
    for (size_t i = 0; i < count; i++)
        squares += (double)gradient[i] * gradient[i];
    const double length = sqrt(squares), small = 1e-3 / length;
    const double climb = (loss_under_dropout(device, &g, gradient, small, NULL) -
                          loss_under_dropout(device, &g, gradient, -small, NULL)) /
                         (2 * small * length);
    if (!(fabs(climb / length - 1) < 0.01))
        fail_msg("the loss climbs by %g where the gradient says %g", climb, length);
    free(gradient);
    golden_device_free(1, device);
    golden_free(&g);
}

/* --- three steps ----------------------------------------------------------------------------------------------------
 */

enum loss { SFT, DPO, IPO };
static const char *const loss_folder[] = {"sft", "dpo", "ipo"};

/* What to get wrong on purpose: the test must notice. */
enum mistake { NO_MISTAKE, P_IGNORED, WEIGHT_IGNORED, NO_BIAS_CORRECTION };

typedef struct pairs {
    size_t count;
    sluice_group *groups; /* chosen, rejected (SFT: chosen alone) */
    double *p, *weight;
    double (*reference)[2];
    enum loss loss;
    double beta;
} pairs;

static void pairs_load(pairs *x, const golden *g, enum loss loss, enum mistake mistake)
{
    const json_t *list = json_object_get(g->json, "pairs");
    x->count = json_array_size(list);
    x->loss = loss;
    x->beta = json_number_value(json_object_get(g->json, "beta"));
    x->groups = calloc(x->count, sizeof(*x->groups));
    x->p = calloc(x->count, sizeof(*x->p));
    x->weight = calloc(x->count, sizeof(*x->weight));
    x->reference = calloc(x->count, sizeof(*x->reference));
    assert_true(x->groups && x->p && x->weight && x->reference);
    for (size_t i = 0; i < x->count; i++) {
        const json_t *pair = json_array_get(list, i);
        sluice_span *spans = calloc(2, sizeof(*spans));
        assert_non_null(spans);
        spans[0] = golden_span(json_object_get(pair, "chosen"));
        spans[1] = golden_span(json_object_get(pair, "rejected"));
        x->groups[i] = (sluice_group){golden_span(json_object_get(pair, "prompt")), spans, loss == SFT ? 1 : 2, i};
        x->p[i] = mistake == P_IGNORED ? 1 : json_number_value(json_object_get(pair, "p"));
        x->weight[i] = mistake == WEIGHT_IGNORED ? 1 : json_number_value(json_object_get(pair, "weight"));
    }
}

static void pairs_free(pairs *x)
{
    for (size_t i = 0; i < x->count; i++) {
        free((void *)(uintptr_t)x->groups[i].prompt.tokens);
        free((void *)(uintptr_t)x->groups[i].completions[0].tokens);
        free((void *)(uintptr_t)x->groups[i].completions[1].tokens);
        free((void *)(uintptr_t)x->groups[i].completions);
    }
    free(x->groups);
    free(x->p);
    free(x->weight);
    free(x->reference);
}

static double sum_of(const float *logps, size_t count)
{
    double sum = 0;
    for (size_t t = 0; t < count; t++)
        sum += logps[t];
    return sum;
}

/* d/dδ of -log σ(βδ) or of (δ - 1/2β)². */
static double slope(const pairs *x, double delta)
{
    if (x->loss == DPO)
        return -x->beta / (1 + exp(x->beta * delta));
    return 2 * (delta - 1 / (2 * x->beta));
}

static int pairs_derivative(void *context, const float *const *logps, float *const *d_logps)
{
    const pairs *x = context;
    for (size_t i = 0; i < x->count; i++) {
        const sluice_span *answer = x->groups[i].completions;
        const size_t answers = x->groups[i].completion_count;
        double d[2] = {0, 0};
        if (x->loss == SFT) {
            d[0] = -x->weight[i] / (double)answer[0].count;
        } else {
            const double delta = (sum_of(logps[2 * i], answer[0].count) - x->reference[i][0]) -
                                 (sum_of(logps[2 * i + 1], answer[1].count) - x->reference[i][1]);
            d[0] = x->weight[i] * (x->p[i] * slope(x, delta) - (1 - x->p[i]) * slope(x, -delta));
            d[1] = -d[0];
        }
        for (size_t k = 0; k < answers; k++)
            for (size_t t = 0; t < answer[k].count; t++)
                d_logps[answers * i + k][t] = (float)(d[k] / (double)x->count);
    }
    return 0;
}

/* Reference log-probabilities: the model's own before the first step. */
static void set_reference(pairs *x, sm_training *t)
{
    sm_error error = {0};
    float **logps = golden_room(x->groups, x->count);
    assert_int_equal(sm_training_score(t, x->groups, x->count, logps, &error), SM_OK);
    for (size_t i = 0; i < x->count && x->loss != SFT; i++)
        for (size_t k = 0; k < 2; k++)
            x->reference[i][k] = sum_of(logps[2 * i + k], x->groups[i].completions[k].count);
    golden_room_free(logps, x->count * (x->loss == SFT ? 1 : 2));
}

/* AdamW without bias correction, by hand on the training object's gradient: what a wrong optimizer would do. */
static void uncorrected_step(const golden *g, sm_training *t, float *params, double *m, double *v)
{
    const double lr = json_number_value(json_object_get(g->json, "lr"));
    const double clip = json_number_value(json_object_get(g->json, "clip"));
    const double decay = json_number_value(json_object_get(g->json, "decay"));
    const sm_layout *layout = &g->checkpoint->layout;
    float *gradient = golden_gradients(t);
    double norm = 0;
    for (size_t i = 0; i < layout->count; i++)
        norm += (double)gradient[i] * gradient[i];
    const double scale = sqrt(norm) > clip ? clip / (sqrt(norm) + 1e-6) : 1;
    for (size_t k = 0; k < layout->tensors; k++)
        for (size_t i = layout->tensor[k].offset; i < layout->tensor[k].offset + layout->tensor[k].count; i++) {
            const double x = gradient[i] * scale;
            m[i] = 0.9 * m[i] + 0.1 * x;
            v[i] = 0.999 * v[i] + 0.001 * x * x;
            const double keep = layout->tensor[k].rank > 1 ? 1 - lr * decay : 1;
            params[i] = (float)(params[i] * keep - lr * m[i] / (sqrt(v[i]) + 1e-8));
        }
    free(gradient);
}

/* ‖Δ−Δ*‖/‖Δ*‖ of the worst tensor after three steps. */
static double three_steps(kn_device *device, const char *name, enum loss loss, enum mistake mistake, const char **worst)
{
    golden g;
    golden_load(&g, name);
    sm_checkpoint *expected = golden_folder(name, loss_folder[loss]);
    const size_t count = g.checkpoint->layout.count;
    sluice_optimizer optimizer = plain_optimizer;
    optimizer.weight_decay = json_number_value(json_object_get(g.json, "decay"));
    optimizer.max_grad_norm = json_number_value(json_object_get(g.json, "clip"));
    pairs x;
    pairs_load(&x, &g, loss, mistake);
    float *params = malloc(count * sizeof(float));
    double *m = calloc(count, sizeof(*m)), *v = calloc(count, sizeof(*v));
    assert_true(params && m && v);
    memcpy(params, g.checkpoint->params, count * sizeof(float));
    sm_training *t = begin(device, &g, NULL, &optimizer);
    set_reference(&x, t);
    for (int step = 0; step < json_integer_value(json_object_get(g.json, "steps")); step++) {
        sm_error error = {0};
        sluice_step_info info;
        add_gradient(t, x.groups, x.count, pairs_derivative, &x);
        if (mistake == NO_BIAS_CORRECTION) {
            assert_int_equal(sm_training_gather(t, &error), SM_OK);
            uncorrected_step(&g, t, params, m, v);
            sm_training_free(t);
            t = begin(device, &g, params, &optimizer);
        } else {
            const double lr = json_number_value(json_object_get(g.json, "lr"));
            assert_int_equal(sm_training_step(t, lr, 1, &info, &error), SM_OK);
            assert_false(info.skipped);
        }
    }
    float *change = golden_params(t);
    for (size_t i = 0; i < count; i++)
        change[i] -= g.checkpoint->params[i];
    const double off = worst_tensor(&g.checkpoint->layout, change, expected->params, worst);
    sm_training_free(t);
    pairs_free(&x);
    free(params);
    free(change);
    free(m);
    free(v);
    sm_checkpoint_free(expected);
    golden_free(&g);
    return off;
}

static void three_adamw_steps_are_those_of_float64(void **state)
{
    (void)state;
    for (const char *const *name = golden_models; *name; name++)
        for (int number = 0; number < GOLDEN_DEVICES; number++)
            for (int loss = SFT; loss <= IPO; loss++) {
                kn_device *device = golden_device(number, 2);
                if (!device)
                    continue;
                const char *worst = "";
                const double off = three_steps(device, *name, (enum loss)loss, NO_MISTAKE, &worst);
                if (!(off <= 1e-3))
                    fail_msg("%s, %s, device %d: the change of %s is off by %g", *name, loss_folder[loss], number,
                             worst, off);
                golden_device_free(number, device);
            }
}

/* The tolerance is worth something only if it is far below what a mistake would show. */
static void the_steps_show_a_wrong_p_weight_or_bias_correction(void **state)
{
    (void)state;
    kn_device *device = golden_device(1, 2);
    const char *worst;
    assert_non_null(device);
    for (int loss = SFT; loss <= IPO; loss++) {
        if (loss != SFT)
            assert_true(three_steps(device, "grouped", (enum loss)loss, P_IGNORED, &worst) > 0.01);
        assert_true(three_steps(device, "grouped", (enum loss)loss, WEIGHT_IGNORED, &worst) > 0.01);
        assert_true(three_steps(device, "grouped", (enum loss)loss, NO_BIAS_CORRECTION, &worst) > 0.01);
    }
    golden_device_free(1, device);
}

/* --- the same bits --------------------------------------------------------------------------------------------------
 */

static void step(sm_training *t, double lr, double scale, sluice_step_info *info)
{
    sm_error error = {0};
    if (sm_training_step(t, lr, scale, info, &error) != SM_OK)
        fail_msg("%s", error.text);
}

/* How a training is cut up and what it keeps: none of it may change a bit. */
typedef struct cut {
    size_t together; /* groups a call */
    bool recompute;
} cut;

/* Parameters after two steps over `times` rounds of the groups. */
static float *trained(kn_device *device, kn_dtype dtype, const golden *g, size_t times, const cut *how, double dropout)
{
    const size_t total = g->group_count * times;
    sluice_optimizer optimizer = plain_optimizer;
    optimizer.dropout = dropout;
    optimizer.recompute = how->recompute;
    sm_training *t = begin_in(device, dtype, g, NULL, &optimizer);
    sluice_group *groups = malloc(total * sizeof(*groups));
    assert_non_null(groups);
    for (size_t i = 0; i < total; i++) {
        groups[i] = g->groups[i % g->group_count];
        groups[i].key = i;
    }
    for (int i = 0; i < 2; i++) {
        sluice_step_info info;
        for (size_t from = 0; from < total; from += how->together) {
            weighted_sum sum = {g, from, total - from < how->together ? total - from : how->together};
            add_gradient(t, groups + from, sum.count, weighted_sum_derivative, &sum);
        }
        step(t, 1e-2, 0.1, &info);
    }
    float *params = golden_params(t);
    free(groups);
    sm_training_free(t);
    return params;
}

enum { TIMES = 8 };

static void expect_same_bits_however_cut(kn_device *device, kn_dtype dtype, const golden *g)
{
    const size_t bytes = g->checkpoint->layout.count * sizeof(float);
    const cut all = {g->group_count * TIMES, false};
    float *whole = trained(device, dtype, g, TIMES, &all, 0.1);
    for (int threads = 1; threads <= 3; threads++) {
        device->ops->set_threads(device, threads);
        for (size_t together = 1; together <= 7; together += 3) {
            const cut how = {together, together == 4};
            float *pieces = trained(device, dtype, g, TIMES, &how, 0.1);
            assert_memory_equal(whole, pieces, bytes);
            free(pieces);
        }
    }
    float *without = trained(device, dtype, g, TIMES, &all, 0);
    assert_memory_not_equal(whole, without, bytes);
    free(without);
    free(whole);
}

static void training_is_the_same_to_the_bit_however_it_is_cut(void **state)
{
    (void)state;
    if (!test_device_exact()) /* elsewhere a weight's gradient is summed by the call (kernels/ops.h, "One answer") */
        skip();
    for (const char *const *name = golden_models; *name; name++) {
        golden g;
        golden_load(&g, *name);
        for (int number = 0; number < GOLDEN_DEVICES; number++) {
            kn_device *device = golden_device(number, 1);
            if (!device)
                continue;
            for (kn_dtype dtype = KN_F32; dtype <= golden_last_dtype(device); dtype++)
                expect_same_bits_however_cut(device, dtype, &g);
            golden_device_free(number, device);
        }
        kn_device *amx = test_device_asked()->name ? NULL : amx_emulated_device(1);
        if (amx)
            expect_same_bits_however_cut(amx, KN_BF16, &g);
        kn_cpu_free(amx);
        golden_free(&g);
    }
}

/* --- the optimizer's edges ------------------------------------------------------------------------------------------
 */

static int infinite_derivative(void *context, const float *const *logps, float *const *d_logps)
{
    (void)context;
    (void)logps;
    d_logps[0][0] = INFINITY;
    return 0;
}

static int refusing_derivative(void *context, const float *const *logps, float *const *d_logps)
{
    (void)context;
    (void)logps;
    (void)d_logps;
    return SLUICE_BAD_RECORD;
}

static void a_gradient_that_is_not_finite_changes_nothing(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    kn_device *device = golden_device(1, 1);
    const size_t count = g.checkpoint->layout.count;
    sm_training *t = begin(device, &g, NULL, &plain_optimizer);
    sm_training *fresh = begin(device, &g, NULL, &plain_optimizer);
    sluice_step_info info;
    weighted_sum sum = {&g, 0, g.group_count};
    add_gradient(t, g.groups, 1, infinite_derivative, NULL);
    step(t, 1e-3, 1, &info);
    assert_true(info.skipped);
    float *params = golden_params(t);
    assert_memory_equal(params, g.checkpoint->params, count * sizeof(float));
    free(params);
    /* and nothing of it is left: the next step is a first step */
    add_gradient(t, g.groups, g.group_count, weighted_sum_derivative, &sum);
    add_gradient(fresh, g.groups, g.group_count, weighted_sum_derivative, &sum);
    step(t, 1e-3, 1, &info);
    assert_false(info.skipped);
    step(fresh, 1e-3, 1, &info);
    float *expected = golden_params(fresh);
    params = golden_params(t);
    assert_memory_equal(params, expected, count * sizeof(float));
    free(params);
    free(expected);
    sm_training_free(t);
    sm_training_free(fresh);
    golden_device_free(1, device);
    golden_free(&g);
}

static void the_callers_refusal_comes_back(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    kn_device *device = golden_device(1, 1);
    sm_training *t = begin(device, &g, NULL, &plain_optimizer);
    sm_error error = {0};
    int result = 0;
    assert_int_equal(sm_training_gradient(t, g.groups, 1, refusing_derivative, NULL, &result, &error), SM_CALLER);
    assert_int_equal(result, SLUICE_BAD_RECORD);
    float *gradient = golden_gradients(t);
    for (size_t i = 0; i < g.checkpoint->layout.count; i++)
        assert_true(gradient[i] == 0);
    free(gradient);
    sm_training_free(t);
    golden_device_free(1, device);
    golden_free(&g);
}

static void clipping_reports_the_norm_before_it(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "wide-heads");
    kn_device *device = golden_device(1, 1);
    sluice_optimizer optimizer = plain_optimizer;
    optimizer.max_grad_norm = 0.5;
    sm_training *t = begin(device, &g, NULL, &optimizer);
    weighted_sum sum = {&g, 0, g.group_count};
    sluice_step_info info;
    double norm = 0;
    add_gradient(t, g.groups, g.group_count, weighted_sum_derivative, &sum);
    float *gradient = golden_gradients(t);
    for (size_t i = 0; i < g.checkpoint->layout.count; i++)
        norm += (double)gradient[i] * gradient[i];
    free(gradient);
    step(t, 1e-3, 0.25, &info);
    assert_true(info.clipped);
    assert_true(fabs(info.grad_norm / (0.25 * sqrt(norm)) - 1) < 1e-12);
    sm_training_free(t);
    golden_device_free(1, device);
    golden_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_gradient_is_that_of_autograd),
        cmocka_unit_test(the_gradient_under_dropout_is_that_of_the_dropped_model),
        cmocka_unit_test(three_adamw_steps_are_those_of_float64),
        cmocka_unit_test(the_steps_show_a_wrong_p_weight_or_bias_correction),
        cmocka_unit_test(training_is_the_same_to_the_bit_however_it_is_cut),
        cmocka_unit_test(a_gradient_that_is_not_finite_changes_nothing),
        cmocka_unit_test(the_callers_refusal_comes_back),
        cmocka_unit_test(clipping_reports_the_norm_before_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
