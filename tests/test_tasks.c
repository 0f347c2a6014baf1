/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The embedded world: splits share nothing, answers are right, mistakes are mistakes, draws repeat. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "plugins/tasks/world.h"

#define DRAWS 20000

static const int all[WORLD_FAMILIES] = {0, 1, 2, 3, 4, 5, 6, 7};

static int by_content(const void *a, const void *b)
{
    const world_question *x = a, *y = b;
    return x->content < y->content ? -1 : x->content > y->content;
}

static int by_prompt(const void *a, const void *b)
{
    return strcmp(((const world_question *)a)->prompt, ((const world_question *)b)->prompt);
}

static world_question *draw(enum world_split split)
{
    world_question *q = calloc(DRAWS, sizeof *q);
    assert_non_null(q);
    for (size_t i = 0; i < DRAWS; i++) {
        world_random r;
        world_random_at(&r, 7 + (uint64_t)split, 5, i);
        world_draw(&r, all, WORLD_FAMILIES, split, &q[i]);
    }
    return q;
}

static void splits_share_no_question(void **state)
{
    (void)state;
    int (*const orders[])(const void *, const void *) = {by_content, by_prompt};
    world_question *q[WORLD_SPLITS];
    for (int s = 0; s < WORLD_SPLITS; s++)
        q[s] = draw((enum world_split)s);
    for (size_t o = 0; o < 2; o++)
        for (int s = 0; s < WORLD_SPLITS; s++) {
            qsort(q[s], DRAWS, sizeof **q, orders[o]);
            for (int t = 0; t < s; t++)
                for (size_t i = 0; i < DRAWS; i++)
                    assert_null(bsearch(&q[s][i], q[t], DRAWS, sizeof **q, orders[o]));
        }
    for (int s = 0; s < WORLD_SPLITS; s++)
        free(q[s]);
}

/* An answer worked out from the prompt's words alone. */
static void work_out(const world_question *q, char *out, size_t size)
{
    long n[2] = {0, 0};
    int numbers = 0;
    const char *p = q->prompt;
    char word[32] = "", letter = 0;
    if (q->family == WORLD_ADD || q->family == WORLD_SUBTRACT || q->family == WORLD_LARGER) {
        while (*p && numbers < 2)
            if (*p >= '0' && *p <= '9')
                n[numbers++] = strtol(p, (char **)&p, 10);
            else
                p++;
        if (q->family == WORLD_SUBTRACT)
            snprintf(out, size, "%ld", labs(n[0] - n[1]));
        else
            snprintf(out, size, "%ld", q->family == WORLD_LARGER ? (n[0] > n[1] ? n[0] : n[1]) : n[0] + n[1]);
        return;
    }
    if (q->family == WORLD_COUNT) {
        if (sscanf(p, "How many %c in %31[a-z]", &letter, word) != 2)
            assert_int_equal(sscanf(p, "Count the %c in %31[a-z]", &letter, word), 2);
        int count = 0;
        for (const char *c = word; *c; c++)
            count += *c == letter;
        snprintf(out, size, "%d", count);
        return;
    }
    if (q->family == WORLD_LETTER) {
        char which[8];
        if (sscanf(p, "The %7s letter of %31[a-z]", which, word) != 2)
            assert_int_equal(sscanf(p, "Which letter of %31[a-z] is %7[a-z]", word, which), 2);
        snprintf(out, size, "%c", which[0] == 'f' ? word[0] : word[strlen(word) - 1]);
        return;
    }
    static const char *const before[] = {"Reverse ",    "Spell ", "Sort the letters of ", "Repeat ", "Say ",
                                         "Copy this: ", ""};
    for (size_t i = 0; i < sizeof before / sizeof *before; i++)
        if (strncmp(p, before[i], strlen(before[i])) == 0) {
            sscanf(p + strlen(before[i]), "%31[a-z]", word);
            break;
        }
    size_t length = strlen(word);
    snprintf(out, size, "%s", word);
    for (size_t i = 0; q->family == WORLD_REVERSE && i < length; i++)
        out[i] = word[length - 1 - i];
    for (size_t i = 0; q->family == WORLD_SORT && i < length; i++)
        for (size_t j = i + 1; j < length; j++)
            if (out[j] < out[i]) {
                char c = out[i];
                out[i] = out[j];
                out[j] = c;
            }
}

static void answers_are_right_and_mistakes_wrong(void **state)
{
    (void)state;
    world_question *q = draw(WORLD_TRAIN);
    size_t seen[WORLD_FAMILIES] = {0};
    for (size_t i = 0; i < DRAWS; i++) {
        char expected[32];
        work_out(&q[i], expected, sizeof expected);
        assert_string_equal(q[i].answer, expected);
        assert_string_not_equal(q[i].answer, q[i].wrong);
        seen[q[i].family]++;
    }
    for (int f = 0; f < WORLD_FAMILIES; f++)
        assert_in_range(seen[f], DRAWS / WORLD_FAMILIES - 400, DRAWS / WORLD_FAMILIES + 400);
    free(q);
}

static void draws_repeat(void **state)
{
    (void)state;
    world_question *a = draw(WORLD_TEST), *b = draw(WORLD_TEST);
    assert_memory_equal(a, b, DRAWS * sizeof *a);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_share_no_question),
        cmocka_unit_test(answers_are_right_and_mistakes_wrong),
        cmocka_unit_test(draws_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
