/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "plugins/tasks/world.h"

#include <sluice/random.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const world_family_names[WORLD_FAMILIES + 1] = {"add",   "subtract", "larger", "reverse", "sort",
                                                            "count", "copy",     "letter", NULL};
const char *const world_split_names[WORLD_SPLITS + 1] = {"corpus", "train", "validation", "test", NULL};

void world_random_at(world_random *r, uint64_t seed, uint64_t purpose, uint64_t index)
{
    sluice_draw draw = {.seed = seed, .record = index, .purpose = purpose};
    sluice_draw_place(&draw, r->key, r->counter);
    r->used = 4;
}

static uint32_t next_word(world_random *r)
{
    if (r->used == 4) {
        sluice_philox(r->key, r->counter, r->words);
        r->counter[0]++;
        r->used = 0;
    }
    return r->words[r->used++];
}

uint32_t world_below(world_random *r, uint32_t bound)
{
    /* Lemire's multiplication; the bias of 2^-32 · bound is far below anything measured here. */
    return (uint32_t)(((uint64_t)next_word(r) * bound) >> 32);
}

/* Six parts in ten for the base model's corpus, a quarter for preference training, the rest to measure on. */
enum world_split world_split_of(uint64_t content)
{
    uint64_t share = sluice_mix(content, UINT64_C(0x776f726c64)) % 40;
    return share < 24 ? WORLD_CORPUS : share < 34 ? WORLD_TRAIN : share < 37 ? WORLD_VALIDATION : WORLD_TEST;
}

static uint64_t content_of(int family, const char *operands)
{
    return sluice_mix(sluice_random_name(operands, strlen(operands)), (uint64_t)family + 1);
}

static void random_letters(world_random *r, char *out, int length, int alphabet)
{
    for (int i = 0; i < length; i++)
        out[i] = (char)('a' + world_below(r, (uint32_t)alphabet));
    out[length] = 0;
}

/* A number that is off in a way sums go wrong: by one, by ten, or with two digits swapped. */
static void wrong_number(world_random *r, long right, char *out, size_t size)
{
    static const int off[] = {1, -1, 10, -10, 2, -2, 9, -9};
    long wrong = right + off[world_below(r, 8)];
    if (world_below(r, 4) == 0 && right >= 10 && right % 10 != right / 10 % 10)
        wrong = right / 100 * 100 + right % 10 * 10 + right / 10 % 10;
    if (wrong < 0 || wrong == right)
        wrong = right + 1;
    snprintf(out, size, "%ld", wrong);
}

/* A word with one careless mistake: two neighbours swapped, a letter changed, lost or doubled. */
static void wrong_word(world_random *r, const char *right, char *out, size_t size)
{
    size_t n = strlen(right);
    for (;;) {
        snprintf(out, size, "%s", right);
        size_t at = world_below(r, (uint32_t)n);
        switch (world_below(r, 4)) {
        case 0:
            if (at + 1 < n) {
                out[at] = right[at + 1];
                out[at + 1] = right[at];
            }
            break;
        case 1:
            out[at] = (char)('a' + world_below(r, 26));
            break;
        case 2:
            if (n > 1)
                memmove(out + at, out + at + 1, n - at);
            break;
        default:
            if (n + 2 < size) {
                memmove(out + at + 1, out + at, n - at + 1);
                break;
            }
        }
        if (strcmp(out, right) != 0)
            return;
    }
}

static int compare_letters(const void *a, const void *b)
{
    return *(const char *)a - *(const char *)b;
}

static void ask(world_random *r, world_question *q, const char *const *wordings, size_t count, const char *a,
                const char *b)
{
    const char *w = wordings[world_below(r, (uint32_t)count)];
    size_t at = 0;
    for (; *w && at + 1 < sizeof q->prompt; w++) {
        const char *operand = *w == '@' ? a : *w == '#' ? b : NULL;
        if (operand)
            at += (size_t)snprintf(q->prompt + at, sizeof q->prompt - at, "%s", operand);
        else
            q->prompt[at++] = *w;
    }
    q->prompt[at < sizeof q->prompt ? at : sizeof q->prompt - 1] = 0;
}

#define ASK(r, q, wordings, a, b) ask(r, q, wordings, sizeof(wordings) / sizeof *(wordings), a, b)

