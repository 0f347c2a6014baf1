/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/test-plugin/loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/random.h>

/* Uniform in [0, 1), a function of its arguments alone. */
static double draw(uint64_t seed, size_t item, size_t what)
{
    return (double)(sluice_mix(sluice_mix(seed, item), what) >> 11) * 0x1p-53;
}

static double logp(uint64_t seed, size_t item, size_t what, enum tp_size size)
{
    const double u = draw(seed, item, what);
    switch (size) {
    case TP_SIZE_LARGE:
        return -1e5 * u;
    case TP_SIZE_INFINITE:
        return u < 0.5 ? -INFINITY : -20 * u;
    case TP_SIZE_NAN:
        return u < 0.5 ? NAN : -20 * u;
    default:
        return -20 * u - 0.5;
    }
}

static sluice_answer answer(uint32_t needs, uint64_t seed, size_t item, size_t side, enum tp_size size)
{
    const bool values = needs & SLUICE_HEAD_VALUES;
    const double policy = logp(seed, item, 10 * side, size);
    /* A reference near the policy, as in training. */
    const double reference = isfinite(policy) && size == TP_SIZE_USUAL
                                 ? policy + 6 * draw(seed, item, 10 * side + 1) - 3
                                 : logp(seed, item, 10 * side + 1, size);
    return (sluice_answer){.policy = values ? 0 : policy,
                           .reference = !values && (needs & SLUICE_REFERENCE) ? reference : 0,
                           .sampler = !values && (needs & SLUICE_SAMPLER_LOGPS) ? policy - 0.1 : 0,
                           .length = 1 + (uint64_t)(20 * draw(seed, item, 10 * side + 2))};
}

static double value(uint64_t seed, size_t item, size_t what, enum tp_size size)
{
    const double u = 2 * draw(seed, item, what) - 1;
    return size == TP_SIZE_LARGE      ? 1e5 * u
           : size == TP_SIZE_INFINITE ? copysign(INFINITY, u)
           : size == TP_SIZE_NAN      ? NAN
                                      : 3 * u;
}

static bool pairs_new(tp_batch *b, const sluice_loss_class *loss, uint64_t seed, size_t first, enum tp_size size)
{
    const size_t n = b->count, values = n * TP_LOSS_HEADS;
    double *p = malloc((n + 1) * sizeof *p), *margin = calloc(n + 1, sizeof *margin);
    b->chosen = malloc((n + 1) * sizeof *b->chosen);
    b->rejected = malloc((n + 1) * sizeof *b->rejected);
    b->pair_grads = (sluice_pair_grads){.size = sizeof b->pair_grads,
                                        .loss = calloc(n + 1, sizeof(double)),
                                        .d_chosen = calloc(n + 1, sizeof(double)),
                                        .d_rejected = calloc(n + 1, sizeof(double)),
                                        .d_chosen_value = calloc(values + 1, sizeof(double)),
                                        .d_rejected_value = calloc(values + 1, sizeof(double))};
    b->chosen_value = malloc((values + 1) * sizeof(double));
    b->rejected_value = malloc((values + 1) * sizeof(double));
    const bool heads = loss->needs & SLUICE_HEAD_VALUES;
    b->pairs = (sluice_pairs){.size = sizeof b->pairs,
                              .count = n,
                              .chosen = b->chosen,
                              .rejected = b->rejected,
                              .p = p,
                              .margin = margin,
                              .progress = 0.25,
                              .heads = heads ? TP_LOSS_HEADS : 0,
                              .chosen_value = heads ? b->chosen_value : NULL,
                              .rejected_value = heads ? b->rejected_value : NULL};
    if (p == NULL || margin == NULL || b->chosen == NULL || b->rejected == NULL || b->chosen_value == NULL ||
        b->rejected_value == NULL || b->pair_grads.loss == NULL || b->pair_grads.d_chosen == NULL ||
        b->pair_grads.d_rejected == NULL || b->pair_grads.d_chosen_value == NULL ||
        b->pair_grads.d_rejected_value == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        const size_t item = first + i;
        b->chosen[i] = answer(loss->needs, seed, item, 1, size);
        b->rejected[i] = answer(loss->needs, seed, item, 2, size);
        const double u = draw(seed, item, 30);
        p[i] = item % 4 == 0 ? 1 : item % 9 == 1 ? 0 : u;
        margin[i] = item % 3 == 0 ? draw(seed, item, 31) : 0;
        for (size_t h = 0; h < TP_LOSS_HEADS; h++) {
            b->chosen_value[i * TP_LOSS_HEADS + h] = value(seed, item, 40 + h, size);
            b->rejected_value[i * TP_LOSS_HEADS + h] = value(seed, item, 50 + h, size);
        }
    }
    return true;
}

static size_t length_of(uint64_t seed, size_t item)
{
    return item % 7 == 3 ? 0 : 1 + (size_t)(6 * draw(seed, item, 3));
}

