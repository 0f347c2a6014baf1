/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Attention over packed rows and over cached pages, and choosing tokens, against the reference. */
#include "compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void check_attention(compare *c, const kn_attention *a, const kn_segment *s, size_t segments, size_t T,
                            float scale)
{
    const size_t width = (a->heads + 2 * a->kv_heads) * a->head_dim, wide = a->heads * a->head_dim;
    float *zero = calloc(T * wide, sizeof(*zero)); /* rows that belong to nobody are not written */
    twin qkv = twin_random(c, c->type, T * width, scale, 1), dout = twin_random(c, c->type, T * wide, 1, 2);
    twin out = twin_of(c, c->type, zero, T * wide), lse = twin_of(c, KN_F32, zero, T * a->heads);
    twin dqkv = twin_random(c, c->type, T * width, 1, 3);
    for (int i = 0; i < SIDES; i++) {
        kn_device *v = c->side[i].device;
        const kn_ops *o = c->side[i].ops;
        compare_ok(c, "attention", o->attention(v, out.at[i], lse.at[i], qkv.at[i], s, segments, T, a));
        compare_ok(
            c, "attention_backward",
            o->attention_backward(v, dqkv.at[i], dout.at[i], qkv.at[i], out.at[i], lse.at[i], s, segments, T, a));
    }
    compare_twin(c, "attention", &out, WITHIN_SUM);
    compare_twin(c, "attention, lse", &lse, WITHIN_F32);
    compare_twin(c, "attention_backward", &dqkv, WITHIN_SUM);
    twin *const all[] = {&qkv, &dout, &out, &lse, &dqkv};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
    free(zero);
}

void compare_attention(compare *c)
{
    static const kn_attention shapes[] = {
        {4, 2, 32, 0, 0, 0.18f},   {14, 2, 64, 0, 0, 0.125f}, {12, 2, 128, 0, 0, 0.088f}, {4, 4, 16, 0, 0, 0.25f},
        {4, 2, 64, 33, 0, 0.125f}, {2, 1, 96, 0, 3.0f, 0.1f}, {4, 1, 256, 0, 0, 0.0625f}, {8, 4, 8, 0, 0, 0.35f},
    };
    static const size_t rows[] = {1, 40, 130};
    /* A prompt of 21 rows with three answers, another of 3 with two; rows 0 and 1 belong to nobody. */
    static const kn_segment packed[] = {{2, 21, 0, 0}, {23, 17, 2, 21}, {40, 1, 2, 21},  {41, 33, 2, 21},
                                        {74, 3, 0, 0}, {77, 4, 74, 3},  {81, 16, 74, 3}, {97, 40, 0, 0}};
    const size_t most = c->quick ? 4 : sizeof(shapes) / sizeof(shapes[0]);
    for (size_t s = 0; s < most; s++) {
        for (size_t t = 0; t < sizeof(rows) / sizeof(rows[0]); t++) {
            const kn_segment one = {0, rows[t], 0, 0};
            check_attention(c, &shapes[s], &one, 1, rows[t], 1);
        }
        check_attention(c, &shapes[s], packed, 8, 137, 1);
        if (!c->quick)
            check_attention(c, &shapes[s], packed, 8, 137, 8); /* sharp probabilities */
    }
    if (!c->quick) {
        const kn_segment one = {0, 700, 0, 0};
        check_attention(c, &shapes[1], &one, 1, 700, 1);
    }
}

/* --- generation --- */

/* Sequences that share the pages of a prompt and go on for themselves, token after token. */
static void check_cached(compare *c, const kn_attention *a, size_t prompt, size_t sequences, size_t steps)
{
    const size_t angles = (prompt + steps) * (a->head_dim / 2);
    twin cosine = twin_random(c, KN_F32, angles, 1, 4), sine = twin_random(c, KN_F32, angles, 1, 5);
    const kn_rotary rotary[SIDES] = {{cosine.at[0], sine.at[0]}, {cosine.at[1], sine.at[1]}};
    const size_t width = (a->heads + 2 * a->kv_heads) * a->head_dim, wide = a->heads * a->head_dim;
    const size_t shared = prompt / KN_PAGE, own = (prompt + steps) / KN_PAGE - shared + 1, each = shared + own;
    const size_t pages = shared + 1 + sequences * own;
    uint32_t *page = compare_memory(sequences * each * sizeof(*page)),
             *first = compare_memory((shared + 1) * sizeof(*first));
    kn_cached_rows *rows = compare_memory(sequences * sizeof(*rows));
    kn_cache *cache[SIDES];
    twin asked = twin_random(c, c->type, prompt * width, 1, 1), told = twin_random(c, c->type, prompt * wide, 1, 2);
    for (size_t p = 0; p <= shared; p++)
        first[p] = (uint32_t)p;
    for (size_t s = 0; s < sequences; s++)
        for (size_t p = 0; p < each; p++)
            page[s * each + p] = (uint32_t)(p < shared ? p : shared + 1 + s * own + p - shared);
    const kn_cached_rows whole = {0, prompt, 0, first};
    for (int i = 0; i < SIDES; i++) {
        kn_device *v = c->side[i].device;
        const kn_ops *o = c->side[i].ops;
        cache[i] = o->cache_new(v, 2, pages, a);
        compare_true(c, "attention_cached", cache[i] != NULL, "there is memory for the cache");
        compare_ok(c, "attention_cached",
                   o->attention_cached(v, told.at[i], asked.at[i], cache[i], 1, &whole, 1, prompt, &rotary[i]));
        for (size_t s = 0; s < sequences; s++)
            compare_ok(c, "cache_copy_page",
                       o->cache_copy_page(v, cache[i], page[s * each + shared], (uint32_t)shared, prompt % KN_PAGE));
    }
    compare_twin(c, "attention_cached, prompt", &told, WITHIN_SUM);
    for (size_t step = 0; step < steps; step++) {
        twin qkv = twin_random(c, c->type, sequences * width, 1, 10 + step);
        twin out = twin_random(c, c->type, sequences * wide, 1, 3);
        for (size_t s = 0; s < sequences; s++)
            rows[s] = (kn_cached_rows){s, 1, prompt + step, page + s * each};
        for (int i = 0; i < SIDES; i++)
            compare_ok(c, "attention_cached",
                       c->side[i].ops->attention_cached(c->side[i].device, out.at[i], qkv.at[i], cache[i], 1, rows,
                                                        sequences, sequences, &rotary[i]));
        compare_twin(c, "attention_cached", &out, WITHIN_SUM);
        twin_free(c, &qkv);
        twin_free(c, &out);
    }
    for (int i = 0; i < SIDES; i++)
        c->side[i].ops->cache_free(c->side[i].device, cache[i]);
    twin *const all[] = {&asked, &told, &cosine, &sine};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
    free(page);
    free(first);
    free(rows);
}

