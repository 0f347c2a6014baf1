/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What choosing the best of N is worth, expected over all C(n, N) ways to take N of n candidates: from one sample of n
 * the whole curve, without drawing.
 */
#ifndef BEST_OF_N_EXPECTED_H
#define BEST_OF_N_EXPECTED_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct expected_item {
    double score, truth; /* score -INFINITY = none: chosen only among its like */
    uint32_t index;
};

static int expected_compare(const void *a, const void *b)
{
    const struct expected_item *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return x->index > y->index ? -1 : x->index < y->index; /* of equal ones the earlier counts as better */
}

/* Worst first. */
static inline void expected_sort(struct expected_item *items, size_t n)
{
    qsort(items, n, sizeof *items, expected_compare);
}

/* C(m, N) / C(n, N): how likely all N taken are among m of the n. N ≤ n. */
static inline double expected_within(size_t m, size_t n, size_t taken)
{
    double p = 1;
    for (size_t k = 0; k < taken; k++)
        p *= m > k ? (double)(m - k) / (double)(n - k) : 0;
    return p;
}

/* The choice falls into the ties [a, b) of the sorted items when all N are among the first b, but not all among the
 * first a; it is then any of them. */
static inline double expected_best(const struct expected_item *items, size_t n, size_t taken)
{
    double sum = 0, before = 0;
    for (size_t a = 0, b; a < n; a = b) {
        double truth = 0;
        for (b = a; b < n && items[b].score == items[a].score; b++)
            truth += items[b].truth;
        double within = expected_within(b, n, taken);
        sum += (within - before) * truth / (double)(b - a);
        before = within;
    }
    return sum;
}

/* Truth of 0 or 1: one of N is right unless all N are wrong. Any truth: the same over its values, largest first. */
static inline double expected_oracle(const struct expected_item *items, size_t n, size_t taken)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) { /* E max = Σ over values, by how many lie below; ties by position */
        size_t below = 0;
        for (size_t j = 0; j < n; j++)
            below += items[j].truth < items[i].truth || (items[j].truth == items[i].truth && j < i);
        sum += items[i].truth * (expected_within(below + 1, n, taken) - expected_within(below, n, taken));
    }
    return sum;
}

#endif
