/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Losses: TRL's values and derivatives, finite differences of every loss there is, no overflow. */
#include <dirent.h>
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/fake_host.h"

static const sluice_loss_class *loss_of(const fake_host *f)
{
    return (const sluice_loss_class *)(const void *)f->type;
}

static FILE *golden(const char *name)
{
    char path[4096];
    assert_non_null(getenv("SLUICE_TEST_DATA"));
    snprintf(path, sizeof path, "%s/golden/%s", getenv("SLUICE_TEST_DATA"), name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    return file;
}

struct result {
    double loss, chosen, rejected;
};

static struct result one_pair(fake_host *f, sluice_answer chosen, sluice_answer rejected, double p)
{
    struct result r = {0};
    double margin = 0;
    sluice_pairs in = {
        .size = sizeof in, .count = 1, .chosen = &chosen, .rejected = &rejected, .p = &p, .margin = &margin};
    sluice_pair_grads out = {.size = sizeof out, .loss = &r.loss, .d_chosen = &r.chosen, .d_rejected = &r.rejected};
    assert_int_equal(loss_of(f)->pairs(f->self, &in, &out), SLUICE_OK);
    return r;
}

static void assert_near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-6 * (1 + fabs(expected))))
        fail_msg("%.12g, expected %.12g", value, expected);
}

static void trl_gives_the_same(void **state)
{
    FILE *file = golden("losses.txt");
    char name[16], average[16];
    double beta, p, v[9];
    size_t cases = 0;
    while (fscanf(file, "%15s %lf %15s %lf %lf %lf %lf %lf %lf %lf %lf %lf %lf", name, &beta, average, &p, v, v + 1,
                  v + 2, v + 3, v + 4, v + 5, v + 6, v + 7, v + 8) == 13) {
        fake_host *f = fake_open(name, name);
        fake_set_number(f, "beta", beta);
        if (average[0] != '-')
            fake_set_text(f, "average", average);
        assert_int_equal(fake_start(f), SLUICE_OK);
        struct result r = one_pair(f, (sluice_answer){v[0], v[1], 0, (uint64_t)v[2]},
                                   (sluice_answer){v[3], v[4], 0, (uint64_t)v[5]}, p);
        assert_near(r.loss, v[6]);
        assert_near(r.chosen, v[7]);
        assert_near(r.rejected, v[8]);
        assert_near(loss_of(f)->reward_scale(f->self), beta);
        fake_close(f);
        cases++;
    }
    fclose(file);
    assert_int_equal(cases, 180);
}

static void trl_gives_the_same_for_rewards(void **state)
{
    FILE *file = golden("rewards.txt");
    size_t heads, cases = 0;
    double p, margin, center, v[13];
    while (fscanf(file, "%zu %lf %lf %lf", &heads, &p, &margin, &center) == 4) {
        assert_true(heads <= 3);
        for (size_t i = 0; i < 4 * heads + 1; i++)
            assert_int_equal(fscanf(file, "%lf", &v[i]), 1);
        fake_host *f = fake_open("bradley-terry", "bradley-terry");
        fake_set_number(f, "center", center);
        assert_int_equal(fake_start(f), SLUICE_OK);
        sluice_answer answers[2] = {{0}};
        double loss = 0, ignored[2], dw[3], dl[3];
        sluice_pairs in = {.size = sizeof in,
                           .count = 1,
                           .chosen = answers,
                           .rejected = answers + 1,
                           .p = &p,
                           .margin = &margin,
                           .heads = heads,
                           .chosen_value = v,
                           .rejected_value = v + heads};
        sluice_pair_grads out = {.size = sizeof out,
                                 .loss = &loss,
                                 .d_chosen = ignored,
                                 .d_rejected = ignored + 1,
                                 .d_chosen_value = dw,
                                 .d_rejected_value = dl};
        assert_int_equal(loss_of(f)->pairs(f->self, &in, &out), SLUICE_OK);
        assert_near(loss, v[2 * heads]);
        for (size_t h = 0; h < heads; h++) {
            assert_near(dw[h], v[2 * heads + 1 + h]);
            assert_near(dl[h], v[3 * heads + 1 + h]);
        }
        fake_close(f);
        cases++;
    }
    fclose(file);
    assert_int_equal(cases, 144);
}

