/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "plugins/trainer/batch.h"

static const sluice_loss_class *loss_class(const batch *b)
{
    return (const sluice_loss_class *)(const void *)b->loss->type;
}

static double *numbers(batch *b, size_t count)
{
    if (count > b->number_room) {
        double *grown = realloc(b->numbers, count * sizeof *grown);
        if (!grown)
            return NULL;
        b->numbers = grown;
        b->number_room = count;
    }
    memset(b->numbers, 0, count * sizeof *b->numbers);
    return b->numbers;
}

static int out_of_memory(const batch *b)
{
    return sluice_error(b->host, SLUICE_NO_MEMORY,
                        "out of memory for a micro-batch of %zu examples; lower micro_tokens", b->count);
}

static double sum(const float *values, size_t count)
{
    double total = 0;
    for (size_t i = 0; i < count; i++)
        total += values[i];
    return total;
}

/* Rewards as TRL reports them: the loss's beta times the log-ratio. */
static void note_pair(batch *b, const sluice_answer *chosen, const sluice_answer *rejected)
{
    const sluice_loss_class *loss = loss_class(b);
    double scale = loss->reward_scale ? loss->reward_scale(b->loss->self) : 1;
    double w = scale * (chosen->policy - chosen->reference), l = scale * (rejected->policy - rejected->reference);
    b->sums->chosen_reward += w;
    b->sums->rejected_reward += l;
    b->sums->correct += w > l;
    b->sums->chosen_logp += chosen->policy;
    b->sums->rejected_logp += rejected->policy;
}

/* logps come as chosen, rejected, chosen, … */
static int derive_pairs(void *context, const float *const *logps, float *const *d_logps)
{
    batch *b = context;
    size_t n = b->count;
    sluice_answer *answers = calloc(2 * n, sizeof *answers);
    double *p = numbers(b, 5 * n);
    if (!answers || !p) {
        free(answers);
        return out_of_memory(b);
    }
    double *margin = p + n, *value = p + 2 * n, *d_chosen = p + 3 * n, *d_rejected = p + 4 * n;
    for (size_t i = 0; i < n; i++) {
        const example *x = &b->x[i];
        p[i] = x->p;
        margin[i] = x->margin;
        for (size_t a = 0; a < 2; a++)
            answers[a * n + i] =
                (sluice_answer){sum(logps[2 * i + a], x->count[a]), x->reference[a], x->sampler[a], x->count[a]};
    }
    sluice_pairs in = {.size = sizeof in,
                       .count = n,
                       .chosen = answers,
                       .rejected = answers + n,
                       .p = p,
                       .margin = margin,
                       .progress = b->progress};
    sluice_pair_grads out = {.size = sizeof out, .loss = value, .d_chosen = d_chosen, .d_rejected = d_rejected};
    int rc = loss_class(b)->pairs(b->loss->self, &in, &out);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        const example *x = &b->x[i];
        const float d[2] = {(float)(x->weight * d_chosen[i]), (float)(x->weight * d_rejected[i])};
        for (size_t a = 0; a < 2; a++)
            for (size_t t = 0; t < x->count[a]; t++)
                d_logps[2 * i + a][t] = d[a];
        b->sums->loss += x->weight * value[i];
        b->sums->divisor += 1;
        note_pair(b, &answers[i], &answers[n + i]);
    }
    free(answers);
    return rc;
}

/* Rewards of a reward model: its outputs, a mean where there are several. */
static int note_values(batch *b, const example *x, const double *chosen, const double *rejected)
{
    double w = 0, l = 0, center = 0;
    for (uint32_t h = 0; h < b->heads; h++) {
        if (!isfinite(chosen[h]) || !isfinite(rejected[h]))
            return sluice_error(b->host, SLUICE_FAILED,
                                "step %llu: the value of the %s answer of record '%s' is %g; lower lr or max_grad_norm",
                                (unsigned long long)b->step, isfinite(chosen[h]) ? "rejected" : "chosen", x->id,
                                isfinite(chosen[h]) ? rejected[h] : chosen[h]);
        w += chosen[h] / b->heads;
        l += rejected[h] / b->heads;
        center += (chosen[h] + rejected[h]) * (chosen[h] + rejected[h]) / b->heads;
    }
    b->sums->chosen_reward += w;
    b->sums->rejected_reward += l;
    b->sums->correct += w > l;
    b->sums->center += center;
    return SLUICE_OK;
}

