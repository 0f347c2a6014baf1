/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Choosing a token, over rows of every kind that the search for what is kept has a way of its own for: peaked, flat,
 * with many equal logits, with most of them far away or not numbers. */
#include "compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sluice/random.h"

enum { PEAKED, FLAT, EQUAL, TIES, FAR, KINDS };

/* A row's logits; a function of its arguments alone. */
static void fill(float *row, size_t vocab, int kind, uint64_t seed)
{
    const uint64_t key[2] = {seed, 1}, counter[2] = {0, 0};
    for (size_t v = 0; v < vocab; v++) {
        const uint32_t bits = sluice_random_item(key, counter, (uint32_t)v);
        const float u = sluice_uniform_float(bits), near = logf(u); /* exponential: few are near the largest */
        row[v] = kind == PEAKED  ? 12 + 3 * near
                 : kind == FLAT  ? 0.01f * u
                 : kind == EQUAL ? -1.5f
                 : kind == TIES  ? floorf(4 * u)
                 : bits % 7 == 0 ? -INFINITY
                 : bits % 7 == 1 ? NAN
                                 : -60 * u;
    }
}

typedef struct tally {
    size_t rows, other;
} tally;

static void check(compare *c, tally *sum, size_t vocab, int kind, kn_choice how, size_t T)
{
    float *values = compare_memory(T * vocab * sizeof(*values));
    uint32_t *seen = compare_tokens(40, (uint32_t)vocab + 3, 5), *banned = compare_tokens(3, (uint32_t)vocab + 1, 6);
    kn_choice *choice = compare_memory(T * sizeof(*choice));
    kn_chosen *chosen[SIDES + 1];
    for (size_t t = 0; t < T; t++) {
        fill(values + t * vocab, vocab, kind, t);
        choice[t] = how;
        choice[t].key[0] = 77 * t + vocab;
        choice[t].key[1] = t;
        choice[t].counter[0] = (uint64_t)t << 32;
        choice[t].seen = seen;
        choice[t].seen_count = 40;
        choice[t].banned = banned;
        choice[t].banned_count = vocab > 8 && t % 2 ? 3 : 0;
    }
    if (kind == FAR) /* the reference's sort knows no NaN */
        for (size_t i = 0; i < T * vocab; i++)
            values[i] = isnan(values[i]) ? -INFINITY : values[i];
    for (int i = 0; i <= SIDES; i++) { /* the device twice */
        const side *s = &c->side[i % SIDES];
        twin logits = twin_of(c, KN_F32, values, T * vocab);
        chosen[i] = calloc(T, sizeof(**chosen));
        compare_ok(c, "choose", s->ops->choose(s->device, chosen[i], logits.at[i % SIDES], choice, T, vocab));
        twin_free(c, &logits);
    }
    compare_true(c, "choose", memcmp(chosen[0], chosen[SIDES], T * sizeof(**chosen)) == 0, "twice the same bits");
    for (size_t t = 0; t < T; t++) {
        const kn_chosen *a = &chosen[DEVICE][t], *b = &chosen[REFERENCE][t];
        sum->rows++;
        if (a->token != b->token) {
            sum->other++;
            continue;
        }
        const float x[2] = {a->logprob, a->kept_logprob}, y[2] = {b->logprob, b->kept_logprob};
        const float one = fmaxf(1, fmaxf(fabsf(y[0]), fabsf(y[1])));
        const float xs[3] = {x[0], x[1], one}, ys[3] = {y[0], y[1], one}; /* within 1e-5 of 1 or of what is larger */
        compare_host(c, "choose, log-probabilities", xs, ys, 3, 1e-5);
    }
    for (int i = 0; i <= SIDES; i++)
        free(chosen[i]);
    free(choice);
    free(seen);
    free(banned);
    free(values);
}

