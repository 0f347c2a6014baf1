/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Linear layers and the vocabulary, against the reference; chunk boundaries; bits that may not depend on the call. */
#include "compare.h"

#include <stdlib.h>
#include <string.h>

/* Device memory that starts with row `row` of rows of n elements. */
static void *at_row(const twin *t, int which, size_t row, size_t n)
{
    return (char *)t->at[which] + row * n * (t->type == KN_F32 ? sizeof(float) : sizeof(uint16_t));
}

/* --- linear layers --- */

static void check_linear(compare *c, size_t T, size_t out, size_t in)
{
    kn_matrix *m[SIDES];
    matrices_new(c, m, out, in, 1, 1);
    twin x = twin_random(c, c->type, T * in, 1, 2), bias = twin_random(c, KN_F32, out, 1, 3);
    twin y = twin_random(c, c->type, T * out, 1, 4), dy = twin_random(c, c->type, T * out, 1, 5);
    twin plain = twin_random(c, c->type, T * out, 1, 6), both = twin_random(c, c->type, T * out, 1, 7);
    twin dx = twin_random(c, c->type, T * in, 1, 8), dw = twin_random(c, KN_F32, out * in, 1, 9);
    twin db = twin_random(c, KN_F32, out, 1, 10);
    for (int i = 0; i < SIDES; i++) {
        kn_device *d = c->side[i].device;
        const kn_ops *o = c->side[i].ops;
        compare_ok(c, "linear", o->linear(d, plain.at[i], x.at[i], m[i], NULL, NULL, T));
        compare_ok(c, "linear", o->linear(d, both.at[i], x.at[i], m[i], bias.at[i], y.at[i], T));
        compare_ok(c, "linear", o->linear(d, y.at[i], x.at[i], m[i], NULL, y.at[i], T)); /* in place */
        compare_ok(c, "linear_backward_input", o->linear_backward_input(d, dx.at[i], dy.at[i], m[i], T, true));
        compare_ok(c, "linear_backward_weight",
                   o->linear_backward_weight(d, dw.at[i], db.at[i], dy.at[i], x.at[i], T, out, in, true));
    }
    compare_twin(c, "linear", &plain, WITHIN_SUM);
    compare_twin(c, "linear, bias and residual", &both, WITHIN_SUM);
    compare_twin(c, "linear, residual in place", &y, WITHIN_SUM);
    compare_twin(c, "linear_backward_input, added", &dx, WITHIN_SUM);
    compare_twin(c, "linear_backward_weight", &dw, WITHIN_F32);
    compare_twin(c, "linear_backward_weight, bias", &db, WITHIN_F32);
    for (int i = 0; i < SIDES; i++) {
        kn_device *d = c->side[i].device;
        const kn_ops *o = c->side[i].ops;
        compare_ok(c, "linear", o->linear(d, plain.at[i], x.at[i], m[i], bias.at[i], NULL, T));
        compare_ok(c, "linear_backward_input", o->linear_backward_input(d, dx.at[i], dy.at[i], m[i], T, false));
        compare_ok(c, "linear_backward_weight",
                   o->linear_backward_weight(d, dw.at[i], db.at[i], dy.at[i], x.at[i], T, out, in, false));
    }
    compare_twin(c, "linear, bias", &plain, WITHIN_SUM);
    compare_twin(c, "linear_backward_input", &dx, WITHIN_SUM);
    compare_twin(c, "linear_backward_weight, written", &dw, WITHIN_F32);
    compare_twin(c, "linear_backward_weight, bias, written", &db, WITHIN_F32);
    twin *const all[] = {&x, &bias, &y, &dy, &plain, &both, &dx, &dw, &db};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
    matrices_free(c, m);
}