/* Values come as chosen, rejected, chosen, …; `heads` each. */
static int derive_values(void *context, const float *const *values, float *const *d_values)
{
    batch *b = context;
    const size_t n = b->count, heads = b->heads, outputs = n * heads;
    sluice_answer *answers = calloc(2 * n, sizeof *answers);
    double *p = numbers(b, 5 * n + 4 * outputs);
    if (!answers || !p) {
        free(answers);
        return out_of_memory(b);
    }
    double *margin = p + n, *loss = p + 2 * n, *d_chosen = p + 3 * n, *d_rejected = p + 4 * n, *chosen = p + 5 * n,
           *rejected = chosen + outputs, *d_chosen_value = rejected + outputs,
           *d_rejected_value = d_chosen_value + outputs;
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        const example *x = &b->x[i];
        p[i] = x->p;
        margin[i] = x->margin;
        answers[i].length = x->count[0];
        answers[n + i].length = x->count[1];
        for (size_t h = 0; h < heads; h++) {
            chosen[i * heads + h] = values[2 * i][h];
            rejected[i * heads + h] = values[2 * i + 1][h];
        }
        rc = note_values(b, x, chosen + i * heads, rejected + i * heads);
    }
    sluice_pairs in = {.size = sizeof in,
                       .count = n,
                       .chosen = answers,
                       .rejected = answers + n,
                       .p = p,
                       .margin = margin,
                       .progress = b->progress,
                       .heads = heads,
                       .chosen_value = chosen,
                       .rejected_value = rejected};
    sluice_pair_grads out = {.size = sizeof out,
                             .loss = loss,
                             .d_chosen = d_chosen,
                             .d_rejected = d_rejected,
                             .d_chosen_value = d_chosen_value,
                             .d_rejected_value = d_rejected_value};
    if (rc >= 0)
        rc = loss_class(b)->pairs(b->loss->self, &in, &out);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        const double weight = b->x[i].weight;
        for (size_t h = 0; h < heads; h++) {
            d_values[2 * i][h] = (float)(weight * d_chosen_value[i * heads + h]);
            d_values[2 * i + 1][h] = (float)(weight * d_rejected_value[i * heads + h]);
        }
        b->sums->loss += weight * loss[i];
        b->sums->divisor += 1;
    }
    free(answers);
    return rc;
}

static int derive_sequences(void *context, const float *const *logps, float *const *d_logps)
{
    batch *b = context;
    const sluice_loss_class *loss = loss_class(b);
    size_t n = b->count, total = 0;
    for (size_t i = 0; i < n; i++) {
        b->offsets[i] = total;
        total += b->x[i].count[0];
    }
    b->offsets[n] = total;
    double *policy = numbers(b, 5 * total + n);
    if (!policy)
        return out_of_memory(b);
    double *reference = policy + total, *sampler = policy + 2 * total, *mask = policy + 3 * total,
           *d = policy + 4 * total, *value = policy + 5 * total;
    bool has_reference = n > 0 && b->x[0].has_reference, has_sampler = n > 0 && b->x[0].has_sampler;
    for (size_t i = 0; i < n; i++)
        for (size_t t = 0; t < b->x[i].count[0]; t++) {
            const example *x = &b->x[i];
            size_t at = b->offsets[i] + t;
            policy[at] = logps[i][t];
            mask[at] = x->mask[t];
            reference[at] = has_reference ? x->token_reference[t] : 0;
            sampler[at] = has_sampler ? x->token_sampler[t] : 0;
        }
    sluice_token_batch in = {.size = sizeof in,
                             .count = n,
                             .offset = b->offsets,
                             .policy = policy,
                             .mask = mask,
                             .reference = has_reference ? reference : NULL,
                             .sampler = has_sampler ? sampler : NULL,
                             .progress = b->progress};
    sluice_token_grads out = {.size = sizeof out, .loss = value, .d_policy = d};
    int rc = loss->tokens(b->loss->self, &in, &out);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        const example *x = &b->x[i];
        for (size_t t = 0; t < x->count[0]; t++) {
            d_logps[i][t] = (float)(x->weight * d[b->offsets[i] + t]);
            b->sums->divisor += loss->per == SLUICE_PER_TOKEN ? x->mask[t] : 0;
        }
        b->sums->loss += x->weight * value[i];
        b->sums->divisor += loss->per == SLUICE_PER_SEQUENCE;
    }
    return rc;
}

