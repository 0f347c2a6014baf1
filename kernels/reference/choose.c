/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * From a row of logits to a token, as the definition reads: sort, truncate, draw. Drawing is Gumbel-max (Maddison,
 * Tarlow, Minka 2014): the token with the largest logit + g, g = -log(-log(u)), u keyed by token id alone, so that a
 * small change of a logit changes few tokens.
 */
#include "reference.h"
#include "sluice/random.h"

#include <math.h>
#include <stdlib.h>

typedef struct entry {
    float logit;
    uint32_t token;
} entry;

/* Larger logit first, then smaller token. */
static int by_rank(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

static void penalize(float *logits, const kn_choice *c, bool *done, size_t vocab)
{
    for (size_t v = 0; v < vocab; v++)
        done[v] = false;
    for (size_t i = 0; i < c->seen_count; i++) {
        const uint32_t v = c->seen[i];
        if (v >= vocab || done[v])
            continue;
        done[v] = true;
        logits[v] = logits[v] > 0 ? logits[v] / c->repetition_penalty : logits[v] * c->repetition_penalty;
    }
    for (size_t i = 0; i < c->banned_count; i++)
        if (c->banned[i] < vocab)
            logits[c->banned[i]] = -INFINITY;
}

/* How many of the ranked entries top-k, top-p and min-p leave; at least one. */
static size_t truncate_ranked(const entry *e, size_t n, const kn_choice *c)
{
    if (c->top_k > 0 && c->top_k < n)
        n = c->top_k;
    if (c->top_p < 1) {
        double total = 0, sum = 0;
        for (size_t i = 0; i < n; i++)
            total += exp((double)e[i].logit - e[0].logit);
        size_t kept = 0;
        while (kept < n && sum < c->top_p * total)
            sum += exp((double)e[kept++].logit - e[0].logit);
        n = kept > 0 ? kept : 1;
    }
    if (c->min_p > 0) {
        size_t kept = 1;
        while (kept < n && exp((double)e[kept].logit - e[0].logit) >= c->min_p)
            kept++;
        n = kept;
    }
    return n;
}

static int choose_row(kn_chosen *chosen, float *logits, entry *e, bool *done, const kn_choice *c, size_t vocab)
{
    const double lse = kn_ref_lse(logits, vocab);
    float *const plain = malloc(vocab * sizeof(float)); /* before penalties: what the recorded log-probability is of */
    if (!plain)
        return KN_NO_MEMORY;
    size_t n = 0;
    for (size_t v = 0; v < vocab; v++)
        plain[v] = logits[v];
    penalize(logits, c, done, vocab);
    for (size_t v = 0; v < vocab; v++)
        if (logits[v] > -INFINITY)
            e[n++] = (entry){c->temperature > 0 ? logits[v] / c->temperature : logits[v], (uint32_t)v};
    int status = KN_BAD_ARGUMENT; /* nothing may be chosen */
    if (n > 0) {
        qsort(e, n, sizeof(*e), by_rank);
        n = c->temperature > 0 ? truncate_ranked(e, n, c) : 1;
        double total = 0, best = -INFINITY;
        size_t at = 0;
        for (size_t i = 0; i < n; i++)
            total += exp((double)e[i].logit - e[0].logit);
        for (size_t i = 0; c->temperature > 0 && i < n; i++) {
            const double u = sluice_uniform_float(sluice_random_item(c->key, c->counter, e[i].token));
            const double g = -log(-log1p(-u)); /* 1 - u is uniform as well, and finer where it matters */
            if (e[i].logit + g > best) {
                best = e[i].logit + g;
                at = i;
            }
        }
        chosen->token = e[at].token;
        chosen->logprob = (float)(plain[e[at].token] - lse);
        chosen->kept_logprob = (float)((double)e[at].logit - e[0].logit - log(total));
        status = KN_OK;
    }
    free(plain);
    return status;
}

int kn_ref_choose(kn_device *device, kn_chosen *chosen, float *logits, const kn_choice *choice, size_t T, size_t vocab)
{
    entry *e = malloc(vocab * sizeof(*e));
    bool *done = malloc(vocab * sizeof(*done));
    int status = e && done ? KN_OK : KN_NO_MEMORY;
    for (size_t t = 0; status == KN_OK && t < T; t++)
        status = choose_row(&chosen[t], logits + t * vocab, e, done, &choice[t], vocab);
    free(e);
    free(done);
    return status;
}