static void draw_numbers(world_random *r, world_question *q)
{
    static const char *const adds[] = {"What is @ + #?", "Add @ and #.", "@ plus # is?"};
    static const char *const subtracts[] = {"What is @ - #?", "Take # from @.", "@ minus # is?"};
    static const char *const largers[] = {"Which is larger, @ or #?", "The larger of @ and #?"};
    char a[24], b[24], operands[48];
    long x = 1 + (long)world_below(r, 99), y = 1 + (long)world_below(r, 9), right;
    if (q->family == WORLD_LARGER) {
        y = 1 + (long)world_below(r, 99);
        if (x == y)
            y = x < 99 ? x + 1 : 1;
    }
    if (q->family == WORLD_SUBTRACT && x < y) {
        long z = x;
        x = y;
        y = z;
    }
    snprintf(a, sizeof a, "%ld", x);
    snprintf(b, sizeof b, "%ld", y);
    bool ordered = q->family == WORLD_SUBTRACT;
    snprintf(operands, sizeof operands, "%ld %ld", ordered || x < y ? x : y, ordered || x < y ? y : x);
    q->content = content_of(q->family, operands);
    switch (q->family) {
    case WORLD_ADD:
        right = x + y;
        break;
    case WORLD_SUBTRACT:
        right = x - y;
        break;
    default:
        right = x > y ? x : y;
    }
    snprintf(q->answer, sizeof q->answer, "%ld", right);
    if (q->family == WORLD_LARGER)
        snprintf(q->wrong, sizeof q->wrong, "%ld", x > y ? y : x);
    else
        wrong_number(r, right, q->wrong, sizeof q->wrong);
    if (q->family == WORLD_ADD)
        ASK(r, q, adds, a, b);
    else if (q->family == WORLD_SUBTRACT)
        ASK(r, q, subtracts, a, b);
    else
        ASK(r, q, largers, a, b);
}

static void draw_letters(world_random *r, world_question *q)
{
    static const char *const reverses[] = {"Reverse @.", "Spell @ backwards.", "@ from back to front?"};
    static const char *const sorts[] = {"Sort the letters of @.", "@ in alphabetical order?"};
    static const char *const copies[] = {"Repeat @.", "Say @ again.", "Copy this: @"};
    static const char *const letters[] = {"The # letter of @?", "Which letter of @ is #?"};
    static const char *const counts[] = {"How many # in @?", "Count the # in @."};
    char word[16], letter[2] = {0, 0}, operands[40];
    if (q->family == WORLD_COUNT) {
        random_letters(r, word, 3 + (int)world_below(r, 4), 3);
        letter[0] = (char)('a' + world_below(r, 3));
    } else {
        random_letters(r, word, 3 + (int)world_below(r, 3), 26);
    }
    const char *which = letter;
    if (q->family == WORLD_LETTER)
        which = world_below(r, 2) ? "first" : "last";
    snprintf(operands, sizeof operands, "%s %s", word, which);
    q->content = content_of(q->family, operands);
    size_t n = strlen(word);
    snprintf(q->answer, sizeof q->answer, "%s", word);
    if (q->family == WORLD_REVERSE) {
        for (size_t i = 0; i < n; i++)
            q->answer[i] = word[n - 1 - i];
        ASK(r, q, reverses, word, letter);
    } else if (q->family == WORLD_SORT) {
        qsort(q->answer, n, 1, compare_letters);
        ASK(r, q, sorts, word, letter);
    } else if (q->family == WORLD_COPY) {
        ASK(r, q, copies, word, letter);
    } else if (q->family == WORLD_LETTER) {
        size_t right = which[0] == 'f' ? 0 : n - 1, other = (right + 1 + world_below(r, (uint32_t)n - 1)) % n;
        snprintf(q->answer, sizeof q->answer, "%c", word[right]);
        snprintf(q->wrong, sizeof q->wrong, "%c",
                 word[other] != word[right] ? word[other]
                 : word[right] == 'a'       ? 'b'
                                            : 'a');
        ASK(r, q, letters, word, which);
        return;
    } else {
        int count = 0;
        for (size_t i = 0; i < n; i++)
            count += word[i] == letter[0];
        snprintf(q->answer, sizeof q->answer, "%d", count);
        ASK(r, q, counts, word, letter);
        wrong_number(r, count, q->wrong, sizeof q->wrong);
        return;
    }
    wrong_word(r, q->answer, q->wrong, sizeof q->wrong);
}

void world_draw(world_random *r, const int *families, size_t count, enum world_split split, world_question *out)
{
    out->family = families[world_below(r, (uint32_t)count)];
    do {
        if (out->family == WORLD_ADD || out->family == WORLD_SUBTRACT || out->family == WORLD_LARGER)
            draw_numbers(r, out);
        else
            draw_letters(r, out);
    } while (world_split_of(out->content) != split);
}
