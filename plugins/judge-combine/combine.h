/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * One score from several judges' scores of the same answers.
 *
 * Scores are [judges][count], row after row, NaN where a judge gave none. Functions work in double, need no memory and
 * do not fail.
 */
#ifndef JUDGE_COMBINE_H
#define JUDGE_COMBINE_H

#include <stdbool.h>
#include <stddef.h>

enum combine_method { COMBINE_SUM, COMBINE_MIN, COMBINE_LEXICOGRAPHIC, COMBINE_MEAN_STD };
enum combine_normalize { COMBINE_RAW, COMBINE_PROMPT, COMBINE_RANK };

typedef struct combine_rule {
    int method;
    const double *weights; /* [judges], of COMBINE_SUM */
    double penalty;        /* of COMBINE_MEAN_STD */
    double tolerance;      /* of COMBINE_LEXICOGRAPHIC */
    bool skip_missing;     /* a judge without a score is left out; otherwise the answer gets none */
} combine_rule;

/* Puts one judge's scores of one record on a common scale. COMBINE_PROMPT: (s - mean) / standard deviation over the
 * answers that have a score (divided by their number), 0 where all are equal. COMBINE_RANK: the share of the others
 * that score lower, equal ones counting half, so 0 … 1; 1/2 where there is no other. NaN stays. out may not be scores.
 */
void combine_normalize(int how, const double *scores, size_t count, double *out);
/* out[count]: the combined score, NaN where there is none. `order` is room for count indices. */
void combine_scores(const combine_rule *, const double *scores, size_t judges, size_t count, size_t *order,
                    double *out);

#endif