/* A bias that the device was told of gives the same bits, and other numbers once it is told again. */
static void check_told_bias(compare *c, size_t T, size_t out, size_t in)
{
    kn_matrix *m[SIDES];
    matrices_new(c, m, out, in, 1, 1);
    twin x = twin_random(c, c->type, T * in, 1, 2), bias = twin_random(c, KN_F32, out, 1, 3);
    twin y = twin_random(c, c->type, T * out, 1, 4);
    for (int turn = 0; turn < 2; turn++) {
        float *untold = NULL;
        for (int i = 0; i < SIDES; i++) {
            kn_device *d = c->side[i].device;
            const kn_ops *o = c->side[i].ops;
            if (turn > 0)
                compare_ok(c, "axpy", d->ops->axpy(d, bias.at[i], 2, bias.at[i], out));
            if (o->matrix_bias)
                compare_ok(c, "matrix_bias", o->matrix_bias(d, m[i], NULL));
            compare_ok(c, "linear", o->linear(d, y.at[i], x.at[i], m[i], bias.at[i], NULL, T));
            if (i == DEVICE)
                untold = twin_read(c, &y, DEVICE);
            if (o->matrix_bias)
                compare_ok(c, "matrix_bias", o->matrix_bias(d, m[i], bias.at[i]));
            compare_ok(c, "linear", o->linear(d, y.at[i], x.at[i], m[i], bias.at[i], NULL, T));
        }
        compare_twin(c, "linear, a bias told before", &y, WITHIN_SUM);
        float *told = twin_read(c, &y, DEVICE);
        compare_true(c, "linear, a bias told before", memcmp(told, untold, T * out * sizeof(*told)) == 0,
                     "the same bits as one that was not told of");
        free(told);
        free(untold);
    }
    twin_free(c, &x);
    twin_free(c, &bias);
    twin_free(c, &y);
    matrices_free(c, m);
}

/* A bias within a larger array lies anywhere; that of the first call is aligned as well as can be. */
static void check_bias_anywhere(compare *c, size_t T, size_t out, size_t in)
{
    kn_matrix *m[SIDES];
    matrices_new(c, m, out, in, 1, 1);
    twin x = twin_random(c, c->type, T * in, 1, 2), bias = twin_random(c, KN_F32, out + 8, 1, 3);
    for (size_t at = 0; at < 6; at++) {
        twin y = twin_random(c, c->type, T * out, 1, 4);
        for (int i = 0; i < SIDES; i++)
            compare_ok(c, "linear",
                       c->side[i].ops->linear(c->side[i].device, y.at[i], x.at[i], m[i], (const float *)bias.at[i] + at,
                                              NULL, T));
        compare_twin(c, "linear, a bias anywhere", &y, WITHIN_SUM);
        twin_free(c, &y);
    }
    twin_free(c, &x);
    twin_free(c, &bias);
    matrices_free(c, m);
}

/* A matrix that lies in an array computes with what the array holds by then. */
static void check_matrix_at(compare *c, size_t T, size_t out, size_t in)
{
    twin w = twin_random(c, c->type, out * in, 1, 1), x = twin_random(c, c->type, T * in, 1, 2);
    twin y = twin_random(c, c->type, T * out, 1, 3), dx = twin_random(c, c->type, T * in, 1, 4);
    kn_matrix *m[SIDES];
    for (int i = 0; i < SIDES; i++)
        m[i] = c->side[i].ops->matrix_at(c->side[i].device, w.at[i], out, in);
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < SIDES; i++) {
            kn_device *d = c->side[i].device;
            const kn_ops *o = c->side[i].ops;
            compare_true(c, "matrix_at", m[i] != NULL, "a matrix in place");
            compare_ok(c, "linear", o->linear(d, y.at[i], x.at[i], m[i], NULL, NULL, T));
            compare_ok(c, "linear_backward_input", o->linear_backward_input(d, dx.at[i], y.at[i], m[i], T, false));
            compare_ok(c, "add", o->add(d, w.at[i], w.at[i], out * in));
        }
        compare_twin(c, "matrix_at, linear", &y, WITHIN_SUM);
        compare_twin(c, "matrix_at, linear_backward_input", &dx, WITHIN_SUM);
    }
    for (int i = 0; i < SIDES; i++)
        c->side[i].ops->matrix_free(c->side[i].device, m[i]);
    twin *const all[] = {&w, &x, &y, &dx};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
}