static void extremes_stay_finite(void **state)
{
    const char *const names[] = {"dpo", "ipo"};
    for (size_t n = 0; n < 2; n++)
        for (int sign = -1; sign <= 1; sign += 2)
            for (double p = 0; p <= 1; p += 0.25) {
                fake_host *f = fake_open(names[n], names[n]);
                fake_set_number(f, "beta", 1);
                struct result r =
                    one_pair(f, (sluice_answer){.policy = sign * 1e4, .length = 5}, (sluice_answer){.length = 5}, p);
                assert_true(isfinite(r.loss) && isfinite(r.chosen) && isfinite(r.rejected));
                if (n == 0) { /* -log sigma(x) is -x far below 0 and its slope is -1 */
                    assert_near(r.loss, sign > 0 ? (1 - p) * 1e4 : p * 1e4);
                    assert_near(r.chosen, sign > 0 ? 1 - p : -p);
                }
                fake_close(f);
            }
}

static double total(const double *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    return sum;
}

static double draw(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (double)(*seed >> 8) / (1 << 24);
}

/* Pairs with all that a loss may need; outputs of a head come in rows of HEADS. */
#define PAIRS 7
#define HEADS 3
struct pair_room {
    sluice_answer chosen[PAIRS], rejected[PAIRS];
    double p[PAIRS], margin[PAIRS], chosen_value[PAIRS * HEADS], rejected_value[PAIRS * HEADS];
    double loss[PAIRS], d_chosen[PAIRS], d_rejected[PAIRS];
    double d_chosen_value[PAIRS * HEADS], d_rejected_value[PAIRS * HEADS];
};

/* The loss of all pairs together; derivatives stay in the room. */
static double loss_of_pairs(fake_host *f, struct pair_room *x)
{
    const bool values = loss_of(f)->needs & SLUICE_HEAD_VALUES;
    sluice_pairs in = {.size = sizeof in,
                       .count = PAIRS,
                       .chosen = x->chosen,
                       .rejected = x->rejected,
                       .p = x->p,
                       .margin = x->margin,
                       .progress = 0.3,
                       .heads = values ? HEADS : 0,
                       .chosen_value = values ? x->chosen_value : NULL,
                       .rejected_value = values ? x->rejected_value : NULL};
    sluice_pair_grads out = {.size = sizeof out,
                             .loss = x->loss,
                             .d_chosen = x->d_chosen,
                             .d_rejected = x->d_rejected,
                             .d_chosen_value = values ? x->d_chosen_value : NULL,
                             .d_rejected_value = values ? x->d_rejected_value : NULL};
    memset(x->loss, 0, sizeof x->loss);
    assert_int_equal(loss_of(f)->pairs(f->self, &in, &out), SLUICE_OK);
    return total(x->loss, PAIRS);
}

static sluice_answer some_answer(unsigned *seed)
{
    return (sluice_answer){-20 * draw(seed), -20 * draw(seed), -20 * draw(seed), 1 + (uint64_t)(9 * draw(seed))};
}

/* Is `derivative` how the loss changes with the number at `at`? */
static void difference(fake_host *f, struct pair_room *x, double *at, double derivative)
{
    const double before = *at, h = 1e-5;
    double side[2];
    for (int k = 0; k < 2; k++) {
        *at = before + (k ? h : -h);
        side[k] = loss_of_pairs(f, x);
    }
    *at = before;
    assert_near((side[1] - side[0]) / (2 * h), derivative);
}

static void differences_of_pairs(fake_host *f)
{
    const bool values = loss_of(f)->needs & SLUICE_HEAD_VALUES;
    struct pair_room x = {.p = {0}};
    unsigned seed = 5;
    for (size_t i = 0; i < PAIRS; i++) {
        x.chosen[i] = some_answer(&seed);
        x.rejected[i] = some_answer(&seed);
        x.p[i] = draw(&seed);
        x.margin[i] = draw(&seed);
    }
    for (size_t i = 0; i < PAIRS * HEADS; i++) {
        x.chosen_value[i] = 6 * draw(&seed) - 3;
        x.rejected_value[i] = 6 * draw(&seed) - 3;
    }
    loss_of_pairs(f, &x);
    const struct pair_room first = x;
    for (size_t i = 0; i < PAIRS && !values; i++) {
        difference(f, &x, &x.chosen[i].policy, first.d_chosen[i]);
        difference(f, &x, &x.rejected[i].policy, first.d_rejected[i]);
    }
    for (size_t i = 0; i < PAIRS * HEADS && values; i++) {
        difference(f, &x, &x.chosen_value[i], first.d_chosen_value[i]);
        difference(f, &x, &x.rejected_value[i], first.d_rejected_value[i]);
    }
}

