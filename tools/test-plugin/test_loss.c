/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Losses: the derivative against differences, and numbers at their limits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/random.h>

#include "tools/test-plugin/host.h"
#include "tools/test-plugin/loss.h"
#include "tools/test-plugin/test.h"

#define LOSSES (1u << SLUICE_KIND_LOSS)

enum { ITEMS = 24 };

typedef struct checking {
    const sluice_loss_class *loss;
    void *self;
    tp_batch *batch;
    tp_report *report;
} checking;

static double loss_of(const checking *c, size_t item)
{
    if (tp_batch_call(c->loss, c->self, c->batch) < 0)
        return NAN;
    return c->loss->pairs != NULL ? c->batch->pair_grads.loss[item] : c->batch->token_grads.loss[item];
}

/* Moves one input and compares. Where the two one-sided differences disagree the loss has a corner, and none is right.
 */
static void compare(const checking *c, size_t item, double *input, double derivative, const char *what)
{
    const double x = *input, h = 1e-5 * fmax(1, fabs(x)), here = loss_of(c, item);
    *input = x + h;
    const double up = loss_of(c, item);
    *input = x - h;
    const double down = loss_of(c, item);
    *input = x;
    const double right = (up - here) / h, left = (here - down) / h, middle = (up - down) / (2 * h);
    const double scale = 1 + fabs(middle) + 1e-9 * fabs(here) / h;
    if (fabs(right - left) > 1e-3 * scale)
        return;
    if (!(fabs(derivative - middle) <= 1e-5 * scale + 1e-11 * fabs(here) / h))
        tp_fail(c->report, "d loss / d %s is %.9g, but moving it changes the loss by %.9g", what, derivative, middle);
}

static void check_pairs(const checking *c)
{
    tp_batch *b = c->batch;
    double chosen[ITEMS], rejected[ITEMS], cv[ITEMS * TP_LOSS_HEADS], rv[ITEMS * TP_LOSS_HEADS];
    loss_of(c, 0);
    memcpy(chosen, b->pair_grads.d_chosen, sizeof chosen);
    memcpy(rejected, b->pair_grads.d_rejected, sizeof rejected);
    memcpy(cv, b->pair_grads.d_chosen_value, sizeof cv);
    memcpy(rv, b->pair_grads.d_rejected_value, sizeof rv);
    for (size_t i = 0; i < ITEMS; i++) {
        if (b->pairs.heads == 0) {
            compare(c, i, &b->chosen[i].policy, chosen[i], "chosen.policy");
            compare(c, i, &b->rejected[i].policy, rejected[i], "rejected.policy");
        }
        for (size_t h = 0; h < b->pairs.heads; h++) {
            const size_t at = i * b->pairs.heads + h;
            compare(c, i, &b->chosen_value[at], cv[at], "chosen_value");
            compare(c, i, &b->rejected_value[at], rv[at], "rejected_value");
        }
    }
}

static void check_tokens(const checking *c)
{
    tp_batch *b = c->batch;
    double *d = malloc((b->tokens + 1) * sizeof *d);
    if (d == NULL)
        return;
    loss_of(c, 0);
    memcpy(d, b->token_grads.d_policy, b->tokens * sizeof *d);
    for (size_t i = 0; i < b->count; i++)
        for (size_t t = b->sequences.offset[i]; t < b->sequences.offset[i + 1]; t++)
            compare(c, i, &b->policy[t], d[t], "policy");
    free(d);
}

/* With every choice and both values of every switch, one at a time. */
static void each_choice(tp_subject *s, tp_report *r, void (*check)(tp_subject *, tp_report *))
{
    char text[256];
    tp_doing(r, "its defaults");
    check(s, r);
    for (size_t i = 0; i < s->value_count; i++) {
        tp_value *v = &s->values[i], before = *v;
        const bool is_bool = v->param->type == SLUICE_TYPE_BOOL;
        if (is_bool || v->param->type == SLUICE_TYPE_CHOICE)
            for (v->number = 0; is_bool ? v->number < 2 : v->param->choices[(int)v->number] != NULL; v->number++) {
                tp_doing(r, "%s", tp_subject_text(s, text, sizeof text));
                check(s, r);
            }
        *v = before;
    }
}

static void check_derivative(tp_subject *s, tp_report *r)
{
    tp_outcome out = {0};
    tp_host host;
    tp_object object;
    checking c = {.loss = (const void *)s->type, .report = r};
    tp_host_init(&host, s, &(tp_work){0}, &out);
    if (tp_object_begin(&object, s, &host.public) >= 0) {
        c.self = object.self;
        c.batch = tp_batch_new(c.loss, s->seed, 0, ITEMS, TP_SIZE_USUAL);
        if (c.batch != NULL && c.loss->pairs != NULL)
            check_pairs(&c);
        else if (c.batch != NULL)
            check_tokens(&c);
        tp_batch_free(c.batch);
        tp_object_end(&object, s);
    }
    tp_host_end(&host);
    tp_outcome_free(&out);
}

static void derivative(tp_subject *s, tp_report *r)
{
    each_choice(s, r, check_derivative);
}

const tp_test tp_test_derivative = {"derivative", "the derivative is what finite differences say", TP_RUN, LOSSES,
                                    derivative};

/* ---- extremes */

static bool all_finite(const double *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static void check_size(tp_subject *s, tp_report *r, enum tp_size size, size_t count)
{
    tp_outcome out = {0};
    tp_host host;
    tp_object object;
    const sluice_loss_class *loss = (const void *)s->type;
    tp_host_init(&host, s, &(tp_work){0}, &out);
    if (tp_object_begin(&object, s, &host.public) >= 0) {
        tp_batch *b = tp_batch_new(loss, s->seed, 0, count, size);
        const int rc = b != NULL ? tp_batch_call(loss, object.self, b) : SLUICE_NO_MEMORY;
        const bool finite =
            rc < 0 || (loss->pairs != NULL
                           ? all_finite(b->pair_grads.loss, count) && all_finite(b->pair_grads.d_chosen, count) &&
                                 all_finite(b->pair_grads.d_rejected, count) &&
                                 all_finite(b->pair_grads.d_chosen_value, count * TP_LOSS_HEADS) &&
                                 all_finite(b->pair_grads.d_rejected_value, count * TP_LOSS_HEADS)
                           : all_finite(b->token_grads.loss, count) && all_finite(b->token_grads.d_policy, b->tokens));
        if (!finite && size == TP_SIZE_LARGE)
            tp_fail(r, "log-probabilities of -10^5 give a loss or derivative that is not finite");
        tp_batch_free(b);
        tp_object_end(&object, s);
    }
    tp_host_end(&host);
    tp_outcome_free(&out);
}

static void check_extremes(tp_subject *s, tp_report *r)
{
    check_size(s, r, TP_SIZE_USUAL, 0);
    check_size(s, r, TP_SIZE_LARGE, ITEMS);
    check_size(s, r, TP_SIZE_INFINITE, ITEMS);
    check_size(s, r, TP_SIZE_NAN, ITEMS);
}

static void extremes(tp_subject *s, tp_report *r)
{
    each_choice(s, r, check_extremes);
}

const tp_test tp_test_extremes = {"extremes", "an empty batch, huge, infinite and NaN log-probabilities do no harm",
                                  TP_RUN, LOSSES, extremes};