/* The same call again gives the same bits. */
static void check_again(compare *c, size_t T, size_t out, size_t in)
{
    kn_matrix *m[SIDES];
    matrices_new(c, m, out, in, 1, 1);
    twin x = twin_random(c, c->type, T * in, 1, 2), dy = twin_random(c, c->type, T * out, 1, 3);
    const side *s = &c->side[DEVICE];
    float *first[2];
    for (int again = 0; again < 2; again++) {
        twin y = twin_random(c, c->type, T * out, 1, 4), dw = twin_random(c, KN_F32, out * in, 1, 5);
        compare_ok(c, "linear", s->ops->linear(s->device, y.at[DEVICE], x.at[DEVICE], m[DEVICE], NULL, NULL, T));
        compare_ok(c, "linear_backward_weight",
                   s->ops->linear_backward_weight(s->device, dw.at[DEVICE], NULL, dy.at[DEVICE], x.at[DEVICE], T, out,
                                                  in, true));
        float *const now[2] = {twin_read(c, &y, DEVICE), twin_read(c, &dw, DEVICE)};
        for (int i = 0; i < 2; i++) {
            if (again) {
                compare_host(c, "products, twice the same bits", now[i], first[i], i ? out * in : T * out, 0);
                free(now[i]);
                free(first[i]);
            } else {
                first[i] = now[i];
            }
        }
        twin_free(c, &y);
        twin_free(c, &dw);
    }
    twin_free(c, &x);
    twin_free(c, &dy);
    matrices_free(c, m);
}

void compare_products(compare *c)
{
    static const size_t small[][3] = {{1, 64, 64},  {5, 1, 1},     {13, 7, 3},  {40, 33, 65},
                                      {97, 72, 40}, {130, 24, 56}, {0, 16, 16}, {66, 129, 31}};
    static const size_t large[][3] = {{200, 1152, 896}, {129, 896, 4864}, {1, 4864, 896}, {257, 1000, 520}};
    for (size_t s = 0; s < sizeof(small) / sizeof(small[0]); s++)
        check_linear(c, small[s][0], small[s][1], small[s][2]);
    check_told_bias(c, 5, 40, 24);
    check_bias_anywhere(c, 5, 40, 24);
    if (c->side[DEVICE].ops->matrix_at) { /* others keep matrices in a layout of their own */
        check_matrix_at(c, 5, 40, 24);
        check_matrix_at(c, 3, 7, 5);
    }
    for (size_t s = 0; s < sizeof(large) / sizeof(large[0]) && !c->quick; s++)
        check_linear(c, large[s][0], large[s][1], large[s][2]);
    check_again(c, 97, 72, 40);
    if (!c->quick)
        check_again(c, 2048, 4864, 896);
}

/* --- the vocabulary --- */

static void check_vocabulary(compare *c, size_t T, size_t vocab, size_t d, float scale)
{
    kn_matrix *m[SIDES];
    matrices_new(c, m, vocab, d, scale, 1);
    twin h = twin_random(c, c->type, T * d, 1, 2), dl = twin_random(c, KN_F32, T, 1, 3);
    twin logprob = twin_random(c, KN_F32, T, 1, 4), lse = twin_random(c, KN_F32, T, 1, 5);
    twin entropy = twin_random(c, KN_F32, T, 1, 6), logits = twin_random(c, KN_F32, T * vocab, 1, 7);
    twin dh = twin_random(c, c->type, T * d, 1, 8), dw = twin_random(c, KN_F32, vocab * d, 1, 9);
    uint32_t *target = compare_tokens(T, (uint32_t)vocab, 10);
    const uint32_t beyond = (uint32_t)vocab;
    for (int i = 0; i < SIDES; i++) {
        kn_device *v = c->side[i].device;
        const kn_ops *o = c->side[i].ops;
        compare_ok(c, "logprob",
                   o->logprob(v, logprob.at[i], lse.at[i], entropy.at[i], h.at[i], m[i], target, T, NULL));
        compare_ok(c, "logits", o->logits(v, logits.at[i], h.at[i], m[i], T));
        compare_ok(
            c, "logprob_backward",
            o->logprob_backward(v, dh.at[i], dw.at[i], dl.at[i], h.at[i], m[i], lse.at[i], target, T, true, NULL));
        compare_true(c, "logprob",
                     o->logprob(v, logprob.at[i], NULL, NULL, h.at[i], m[i], &beyond, 1, NULL) == KN_BAD_ARGUMENT,
                     "a target beyond the vocabulary is refused");
    }
    compare_twin(c, "logprob", &logprob, WITHIN_F32);
    compare_twin(c, "logprob, lse", &lse, WITHIN_F32);
    compare_twin(c, "logprob, entropy", &entropy, WITHIN_F32);
    compare_twin(c, "logits", &logits, WITHIN_F32);
    compare_twin(c, "logprob_backward, dh", &dh, WITHIN_SUM);
    compare_twin(c, "logprob_backward, dw", &dw, WITHIN_SUM);
    for (int i = 0; i < SIDES; i++)
        compare_ok(c, "logprob_backward",
                   c->side[i].ops->logprob_backward(c->side[i].device, dh.at[i], dw.at[i], dl.at[i], h.at[i], m[i],
                                                    lse.at[i], target, T, false, NULL));
    compare_twin(c, "logprob_backward, dw, written", &dw, WITHIN_SUM);
    twin *const all[] = {&h, &dl, &logprob, &lse, &entropy, &logits, &dh, &dw};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        twin_free(c, all[i]);
    free(target);
    matrices_free(c, m);
}