static void check_refusals(compare *c)
{
    enum { V = 40 };
    uint32_t all[V];
    float values[3 * V] = {0};
    kn_choice choice[3] = {{.temperature = 1, .top_p = 1, .repetition_penalty = 1},
                           {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
                           {.temperature = 0, .top_p = 1, .repetition_penalty = 1}};
    kn_chosen chosen[3];
    const side *s = &c->side[DEVICE];
    for (uint32_t v = 0; v < V; v++)
        all[v] = v;
    choice[1].banned = all;
    choice[1].banned_count = V;
    twin logits = twin_of(c, KN_F32, values, 3 * V);
    compare_true(c, "choose", s->ops->choose(s->device, chosen, logits.at[DEVICE], choice, 3, V) == KN_BAD_ARGUMENT,
                 "a row of banned tokens is refused");
    compare_true(c, "choose", s->ops->choose(s->device, chosen, logits.at[DEVICE], choice, 0, V) == KN_OK,
                 "no rows are nothing to do");
    twin_free(c, &logits);
    for (size_t v = 0; v < V; v++)
        values[v] = -INFINITY;
    choice[1].banned_count = 0;
    choice[0].top_p = 0.5f;
    logits = twin_of(c, KN_F32, values, 3 * V);
    compare_true(c, "choose", s->ops->choose(s->device, chosen, logits.at[DEVICE], choice, 3, V) == KN_BAD_ARGUMENT,
                 "a row without a finite logit is refused");
    twin_free(c, &logits);
}

/* The log-probability that choose notes is the one that scoring finds, to the bit. */
static void check_scored(compare *c, size_t T, size_t vocab)
{
    const side *s = &c->side[DEVICE];
    const size_t in = 16;
    kn_matrix *m[SIDES];
    twin h = twin_random(c, c->type, T * in, 2, 1), logits = twin_random(c, KN_F32, T * vocab, 1, 2);
    twin noted = twin_random(c, KN_F32, T, 1, 3);
    kn_choice *choice = compare_memory(T * sizeof(*choice));
    kn_chosen *chosen = compare_memory(T * sizeof(*chosen));
    uint32_t *target = compare_memory(T * sizeof(*target)), *seen = compare_tokens(9, (uint32_t)vocab, 4);
    for (size_t t = 0; t < T; t++)
        choice[t] = (kn_choice){.temperature = 0.9f,
                                .top_p = t % 2 ? 1 : 0.9f,
                                .repetition_penalty = t % 3 ? 1 : 1.3f,
                                .seen = seen,
                                .seen_count = 9,
                                .key = {t, 9}};
    matrices_new(c, m, vocab, in, 1, 5);
    compare_ok(c, "choose", s->ops->logits(s->device, logits.at[DEVICE], h.at[DEVICE], m[DEVICE], T));
    compare_ok(c, "choose", s->ops->choose(s->device, chosen, logits.at[DEVICE], choice, T, vocab));
    for (size_t t = 0; t < T; t++)
        target[t] = chosen[t].token;
    compare_ok(c, "choose",
               s->ops->logprob(s->device, noted.at[DEVICE], NULL, NULL, h.at[DEVICE], m[DEVICE], target, T, NULL));
    float *scored = twin_read(c, &noted, DEVICE);
    for (size_t t = 0; t < T; t++)
        compare_true(c, "choose", memcmp(&scored[t], &chosen[t].logprob, sizeof(float)) == 0,
                     "what is noted is what a scoring finds");
    matrices_free(c, m);
    twin_free(c, &h);
    twin_free(c, &logits);
    twin_free(c, &noted);
    free(scored);
    free(target);
    free(seen);
    free(choice);
    free(chosen);
}

void compare_choose(compare *c)
{
    static const kn_choice how[] = {
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1.3f},
        {.temperature = 0.7f, .top_p = 1, .repetition_penalty = 1.3f},
        {.temperature = 0.7f, .top_p = 0.9f, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 0.999f, .repetition_penalty = 1.1f},
        {.temperature = 1.3f, .top_p = 1, .top_k = 20, .repetition_penalty = 1},
        {.temperature = 0.2f, .top_p = 1, .top_k = 2900, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 1, .min_p = 0.05f, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 0.9f, .top_k = 2500, .min_p = 1e-9f, .repetition_penalty = 1},
        {.temperature = 0.8f, .top_p = 0.95f, .min_p = 0.02f, .top_k = 50, .repetition_penalty = 1.2f},
    };
    static const size_t vocabs[] = {1, 3, 33, 701, 5003, 33003, 151936};
    tally sum = {0};
    const side *s = &c->side[DEVICE];
    const bool seen = s->ops != s->device->ops && s->ops->choose == s->device->ops->choose; /* one op for both types */
    for (size_t v = 0; !seen && v < sizeof(vocabs) / sizeof(vocabs[0]); v++)
        for (size_t h = 0; h < sizeof(how) / sizeof(how[0]); h++)
            for (int kind = 0; kind < KINDS; kind++)
                if (vocabs[v] <= 5003 || !c->quick ||
                    (vocabs[v] == 33003 && kind == 0)) /* 33003: three slices of a row */
                    check(c, &sum, vocabs[v], kind, how[h], vocabs[v] == 701 ? 5 : 2);
    /* A last digit may tip what a boundary keeps or which of two is drawn. */
    compare_true(c, "choose", sum.other * 200 <= sum.rows, "the reference's tokens, but for ties");
    check_refusals(c);
    check_scored(c, 5, 701);
    check_scored(c, 3, 5003);
}
