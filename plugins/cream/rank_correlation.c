/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include "plugins/cream/rank_correlation.h"

/* Pairs i < j, by how the two sides order them. */
struct agreement {
    double agree, differ; /* untied on both sides */
    double tied_x, tied_y;
    double pairs;
};

static struct agreement count(const double *x, const double *y, size_t n)
{
    struct agreement a = {0};
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++) {
            int sx = (x[i] > x[j]) - (x[i] < x[j]), sy = (y[i] > y[j]) - (y[i] < y[j]);
            a.agree += sx * sy > 0;
            a.differ += sx * sy < 0;
            a.tied_x += sx == 0;
            a.tied_y += sy == 0;
            a.pairs += 1;
        }
    return a;
}

bool rank_distinct(const double *x, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (x[i] != x[0])
            return true;
    return false;
}

double rank_kendall_a(const double *x, const double *y, size_t n)
{
    if (!rank_distinct(x, n) || !rank_distinct(y, n))
        return NAN;
    struct agreement a = count(x, y, n);
    return (a.agree - a.differ) / a.pairs;
}

double rank_kendall_b(const double *x, const double *y, size_t n)
{
    if (!rank_distinct(x, n) || !rank_distinct(y, n))
        return NAN;
    struct agreement a = count(x, y, n);
    return (a.agree - a.differ) / sqrt((a.pairs - a.tied_x) * (a.pairs - a.tied_y));
}

double rank_untied(const double *x, const double *y, size_t n)
{
    struct agreement a = count(x, y, n);
    return a.agree + a.differ > 0 ? (a.agree - a.differ) / (a.agree + a.differ) : NAN;
}

/* Twice the mean rank of x[i], less n + 1: exact in integers, and centred on 0. */
static double centred_rank(const double *x, size_t n, size_t i)
{
    double rank = 0;
    for (size_t j = 0; j < n; j++)
        rank += (x[j] < x[i]) - (x[j] > x[i]);
    return rank;
}

double rank_spearman(const double *x, const double *y, size_t n)
{
    double xy = 0, xx = 0, yy = 0;
    if (!rank_distinct(x, n) || !rank_distinct(y, n))
        return NAN;
    for (size_t i = 0; i < n; i++) {
        double rx = centred_rank(x, n, i), ry = centred_rank(y, n, i);
        xy += rx * ry;
        xx += rx * rx;
        yy += ry * ry;
    }
    return xy / sqrt(xx * yy);
}

bool rank_same_extremes(const double *x, const double *y, size_t n)
{
    size_t best = 0, worst = 0;
    for (size_t i = 1; i < n; i++) {
        if (x[i] > x[best])
            best = i;
        if (x[i] < x[worst])
            worst = i;
    }
    for (size_t i = 0; i < n; i++)
        if (y[i] > y[best] || y[i] < y[worst])
            return false;
    return true;
}

void rank_ordinal(const double *x, size_t n, double *rank)
{
    for (size_t i = 0; i < n; i++) {
        size_t below = 0;
        for (size_t j = 0; j < n; j++)
            below += x[j] < x[i] || (x[j] == x[i] && j < i);
        rank[i] = (double)(below + 1);
    }
}