/* Logits kept from the forward pass: the first rows', as `logits` gives them; the gradient is the same bits with them
 * as without, and another where they were tampered with. Asked in the order in which a step asks. */
static void check_kept(compare *c, size_t T, size_t vocab, size_t d)
{
    const kn_ops *o = c->side[DEVICE].ops;
    kn_device *v = c->side[DEVICE].device;
    kn_matrix *m[SIDES];
    matrices_new(c, m, vocab, d, 0.3f, 1);
    const size_t rows = o->logits_kept(v, m[DEVICE], T);
    compare_true(c, "logits_kept",
                 rows <= T && (rows > 0) == !v->host_memory && rows == o->logits_kept(v, m[DEVICE], T),
                 "a GPU keeps some of the rows, and the same each time");
    if (rows == 0) {
        matrices_free(c, m);
        return;
    }
    twin h = twin_random(c, c->type, T * d, 1, 2), dl = twin_random(c, KN_F32, T, 1, 3);
    twin kept = twin_random(c, KN_F32, rows * vocab, 1, 4), logits = twin_random(c, KN_F32, T * vocab, 1, 5);
    twin lse = twin_random(c, KN_F32, T, 1, 6), logprob[3], dh[3], dw[3];
    uint32_t *target = compare_tokens(T, (uint32_t)vocab, 7);
    compare_ok(c, "logits", o->logits(v, logits.at[DEVICE], h.at[DEVICE], m[DEVICE], T));
    for (int k = 0; k < 3; k++) { /* not kept, kept, tampered with */
        float *room = k > 0 ? kept.at[DEVICE] : NULL;
        logprob[k] = twin_random(c, KN_F32, T, 1, 8);
        dh[k] = twin_random(c, c->type, T * d, 1, 9);
        dw[k] = twin_random(c, KN_F32, vocab * d, 1, 10);
        compare_ok(
            c, "logprob",
            o->logprob(v, logprob[k].at[DEVICE], lse.at[DEVICE], NULL, h.at[DEVICE], m[DEVICE], target, T, room));
        if (k == 1) {
            float *one = twin_read(c, &kept, DEVICE), *all = twin_read(c, &logits, DEVICE);
            compare_host(c, "logprob, kept logits", one, all, rows * vocab, 0);
            free(one);
            free(all);
        }
        if (k == 2)
            compare_ok(c, "clear", o->clear(v, room, vocab * sizeof(*room)));
        compare_ok(c, "logprob_backward",
                   o->logprob_backward(v, dh[k].at[DEVICE], dw[k].at[DEVICE], dl.at[DEVICE], h.at[DEVICE], m[DEVICE],
                                       lse.at[DEVICE], target, T, true, room));
    }
    float *read[3][3];
    for (int k = 0; k < 3; k++) {
        read[k][0] = twin_read(c, &logprob[k], DEVICE);
        read[k][1] = twin_read(c, &dh[k], DEVICE);
        read[k][2] = twin_read(c, &dw[k], DEVICE);
    }
    compare_host(c, "logprob, kept or not", read[1][0], read[0][0], T, 0);
    compare_host(c, "logprob_backward, dh, kept or not", read[1][1], read[0][1], T * d, 0);
    compare_host(c, "logprob_backward, dw, kept or not", read[1][2], read[0][2], vocab * d, 0);
    compare_true(c, "logprob_backward", memcmp(read[2][2], read[0][2], vocab * d * sizeof(float)) != 0,
                 "what was kept is used");
    for (int k = 0; k < 3; k++) {
        twin *const three[] = {&logprob[k], &dh[k], &dw[k]};
        for (int i = 0; i < 3; i++) {
            twin_free(c, three[i]);
            free(read[k][i]);
        }
    }
    twin *const rest[] = {&h, &dl, &kept, &logits, &lse};
    for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]); i++)
        twin_free(c, rest[i]);
    free(target);
    matrices_free(c, m);
}