static bool sequences_new(tp_batch *b, const sluice_loss_class *loss, uint64_t seed, size_t first, enum tp_size size)
{
    for (size_t i = 0; i < b->count; i++)
        b->tokens += length_of(seed, first + i);
    const size_t n = b->tokens + 1;
    size_t *offset = malloc((b->count + 1) * sizeof *offset);
    double *reference = malloc(n * sizeof(double)), *sampler = malloc(n * sizeof(double));
    double *mask = malloc(n * sizeof(double)), *advantage = malloc((b->count + 1) * sizeof(double));
    b->policy = malloc(n * sizeof(double));
    b->token_grads = (sluice_token_grads){.size = sizeof b->token_grads,
                                          .loss = calloc(b->count + 1, sizeof(double)),
                                          .d_policy = calloc(n, sizeof(double))};
    b->sequences = (sluice_token_batch){.size = sizeof b->sequences,
                                        .count = b->count,
                                        .offset = offset,
                                        .policy = b->policy,
                                        .reference = reference,
                                        .sampler = sampler,
                                        .mask = mask,
                                        .advantage = advantage,
                                        .progress = 0.25};
    if (offset == NULL || reference == NULL || sampler == NULL || mask == NULL || advantage == NULL ||
        b->policy == NULL || b->token_grads.loss == NULL || b->token_grads.d_policy == NULL)
        return false;
    size_t at = 0;
    for (size_t i = 0; i < b->count; i++) {
        const size_t item = first + i, length = length_of(seed, item);
        offset[i] = at;
        advantage[i] = 4 * draw(seed, item, 4) - 2;
        for (size_t t = 0; t < length; t++, at++) {
            b->policy[at] = logp(seed, item, 100 + 4 * t, size) / 5;
            reference[at] = b->policy[at] + draw(seed, item, 101 + 4 * t) - 0.5;
            sampler[at] = b->policy[at] + draw(seed, item, 102 + 4 * t) / 2 - 0.25;
            mask[at] = t % 3 == 2 ? 0 : t % 5 == 4 ? 0.5 : 1;
        }
    }
    offset[b->count] = at;
    if (!(loss->needs & SLUICE_REFERENCE)) {
        free(reference);
        b->sequences.reference = NULL;
    }
    if (!(loss->needs & SLUICE_SAMPLER_LOGPS)) {
        free(sampler);
        b->sequences.sampler = NULL;
    }
    return true;
}

tp_batch *tp_batch_new(const sluice_loss_class *loss, uint64_t seed, size_t first, size_t count, enum tp_size size)
{
    tp_batch *b = calloc(1, sizeof *b);
    if (b == NULL)
        return NULL;
    b->count = count;
    if (loss->pairs != NULL ? pairs_new(b, loss, seed, first, size) : sequences_new(b, loss, seed, first, size))
        return b;
    tp_batch_free(b);
    return NULL;
}

void tp_batch_free(tp_batch *b)
{
    if (b == NULL)
        return;
    free(b->chosen);
    free(b->rejected);
    free((void *)(uintptr_t)b->pairs.p);
    free((void *)(uintptr_t)b->pairs.margin);
    free(b->chosen_value);
    free(b->rejected_value);
    free(b->pair_grads.loss);
    free(b->pair_grads.d_chosen);
    free(b->pair_grads.d_rejected);
    free(b->pair_grads.d_chosen_value);
    free(b->pair_grads.d_rejected_value);
    free(b->policy);
    free((void *)(uintptr_t)b->sequences.offset);
    free((void *)(uintptr_t)b->sequences.reference);
    free((void *)(uintptr_t)b->sequences.sampler);
    free((void *)(uintptr_t)b->sequences.mask);
    free((void *)(uintptr_t)b->sequences.advantage);
    free(b->token_grads.loss);
    free(b->token_grads.d_policy);
    free(b);
}

int tp_batch_call(const sluice_loss_class *loss, void *self, tp_batch *b)
{
    if (loss->pairs != NULL) {
        memset(b->pair_grads.loss, 0, b->count * sizeof(double));
        memset(b->pair_grads.d_chosen, 0, b->count * sizeof(double));
        memset(b->pair_grads.d_rejected, 0, b->count * sizeof(double));
        memset(b->pair_grads.d_chosen_value, 0, b->count * TP_LOSS_HEADS * sizeof(double));
        memset(b->pair_grads.d_rejected_value, 0, b->count * TP_LOSS_HEADS * sizeof(double));
        return loss->pairs(self, &b->pairs, &b->pair_grads);
    }
    memset(b->token_grads.loss, 0, b->count * sizeof(double));
    memset(b->token_grads.d_policy, 0, b->tokens * sizeof(double));
    return loss->tokens(self, &b->sequences, &b->token_grads);
}