/* The same tokens as the reference, whatever is cut away. */
static void check_choose(compare *c, size_t T, size_t vocab, kn_choice how)
{
    /* The best tokens of a row are banned and were seen, by other threads. */
    static const uint32_t seen[] = {5, 1, 3, 3}, banned[] = {0, 7, 5, 1};
    const bool penalized = how.repetition_penalty != 1;
    twin random = twin_random(c, KN_F32, T * vocab, 8, 1);
    float *drawn = twin_read(c, &random, REFERENCE);
    twin_free(c, &random);
    for (size_t t = 0; t < T && penalized; t++) {
        drawn[t * vocab + 5] = 30;
        drawn[t * vocab + 1] = 29;
    }
    twin logits = twin_of(c, KN_F32, drawn, T * vocab);
    free(drawn);
    kn_choice *choice = compare_memory(T * sizeof(*choice));
    kn_chosen *chosen[SIDES];
    float *number[SIDES][2];
    for (size_t t = 0; t < T; t++) {
        choice[t] = how;
        choice[t].key[0] = t + 1;
        choice[t].key[1] = 7; /* not the numbers that made the logits: tokens would all but tie */
        if (penalized) {
            choice[t].seen = seen;
            choice[t].seen_count = 4;
            choice[t].banned = banned;
            choice[t].banned_count = 4;
        }
    }
    for (int i = 0; i < SIDES; i++) {
        chosen[i] = compare_memory(T * sizeof(**chosen));
        compare_ok(c, "choose", c->side[i].ops->choose(c->side[i].device, chosen[i], logits.at[i], choice, T, vocab));
        for (int k = 0; k < 2; k++)
            number[i][k] = compare_memory(T * sizeof(float));
        for (size_t t = 0; t < T; t++) {
            number[i][0][t] = chosen[i][t].logprob;
            number[i][1][t] = chosen[i][t].kept_logprob;
        }
    }
    size_t other = 0;
    for (size_t t = 0; t < T; t++)
        other += chosen[DEVICE][t].token != chosen[REFERENCE][t].token;
    compare_true(c, "choose", other * 200 <= T, "the reference's tokens but for ties");
    if (other == 0) {
        compare_host(c, "choose, logprob", number[0][0], number[1][0], T, 1e-5);
        compare_host(c, "choose, kept logprob", number[0][1], number[1][1], T, 2e-5);
    }
    for (int i = 0; i < SIDES; i++) {
        free(chosen[i]);
        free(number[i][0]);
        free(number[i][1]);
    }
    free(choice);
    twin_free(c, &logits);
}

void compare_generation(compare *c)
{
    static const kn_attention shapes[] = {
        {4, 2, 32, 0, 0, 0.18f}, {14, 2, 64, 0, 0, 0.125f}, {12, 2, 128, 0, 0, 0.088f}, {4, 2, 64, 20, 0, 0.125f}};
    for (size_t s = 0; s < (c->quick ? 1 : sizeof(shapes) / sizeof(shapes[0])); s++) {
        check_cached(c, &shapes[s], 21, 3, 13);
        check_cached(c, &shapes[s], 16, 2, 2);
        check_cached(c, &shapes[s], 300, 2, 2); /* several parts a sequence */
        if (!c->quick)
            check_cached(c, &shapes[s], 701, 7, 3);
    }
    static const kn_choice how[] = {
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 0.7f, .top_p = 0.9f, .repetition_penalty = 1},
        {.temperature = 1.3f, .top_p = 1, .top_k = 20, .repetition_penalty = 1},
        {.temperature = 0.8f, .top_p = 0.95f, .min_p = 0.02f, .top_k = 50, .repetition_penalty = 1.2f},
    };
    for (size_t h = 0; h < sizeof(how) / sizeof(how[0]); h++) {
        check_choose(c, 9, 701, how[h]);
        if (!c->quick)
            check_choose(c, 64, 151936, how[h]);
    }
}
