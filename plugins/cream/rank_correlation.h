/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * How far two judges agree on the order of the same n candidates.
 *
 * x[i] and y[i] are the two judges' scores of candidate i; larger is better; all finite. Correlations lie in [-1, 1]
 * and are NaN where they are undefined: fewer than two candidates, or a judge whose scores are all equal (for
 * rank_untied: no two candidates that both judges tell apart). n is small (answers to one prompt): all of these are
 * O(n^2) and need no memory.
 */
#ifndef CREAM_RANK_CORRELATION_H
#define CREAM_RANK_CORRELATION_H

#include <stdbool.h>
#include <stddef.h>

/* Are there two different scores among them? */
bool rank_distinct(const double *x, size_t n);

/* Kendall's tau-a, 2/(n(n-1)) times the sum over i < j of sign agreement: a tie on either side counts 0. */
double rank_kendall_a(const double *x, const double *y, size_t n);
/* Kendall's tau-b: the same sum, normalised by the number of untied pairs on each side (scipy.stats.kendalltau). */
double rank_kendall_b(const double *x, const double *y, size_t n);
/* Tied pairs left out altogether (Goodman and Kruskal's gamma). */
double rank_untied(const double *x, const double *y, size_t n);
/* Spearman's rho with mean ranks for ties (scipy.stats.spearmanr). */
double rank_spearman(const double *x, const double *y, size_t n);
/* Do both agree on the best and on the worst? The first of x's best must be among y's best, and likewise the worst. */
bool rank_same_extremes(const double *x, const double *y, size_t n);

/* Ranks 1 … n, worst first, ties by index (scipy.stats.rankdata, method 'ordinal'), as CREAM's published code ranks. */
void rank_ordinal(const double *x, size_t n, double *rank);

#endif