#define TOKENS 12
static void differences_of_tokens(fake_host *f)
{
    const size_t offset[] = {0, 5, 6, TOKENS};
    double policy[TOKENS], reference[TOKENS], sampler[TOKENS], mask[TOKENS], advantage[3] = {0.5, -1, 2};
    double loss[3] = {0}, d[TOKENS] = {0}, ignored[TOKENS];
    unsigned seed = 6;
    for (size_t i = 0; i < TOKENS; i++) {
        policy[i] = -5 * draw(&seed);
        reference[i] = -5 * draw(&seed);
        sampler[i] = -5 * draw(&seed);
        mask[i] = i % 3 ? 1 : 0.25;
    }
    sluice_token_batch in = {.size = sizeof in,
                             .count = 3,
                             .offset = offset,
                             .policy = policy,
                             .reference = reference,
                             .sampler = sampler,
                             .mask = mask,
                             .advantage = advantage,
                             .progress = 0.3};
    sluice_token_grads out = {.size = sizeof out, .loss = loss, .d_policy = d};
    assert_int_equal(loss_of(f)->tokens(f->self, &in, &out), SLUICE_OK);
    for (size_t i = 0; i < TOKENS; i++) {
        double at = policy[i], h = 1e-5, side[2];
        for (int k = 0; k < 2; k++) {
            double moved[3] = {0};
            sluice_token_grads other = {.size = sizeof other, .loss = moved, .d_policy = ignored};
            policy[i] = at + (k ? h : -h);
            assert_int_equal(loss_of(f)->tokens(f->self, &in, &other), SLUICE_OK);
            side[k] = total(moved, 3);
        }
        policy[i] = at;
        assert_near((side[1] - side[0]) / (2 * h), d[i]);
    }
}

/* The plugin's loss, if it has one. */
static fake_host *open_loss(const char *name)
{
    char path[4096];
    const char *id = NULL;
    snprintf(path, sizeof path, "%s/plugins/%s.so", getenv("SLUICE_BUILD"), name);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const sluice_plugin *plugin = library ? dlsym(library, SLUICE_ENTRY) : NULL;
    for (const sluice_class *const *c = plugin ? plugin->classes : NULL; c && *c; c++)
        if ((*c)->kind == SLUICE_KIND_LOSS)
            id = (*c)->id;
    fake_host *f = id ? fake_open(name, id) : NULL;
    if (library)
        dlclose(library);
    return f;
}

/* Every loss that was built, whatever it is called. */
static void derivatives_are_finite_differences(void **state)
{
    char path[4096];
    int losses = 0;
    snprintf(path, sizeof path, "%s/plugins", getenv("SLUICE_BUILD"));
    DIR *folder = opendir(path);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        char name[256];
        snprintf(name, sizeof name, "%s", entry->d_name);
        char *dot = strrchr(name, '.');
        if (!dot || strcmp(dot, ".so") != 0)
            continue;
        *dot = 0;
        fake_host *f = open_loss(name);
        if (!f)
            continue;
        assert_int_equal(fake_start(f), SLUICE_OK);
        if (loss_of(f)->pairs)
            differences_of_pairs(f);
        if (loss_of(f)->tokens)
            differences_of_tokens(f);
        fake_close(f);
        losses++;
    }
    closedir(folder);
    assert_true(losses >= 3);
}

/* Exchanging chosen and rejected is the same as p -> 1 - p. */
static void p_is_the_label(void **state)
{
    const char *const names[] = {"dpo", "ipo"};
    for (size_t n = 0; n < 2; n++) {
        fake_host *f = fake_open(names[n], names[n]);
        sluice_answer a = {-3, -4, 0, 6}, b = {-7, -5, 0, 6};
        struct result one = one_pair(f, a, b, 0.8), other = one_pair(f, b, a, 0.2);
        assert_near(one.loss, other.loss);
        assert_near(one.chosen, other.rejected);
        fake_close(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trl_gives_the_same),   cmocka_unit_test(trl_gives_the_same_for_rewards),
        cmocka_unit_test(extremes_stay_finite), cmocka_unit_test(derivatives_are_finite_differences),
        cmocka_unit_test(p_is_the_label),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