/* A row's log-probability is the same bits alone, among others, without entropy, and as choose finds it in logits. */
static void check_same_bits(compare *c, size_t T, size_t vocab, size_t d)
{
    kn_matrix *m[SIDES];
    matrices_new(c, m, vocab, d, 0.3f, 1);
    twin h = twin_random(c, c->type, T * d, 1, 2), logits = twin_random(c, KN_F32, T * vocab, 1, 3);
    twin all = twin_random(c, KN_F32, T, 1, 4), one = twin_random(c, KN_F32, T, 1, 5);
    twin entropy = twin_random(c, KN_F32, T, 1, 6);
    const side *s = &c->side[DEVICE];
    kn_chosen *chosen = compare_memory(T * sizeof(*chosen));
    kn_choice *choice = compare_memory(T * sizeof(*choice));
    uint32_t *target = compare_memory(T * sizeof(*target));
    float *found = compare_memory(T * sizeof(*found));
    for (size_t t = 0; t < T; t++)
        choice[t] = (kn_choice){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .key = {t, 3}};
    compare_ok(c, "logits", s->ops->logits(s->device, logits.at[DEVICE], h.at[DEVICE], m[DEVICE], T));
    compare_ok(c, "choose", s->ops->choose(s->device, chosen, logits.at[DEVICE], choice, T, vocab));
    for (size_t t = 0; t < T; t++) {
        target[t] = chosen[t].token < vocab ? chosen[t].token : 0;
        found[t] = chosen[t].logprob;
    }
    compare_ok(
        c, "logprob",
        s->ops->logprob(s->device, all.at[DEVICE], NULL, entropy.at[DEVICE], h.at[DEVICE], m[DEVICE], target, T, NULL));
    for (size_t t = 0; t < T; t++)
        compare_ok(c, "logprob",
                   s->ops->logprob(s->device, at_row(&one, DEVICE, t, 1), NULL, NULL, at_row(&h, DEVICE, t, d),
                                   m[DEVICE], target + t, 1, NULL));
    float *together = twin_read(c, &all, DEVICE), *alone = twin_read(c, &one, DEVICE);
    compare_host(c, "logprob, alone and among others", alone, together, T, 0);
    compare_host(c, "logprob and choose, same bits", found, together, T, 0);
    twin *const twins[] = {&h, &logits, &all, &one, &entropy};
    for (size_t i = 0; i < sizeof(twins) / sizeof(twins[0]); i++)
        twin_free(c, twins[i]);
    void *const rest[] = {chosen, choice, target, found, together, alone};
    for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]); i++)
        free(rest[i]);
    matrices_free(c, m);
}

/* On a device that was opened with 36,000 bytes of logits: chunks of 17, 30 and 8 rows. */
void compare_chunks(compare *c)
{
    check_vocabulary(c, 40, 512, 64, 1);
    check_vocabulary(c, 29, 300, 24, 1);
    check_vocabulary(c, 17, 1100, 32, 1);
    check_same_bits(c, 33, 512, 64);
    check_kept(c, 33, 300, 24);
    check_kept(c, 40, 512, 64);
}

void compare_vocabulary(compare *c)
{
    static const size_t shapes[][2] = {{512, 64}, {2, 3}, {257, 17}, {1100, 32}}, rows[] = {0, 1, 5, 40};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (size_t t = 0; t < sizeof(rows) / sizeof(rows[0]); t++)
            check_vocabulary(c, rows[t], shapes[s][0], shapes[s][1], 1);
    check_vocabulary(c, 9, 700, 64, 30);  /* probabilities that underflow */
    check_vocabulary(c, 4, 5000, 24, 1);  /* several rounds of a block */
    check_vocabulary(c, 3, 17002, 16, 1); /* two slices of a row, rows that are not aligned */
    check_same_bits(c, 3, 33003, 16);
    check_same_bits(c, 21, 700, 24);
    check_kept(c, 1, 5, 3);
    check_kept(c, 21, 700, 24);
    if (!c->quick) {
        check_kept(c, 300, 151936, 896);
        check_vocabulary(c, 8, 151936, 896, 0.1f);
        check_same_bits(c, 300, 151936, 896);
    }
}