static bool make_room(batch *b, size_t count)
{
    if (count <= b->room)
        return true;
    example *x = realloc(b->x, count * sizeof *x);
    b->x = x ? x : b->x;
    sluice_group *groups = realloc(b->groups, count * sizeof *groups);
    b->groups = groups ? groups : b->groups;
    sluice_span *spans = realloc(b->spans, 2 * count * sizeof *spans);
    b->spans = spans ? spans : b->spans;
    size_t *offsets = realloc(b->offsets, (count + 1) * sizeof *offsets);
    b->offsets = offsets ? offsets : b->offsets;
    if (!x || !groups || !spans || !offsets)
        return false;
    b->room = count;
    return true;
}

/* Takes examples from the front of `order`, until the micro-batch is full. */
static void fill(batch *b, const uint32_t *order, size_t count)
{
    size_t tokens = 0;
    for (b->count = 0; b->count < count; b->count++) {
        size_t i = b->count;
        example *x = &b->x[i];
        examples_get(b->examples, order[i], x);
        size_t own = x->prompt_count + x->count[0] + (x->answer_count > 1 ? x->count[1] : 0);
        if (i > 0 && tokens + own > b->micro_tokens)
            break;
        tokens += own;
        sluice_span *spans = &b->spans[2 * i];
        for (uint32_t a = 0; a < x->answer_count; a++)
            spans[a] = (sluice_span){x->answer[a], x->count[a]};
        b->groups[i] = (sluice_group){.prompt = {x->prompt, x->prompt_count},
                                      .completions = spans,
                                      .completion_count = x->answer_count,
                                      .key = x->key};
    }
    b->sums->examples += b->count;
    b->sums->tokens += tokens;
    sluice_tokens(b->host, tokens);
}

/* The gradient of the micro-batch in hand. */
static int gradient(batch *b)
{
    if (b->heads > 0)
        return b->service->train_values(b->training, b->groups, b->count, derive_values, b);
    return b->service->train_gradient(b->training, b->groups, b->count,
                                      loss_class(b)->pairs ? derive_pairs : derive_sequences, b);
}

/* Loss and numbers of the micro-batch in hand; the derivatives are thrown away. */
static int measure(batch *b)
{
    size_t outputs = 0, total = 0, at = 0;
    for (size_t i = 0; i < b->count; i++)
        for (uint32_t a = 0; a < b->x[i].answer_count; a++, outputs++)
            total += b->heads > 0 ? b->heads : b->x[i].count[a];
    float **values = malloc(2 * (outputs + 1) * sizeof *values), *room = calloc(2 * total + 1, sizeof *room);
    if (!values || !room) {
        free(values);
        free(room);
        return out_of_memory(b);
    }
    float **derivatives = values + outputs;
    outputs = 0;
    for (size_t i = 0; i < b->count; i++)
        for (uint32_t a = 0; a < b->x[i].answer_count; a++, outputs++) {
            values[outputs] = room + at;
            derivatives[outputs] = room + total + at;
            at += b->heads > 0 ? b->heads : b->x[i].count[a];
        }
    int rc = b->heads > 0 ? b->service->train_score_values(b->training, b->groups, b->count, values)
                          : b->service->train_score(b->training, b->groups, b->count, values);
    const float *const *known = (const float *const *)values;
    if (rc >= 0)
        rc = b->heads > 0           ? derive_values(b, known, derivatives)
             : loss_class(b)->pairs ? derive_pairs(b, known, derivatives)
                                    : derive_sequences(b, known, derivatives);
    free(values);
    free(room);
    return rc;
}

static int each_micro_batch(batch *b, const uint32_t *order, size_t count, int (*work)(batch *))
{
    if (!make_room(b, count))
        return out_of_memory(b);
    for (size_t done = 0; done < count; done += b->count) {
        fill(b, order + done, count - done);
        int rc = work(b);
        if (rc < 0)
            return rc;
        if (sluice_cancelled(b->host))
            return SLUICE_CANCELLED;
    }
    return SLUICE_OK;
}

int batch_gradient(batch *b, const uint32_t *order, size_t count, uint64_t step, double progress, batch_sums *sums)
{
    b->step = step;
    b->progress = progress;
    b->sums = sums;
    return each_micro_batch(b, order, count, gradient);
}

int batch_measure(batch *b, const uint32_t *order, size_t count, uint64_t step, double progress, batch_sums *sums)
{
    b->step = step;
    b->progress = progress;
    b->sums = sums;
    return each_micro_batch(b, order, count, measure);
}

void batch_free(batch *b)
{
    free(b->x);
    free(b->groups);
    free(b->spans);
    free(b->offsets);
    free(b->numbers);
}
