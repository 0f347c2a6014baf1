/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "plugins/judge-combine/combine.h"

#include <math.h>

static void z_scores(const double *scores, size_t count, double *out)
{
    double n = 0, mean = 0, squares = 0;
    for (size_t i = 0; i < count; i++)
        if (!isnan(scores[i])) {
            n++;
            mean += (scores[i] - mean) / n;
        }
    for (size_t i = 0; i < count; i++)
        if (!isnan(scores[i]))
            squares += (scores[i] - mean) * (scores[i] - mean);
    double deviation = n > 0 ? sqrt(squares / n) : 0;
    for (size_t i = 0; i < count; i++)
        out[i] = isnan(scores[i]) ? NAN : deviation > 0 ? (scores[i] - mean) / deviation : 0;
}

static void ranks(const double *scores, size_t count, double *out)
{
    for (size_t i = 0; i < count; i++) {
        double below = 0, others = 0;
        for (size_t j = 0; j < count; j++)
            if (j != i && !isnan(scores[j])) {
                others++;
                below += scores[j] < scores[i] ? 1 : scores[j] == scores[i] ? 0.5 : 0;
            }
        out[i] = isnan(scores[i]) ? NAN : others > 0 ? below / others : 0.5;
    }
}

void combine_normalize(int how, const double *scores, size_t count, double *out)
{
    if (how == COMBINE_PROMPT)
        z_scores(scores, count, out);
    else if (how == COMBINE_RANK)
        ranks(scores, count, out);
    else
        for (size_t i = 0; i < count; i++)
            out[i] = scores[i];
}

/* One answer by all methods but the lexicographic: its scores are `stride` apart. */
static double combine_one(const combine_rule *rule, const double *scores, size_t stride, size_t judges)
{
    double sum = 0, weighed = 0, all = 0, least = INFINITY, n = 0, mean = 0, squares = 0;
    for (size_t j = 0; j < judges; j++) {
        double s = scores[j * stride], w = rule->method == COMBINE_SUM ? rule->weights[j] : 1;
        all += fabs(w);
        if (isnan(s)) {
            if (!rule->skip_missing)
                return NAN;
            continue;
        }
        double before = s - mean;
        n++;
        mean += before / n;
        squares += before * (s - mean);
        least = s < least ? s : least;
        weighed += fabs(w);
        sum += w * s;
    }
    if (n == 0)
        return NAN;
    if (rule->method == COMBINE_MIN)
        return least;
    if (rule->method == COMBINE_MEAN_STD)
        return mean - rule->penalty * sqrt(squares / n);
    /* Without those that are missing, as if they had given the others' weighted mean. */
    return weighed == all ? sum : weighed > 0 ? sum * all / weighed : NAN;
}

/* Whether an answer takes part in the lexicographic order. */
static bool takes_part(const combine_rule *rule, const double *scores, size_t judges, size_t count, size_t i)
{
    size_t there = 0;
    for (size_t j = 0; j < judges; j++)
        there += !isnan(scores[j * count + i]);
    return there == judges || (there > 0 && rule->skip_missing);
}

/* Best first by one judge, those without a score last; equal ones stay as they are. */
static void sort(const double *scores, size_t *order, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        size_t item = order[i], at = i;
        double s = isnan(scores[item]) ? -INFINITY : scores[item];
        for (; at > 0 && (isnan(scores[order[at - 1]]) ? -INFINITY : scores[order[at - 1]]) < s; at--)
            order[at] = order[at - 1];
        order[at] = item;
    }
}

/* Orders the answers order[0 … n-1] by the judges in turn. In the order by a judge, those within `tolerance` of the
 * best of their group are tied, and the next judge decides among them; `below` of the answers rank lower than all of
 * them. An answer's score is the number that rank lower, ties counting half. */
static void decide(const combine_rule *rule, const double *scores, size_t judges, size_t count, size_t *order, size_t n,
                   size_t below, double *out)
{
    if (judges == 0) {
        for (size_t i = 0; i < n; i++)
            out[order[i]] = (double)below + (double)(n - 1) / 2;
        return;
    }
    sort(scores, order, n);
    for (size_t first = 0, end; first < n; first = end) {
        double best = scores[order[first]];
        for (end = first + 1; end < n; end++) {
            double s = scores[order[end]];
            if (isnan(best) ? !isnan(s) : isnan(s) || best - s > rule->tolerance)
                break;
        }
        decide(rule, scores + count, judges - 1, count, order + first, end - first, below + (n - end), out);
    }
}

void combine_scores(const combine_rule *rule, const double *scores, size_t judges, size_t count, size_t *order,
                    double *out)
{
    size_t n = 0;
    if (rule->method != COMBINE_LEXICOGRAPHIC) {
        for (size_t i = 0; i < count; i++)
            out[i] = combine_one(rule, scores + i, count, judges);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        out[i] = NAN;
        if (takes_part(rule, scores, judges, count, i))
            order[n++] = i;
    }
    decide(rule, scores, judges, count, order, n, 0, out);
    for (size_t i = 0; i < count; i++)
        out[i] = n > 1 ? out[i] / (double)(n - 1) : out[i] + 0.5;
}
